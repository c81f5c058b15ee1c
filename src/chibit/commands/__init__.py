"""The verbs of the command line: each parses its flags, calls the library and prints what came of it."""

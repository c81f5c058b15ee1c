"""What can be said of a policy without a simulator: it is played in a model learned from the log.

What was measured of it, and where it fails, is in docs/judging.md.
"""

"""Reading run directories of others, strictly."""

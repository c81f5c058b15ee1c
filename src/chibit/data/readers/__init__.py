"""One file a format: from files of others to checked columns."""

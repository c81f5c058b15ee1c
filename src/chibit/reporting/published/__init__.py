"""Published numbers, for comparison."""

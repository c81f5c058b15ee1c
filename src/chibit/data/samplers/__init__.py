"""Batches from a data set, one gather each."""

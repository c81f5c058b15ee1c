"""Environments: which may be built, how, and what their returns mean."""

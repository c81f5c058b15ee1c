"""Estimates, intervals and what may be concluded."""

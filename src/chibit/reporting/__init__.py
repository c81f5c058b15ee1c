"""Reads run directories and writes tables, figures and pages; imports no torch."""

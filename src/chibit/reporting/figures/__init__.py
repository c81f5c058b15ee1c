"""Figures as SVG, films and attention maps."""

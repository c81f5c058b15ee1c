"""The version of the package: here and nowhere else; `pyproject.toml` takes it from here."""

__version__ = "0.2.0.dev0"

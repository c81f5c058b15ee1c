"""Errors that a user can cause, each with its exit code; the command line prints their one line."""

from __future__ import annotations


class UserError(Exception):
    """A refusal in one line: the file or field, what was given, what was expected, what to do."""

    exit_code: int = 2


class InputError(UserError, ValueError):
    """Bad input or usage (exit code 2)."""

    exit_code = 2


class DamagedFileError(UserError):
    """A file that is damaged or cannot be trusted (exit code 3)."""

    exit_code = 3


class ResourceError(UserError):
    """Out of disk space, memory, permission or another resource (exit code 4)."""

    exit_code = 4


class BusyError(ResourceError):
    """Another process works on it; exit code 4 as for other resources."""


class DivergenceError(UserError):
    """A loss or gradient became NaN or infinite (exit code 5)."""

    exit_code = 5
    rows: tuple[int, ...] = ()
    """Rows of the store that the batch came from, where the error came from a batch."""

"""Errors that a user can cause, each with its exit code; the command line prints their one line."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

_REMEDIES = {
    errno.ENOSPC: "free some space or choose another folder with --out",
    errno.EDQUOT: "the disk quota is used up; free some space or choose another folder",
    errno.EFBIG: "a file-size limit was reached; raise it or choose another folder",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.EACCES: "no permission; choose a folder you may write to",
    errno.EPERM: "no permission; choose a folder you may write to",
    errno.EMFILE: "too many open files; raise the limit with ulimit -n",
    errno.ENFILE: "too many open files on this machine; close some programs",
    errno.EIO: "the disk reports an error; check it",
    errno.ENOMEM: "out of memory; close some programs",
}
_OUT_OF_RESOURCES = _REMEDIES.keys() - {errno.EACCES, errno.EPERM}


_LONGEST_LINE = 1200


def one_line(text: str) -> str:
    """A message as any terminal, log or page can show it.

    Args:
        text: may quote names and values from files and command lines.

    Returns:
        The same, with what cannot be printed (line breaks, control characters, marks that turn the direction
        of writing) escaped as in Python, and with its middle left out where it is long.
    """
    shown = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
    if len(shown) <= _LONGEST_LINE:
        return shown
    half = _LONGEST_LINE // 2
    return f"{shown[:half]} ... {shown[-half:]}"


def shown(value: object) -> str:
    """A value as it stands in a message, in at most 80 characters."""
    if isinstance(value, int) and value.bit_length() > 63:
        return f"an integer of {value.bit_length()} bits"  # Python refuses to print the longest ones
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else text[:77] + "..."


def first_line(error: BaseException) -> str:
    """What a library's error says first, in at most 200 characters; its class where it says nothing."""
    lines = str(error).split("\n")
    return next((line.strip()[:200] for line in lines if line.strip()), type(error).__name__)


class UserError(Exception):
    """A refusal in one line: the file or field, what was given, what was expected, what to do."""

    exit_code: int = 2

    def __str__(self) -> str:
        return one_line(super().__str__())


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
    step: int | None = None
    """Steps taken before it, where it came from a step."""
    rows: tuple[int, ...] = ()
    """Rows of the store that the batch came from, where the error came from a batch."""


def resource_error(path: Path | str, error: OSError) -> ResourceError:
    """One line for an operating-system refusal: what could not be written, why, and what to do."""
    remedy = _REMEDIES.get(error.errno or 0, "check the disk and the folder")
    return ResourceError(f"{path}: cannot write ({error.strerror or error}); {remedy}")


def read_error(
    path: Path | str, error: OSError, kind: type[UserError] = InputError, remedy: str = "check the path"
) -> UserError:
    """One line for a file that cannot be read: a `ResourceError` where the machine is the reason."""
    if error.errno in _OUT_OF_RESOURCES:
        return ResourceError(f"{path}: cannot read ({error.strerror}); {_REMEDIES[error.errno]}")
    if isinstance(error, FileNotFoundError):
        what = "is a link to a file that is not there" if os.path.islink(path) else "no such file"
        return kind(f"{path}: {what}; {remedy}")
    return kind(f"{path}: cannot read ({error.strerror or error}); {remedy}")


def is_out_of_resources(error: OSError) -> bool:
    """Whether the machine, and not what was asked for, is the reason."""
    return error.errno in _OUT_OF_RESOURCES


@contextlib.contextmanager
def needing(extra: str, what: str, otherwise: str = "") -> Iterator[None]:
    """Refuse where an import fails, naming what needs it, the extra that brings it, and what else to do."""
    try:
        yield
    except ImportError as error:
        remedy = f"pip install 'chibit[{extra}]'{otherwise and f'; {otherwise}'}"
        raise InputError(f"{what} needs the extra {extra}: {remedy}") from error

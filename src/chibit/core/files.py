"""Writing without loss and naming without surprise: atomic files and folders, hashes, checked names.

A write goes to a temporary name beside its target, is flushed to the disk, and is renamed over the target;
the folder is flushed as well, so that after a power failure either the old or the new content is there,
whole.
"""

from __future__ import annotations

import contextlib
import ctypes
import difflib
import errno
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from chibit.core.errors import InputError, ResourceError, UserError

_NAME_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_MAX_NAME_LENGTH = 200
TEMPORARY_PREFIX = ".tmp-"
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of Linux's renameat2
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
    return kind(f"{path}: cannot read ({error.strerror or error}); {remedy}")


def is_out_of_resources(error: OSError) -> bool:
    """Whether the machine, and not what was asked for, is the reason."""
    return error.errno in _OUT_OF_RESOURCES


def flush(path: Path) -> None:
    """Flush a file's content, or a folder's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> Path:
    """Create a folder and its parents; ResourceError in one line where that is not allowed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise InputError(f"{folder}: a file is in the way of this folder; choose another --out") from error
    except OSError as error:
        raise resource_error(folder, error) from error
    return folder


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a whole file or nothing.

    Args:
        path: target file; its folder must exist.
        data: bytes, or text written as UTF-8.

    Raises:
        ResourceError: when the system refuses (space, permission, quota); the old file is then untouched.
    """
    payload = data.encode() if isinstance(data, str) else data
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{os.getpid()}-{path.name}")
    try:
        with open(temporary, "wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        flush(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise resource_error(path, error) from error


@contextlib.contextmanager
def atomic_folder(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """Fill a folder that appears under its name only when it is whole.

    Args:
        path: final name. Its parents are created.
        replace: change places with an existing folder of that name and remove it then; without it, the folder
            that is there already wins and ours is dropped (concurrent writers of the same content).

    Yields:
        A temporary sibling folder to write into.
    """
    make_folder(path.parent)
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f"{TEMPORARY_PREFIX}{path.name}-", dir=path.parent))
        temporary.chmod(0o777 & ~_umask())
    except OSError as error:
        raise resource_error(path, error) from error
    try:
        yield temporary
        # All at once: the disk then writes its journal once or twice, and not once a file.
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(flush, [temporary, *temporary.rglob("*")]))
        if replace and path.exists():
            _exchange(temporary, path)
        else:
            _rename_unless_present(temporary, path)
        flush(path.parent)
    except OSError as error:
        raise resource_error(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _rename_unless_present(temporary: Path, path: Path) -> None:
    try:
        os.rename(temporary, path)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise


def _exchange(temporary: Path, path: Path) -> None:
    """Let two folders change names in one step, so that there is no moment without one at `path`.

    Only Linux can do it; elsewhere, and on file systems that cannot, the old one is moved away first.
    """
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is not None:
        here = ctypes.c_int(_AT_FDCWD)
        names = os.fsencode(temporary), os.fsencode(path)
        if renameat2(here, names[0], here, names[1], ctypes.c_uint(_RENAME_EXCHANGE)) == 0:
            return
    old = path.with_name(f"{TEMPORARY_PREFIX}old-{os.getpid()}-{path.name}")
    os.replace(path, old)
    os.replace(temporary, path)
    shutil.rmtree(old, ignore_errors=True)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal, read in blocks of 1 MiB."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def check_name(name: str, what: str) -> str:
    """Admit a name that may become part of a path: letters, digits and ``. _ + -``, single slashes between.

    Args:
        name: the name as given by a user or found in a file.
        what: what it names, for the message, for example "data set".

    Returns:
        The same name.

    Raises:
        InputError: for anything that could leave a folder or confuse a shell, a log or a page.
    """
    parts = name.split("/")
    if len(name) > _MAX_NAME_LENGTH or not all(_NAME_PART.fullmatch(part) for part in parts):
        shown = repr(name if len(name) <= 60 else name[:60] + "...")
        raise InputError(
            f"{what} name {shown} is not allowed; use letters, digits and . _ + -, at most {_MAX_NAME_LENGTH}"
        )
    return name


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for an unknown name: ``; did you mean 'hopper-medium'?`` or the empty string."""
    matches = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(repr(match) for match in matches)}?" if matches else ""

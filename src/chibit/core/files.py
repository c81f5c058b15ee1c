"""The guarded ways to read and to write: regular files only, whole or not at all, hashed, with checked names.

Reading: `open_regular` and what is built on it. A pipe, a device, a folder, a link to nothing, and what lies
outside of the folder it should be in are refused in one line, and none of them is waited for.

Writing: a write goes to a temporary name beside its target, is flushed to the disk, and is renamed over the
target; the folder is flushed as well, so that after a power failure either the old or the new content is
there, whole. Temporary names are locked by who writes them: what a killed process left behind is swept by
the next writer, what a living one is writing never.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import hashlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BufferedReader
from pathlib import Path
from typing import IO

from chibit.core import platform
from chibit.core.errors import DamagedFileError, InputError, UserError, shown
from chibit.core.errors import is_out_of_resources as is_out_of_resources
from chibit.core.errors import read_error as read_error
from chibit.core.errors import resource_error as resource_error
from chibit.core.platform import flush as flush
from chibit.core.temporary import TEMPORARY_PREFIX, claim_file, claim_folder, close, sweep_leftovers

_NAME_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
MAX_NAME_LENGTH = 200
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def open_regular(
    path: Path,
    *,
    inside: Path | None = None,
    most: int | None = None,
    kind: type[UserError] = InputError,
    remedy: str = "check the path",
) -> BufferedReader:
    """Open a regular file for reading; the one way in which this package opens what it did not just write.

    Args:
        path: the file; links are followed.
        inside: a folder in which the file must lie once all links are followed.
        most: bytes it may have at most.
        kind: class of the refusal.
        remedy: what to do about it.

    Raises:
        UserError: of `kind`, where there is no such file, it may not be read, is a folder, a pipe, a socket
            or a device, or lies outside of `inside`.
        DamagedFileError: where it is larger than `most`.
    """
    try:
        target = path if inside is None else _resolve_inside(path, inside, kind, remedy)
        # Looked at before it is opened, since opening a device may act on it, and after, since it may have
        # changed in between.
        _require_regular(os.stat(target), path, kind, remedy)
        file = os.fdopen(os.open(target, os.O_RDONLY | platform.OPEN_FLAGS), "rb")
    except UserError:
        raise
    except ValueError as error:  # a NUL in the name
        raise kind(f"{str(path)[:80]!r}: not a file's name ({error}); {remedy}") from error
    except OSError as error:
        raise read_error(path, error, kind, remedy) from error
    try:
        status = os.fstat(file.fileno())
        _require_regular(status, path, kind, remedy)
        if most is not None and status.st_size > most:
            raise DamagedFileError(
                f"{path}: {status.st_size:,} bytes, more than any file of its kind; {remedy}"
            )
        if not status.st_size and file.peek(1) and not os.fstat(file.fileno()).st_size:
            raise kind(f"{path}: its size is not known, expected a regular file; {remedy}")  # as in /proc
    except OSError as error:
        file.close()
        raise read_error(path, error, kind, remedy) from error
    except BaseException:
        file.close()
        raise
    return file


def read_regular(
    path: Path,
    *,
    most: int,
    inside: Path | None = None,
    kind: type[UserError] = InputError,
    remedy: str = "check the path",
) -> bytes:
    """The content of a regular file of at most so many bytes; arguments and errors as of `open_regular`.

    Of a file that grows meanwhile, what it held when it was opened.
    """
    with open_regular(path, inside=inside, most=most, kind=kind, remedy=remedy) as file:
        try:
            return file.read(os.fstat(file.fileno()).st_size)
        except OSError as error:
            raise read_error(path, error, kind, remedy) from error


def require_inside(path: Path, folder: Path, remedy: str) -> None:
    """Refuse a path that leads out of a folder once all links are followed, or nowhere."""
    try:
        _resolve_inside(path, folder, InputError, remedy)
    except OSError as error:
        raise read_error(path, error, InputError, remedy) from error


def links_within(folder: Path) -> Path:
    """Where the files of a model or a data set must lie once links are followed: in its own folder.

    Where that is, or is in, a snapshot in the Hub's cache: in the repository's, whose files lie beside the
    snapshots.
    """
    place = folder.absolute()
    for snapshot in (place, *place.parents):
        repository = snapshot.parent.parent
        if snapshot.parent.name == "snapshots" and (repository / "blobs").is_dir():
            return repository
    return folder


def user_path(name: str | Path) -> Path:
    """The path that a user's name stands for, with the home folder for `~`.

    Raises:
        InputError: where it is no path, the system takes no such name, as one of more than 255 bytes, or
            knows no home.
    """
    given = os.fspath(name) if isinstance(name, os.PathLike) else name
    if not isinstance(given, str) or "\0" in given:
        raise InputError(f"got {shown(name)}, expected a path")
    path = Path(os.path.expanduser(name))
    if path.parts[:1] == ("~",):
        raise InputError(f"{path}: this user has no home folder; set HOME, or name another folder")
    try:
        path.exists()
    except OSError as error:
        raise read_error(str(path)[:300], error) from error
    return path


def list_folder(path: Path, *, inside: Path) -> list[Path]:
    """Entries of a folder, sorted; InputError where it leads out of `inside`, it is not looked into then."""
    require_inside(path, inside, "remove the link")
    try:
        return sorted(path.iterdir())
    except OSError as error:
        raise read_error(path, error) from error


def check_regular(
    path: Path,
    *,
    inside: Path | None = None,
    kind: type[UserError] = InputError,
    remedy: str = "check the path",
) -> int:
    """Refuse as `open_regular` does, for libraries that take nothing but a path; gives the size in bytes."""
    with open_regular(path, inside=inside, kind=kind, remedy=remedy) as file:
        return os.fstat(file.fileno()).st_size


def _require_regular(status: os.stat_result, path: Path, kind: type[UserError], remedy: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        what = next((name for test, name in _KINDS if test(status.st_mode)), "something else")
        raise kind(f"{path}: is {what}, expected a regular file; {remedy}")


def _resolve_inside(path: Path, folder: Path, kind: type[UserError], remedy: str) -> str:
    target, root = os.path.realpath(path, strict=True), os.path.realpath(folder, strict=True)
    if not Path(target).is_relative_to(root):
        raise kind(f"{path}: leads out of {folder}, expected a file in it; {remedy}")
    return target


def check_can_make(folder: Path) -> None:
    """Refuse a folder that could not be made or written into, without making it; as `make_folder` does."""
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(place))
    if not there.is_dir():
        raise _in_the_way(folder, there)
    if not os.access(there, os.W_OK | os.X_OK):
        raise resource_error(folder, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))


def make_folder(folder: Path) -> Path:
    """Create a folder and its parents; ResourceError in one line where that is not allowed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        there = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
        raise _in_the_way(folder, there) from error
    except ValueError as error:  # a NUL in the name
        raise InputError(f"{str(folder)[:80]!r}: not a folder's name ({error})") from error
    except OSError as error:
        raise resource_error(folder, error) from error
    return folder


def _in_the_way(folder: Path, there: Path) -> InputError:
    what = "a link that leads nowhere" if there.is_symlink() and not there.exists() else "a file"
    return InputError(f"{folder}: {there} is {what} and in the way of this folder; choose another --out")


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a whole file or nothing.

    Args:
        path: target file; its folder must exist.
        data: bytes, or text written as UTF-8.

    Raises:
        ResourceError: when the system refuses (space, permission, quota); the old file is then untouched.
    """
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(data.encode() if isinstance(data, str) else data)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Let a file take its name only when it is whole.

    Yields:
        A temporary name beside `path`, of an empty file, to write to.

    Raises:
        InputError: where `path` is a folder, or a pipe or device, which a new file would do away with.
        ResourceError: when the system refuses; what is under `path` is then untouched.
    """
    try:
        if path.exists():
            _require_regular(path.stat(), path, InputError, "choose another name")
        temporary, descriptor = claim_file(path.parent, path.suffix)
    except OSError as error:
        raise resource_error(path, error) from error
    try:
        yield temporary
        flush(temporary)
        os.replace(temporary, path)
        flush(path.parent)
    except OSError as error:
        raise resource_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
        close(descriptor)


def create(path: Path) -> IO[bytes]:
    """A new file to write to, in a folder that is not under its final name yet."""
    return open(path, "xb")


def extend(path: Path, size: int) -> IO[bytes]:
    """A file to write on from its first `size` bytes, what follows them is dropped; made where it is not."""
    file = os.fdopen(_open_log(path), "ab")
    file.truncate(size)
    return file


def append(path: Path, text: str) -> None:
    """Add text to the end of a log; ResourceError where the system refuses.

    What UTF-8 lacks, as in the names of some files, is written as an escape.
    """
    try:
        with os.fdopen(_open_log(path), "a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError as error:
        raise resource_error(path, error) from error


def _open_log(path: Path) -> int:
    """A descriptor at a file's end; a link is not followed, for it may lead to somebody else's file."""
    return os.open(
        path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | platform.NO_LINKS | platform.OPEN_FLAGS, 0o666
    )


@contextlib.contextmanager
def atomic_folder(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """Fill a folder that appears under its name only when it is whole.

    Args:
        path: final name. Its parents are created.
        replace: change places with an existing folder of that name. Entries of it that the new one has are
            removed, all others move over. Without it, the folder that is there already wins and ours is
            dropped (concurrent writers of the same content).

    Yields:
        A temporary sibling folder to write into.
    """
    make_folder(path.parent)
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: a file is in the way of this folder; choose another --out")
    sweep_leftovers(path.parent)
    try:
        temporary, descriptor = claim_folder(path.parent, 0o777)
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
        close(descriptor)


def move(path: Path, target: Path) -> None:
    """Give a file or folder another name, in place of a file that has it; ResourceError where it cannot."""
    try:
        os.replace(path, target)
    except OSError as error:
        raise resource_error(target, error) from error


def _rename_unless_present(temporary: Path, path: Path) -> None:
    try:
        os.rename(temporary, path)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise


def _exchange(temporary: Path, path: Path) -> None:
    """Let two folders change names, in one step where the system can, and keep what only the old one had."""
    new = {entry.name for entry in temporary.iterdir()}
    old = temporary
    if not platform.exchange(temporary, path):
        old = path.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}")
        os.replace(path, old)
        os.replace(temporary, path)
    if old.is_symlink():
        old.unlink()
        return
    for entry in old.iterdir():
        if entry.name not in new:
            os.rename(entry, path / entry.name)
    shutil.rmtree(old, ignore_errors=True)


def sha256_file(path: Path, *, inside: Path | None = None) -> str:
    """SHA-256 of a regular file's content, in hexadecimal; as `open_regular`."""
    with open_regular(path, inside=inside) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
    parts = name.split("/") if isinstance(name, str) else [""]
    if not all(map(_NAME_PART.fullmatch, parts)) or len(name) > MAX_NAME_LENGTH:
        raise InputError(
            f"{what} name {shown(name)} is not allowed; use letters, digits and . _ + -, "
            f"at most {MAX_NAME_LENGTH}"
        )
    return name


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for an unknown name: ``; did you mean 'hopper-medium'?`` or the empty string."""
    names, given = list(known), str(name)
    matches = [one for one in names if one.lower() == given.lower()]
    matches = matches or difflib.get_close_matches(given, names, n=3, cutoff=0.65)
    return f"; did you mean {' or '.join(repr(match) for match in matches)}?" if matches else ""

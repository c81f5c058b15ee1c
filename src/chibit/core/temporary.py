"""Temporary names, and locks: what a killed process left behind is swept, what a living one holds is not.

Whoever fills a temporary file or folder holds a lock on it, which the system lets go of when the process
ends, however it ends.
"""

from __future__ import annotations

import contextlib
import glob
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator
from pathlib import Path

from chibit.core import platform
from chibit.core.errors import resource_error

TEMPORARY_PREFIX = ".tmp-chibit-"
_UNLOCKED_SECONDS = 86_400


@contextlib.contextmanager
def open_locked(path: Path, *, wait: bool) -> Iterator[bool]:
    """Hold the lock that a file stands for; the system lets go of it when the process ends, however it ends.

    Args:
        path: the lock's file; it is made where there is none, and stays.
        wait: until the lock is free.

    Yields:
        Whether it is held; only without `wait` may another process have it.
    """
    flags = os.O_RDWR | os.O_CREAT | platform.NO_LINKS | platform.OPEN_FLAGS
    while True:
        try:
            descriptor = os.open(path, flags, 0o666)
        except OSError as error:
            raise resource_error(path, error) from error
        try:
            try:
                is_ours = platform.lock(descriptor, wait=wait)
                is_current = not is_ours or _has_name(descriptor, path)
            except OSError as error:
                raise resource_error(path, error) from error
            if is_current:
                yield is_ours
                return
        finally:
            os.close(descriptor)


def _has_name(descriptor: int, path: Path) -> bool:
    """Whether an open file is still the one of this name: who held its lock before may have removed it."""
    if not platform.can_lock_folders():  # Windows removes no file that is open
        return True
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def temporary_folder(parent: Path | None = None) -> Iterator[Path]:
    """A folder that is gone afterwards.

    Args:
        parent: where to; None is the system's place for such things.
    """
    place = Path(tempfile.gettempdir()) if parent is None else parent
    sweep_leftovers(place)
    try:
        temporary, descriptor = claim_folder(place)
    except OSError as error:
        raise resource_error(place, error) from error
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        close(descriptor)


def sweep_leftovers(folder: Path) -> None:
    """Remove what writers that are dead left in a folder; what a living one holds is locked, and stays."""
    if not platform.can_lock_folders():
        return
    with contextlib.suppress(OSError):
        for leftover in folder.glob(f"{TEMPORARY_PREFIX}*"):
            with contextlib.suppress(OSError):  # another process may be faster, or another user's
                descriptor = os.open(leftover, os.O_RDONLY | platform.NO_LINKS | platform.OPEN_FLAGS)
                try:
                    if platform.lock(descriptor, wait=False):
                        remove(leftover)
                finally:
                    os.close(descriptor)


def sweep_unlocked(path: Path, files: Collection[str]) -> None:
    """Remove what version 0.1, which took no locks, left beside a folder that it was killed while filling.

    Args:
        path: the folder; that version filled `.tmp-NAME-` with eight more characters beside it.
        files: all that may be in it, as paths below it. A folder that holds anything else stays, and one in
            which something has changed within a day.
    """
    for leftover in path.parent.glob(f".tmp-{glob.escape(path.name)}-{'?' * 8}"):
        with contextlib.suppress(OSError):
            inside = list(leftover.rglob("*"))
            is_known = {entry.relative_to(leftover).as_posix() for entry in inside} <= set(files)
            changed = max(entry.lstat().st_mtime for entry in (leftover, *inside))
            if leftover.is_dir() and is_known and changed < time.time() - _UNLOCKED_SECONDS:
                remove(leftover)


def remove(path: Path) -> None:
    """Remove a file, or a folder and all that is in it, without following links; what cannot be, stays."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def claim_folder(parent: Path, mode: int = 0o700) -> tuple[Path, int | None]:
    """A new temporary folder, locked for as long as the descriptor is open; the umask narrows its mode."""
    while True:
        temporary = parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}"
        os.mkdir(temporary, mode)
        if not platform.can_lock_folders():
            return temporary, None
        try:
            descriptor = os.open(temporary, os.O_RDONLY)
        except FileNotFoundError:  # a sweeper was faster
            continue
        if _is_claimed(temporary, descriptor):
            return temporary, descriptor
        os.close(descriptor)


def claim_file(parent: Path, suffix: str) -> tuple[Path, int | None]:
    """A new temporary file, locked for as long as the descriptor is open."""
    while True:
        temporary = parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}{suffix[:20]}"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        if not platform.can_lock_folders():  # Windows moves no file that is open
            os.close(descriptor)
            return temporary, None
        if _is_claimed(temporary, descriptor):
            return temporary, descriptor
        os.close(descriptor)


def _is_claimed(path: Path, descriptor: int) -> bool:
    """Lock it; False where a sweeper was faster, in the moment between making and locking."""
    with contextlib.suppress(OSError):  # a file system without locks
        platform.lock(descriptor, wait=True)
    return path.exists()


def close(descriptor: int | None) -> None:
    """Let go of what `claim_folder` or `claim_file` gave."""
    if descriptor is not None:
        os.close(descriptor)

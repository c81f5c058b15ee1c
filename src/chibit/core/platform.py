"""What differs between operating systems, in one place. Linux is tested; elsewhere the fallbacks below act.

locks         `flock`, on Windows `msvcrt` (files only, so leftovers of killed writers stay there)
limits        `setrlimit`; without it the readers' processes have no limits of memory and time
exchange      `renameat2` of Linux; without it there is a moment without the folder
fsync         of folders where the system allows it
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from chibit.core.signals import PASSED_ON

_fcntl: Any
_msvcrt: Any
_resource: Any
try:
    import fcntl as _fcntl
except ImportError:
    _fcntl = None
try:
    import msvcrt as _msvcrt
except ImportError:
    _msvcrt = None
try:
    import resource as _resource
except ImportError:
    _resource = None

OPEN_FLAGS: int = sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC", "O_BINARY"))
"""For reading what may not be a file: without waiting, without becoming anybody's terminal."""
NO_LINKS: int = getattr(os, "O_NOFOLLOW", 0)
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of Linux's renameat2
_PR_SET_PDEATHSIG = 1  # of Linux's prctl
_ASSUMED_MEMORY = 8 << 30
_MEMORY = {2: ("memory.max", "anon"), 1: ("memory.limit_in_bytes", "total_rss")}
"""By version of control groups: the file of the limit, and the name of memory in use."""
_CORES = {2: ("cpu.max",), 1: ("cpu.cfs_quota_us", "cpu.cfs_period_us")}
"""By version of control groups: the files of the time that may be taken, and of what period."""


def send_nowhere(stream: Any) -> None:
    """Drop what a stream of the process still holds, and whatever is written to it from now on."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def lock(descriptor: int, *, wait: bool) -> bool:
    """Take an exclusive lock that ends with the process.

    Args:
        descriptor: of an open file, or of a folder where the system can lock those.
        wait: until it is free; without it, False is given where another process has it.

    Returns:
        Whether it was taken; True without a lock where the system has none.
    """
    try:
        if _fcntl is not None:
            _fcntl.flock(descriptor, _fcntl.LOCK_EX | (0 if wait else _fcntl.LOCK_NB))
        elif _msvcrt is not None:
            os.lseek(descriptor, 0, os.SEEK_SET)
            _msvcrt.locking(descriptor, _msvcrt.LK_LOCK if wait else _msvcrt.LK_NBLCK, 1)
    except BlockingIOError:
        return False
    except OSError:
        if _fcntl is not None:
            raise
        return False
    return True


def can_lock_folders() -> bool:
    """Whether a folder's own descriptor can be locked."""
    return _fcntl is not None


def flush(path: Path) -> None:
    """Flush a file's content, or a folder's entries where the system can, to the disk."""
    try:
        descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    except PermissionError:
        if os.name == "nt":  # it opens no folders
            return
        raise
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def exchange(one: Path, other: Path) -> bool:
    """Let two entries of file systems change names in one step; False where that cannot be done."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, TypeError, OSError):
        return False
    here = ctypes.c_int(_AT_FDCWD)
    names = os.fsencode(one), os.fsencode(other)
    return bool(renameat2(here, names[0], here, names[1], ctypes.c_uint(_RENAME_EXCHANGE)) == 0)


def total_memory() -> int:
    """Bytes of this machine's memory, or what a container or a job may take of it.

    8 GiB where the system does not say.
    """
    try:
        there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        there = _ASSUMED_MEMORY
    return min([there, *(limit for limit, _ in memory_limits())])


def memory_limits(root: Path = Path("/sys/fs/cgroup")) -> list[tuple[int, int]]:
    """Limits of the control groups around this process, which containers and batch systems set; Linux only.

    Args:
        root: where both versions of control groups show theirs.

    Returns:
        Of each group the bytes that it may take, and those that its processes have taken, without files that
        the system only remembers.
    """
    found = []
    for version, group in _control_groups("memory", root):
        limit, taken = _MEMORY[version]
        most = "".join(kernel_table(str(group / limit)))
        lines = kernel_table(str(group / "memory.stat"))
        used = [int(line.split()[1]) for line in lines if line.startswith(f"{taken} ")]
        found += [(int(most), sum(used))] if most.isdigit() else []
    return found


def core_limits(root: Path = Path("/sys/fs/cgroup")) -> list[int]:
    """Cores whose time the control groups around this process may take, rounded up; Linux only."""
    found = []
    for version, group in _control_groups("cpu", root):
        text = " ".join(" ".join(kernel_table(str(group / name))) for name in _CORES[version])
        quota, period = text.split() if len(text.split()) == 2 else ("max", "")
        found += [-(-int(quota) // int(period))] if quota.isdigit() and int(period or 0) else []
    return found


def _control_groups(controller: str, root: Path) -> Iterator[tuple[int, Path]]:
    """Version and folder of each control group around this process."""
    for line in kernel_table("/proc/self/cgroup"):
        _, kinds, own = line.split(":", 2)
        if kinds and controller not in kinds.split(","):
            continue
        folder = controller if kinds else ""
        group = root / folder / own.strip("/")
        for each in (group, *group.parents[: len(Path(own).parts) - 1]):
            yield (1 if kinds else 2), each


def available_cores() -> int:
    """Cores that this process may use, or whose time a container or a job may take of them; at least 1."""
    try:
        there = len(os.sched_getaffinity(0))
    except AttributeError:  # Linux alone says which
        there = os.cpu_count() or 1
    return max(1, min([there, *core_limits()]))


def give_huge_pages() -> None:
    """Let processes that are started from here take memory in huge pages, unless the user has said otherwise.

    glibc reads it when a program starts; elsewhere, and where the kernel gives none, it changes nothing.
    Training steps on a CPU took 1 to 4 % less time so (docs/log.md).
    """
    os.environ.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")


def give_memory_back() -> None:
    """Give the system what is not in use any more, for processes that train one run after the other.

    Simulators lie in circles of references and hold megabytes of which Python knows nothing, and glibc keeps
    what is freed between blocks in use: a process grew from 1.9 to 4 GB within 40 short runs in mazes.
    Without glibc only circles are looked for.
    """
    gc.collect()
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def limit_data(num_bytes: int) -> Callable[[], None]:
    """Let allocations beyond this many bytes fail; gives the function that takes the limit back."""
    if _resource is None:
        return lambda: None
    before = _resource.getrlimit(_resource.RLIMIT_DATA)
    if before[1] == _resource.RLIM_INFINITY or num_bytes < before[1]:
        _resource.setrlimit(_resource.RLIMIT_DATA, (num_bytes, before[1]))
    return lambda: _resource.setrlimit(_resource.RLIMIT_DATA, before)


def die_with_parent() -> None:
    """End this process when its parent ends, however that ends; Linux only."""
    with contextlib.suppress(AttributeError, TypeError, OSError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))


@contextlib.contextmanager
def interrupts_held_back() -> Iterator[None]:
    """Ctrl-C and `PASSED_ON` wait; a process that is started within begins so until `take_interrupts`."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, PASSED_ON])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def take_interrupts() -> None:
    """In a process of a pool: leave the group that a terminal interrupts, then let the signals through."""
    if hasattr(os, "setpgrp"):
        os.setpgrp()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT, PASSED_ON])


def kernel_table(path: str) -> list[str]:
    """Lines of one of Linux's tables below /proc; none elsewhere."""
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []

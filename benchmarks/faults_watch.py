"""Do something in a forked process and see all that it does: files, processes, connections, memory, time.

Python's audit events tell what the interpreter is asked for, and what would leave the place is refused there
as a machine with other rights and no network would refuse it. What libraries do behind Python's back the
kernel reports: every touch of a folder that nothing may touch, and the memory that was held.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import hashlib
import json
import os
import re
import resource
import select
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CPU_SECONDS, IDLE_SECONDS, WALL_SECONDS = 10.0, 5.0, 120.0
"""A process hangs that used so much processor time, or used none for so long, or lived for so long."""
STOPPED_AFTER = 2.0
"""Seconds of processor time after which one that may go on for long is asked to stop, as by Ctrl-C."""
BUDGET_MEGABYTES, MEGABYTES = 512, 768
"""Memory that the machine is said to have to spare, and the most that a process, or one that it started, may
hold beyond what it began with: estimates need not be exact."""
_LETHAL_MEGABYTES = 1500
_HOMES = {"stores", "centers", "corpora", "language_models", "atari", "d4rl", "dqn_replay"}
_EVENTS, _CHANGES, _NONBLOCK = 0xFFF, 0xFC6, 0o4000  # of inotify: all, all that change something
_FOREIGN = re.compile(r".*wandb|cc\w+\.(s|o|res|ld)$")
"""Temporary files of libraries and compilers that were stopped."""
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_STARTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.forkpty")
_CHANGING = {
    "os.rename": 2, "os.remove": 1, "os.rmdir": 1, "os.mkdir": 1, "os.truncate": 1, "os.chmod": 1,
    "os.chown": 1, "shutil.rmtree": 1,
}  # fmt: skip
"""Audit events of changes, and how many of their arguments are paths."""
_LINK_ITSELF = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.symlink", "os.link")
"""Those that change the link where a path ends in one, and not what it leads to."""


@dataclass
class Seen:
    """How it ended and what was seen on the way."""

    code: int
    """Exit code; minus the signal's number if one ended it."""
    message: str
    """What it wrote on standard error."""
    value: str = ""
    """Hash of what it gave back, where it gave something that is no exit code."""
    executed: list[str] = field(default_factory=list)
    """Processes that are not our own, and connections."""
    outside: list[str] = field(default_factory=list)
    """Files touched that are not below the place, and temporary ones left behind."""
    megabytes: int = 0
    """Most memory that it, or a process it started, held beyond what it began with."""
    hung: bool = False


class Place:
    """A folder that may be written, beside two that may not: one of secrets, and a user's home."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.work, self.home, self.temporary = (self.root / name for name in ("work", "home", "tmp"))
        self.outside, self.user = self.root / "outside", self.root / "user"
        for folder in (self.outside / "folder", self.user / ".config"):
            folder.mkdir(parents=True)
        for path in (
            self.outside / "secret.mp4",
            self.outside / "folder" / "secret.json",
            self.user / "notes",
        ):
            path.write_bytes(b"\0\0\0\x18ftypmp42 secret " * 50)
        self._digest = self._sentinels()
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._inotify = self._libc.inotify_init1(_NONBLOCK)
        for folder in (self.outside, self.outside / "folder"):
            self._add(folder, _EVENTS)
        for folder in (self.user, self.user / ".config"):
            self._add(folder, _CHANGES)

    def _add(self, folder: Path, mask: int) -> None:
        assert self._libc.inotify_add_watch(self._inotify, os.fsencode(folder), mask) >= 0

    def empty(self) -> None:
        """Begin anew with nothing in it."""
        for folder in (self.work, self.home, self.temporary):
            _remove(folder)
            folder.mkdir()

    @contextlib.contextmanager
    def watched(self, seen: list[str], may_be_read: bool) -> Iterator[None]:
        """Add to `seen` what happens to the folders that nothing may touch, and what is left behind."""
        self._read_events(False)  # what is there is our own doing
        yield
        seen += sorted(f"touched {name}" for name in set(self._read_events(may_be_read)))
        found = self._sentinels()
        if found != self._digest:
            seen.append("secrets or home changed")
        self._digest = found

    def leftovers(self) -> set[str]:
        """Temporary files, and folders of our home that no page names."""
        found = [entry.name for entry in os.scandir(self.temporary) if not _FOREIGN.match(entry.name)]
        found += [entry.name for entry in os.scandir(self.home) if entry.name not in _HOMES]
        for folder in (self.work, self.home):
            for _, folders, files in os.walk(os.fsencode(folder)):
                found += [os.fsdecode(name) for name in (*folders, *files) if name.startswith(b".tmp-")]
        return {f"left {name}" for name in found}

    def _sentinels(self) -> str:
        digest = hashlib.sha256()
        for folder in (self.outside, self.user):
            for path in sorted(folder.rglob("*")):
                digest.update(str((path, path.lstat().st_mode)).encode())
                digest.update(path.read_bytes() if path.is_file() else b"")
        return digest.hexdigest()

    def _read_events(self, may_be_read: bool) -> list[str]:
        try:
            events = os.read(self._inotify, 1 << 18)
        except BlockingIOError:
            return []
        names = []
        while events:
            _, mask, _, length = struct.unpack_from("iIII", events)
            name = events[16 : 16 + length].rstrip(b"\0").decode(errors="replace")
            if mask & _CHANGES or not may_be_read:
                names.append(f"{name or 'the folder'} ({mask & 0xFFFF:#x})")
            events = events[16 + length :]
        return names


def run(
    action: Callable[[], Any],
    place: Place,
    *,
    named: Sequence[str] = (),
    may_be_stopped: bool = False,
    may_follow_links: bool = False,
) -> Seen:
    """Run an action in a forked process.

    Args:
        action: gives an exit code, None, or anything else, whose hash is kept.
        place: where it may write.
        named: texts of a command line; writing below one of them is refused by the system, but is no misdeed.
        may_be_stopped: it may be work that goes on; after `STOPPED_AFTER` it is asked to stop, and once more.
        may_follow_links: what is outside may be read, though not changed.
    """
    said, outside = place.root / "said", []
    said.write_bytes(b"")
    before = place.leftovers()
    read, write = os.pipe()
    with place.watched(outside, may_follow_links):
        pid = os.fork()
        if pid == 0:
            os.close(read)
            _child(action, place, named, said, write)
        os.close(write)
        hung, huge = _wait(pid, may_be_stopped)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        with contextlib.suppress(ProcessLookupError):  # they end when they see that it has
            deadline = time.monotonic() + (0.0 if hung or huge else IDLE_SECONDS)
            while time.monotonic() < deadline:
                os.killpg(pid, 0)
                time.sleep(0.05)
            os.killpg(pid, signal.SIGKILL)
            outside += ["left a process"] if not hung and not huge else []
    report = b""
    while piece := os.read(read, 1 << 16):
        report += piece
    os.close(read)
    seen = Seen(status, said.read_text(errors="replace"), outside=outside, hung=hung)
    if report:
        told = json.loads(report)
        seen.value, seen.executed, seen.megabytes = told["value"], told["executed"], told["megabytes"]
        seen.outside += [*told["outside"], *(place.leftovers() - before if status >= 0 else ())]
    if huge:
        seen.megabytes = _LETHAL_MEGABYTES
    return seen


def _wait(pid: int, may_be_stopped: bool) -> tuple[bool, bool]:
    """Wait for a process and end one that hangs or takes too much; whether it was the one or the other."""
    descriptor = os.pidfd_open(pid)
    begin = busy = time.monotonic()
    first = _resident(pid)
    used, stopped, seconds = 0.0, 0, 0.005
    try:
        while not select.select([descriptor], [], [], seconds)[0]:
            seconds, now = 0.03, time.monotonic()
            latest = _processor_seconds(pid)
            busy, used = (now, latest) if latest > used else (busy, used)
            huge = _resident(pid) - first > _LETHAL_MEGABYTES << 20
            hung = used > CPU_SECONDS or now - busy > IDLE_SECONDS or now - begin > WALL_SECONDS
            if huge or hung:
                os.kill(pid, signal.SIGKILL)
                return hung, huge
            # The first request lets a step in hand be finished, the second does not.
            if may_be_stopped and used > STOPPED_AFTER * (1 + 2 * stopped) and stopped < 2:
                os.kill(pid, signal.SIGTERM)
                stopped += 1
    finally:
        os.close(descriptor)
    return False, False


def _family(pid: int) -> list[int]:
    """A process and those that it started."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(each for child in children for each in _family(int(child)))]


def _processor_seconds(pid: int) -> float:
    total = 0.0
    for each in _family(pid):
        with contextlib.suppress(OSError, IndexError):
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            total += sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return total


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
    except (OSError, IndexError):
        return 0


def _child(action: Any, place: Place, named: Sequence[str], said: Path, report: int) -> None:
    """The child's whole life."""
    code, value, begin, watch = 1, "", 0, _Watch(place)
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for stream, descriptor in ((0, null), (1, null), (2, os.open(said, os.O_WRONLY | os.O_APPEND))):
            os.dup2(descriptor, stream)
        # As Python itself opens them: what cannot be encoded is an error on the one and escaped on the other.
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
        sys.stdout = sys.__stdout__ = open(1, "w", closefd=False, encoding="utf-8")  # type: ignore[misc]  # noqa: SIM115
        sys.stderr = sys.__stderr__ = open(  # type: ignore[misc]  # noqa: SIM115
            2, "w", closefd=False, encoding="utf-8", errors="backslashreplace"
        )
        _settle(place)
        gc.freeze()  # what was left behind before is not freed now, in place of what the action takes
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        begin, begin_files = _status_kilobytes("VmRSS"), _status_kilobytes("RssFile")
        watch.allow(named)
        sys.addaudithook(watch)
        code, value = _outcome(action)
    except BaseException:
        traceback.print_exc()
    finally:
        watch.is_on = False
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
        # What is said of a child begins with what its parent held when it was forked.
        held = max(_status_kilobytes("VmHWM"), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
        # Pages of shared libraries that a forked process looks at again are no memory it takes.
        held -= max(0, _status_kilobytes("RssFile") - begin_files)
        told = {"value": value, "executed": watch.executed[:9], "outside": watch.outside[:9]}
        _write_all(report, json.dumps({**told, "megabytes": (held - begin) // 1024}).encode())
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        with contextlib.suppress(Exception):
            sys.stderr.flush()
        os._exit(code)


def _settle(place: Place) -> None:
    """Surroundings of its own: the folder it is in, its homes, no network to speak of, no waits for disks."""
    os.chdir(place.work)
    os.environ.update(
        CHIBIT_HOME=str(place.home), HOME=str(place.user), TMPDIR=str(place.temporary), WANDB_MODE="disabled"
    )
    import tempfile

    from chibit.core import memory, runtime

    tempfile.tempdir = None
    memory.memory_budget = runtime.total_memory = lambda: BUDGET_MEGABYTES << 20
    os.fsync = lambda descriptor: None  # type: ignore[assignment]


def _outcome(action: Callable[[], Any]) -> tuple[int, str]:
    from chibit.core.errors import UserError

    try:
        result = action()
    except UserError as error:
        print(f"chibit: {error}", file=sys.stderr)
        return error.exit_code, ""
    except SystemExit as error:
        return (error.code if isinstance(error.code, int) else 0 if error.code is None else 1), ""
    if result is None or isinstance(result, int):
        return result or 0, ""
    return 0, hashlib.sha256(repr(result).encode()).hexdigest()


def _write_all(descriptor: int, content: bytes) -> None:
    while content:
        content = content[os.write(descriptor, content[: 1 << 15]) :]


class _Watch:
    """An audit hook that notes what must not happen and lets the system's refusal be seen instead."""

    def __init__(self, place: Place) -> None:
        self.executed: list[str] = []
        self.outside: list[str] = []
        self.is_on = True
        self._allowed = [str(path) for path in (place.work, place.home, place.temporary)]
        self._allowed += ["/dev/null", "/proc/self", f"/proc/{os.getpid()}", "/dev/shm/sem.", "/dev/shm/pym-"]
        self._allowed += ["/tmp/torchinductor_"]  # where PyTorch keeps what it has compiled
        self._named: list[str] = []

    def allow(self, named: Sequence[str]) -> None:
        """Take writing below these paths for what was asked for; the system refuses it all the same."""
        for text in named:
            with contextlib.suppress(ValueError, OSError):  # no path
                # Of a file that was asked for, the temporary one beside it too.
                self._named += [os.path.realpath(text), os.path.dirname(os.path.realpath(text))]

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.is_on:
            return
        if event == "open":
            path, mode, flags = arguments
            fails = (flags or 0) & os.O_NOFOLLOW and os.path.islink(path)
            writes = (isinstance(mode, str) and set(mode) & set("wax+")) or (flags or 0) & _WRITING
            if writes and not fails:
                self._check("write", path)
        elif event == "os.mkdir" and os.path.lexists(arguments[0]):
            return  # which fails
        elif event in _CHANGING:
            folder = arguments[-1] if event in ("os.remove", "os.rmdir", "os.mkdir") else -1
            for path in arguments[: _CHANGING[event]]:
                at = f"/proc/self/fd/{folder}/" if isinstance(folder, int) and folder >= 0 else ""
                self._check(event, path if isinstance(path, int) else at + os.fsdecode(path))
        elif event in ("os.symlink", "os.link"):
            self._check(event, arguments[1])
        elif event in _STARTS and not _is_our_own(arguments):
            self.executed.append(f"{event} {str(arguments[:2])[:300]}")
        elif event in ("socket.getaddrinfo", "urllib.Request") or (
            event == "socket.connect" and isinstance(arguments[1], tuple)
        ):
            raise OSError(101, "Network is unreachable")

    def _check(self, what: str, path: Any) -> None:
        if isinstance(path, int) or path is None:
            return
        text = os.fsdecode(path)
        real = os.path.realpath(text)
        if what in _LINK_ITSELF:
            real = os.path.join(os.path.realpath(os.path.dirname(text) or "."), os.path.basename(text))
        if real.endswith(".pyc") or "__pycache__" in real or real.startswith(tuple(self._allowed)):
            return
        if not any(real.startswith(named) for named in self._named):
            self.outside.append(f"{what} {real[:300]}")
        raise PermissionError(13, "Permission denied", os.fsdecode(path))


def _is_our_own(arguments: tuple[Any, ...]) -> bool:
    """Whether a process is a converter, a worker of Python's own pool, the film's, git or a compiler."""
    program = [str(part) for part in arguments[1]] if len(arguments) > 1 else []
    code = " ".join(program[:5])
    is_converter = program[1:2] == ["-I"] and (
        "from chibit.data.readers.sandbox import main" in code or program[2].endswith("unpickler.py")
    )
    is_worker = "from multiprocessing" in code or "mujoco.Renderer(" in code
    return is_converter or is_worker or "ffmpeg" in code or program[:1] in (["git"], ["g++"])


def _status_kilobytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith(name + ":")), 0)


def _remove(folder: Path) -> None:
    """Remove a folder with whatever is in it, links and pipes too."""
    import shutil

    shutil.rmtree(os.fsencode(folder), ignore_errors=True)

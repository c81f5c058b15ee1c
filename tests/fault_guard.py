"""Run something in a process of its own and see all that it does: files, processes, sockets, memory.

Python's audit events tell what the interpreter is asked for. What libraries do behind its back is seen from
outside: the kernel reports every touch of a folder that nothing may touch.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import resource
import signal
import struct
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chibit.cli import main
from chibit.core.errors import UserError

MEGABYTES, TRAINING_MEGABYTES = 256, 600
"""Most that a refusal may add to a process's memory; the second where a model was trained before."""
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_PROCESSES = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.forkpty")
_CHANGES = (
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.mkdir",
    "os.link",
    "os.symlink",
    "os.truncate",
    "os.chmod",
)
_IN_OPEN, _IN_ALL, _IN_NONBLOCK = 0x20, 0xFFF, 0o4000
_TIMEOUT_SECONDS = 250


@dataclass(frozen=True)
class Verdict:
    """How it ended and what was seen on the way."""

    code: int
    """Exit code; minus the signal's number if one ended it."""
    output: str
    """What it wrote on standard output."""
    message: str
    """What it wrote on standard error."""
    misdeeds: tuple[str, ...]
    """Files written outside, processes started, connections made."""
    megabytes: float
    """Most memory that it, or a process it started, held beyond what it began with."""


def command(*arguments: Any) -> Callable[[], int]:
    """A command line, to be run with `guarded`."""
    return lambda: main([str(argument) for argument in arguments])


def guarded(action: Callable[[], Any], folder: Path, before: Callable[[], Any] | None = None) -> Verdict:
    """Run an action in a forked process that may write in one folder only.

    Args:
        action: gives an exit code, or anything else for 0.
        folder: where it may write.
        before: run first, in the same process, unwatched.
    """
    names = {name: folder / f".{name}-{os.urandom(4).hex()}" for name in ("out", "err", "report")}
    pid = os.fork()
    if pid == 0:
        _child(action, before, folder, names)
    deadline = threading.Timer(_TIMEOUT_SECONDS, os.kill, (pid, signal.SIGKILL))
    deadline.start()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    deadline.cancel()
    deadline.join()
    texts = {name: path.read_text() if path.exists() else "" for name, path in names.items()}
    for path in names.values():
        path.unlink(missing_ok=True)
    misdeeds, megabytes = json.loads(texts["report"]) if texts["report"] else ([], 0.0)
    return Verdict(status, texts["out"], texts["err"], tuple(misdeeds), megabytes)


def _child(action: Any, before: Any, folder: Path, names: dict[str, Path]) -> None:
    """The child's whole life."""
    code = 1
    try:
        for stream, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(names[name], os.O_WRONLY | os.O_CREAT), stream)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        if before is not None:
            before()
        gc.freeze()  # what was left behind before is not freed now, in place of what the action takes
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        begin, begin_files = _status_kilobytes("VmRSS"), _status_kilobytes("RssFile")
        misdeeds: list[str] = []
        _watch(misdeeds, (folder.resolve(), Path("/dev/null"), Path("/proc/self")))
        try:
            result = action()
            code = result if isinstance(result, int) else 0
        except UserError as error:
            print(f"chibit: {error}", file=sys.stderr)
            code = error.exit_code
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
        resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
        # What is said of a child begins with what its parent held when it was forked.
        of_children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        # Pages of shared libraries that a forked process looks at again are no memory it takes.
        looked_at = max(0, _status_kilobytes("RssFile") - begin_files)
        most = (max(_status_kilobytes("VmHWM"), of_children) - looked_at - begin) / 1024
        names["report"].write_text(json.dumps([misdeeds, most]))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _watch(misdeeds: list[str], places: tuple[Path, ...]) -> None:
    def is_inside(path: Any) -> bool:
        if isinstance(path, int) or path is None:
            return True
        resolved = Path(os.path.realpath(os.fsdecode(path)))
        in_temporary = resolved.parent == Path("/tmp") or "/.tmp-chibit-" in str(resolved)
        is_bytecode = resolved.suffix == ".pyc" or "__pycache__" in resolved.parts
        return in_temporary or is_bytecode or any(resolved.is_relative_to(place) for place in places)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = arguments
            writes = (isinstance(mode, str) and set(mode) & set("wax+")) or (flags or 0) & _WRITING
            if writes and not is_inside(path):
                misdeeds.append(f"writes {path!r}")
        elif event in _CHANGES and not all(map(is_inside, _changed(event, arguments))):
            misdeeds.append(f"{event} {arguments!r}")
        elif event in _PROCESSES and not _is_our_own(arguments):
            misdeeds.append(f"{event} {arguments[:2]!r}")
        elif event in ("socket.connect", "socket.bind", "urllib.Request"):
            misdeeds.append(f"{event} {arguments[1:]!r}")

    sys.addaudithook(hook)


def _changed(event: str, arguments: tuple[Any, ...]) -> list[str]:
    """Paths that a system call changes; one that is relative to an open folder begins with that."""
    paths = (
        arguments[:2] if event == "os.rename" else arguments[1:2] if event == "os.symlink" else arguments[:1]
    )
    in_folder = event in ("os.remove", "os.rmdir", "os.mkdir") and arguments[-1] >= 0
    start = f"/proc/self/fd/{arguments[-1]}/" if in_folder else ""
    return [start + os.fsdecode(path) for path in paths]


def _is_our_own(arguments: tuple[Any, ...]) -> bool:
    """Whether a process is one of the two converters, or git asked for the commit."""
    program = [str(part) for part in arguments[1]] if len(arguments) > 1 else []
    is_converter = program[1:2] == ["-I"] and (
        "from chibit.data.readers.sandbox import main" in " ".join(program[:4])
        or program[2].endswith("unpickler.py")
    )
    return is_converter or program[:1] == ["git"]


def _status_kilobytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name + ":"))


@contextlib.contextmanager
def untouched(folder: Path) -> Iterator[None]:
    """Fail if anything in a folder is opened, read, changed or listed, by whatever process and library."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(_IN_NONBLOCK)
    for place in (folder, *folder.rglob("*")):
        if place.is_dir():
            assert libc.inotify_add_watch(descriptor, os.fsencode(place), _IN_ALL) >= 0
    try:
        yield
        try:
            events = os.read(descriptor, 1 << 16)
        except BlockingIOError:
            events = b""
    finally:
        os.close(descriptor)
    seen = []
    while events:
        _, mask, _, length = struct.unpack_from("iIII", events)
        seen.append((hex(mask), events[16 : 16 + length].rstrip(b"\0").decode()))
        events = events[16 + length :]
    assert not seen, f"{folder} was touched: {seen}"


def assert_refused(verdict: Verdict, code: int, *parts: str, megabytes: int = MEGABYTES) -> None:
    """One line with these parts, this exit code, no misdeed, little memory; more where a model is trained."""
    assert verdict.code == code, verdict
    lines = [line for line in verdict.message.splitlines() if not line.startswith("converting ")]
    assert len(lines) == 1, verdict.message
    assert lines[0].startswith("chibit: ")
    for part in parts:
        assert part in lines[0], (part, lines[0])
    assert verdict.misdeeds == ()
    assert verdict.megabytes < megabytes, verdict

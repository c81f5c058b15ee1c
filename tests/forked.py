"""Programs in processes forked from that of the tests, which has imported what takes a new one seconds."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from chibit.cli import main


class Forked:
    """A running process; its output and messages go to files until it has ended."""

    def __init__(
        self,
        action: Callable[[], Any],
        folder: Path,
        *,
        environment: Mapping[str, str] | None = None,
        new_session: bool = False,
    ) -> None:
        """Start it.

        Args:
            action: gives an exit code, or anything else for 0.
            folder: where its output is kept.
            environment: variables that it has besides.
            new_session: whether it leads a group of processes, as one started in a terminal does.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._files = [folder / f"{name}-{os.urandom(4).hex()}" for name in ("output", "messages")]
        self.pid = os.fork()
        if self.pid == 0:
            _live(action, self._files, environment or {}, new_session)

    def send_signal(self, number: int) -> None:
        """Send a signal to it alone."""
        os.kill(self.pid, number)

    def wait(self) -> tuple[int, str, str]:
        """Exit code (minus a signal's number), output and messages, once it has ended."""
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        output, messages = (path.read_text() for path in self._files)
        return code, output, messages


def forked_command(*arguments: Any, folder: Path, **process: Any) -> Forked:
    """A command line of chibit; further arguments are those of `Forked`."""
    return Forked(lambda: main([str(argument) for argument in arguments]), folder, **process)


def _live(
    action: Callable[[], Any], files: list[Path], environment: Mapping[str, str], new_session: bool
) -> NoReturn:
    code = 1
    try:
        if new_session:
            os.setsid()
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        os.environ.update(environment)
        tempfile.tempdir = None
        warnings.resetwarnings()  # as they are outside of tests
        warnings.simplefilter("ignore", DeprecationWarning)
        for stream, path in zip((1, 2), files, strict=True):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        result = action()
        code = result if isinstance(result, int) else 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)

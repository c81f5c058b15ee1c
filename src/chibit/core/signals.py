"""Stopping on request, in every command: a signal unwinds what is under way, and it cleans up."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

NUMBERS = tuple(number for number in signal.Signals if number.name in ("SIGINT", "SIGTERM", "SIGHUP"))
"""Signals that ask for the end; the last is a closed terminal's, which Windows does not have."""
_DEFAULTS = (signal.SIG_DFL, signal.default_int_handler)


class Stopped(Exception):
    """The run was stopped on request, after saving; exits with 128 plus the signal's number."""

    def __init__(self, signal_number: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


class Interrupted(KeyboardInterrupt):
    """A signal asked for the end; raised wherever the main thread is, so that all contexts are left."""

    def __init__(self, signal_number: int) -> None:
        super().__init__()
        self.signal_number = signal_number


class _Deferral:
    """Whether signals are put off for a moment, and the one that came."""

    depth = 0
    number = 0


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Put a signal off for a moment that must not be torn, such as the start of a process."""
    _Deferral.depth += 1
    try:
        yield
    finally:
        _Deferral.depth -= 1
        number = 0 if _Deferral.depth else _Deferral.number
        if number:
            _Deferral.number = 0
            signal.raise_signal(number)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Within it the first of `NUMBERS` raises `Interrupted`, and a second one ends the process at once.

    A signal that whoever started the process wants ignored (`nohup`, a shell's background jobs) stays so.
    Outside the main thread, where Python takes no signal handlers, it does nothing.
    """
    previous = {}
    if threading.current_thread() is threading.main_thread():
        previous = {number: signal.getsignal(number) for number in NUMBERS}
        previous = {number: handler for number, handler in previous.items() if handler in _DEFAULTS}

    def interrupt(number: int, frame: FrameType | None) -> None:
        if _Deferral.depth:
            _Deferral.number = number
            return
        for each in previous:
            signal.signal(each, signal.SIG_DFL)
        raise Interrupted(number)

    for number in previous:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)

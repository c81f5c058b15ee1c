"""Stopping on request, in every command: a signal unwinds what is under way, and it cleans up."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any

NUMBERS = tuple(number for number in signal.Signals if number.name in ("SIGINT", "SIGTERM", "SIGHUP"))
"""Signals that ask for the end; the last is a closed terminal's, which Windows does not have."""
PASSED_ON = signal.Signals.__members__.get("SIGUSR1", signal.SIGTERM)
"""By which a driver passes a request for the end on to its processes. A batch system may have asked them all
beside it: so this one never counts as the second. Only a process that has set a handler for it takes it."""
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
    previous = {number: handler for number, handler in _handlers().items() if handler in _DEFAULTS}

    def interrupt(number: int, frame: FrameType | None) -> None:
        if _Deferral.depth:
            _Deferral.number = number
            return
        _set({each: signal.SIG_IGN if each == PASSED_ON else signal.SIG_DFL for each in previous})
        raise Interrupted(_meant(number))

    _set(dict.fromkeys(previous, interrupt))
    try:
        yield
    finally:
        _set(previous)


class StopRequests:
    """Within it the first of `NUMBERS` only sets `signal_number`; a second one acts as it would outside.

    So the step in hand can be finished and saved. `PASSED_ON` is noted however often it comes. A signal that
    is to be ignored stays so; outside the main thread it does nothing.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopRequests:
        self._previous = {
            number: handler for number, handler in _handlers().items() if handler is not signal.SIG_IGN
        }
        _set(dict.fromkeys(self._previous, self._note))
        return self

    def __exit__(self, *_: object) -> None:
        _set(self._previous)
        self._previous = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal_number = _meant(number)
        if number != PASSED_ON:
            _set({each: handler for each, handler in self._previous.items() if each != PASSED_ON})
            self._previous = {each: self._previous[each] for each in self._previous.keys() & {PASSED_ON}}


def _meant(number: int) -> int:
    return signal.SIGINT if number == PASSED_ON else number


def _handlers() -> dict[int, Any]:
    """Who handles each of `NUMBERS`, and `PASSED_ON` if anybody does; nothing outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    known: dict[int, Any] = {number: signal.getsignal(number) for number in (*NUMBERS, PASSED_ON)}
    if known[PASSED_ON] == signal.SIG_DFL and PASSED_ON not in NUMBERS:
        del known[PASSED_ON]
    return known


def _set(handlers: Mapping[int, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)

"""Stopping on request: a signal lets the step in hand finish and a checkpoint be saved."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

from chibit.core.signals import NUMBERS
from chibit.core.signals import Stopped as Stopped


class StopRequests:
    """The first of `core.signals.NUMBERS` only sets `signal_number`; a second one acts as it normally would.

    A signal that whoever started the process wants ignored stays so.
    Outside the main thread, where Python takes no signal handlers, it does nothing.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._previous: dict[int, object] = {}

    def __enter__(self) -> StopRequests:
        if threading.current_thread() is threading.main_thread():
            for number in NUMBERS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._restore()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.signal_number = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._previous = {}

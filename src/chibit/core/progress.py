"""How far long work is, on standard error: a bar on a terminal, lines in a log, and the time in all."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from chibit.core.formatting import shown_time
from chibit.core.terminal import make_console, text_column

LONG_SECONDS = 60.0
"""Of what takes longer the time is said when it begins; a log has a line as often."""
_MEASURED_SECONDS = 5.0
"""After so many the time in all is told from what was done."""
_MOST_LETTERS = 36


class Pace:
    """What is said in lines: after a few seconds how long all takes, and in a log what is left, now and then.

    Nothing is said of what takes no longer than a minute.
    """

    def __init__(
        self,
        name: str,
        total: float,
        say: Callable[[str], None],
        *,
        in_log: bool,
        unit: str = "steps",
        scale: float = 1.0,
        beside: str = "",
    ) -> None:
        """What is to be done.

        Args:
            name: of the work.
            total: amount of it.
            say: takes a line.
            in_log: whether lines stand for a bar.
            unit: of what is said, which is the amount times `scale`.
            scale: see `unit`.
            beside: what else takes time and is not measured.
        """
        self.total, self.in_log = total, in_log
        self._name, self._say, self._unit, self._scale, self._beside = name, say, unit, scale, beside
        self.start(0)

    def start(self, done: float) -> None:
        """Begin to measure, with some of it done."""
        self._from, self._since, self._is_said = done, time.perf_counter(), False
        self._next_line = self._since + LONG_SECONDS

    def at(self, done: float, note: str = "") -> None:
        """Say what is due when so much is done; `note` stands in the line of a log."""
        now = time.perf_counter()
        if done <= self._from or now < self._since + _MEASURED_SECONDS:
            return
        seconds_each = (now - self._since) / (done - self._from)
        amount = self.total - self._from
        if not self._is_said and amount * seconds_each > LONG_SECONDS:
            in_all = shown_time(amount * seconds_each)
            self._say(f"{self._name}: about {in_all} for {self._shown(amount)} {self._unit}{self._beside}")
        self._is_said = True
        if self.in_log and now > self._next_line:
            self._next_line = now + LONG_SECONDS
            left = shown_time(max(0.0, self.total - done) * seconds_each)
            self._say(
                f"  {self._shown(done)} of {self._shown(self.total)} {self._unit}{note}, about {left} left"
            )

    def _shown(self, amount: float) -> str:
        return f"{amount * self._scale:,.0f}"


@contextlib.contextmanager
def step_bar(description: str, shown: bool, total: int, unit: str = "steps") -> Iterator[Callable[..., None]]:
    """A bar over steps, with the time left, gone at its end; gives what counts one, or as many as it says."""
    counted = text_column(f"{{task.completed:,.0f}}/{{task.total:,.0f}} {unit}")
    with _bar(description, shown, total, counted, unit=unit) as update:
        yield lambda steps=1: update(advance=steps)


@contextlib.contextmanager
def byte_bar(description: str, shown: bool, total: int | None = None) -> Iterator[Callable[..., None]]:
    """A bar over bytes; gives what takes `advance`, or `completed` and `total`."""
    columns = (DownloadColumn(), TransferSpeedColumn())
    with _bar(description, shown, total, *columns, unit="MB", scale=1e-6) as update:
        yield update


@contextlib.contextmanager
def _bar(
    description: str, shown: bool, total: int | None, *columns: ProgressColumn, **units: Any
) -> Iterator[Callable[..., None]]:
    console = make_console(stderr=True)
    name = description if len(description) <= _MOST_LETTERS else description[: _MOST_LETTERS - 1] + "…"
    columns = (BarColumn(bar_width=12), *columns, TimeRemainingColumn(), text_column("left"))
    is_bar = shown and console.is_terminal
    pace = Pace(description, 0, lambda line: console.print(line, soft_wrap=True), in_log=not is_bar, **units)
    with Progress(
        text_column("{task.description}"), *columns, console=console, disable=not is_bar, transient=True
    ) as bar:
        number = bar.add_task(name, total=total)
        task = bar.tasks[number]

        def update(*, completed: int | None = None, **fields: Any) -> None:
            if completed is not None and not pace.total:
                pace.start(completed)  # some of it was there before
            bar.update(number, completed=completed, **fields)
            pace.total = task.total or 0
            if shown and task.total is not None:
                pace.at(task.completed)

        yield update

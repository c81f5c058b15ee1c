"""What a person sees of a run: a bar with rate and time left, the loss, and each evaluation in a line."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from types import TracebackType

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from chibit.core.terminal import text_column
from chibit.evaluation.rollout import Evaluation


class RunProgress:
    """Progress of one run; silent when disabled."""

    def __init__(self, num_steps: int, name: str, *, enabled: bool) -> None:
        self._bar = Progress(
            text_column("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            text_column(
                "{task.fields[rate]:>5.1f} steps/s  loss {task.fields[loss]:.4f}  {task.fields[note]}"
            ),
            TimeElapsedColumn(),
            text_column("left"),
            TimeRemainingColumn(),
            disable=not enabled,
        )
        self._num_steps, self._name = num_steps, name
        self._task: TaskID | None = None
        self._loss, self._rate, self._since, self._steps = 0.0, 0.0, 0.0, 0

    def __enter__(self) -> RunProgress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.stop()

    def start(self, step: int) -> None:
        """Show the bar from `step` on."""
        self._task = self._bar.add_task(
            self._name, total=self._num_steps, completed=step, loss=0.0, rate=0.0, note="", start=True
        )
        self._since, self._steps = time.perf_counter(), 0

    def say(self, message: str) -> None:
        """Print a line above the bar."""
        if not self._bar.disable:
            self._bar.console.print(message, soft_wrap=True)

    def advance(self, loss: float | None) -> None:
        """Count a step; the bar is redrawn a few times a second."""
        self._steps += 1
        if loss is not None:
            self._loss = loss if self._loss == 0.0 else 0.98 * self._loss + 0.02 * loss
        elapsed = time.perf_counter() - self._since
        if elapsed > 0.5 and self._task is not None:
            self._rate = self._steps / elapsed
            self._bar.update(self._task, advance=self._steps, loss=self._loss, rate=self._rate)
            self._since, self._steps = time.perf_counter(), 0

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Say that episodes are being played."""
        if self._task is not None:
            self._bar.update(
                self._task, advance=self._steps, note="evaluating", loss=self._loss, rate=self._rate
            )
        yield
        if self._task is not None:
            self._bar.update(self._task, note="")
        self._since, self._steps = time.perf_counter(), 0

    def evaluated(self, evaluations: Sequence[Evaluation]) -> None:
        """Print the outcome of an evaluation above the bar."""
        if self._task is not None and not self._bar.disable:
            done = int(self._bar.tasks[self._task].completed)
            line = "; ".join(str(evaluation.summary) for evaluation in evaluations)
            self._bar.console.print(f"  step {done}: {line}")

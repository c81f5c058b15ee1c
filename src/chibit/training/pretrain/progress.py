"""What a person sees of a pre-training run: tokens a second, time left, losses, the model's own text."""

from __future__ import annotations

import math
import time
from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TimeRemainingColumn

from chibit.core.terminal import make_console, text_column


class PretrainProgress:
    """Progress of one run, on standard error; silent when disabled."""

    def __init__(self, num_steps: int, batch_tokens: int, name: str, *, enabled: bool) -> None:
        self._bar = Progress(
            text_column("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            text_column("{task.fields[rate]:,.0f} tokens/s  loss {task.fields[loss]:.3f}  left"),
            TimeRemainingColumn(),
            console=make_console(stderr=True),
            disable=not enabled,
        )
        self._num_steps, self._batch_tokens, self._name = num_steps, batch_tokens, name
        self._task: TaskID | None = None
        self._loss, self._since = 0.0, 0.0

    def __enter__(self) -> PretrainProgress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.stop()

    def start(self, step: int) -> None:
        """Show the bar from `step` on."""
        self._task = self._bar.add_task(self._name, total=self._num_steps, completed=step, rate=0.0, loss=0.0)
        self._since = time.perf_counter()

    def advance(self, loss: float) -> None:
        """Count a step."""
        if self._task is None:
            return
        now = time.perf_counter()
        self._loss = loss if self._loss == 0.0 else 0.95 * self._loss + 0.05 * loss
        rate = self._batch_tokens / max(now - self._since, 1e-9)
        self._bar.update(self._task, advance=1, rate=rate, loss=self._loss)
        self._since = now

    def evaluated(self, loss: float, sample: str) -> None:
        """Print a held-out loss and a sample above the bar."""
        if not self._bar.disable and self._task is not None:
            step = int(self._bar.tasks[self._task].completed)
            text = " ".join(sample.split())
            perplexity = math.exp(min(loss, 700.0))
            self._bar.console.print(f"  step {step}: held-out perplexity {perplexity:.1f}; {text}")
        self._since = time.perf_counter()

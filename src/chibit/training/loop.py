"""What every training does around its steps: log, evaluate, save, stop on request, and go on exactly.

A resumed run equals the uninterrupted one to the bit on the CPU: a checkpoint holds the weights, the
optimizers, every generator and the sums of the metrics that are not yet written.
"""

from __future__ import annotations

import contextlib
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from rich.progress import BarColumn, Progress, TimeRemainingColumn
from torch import Tensor

from chibit.agents.guard import MOST_UNREAD, require_finite
from chibit.core.checkpoint import (
    Checkpoint,
    CheckpointSaver,
    checkpoint_steps,
    load_checkpoint,
    mark,
    sweep,
)
from chibit.core.errors import DamagedFileError, InputError, UserError, first_line
from chibit.core.progress import Pace
from chibit.core.run_dir import RunDir
from chibit.core.runtime import read_scalars
from chibit.core.signals import Stopped, StopRequests
from chibit.core.terminal import make_console, text_column
from chibit.training.pretrain.config import PretrainConfig
from chibit.training.run_config import RunConfig
from chibit.training.trackers import Tracker
from chibit.training.workers import Workers

ConfigT = TypeVar("ConfigT", RunConfig[Any], PretrainConfig)
_SMOOTHING = 0.98
_REDRAW_SECONDS = 0.5


@dataclass
class LoopState:
    """Where the loop stands; part of a checkpoint."""

    step: int = 0
    """Gradient steps done."""
    train_seconds: float = 0.0
    """Wall seconds of training, without evaluation."""
    evaluation_seconds: float = 0.0
    """Wall seconds of evaluation."""
    best_score: float | None = None
    """Best score so far: at the first target, or what the run chooses by."""
    best_step: int | None = None
    """The step of that score; None before there is one, and in what an earlier version wrote."""
    sums: dict[str, float] = field(default_factory=dict)
    """Sums of the metrics since the last line of the log."""
    counts: dict[str, int] = field(default_factory=dict)
    """Steps in each of those sums; a metric need not be there at every step."""


class Loop(ABC, Generic[ConfigT]):
    """One run's moving parts, held while its lock is; subclasses have the data, the model and the step."""

    def __init__(
        self, config: ConfigT, run: RunDir, progress: RunProgress, workers: Workers | None = None
    ) -> None:
        self.config: ConfigT = config
        self.run, self.progress = run, progress
        self.workers = workers or Workers()
        self.state = LoopState()
        self.stop = StopRequests()
        self.saver = CheckpointSaver(run.checkpoints)
        self.trackers: list[Tracker] = []
        self._unread: list[Mapping[str, float | Tensor]] = []
        self._left_out: set[str] = set()

    @abstractmethod
    def begin(self) -> None:
        """Write down where a new run comes from."""

    @abstractmethod
    def update(self) -> Mapping[str, float | Tensor]:
        """One gradient step on the next batch; its metrics, for which the host need not have waited."""

    @abstractmethod
    def check(self) -> None:
        """Wait for the steps so far; DivergenceError for the first that was not finite."""

    @abstractmethod
    def measure(self) -> dict[str, float]:
        """What a line of the log holds besides the means of the metrics."""

    @abstractmethod
    def evaluate(self) -> bool:
        """Evaluate the model; whether it is the best so far."""

    @abstractmethod
    def contents(self) -> tuple[Mapping[str, Tensor], dict[str, Any]]:
        """Weights and state of a checkpoint, without the loop's own."""

    @abstractmethod
    def refuse_changed(self, state: Mapping[str, Any], *, allow_inexact: bool) -> None:
        """Stop where a run cannot go on from a state, since its data have changed."""

    @abstractmethod
    def restore(self, checkpoint: Checkpoint) -> None:
        """Put model and optimizers back."""

    @abstractmethod
    def restore_draws(self, state: Mapping[str, Any]) -> None:
        """Put every generator back."""

    @abstractmethod
    def result(self) -> dict[str, Any]:
        """The content of result.json."""

    def resources(self) -> contextlib.AbstractContextManager[Any]:
        """What is open while the loop runs."""
        return contextlib.nullcontext()

    def before_first_step(self) -> None:
        """What a run that has not made a step does first."""

    def asked_to_stop(self) -> int | None:
        """Number of the signal that this run has received."""
        return self.stop.signal_number

    def run_to_end(self) -> None:
        """Step, log, evaluate and save, until the last step; then write the result."""
        config, state = self.config, self.state
        with self.stop, self.progress.bar, self.resources(), self.saver:
            if state.step == 0:
                self.before_first_step()
            self.progress.start(state.step)
            while state.step < config.num_steps:
                self._step()
                self._follow_up()
        self.finish()

    def _follow_up(self) -> None:
        """What follows a step: a line of the log, an evaluation, a checkpoint, the end on request."""
        evaluated, best = self.config.evaluates_at(self.state.step), False
        if self.logs_now:
            self.write_metrics()
        if evaluated:
            self._read()
            with self.progress.evaluating():
                best = self.evaluate()
        signal_number = self.asked_to_stop()
        if self.saves_now(best=best) or signal_number:
            self.save(best=best)
        if signal_number and not self.is_done:
            raise self.stopped(signal_number)

    @property
    def is_done(self) -> bool:
        """Whether all steps are."""
        return self.state.step == self.config.num_steps

    @property
    def logs_now(self) -> bool:
        """Whether a line of the log follows this step."""
        return self.is_done or self.state.step % self.config.log_every == 0

    def saves_now(self, *, best: bool) -> bool:
        """Whether a checkpoint follows this step, of which the evaluation was the best so far or not."""
        every, step = self.config.checkpoint_every, self.state.step
        due = step % every == 0 if every else self.config.evaluates_at(step)
        return due or best or self.is_done

    def stopped(self, signal_number: int) -> Stopped:
        """What a run ends with that was asked to stop and has saved, once that is on the disk."""
        self.saver.wait()
        return Stopped(
            signal_number, f"{self.run.path}: stopped after step {self.state.step}, checkpoint saved"
        )

    def finish(self) -> None:
        """Write the result."""
        with self.workers.first_alone():
            if self.workers.is_first:
                self.run.write_result(self.result())

    def write_line(self, metrics: Mapping[str, float]) -> None:
        """Add a line to metrics.jsonl; what is not finite is left out, and train.log tells of it once."""
        if not self.workers.is_first:
            return
        step, seconds = self.state.step, round(self.state.train_seconds, 3)
        finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
        for name in metrics.keys() - finite.keys() - self._left_out:
            self.run.log(f"{name} is {metrics[name]} at step {step}; metrics.jsonl has it where it is finite")
        self._left_out |= metrics.keys() - finite.keys()
        self.run.append_metrics({"step": step, "seconds": seconds, **finite})

    def track(self, metrics: Mapping[str, float]) -> None:
        """Tell every tracker."""
        for tracker in self.trackers:
            tracker(self.state.step, metrics)

    def _step(self) -> None:
        started, state = time.perf_counter(), self.state
        metrics = {name: _detached(value) for name, value in self.update().items()}
        self._unread.append(metrics)
        state.step += 1
        state.train_seconds += time.perf_counter() - started
        self.progress.advance(metrics.get("train/loss"))
        if len(self._unread) == MOST_UNREAD:
            self._read()

    def _read(self) -> None:
        """Wait for the steps since the last time; add up what they gave, or tell of a bad one."""
        started, state = time.perf_counter(), self.state
        self.check()
        unread, self._unread = self._unread, []
        numbers = iter(read_scalars(value for metrics in unread for value in metrics.values()))
        self.add_up({name: next(numbers) for name in metrics} for metrics in unread)
        state.train_seconds += time.perf_counter() - started

    def add_up(self, steps: Iterable[Mapping[str, float]]) -> None:
        """Take in the metrics of steps, for the next line of the log."""
        state = self.state
        for name, value in (pair for metrics in steps for pair in metrics.items()):
            state.sums[name] = state.sums.get(name, 0.0) + value
            state.counts[name] = state.counts.get(name, 0) + 1

    def write_metrics(self) -> None:
        """Add a line to the log: the means since the line before, and what is measured."""
        self._read()
        state = self.state
        means = {name: total / state.counts[name] for name, total in state.sums.items()}
        require_finite(state.step, Tensor(), loss=means.get("train/loss", 0.0))
        started = time.perf_counter()
        means |= self.measure()
        state.evaluation_seconds += time.perf_counter() - started
        self.write_line(means)
        self.track(means)
        state.sums, state.counts = {}, {}

    def save(self, *, best: bool) -> None:
        """Save a checkpoint; `best` marks it as the best so far."""
        self._read()
        self.state.best_step = self.state.step if best else self.state.best_step
        tensors, state = self.contents()
        if self.workers.is_first:
            self.run.sync()
            marks = ("last", "best") if best else ("last",)
            self.saver.save(self.state.step, tensors, {"loop": vars(self.state), **state}, marks=marks)

    def resume(self, wanted: bool, *, allow_inexact: bool) -> None:
        """Go on from the newest whole checkpoint, or begin; without `wanted`, refuse where there is one."""
        run = self.run
        if self.workers.is_first:
            sweep(run.checkpoints)
        checkpoint = load_checkpoint(run.checkpoints)
        if checkpoint is None and run.is_finished:
            raise InputError(
                f"{run.path}: is finished, and has no checkpoint to go on from; bring its checkpoints "
                "back, or choose another --out"
            )
        if checkpoint is None:
            if self.workers.is_first:
                run.rewind(-1)  # pre-training measures at step 0, too
                self.begin()
            return
        if not wanted:
            run.refuse_anew(f"a run at step {checkpoint.step}")
        self.refuse_changed(checkpoint.state, allow_inexact=allow_inexact)
        try:
            self.restore(checkpoint)
            self._restore_draws(checkpoint.state, allow_inexact)
            self.state = _read_state(checkpoint.state["loop"])
            if self.state.step != checkpoint.step:
                raise ValueError(f"it holds step {self.state.step!r}")
        except (AttributeError, KeyError, RuntimeError, ValueError, TypeError) as error:
            raise DamagedFileError(
                f"{run.checkpoints}: step {checkpoint.step} does not fit this run ({first_line(error)}); "
                "use another --out"
            ) from error
        if self.workers.is_first:
            run.rewind(checkpoint.step)
            self._mark_again()
            run.log(f"resumed at step {checkpoint.step}")

    def _mark_again(self) -> None:
        """Mark the checkpoints as they were: a kill may come between one and its marks."""
        folder, best = self.run.checkpoints, self.state.best_step
        mark(folder, "last", self.state.step)
        if best is not None and best in checkpoint_steps(folder):
            mark(folder, "best", best)

    def _restore_draws(self, state: Mapping[str, Any], allow_inexact: bool) -> None:
        """Put the generators back, or begin them anew where that is allowed."""
        try:
            self.restore_draws(state)
        except (LookupError, TypeError, ValueError, UserError) as error:
            reason = first_line(error)
            if not allow_inexact:
                raise DamagedFileError(
                    f"{self.run.checkpoints}: random numbers cannot go on as they were ({reason}); "
                    "use another --out, or --allow-inexact-resume"
                ) from error
            self.run.log(f"random numbers begin anew, the run is not an exact one any more ({reason})")


def _detached(value: float | Tensor) -> float | Tensor:
    """A metric without what it was computed from, which would be kept with it."""
    return value.detach() if isinstance(value, Tensor) else value


def _read_state(saved: Mapping[str, Any]) -> LoopState:
    """Read a checkpoint's; those of pre-training had one count for all sums in earlier versions."""
    record = dict(saved)
    if "count" in record:
        record["counts"] = dict.fromkeys(record["sums"], record.pop("count"))
    return LoopState(**record)


class RunProgress:
    """What a person sees of a run: lines, and a bar with rate, loss and time left; or nothing.

    It is on standard error. Where that is no terminal but a log, a line a minute stands for the bar; its time
    left includes evaluations.
    """

    def __init__(
        self,
        num_steps: int,
        name: str,
        *,
        enabled: bool,
        unit: str = "steps",
        units_a_step: int = 1,
    ) -> None:
        console = make_console(stderr=True)
        numbers = f"{{task.fields[rate]:,.1f}} {unit}/s  loss {{task.fields[loss]:.4f}}"
        self.bar = Progress(
            BarColumn(bar_width=12),
            text_column("{task.completed}/{task.total}"),
            text_column(numbers + "  {task.fields[note]}"),
            text_column("left"),
            TimeRemainingColumn(compact=True),
            console=console,
            disable=not (enabled and console.is_terminal),
        )
        self._task = self.bar.add_task(name, total=num_steps, loss=0.0, rate=0.0, note="")
        self._name, self._num_steps = name, num_steps
        self.is_shown = enabled
        """Whether anybody sees it."""
        self._pace = Pace(
            name, num_steps, self.say, in_log=self.bar.disable, beside=", evaluations not counted"
        )
        self._units_a_step = units_a_step
        self._loss: float | Tensor | None = None
        self._since, self._steps = 0.0, 0

    def start(self, step: int) -> None:
        """Show the bar from `step` on."""
        self.bar.reset(self._task, completed=step)
        self._since = time.perf_counter()
        self._pace.start(step)
        self.say(f"{self._name}: {self._num_steps - step:,} of {self._num_steps:,} steps to do")

    def say(self, message: str) -> None:
        """Print a line above the bar."""
        if self.is_shown:
            self.bar.console.print(message, soft_wrap=True)

    def advance(self, loss: float | Tensor | None) -> None:
        """Count a step; the bar is redrawn a few times a second, which alone waits for the loss."""
        self._steps += 1
        if loss is not None and self.is_shown:
            self._loss = loss if self._loss is None else _SMOOTHING * self._loss + (1 - _SMOOTHING) * loss
        if time.perf_counter() - self._since > _REDRAW_SECONDS:
            self._show()

    def _show(self, **fields: Any) -> None:
        now = time.perf_counter()
        if self._steps:
            fields["rate"] = self._units_a_step * self._steps / max(now - self._since, 1e-9)
        loss = 0.0 if self._loss is None else float(self._loss)
        self.bar.update(self._task, advance=self._steps, loss=loss, **fields)
        self._since, self._steps = now, 0
        self._pace.at(self.bar.tasks[0].completed, f", loss {loss:.4f}")

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Say that the run evaluates."""
        self._show(note="evaluating")
        yield
        self._show(note="")

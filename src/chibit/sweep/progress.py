"""The whole study at a glance while it runs: what is done, what runs, what failed, and the time left.

It is read from the logs in the run directories, for the runs are in other processes or on other machines.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, Progress, TaskID, TimeElapsedColumn

from chibit.core.errors import UserError
from chibit.core.files import open_regular
from chibit.core.formatting import shown_time
from chibit.core.progress import LONG_SECONDS
from chibit.core.terminal import make_console, text_column
from chibit.evaluation.summary import summarize_record
from chibit.sweep.forecast import forecast, measure
from chibit.sweep.tasks import Outcome, Task
from chibit.training.pretrain.sources import source_folder, source_steps, trained_specs

_REFRESH_SECONDS = 0.5
_MOST_BARS = 16
_END_BYTES = 1 << 16
"""Of a log, in which its last record is."""


class StudyProgress:
    """A line for the study, and a bar for each run under way; in a log a line a minute stands for them."""

    def __init__(self, tasks: Sequence[Task], root: Path, *, enabled: bool) -> None:
        self._tasks, self._enabled = {task.path: task for task in tasks}, enabled
        self._counts: Counter[str] = Counter()
        self._running: set[Path] = set()
        self._bars_of: dict[str, TaskID] = {}
        self._began, self._began_at = time.monotonic(), time.time()
        measured = measure(root) if enabled else None
        self._work = {
            path: 0.0 if measured is None else forecast(task, measured).seconds_left
            for path, task in self._tasks.items()
        }
        self._done_before: dict[Path, int] = {}
        self._work_done, self._left = 0.0, ""
        self._bars = Progress(
            text_column("{task.description}"),
            BarColumn(bar_width=24),
            text_column("{task.fields[note]}"),
            TimeElapsedColumn(),
            console=make_console(stderr=True),
            disable=not enabled,
            transient=True,
        )
        self._study = self._bars.add_task("study", total=max(1, len(tasks)), note="")
        self._over, self._lock = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> StudyProgress:
        if self._enabled:
            self._bars.start()
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._enabled:
            self._thread.join()
            self._bars.stop()
            self.say(f"{len(self._tasks)} runs: {self._shown_counts()}")

    def began(self, task: Task) -> None:
        """A task was given to the engine."""
        with self._lock:
            self._running.add(task.path)

    def ended(self, outcome: Outcome) -> None:
        """A task is over."""
        with self._lock:
            self._counts[outcome.status] += 1
            self._running.discard(outcome.path)
            self._drop(str(outcome.path))
            work = self._work.pop(outcome.path, 0.0)
            self._work_done += work if outcome.status == "finished" else 0.0
        if outcome.status != "skipped":
            reason = f": {outcome.message}" if outcome.message else ""
            left = self._left if sum(self._counts.values()) < len(self._tasks) else ""
            self.say(f"{outcome.status}: {outcome.path.name}{reason} ({self._shown_counts()}{left})")

    def say(self, line: str) -> None:
        """Print a line above the bars."""
        if self._enabled:
            self._bars.console.print(line, soft_wrap=True)

    def refresh(self) -> None:
        """Read the last lines of the logs."""
        with self._lock:
            done = self._work_done
            for path in sorted(self._running):
                metrics = self._fresh(path)
                if metrics is None:
                    continue
                steps, step = self._tasks[path].config.num_steps, int(metrics["step"])
                before = self._done_before.setdefault(path, min(step, steps - 1))
                done += self._work[path] * (step - before) / (steps - before)
                self._show(str(path), path.name, step, steps, _note(path, metrics))
            self._show_sources()
            waiting = len(self._tasks) - sum(self._counts.values()) - len(self._running)
            note = f"{self._shown_counts()}, {len(self._running)} running, {waiting} waiting"
            total = self._work_done + sum(self._work.values())
            elapsed = time.monotonic() - self._began
            if done > 0 and total > done:
                self._left = f", about {shown_time(elapsed * (total - done) / done)} left"
                note += self._left
            self._bars.update(self._study, completed=sum(self._counts.values()), note=note)

    def _shown_counts(self) -> str:
        done = self._counts["finished"] + self._counts["skipped"]
        others = [
            f"{self._counts[name]} {name}" for name in ("failed", "stopped", "busy") if self._counts[name]
        ]
        return ", ".join([f"{done} of {len(self._tasks)} done", *others])

    def _fresh(self, path: Path) -> dict[str, Any] | None:
        """The last record of a log that was written since the study began."""
        log = path / "metrics.jsonl"
        try:
            if log.stat().st_mtime < self._began_at:
                return None
        except OSError:
            return None
        return last_record(log)

    def _show(self, key: str, name: str, step: int, steps: int, note: str) -> None:
        if key not in self._bars_of:
            if len(self._bars_of) >= _MOST_BARS:
                return
            self._bars_of[key] = self._bars.add_task(name, total=steps, note="")
        self._bars.update(self._bars_of[key], completed=step, note=f"{step}/{steps} steps  {note}")

    def _drop(self, key: str) -> None:
        if key in self._bars_of:
            self._bars.remove_task(self._bars_of.pop(key))

    def _show_sources(self) -> None:
        """Bars of what is pre-trained on first use."""
        for spec in {
            spec for path in self._running for spec in trained_specs(self._tasks[path].config.agent)
        }:
            folder = source_folder(spec)
            metrics = self._fresh(folder)
            if (folder / "result.json").is_file():
                self._drop(spec)
            elif metrics is not None:
                self._show(spec, f"pre-training {spec}", int(metrics["step"]), source_steps(spec), "")

    def _follow(self) -> None:
        next_line = self._began + LONG_SECONDS
        while not self._over.wait(_REFRESH_SECONDS):
            self.refresh()
            if time.monotonic() > next_line and not self._bars.console.is_terminal:
                next_line += LONG_SECONDS
                self.say(f"  {self._bars.tasks[self._study].fields['note']}")


def _note(path: Path, metrics: dict[str, Any]) -> str:
    note = f"loss {metrics['train/loss']:.4f}" if "train/loss" in metrics else ""
    evaluation = last_record(path / "evaluations.jsonl")
    if evaluation is not None:
        note += f"  {summarize_record(evaluation).short}"
    return note


def last_record(path: Path) -> dict[str, Any] | None:
    """The last whole record of a JSON-lines file, reading no more than its end; None where there is none."""
    try:
        with open_regular(path) as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _END_BYTES))
            lines = file.read().split(b"\n")[:-1]
    except (UserError, OSError):
        return None
    for line in reversed(lines):
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            return record
    return None

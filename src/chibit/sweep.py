"""Run a list of configurations, side by side in local processes, one thread each.

A run directory is named after the content of its configuration and locked while it is worked on: finished
runs are skipped, killed ones go on from their checkpoint, and a run that fails is reported and does not stop
the others.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from chibit.core.errors import UserError
from chibit.training.run_config import RunConfig, run_path
from chibit.training.stopping import StopRequests

_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Outcome:
    """What became of one run."""

    path: Path
    """Its directory."""
    status: Literal["finished", "skipped", "failed", "stopped"]
    """`skipped` was finished before; `stopped` has a checkpoint to go on from."""
    message: str = ""
    """Why it failed or stopped, in one line."""


def run_all(
    configs: Sequence[RunConfig[Any]],
    *,
    root: Path,
    study: str,
    num_processes: int = 1,
    progress: bool = True,
) -> list[Outcome]:
    """Run every configuration that is not finished yet.

    Args:
        configs: the runs.
        root: folder that holds the study's folder.
        study: name of the study.
        num_processes: runs side by side, each with its own number of threads (one by default).
        progress: show a bar a run.

    Returns:
        One outcome a configuration, in the same order.
    """
    paths = [run_path(config, root, study) for config in configs]
    context = multiprocessing.get_context("spawn")
    outcomes: dict[Path, Outcome] = {}
    with ProcessPoolExecutor(max(1, num_processes), context, initializer=_prepare_worker) as pool:
        futures: dict[Future[Outcome], Path] = {}
        for config, path in zip(configs, paths, strict=True):
            if (path / "result.json").is_file():
                outcomes[path] = Outcome(path, "skipped")
            elif path not in futures.values():
                futures[pool.submit(_run_one, config, path, study)] = path
        with _SweepProgress(configs, paths, enabled=progress) as bars, StopRequests() as stop:
            _follow(futures, bars, stop)
        for future, path in futures.items():
            outcomes[path] = (
                Outcome(path, "stopped", "not started") if future.cancelled() else _collect(future, path)
            )
    return [outcomes[path] for path in paths]


def _follow(futures: dict[Future[Outcome], Path], bars: _SweepProgress, stop: StopRequests) -> None:
    """Wait for all runs; on a request to stop, start no more and let those under way save a checkpoint."""
    pending = set(futures)
    while pending:
        _, pending = wait(pending, timeout=_POLL_SECONDS)
        bars.refresh()
        if stop.signal_number is not None:
            for future in futures:
                future.cancel()
            # Again at every turn: a run that is still opening its data takes no notice, and one that has
            # taken notice ignores the rest.
            for child in multiprocessing.active_children():
                if child.pid is not None:
                    os.kill(child.pid, signal.SIGINT)


def _prepare_worker() -> None:
    """Leave Ctrl-C to the parent, which passes it on: a run gets it once, an idle process never."""
    os.setpgrp()
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _collect(future: Future[Outcome], path: Path) -> Outcome:
    error = future.exception()
    if error is None:
        return future.result()
    return Outcome(path, "failed", f"{type(error).__name__}: {error}")


def _run_one(config: RunConfig[Any], path: Path, study: str) -> Outcome:
    """The work of one process; a refusal becomes an outcome, anything else is raised."""
    from chibit.training.offline import train
    from chibit.training.stopping import Stopped

    try:
        train(config, path, study=study, progress=False)
    except UserError as error:
        return Outcome(path, "failed", str(error))
    except Stopped as error:
        return Outcome(path, "stopped", str(error))
    return Outcome(path, "finished")


class _SweepProgress:
    """A bar a run, read from the logs in the run directories; the runs are in other processes."""

    def __init__(self, configs: Sequence[RunConfig[Any]], paths: Sequence[Path], *, enabled: bool) -> None:
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:>6.0f}/{task.total:.0f} steps  {task.fields[note]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            disable=not enabled,
        )
        self._tasks: dict[Path, TaskID] = {}
        for config, path in zip(configs, paths, strict=True):
            name = f"{config.arm_name} s{config.seed}"
            self._tasks[path] = self._bars.add_task(name, total=config.num_steps, note="", start=False)

    def __enter__(self) -> _SweepProgress:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.refresh()
        self._bars.stop()

    def refresh(self) -> None:
        """Read the last line of every log."""
        for path, task in self._tasks.items():
            metrics = last_record(path / "metrics.jsonl")
            if metrics is None:
                continue
            note = f"loss {metrics['train/loss']:.4f}" if "train/loss" in metrics else ""
            evaluation = last_record(path / "evaluations.jsonl")
            if evaluation is not None and evaluation.get("normalized_score") is not None:
                note += f"  score {evaluation['normalized_score']:.1f}"
            if not self._bars.tasks[task].started:
                self._bars.start_task(task)
            self._bars.update(task, completed=metrics["step"], note=note)


def last_record(path: Path, window: int = 65_536) -> dict[str, Any] | None:
    """The last whole record of a JSON-lines file, reading no more than its end; None where there is none."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - window))
            lines = file.read().split(b"\n")[:-1]
    except FileNotFoundError:
        return None
    for line in reversed(lines):
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            return record
    return None

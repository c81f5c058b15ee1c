"""How long runs will take: from what finished ones took, else from rough figures that are stated."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chibit.agents import AGENTS, DEFAULT_AGENT
from chibit.core.checkpoint import checkpoint_steps
from chibit.core.config import config_hash
from chibit.core.errors import UserError
from chibit.core.formatting import shown_time
from chibit.core.run_dir import RunDir
from chibit.sweep.tasks import Task
from chibit.training.pretrain.sources import source_folder, source_steps, trained_specs
from chibit.training.run_config import count_evaluations, from_record, to_record

SECONDS_A_PRETRAINING_STEP = 0.5
_NUM_TARGETS = 2


@dataclass
class Measurements:
    """What finished runs took, by kind: the exact settings first, then the method."""

    step: dict[tuple[str, ...], list[float]] = field(default_factory=dict)
    """Seconds a gradient step."""
    episode: dict[tuple[str, ...], list[float]] = field(default_factory=dict)
    """Seconds an episode of evaluation."""


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """A run of a study, and what is left of it."""

    path: Path
    state: str
    """finished, to do, or at the step of its checkpoint."""
    seconds_left: float
    is_measured: bool
    """Whether a finished run of the same kind says so."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a study will run, and how long that may take."""

    runs: tuple[PlannedRun, ...]
    pretrainings: dict[str, int]
    """Initializers that are pre-trained first, and their gradient steps."""
    side_by_side: int | None
    """Runs at a time; None where the engine takes as many as it has room for."""
    seconds_left: float | None
    """Of the whole study; None where it is not known how many runs are at a time."""

    def __str__(self) -> str:
        """How long it may take, and what says so."""
        basis = "measured on finished runs here"
        if not all(run.is_measured for run in self.runs):
            rough = f"{AGENTS[DEFAULT_AGENT].config.seconds_a_step:g} s a step of ChibiT's size in fp32"
            basis = f"those marked ? are rough: {rough}, more for larger models; the others are {basis}"
        if self.seconds_left is None:
            return f"the time in all depends on how many runs the engine has room for ({basis})"
        return f"about {shown_time(self.seconds_left)} left with {self.side_by_side} at a time ({basis})"


def make_plan(tasks: Sequence[Task], root: Path, side_by_side: int | None) -> Plan:
    """Look at the folders of a study's runs.

    Args:
        tasks: the runs.
        root: folder of the studies whose finished runs say how long others take.
        side_by_side: runs at a time, where there are so many; None if that is not known.
    """
    measured, sources = measure(root), sources_left(tasks)
    runs = tuple(forecast(task, measured) for task in tasks)
    seconds = None
    if side_by_side is not None:
        side_by_side = max(1, min(side_by_side, sum(not task.is_done for task in tasks)))
        total = sum(run.seconds_left for run in runs) + sum(sources.values()) * SECONDS_A_PRETRAINING_STEP
        seconds = max(total / side_by_side, *(run.seconds_left for run in runs), 0.0)
    return Plan(runs=runs, pretrainings=sources, side_by_side=side_by_side, seconds_left=seconds)


def _state(task: Task) -> str:
    if task.is_done:
        return "finished"
    steps = _steps_done(task)
    return f"at {steps}" if steps or (task.path / "config.json").exists() else "to do"


def _steps_done(task: Task) -> int:
    """Gradient steps of a run's newest checkpoint, which it will go on from."""
    return max(checkpoint_steps(task.path / "checkpoints"), default=0)


def measure(root: Path) -> Measurements:
    """Read the times of all finished runs of all studies in a folder; what cannot be read is left out."""
    found = Measurements()
    for path in sorted(root.glob("*/*/result.json")):
        try:
            run = RunDir(path.parent)
            result, record = run.result(), run.description()["config"]
            steps, training = result["steps"], float(result["train_seconds"])
            episodes = _num_episodes(record, len(result["scores"]))
            evaluation = float(result["evaluation_seconds"])
            keys = _kinds(record)
        except (UserError, OSError, KeyError, TypeError, ValueError, OverflowError):
            continue
        for key in keys:
            if steps > 0 and training > 0:
                found.step.setdefault(key, []).append(training / steps)
            if episodes > 0 and evaluation > 0:
                found.episode.setdefault((*key, str(record["data"])), []).append(evaluation / episodes)
                found.episode.setdefault(key, []).append(evaluation / episodes)
    return found


def forecast(task: Task, measured: Measurements) -> PlannedRun:
    """What is left of a task, pre-training of its sources not counted."""
    seconds, is_measured = (0.0, True) if task.is_done else _seconds_left(task, measured)
    return PlannedRun(path=task.path, state=_state(task), seconds_left=seconds, is_measured=is_measured)


def _seconds_left(task: Task, measured: Measurements) -> tuple[float, bool]:
    """Seconds, and whether they are measured."""
    config = task.config
    record = to_record(config)
    kinds = _kinds(record)
    left = max(0, config.num_steps - _steps_done(task))
    step, is_measured = _first(measured.step, kinds)
    if step is None:
        step = config.agent.rough_seconds_a_step(config.num_steps, config.precision)
    keys = [key for kind in kinds for key in ((*kind, config.data), kind)]
    episode, _ = _first(measured.episode, keys)
    if episode is None:
        episode = config.agent.seconds_an_episode
    asks = config.agent.takes_target_returns
    num_targets = len(config.target_returns or (0,) * _NUM_TARGETS) if asks else 1
    episodes = _num_episodes(record, num_targets) * left / config.num_steps
    return left * step + episodes * episode, is_measured


def sources_left(tasks: Sequence[Task]) -> dict[str, int]:
    """Sources that have yet to be pre-trained, and their gradient steps."""
    specs = dict.fromkeys(
        spec for task in tasks if not task.is_done for spec in trained_specs(task.config.agent)
    )
    return {spec: source_steps(spec) for spec in specs if not (source_folder(spec) / "result.json").is_file()}


def _kinds(record: dict[str, Any]) -> list[tuple[str, ...]]:
    """Names of a run's kind, from the exact one to its method on the machine at hand."""
    agent = from_record(record).agent
    method = (agent.agent, str(record["precision"]))
    return [(*method, config_hash(record["agent"])), (*method, *agent.size_class)]


def _num_episodes(record: dict[str, Any], num_targets: int) -> int:
    evaluations = count_evaluations(int(record["num_steps"]), int(record["evaluate_every"]))
    return evaluations * int(record["num_episodes"]) * max(1, num_targets)


def _first(
    values: dict[tuple[str, ...], list[float]], keys: Sequence[tuple[str, ...]]
) -> tuple[float | None, bool]:
    for key in keys:
        if key in values:
            return statistics.median(values[key]), True
    return None, False

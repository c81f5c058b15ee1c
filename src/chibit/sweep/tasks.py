"""One run of a study as a task that any engine can take: what it is, how it is done, what became of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from chibit.core.errors import BusyError, UserError
from chibit.core.platform import give_memory_back
from chibit.core.signals import Stopped
from chibit.training.run_config import RunConfig, run_path

Status = Literal["finished", "skipped", "failed", "stopped", "busy"]


@dataclass(frozen=True)
class Outcome:
    """What became of one run."""

    path: Path
    """Its directory."""
    status: Status
    """`skipped` was finished before; `stopped` has a checkpoint to go on from; `busy` is in another driver's
    hands."""
    message: str = ""
    """Why it failed or stopped, in one line."""
    signal_number: int = 0
    """What stopped it."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One run."""

    config: RunConfig[Any]
    """What to run."""
    path: Path
    """Its directory."""
    study: str
    """The study it belongs to."""
    attention: bool = False
    """Draw its attention maps when it is finished."""

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do."""
        if not (self.path / "result.json").is_file():
            return False
        untold = self.config.tensorboard and not (self.path / "tensorboard").is_dir()
        if untold or (self.config.wandb is not None and not (self.path / "wandb").is_dir()):
            return False  # trackers are told what a finished run has logged
        return not self.attention or any((self.path / "attention").glob("*.npz"))


def raise_if_stopped(outcomes: Sequence[Outcome]) -> None:
    """Pass on that a signal ended a study.

    Raises:
        Stopped: if it did; the runs have saved, and the same command goes on.
    """
    number = max((outcome.signal_number for outcome in outcomes), default=0)
    if number:
        done = sum(outcome.status in ("finished", "skipped") for outcome in outcomes)
        raise Stopped(number, f"stopped, {done} of {len(outcomes)} runs are done; the same command goes on")


def make_tasks(
    configs: Sequence[RunConfig[Any]], *, root: Path, study: str, attention: bool = False
) -> list[Task]:
    """The tasks of a study, each run once.

    Args:
        configs: the runs.
        root: folder that holds the study's folder.
        study: name of the study.
        attention: draw the attention maps of the sequence models.
    """
    tasks = {}
    for config in configs:
        path = run_path(config, root, study)
        draws = attention and config.agent.draws_attention
        tasks[path] = Task(config=config, path=path, study=study, attention=draws)
    return list(tasks.values())


def run_task(task: Task) -> Outcome:
    """Do a task in this process; a refusal becomes an outcome, anything else is raised."""
    from chibit.training.offline import train
    from chibit.training.pretrain.sources import import_sources

    def do() -> None:
        import_sources(task.config.agent)  # a worker of a pool has not seen the driver's modules
        train(task.config, task.path, study=task.study, progress=False)
        if task.attention:
            _draw(task)

    return outcome_of(task, do)


def outcome_of(task: Task, do: Callable[[], object]) -> Outcome:
    """What becomes of a task by something that is done for it; a refusal becomes an outcome."""
    try:
        do()
    except BusyError as error:
        return Outcome(task.path, "busy", str(error))
    except UserError as error:
        return Outcome(task.path, "failed", str(error))
    except Stopped as error:
        return Outcome(task.path, "stopped", str(error), error.exit_code - 128)
    finally:
        give_memory_back()
    return Outcome(task.path, "finished")


def finish_task(task: Task, error: Exception | None) -> Outcome:
    """As `run_task`, whose run has ended with an error, or is finished and lacks at most its maps."""

    def do() -> None:
        if error is not None:
            raise error
        if task.attention:
            _draw(task)

    return outcome_of(task, do)


def _draw(task: Task) -> None:
    from chibit.training.attention import draw_attention
    from chibit.training.loading import load_run

    draw_attention(load_run(task.path, device="cpu"))

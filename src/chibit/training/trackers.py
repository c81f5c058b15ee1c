"""Optional loggers beside the run directory: TensorBoard and Weights & Biases."""

from __future__ import annotations

import contextlib
import math
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from chibit.core.errors import InputError, ResourceError, needing
from chibit.core.run_dir import RunDir
from chibit.evaluation.summary import EvaluationSummary, summarize_record
from chibit.training.run_config import RunConfig, to_record

Tracker = Callable[[int, Mapping[str, float]], None]


def make_trackers(run: RunDir, config: RunConfig[Any]) -> list[Tracker]:
    """Open the loggers that were asked for; a new one is first told what the run has logged so far.

    Args:
        run: the run directory; TensorBoard's event files go under ``path/tensorboard``.
        config: says which.

    Raises:
        InputError: when the extra is not installed, naming it, or Weights & Biases is not signed in.
        ResourceError: when Weights & Biases cannot be reached.
    """
    trackers = [_tensorboard(run)] if config.tensorboard else []
    return trackers if config.wandb is None else [*trackers, _wandb(run, config.wandb, to_record(config))]


def _catch_up(track: Tracker, run: RunDir) -> None:
    """Log again what the run's own logs hold, by step: Weights & Biases takes none that is before another."""
    logged = [
        (record["step"], {name: value for name, value in record.items() if "/" in name})
        for record in run.read_log("metrics.jsonl")
    ]
    logged += [
        (record["step"], evaluation_metrics(summarize_record(record)))
        for record in run.read_log("evaluations.jsonl")
    ]
    for step, metrics in sorted(logged, key=lambda entry: entry[0]):
        track(step, metrics)


def evaluation_metrics(summary: EvaluationSummary) -> dict[str, float]:
    """What trackers are told of an evaluation."""
    return {f"eval/{summary.target_return}/score": -math.inf if summary.score is None else summary.score}


def _tensorboard(run: RunDir) -> Tracker:
    with needing("tb", "tensorboard:"):
        from torch.utils.tensorboard import SummaryWriter
    folder = run.own_folder("tensorboard")
    is_new = not folder.exists()
    writer = SummaryWriter(str(folder))

    def track(step: int, metrics: Mapping[str, float]) -> None:
        for key, value in metrics.items():
            writer.add_scalar(key, value, step)
        writer.flush()

    weakref.finalize(track, writer.close)  # it has a thread, and a process may do many runs
    if is_new:
        _catch_up(track, run)
    return track


def _wandb(run: RunDir, project: str, config: dict[str, Any]) -> Tracker:
    with needing("wandb", "wandb:"):
        import wandb
    name = run.name
    run.own_folder("wandb")
    with _translated(wandb.Error):
        there = wandb.init(
            project=project,
            group=run.description()["study"],
            name=name,
            dir=str(run.path),
            config=config,
            resume="allow",
            id=name[-64:],
            reinit="finish_previous",  # of the run before, in a process that does several
        )

    def track(step: int, metrics: Mapping[str, float]) -> None:
        with _translated(wandb.Error):
            there.log(dict(metrics), step=step)

    if not there.resumed:
        _catch_up(track, run)
    return track


@contextlib.contextmanager
def _translated(library_error: type[Exception]) -> Iterator[None]:
    """One line for what Weights & Biases refuses."""
    try:
        yield
    except library_error as error:
        reason = " ".join(str(error).split())[:200]
        kind = ResourceError if type(error).__name__ == "CommError" else InputError
        raise kind(f"wandb: {reason}; run wandb login, or set WANDB_MODE=offline") from error

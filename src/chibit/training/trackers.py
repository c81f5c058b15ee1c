"""Optional loggers beside the run directory: TensorBoard and Weights & Biases."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from chibit.core.errors import InputError

Tracker = Callable[[int, Mapping[str, float]], None]


def make_trackers(
    path: Path, name: str, *, tensorboard: bool, wandb: str | None, config: dict[str, Any]
) -> list[Tracker]:
    """Open the loggers that were asked for.

    Args:
        path: the run directory.
        name: the run's name.
        tensorboard: write event files under ``path/tensorboard``.
        wandb: project to log to, or None.
        config: the run's configuration as JSON values.

    Raises:
        InputError: when the extra is not installed, naming it.
    """
    trackers: list[Tracker] = []
    if tensorboard:
        trackers.append(_tensorboard(path))
    if wandb is not None:
        trackers.append(_wandb(path, name, wandb, config))
    return trackers


def _tensorboard(path: Path) -> Tracker:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError("tensorboard: not installed; pip install 'chibit[tb]'") from error
    writer = SummaryWriter(str(path / "tensorboard"))

    def track(step: int, metrics: Mapping[str, float]) -> None:
        for key, value in metrics.items():
            writer.add_scalar(key, value, step)
        writer.flush()

    return track


def _wandb(path: Path, name: str, project: str, config: dict[str, Any]) -> Tracker:
    try:
        import wandb
    except ImportError as error:
        raise InputError("wandb: not installed; pip install 'chibit[wandb]'") from error
    run = wandb.init(
        project=project, name=name, dir=str(path), config=config, resume="allow", id=path.name[-64:]
    )

    def track(step: int, metrics: Mapping[str, float]) -> None:
        run.log(dict(metrics), step=step)

    return track

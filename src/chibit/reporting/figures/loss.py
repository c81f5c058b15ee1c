"""Training losses."""

from __future__ import annotations

import numpy as np

from chibit.reporting.figures.panel import Panel, draw_line
from chibit.reporting.figures.svg import Canvas, to_svg
from chibit.reporting.read.study import Study

_POINTS = 60


def training_loss(canvas: Canvas, study: Study, dataset: str, key: str) -> Panel | None:
    """Training loss of every run; None where no run logged one."""
    runs = [run for run in study.runs if run.dataset == dataset and len(run.loss)]
    if not runs:
        return None
    positive = all(np.all(run.loss[:, 1] > 0) for run in runs)
    axes = canvas.clear("gradient steps", "training loss", counts_steps=True, log=positive)
    for run in runs:
        points = run.loss[np.unique(np.linspace(0, len(run.loss) - 1, _POINTS).round().astype(int))]
        place = study.arms.index(run.arm)
        draw_line(axes, place, points[:, 0], points[:, 1], linewidth=1, alpha=0.8, marker=None)
    svg = to_svg(canvas.figure, key, f"Training loss on {dataset}, one line for each run.")
    return Panel(title=dataset, svg=svg)

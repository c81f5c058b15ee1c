"""Learning curves: the score of each arm against gradient steps."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce

import numpy as np

from chibit.core.formatting import format_score
from chibit.reporting.analysis import HEADLINE, Analysis
from chibit.reporting.figures.lengths import WITHOUT_MEMORY, memory_task
from chibit.reporting.figures.panel import Panel, Section, draw_band, draw_behavior, draw_line
from chibit.reporting.figures.svg import MUTED, Canvas, to_svg
from chibit.reporting.read.arms import arm_label
from chibit.reporting.read.targets import describe_choice
from chibit.reporting.statistics.comparison import Scores, behavior_mean, curve_points
from chibit.reporting.statistics.intervals import mean_band

_SEED = 0


def sections(canvas: Canvas, analysis: Analysis) -> Iterator[Section]:
    """A panel for each data set."""
    study = analysis.study
    is_memory = any(memory_task(study, name) is not None for name in study.datasets)
    dashed = " Dashed: the best that is reached without memory." if is_memory else ""
    none = " (with one seed there is none)" if len(study.seeds) == 1 else ""
    choice = describe_choice(study, analysis.target)
    asked = f" At {choice}." if choice else ""
    yield Section(
        key="curves",
        title="Learning curves",
        caption=f"Mean over seeds; the band is the 95% bootstrap interval of that mean{none}. Dotted: mean "
        f"of the training data's own episodes.{dashed}{asked}",
        panels={
            None: [
                *average_curves(canvas, analysis.scores[HEADLINE]),
                *(
                    learning_curves(canvas, analysis.scores[HEADLINE], name, f"curve-{i}")
                    for i, name in enumerate(study.datasets)
                ),
            ]
        },
    )


def average_curves(canvas: Canvas, scores: Scores) -> Iterator[Panel]:
    """Mean over data sets of the mean over seeds, at the steps that all share; nothing for one data set."""
    names = scores.aggregated
    if len(names) < 2 or not scores.is_normalized(*names):
        return
    axes = canvas.clear("gradient steps", "normalized score", counts_steps=True)
    endings = []
    for place, arm in enumerate(scores.study.arms):
        cells = [_points(scores, arm, name) for name in names]
        steps = reduce(np.intersect1d, [found[0] for found in cells])
        if not steps.size:
            continue
        mean = np.mean([points[:, np.isin(at, steps)].mean(axis=0) for at, points in cells], axis=0)
        draw_line(axes, place, steps, mean)
        endings.append(f"{arm_label(arm)} ends at {format_score(mean[-1])}")
    if not endings:
        return
    svg = to_svg(canvas.figure, "curve-average", f"Mean over {len(names)} data sets: {'; '.join(endings)}.")
    yield Panel(title=f"Mean over {len(names)} data sets", svg=svg)


def _points(scores: Scores, arm: str, dataset: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps (N,) that an arm's runs share, and their scores (runs, N) there."""
    curves = list(scores.curves.get((arm, dataset), {}).values())
    if not curves:
        return np.empty(0), np.empty((0, 0))
    steps = reduce(np.intersect1d, [curve.steps for curve in curves])
    return steps, np.stack(
        [curve_points(scores.study, dataset, curve)[np.isin(curve.steps, steps)] for curve in curves]
    )


def learning_curves(canvas: Canvas, scores: Scores, dataset: str, key: str) -> Panel:
    """Mean score over seeds against gradient steps, with the 95% band of the mean."""
    study = scores.study
    normalized = study.is_normalized(dataset)
    endings = []
    unit = "normalized score" if normalized else "mean return"
    axes = canvas.clear("gradient steps", unit, counts_steps=True)
    for place, arm in enumerate(study.arms):
        steps, points = _points(scores, arm, dataset)
        if not len(points):
            continue
        mean = points.mean(axis=0)
        draw_line(axes, place, steps, mean)
        if len(points) > 1:
            draw_band(axes, place, steps, *mean_band(points, np.random.default_rng(_SEED)))
        if steps.size:
            endings.append(f"{arm_label(arm)} ends at {format_score(mean[-1], normalized=normalized)}")
    draw_behavior(axes, behavior_mean(study, dataset, normalized=normalized), horizontal=True)
    if (task := memory_task(study, dataset)) is not None:
        axes.axhline(100 * task.chance, color=MUTED, linewidth=1.2, linestyle=WITHOUT_MEMORY)
    svg = to_svg(canvas.figure, key, f"Learning curves on {dataset}: {'; '.join(endings)}.")
    return Panel(title=dataset, svg=svg)

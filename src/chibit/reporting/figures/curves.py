"""Learning curves: the score of each arm against gradient steps."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce

import numpy as np

from chibit.core.formatting import format_score
from chibit.reporting.analysis import HEADLINE, Analysis
from chibit.reporting.figures.panel import Panel, Section, draw_band, draw_behavior, draw_line, unit
from chibit.reporting.figures.svg import Canvas, to_svg
from chibit.reporting.read.arms import arm_label
from chibit.reporting.read.targets import describe_choice
from chibit.reporting.statistics.comparison import Scores, behavior_mean, curve_points
from chibit.reporting.statistics.intervals import mean_band

_SEED = 0


def sections(canvas: Canvas, analysis: Analysis) -> Iterator[Section]:
    """A panel for each data set."""
    study = analysis.study
    none = " (with one seed there is none)" if len(study.seeds) == 1 else ""
    yield Section(
        key="curves",
        title="Learning curves",
        caption=f"Mean over seeds; the band is the 95% bootstrap interval of that mean{none}. Dotted: mean "
        f"of the training data's own episodes. At {describe_choice(study, analysis.target)}.",
        panels={
            None: [
                learning_curves(canvas, analysis.scores[HEADLINE], name, f"curve-{i}")
                for i, name in enumerate(study.datasets)
            ]
        },
    )


def learning_curves(canvas: Canvas, scores: Scores, dataset: str, key: str) -> Panel:
    """Mean score over seeds against gradient steps, with the 95% band of the mean."""
    study = scores.study
    normalized = study.is_normalized(dataset)
    endings = []
    axes = canvas.clear("gradient steps", unit(scores, dataset), counts_steps=True)
    for place, arm in enumerate(study.arms):
        curves = scores.curves.get((arm, dataset), {}).values()
        if not curves:
            continue
        steps = reduce(np.intersect1d, [curve.steps for curve in curves])
        points = np.stack([curve_points(study, dataset, c)[np.isin(c.steps, steps)] for c in curves])
        mean = points.mean(axis=0)
        draw_line(axes, place, steps, mean)
        if len(points) > 1:
            draw_band(axes, place, steps, *mean_band(points, np.random.default_rng(_SEED)))
        if steps.size:
            endings.append(f"{arm_label(arm)} ends at {format_score(mean[-1], normalized=normalized)}")
    draw_behavior(axes, behavior_mean(study, dataset, normalized=normalized), horizontal=True)
    svg = to_svg(canvas.figure, key, f"Learning curves on {dataset}: {'; '.join(endings)}.")
    return Panel(title=dataset, svg=svg)

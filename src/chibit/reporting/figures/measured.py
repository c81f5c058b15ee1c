"""What is compared beside the score: the held-out action error, and steps until a fixed level."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from chibit.core.formatting import format_number
from chibit.reporting.analysis import Analysis
from chibit.reporting.figures.forest import forests_by_set, overall_forest
from chibit.reporting.figures.panel import Panel, Section, arm_style, draw_line, present
from chibit.reporting.figures.svg import Canvas, arm_dashes, to_svg
from chibit.reporting.read.arms import arm_label
from chibit.reporting.statistics.survival import Arrivals, kaplan_meier

_ARRIVALS = (
    "How many runs have reached a level that is the same for all arms, by gradient steps; runs that never do "
    "are censored at their end. Then mean paired differences in steps, those of runs that never do "
    "counted with all of them; left of the line is sooner."
)
_ERRORS = (
    "Mean paired differences at the end of training; left of the line the arm predicts the actions of "
    "held-out episodes better."
)


def sections(canvas: Canvas, analysis: Analysis) -> Iterator[Section]:
    """One for each measure."""
    tables = analysis.tables
    for one in analysis.measured:
        measure, key = one.measure, one.measure.key
        drawn: list[Panel] = []
        if isinstance(measure, Arrivals):
            named = enumerate(analysis.study.datasets)
            drawn = present(survival_panel(canvas, measure, name, f"{key}-{i}") for i, name in named)
        make = overall_forest if measure.aggregated else forests_by_set
        drawn += make(measure, one.comparisons, key, measure.axis)
        if drawn:
            yield Section(
                key=key,
                title=measure.title,
                caption=_ARRIVALS if isinstance(measure, Arrivals) else _ERRORS,
                panels={None: drawn},
                tables={
                    None: [tables[kind][key] for kind in ("arrivals", "measured") if key in tables[kind]]
                },
            )


def survival_panel(canvas: Canvas, arrivals: Arrivals, dataset: str, key: str) -> Panel | None:
    """Share of runs that have reached the level, by gradient steps; None for a data set without one."""
    if dataset not in arrivals.horizons:
        return None
    described = []
    axes = canvas.clear("gradient steps", "runs that have reached it, %", counts_steps=True)
    for place, arm in enumerate(arrivals.study.arms):
        times, reached = arrivals.times(arm, dataset)
        if not times.size:
            continue
        steps, left = kaplan_meier(times, reached)
        x = np.concatenate([[0.0], steps, [times.max()]])
        y = 100 * (1 - np.concatenate([[1.0], left, left[-1:] if left.size else [1.0]]))
        axes.step(x, y, where="post", linestyle=arm_dashes(place), linewidth=1.7, **arm_style(place))
        draw_line(axes, place, steps, 100 * (1 - left), linestyle="none")
        described.append(f"{arm_label(arm)} {int(reached.sum())} of {times.size}")
    axes.set_ylim(-2, 102)
    svg = to_svg(canvas.figure, key, f"Runs that reach the level on {dataset}: {'; '.join(described)}.")
    note = f"{arrivals.what} {format_number(arrivals.levels[dataset])}"
    return Panel(title=dataset, svg=svg, note=note)

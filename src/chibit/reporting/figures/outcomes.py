"""Figures of what a study asks beside the final score: how soon a level is reached, and at how much data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from chibit.core.formatting import format_number
from chibit.reporting.figures.plots import Panel
from chibit.reporting.figures.svg import (
    MUTED,
    Canvas,
    arm_colour,
    arm_dashes,
    arm_gid,
    arm_marker,
    style,
    to_svg,
)
from chibit.reporting.published.published import arm_label
from chibit.reporting.statistics.crossover import Trend
from chibit.reporting.statistics.survival import Arrivals, kaplan_meier
from chibit.reporting.tables.outcomes import crossing_text, percent
from chibit.reporting.tables.scores import comparison_label


def survival_panel(canvas: Canvas, arrivals: Arrivals, dataset: str, key: str) -> Panel | None:
    """Share of runs that have reached the level, by gradient steps; None for a data set without one."""
    if dataset not in arrivals.horizons:
        return None
    described = []
    with style():
        axes = canvas.clear("gradient steps", "runs that have reached it, %", counts_steps=True)
        for place, arm in enumerate(arrivals.study.arms):
            times, reached = arrivals.times(arm, dataset)
            if not times.size:
                continue
            steps, left = kaplan_meier(times, reached)
            x = np.concatenate([[0.0], steps, [times.max()]])
            y = 100 * (1 - np.concatenate([[1.0], left, left[-1:] if left.size else [1.0]]))
            axes.step(
                x,
                y,
                where="post",
                color=arm_colour(place),
                linestyle=arm_dashes(place),
                linewidth=1.7,
                gid=arm_gid(place),
            )
            axes.plot(
                steps,
                100 * (1 - left),
                linestyle="none",
                marker=arm_marker(place),
                markersize=3.2,
                color=arm_colour(place),
                gid=arm_gid(place),
            )
            described.append(f"{arm_label(arm)} {int(reached.sum())} of {times.size}")
        axes.set_ylim(-2, 102)
        svg = to_svg(canvas.figure, key, f"Runs that reach the level on {dataset}: {'; '.join(described)}.")
    note = f"{arrivals.what} {format_number(arrivals.levels[dataset])}"
    return Panel(title=dataset, svg=svg, note=note)


def crossover_panel(
    canvas: Canvas, trends: Sequence[Trend], key: str, what: str, arms: Sequence[str]
) -> Panel:
    """Mean paired differences on one data set against the share of its episodes, with their intervals.

    Args:
        canvas: what to draw on.
        trends: the comparisons, at least one, all of one data set.
        key: name of the figure in the page.
        what: what the differences are of.
        arms: arms of the study, for their colours.
    """
    every = sorted({fraction for trend in trends for fraction in trend.fractions})
    with style():
        axes = canvas.clear("share of the episodes", "difference")
        axes.set_xscale("log")
        axes.axhline(0, color=MUTED, linewidth=1)
        for number, trend in enumerate(trends):
            place = arms.index(trend.comparison.treatment)
            estimates = [trend.comparison.by_dataset[name] for name in trend.datasets]
            # Side by side: comparisons of one study have the same shares.
            x = np.array(trend.fractions) * 1.03 ** (number - (len(trends) - 1) / 2)
            for at, estimate in zip(x, estimates, strict=True):
                if estimate.low is not None and estimate.high is not None:
                    axes.vlines(
                        at,
                        estimate.low,
                        estimate.high,
                        color=arm_colour(place),
                        alpha=0.6,
                        gid=arm_gid(place),
                    )
            axes.plot(
                x,
                [estimate.value for estimate in estimates],
                color=arm_colour(place),
                linestyle="-" if number == _first_of(trends, trend) else "--",
                linewidth=1.7,
                marker=arm_marker(place),
                markersize=4,
                gid=arm_gid(place),
            )
        axes.xaxis.set_major_locator(FixedLocator(every))
        axes.xaxis.set_major_formatter(FixedFormatter([percent(fraction) for fraction in every]))
        axes.xaxis.set_minor_locator(NullLocator())
        described = "; ".join(
            f"{comparison_label(trend.comparison)}: {crossing_text(trend)}" for trend in trends
        )
        svg = to_svg(canvas.figure, key, f"Differences by share of the data, sign changes: {described}.")
        axes.set_xscale("linear")
    return Panel(title=trends[0].source, svg=svg, note=what)


def _first_of(trends: Sequence[Trend], trend: Trend) -> int:
    """Place of the first comparison of the same arm: its line is solid, further ones are dashed."""
    treatments = [other.comparison.treatment for other in trends]
    return treatments.index(trend.comparison.treatment)

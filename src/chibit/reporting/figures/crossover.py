"""Differences against the share of the data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from chibit.core.formatting import percent
from chibit.reporting.analysis import Analysis
from chibit.reporting.figures.panel import Panel, Section, arm_style, draw_line
from chibit.reporting.figures.svg import MUTED, Canvas, to_svg
from chibit.reporting.statistics.crossover import Trend
from chibit.reporting.statistics.verdict import comparison_label, crossing_text


def sections(canvas: Canvas, analysis: Analysis) -> Iterator[Section]:
    """One panel for each measure and data set that was trained on in several shares."""
    panels: list[Panel] = []
    for what, trends in analysis.trends.items():
        for source in dict.fromkeys(trend.source for trend in trends):
            own = [trend for trend in trends if trend.source == source]
            panels.append(crossover_panel(canvas, own, f"crossover-{len(panels)}", what, analysis.study.arms))
    if panels:
        yield Section(
            key="crossover",
            title="How much data",
            caption="Mean paired differences against the share of the episodes, with their 95% intervals. "
            "Where a line crosses zero, the difference changes its sign.",
            panels={None: panels},
            tables={None: analysis.tables["crossovers"]},
            is_folded=False,
        )


def crossover_panel(
    canvas: Canvas, trends: Sequence[Trend], key: str, what: str, arms: Sequence[str]
) -> Panel:
    """Mean paired differences on one data set against the share of its episodes, with their intervals.

    Args:
        canvas: what to draw on.
        trends: the comparisons, at least one, all of one data set.
        key: name of the figure in the page.
        what: what the differences are of.
        arms: arms of the study, for their colors.
    """
    every = sorted({fraction for trend in trends for fraction in trend.fractions})
    axes = canvas.clear("share of the episodes", "difference")
    axes.set_xscale("log")
    axes.axhline(0, color=MUTED, linewidth=1)
    drawn = set[int]()
    for number, trend in enumerate(trends):
        place = arms.index(trend.comparison.treatment)
        estimates = [trend.comparison.by_dataset[name] for name in trend.datasets]
        # Side by side: comparisons of one study have the same shares.
        x = np.array(trend.fractions) * 1.03 ** (number - (len(trends) - 1) / 2)
        for at, estimate in zip(x, estimates, strict=True):
            if estimate.low is not None and estimate.high is not None:
                axes.vlines(at, estimate.low, estimate.high, alpha=0.6, **arm_style(place))
        # Further comparisons of the same arm are dashed.
        dashes = "--" if place in drawn else "-"
        drawn.add(place)
        y = np.array([estimate.value for estimate in estimates])
        draw_line(axes, place, x, y, linestyle=dashes, markersize=4)
    axes.xaxis.set_major_locator(FixedLocator(every))
    axes.xaxis.set_major_formatter(FixedFormatter([percent(fraction) for fraction in every]))
    axes.xaxis.set_minor_locator(NullLocator())
    described = "; ".join(f"{comparison_label(trend.comparison)}: {crossing_text(trend)}" for trend in trends)
    svg = to_svg(canvas.figure, key, f"Differences by share of the data, sign changes: {described}.")
    axes.set_xscale("linear")
    return Panel(title=trends[0].source, svg=svg, note=what)

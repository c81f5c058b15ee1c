"""Tables of how soon a level is reached, and of where a difference changes its sign."""

from __future__ import annotations

import math
from collections.abc import Sequence

from chibit.core.formatting import format_number, format_setting
from chibit.reporting.published.published import arm_label
from chibit.reporting.statistics.crossover import Trend
from chibit.reporting.statistics.survival import Arrivals, median_time, restricted_mean
from chibit.reporting.tables.scores import comparison_label
from chibit.reporting.tables.tables import Cell, Column, Row, Table, text


def arrivals_table(arrivals: Arrivals) -> Table:
    """How many runs reach the level of their data set, and when."""
    study = arrivals.study
    rows = []
    for dataset, horizon in arrivals.horizons.items():
        for place, arm in enumerate(study.arms):
            times, reached = arrivals.times(arm, dataset)
            if not times.size:
                continue
            middle = median_time(times, reached)
            mean = restricted_mean(times, reached, horizon)
            level = arrivals.levels[dataset]
            cells = (
                text(dataset),
                text(arm_label(arm)),
                Cell(text=format_number(level), sort=level),
                Cell(text=f"{int(reached.sum())} of {times.size}", sort=float(reached.mean())),
                Cell(text="not reached", sort=math.inf)
                if middle is None
                else Cell(text=f"{middle:,.0f}", sort=middle),
                Cell(text=f"{mean:,.0f}", sort=mean, note=f"within {horizon:,.0f}"),
            )
            rows.append(Row(cells=cells, arm=place))
    return Table(
        key=arrivals.key,
        title=arrivals.title,
        caption=f"Gradient steps until the first {arrivals.what} the level, which is the same for all arms. "
        "A run that does not reach it is censored at its end. Median: steps at which half of the runs have "
        "reached it (Kaplan and Meier). Mean: within the steps that all runs have; a run that does not reach "
        "the level counts with all of them.",
        columns=(
            Column(label="Data set", numeric=False),
            Column(label="Arm", numeric=False),
            Column(label="Level"),
            Column(label="Reached"),
            Column(label="Median"),
            Column(label="Mean"),
        ),
        rows=tuple(rows),
    )


def crossover_table(trends: Sequence[Trend], key: str, what: str) -> Table:
    """Where each comparison changes its sign.

    Args:
        trends: comparisons over shares of a data set.
        key: name of the table.
        what: what the differences are of.
    """
    rows = []
    for trend in trends:
        crossing = trend.crossing
        replicates = crossing.replicates
        cells = (
            text(trend.source),
            text(comparison_label(trend.comparison)),
            Cell(text=f"{percent(trend.fractions[0])} to {percent(trend.fractions[-1])}"),
            Cell(text="none" if crossing.at is None else percent(crossing.at), sort=crossing.at or math.inf),
            Cell(text=_interval(trend) or "—", sort=crossing.low),
            Cell(text="—") if replicates is None else Cell(text=f"{100 * replicates:.0f} %", sort=replicates),
        )
        rows.append(Row(cells=cells))
    return Table(
        key=key,
        title=f"Crossover: {what}",
        caption="Share of the episodes at which the mean paired difference changes its sign, linear between "
        "shares in the logarithm of the share, with its 95% paired bootstrap interval. Replicates: how many "
        "of the bootstrap change sign between the smallest and the largest share.",
        columns=(
            Column(label="Data set", numeric=False),
            Column(label="Comparison", numeric=False),
            Column(label="Shares"),
            Column(label="Crossover"),
            Column(label="95% interval"),
            Column(label="Replicates"),
        ),
        rows=tuple(rows),
    )


def crossing_text(trend: Trend) -> str:
    """``at 4.2 % (95% interval 1.1 % to above 30 %)``, or ``none``."""
    if trend.crossing.at is None:
        return "none"
    interval = _interval(trend)
    return f"at {percent(trend.crossing.at)}" + (f" (95% interval {interval})" if interval else "")


def crossing_sentence(trend: Trend) -> str:
    """Where one comparison changes its sign, or that it does not."""
    label = f"{comparison_label(trend.comparison)} on {trend.source}"
    if trend.crossing.at is None:
        first, last = percent(trend.fractions[0]), percent(trend.fractions[-1])
        return f"{label}: the same sign from {first} to {last} of the episodes."
    return f"{label}: the sign changes {crossing_text(trend)} of the episodes."


def _interval(trend: Trend) -> str:
    low, high = trend.crossing.low, trend.crossing.high
    if low is None or high is None:
        return ""
    first, last = percent(trend.fractions[0]), percent(trend.fractions[-1])
    start = percent(low) if low > 0 else f"below {first}"
    return f"{start} to {percent(high) if high < math.inf else f'above {last}'}"


def percent(fraction: float) -> str:
    """``3 %``, ``4.25 %``."""
    return f"{format_setting(float(f'{100 * fraction:.3g}'))} %"

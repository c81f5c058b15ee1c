"""How soon a level is reached."""

from __future__ import annotations

import math

from chibit.core.formatting import format_number
from chibit.reporting.read.arms import arm_label
from chibit.reporting.statistics.survival import Arrivals, median_time
from chibit.reporting.tables.table import Cell, Row, Table, number_columns, text, text_columns


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
            mean = float(arrivals.cell(arm, dataset).mean())
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
        f"the level counts with all of them.{_out_of_reach(arrivals)}",
        columns=(*text_columns("Data set", "Arm"), *number_columns("Level", "Reached", "Median", "Mean")),
        rows=tuple(rows),
    )


def _out_of_reach(arrivals: Arrivals) -> str:
    """Data sets that add nothing but zeros to differences."""
    names = [
        dataset
        for dataset in arrivals.horizons
        if not any(
            reached.any() for _, reached in (arrivals.times(arm, dataset) for arm in arrivals.study.arms)
        )
    ]
    if not names:
        return ""
    shrunk = ", and shrink those over all data sets" if len(names) < len(arrivals.horizons) else ""
    return (
        f" No run reaches the level of {', '.join(names)}: differences in steps are zero there{shrunk}; "
        "they say nothing about who is sooner."
    )

"""Where differences change their sign as the data grow."""

from __future__ import annotations

import math
from collections.abc import Sequence

from chibit.core.formatting import percent
from chibit.reporting.statistics.crossover import Trend
from chibit.reporting.statistics.verdict import comparison_label, crossing_interval
from chibit.reporting.tables.table import Cell, Row, Table, number_columns, text, text_columns


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
            Cell(text=crossing_interval(trend) or "—", sort=crossing.low),
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
            *text_columns("Data set", "Comparison"),
            *number_columns("Shares", "Crossover", "95% interval", "Replicates"),
        ),
        rows=tuple(rows),
    )

"""Scores by data set and arm, and the aggregates of each arm."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from chibit.core.formatting import format_score
from chibit.reporting.read.study import Study
from chibit.reporting.statistics.comparison import (
    Aggregates,
    Scores,
    behavior_mean,
)
from chibit.reporting.statistics.intervals import Estimate, mean_and_std
from chibit.reporting.statistics.verdict import describe_rule, format_interval
from chibit.reporting.tables.table import (
    EMPTY,
    Cell,
    Row,
    Table,
    arm_columns,
    number_columns,
    text_columns,
)

SPREAD = "± is the sample standard deviation between seeds"


def score_cell(values: np.ndarray, *, normalized: bool, num_seeds: int, strong: bool = False) -> Cell:
    """``61.2 ± 3.1``; without a spread for one seed, and with the number of seeds where some are missing."""
    if values.size == 0:
        return EMPTY
    mean, std = mean_and_std(values)
    shown = format_score(mean, normalized=normalized)
    if std is not None:
        shown += f" ± {format_score(std, normalized=normalized, like=[mean])}"
    note = "" if values.size == num_seeds else f"{values.size} of {num_seeds} seeds"
    return Cell(text=shown, sort=mean, note=note, strong=strong)


def scores_table(scores: Scores, aggregates: Mapping[str, Aggregates | None]) -> Table:
    """Data sets down, arms across, and at the foot the aggregates with their intervals."""
    study = scores.study
    rows = []
    for dataset in study.datasets:
        cells = [scores.cell(arm, dataset) for arm in study.arms]
        normalized = study.is_normalized(dataset)
        best = max(float(values.mean()) for values in cells if values.size)
        shown = [
            score_cell(
                values,
                normalized=normalized,
                num_seeds=len(study.seeds),
                strong=len(study.arms) > 1 and values.size > 0 and float(values.mean()) == best,
            )
            for values in cells
        ]
        name = Cell(text=dataset, note="" if normalized else "raw return")
        rows.append(Row(cells=(name, _behavior_cell(study, dataset), *shown)))
    rows += _aggregate_rows(scores, aggregates)
    one = len(study.seeds) == 1
    spread = "One seed, so no spread" if one else f"Mean of {len(study.seeds)} seeds; {SPREAD}"
    return Table(
        key=f"scores-{scores.rule}",
        title=f"Scores: {rule_title(scores)}",
        caption=f"Normalized scores (0 random, 100 expert) where the data set has a reference. {spread}. "
        "Data's mean: the training data's own episodes. Bold: highest mean of a row, whether or not the "
        "difference is real. Small print at the foot: 95% intervals.",
        columns=(*text_columns("Data set"), *number_columns("Data's mean"), *arm_columns(study.arms)),
        rows=tuple(rows),
    )


def rule_title(scores: Scores) -> str:
    """The rule in a table's heading."""
    return describe_rule(scores).partition(" (")[0]


def _behavior_cell(study: Study, dataset: str) -> Cell:
    normalized = study.is_normalized(dataset)
    value = behavior_mean(study, dataset, normalized=normalized)
    return EMPTY if value is None else Cell(text=format_score(value, normalized=normalized), sort=value)


def _aggregate_rows(scores: Scores, aggregates: Mapping[str, Aggregates | None]) -> list[Row]:
    study = scores.study
    normalized = scores.is_normalized(*scores.aggregated)
    kinds = [
        ("mean", "Mean"),
        ("interquartile_mean", "Interquartile mean"),
        ("optimality_gap", "Optimality gap"),
    ]
    if len(study.datasets) == 1:
        kinds = kinds[:1]
    rows = []
    for attribute, label in kinds:
        cells = []
        for arm in study.arms:
            found = aggregates[arm]
            estimate = getattr(found, attribute) if found is not None else None
            cells.append(EMPTY if estimate is None else estimate_cell(estimate, normalized=normalized))
        if any(cell is not EMPTY for cell in cells):
            note = "lower is better" if attribute == "optimality_gap" else ""
            rows.append(Row(cells=(Cell(text=label, note=note), EMPTY, *cells), summary=True))
    return rows


def estimate_cell(estimate: Estimate, *, normalized: bool, signed: bool = False) -> Cell:
    """A figure with its interval below."""
    return Cell(
        text=format_score(estimate.value, normalized=normalized, signed=signed),
        sort=estimate.value,
        note=format_interval(estimate, normalized=normalized, signed=signed) or "no interval",
    )

"""Scores by the target return that was asked for."""

from __future__ import annotations

import numpy as np

from chibit.reporting.statistics.comparison import Scores, curve_value
from chibit.reporting.tables.scores import SPREAD, rule_title, score_cell
from chibit.reporting.tables.table import (
    Cell,
    Row,
    Table,
    arm_columns,
    number_columns,
    setting_cell,
    text,
    text_columns,
)


def targets_table(scores: Scores) -> Table | None:
    """Scores at every target return that was evaluated; None where no run has more than one."""
    study = scores.study
    if all(len(run.curves) == 1 for run in study.runs):
        return None
    rows = []
    for dataset in study.datasets:
        runs = [run for run in study.runs if run.dataset == dataset]
        targets = dict.fromkeys(curve.target_return for run in runs for curve in run.curves)
        for target in targets:
            cells = []
            for arm in study.arms:
                cell = study.cells.get((arm, dataset), {})
                found = [
                    curve_value(study, dataset, curve, scores.rule)
                    for run in cell.values()
                    for curve in run.curves
                    if curve.target_return == target
                ]
                cells.append(
                    score_cell(
                        np.array(found), normalized=study.is_normalized(dataset), num_seeds=len(study.seeds)
                    )
                )
            label = Cell(text="none", sort=-1.0) if target is None else setting_cell(target)
            rows.append(Row(cells=(text(dataset), label, *cells)))
    return Table(
        key=f"targets-{scores.rule}",
        title=f"Scores by target return: {rule_title(scores)}",
        caption=f"What was asked for, and the score that came of it. {SPREAD}.",
        columns=(*text_columns("Data set"), *number_columns("Target return"), *arm_columns(study.arms)),
        rows=tuple(rows),
    )

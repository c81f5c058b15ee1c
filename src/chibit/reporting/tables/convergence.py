"""When each arm came near its own best."""

from __future__ import annotations

import numpy as np

from chibit.core.formatting import format_duration
from chibit.core.score_rules import CONVERGENCE_MARGIN
from chibit.reporting.published.scores import counterpart, published_scores, task_of
from chibit.reporting.read.arms import base_name
from chibit.reporting.statistics.comparison import Scores
from chibit.reporting.statistics.intervals import mean_and_std
from chibit.reporting.tables.scores import SPREAD
from chibit.reporting.tables.table import EMPTY, Cell, Row, Table, arm_columns, text, text_columns


def convergence_table(scores: Scores) -> Table | None:
    """When each arm came within 2 points of its best; None where no scores are normalized."""
    study = scores.study
    rows = [
        Row(cells=(text(dataset), *(_convergence_cell(scores, arm, dataset) for arm in study.arms)))
        for dataset in study.datasets
        if study.is_normalized(dataset)
    ]
    if not rows:
        return None
    return Table(
        key="convergence",
        title="Convergence",
        caption=f"Gradient steps until the first evaluation within {CONVERGENCE_MARGIN:g} points of the "
        f"run's own best; {SPREAD}. Below: training time until then, without evaluation. Paper: "
        "minutes on one V100 (Table 3); its DT is other code.",
        columns=(*text_columns("Data set"), *arm_columns(study.arms)),
        rows=tuple(rows),
    )


def _convergence_cell(scores: Scores, arm: str, dataset: str) -> Cell:
    curves = list(scores.curves.get((arm, dataset), {}).values())
    if not curves:
        return EMPTY
    steps = np.array([curve.steps[curve.rules.converged_index] for curve in curves], dtype=float)
    seconds = float(np.mean([curve.seconds[curve.rules.converged_index] for curve in curves]))
    mean, std = mean_and_std(steps)
    task = task_of(dataset)[0]
    published, _ = counterpart(base_name(arm), "reid2022")
    paper = [s.mean for s in published_scores() if (s.unit, s.arm, s.task) == ("minutes", published, task)]
    note = format_duration(seconds) + (f"; paper {format_duration(60 * paper[0])}" if paper else "")
    return Cell(text=f"{mean:,.0f}" + ("" if std is None else f" ± {std:,.0f}"), sort=mean, note=note)

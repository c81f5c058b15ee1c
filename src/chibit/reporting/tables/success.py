"""How often each arm solved the task, where the environment says so."""

from __future__ import annotations

import numpy as np

from chibit.reporting.statistics.comparison import Scores
from chibit.reporting.statistics.intervals import mean_and_std
from chibit.reporting.tables.scores import SPREAD
from chibit.reporting.tables.table import EMPTY, Cell, Row, Table, arm_columns, text, text_columns


def success_table(scores: Scores) -> Table | None:
    """Success rates by data set and arm; None where no environment reports success."""
    study = scores.study
    rows = [
        Row(cells=(text(dataset), *(_cell(scores, arm, dataset) for arm in study.arms)))
        for dataset in study.datasets
        if any(_rates(scores, arm, dataset) for arm in study.arms)
    ]
    if not rows:
        return None
    return Table(
        key="success",
        title="Success rate",
        caption="Percent of the episodes of the last evaluation in which the environment reported success "
        f"in any step (info: success or is_success); {SPREAD}. Below: episodes of each seed.",
        columns=(*text_columns("Data set"), *arm_columns(study.arms)),
        rows=tuple(rows),
    )


def _cell(scores: Scores, arm: str, dataset: str) -> Cell:
    rates = _rates(scores, arm, dataset)
    if not rates:
        return EMPTY
    mean, std = mean_and_std(100 * np.array([rate for rate, _ in rates]))
    episodes = sorted({number for _, number in rates})
    note = f"{episodes[0]}" if len(episodes) == 1 else f"{episodes[0]} to {episodes[-1]}"
    shown = f"{mean:.0f}" + ("" if std is None else f" ± {std:.0f}")
    return Cell(text=shown, sort=mean, note=note)


def _rates(scores: Scores, arm: str, dataset: str) -> list[tuple[float, int]]:
    """Success rate and episodes of each run at the chosen target return."""
    curves = scores.curves.get((arm, dataset), {})
    return [
        (record.success_rate_last, record.num_episodes_last or 0)
        for run in scores.study.runs
        if (run.arm, run.dataset) == (arm, dataset) and run.seed in curves
        for record in run.result.scores
        if record.target_return == curves[run.seed].target_return and record.success_rate_last is not None
    ]

"""The runs one by one, and what is missing of them."""

from __future__ import annotations

import os
from urllib.parse import quote

from chibit.core.formatting import format_score
from chibit.reporting.read.arms import arm_label
from chibit.reporting.read.run import Run
from chibit.reporting.read.study import Study
from chibit.reporting.statistics.comparison import RULES, Rule, Scores, curve_value
from chibit.reporting.statistics.verdict import short_rule
from chibit.reporting.tables.table import (
    EMPTY,
    Cell,
    Row,
    Table,
    duration_cell,
    number_cell,
    number_columns,
    setting_cell,
    text,
    text_columns,
)


def runs_table(scores: Scores) -> Table:
    """Every run with its scores, times and sizes."""
    study = scores.study
    rows = []
    for run in study.runs:
        curve = scores.curves[run.arm, run.dataset][run.seed]
        normalized = study.is_normalized(run.dataset)
        values = [curve_value(study, run.dataset, curve, rule) for rule in RULES]
        cells = [
            text(run.dataset),
            text(arm_label(run.arm)),
            Cell(text=str(run.seed), sort=run.seed),
            *(Cell(text=format_score(value, normalized=normalized), sort=value) for value in values),
            EMPTY if curve.target_return is None else setting_cell(curve.target_return),
            number_cell(run.result.steps),
            duration_cell(run.result.train_seconds),
            number_cell(run.result.parameters.get("total")),
            Cell(text=run.name, link=_way_to(run, study)),
        ]
        rows.append(Row(cells=tuple(cells), arm=study.arms.index(run.arm)))
    names: dict[Rule, str] = {"last4": short_rule(scores).capitalize(), "last": "Last", "best": "Best"}
    labels = ("Seed", *(names[rule] for rule in RULES), "Target", "Steps", "Training time", "Parameters")
    return Table(
        key="runs",
        title="Runs",
        caption="Every finished run at the chosen target return. Training time is without evaluation.",
        columns=(
            *text_columns("Data set", "Arm"),
            *number_columns(*labels),
            *text_columns("Folder"),
        ),
        rows=tuple(rows),
    )


def _way_to(run: Run, study: Study) -> str:
    """Where a page in the study's folder leads to from a run's name: its folder, which may be that one."""
    is_study = os.path.abspath(run.folder) == os.path.abspath(study.folder)
    return "./" if is_study else f"{quote(os.fsencode(run.folder.name))}/"


def excluded_table(study: Study) -> Table | None:
    """Folders that are no finished runs, and why; None where there are none."""
    if not study.excluded:
        return None
    rows = [Row(cells=(text(entry.name), text(entry.kind), text(entry.reason))) for entry in study.excluded]
    return Table(
        key="excluded",
        title="Not counted",
        caption="Folders that hold no finished, whole run. They are in no figure and no mean.",
        columns=text_columns("Folder", "What", "Why"),
        rows=tuple(rows),
    )


def gaps_table(study: Study) -> Table | None:
    """Seeds that an arm lacks on a data set; None where it lacks none."""
    grouped: dict[tuple[str, tuple[int, ...], tuple[str, ...]], list[str]] = {}
    for gap in study.gaps():
        grouped.setdefault((gap.arm, gap.seeds, gap.reasons), []).append(gap.dataset)
    if not grouped:
        return None
    rows = []
    for (arm, seeds, reasons), datasets in grouped.items():
        same = reasons[0] if len(set(reasons)) == 1 else None
        why = same or "; ".join(f"{seed}: {reason}" for seed, reason in zip(seeds, reasons, strict=True))
        where = ", ".join(datasets) if len(datasets) < len(study.datasets) else "all data sets"
        cells = (text(arm_label(arm)), text(where), text(", ".join(map(str, seeds))), text(why))
        rows.append(Row(cells=cells, arm=study.arms.index(arm)))
    return Table(
        key="gaps",
        title="Missing seeds",
        caption="Seeds that other runs of this study have. Nothing is filled in for them.",
        columns=text_columns("Arm", "Data sets", "Seeds", "Why"),
        rows=tuple(rows),
    )

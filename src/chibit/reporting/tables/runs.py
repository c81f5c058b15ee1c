"""The tables of runs: each one, their settings, data and provenance, and what is missing."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

from chibit.reporting.published.published import arm_label
from chibit.reporting.read.run import Run
from chibit.reporting.read.study import Study, differing_keys, flatten
from chibit.reporting.statistics.comparison import RULES, Rule, Scores, curve_value
from chibit.reporting.statistics.verdict import format_score, short_rule
from chibit.reporting.tables.published import format_duration
from chibit.reporting.tables.tables import EMPTY, Cell, Column, Row, Table, setting_cell, text

_LONGEST = 80
"""Characters of a setting's value that are shown."""
_IDENTITY = {"seed", "data", "arm"}
_PROVENANCE = ("commit", "versions", "host", "physics", "initialiser")
_HASH_DIGITS = 12
_LONGEST_COMMAND = 2000


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
            number_cell(run.result.get("steps")),
            duration_cell(run.result.get("train_seconds")),
            number_cell(_parameters(run, "total")),
            text(run.name),
        ]
        rows.append(Row(cells=tuple(cells), arm=study.arms.index(run.arm)))
    names: dict[Rule, str] = {"last4": short_rule(scores).capitalize(), "last": "Last", "best": "Best"}
    labels = ("Seed", *(names[rule] for rule in RULES), "Target", "Steps", "Training time", "Parameters")
    return Table(
        key="runs",
        title="Runs",
        caption="Every finished run at the chosen target return. Training time is without evaluation.",
        columns=(
            Column(label="Data set", numeric=False),
            Column(label="Arm", numeric=False),
            *(Column(label=label) for label in labels),
            Column(label="Folder", numeric=False),
        ),
        rows=tuple(rows),
    )


def settings_tables(study: Study) -> tuple[Table | None, Table]:
    """Settings that differ between arms (None where none do), and those that all share."""
    flat = {
        run.name: {k: v for k, v in flatten(run.config).items() if k not in _IDENTITY} for run in study.runs
    }
    differing: dict[str, None] = {}
    for dataset in study.datasets:
        here = [flat[run.name] for run in study.runs if run.dataset == dataset]
        differing.update(dict.fromkeys(differing_keys(here)))
    rows = []
    for key in differing:
        cells = [
            _distinct(flat[run.name].get(key) for run in study.runs if run.arm == arm) for arm in study.arms
        ]
        rows.append(Row(cells=(text(key), *(text(cell) for cell in cells))))
    table = Table(
        key="settings",
        title="Where settings differ",
        caption="Settings that are not the same for all arms on one data set, with all of an arm's values.",
        columns=(
            Column(label="Setting", numeric=False),
            *(Column(label=arm_label(arm), numeric=False, arm=i) for i, arm in enumerate(study.arms)),
        ),
        rows=tuple(rows),
    )
    keys = dict.fromkeys(key for settings in flat.values() for key in settings)
    shared = [
        Row(cells=(text(key), text(_distinct(settings.get(key) for settings in flat.values()))))
        for key in keys
        if key not in differing
    ]
    return (table if rows else None), _pairs("shared-settings", "Settings that all arms share", shared)


def provenance_table(study: Study) -> Table:
    """Code, versions, machines and physics, with all values where runs differ."""
    records: list[dict[str, Any]] = []
    for run in study.runs:
        chosen = {key: run.provenance[key] for key in _PROVENANCE if key in run.provenance}
        records.append(flatten(chosen))
        records[-1]["command"] = _command(run.provenance.get("argv"))
    keys = dict.fromkeys(key for record in records for key in record)
    rows = [Row(cells=(text(key), text(_distinct(record.get(key) for record in records)))) for key in keys]
    return _pairs("provenance", "Provenance", rows)


def data_table(study: Study) -> Table:
    """What was trained on, and where it was evaluated."""
    rows = []
    for dataset in study.datasets:
        run = next(run for run in study.runs if run.dataset == dataset)
        spec = run.provenance.get("dataset")
        spec = spec if isinstance(spec, dict) else {}
        cells = (
            text(dataset),
            text(str(run.provenance["data_hash"])[:_HASH_DIGITS]),
            number_cell(run.provenance.get("data_episodes")),
            number_cell(run.provenance.get("data_steps")),
            text(show(spec.get("env_id"))),
            text("as before MuJoCo 3.5" if spec.get("d4rl_physics") is True else "as installed"),
            text(_reference(spec.get("score_reference"))),
        )
        rows.append(Row(cells=cells))
    return Table(
        key="data",
        title="Data",
        caption="Content hash, size, environment of the evaluation, its contact margins, and the raw returns "
        "that count as scores of 0 and 100.",
        columns=(
            Column(label="Data set", numeric=False),
            Column(label="SHA-256", numeric=False),
            Column(label="Episodes"),
            Column(label="Steps"),
            Column(label="Environment", numeric=False),
            Column(label="Contact margins", numeric=False),
            Column(label="Scores 0 and 100", numeric=False),
        ),
        rows=tuple(rows),
    )


def excluded_table(study: Study) -> Table | None:
    """Folders that are no finished runs, and why; None where there are none."""
    if not study.excluded:
        return None
    rows = [Row(cells=(text(entry.name), text(entry.kind), text(entry.reason))) for entry in study.excluded]
    return Table(
        key="excluded",
        title="Not counted",
        caption="Folders that hold no finished, whole run. They are in no figure and no mean.",
        columns=(
            Column(label="Folder", numeric=False),
            Column(label="What", numeric=False),
            Column(label="Why", numeric=False),
        ),
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
        columns=(
            Column(label="Arm", numeric=False),
            Column(label="Data sets", numeric=False),
            Column(label="Seeds", numeric=False),
            Column(label="Why", numeric=False),
        ),
        rows=tuple(rows),
    )


def number_cell(value: Any) -> Cell:
    """A count; empty where the file has none."""
    if isinstance(value, (int, float)) and math.isfinite(value):
        return Cell(text=f"{value:,.0f}", sort=float(value))
    return EMPTY


def duration_cell(value: Any) -> Cell:
    """Seconds, readable; empty where the file has none."""
    if isinstance(value, (int, float)) and 0 <= value < math.inf:
        return Cell(text=format_duration(float(value)), sort=float(value))
    return EMPTY


def _reference(value: Any) -> str:
    """Two raw returns: ``−20.3 and 3,234``."""
    if not (isinstance(value, list) and len(value) == 2 and all(type(end) in (int, float) for end in value)):
        return show(value)
    return " and ".join(format_score(float(end), normalized=False) for end in value)


def show(value: Any) -> str:
    """A setting as a reader wants it: no quotes, no endless lists."""
    if value is None:
        return "—"
    shown = value if isinstance(value, str) and value else json.dumps(value)
    return shown if len(shown) <= _LONGEST else shown[: _LONGEST - 1] + "…"


def _command(argv: Any) -> str | None:
    """The command line without the folder of its program, which is nobody's business."""
    if not isinstance(argv, list) or not argv or not all(isinstance(part, str) for part in argv):
        return None
    command = " ".join([argv[0].rpartition("/")[2], *argv[1:]])
    return command if len(command) <= _LONGEST_COMMAND else command[:_LONGEST_COMMAND] + "…"


def _distinct(values: Iterable[Any]) -> str:
    return " | ".join(dict.fromkeys(show(value) for value in values))


def _parameters(run: Run, key: str) -> Any:
    parameters = run.result.get("parameters")
    return parameters.get(key) if isinstance(parameters, dict) else None


def _pairs(key: str, title: str, rows: list[Row]) -> Table:
    columns = (Column(label="Name", numeric=False), Column(label="Value", numeric=False))
    return Table(key=key, title=title, caption="", columns=columns, rows=tuple(rows))

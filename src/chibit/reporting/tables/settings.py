"""What runs were made with: settings, data, code and machines."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from chibit.core.formatting import format_score
from chibit.reporting.read.study import Study, differing_keys, flatten
from chibit.reporting.tables.table import (
    Row,
    Table,
    arm_columns,
    number_cell,
    number_columns,
    text,
    text_columns,
)

_LONGEST = 80
"""Characters of a setting's value that are shown."""
_IDENTITY = {"seed", "data", "arm"}
_PROVENANCE = ("commit", "versions", "host", "physics", "initialiser")
_HASH_DIGITS = 12
_LONGEST_COMMAND = 2000


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
        columns=(*text_columns("Setting"), *arm_columns(study.arms, numeric=False)),
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
        spec = run.provenance["dataset"]
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
            *text_columns("Data set", "SHA-256"),
            *number_columns("Episodes", "Steps"),
            *text_columns("Environment", "Contact margins", "Scores 0 and 100"),
        ),
        rows=tuple(rows),
    )


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


def _pairs(key: str, title: str, rows: list[Row]) -> Table:
    columns = text_columns("Name", "Value")
    return Table(key=key, title=title, caption="", columns=columns, rows=tuple(rows))

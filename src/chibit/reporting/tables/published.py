"""Our scores beside those that others published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from chibit.core.formatting import format_score
from chibit.environments.registry import OWN_IDS
from chibit.reporting.published.evidence import NINE
from chibit.reporting.published.scores import (
    Origin,
    PublishedRule,
    PublishedScore,
    find_published,
    task_of,
)
from chibit.reporting.read.arms import arm_label, base_name
from chibit.reporting.read.study import Study
from chibit.reporting.statistics.comparison import Rule, Scores
from chibit.reporting.statistics.intervals import Strata, mean_over_tasks
from chibit.reporting.statistics.verdict import short_rule
from chibit.reporting.tables.scores import score_cell
from chibit.reporting.tables.table import EMPTY, Cell, Row, Table, number_columns, text, text_columns

_RULE_NAMES: dict[PublishedRule, str] = {
    "last4": "last 4",
    "last": "last",
    "best": "best",
    "unstated": "rule unstated",
    "converged": "converged",
}
_PUBLICATIONS = {"reid2022": "Paper", "corl": "CORL", "wang2024": "Wang et al."}
_AVERAGES = {"average": NINE, "medium-average": tuple(f"{name}-medium" for name in OWN_IDS)}
"""Published averages, and the tasks that they are over."""
_ORIGIN_NOTES: dict[Origin, str] = {
    "chibit": "Data sets named chibit/... are this project's own collection and not D4RL's: other data, "
    "other physics, so published scores are there for orientation and not for comparison.",
    "minari": "Data sets named mujoco/... are Minari's own and not D4RL's: published scores are there for "
    "orientation and not for comparison.",
    "atari": "Data sets named after a game are samples of DQN-replay; which transitions others drew is not "
    "published.",
    "d4rl": "Data sets named ...-v2 are D4RL's own; environment and MuJoCo versions differ from theirs.",
}


def published_table(by_rule: Mapping[Rule, Scores]) -> Table | None:
    """Our scores beside what others published for the same arm and task; None where nobody did."""
    study = next(iter(by_rule.values())).study
    rows: list[tuple[Row, list[PublishedScore]]] = []
    for dataset in study.datasets:
        for place, arm in enumerate(study.arms):
            theirs = find_published(base_name(arm), task_of(dataset)[0] or "")
            if theirs and (arm, dataset) in study.cells:
                ours = [_our_cell(scores, arm, dataset) for scores in by_rule.values()]
                rows.append((Row(cells=(text(dataset), text(arm_label(arm)), *ours), arm=place), theirs))
    rows += _average_rows(by_rule)
    published = [score for _, theirs in rows for score in theirs]
    used = [key for key in _PUBLICATIONS if any(score.publication == key for score in published)]
    if not used:
        return None
    columns = [*text_columns("Data set", "Arm")]
    columns += number_columns(*(f"Ours, {short_rule(scores)}" for scores in by_rule.values()))
    columns += number_columns(*(_PUBLICATIONS[key] for key in used))
    return Table(
        key="published",
        title="Beside published numbers",
        caption=_data_note(study),
        columns=tuple(columns),
        rows=tuple(
            replace(row, cells=row.cells + tuple(_published_cell(theirs, key) for key in used))
            for row, theirs in rows
        ),
    )


def _our_cell(scores: Scores, arm: str, dataset: str) -> Cell:
    study = scores.study
    normalized = study.is_normalized(dataset)
    return score_cell(scores.cell(arm, dataset), normalized=normalized, num_seeds=len(study.seeds))


def _average_rows(by_rule: Mapping[Rule, Scores]) -> list[tuple[Row, list[PublishedScore]]]:
    """Averages over exactly the data sets of a published average, for the arms whose average is published."""
    study = next(iter(by_rule.values())).study
    tasks = [task_of(dataset)[0] for dataset in study.datasets]
    rows = []
    for key, members in _AVERAGES.items():
        for place, arm in enumerate(study.arms):
            theirs = find_published(base_name(arm), key)
            if theirs and sorted(members) == sorted(task or "" for task in tasks):
                cells = [_mean_cell(scores.strata(arm)) for scores in by_rule.values()]
                name = text(f"average of {len(members)}")
                rows.append(
                    (Row(cells=(name, text(arm_label(arm)), *cells), arm=place, summary=True), theirs)
                )
    return rows


def _mean_cell(strata: Strata | None) -> Cell:
    if strata is None:
        return EMPTY
    mean = float(mean_over_tasks(strata))
    return Cell(text=format_score(mean), sort=mean)


def _published_cell(scores: Sequence[PublishedScore], publication: str) -> Cell:
    """The first number of a publication, with its rule, its other rules and its seeds below."""
    found = [score for score in scores if score.publication == publication]
    if not found:
        return EMPTY
    order: list[PublishedRule] = ["last4", "last", "best", "unstated"]
    first, *others = sorted(found, key=lambda score: order.index(score.rule))
    notes = [first.source.partition("-table")[2] and f"Table {first.source.partition('-table')[2]}"]
    notes += [_RULE_NAMES[first.rule]]
    notes += [f"{_RULE_NAMES[other.rule]} {format_score(other.mean)}" for other in others]
    notes += [f"{first.num_seeds} seeds" if first.num_seeds else "", first.difference]
    shown = format_score(first.mean) + ("" if first.spread is None else f" ± {format_score(first.spread)}")
    return Cell(text=shown, sort=first.mean, note="; ".join(note for note in notes if note))


def _data_note(study: Study) -> str:
    """Whether ours and theirs were measured on the same data: the first thing to know when reading them."""
    origins = {task_of(dataset)[1] for dataset in study.datasets}
    parts = [
        "The rule stands below each published number; compare it with our column of the same rule, for the "
        "best of many evaluations is higher than the last."
    ]
    parts += [note for origin, note in _ORIGIN_NOTES.items() if origin in origins]
    return " ".join(parts)

"""Scores by data set and arm, and the aggregates of each arm."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from chibit.core.formatting import format_score
from chibit.reporting.read.arms import arm_label
from chibit.reporting.read.study import Study
from chibit.reporting.statistics.comparison import (
    Aggregates,
    Scores,
    behavior_mean,
    confidence_of,
    paired_values,
)
from chibit.reporting.statistics.intervals import MIN_RUNS, Estimate, mean_and_std, student_interval
from chibit.reporting.statistics.verdict import describe_rule, format_interval
from chibit.reporting.tables.table import (
    EMPTY,
    Cell,
    Row,
    Table,
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
    """Arms down, from the highest mean; their aggregates with intervals, then a column for each data set."""
    study = scores.study
    kinds = _kinds(aggregates, is_single=len(study.datasets) == 1)
    best = {dataset: _clearly_best(scores, dataset) for dataset in study.datasets}
    order = sorted(study.arms, key=lambda arm: -_mean(aggregates[arm]))
    rows = [
        Row(
            cells=(
                Cell(text=arm_label(arm)),
                *_aggregate_cells(scores, aggregates[arm], kinds),
                *(_cell(scores, arm, dataset, strong=best[dataset] == arm) for dataset in study.datasets),
            ),
            arm=study.arms.index(arm),
        )
        for arm in order
    ]
    behavior = [_behavior_cell(study, dataset) for dataset in study.datasets]
    if any(cell is not EMPTY for cell in behavior):
        name = Cell(text="Data's own mean", note="of its episodes")
        rows.append(Row(cells=(name, *(EMPTY for _ in kinds), *behavior), summary=True))
    one = len(study.seeds) == 1
    spread = "One seed, so no spread" if one else f"Mean of {len(study.seeds)} seeds; {SPREAD}"
    raw = [name for name in study.datasets if not study.is_normalized(name)]
    unit = "Normalized scores: 0 random, 100 expert"
    if raw:
        all_raw = len(raw) == len(study.datasets)
        unit = "Raw returns" if all_raw else f"{unit}; raw returns on {', '.join(raw)}"
    apart = "where the paired 95% interval of its difference from the second leaves out zero"
    bold = "" if one or len(study.arms) == 1 else f" Bold: highest on a data set, {apart}."
    below = "" if one else " Below means: 95% intervals."
    return Table(
        key=f"scores-{scores.rule}",
        title=f"Scores: {rule_title(scores)}",
        caption=f"{unit}. {spread}.{bold}{below}{_unequal_steps(study)}",
        columns=(
            *text_columns("Arm"),
            *number_columns(*(label for _, label in kinds)),
            *number_columns(*study.datasets),
        ),
        rows=tuple(rows),
    )


def _unequal_steps(study: Study) -> str:
    """A sentence where runs on one data set took different numbers of gradient steps; else empty."""
    taken: dict[str, dict[str, set[int]]] = {}
    for run in study.runs:
        taken.setdefault(run.dataset, {}).setdefault(run.arm, set()).add(run.num_steps)
    differ = [arms for arms in taken.values() if len(set().union(*arms.values())) > 1]
    found = {arm: sorted(set().union(*(arms.get(arm, ()) for arms in differ))) for arm in study.arms}
    listed = [
        f"{arm_label(arm)} {' and '.join(f'{number:,}' for number in numbers)}"
        for arm, numbers in found.items()
        if numbers
    ]
    return f" Gradient steps differ: {', '.join(listed)}." if listed else ""


def _clearly_best(scores: Scores, dataset: str) -> str | None:
    """The arm with the highest mean, if Student's paired interval sets it apart from the second."""
    means = {arm: float(v.mean()) for arm in scores.study.arms if (v := scores.cell(arm, dataset)).size}
    ranked = sorted(means, key=lambda arm: -means[arm])
    if len(ranked) < 2:
        return None
    ours, theirs = paired_values(scores, ranked[0], ranked[1], dataset)
    if ours.size < MIN_RUNS:
        return None
    student = student_interval([ours - theirs], confidence_of(scores.study))
    return ranked[0] if student.is_apart and student.low > 0 else None


def _cell(scores: Scores, arm: str, dataset: str, *, strong: bool) -> Cell:
    study = scores.study
    return score_cell(
        scores.cell(arm, dataset),
        normalized=study.is_normalized(dataset),
        num_seeds=len(study.seeds),
        strong=strong,
    )


def _mean(found: Aggregates | None) -> float:
    return float("-inf") if found is None else found.mean.value


def rule_title(scores: Scores) -> str:
    """The rule in a table's heading."""
    return describe_rule(scores).partition(" (")[0]


def _behavior_cell(study: Study, dataset: str) -> Cell:
    normalized = study.is_normalized(dataset)
    value = behavior_mean(study, dataset, normalized=normalized)
    return EMPTY if value is None else Cell(text=format_score(value, normalized=normalized), sort=value)


def _kinds(aggregates: Mapping[str, Aggregates | None], *, is_single: bool) -> list[tuple[str, str]]:
    """Aggregates that some arm has, with their headings; of one data set its interval alone."""
    kinds = [("mean", "Mean"), ("interquartile_mean", "IQM"), ("optimality_gap", "Optimality gap")]
    found = [one for one in aggregates.values() if one is not None]
    return [kind for kind in kinds[: 1 if is_single else 3] if any(getattr(one, kind[0]) for one in found)]


def _aggregate_cells(
    scores: Scores, found: Aggregates | None, kinds: Sequence[tuple[str, str]]
) -> Iterator[Cell]:
    normalized = scores.is_normalized(*scores.aggregated)
    for attribute, _ in kinds:
        estimate = getattr(found, attribute) if found is not None else None
        yield EMPTY if estimate is None else _estimate_cell(estimate, normalized=normalized)


def _estimate_cell(estimate: Estimate, *, normalized: bool) -> Cell:
    """A figure with its interval below."""
    return Cell(
        text=format_score(estimate.value, normalized=normalized),
        sort=estimate.value,
        note=format_interval(estimate, normalized=normalized) or "no interval",
    )

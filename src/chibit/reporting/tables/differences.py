"""Differences between arms, over all data sets and on each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from chibit.core.formatting import count, format_p, format_score
from chibit.reporting.statistics.comparison import Comparison, Measure, Scores
from chibit.reporting.statistics.intervals import Difference
from chibit.reporting.statistics.verdict import (
    FEW_SEEDS,
    comparison_label,
    differences_title,
    format_interval,
    student_estimate,
)
from chibit.reporting.tables.scores import rule_title
from chibit.reporting.tables.table import EMPTY, Cell, Row, Table, number_columns, text, text_columns

_LISTED = 6
_DIFFERENCE_COLUMNS = (
    *text_columns("Comparison", "Data set"),
    *number_columns("Difference", "95% interval", "Student's", "p", "Pairs"),
)


def differences_table(scores: Scores, comparisons: Sequence[Comparison]) -> Table:
    """Every arm minus what it is compared with: over all data sets and on each."""
    return Table(
        key=f"differences-{scores.rule}",
        title=f"{differences_title(comparisons)}: {rule_title(scores)}",
        caption=f"{_difference_caption(scores, comparisons)} P(better): probability that a run of the arm "
        f"beats one of the other arm on the same data set; none from fewer than {FEW_SEEDS} pairs.",
        columns=(
            *_DIFFERENCE_COLUMNS,
            *number_columns("P(better)"),
        ),
        rows=tuple(_difference_rows(scores, comparisons)),
    )


def measured_table(measure: Measure, comparisons: Sequence[Comparison]) -> Table:
    """The same for what is no score."""
    rows = [replace(row, cells=row.cells[:-1]) for row in _difference_rows(measure, comparisons)]
    return Table(
        key=f"differences-{measure.key}",
        title=f"{differences_title(comparisons)}: {measure.title[:1].lower()}{measure.title[1:]}",
        caption=f"Lower is better. {_difference_caption(measure, comparisons)}",
        columns=_DIFFERENCE_COLUMNS,
        rows=tuple(rows),
    )


def _difference_caption(scores: Scores, comparisons: Sequence[Comparison]) -> str:
    registration = scores.study.registration
    num_adjusted = max((one.num_adjusted for one in comparisons), default=0)
    looked = registration.until_half_width is not None
    corrected = " Intervals and p are corrected for adding seeds until they were narrow." if looked else ""
    return (
        "Mean paired difference (same seeds) with its 95% paired bootstrap interval, stratified by data set, "
        "and Student's; bold where both have a width and exclude zero. p: of no difference over all sets, by "
        f"Student's t, adjusted for {count(num_adjusted, 'comparison')} (Holm).{corrected}"
    )


def _difference_rows(scores: Scores, comparisons: Sequence[Comparison]) -> list[Row]:
    rows = []
    for comparison in comparisons:
        place = scores.study.arms.index(comparison.treatment)
        if comparison.overall is not None and len(comparison.datasets) > 1:
            some, all_of_them = len(comparison.datasets), len(scores.aggregated)
            label = f"all {some}" if some == all_of_them else f"{some} of {all_of_them}"
            rows.append(_difference_row(scores, comparison, label, comparison.overall, place))
        for dataset, estimate in comparison.by_dataset.items():
            rows.append(_difference_row(scores, comparison, dataset, estimate, place))
    return rows


def _difference_row(
    scores: Scores, comparison: Comparison, label: str, estimate: Difference, place: int
) -> Row:
    datasets = (label,) if label in comparison.by_dataset else comparison.datasets
    is_whole = datasets == comparison.datasets
    normalized = scores.is_normalized(*datasets)
    pairs = sum(comparison.num_pairs[dataset] for dataset in datasets)
    chance = comparison.probability if is_whole else None
    probability = EMPTY
    if chance is not None and chance.low is not None and chance.high is not None and pairs >= FEW_SEEDS:
        note = f"{chance.low:.2f} to {chance.high:.2f}"
        probability = Cell(text=f"{chance.value:.2f}", sort=chance.value, note=note)
    interval = format_interval(estimate, normalized=normalized, signed=True)
    if estimate.student is None or not estimate.student.has_spread:
        interval = f"none ({_why_none(comparison, datasets)})"
    dropped = [seed for dataset in datasets for seed in comparison.dropped.get(dataset, ())]
    cells = (
        text(comparison_label(comparison)),
        text(label),
        Cell(
            text=format_score(estimate.value, normalized=normalized, signed=True),
            sort=estimate.value,
            strong=estimate.is_apart,
        ),
        Cell(text=interval, sort=estimate.value if estimate.low is None else estimate.low),
        *_student_cells(estimate, comparison.adjusted_p if is_whole else None, normalized=normalized),
        Cell(text=str(pairs), sort=pairs, note=_dropped_note(dropped)),
        probability,
    )
    return Row(cells=cells, arm=place)


def _why_none(comparison: Comparison, datasets: Sequence[str]) -> str:
    """Why there is no interval: a single pair on some of the data sets, or on all, or no spread."""
    single = [name for name in datasets if comparison.num_pairs[name] == 1]
    if not single:
        return "all pairs alike"
    return "one seed" if len(single) == len(datasets) else f"one pair on {', '.join(single)}"


def _student_cells(estimate: Difference, adjusted: float | None, *, normalized: bool) -> tuple[Cell, Cell]:
    """Student's interval and p-value; empty where there are none."""
    student = estimate.student
    if student is None or not student.has_spread:
        return EMPTY, EMPTY
    freedom = f"{student.degrees_of_freedom:.3g}"
    interval = Cell(
        text=format_interval(student_estimate(estimate), normalized=normalized, signed=True),
        sort=student.low,
        note=f"{freedom} degree{'' if freedom == '1' else 's'} of freedom",
    )
    if adjusted is None:
        return interval, EMPTY
    return interval, Cell(text=format_p(adjusted).removeprefix("p = ").removeprefix("p "), sort=adjusted)


def _dropped_note(seeds: Sequence[int]) -> str:
    """Seeds that only one of the two arms has."""
    if not seeds:
        return ""
    listed = sorted(set(seeds))
    shown = ", ".join(map(str, listed[:_LISTED])) + (", …" if len(listed) > _LISTED else "")
    return f"{len(seeds)} dropped: seed{'' if len(listed) == 1 else 's'} {shown}"

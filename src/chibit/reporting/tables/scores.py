"""The tables of scores: by data set, against the baseline, and by target return."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from chibit.reporting.published.published import arm_label
from chibit.reporting.read.study import Study
from chibit.reporting.statistics.comparison import (
    Aggregates,
    Comparison,
    Measure,
    Scores,
    behaviour_mean,
    curve_value,
)
from chibit.reporting.statistics.intervals import Difference, Estimate, mean_and_std
from chibit.reporting.statistics.verdict import (
    FEW_SEEDS,
    describe_rule,
    format_interval,
    format_p,
    format_score,
    student_estimate,
)
from chibit.reporting.tables.tables import EMPTY, Cell, Column, Row, Table, setting_cell, text

_LISTED = 6
_DIFFERENCE_COLUMNS = (
    Column(label="Comparison", numeric=False),
    Column(label="Data set", numeric=False),
    Column(label="Difference"),
    Column(label="95% interval"),
    Column(label="Student's"),
    Column(label="p"),
    Column(label="Pairs"),
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
    columns = [Column(label="Data set", numeric=False), Column(label="Data's mean")]
    columns += [Column(label=arm_label(arm), arm=i) for i, arm in enumerate(study.arms)]
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
        rows.append(Row(cells=(name, _behaviour_cell(study, dataset), *shown)))
    rows += _aggregate_rows(scores, aggregates)
    one = len(study.seeds) == 1
    spread = "One seed, so no spread" if one else f"Mean of {len(study.seeds)} seeds; {SPREAD}"
    return Table(
        key=f"scores-{scores.rule}",
        title=f"Scores: {_rule(scores)}",
        caption=f"Normalised scores (0 random, 100 expert) where the data set has a reference. {spread}. "
        "Data's mean: the training data's own episodes. Bold: highest mean of a row, whether or not the "
        "difference is real. Small print at the foot: 95% intervals.",
        columns=tuple(columns),
        rows=tuple(rows),
    )


def _rule(scores: Scores) -> str:
    return describe_rule(scores).partition(" (")[0]


def _behaviour_cell(study: Study, dataset: str) -> Cell:
    normalized = study.is_normalized(dataset)
    value = behaviour_mean(study, dataset, normalized=normalized)
    return EMPTY if value is None else Cell(text=format_score(value, normalized=normalized), sort=value)


def _aggregate_rows(scores: Scores, aggregates: Mapping[str, Aggregates | None]) -> list[Row]:
    study = scores.study
    normalized = all(study.is_normalized(dataset) for dataset in scores.aggregated)
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


def differences_table(scores: Scores, comparisons: Sequence[Comparison]) -> Table:
    """Every arm minus what it is compared with: over all data sets and on each."""
    return Table(
        key=f"differences-{scores.rule}",
        title=f"{differences_title(comparisons)}: {_rule(scores)}",
        caption=f"{_difference_caption(scores, comparisons)} P(better): probability that a run of the arm "
        f"beats one of the other arm on the same data set; none from fewer than {FEW_SEEDS} pairs.",
        columns=(*_DIFFERENCE_COLUMNS, Column(label="P(better)")),
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
    num_adjusted = max(len(comparisons), len(registration.comparisons))
    looked = registration.until_half_width is not None
    corrected = " Intervals and p are corrected for adding seeds until they were narrow." if looked else ""
    return (
        "Mean paired difference (same seeds) with its 95% paired bootstrap interval, stratified by data set, "
        "and Student's; bold where the first excludes zero. p: of no difference over all sets, by Student's "
        f"t, adjusted for {num_adjusted} comparison{'' if num_adjusted == 1 else 's'} (Holm).{corrected}"
    )


def _difference_rows(scores: Scores, comparisons: Sequence[Comparison]) -> list[Row]:
    rows = []
    for comparison in comparisons:
        place = scores.study.arms.index(comparison.treatment)
        if comparison.overall is not None and len(comparison.datasets) > 1:
            label = f"all {len(comparison.datasets)}"
            rows.append(_difference_row(scores, comparison, label, comparison.overall, place))
        for dataset, estimate in comparison.by_dataset.items():
            rows.append(_difference_row(scores, comparison, dataset, estimate, place))
    return rows


def differences_title(comparisons: Sequence[Comparison]) -> str:
    """``Differences from Random init``, or without a name where arms are compared with several."""
    baselines = {comparison.baseline for comparison in comparisons}
    return f"Differences from {arm_label(baselines.pop())}" if len(baselines) == 1 else "Differences"


def comparison_label(comparison: Comparison) -> str:
    """``ChibiT − Random init``."""
    return f"{arm_label(comparison.treatment)} − {arm_label(comparison.baseline)}"


def _difference_row(
    scores: Scores, comparison: Comparison, label: str, estimate: Difference, place: int
) -> Row:
    overall = label not in comparison.by_dataset
    datasets = comparison.datasets if overall else (label,)
    normalized = scores.is_normalized(*datasets)
    pairs = sum(comparison.num_pairs[dataset] for dataset in datasets)
    chance = comparison.probability if overall or len(comparison.by_dataset) == 1 else None
    probability = EMPTY
    if chance is not None and chance.low is not None and chance.high is not None and pairs >= FEW_SEEDS:
        note = f"{chance.low:.2f} to {chance.high:.2f}"
        probability = Cell(text=f"{chance.value:.2f}", sort=chance.value, note=note)
    interval = format_interval(estimate, normalized=normalized, signed=True)
    only = len(comparison.by_dataset) == 1
    dropped = [seed for dataset in datasets for seed in comparison.dropped.get(dataset, ())]
    cells = (
        text(comparison_label(comparison)),
        text(label),
        Cell(
            text=format_score(estimate.value, normalized=normalized, signed=True),
            sort=estimate.value,
            strong=estimate.excludes(0.0),
        ),
        Cell(
            text=interval or "none (one seed)", sort=estimate.value if estimate.low is None else estimate.low
        ),
        *_student_cells(estimate, comparison.adjusted_p if overall or only else None, normalized=normalized),
        Cell(text=str(pairs), sort=pairs, note=_dropped_note(dropped)),
        probability,
    )
    return Row(cells=cells, arm=place)


def _student_cells(estimate: Difference, adjusted: float | None, *, normalized: bool) -> tuple[Cell, Cell]:
    """Student's interval and p-value; empty where there are none."""
    student = estimate.student
    if student is None:
        return EMPTY, EMPTY
    interval = Cell(
        text=format_interval(student_estimate(estimate), normalized=normalized, signed=True),
        sort=student.low,
        note=f"{student.degrees_of_freedom:.3g} degrees of freedom",
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
    columns = [Column(label="Data set", numeric=False), Column(label="Target return")]
    columns += [Column(label=arm_label(arm), arm=i) for i, arm in enumerate(study.arms)]
    return Table(
        key=f"targets-{scores.rule}",
        title=f"Scores by target return: {_rule(scores)}",
        caption=f"What was asked for, and the score that came of it. {SPREAD}.",
        columns=tuple(columns),
        rows=tuple(rows),
    )

"""Beneath the verdict: the paired differences over all data sets, and the aggregates of each arm."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from chibit.reporting.analysis import HEADLINE, Analysis
from chibit.reporting.figures.forest import NARROW, ForestRow, forest, overall_forest, pairing
from chibit.reporting.figures.panel import Panel, Section
from chibit.reporting.figures.svg import Canvas
from chibit.reporting.read.arms import arm_label
from chibit.reporting.statistics.comparison import Aggregates, Rule, Scores
from chibit.reporting.statistics.verdict import differences_title

_AGGREGATES = {
    "mean": ("Mean", "normalized score"),
    "interquartile_mean": ("Interquartile mean", "normalized score"),
    "optimality_gap": ("Optimality gap", "below 100: lower is better"),
}
"""Of rliable (Agarwal et al., 2021): field, heading, axis."""


def sections(canvas: Canvas, analysis: Analysis) -> Iterator[Section]:
    """A forest of differences, and with several data sets a panel for each aggregate."""
    is_single = len(analysis.study.datasets) == 1
    width = 1.0 if is_single else NARROW
    panels = {
        rule: [
            *overall_forest(scores, analysis.comparisons[rule], rule, width=width),
            *aggregate_panels(scores, analysis.aggregates[rule], rule),
        ]
        for rule, scores in analysis.scores.items()
    }
    if not panels[HEADLINE]:
        return
    comparisons = analysis.comparisons[HEADLINE]
    tables = {rule: [table] for rule, table in analysis.tables["differences"].items()}
    yield Section(
        key="overview",
        title=differences_title(comparisons) if comparisons and is_single else "Overall",
        caption=pairing(analysis) if comparisons else "Bars are 95% bootstrap intervals.",
        panels=panels,
        tables=tables if is_single else {},
    )


def aggregate_panels(
    scores: Scores, aggregates: Mapping[str, Aggregates | None], rule: Rule
) -> Iterator[Panel]:
    """Arms one below the other, the highest mean first; nothing for one data set or for raw returns."""
    study = scores.study
    found = {arm: one for arm in study.arms if (one := aggregates[arm]) is not None}
    if len(scores.aggregated) < 2 or not scores.is_normalized(*scores.aggregated):
        return
    order = sorted(found, key=lambda arm: -found[arm].mean.value)
    for field, (title, axis) in _AGGREGATES.items():
        rows = [
            ForestRow(label=arm_label(arm), estimate=estimate, arm=study.arms.index(arm))
            for arm in order
            if (estimate := getattr(found[arm], field)) is not None
        ]
        if len(rows) > 1:
            yield forest(rows, f"{field.replace('_', '-')}-{rule}", title, axis, signed=False, width=NARROW)

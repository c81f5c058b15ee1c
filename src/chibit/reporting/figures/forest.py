"""Differences with their intervals, one below the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from chibit.core.formatting import format_score
from chibit.reporting.analysis import HEADLINE, Analysis
from chibit.reporting.figures.panel import Panel, Section, arm_style, cut, sets_title
from chibit.reporting.figures.svg import INK, MUTED, PANEL_SIZE, SURFACE, Canvas, arm_gid, arm_marker, to_svg
from chibit.reporting.read.arms import arm_label
from chibit.reporting.statistics.comparison import Comparison, Scores
from chibit.reporting.statistics.intervals import Estimate
from chibit.reporting.statistics.verdict import (
    comparison_label,
    describe_rule,
    differences_title,
    format_interval,
)

_ROW_LENGTH, _AXIS_LENGTH = 52, 50
"""Characters of a row, label and numbers together, and of a label below an axis, in a usual panel."""
NARROW = 3.6 / PANEL_SIZE[0]
"""Width of a panel that stands beside three others, as a share of the usual one."""


@dataclass(frozen=True, kw_only=True)
class ForestRow:
    """One line of a forest plot."""

    label: str
    """What was compared."""
    estimate: Estimate
    """The difference."""
    arm: int
    """Place of the arm, for its color."""
    normalized: bool = True
    """Scores, or raw returns."""
    strong: bool = False
    """The overall difference, drawn bolder than those of data sets."""


def sections(canvas: Canvas, analysis: Analysis) -> Iterator[Section]:
    """The differences on each data set, by the rule of the verdict; the tables have all rules."""
    comparisons = analysis.comparisons[HEADLINE]
    panels = dataset_forests(analysis.scores[HEADLINE], comparisons)
    if panels:
        rule = describe_rule(analysis.scores[HEADLINE]).partition(" (")[0]
        yield Section(
            key="differences",
            title=f"{differences_title(comparisons)}, by data set",
            caption=f"{pairing(analysis)} By the {rule}; the table has the other rules.",
            panels={None: panels},
            tables={rule: [table] for rule, table in analysis.tables["differences"].items()},
        )


def pairing(analysis: Analysis) -> str:
    """What the intervals of differences are, and how they were chosen."""
    registration = analysis.study.registration
    shown = {(one.treatment, one.baseline) for one in analysis.comparisons[HEADLINE]}
    is_registered = shown <= set(registration.comparisons)
    first = "Comparisons registered before the first run. " if is_registered else ""
    looked = registration.until_half_width is not None
    corrected = ", corrected for adding seeds until they were narrow" if looked else ""
    return (
        f"{first}Differences are paired by seed; bars are 95% paired bootstrap intervals{corrected}. A bar "
        "that crosses the line leaves the sign open."
    )


def _labels(comparisons: Sequence[Comparison], what: str) -> tuple[list[str], str]:
    """What each comparison is called, and the axis; references are named where there are several."""
    if len({comparison.baseline for comparison in comparisons}) > 1:
        return [comparison_label(one) for one in comparisons], what
    axis = f"{what} from {arm_label(comparisons[0].baseline)}"
    return [arm_label(one.treatment) for one in comparisons], axis


def overall_forest(
    scores: Scores,
    comparisons: Sequence[Comparison],
    key: str,
    what: str = "difference",
    width: float = 1.0,
) -> list[Panel]:
    """All comparisons over all data sets, in one panel."""
    if not comparisons:
        return []
    arms = scores.study.arms
    labels, axis = _labels(comparisons, what)
    rows = [
        ForestRow(
            label=label + _share_of_sets(scores, comparison),
            estimate=comparison.overall,
            arm=arms.index(comparison.treatment),
            normalized=scores.is_normalized(*scores.aggregated),
            strong=True,
        )
        for label, comparison in zip(labels, comparisons, strict=True)
        if comparison.overall is not None
    ]
    title = sets_title(scores) + (" together" if len(scores.aggregated) > 1 else "")
    return [forest(rows, f"forest-{key}", title, axis, width=width)] if rows else []


def forests_by_set(scores: Scores, comparisons: Sequence[Comparison], key: str, what: str) -> list[Panel]:
    """A panel for each data set with all comparisons, for what has another unit on each."""
    if not comparisons:
        return []
    arms = scores.study.arms
    labels, axis = _labels(comparisons, what)
    panels = []
    for number, dataset in enumerate(scores.study.datasets):
        rows = [
            ForestRow(
                label=label,
                estimate=comparison.by_dataset[dataset],
                arm=arms.index(comparison.treatment),
                normalized=scores.is_normalized(dataset),
            )
            for label, comparison in zip(labels, comparisons, strict=True)
            if dataset in comparison.by_dataset
        ]
        if rows:
            panels.append(forest(rows, f"forest-{key}-{number}", dataset, axis))
    return panels


def _share_of_sets(scores: Scores, comparison: Comparison) -> str:
    """Over how many of the data sets a mean goes, where it is not all of them."""
    some, all_of_them = len(comparison.datasets), len(scores.aggregated)
    return "" if some == all_of_them else f" ({some} of {all_of_them} sets)"


def dataset_forests(scores: Scores, comparisons: Sequence[Comparison]) -> list[Panel]:
    """A panel for each comparison, its data sets one below the other; none for a single data set."""
    if not comparisons or len(scores.study.datasets) == 1:
        return []
    panels = []
    labels, axis = _labels(comparisons, "difference")
    for number, (label, comparison) in enumerate(zip(labels, comparisons, strict=True)):
        place = scores.study.arms.index(comparison.treatment)
        rows = [
            ForestRow(label=dataset, estimate=estimate, arm=place, normalized=scores.is_normalized(dataset))
            for dataset, estimate in comparison.by_dataset.items()
        ]
        if rows:
            panels.append(forest(rows, f"forest-{number}", label, axis, arm=place))
    return panels


def forest(
    rows: Sequence[ForestRow],
    key: str,
    title: str,
    axis: str,
    *,
    arm: int | None = None,
    signed: bool = True,
    width: float = 1.0,
) -> Panel:
    """Values with their intervals, one below the other; of differences zero is marked.

    Args:
        rows: from top to bottom.
        key: name of the figure in the page.
        title: heading.
        axis: what the differences are, such as "difference from Random init".
        arm: place of the arm that the whole panel is about.
        signed: whether the values are differences.
        width: as a share of a panel's usual one.
    """
    described = "; ".join(
        f"{row.label} {format_score(row.estimate.value, normalized=row.normalized, signed=signed)}"
        for row in rows
    )
    numbers, length = [_numbers(row, signed=signed) for row in rows], int(width * _ROW_LENGTH)
    is_long = any(len(row.label + shown) > length for row, shown in zip(rows, numbers, strict=True))
    figure = Figure(figsize=(width * PANEL_SIZE[0], 0.62 + (0.62 if is_long else 0.42) * len(rows)))
    bottom = 0.5 / figure.get_figheight()
    axes = figure.add_axes((0.03, bottom, 0.94, 1 - bottom - 0.02))
    if signed:
        axes.axvline(0, color=MUTED, linewidth=1)
    for height, (row, shown) in enumerate(reversed([*zip(rows, numbers, strict=True)])):
        _draw_row(axes, row, shown, height, label_height=0.48 if is_long else 0.2, length=length)
    axes.set_ylim(-0.45, len(rows) - (0.1 if is_long else 0.25))
    axes.yaxis.set_visible(False)
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.08)
    _spread_ticks(axes, int(width * _AXIS_LENGTH))
    axes.set_xlabel(cut(axis, int(width * _AXIS_LENGTH)))
    svg = to_svg(figure, key, f"{axis[:1].upper()}{axis[1:]}: {described}.")
    return Panel(title=title, svg=svg, arm=arm)


def _spread_ticks(axes: Axes, length: int) -> None:
    """Fewer numbers below the axis where they are so long, as of small errors, that they run together."""
    low, high = axes.get_xlim()
    for number in (5, 4, 3):
        inside = [place for place in axes.get_xticks() if low <= place <= high]
        ticks = axes.xaxis.get_major_formatter().format_ticks(inside)
        if sum(len(tick) + 2 for tick in ticks) <= length:
            return
        axes.locator_params(axis="x", nbins=number)


def _numbers(row: ForestRow, *, signed: bool) -> str:
    value = format_score(row.estimate.value, normalized=row.normalized, signed=signed)
    interval = format_interval(row.estimate, normalized=row.normalized, signed=signed)
    return f"{value}  [{interval.replace(' to ', ', ')}]" if interval else f"{value}  (no interval)"


def _draw_row(
    axes: Axes, row: ForestRow, shown: str, height: float, *, label_height: float, length: int
) -> None:
    """The interval, above it the numbers, and beside or above these the label."""
    estimate, drawn = row.estimate, arm_style(row.arm)
    if estimate.low is not None and estimate.high is not None:
        axes.hlines(height, estimate.low, estimate.high, linewidth=3 if row.strong else 2, **drawn)
    marker, size = arm_marker(row.arm), 7 if row.strong else 5.5
    axes.plot(estimate.value, height, marker=marker, markersize=size, **drawn)
    common: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "fontsize": 9, "va": "bottom"}
    common |= {"bbox": {"facecolor": SURFACE, "edgecolor": "none", "pad": 1.0}}
    common |= {"color": INK, "gid": arm_gid(row.arm), "fontweight": "bold" if row.strong else "normal"}
    axes.text(0, height + label_height, cut(row.label, length), **common)
    axes.text(1, height + 0.2, shown, ha="right", **common)

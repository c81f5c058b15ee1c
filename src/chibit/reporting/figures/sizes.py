"""Score against model size, where a study has arms of one kind in several sizes (Figure 3 of the paper)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from chibit.core.formatting import format_score
from chibit.reporting.analysis import HEADLINE, Analysis
from chibit.reporting.figures.panel import Panel, Section, present, sets_title
from chibit.reporting.figures.svg import MUTED, Canvas, arm_color, arm_gid, arm_marker, to_svg
from chibit.reporting.read.arms import arm_label, base_name
from chibit.reporting.statistics.comparison import Aggregates, Scores
from chibit.reporting.statistics.intervals import Estimate

_SIZED = re.compile(r"(.+)_\d+(\.\d+)?[KMG]")


@dataclass(frozen=True, kw_only=True)
class _Point:
    arm: int
    label: str
    parameters: int
    estimate: Estimate


def sections(canvas: Canvas, analysis: Analysis) -> Iterator[Section]:
    """A panel for each rule, where a kind of arm comes in several sizes."""
    panels = {
        rule: present([size_plot(scores, analysis.aggregates[rule], f"sizes-{rule}")])
        for rule, scores in analysis.scores.items()
    }
    if panels[HEADLINE]:
        yield Section(
            key="sizes",
            title="Model size",
            caption="Mean over data sets against the parameters in the transformer's blocks; lines join the "
            "sizes of one kind of arm, dashed for the untrained. Bars are 95% intervals.",
            panels=panels,
            is_half=True,
        )


def size_plot(scores: Scores, aggregates: Mapping[str, Aggregates | None], key: str) -> Panel | None:
    """Mean over data sets against parameters in the blocks, a line for each kind.

    Args:
        scores: the study under one rule.
        aggregates: its arms over all data sets.
        key: name of the figure in the page.

    Returns:
        The panel; None where no kind of arm comes in two sizes.
    """
    kinds = _kinds(scores, aggregates)
    if not any(len({point.parameters for point in points}) > 1 for points in kinds.values()):
        return None
    normalized = scores.is_normalized(*scores.aggregated)
    parts = []
    canvas = Canvas()
    axes = canvas.clear("parameters in the blocks", "normalized score" if normalized else "mean return")
    axes.set_xscale("log")
    for kind, points in kinds.items():
        x, y = [point.parameters for point in points], [point.estimate.value for point in points]
        axes.plot(x, y, color=MUTED, linewidth=1.1, linestyle="-" if kind != "random" else "--")
        for point in points:
            _draw_point(axes, point)
        shown = [f"{format_score(p.estimate.value, normalized=normalized)} at {p.label}" for p in points]
        parts.append(f"{arm_label(kind)} {', '.join(shown)}")
    sizes = {point.parameters: point.label for points in kinds.values() for point in points}
    axes.xaxis.set_major_locator(FixedLocator(sorted(sizes)))
    axes.xaxis.set_major_formatter(FixedFormatter([sizes[size] for size in sorted(sizes)]))
    axes.xaxis.set_minor_locator(NullLocator())
    svg = to_svg(canvas.figure, key, f"Score against model size: {'; '.join(parts)}.")
    return Panel(title=sets_title(scores), svg=svg)


def _draw_point(axes: Axes, point: _Point) -> None:
    low, high, bars = point.estimate.low, point.estimate.high, None
    if low is not None and high is not None:
        bars = [[max(0.0, point.estimate.value - low)], [max(0.0, high - point.estimate.value)]]
    drawn = axes.errorbar(
        [point.parameters],
        [point.estimate.value],
        yerr=bars,
        color=arm_color(point.arm),
        marker=arm_marker(point.arm),
        markersize=6,
        linewidth=1.7,
    )
    for artist in drawn.get_children():
        artist.set_gid(arm_gid(point.arm))


def _kinds(scores: Scores, aggregates: Mapping[str, Aggregates | None]) -> dict[str, list[_Point]]:
    """Arms by kind, each with its sizes in rising order."""
    kinds: dict[str, list[_Point]] = {}
    for place, arm in enumerate(scores.study.arms):
        found, parameters = aggregates[arm], _parameters(scores, arm)
        if found is None or parameters is None:
            continue
        sized = _SIZED.fullmatch(base_name(arm))
        label = f"{parameters / 1e6:.1f}M"
        point = _Point(arm=place, label=label, parameters=parameters, estimate=found.mean)
        kinds.setdefault(sized[1] if sized else base_name(arm), []).append(point)
    return {kind: sorted(points, key=lambda point: point.parameters) for kind, points in kinds.items()}


def _parameters(scores: Scores, arm: str) -> int | None:
    """Parameters in the blocks of an arm's model; None where its runs do not say."""
    for run in scores.study.runs:
        count = run.result.parameters.get("blocks", 0)
        if run.arm == arm and count > 0:
            return count
    return None

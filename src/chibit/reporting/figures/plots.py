"""The figures of a report, each an inline SVG with a description.

Every figure is one small panel: pages lay panels out side by side where there is room, else below each other.
Arms are told apart by colour, marker and dashes; the page's list of arms is the legend.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from chibit.reporting.figures.svg import (
    INK,
    MUTED,
    PANEL_SIZE,
    SURFACE,
    Canvas,
    arm_colour,
    arm_dashes,
    arm_gid,
    arm_marker,
    style,
    to_svg,
)
from chibit.reporting.published.published import arm_label
from chibit.reporting.statistics.comparison import Scores, behaviour_mean, curve_points
from chibit.reporting.statistics.intervals import (
    Estimate,
    mean_band,
    performance_profile,
    performance_profile_band,
)
from chibit.reporting.statistics.verdict import format_interval, format_score

_BINS = 24
_LOSS_POINTS = 60
_ROW_LENGTH, _AXIS_LENGTH = 52, 50
"""Characters of a row of a forest plot, label and numbers together, and of a label below an axis."""
_PROFILE_RUNS = 4
"""Fewest runs of an arm for a performance profile: below that it is a staircase of noise."""
_SEED = 0


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One figure of a page."""

    title: str
    """Heading: the data set, or the arm."""
    svg: Markup
    """The drawing."""
    note: str = ""
    """What a reader must know to read it, where it differs from panel to panel."""
    arm: int | None = None
    """Place of the arm that the whole panel is about."""


def learning_curves(canvas: Canvas, scores: Scores, dataset: str, key: str) -> Panel:
    """Mean score over seeds against gradient steps, with the 95% band of the mean."""
    study = scores.study
    endings = []
    with style():
        axes = canvas.clear("gradient steps", _unit(scores, dataset), counts_steps=True)
        for place, arm in enumerate(study.arms):
            curves = scores.curves.get((arm, dataset), {})
            if not curves:
                continue
            steps = _common_steps([curve.steps for curve in curves.values()])
            points = np.stack(
                [
                    curve_points(study, dataset, curve)[np.isin(curve.steps, steps)]
                    for curve in curves.values()
                ]
            )
            _draw_line(axes, place, steps, points.mean(axis=0))
            if len(points) > 1:
                low, high = mean_band(points, np.random.default_rng(_SEED))
                _draw_band(axes, place, steps, low, high)
            if steps.size:
                end = format_score(points.mean(axis=0)[-1], normalized=study.is_normalized(dataset))
                endings.append(f"{arm_label(arm)} ends at {end}")
        _draw_behaviour(
            axes, behaviour_mean(study, dataset, normalized=study.is_normalized(dataset)), horizontal=True
        )
        svg = to_svg(canvas.figure, key, f"Learning curves on {dataset}: {'; '.join(endings)}.")
    return Panel(title=dataset, svg=svg)


def return_histogram(canvas: Canvas, scores: Scores, dataset: str, key: str) -> Panel:
    """Raw returns of all episodes of up to four last evaluations, of all seeds, as shares."""
    study = scores.study
    pooled = {}
    for place, arm in enumerate(study.arms):
        curves = scores.curves.get((arm, dataset), {}).values()
        if curves:
            pooled[place] = np.concatenate([curve.final_returns for curve in curves])
    everything = np.concatenate(list(pooled.values()))
    edges = _bin_edges(everything)
    medians = []
    with style():
        axes = canvas.clear("return of an episode", "share of episodes, %")
        for place, returns in pooled.items():
            shares = 100 * np.histogram(returns, bins=edges)[0] / returns.size
            colour = arm_colour(place)
            axes.stairs(shares, edges, fill=True, color=colour, alpha=0.16, gid=arm_gid(place))
            outline = axes.stairs(shares, edges, color=colour, linewidth=1.5, linestyle=arm_dashes(place))
            outline.set_gid(arm_gid(place))
            median = format_score(float(np.median(returns)), normalized=False)
            medians.append(f"{arm_label(study.arms[place])} has median {median}")
        _draw_behaviour(axes, behaviour_mean(study, dataset, normalized=False), horizontal=False)
        svg = to_svg(
            canvas.figure, key, f"Distribution of episode returns on {dataset}: {'; '.join(medians)}."
        )
    sizes = sorted({returns.size for returns in pooled.values()})
    number = f"{sizes[0]:,}" + (f" to {sizes[-1]:,}" if len(sizes) > 1 else "")
    return Panel(title=dataset, svg=svg, note=f"{number} episode{'' if sizes == [1] else 's'} of each arm")


def _bin_edges(values: np.ndarray) -> np.ndarray:
    """(_BINS + 1,) edges of bins of one width, also where all values are alike, however large they are."""
    low, high = float(values.min()), float(values.max())
    room = 1e-9 * max(abs(low), abs(high))  # less than that, and no bin would have a width
    wide = (low, high) if high - low > room else (low - max(room, 0.5), high + max(room, 0.5))
    return np.histogram_bin_edges(values, bins=_BINS, range=wide)


def target_sweep(canvas: Canvas, scores: Scores, dataset: str, key: str) -> Panel | None:
    """Return obtained against return asked for; None where there is only one target."""
    study = scores.study
    lines: dict[int, dict[float, list[float]]] = {}
    for place, arm in enumerate(study.arms):
        for run in study.cells.get((arm, dataset), {}).values():
            for curve in run.curves:
                if curve.target_return is not None:
                    value = getattr(curve.return_rules, scores.rule)
                    lines.setdefault(place, {}).setdefault(curve.target_return, []).append(value)
    targets = sorted({target for line in lines.values() for target in line})
    if len(targets) < 2:
        return None
    with style():
        axes = canvas.clear("return asked for", "return obtained")
        axes.plot(targets, targets, color=MUTED, linewidth=1, linestyle=(0, (2, 3)))
        for place, line in lines.items():
            asked = np.array(sorted(line))
            _draw_line(axes, place, asked, np.array([np.mean(line[target]) for target in asked]))
            for target, obtained in line.items():
                if len(obtained) > 1:
                    axes.vlines(
                        target,
                        min(obtained),
                        max(obtained),
                        color=arm_colour(place),
                        alpha=0.5,
                        gid=arm_gid(place),
                    )
        svg = to_svg(canvas.figure, key, f"Return obtained against return asked for on {dataset}.")
    return Panel(title=dataset, svg=svg)


@dataclass(frozen=True, kw_only=True)
class ForestRow:
    """One line of a forest plot."""

    label: str
    """What was compared."""
    estimate: Estimate
    """The difference."""
    arm: int
    """Place of the arm, for its colour."""
    normalized: bool = True
    """Scores, or raw returns."""
    strong: bool = False
    """The overall difference, drawn bolder than those of data sets."""


def forest(rows: Sequence[ForestRow], key: str, title: str, axis: str, arm: int | None = None) -> Panel:
    """Differences with their intervals, one below the other, zero marked.

    Args:
        rows: from top to bottom.
        key: name of the figure in the page.
        title: heading.
        axis: what the differences are, such as "difference from Random init".
        arm: place of the arm that the whole panel is about.
    """
    described = "; ".join(
        f"{row.label} {format_score(row.estimate.value, normalized=row.normalized, signed=True)}"
        for row in rows
    )
    with style():
        figure = Figure(figsize=(PANEL_SIZE[0], 0.62 + 0.42 * len(rows)))
        bottom = 0.5 / figure.get_figheight()
        axes = figure.add_axes((0.03, bottom, 0.94, 1 - bottom - 0.02))
        axes.axvline(0, color=MUTED, linewidth=1)
        for height, row in enumerate(reversed(rows)):
            _draw_difference(axes, row, height)
        axes.set_ylim(-0.45, len(rows) - 0.25)
        axes.yaxis.set_visible(False)
        axes.spines["left"].set_visible(False)
        axes.margins(x=0.08)
        axes.set_xlabel(_cut(axis, _AXIS_LENGTH))
        svg = to_svg(figure, key, f"{axis[:1].upper()}{axis[1:]}: {described}.")
    return Panel(title=title, svg=svg, arm=arm)


def _draw_difference(axes: Axes, row: ForestRow, height: float) -> None:
    estimate, colour = row.estimate, arm_colour(row.arm)
    if estimate.low is not None and estimate.high is not None:
        axes.hlines(
            height,
            estimate.low,
            estimate.high,
            color=colour,
            linewidth=3 if row.strong else 2,
            gid=arm_gid(row.arm),
        )
    axes.plot(
        estimate.value,
        height,
        marker=arm_marker(row.arm),
        markersize=7 if row.strong else 5.5,
        color=colour,
        gid=arm_gid(row.arm),
    )
    value = format_score(estimate.value, normalized=row.normalized, signed=True)
    interval = format_interval(estimate, normalized=row.normalized, signed=True)
    shown = f"{value}  [{interval.replace(' to ', ', ')}]" if interval else f"{value}  (no interval)"
    common: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "fontsize": 9, "va": "bottom"}
    common |= {"bbox": {"facecolor": SURFACE, "edgecolor": "none", "pad": 1.0}}
    common |= {"color": INK, "gid": arm_gid(row.arm), "fontweight": "bold" if row.strong else "normal"}
    axes.text(0, height + 0.2, _cut(row.label, _ROW_LENGTH - len(shown)), **common)
    axes.text(1, height + 0.2, shown, ha="right", **common)


def profile(canvas: Canvas, scores: Scores, key: str) -> Panel | None:
    """Share of runs above each score, over all data sets; None for raw returns or few runs."""
    study = scores.study
    strata = {
        place: found for place, arm in enumerate(study.arms) if (found := scores.strata(arm)) is not None
    }
    if not all(study.is_normalized(dataset) for dataset in scores.aggregated) or not strata:
        return None
    if min(sum(cell.size for cell in found) for found in strata.values()) < _PROFILE_RUNS:
        return None
    highest = max(float(cell.max()) for found in strata.values() for cell in found)
    thresholds = np.linspace(0, max(100.0, np.ceil(highest)), 101)
    with style():
        axes = canvas.clear("normalised score", "share of runs above it, %")
        for place, found in strata.items():
            _draw_line(axes, place, thresholds, 100 * performance_profile(found, thresholds), marker=False)
            if min(cell.size for cell in found) > 1:
                low, high = performance_profile_band(found, thresholds, np.random.default_rng(_SEED))
                _draw_band(axes, place, thresholds, 100 * low, 100 * high)
        axes.set_ylim(-2, 102)
        svg = to_svg(canvas.figure, key, "Performance profile: share of runs above each score, by arm.")
    return Panel(title=f"{len(scores.aggregated)} data sets", svg=svg)


def training_loss(canvas: Canvas, scores: Scores, dataset: str, key: str) -> Panel | None:
    """Training loss of every run; None where no run logged one."""
    study = scores.study
    runs = [run for run in study.runs if run.dataset == dataset and len(run.loss)]
    if not runs:
        return None
    positive = all(np.all(run.loss[:, 1] > 0) for run in runs)
    with style():
        axes = canvas.clear("gradient steps", "training loss", counts_steps=True, log=positive)
        for run in runs:
            place = study.arms.index(run.arm)
            points = run.loss[np.unique(np.linspace(0, len(run.loss) - 1, _LOSS_POINTS).round().astype(int))]
            line: dict[str, Any] = {"color": arm_colour(place), "linestyle": arm_dashes(place)}
            axes.plot(points[:, 0], points[:, 1], linewidth=1, alpha=0.8, gid=arm_gid(place), **line)
        svg = to_svg(canvas.figure, key, f"Training loss on {dataset}, one line for each run.")
    return Panel(title=dataset, svg=svg)


def _draw_line(axes: Axes, place: int, x: np.ndarray, y: np.ndarray, *, marker: bool = True) -> None:
    axes.plot(
        x,
        y,
        color=arm_colour(place),
        linestyle=arm_dashes(place),
        linewidth=1.7,
        marker=arm_marker(place) if marker else None,
        markersize=3.2,
        gid=arm_gid(place),
    )


def _draw_band(axes: Axes, place: int, x: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
    axes.fill_between(x, low, high, color=arm_colour(place), alpha=0.16, linewidth=0, gid=arm_gid(place))


def _draw_behaviour(axes: Axes, value: float | None, *, horizontal: bool) -> None:
    """A dotted line at the mean of the training data's own episodes."""
    if value is None:
        return
    draw = axes.axhline if horizontal else axes.axvline
    draw(value, color=MUTED, linewidth=1.2, linestyle=(0, (2, 3)))


def _common_steps(steps: Sequence[np.ndarray]) -> np.ndarray:
    common = steps[0]
    for other in steps[1:]:
        common = np.intersect1d(common, other)
    return common


def _unit(scores: Scores, dataset: str) -> str:
    return "normalised score" if scores.study.is_normalized(dataset) else "mean return"


def _cut(label: str, length: int) -> str:
    return label if len(label) <= length else label[: length - 1] + "…"

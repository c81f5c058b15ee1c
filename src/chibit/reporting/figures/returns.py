"""Histograms of the returns of single episodes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from chibit.core.bins import bin_range
from chibit.core.formatting import count, format_score
from chibit.reporting.analysis import HEADLINE, Analysis
from chibit.reporting.figures.panel import Panel, Section, arm_style, draw_behavior
from chibit.reporting.figures.svg import Canvas, arm_dashes, to_svg
from chibit.reporting.read.arms import arm_label
from chibit.reporting.statistics.comparison import Scores, behavior_mean
from chibit.reporting.statistics.verdict import short_rule

_BINS = 24
_MOST_FILLED = 4
"""Areas of more arms than that cover each other."""


def sections(canvas: Canvas, analysis: Analysis) -> Iterator[Section]:
    """A panel for each data set."""
    scores = analysis.scores[HEADLINE]
    rule = short_rule(scores)
    known = [name for name in analysis.study.datasets if _returns(scores, name)]
    if not known:
        return
    yield Section(
        key="returns",
        title="Returns of episodes",
        caption=f"Raw returns of all episodes of the {rule} evaluation{'' if rule == 'last 1' else 's'}, all "
        "seeds together. Dotted: mean of the training data's own episodes.",
        panels={
            None: [return_histogram(canvas, scores, name, f"returns-{i}") for i, name in enumerate(known)]
        },
    )


def _returns(scores: Scores, dataset: str) -> dict[int, np.ndarray]:
    """Of all seeds, by place of the arm; of arms whose single episodes are known."""
    pooled = {
        place: np.concatenate([curve.final_returns for curve in scores.curves[arm, dataset].values()])
        for place, arm in enumerate(scores.study.arms)
        if (arm, dataset) in scores.curves
    }
    return {place: returns for place, returns in pooled.items() if returns.size}


def return_histogram(canvas: Canvas, scores: Scores, dataset: str, key: str) -> Panel:
    """Raw returns of all episodes of up to four last evaluations, of all seeds, as shares."""
    study = scores.study
    pooled = _returns(scores, dataset)
    everything = np.concatenate(list(pooled.values()))
    wide = bin_range(float(everything.min()), float(everything.max()))
    edges = np.histogram_bin_edges(everything, bins=_BINS, range=wide)
    medians = []
    axes = canvas.clear("return of an episode", "share of episodes, %")
    for place, returns in pooled.items():
        shares = 100 * np.histogram(returns, bins=edges)[0] / returns.size
        if len(pooled) <= _MOST_FILLED:
            axes.stairs(shares, edges, fill=True, alpha=0.16, **arm_style(place))
        axes.stairs(shares, edges, linewidth=1.5, linestyle=arm_dashes(place), **arm_style(place))
        median = format_score(float(np.median(returns)), normalized=False)
        medians.append(f"{arm_label(study.arms[place])} has median {median}")
    draw_behavior(axes, behavior_mean(study, dataset, normalized=False), horizontal=False)
    svg = to_svg(canvas.figure, key, f"Distribution of episode returns on {dataset}: {'; '.join(medians)}.")
    least, most = min(map(np.size, pooled.values())), max(map(np.size, pooled.values()))
    number = count(most, "episode") if least == most else f"{least:,} to {count(most, 'episode')}"
    return Panel(title=dataset, svg=svg, note=f"{number} of each arm")

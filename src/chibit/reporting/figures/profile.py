"""Performance profiles: the share of runs above each score."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from chibit.reporting.analysis import HEADLINE, Analysis
from chibit.reporting.figures.panel import Panel, Section, draw_band, draw_line, present, sets_title
from chibit.reporting.figures.svg import Canvas, to_svg
from chibit.reporting.statistics.comparison import Scores
from chibit.reporting.statistics.intervals import performance_profile, performance_profile_band

_FEWEST_RUNS = 4
"""Of an arm: below that a profile is a staircase of noise."""
_SEED = 0


def sections(canvas: Canvas, analysis: Analysis) -> Iterator[Section]:
    """A panel for each rule, where there are scores and runs enough."""
    panels = {
        rule: present([profile(canvas, scores, f"profile-{rule}")])
        for rule, scores in analysis.scores.items()
    }
    if panels[HEADLINE]:
        yield Section(
            key="profile",
            title="Performance profile",
            caption="Share of all runs that score above each value: higher is better, and a curve above "
            "another everywhere is better everywhere. Bands are 95% intervals.",
            panels=panels,
            is_half=True,
        )


def profile(canvas: Canvas, scores: Scores, key: str) -> Panel | None:
    """Share of runs above each score, over all data sets; None for raw returns or few runs."""
    found = {place: scores.strata(arm) for place, arm in enumerate(scores.study.arms)}
    strata = {place: cells for place, cells in found.items() if cells is not None}
    if not scores.is_normalized(*scores.aggregated) or not strata:
        return None
    if min(sum(cell.size for cell in cells) for cells in strata.values()) < _FEWEST_RUNS:
        return None
    highest = max(float(cell.max()) for cells in strata.values() for cell in cells)
    thresholds = np.linspace(0, max(100.0, np.ceil(highest)), 101)
    axes = canvas.clear("normalized score", "share of runs above it, %")
    for place, cells in strata.items():
        draw_line(axes, place, thresholds, 100 * performance_profile(cells, thresholds), marker=None)
        if min(cell.size for cell in cells) > 1:
            low, high = performance_profile_band(cells, thresholds, np.random.default_rng(_SEED))
            draw_band(axes, place, thresholds, 100 * low, 100 * high)
    axes.set_ylim(-2, 102)
    svg = to_svg(canvas.figure, key, "Performance profile: share of runs above each score, by arm.")
    return Panel(title=sets_title(scores), svg=svg)

"""Returns obtained against returns asked for."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from chibit.reporting.analysis import HEADLINE, Analysis
from chibit.reporting.figures.panel import Panel, Section, arm_style, draw_line, present
from chibit.reporting.figures.svg import MUTED, Canvas, to_svg
from chibit.reporting.statistics.comparison import Scores
from chibit.reporting.statistics.verdict import describe_rule


def sections(canvas: Canvas, analysis: Analysis) -> Iterator[Section]:
    """A panel for each data set, where runs were evaluated at several targets."""
    tables = {rule: [table] for rule, table in analysis.tables["targets"].items() if table}
    if not tables:
        return
    scores = analysis.scores[HEADLINE]
    drawn = present(
        target_sweep(canvas, scores, name, f"sweep-{i}") for i, name in enumerate(scores.study.datasets)
    )
    caption = (
        f"What was asked for and what came of it, by the {describe_rule(scores)}; thin lines span the seeds. "
        "On the dotted diagonal the policy does what it is told."
    )
    yield Section(
        key="targets",
        title="Target returns",
        caption=caption if drawn else "",
        panels={None: drawn} if drawn else {},
        tables=tables,
    )


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
    axes = canvas.clear("return asked for", "return obtained")
    axes.plot(targets, targets, color=MUTED, linewidth=1, linestyle=(0, (2, 3)))
    for place, line in lines.items():
        asked = np.array(sorted(line))
        draw_line(axes, place, asked, np.array([np.mean(line[target]) for target in asked]))
        for target, obtained in line.items():
            if len(obtained) > 1:
                axes.vlines(target, min(obtained), max(obtained), alpha=0.5, **arm_style(place))
    svg = to_svg(canvas.figure, key, f"Return obtained against return asked for on {dataset}.")
    return Panel(title=dataset, svg=svg)

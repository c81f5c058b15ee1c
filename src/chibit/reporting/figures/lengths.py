"""Success by how long something must be remembered, for studies of memory tasks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

import numpy as np

from chibit.core.formatting import format_score
from chibit.environments.kinds import MemoryEnvironment
from chibit.environments.registry import ENVIRONMENTS
from chibit.reporting.analysis import HEADLINE, Analysis
from chibit.reporting.figures.panel import Panel, Section, arm_style, draw_line
from chibit.reporting.figures.svg import MUTED, Canvas, to_svg
from chibit.reporting.read.arms import arm_label
from chibit.reporting.read.study import Study
from chibit.reporting.statistics.comparison import Scores

WITHOUT_MEMORY = (0, (6, 4))
"""Dashes of the line at what the best policy without memory reaches."""


def memory_task(study: Study, dataset: str) -> MemoryEnvironment | None:
    """The task that a data set is of; None for others."""
    run = next(run for run in study.runs if run.dataset == dataset)
    row = ENVIRONMENTS.get(str(run.provenance["dataset"].get("env_id")))
    return row if isinstance(row, MemoryEnvironment) else None


def sections(canvas: Canvas, analysis: Analysis) -> Iterator[Section]:
    """A panel for each task that the study has in several lengths."""
    scores = analysis.scores[HEADLINE]
    tasks: dict[str, dict[int, str]] = defaultdict(dict)
    for dataset in analysis.study.datasets:
        if (row := memory_task(analysis.study, dataset)) is not None:
            tasks[row.task][row.setting[1]] = dataset
    panels = [lengths(canvas, scores, task, found) for task, found in tasks.items() if len(found) > 1]
    if panels:
        yield Section(
            key="lengths",
            title="Success by length",
            caption="Mean and range of the seeds. Dashed: the best that is reached without memory.",
            panels={None: panels},
            is_half=True,
        )


def lengths(canvas: Canvas, scores: Scores, task: str, datasets: Mapping[int, str]) -> Panel:
    """Success of each arm against the length of the task."""
    study = scores.study
    sizes = sorted(datasets)
    chance = {row.chance for size in sizes if (row := memory_task(study, datasets[size])) is not None}
    axes = canvas.clear("steps to remember", "success, %")
    described = []
    for place, arm in enumerate(study.arms):
        cells = {size: found for size in sizes if (found := scores.cell(arm, datasets[size])).size}
        if not cells:
            continue
        x, means = np.array(list(cells)), np.array([found.mean() for found in cells.values()])
        draw_line(axes, place, x, means)
        lows, highs = ([edge(found) for found in cells.values()] for edge in (np.min, np.max))
        axes.vlines(x, lows, highs, linewidth=1.2, **arm_style(place))
        described.append(f"{arm_label(arm)} {' and '.join(format_score(mean) for mean in means)}")
    axes.axhline(100 * max(chance), color=MUTED, linewidth=1.2, linestyle=WITHOUT_MEMORY)
    axes.set_ylim(-2, 104)
    svg = to_svg(canvas.figure, f"lengths-{task.lower()}", f"Success by length: {'; '.join(described)}.")
    return Panel(title=task, svg=svg)

"""What can be drawn of policies that were judged without a simulator."""

from __future__ import annotations

from collections.abc import Sequence

from chibit.reporting.figures.panel import Panel, present
from chibit.reporting.figures.svg import INK, MUTED, Canvas, to_svg
from chibit.reporting.read.judgements import JudgedPolicy, by_log
from chibit.reporting.read.study import Study


def judged_panels(canvas: Canvas, study: Study) -> list[Panel]:
    """Judged against true returns of each log that has a simulator, and learning curves of each run."""
    groups = by_log(study.judged)
    drawn = [_against_truth(canvas, group, f"judged-{i}") for i, group in enumerate(groups)]
    runs = {one.run: one for one in study.judged if len(one.errors[0]) > 1}
    return present(
        [*drawn, *(_learning(canvas, one, f"learning-{i}") for i, one in enumerate(runs.values()))]
    )


def _learning(canvas: Canvas, policy: JudgedPolicy, key: str) -> Panel:
    axes = canvas.clear("gradient steps", "action error")
    for errors, color, dashes in zip(policy.errors, (INK, MUTED), ("-", "--"), strict=True):
        axes.plot(errors[:, 0], errors[:, 1], color=color, linestyle=dashes, linewidth=1.7)
    svg = to_svg(canvas.figure, key, f"Action errors of {policy.run} while it learned.")
    return Panel(
        title=f"Action error: {policy.run}",
        svg=svg,
        note="on held-out episodes; dashed: on those learned from",
    )


def _against_truth(canvas: Canvas, policies: Sequence[JudgedPolicy], key: str) -> Panel | None:
    known = [(one.true_return, one.judgement) for one in policies if one.true_return is not None]
    if not known:
        return None
    axes = canvas.clear("return in the simulator", "return in the model of the log")
    for true, judgement in known:
        total, color = judgement.in_model.total, MUTED if judgement.reasons else INK
        axes.plot(true, total.mean, marker="o", markersize=4, color=color)
        axes.vlines(true, total.low, total.high, color=color, alpha=0.5)
    ends = [min(true for true, _ in known), max(true for true, _ in known)]
    axes.plot(ends, ends, color=MUTED, linewidth=1, linestyle=(0, (2, 3)))
    name = policies[0].judgement.log.data
    svg = to_svg(canvas.figure, key, f"Return in a model of the log against return in the simulator, {name}.")
    note = "with the model spread; gray: policies for which no number is given; dotted: both say the same"
    return Panel(title=f"Judged and true: {name}", svg=svg, note=note)

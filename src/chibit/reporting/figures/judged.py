"""What can be drawn of policies without a simulator: what the judge says, the log, actions, and learning."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.ticker import MaxNLocator

from chibit.judging.judgement import Histogram, LogProfile
from chibit.judging.verdict import compare_with_clone, rank
from chibit.reporting.analysis import Analysis
from chibit.reporting.figures.forest import ForestRow, forest
from chibit.reporting.figures.panel import Panel, Section, arm_style, cut, draw_line, present
from chibit.reporting.figures.svg import INK, MUTED, Canvas, arm_dashes, arm_marker, to_svg
from chibit.reporting.read.arms import arm_label
from chibit.reporting.read.judgements import JudgedPolicy, Learning, by_log
from chibit.reporting.read.study import Study
from chibit.reporting.statistics.intervals import Estimate
from chibit.reporting.tables.judged import (
    SELECTION,
    dimension_tables,
    judged_tables,
    learning_table,
    log_remarks,
)

_MOST_POLICIES, _MOST_PANELS, _MOST_DIMENSIONS, _MOST_ARMS = 12, 6, 6, 4
_MOST_LOGS = 3
"""Logs whose tables are shown at once."""
_NAME = 46
"""Characters of a title."""
_LINES = (
    "Solid: on held-out episodes; dotted: on the tenth of them with the best returns; dashed: on episodes "
    "that were trained on."
)


def sections(canvas: Canvas, analysis: Analysis) -> Iterator[Section]:
    """Those for which there is something: nothing of runs that were only played."""
    study, groups = analysis.study, by_log(analysis.study.judged)
    if groups:
        tables = judged_tables(study)
        shown = [table for table in tables if table.key.startswith(SELECTION) or len(groups) <= _MOST_LOGS]
        yield Section(
            key="judged",
            title="Without a simulator",
            panels={None: _judged(canvas, study, groups)},
            tables={None: shown},
            is_folded=False,
        )
        if len(shown) < len(tables):
            others = {None: [table for table in tables if table not in shown]}
            caption = "Runs that hold out other episodes are judged by other models: a table for each."
            yield Section(key="judged-logs", title="Log by log", caption=caption, panels={}, tables=others)
    logs = {group[0].dataset: group[0].judgement.log.profile for group in groups}
    for number, (dataset, profile) in enumerate(logs.items()):
        if profile is not None:
            title = "The log" if len(logs) == 1 else f"The log: {dataset}"
            caption = " ".join(log_remarks(profile))
            drawn = list(_log(canvas, profile, f"log-{number}"))
            yield Section(key=f"log-{number}", title=title, caption=caption, panels={None: drawn})
    acting = [
        panel for i, group in enumerate(groups) for panel in _actions(canvas, study, group, f"acts-{i}")
    ]
    by_dimension = dimension_tables(study)
    if acting or by_dimension:
        yield Section(
            key="acting",
            title="Actions",
            caption="At logged steps; filled: the log; lines: the first policy of each arm.",
            panels={None: acting[: 2 * _MOST_DIMENSIONS]},
            tables={None: by_dimension} if by_dimension else {},
        )
    learned = list(_learning(canvas, study))
    if learned:
        table = learning_table(study)
        yield Section(
            key="learning",
            title="Action error while learning",
            caption=_LINES if table else "The training loss; nothing was held out.",
            panels={None: learned},
            tables={None: [table]} if table else {},
        )


def _judged(canvas: Canvas, study: Study, groups: Sequence[Sequence[JudgedPolicy]]) -> list[Panel]:
    """Against the clone for the first logs, asked for and judged, and judged and true of each data set."""
    shown = groups[:_MOST_PANELS]
    compared = [_against_clone(study, group, f"clone-{i}") for i, group in enumerate(shown)]
    swept = [_asked_for(canvas, study, group, f"asked-{i}") for i, group in enumerate(shown)]
    datasets = dict.fromkeys(one.dataset for one in study.judged)
    true = [_against_truth(canvas, study, dataset, f"true-{i}") for i, dataset in enumerate(datasets)]
    return present([*compared, *swept, *true])


def _against_clone(study: Study, policies: Sequence[JudgedPolicy], key: str) -> Panel | None:
    arms = {policy.judgement.name: policy.arm for policy in policies}
    rows = []
    for judgement in rank([policy.judgement for policy in policies])[:_MOST_POLICIES]:
        comparison = compare_with_clone(judgement)
        if comparison is None:
            continue
        gap = comparison.difference * (1 if comparison.better == judgement.name else -1)
        width = comparison.half_width
        estimate = Estimate(value=gap, low=gap - width, high=gap + width)
        place = study.places[arms[judgement.name]]
        rows.append(ForestRow(label=judgement.name, estimate=estimate, arm=place, normalized=False))
    if not rows:
        return None
    axis = "return in the model, above the clone's there"
    return forest(rows, key, cut(f"Against a clone: {policies[0].judgement.log.data}", _NAME), axis)


def _asked_for(canvas: Canvas, study: Study, policies: Sequence[JudgedPolicy], key: str) -> Panel | None:
    """Return in the model against return asked for, a line for each run that was asked for several."""
    lines: dict[str, list[JudgedPolicy]] = {}
    for policy in policies:
        if policy.judgement.target_return is not None:
            lines.setdefault(policy.run, []).append(policy)
    lines = {run: found for run, found in lines.items() if len(found) > 1}
    if not lines:
        return None
    log = policies[0].judgement.log
    axes = canvas.clear("return asked for", "return in the model of the log")
    ends = []
    for found in lines.values():
        ordered = sorted(found, key=lambda one: one.judgement.target_return or 0.0)
        place = study.places[ordered[0].arm]
        asked = np.array([one.judgement.target_return for one in ordered], dtype=float)
        totals = [one.judgement.in_model.total for one in ordered]
        draw_line(axes, place, asked, np.array([total.mean for total in totals]), marker=None)
        for x, one, total in zip(asked, ordered, totals, strict=True):
            face = "none" if one.judgement.reasons else None
            style = arm_style(place)
            axes.vlines(x, total.low, total.high, alpha=0.5, **style)
            axes.plot(x, total.mean, marker=arm_marker(place), markersize=5, markerfacecolor=face, **style)
        ends += [*asked]
    axes.axvline(log.best_return, color=MUTED, linewidth=1)
    axes.plot([min(ends), max(ends)], [min(ends), max(ends)], color=MUTED, linewidth=1, linestyle=(0, (2, 3)))
    svg = to_svg(canvas.figure, key, f"Return in a model of the log against return asked for, {log.data}.")
    note = (
        "with the model spread; hollow: no number is given; line: the log's best; dotted: what is asked for"
    )
    return Panel(title=cut(f"Asked for and judged: {log.data}", _NAME), svg=svg, note=note)


def _against_truth(canvas: Canvas, study: Study, dataset: str, key: str) -> Panel | None:
    known = [(one, one.true_return) for one in study.judged if one.dataset == dataset]
    played = [(one, true) for one, true in known if true is not None]
    if not played:
        return None
    axes = canvas.clear("return in the simulator", "return in the model of the log")
    for one, true in played:
        total, style = one.judgement.in_model.total, arm_style(study.places[one.arm])
        face = "none" if one.judgement.reasons else style["color"]
        marker = arm_marker(study.places[one.arm])
        axes.plot(true, total.mean, marker=marker, markersize=5, markerfacecolor=face, **style)
        axes.vlines(true, total.low, total.high, alpha=0.5, **style)
    ends = [min(true for _, true in played), max(true for _, true in played)]
    axes.plot(ends, ends, color=MUTED, linewidth=1, linestyle=(0, (2, 3)))
    svg = to_svg(canvas.figure, key, f"Return in a model against return in the simulator, {dataset}.")
    note = "with the model spread; hollow: no number is given; dotted: both say the same"
    return Panel(title=cut(f"Judged and true: {dataset}", _NAME), svg=svg, note=note)


def _log(canvas: Canvas, profile: LogProfile, key: str) -> Iterator[Panel]:
    kinds = {
        "Returns": (profile.returns, "return of an episode", "share of episodes, %"),
        "Lengths": (profile.lengths, "steps of an episode", "share of episodes, %"),
        "Rewards": (profile.rewards, "reward of a step", "share of steps, %"),
    }
    for name, (histogram, x_label, y_label) in kinds.items():
        axes = canvas.clear(x_label, y_label)
        axes.stairs(100 * histogram.shares, histogram.edges, fill=True, color=MUTED, alpha=0.5)
        yield Panel(title=name, svg=to_svg(canvas.figure, f"{key}-{name.lower()}", f"{name} of the log."))
    if profile.states:
        yield _coverage(canvas, profile.states, f"{key}-states")


def _coverage(canvas: Canvas, states: Sequence[Histogram], key: str) -> Panel:
    """A row for each dimension, darker where the log has been more often."""
    axes = canvas.clear("range of the dimension in the log, %", "dimension of the observation")
    shares = np.stack([histogram.shares for histogram in states])
    image = np.zeros((*shares.shape, 4))
    image[..., :3] = _BLUE
    image[..., 3] = PowerNorm(0.5, vmin=0.0, vmax=max(float(shares.max()), 1e-9))(shares)
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    extent = (0, 100, -0.5, len(states) - 0.5)
    axes.imshow(image, aspect="auto", interpolation="nearest", extent=extent, origin="lower", zorder=3)
    svg = to_svg(canvas.figure, key, f"Where the log has been in each of {len(states)} dimensions.")
    note = "stronger color: more steps; within four standard deviations of the mean"
    return Panel(title="Observations", svg=svg, note=note)


_BLUE = (0.24, 0.52, 0.78)
"""Of a picture inside a drawing, which no theme can change: seen on light and on dark."""


def _actions(canvas: Canvas, study: Study, policies: Sequence[JudgedPolicy], key: str) -> Iterator[Panel]:
    """The log's actions and those of the best policy of some arms, a panel for each dimension."""
    profile = policies[0].judgement.log.profile
    if profile is None:
        return
    by_name = {policy.judgement.name: policy for policy in policies}
    shown: dict[str, JudgedPolicy] = {}
    for judgement in rank([policy.judgement for policy in policies]):
        if judgement.at_steps.actions:
            shown.setdefault(by_name[judgement.name].arm, by_name[judgement.name])
    best = list(shown.values())[:_MOST_ARMS]
    for i, logged in enumerate(profile.actions[:_MOST_DIMENSIONS]):
        axes = canvas.clear("choice" if profile.is_discrete else "action", "share of steps, %")
        axes.stairs(100 * logged.shares, logged.edges, fill=True, color=MUTED, alpha=0.35)
        for order, policy in enumerate(best):
            place, chosen = study.places[policy.arm], policy.judgement.at_steps.actions[i]
            line = {"linewidth": 1.5, "linestyle": arm_dashes(place), **arm_style(place)}
            axes.stairs(100 * chosen.shares, chosen.edges, **line)
            label = {"color": line["color"], "transform": axes.transAxes, "fontsize": 9, "va": "top"}
            axes.text(0.02, 0.97 - 0.08 * order, cut(policy.judgement.name, _NAME), **label)
        axes.set_ylim(0, axes.get_ylim()[1] * (1 + 0.1 * len(best)))
        names = ", ".join(policy.judgement.name for policy in best)
        title = "Choices" if profile.is_discrete else f"Action {i}"
        svg = to_svg(canvas.figure, f"{key}-{i}", f"{title} of the log and of {names}.")
        yield Panel(title=f"{title}: {policies[0].judgement.log.data}", svg=svg)


def _learning(canvas: Canvas, study: Study) -> Iterator[Panel]:
    """A panel for each arm on each data set, with a line for each of its runs."""
    groups: dict[tuple[str, str], list[Learning]] = {}
    for one in study.learning:
        groups.setdefault((one.arm, one.dataset), []).append(one)
    for number, ((arm, dataset), runs) in enumerate(groups.items()):
        has_error = any(len(one.held_out) for one in runs)
        what = "action error" if has_error else "training loss"
        axes = canvas.clear("gradient steps", what, counts_steps=True)
        for one in runs:
            kinds = ((one.held_out, "-", INK), (one.best_tenth, ":", INK), (one.trained, "--", MUTED))
            for errors, dashes, color in kinds if has_error else ((one.loss, "-", INK),):
                axes.plot(errors[:, 0], errors[:, 1], color=color, linestyle=dashes, linewidth=1.5)
        name = arm_label(arm) or "run"
        svg = to_svg(canvas.figure, f"learning-{number}", f"Learning of {name} on {dataset}: {what}.")
        yield Panel(title=cut(f"{name}: {dataset}", _NAME), svg=svg)

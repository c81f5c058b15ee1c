"""Policies judged without a simulator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from chibit.core.formatting import count, format_mean, format_number, format_setting, listed
from chibit.judging.judgement import AtLoggedSteps, Judgement, LogProfile, PlayedInModel, beside_clone
from chibit.judging.verdict import rank, verdict
from chibit.reporting.read.arms import arm_label
from chibit.reporting.read.judgements import JudgedPolicy, Learning, by_log
from chibit.reporting.read.study import Study
from chibit.reporting.tables.table import EMPTY, Cell, Row, Table, number_columns, text, text_columns

_COLUMNS = ("Return", "To clone", "Discounted", "Steps", "Disagree", "Outside", "Far", "Error", "Best tenth")
_MOST_DIMENSIONS = 12
_FEWEST = 3
"""Runs of an arm from which on their spread says something."""
_EXPLAINED = (
    "Return: in a model that was learned from the log, with the model spread, which is no confidence "
    "interval. Disagree: the networks of the model among themselves, in units of the clone's. Outside: share "
    "of steps beyond the range of the log's states. Far: share of logged steps at which the policy acts as "
    "the log hardly would. Error: of actions, root mean square in units of the log's spread, or share of "
    "other choices, at logged steps that the model was not learned from, and on the tenth of episodes with "
    "the best return."
)
_SIMULATED = "Simulator: the run's evaluation at the same step."
SELECTION = "judged-selection"
"""How the keys of tables of arms begin."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """An arm at a target return on a data set, over all its runs."""

    dataset: str
    arm: str
    target_return: float | None
    gains: tuple[float, ...]
    """Returns in the model above those of the clone there, of the runs with a number."""
    num_judged: int
    """Runs, with or without a number."""
    true_return: float | None
    """Mean in the simulator over all its runs; None where some were not played."""

    @property
    def gain(self) -> float:
        """Mean; minus infinity where half of the runs or more have no number."""
        return float(np.mean(self.gains)) if 2 * len(self.gains) > self.num_judged else -np.inf

    def is_apart_from(self, other: Choice) -> bool:
        """Whether the means of three runs or more differ by more than two standard errors."""
        if min(len(self.gains), len(other.gains)) < _FEWEST:
            return False
        errors = [np.var(one.gains, ddof=1) / len(one.gains) for one in (self, other)]
        return bool(abs(self.gain - other.gain) > 2 * np.sqrt(sum(errors)))

    @property
    def name(self) -> str:
        """The arm and its target in words."""
        target = self.target_return
        return arm_label(self.arm) + ("" if target is None else f" asked for {format_setting(target)}")


def judged_choices(study: Study) -> dict[str, list[Choice]]:
    """Arms and targets of each data set, those first that the judge would take."""
    groups: dict[tuple[str, str, float | None], list[JudgedPolicy]] = {}
    runs: dict[tuple[str, str, int | None], set[str]] = {}
    for one in study.judged:
        runs.setdefault((one.dataset, one.arm, one.seed), set()).add(one.run)
    differ = {(dataset, arm) for (dataset, arm, _), names in runs.items() if len(names) > 1}
    for one in study.judged:  # an arm that has a seed twice has runs of other settings
        arm = one.run if (one.dataset, one.arm) in differ else one.arm
        groups.setdefault((one.dataset, arm, one.judgement.target_return), []).append(one)
    found: dict[str, list[Choice]] = {}
    for (dataset, arm, target), policies in groups.items():
        true = [one.true_return for one in policies]
        choice = Choice(
            dataset=dataset,
            arm=arm,
            target_return=target,
            gains=tuple(
                one.judgement.total.mean - one.judgement.log.clone.total.mean
                for one in policies
                if one.judgement.total is not None
            ),
            num_judged=len(policies),
            true_return=None if None in true else float(np.mean([t for t in true if t is not None])),
        )
        found.setdefault(dataset, []).append(choice)
    return {dataset: sorted(choices, key=lambda one: -one.gain) for dataset, choices in found.items()}


def judged_tables(study: Study) -> list[Table]:
    """What the judge says: of arms over their seeds, of policies of each log, and what must be known."""
    groups = by_log(study.judged)
    choices = judged_choices(study).values()
    several = [found for found in choices if _is_selection(found)]
    tables = [_selection(found, i) for i, found in enumerate(several)]
    tables += [_table(group, i) for i, group in enumerate(groups)]
    remarks = [
        Row(cells=(text(one.name), text(remark)))
        for group in groups
        for one in (policy.judgement for policy in group)
        for remark in (*(f"no number: {reason}" for reason in one.reasons), *one.notes)
    ]
    if remarks:
        table = Table(
            key="judged-remarks",
            title="Remarks",
            caption="Why there is no number, and what else must be known.",
            columns=text_columns("Policy", "Remark"),
            rows=tuple(remarks),
        )
        tables.append(table)
    return tables


def dimension_tables(study: Study) -> list[Table]:
    """Action errors by dimension: at the same held-out steps for policies of a log, else as runs logged."""
    found = []
    for group in by_log(study.judged):
        errors = {one.judgement.name: one.judgement.at_steps.error.by_dimension for one in group}
        log = group[0].judgement.log
        found.append((log.data, errors | {"clone of the log": log.clone_at_steps.error.by_dimension}))
    judged = {one.dataset for one in study.judged}
    for dataset in dict.fromkeys(one.dataset for one in study.learning if one.dataset not in judged):
        errors = {one.run: one.by_dimension for one in study.learning if one.dataset == dataset}
        found.append((dataset, errors))
    tables = [_dimensions(name, errors, i) for i, (name, errors) in enumerate(found)]
    return [table for table in tables if table is not None]


def learning_table(study: Study) -> Table | None:
    """Held-out errors of each run; None where nothing was held out."""
    groups: dict[tuple[str, str], list[Learning]] = {}
    for one in study.learning:
        if len(one.held_out):
            groups.setdefault((one.arm, one.dataset), []).append(one)
    if not groups:
        return None
    rows = [_learned(one) for runs in groups.values() for one in runs]
    rows += [_learned_together(runs) for runs in groups.values() if len(runs) > 1]
    return Table(
        key="judged-learning",
        title="Action error while learning",
        caption="Mean squared, in the actions' own units; of choices the cross-entropy in nats, or the share "
        "of other ones where an agent has no probabilities. At the end of training: on held-out episodes, "
        "at its lowest, on the tenth of them with the best returns, and on episodes that were trained on. A "
        "small error makes no good policy where the log holds bad ones, and its lowest point is no better "
        "place to stop (docs/judging.md).",
        columns=(
            *text_columns("Run"),
            *number_columns("Held out", "Lowest", "At step", "Best tenth", "Trained on"),
        ),
        rows=tuple(rows),
    )


def log_remarks(profile: LogProfile) -> Iterator[str]:
    """What is missing in a log, in sentences."""
    if profile.constant_states:
        yield f"Observations that never change: {listed(profile.constant_states, 20)}."
    if profile.constant_actions:
        what = "Choices that never occur" if profile.is_discrete else "Actions that never change"
        yield f"{what}: {listed(profile.constant_actions, 20)}."
    if not profile.is_discrete:
        unused = {
            i: 1 - float((action.shares > _RARE).mean())
            for i, action in enumerate(profile.actions)
            if i not in profile.constant_actions
        }
        narrow = [f"{i} ({share:.0%})" for i, share in unused.items() if share >= _NARROW]
        if narrow:
            yield f"Actions of which the log leaves much of the allowed range unused: {', '.join(narrow)}."


_RARE, _NARROW = 0.001, 0.25
"""Share of steps below which a part of an action's range counts as unused; how much of it is worth a word."""


def judged_verdicts(study: Study) -> list[str]:
    """What policies come to, in a sentence for each log, and what the judge's choice of an arm costs."""
    found = []
    for group in by_log(study.judged):
        judgements = [policy.judgement for policy in group]
        true = {one.judgement.name: one.true_return for one in group}
        first = rank(judgements)[0]
        lost = "" if first.total is None else _regret(first.name, true)
        found.append(f"{group[0].judgement.log.data}, without a simulator: {verdict(judgements)}{lost}")
    for choices in judged_choices(study).values():
        if _is_selection(choices) and np.isfinite(choices[0].gain):
            found.append(_choice_sentence(choices))
    return found


def _is_selection(choices: Sequence[Choice]) -> bool:
    """Whether arms, or targets, are to be chosen among over several runs of each."""
    return len(choices) > 1 and any(one.num_judged > 1 for one in choices)


def _choice_sentence(choices: Sequence[Choice]) -> str:
    first, *others = choices
    ranked = [other for other in others if np.isfinite(other.gain)]
    near = [other.name for other in ranked if not first.is_apart_from(other)]
    apart = f", and cannot tell it from {', '.join(near)}" if near else ""
    lost = _regret(first.name, {one.name: one.true_return for one in choices})
    return f"{first.dataset}, over all runs the judge takes {first.name}{apart}.{lost}"


def _regret(chosen: str, true_returns: Mapping[str, float | None]) -> str:
    """What a choice costs, where the simulator knows; else empty."""
    known = [value for value in true_returns.values() if value is not None]
    own = true_returns[chosen]
    if own is None or len(known) < 2 or min(known) == max(known):
        return ""
    lost = (max(known) - own) / (max(known) - min(known))
    return f" In the simulator {chosen} loses {lost:.0%} of what lies between the worst and the best."


def _selection(choices: Sequence[Choice], number: int) -> Table:
    rows = []
    for one in choices:
        spread = float(np.std(one.gains, ddof=1)) if len(one.gains) > 1 else None
        gain = Cell(text=format_mean(one.gain, spread), sort=one.gain) if np.isfinite(one.gain) else EMPTY
        kept = Cell(text=f"{len(one.gains)} of {one.num_judged}", sort=len(one.gains))
        true = EMPTY if one.true_return is None else _number(one.true_return)
        rows.append(Row(cells=(text(one.name), gain, kept, true)))
    return Table(
        key=f"{SELECTION}-{number}",
        title=f"{choices[0].dataset}: arms by the judge",
        caption="Return in the model above that of the clone there, mean and standard deviation over the "
        "runs that have a number; an arm of which half of the runs have none is not ranked.",
        columns=(*text_columns("Arm"), *number_columns("Above the clone", "With a number", "Simulator")),
        rows=tuple(rows),
    )


def _table(policies: Sequence[JudgedPolicy], number: int) -> Table:
    log = policies[0].judgement.log
    true = {policy.judgement.name: policy.true_return for policy in policies}
    is_simulated = any(value is not None for value in true.values())
    rows = [
        _row(one, [true[one.name]] if is_simulated else [])
        for one in rank([policy.judgement for policy in policies])
    ]
    clone = [text("clone of the log"), *_cells(log.clone, log.clone_at_steps, log.clone)]
    if log.unfit:
        clone[1:4] = [EMPTY, EMPTY, EMPTY]
    clone[2] = EMPTY
    rows.append(Row(cells=(*clone, *([EMPTY] if is_simulated else []))))
    title = (
        f"{log.data}: {count(log.num_episodes, 'episode')}, mean return {format_number(log.mean_return)}; "
        f"the model follows held-out episodes for {count(log.self_test.horizon, 'step')}"
    )
    explained = [
        _EXPLAINED,
        f"Discounted by {log.discount:g} a step.",
        *([_SIMULATED] if is_simulated else []),
    ]
    return Table(
        key=f"judged-{number}",
        title=title,
        caption=" ".join([*explained, *(f"{note[0].upper()}{note[1:]}." for note in log.notes)]),
        columns=(
            *text_columns("Policy"),
            *number_columns(*_COLUMNS, *(["Simulator"] if is_simulated else [])),
        ),
        rows=tuple(rows),
    )


def _dimensions(name: str, errors: Mapping[str, Sequence[float]], number: int) -> Table | None:
    """Action errors by dimension; None where there is one, or so many that nobody reads them."""
    widths = {len(error) for error in errors.values()}
    if len(widths) > 1 or not 2 <= max(widths) <= _MOST_DIMENSIONS:
        return None
    return Table(
        key=f"judged-dimensions-{number}",
        title=f"{name}: action error by dimension",
        caption="Root of the mean squared error of each number of the action, in units of its spread in the "
        "log: 1 is no better than its mean.",
        columns=(*text_columns("Policy"), *number_columns(*map(str, range(max(widths))))),
        rows=tuple(Row(cells=(text(name), *map(_number, error))) for name, error in errors.items()),
    )


def _learned(one: Learning) -> Row:
    lowest = one.held_out[one.held_out[:, 1].argmin()]
    ends = [
        _number(float(errors[-1, 1])) if len(errors) else EMPTY for errors in (one.best_tenth, one.trained)
    ]
    at = Cell(text=f"{int(lowest[0]):,}", sort=float(lowest[0]))
    held_out = (_number(float(one.held_out[-1, 1])), _number(float(lowest[1])), at)
    return Row(cells=(text(one.run), *held_out, *ends))


def _learned_together(runs: Sequence[Learning]) -> Row:
    """Last errors of an arm's runs, such as one for each fold: mean and standard deviation."""
    cells = []
    for part in ("held_out", "best_tenth", "trained"):
        last = [errors[-1, 1] for one in runs if len(errors := getattr(one, part))]
        mean, spread = float(np.mean(last)), float(np.std(last, ddof=1)) if len(last) > 1 else None
        cells.append(Cell(text=format_mean(mean, spread), sort=mean))
    name = text(f"{arm_label(runs[0].arm)} on {runs[0].dataset}, {len(runs)} runs")
    return Row(cells=(name, cells[0], EMPTY, EMPTY, *cells[1:]), summary=True)


def _row(judgement: Judgement, true_returns: Sequence[float | None]) -> Row:
    cells = list(_cells(judgement.in_model, judgement.at_steps, judgement.log.clone))
    if judgement.reasons:
        cells[:3] = [EMPTY, EMPTY, EMPTY]
    true = [EMPTY if value is None else _number(value) for value in true_returns]
    return Row(cells=(text(judgement.name), *cells, *true))


def _cells(played: PlayedInModel, at_steps: AtLoggedSteps, clone: PlayedInModel) -> list[Cell]:
    own = played.total.mean
    disagreement = played.times_disagreement(clone)
    return [
        Cell(text=played.total.short, sort=own),
        Cell(text=beside_clone(played, clone), sort=own - clone.total.mean),
        Cell(text=played.value.short, sort=played.value.mean),
        Cell(text=f"{played.length:,.0f}", sort=played.length),
        Cell(text=f"{disagreement:.1f}", sort=disagreement),
        Cell(text=f"{played.clipped:.0%}", sort=played.clipped),
        Cell(text=f"{at_steps.far:.0%}", sort=at_steps.far),
        _number(at_steps.error.relative),
        _number(at_steps.best_error.relative),
    ]


def _number(value: float) -> Cell:
    return Cell(text=format_number(value), sort=value)

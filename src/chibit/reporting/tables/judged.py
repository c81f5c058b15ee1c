"""Policies judged without a simulator."""

from __future__ import annotations

from collections.abc import Sequence

from chibit.core.formatting import count, format_number
from chibit.judging.judgement import AtLoggedSteps, Judgement, PlayedInModel
from chibit.judging.verdict import rank, verdict
from chibit.reporting.read.judgements import JudgedPolicy, by_log
from chibit.reporting.read.study import Study
from chibit.reporting.tables.table import EMPTY, Cell, Row, Table, number_columns, text, text_columns

_COLUMNS = (
    *("Return", "x clone", "Discounted", "Steps", "Disagree", "Outside", "Far", "Error", "Best tenth"),
    "Simulator",
)
_MOST_DIMENSIONS = 12
_EXPLAINED = (
    "Return: in a model that was learned from the log, with the model spread, which is no confidence "
    "interval. Disagree: the networks of the model among themselves, in units of the clone's. Outside: share "
    "of steps beyond the range of the log's states. Far: share of logged steps at which the policy acts as "
    "the log hardly would. Error: of actions, at logged steps that the model was not learned from, and on "
    "the tenth of episodes with the best return. Simulator: the run's last evaluation."
)


def judged_tables(study: Study) -> list[Table]:
    """A table for each log on which policies were judged, and one of what must be known of them."""
    groups = by_log(study.judged)
    remarks = [
        Row(cells=(text(one.name), text(remark)))
        for group in groups
        for one in (policy.judgement for policy in group)
        for remark in (*(f"no number: {reason}" for reason in one.reasons), *one.notes)
    ]
    table = Table(
        key="judged-remarks",
        title="Remarks",
        caption="Why there is no number, and what else must be known.",
        columns=text_columns("Policy", "Remark"),
        rows=tuple(remarks),
    )
    tables = [_table(group, i) for i, group in enumerate(groups)]
    by_dimension = [_dimensions(group, i) for i, group in enumerate(groups)]
    return [*tables, *([table] if remarks else []), *(found for found in by_dimension if found)]


def judged_verdicts(study: Study) -> list[str]:
    """What policies come to, in a sentence for each log."""
    return [
        f"{group[0].judgement.log.data}, without a simulator: "
        f"{verdict([policy.judgement for policy in group])}{_regret(group)}"
        for group in by_log(study.judged)
    ]


def _regret(policies: Sequence[JudgedPolicy]) -> str:
    """What taking the judge's first policy costs, where the simulator knows; else empty."""
    first = rank([policy.judgement for policy in policies])[0]
    true = {policy.judgement.name: policy.true_return for policy in policies}
    known = [value for value in true.values() if value is not None]
    chosen = true[first.name]
    if first.total is None or chosen is None or len(known) < 2 or min(known) == max(known):
        return ""
    lost = (max(known) - chosen) / (max(known) - min(known))
    return f" In the simulator {first.name} loses {lost:.0%} of what lies between the worst and the best."


def _table(policies: Sequence[JudgedPolicy], number: int) -> Table:
    log = policies[0].judgement.log
    true = {policy.judgement.name: policy.true_return for policy in policies}
    rows = [_row(one, true[one.name]) for one in rank([policy.judgement for policy in policies])]
    clone = Row(cells=(text("clone of the log"), *_cells(log.clone, log.clone_at_steps, log.clone), EMPTY))
    title = (
        f"{log.data}: {count(log.num_episodes, 'episode')}, mean return {format_number(log.mean_return)}; "
        f"the model follows held-out episodes for {count(log.self_test.horizon, 'step')}"
    )
    return Table(
        key=f"judged-{number}",
        title=title,
        caption=" ".join([_EXPLAINED, *(f"{note[0].upper()}{note[1:]}." for note in log.notes)]),
        columns=(*text_columns("Policy"), *number_columns(*_COLUMNS)),
        rows=(*rows, clone),
    )


def _dimensions(policies: Sequence[JudgedPolicy], number: int) -> Table | None:
    """Action errors by dimension; None where there is one, or so many that nobody reads them."""
    log = policies[0].judgement.log
    errors = {"clone of the log": log.clone_at_steps.error.by_dimension}
    errors = {one.judgement.name: one.judgement.at_steps.error.by_dimension for one in policies} | errors
    widths = {len(error) for error in errors.values()}
    if len(widths) > 1 or not 2 <= max(widths) <= _MOST_DIMENSIONS:
        return None
    return Table(
        key=f"judged-dimensions-{number}",
        title=f"{log.data}: action error by dimension",
        caption="Root of the mean squared error of each number of the action, in units of its spread in the "
        "log: 1 is no better than its mean.",
        columns=(*text_columns("Policy"), *number_columns(*map(str, range(max(widths))))),
        rows=tuple(Row(cells=(text(name), *map(_number, error))) for name, error in errors.items()),
    )


def _row(judgement: Judgement, true_return: float | None) -> Row:
    cells = list(_cells(judgement.in_model, judgement.at_steps, judgement.log.clone))
    if judgement.reasons:
        cells[:3] = [EMPTY, EMPTY, EMPTY]
    true = EMPTY if true_return is None else _number(true_return)
    return Row(cells=(text(judgement.name), *cells, true))


def _cells(played: PlayedInModel, at_steps: AtLoggedSteps, clone: PlayedInModel) -> list[Cell]:
    own, reference = played.total.mean, clone.total.mean
    ratio = Cell(text=f"{own / reference:.2f}", sort=own / reference) if own > 0 < reference else EMPTY
    disagreement = played.disagreement / max(clone.disagreement, 1e-12)
    return [
        Cell(text=played.total.short, sort=own),
        ratio,
        Cell(text=played.value.short, sort=played.value.mean),
        _number(played.length),
        Cell(text=f"{disagreement:.1f}", sort=disagreement),
        Cell(text=f"{played.clipped:.0%}", sort=played.clipped),
        Cell(text=f"{at_steps.far:.0%}", sort=at_steps.far),
        _number(at_steps.error.mean),
        _number(at_steps.best_error.mean),
    ]


def _number(value: float) -> Cell:
    return Cell(text=format_number(value), sort=value)

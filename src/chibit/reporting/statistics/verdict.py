"""The study in one sentence with its interval, and as much certainty as its seeds allow and no more."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from chibit.core.formatting import count, format_p, format_score, percent
from chibit.core.score_rules import name_last
from chibit.reporting.read.arms import arm_label, base_name
from chibit.reporting.read.targets import TargetChoice, describe_choice
from chibit.reporting.statistics.comparison import (
    Comparison,
    Scores,
    aggregate,
    behavior_mean,
    registered_pairs,
    sources_of,
)
from chibit.reporting.statistics.crossover import Trend
from chibit.reporting.statistics.intervals import Difference, Estimate

Tone = Literal["higher", "lower", "open", "empty"]

ALPHA = 0.05
"""Adjusted p-values below it are called a difference."""
FEW_SEEDS = 5
"""With fewer seeds than this a bootstrap interval is too narrow to settle anything (Agarwal et al. 2021)."""
_FOCUS = ("chibit_paper", "chibit", "gpt2")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the page says first."""

    sentence: str
    """The finding with its interval."""
    basis: str
    """Rule, target, pairing, data sets and seeds behind it."""
    cautions: tuple[str, ...]
    """What keeps it from being settled."""
    tone: Tone
    """Direction of the finding; open where nothing can be told."""
    also: tuple[str, ...] = ()
    """Findings of the other registered comparisons, and where differences change sign with the data."""


def format_interval(estimate: Estimate, *, normalized: bool = True, signed: bool = False) -> str:
    """``58.1 to 63.9``; empty where there is no interval."""
    if estimate.low is None or estimate.high is None:
        return ""
    ends = [
        format_score(end, normalized=normalized, signed=signed, like=[estimate.value])
        for end in (estimate.low, estimate.high)
    ]
    return " to ".join(ends)


def differences_title(comparisons: Sequence[Comparison]) -> str:
    """``Differences from Random init``, or without a name where arms are compared with several."""
    baselines = {comparison.baseline for comparison in comparisons}
    return f"Differences from {arm_label(baselines.pop())}" if len(baselines) == 1 else "Differences"


def comparison_label(comparison: Comparison) -> str:
    """``ChibiT − Random init``."""
    return f"{arm_label(comparison.treatment)} − {arm_label(comparison.baseline)}"


def crossing_text(trend: Trend) -> str:
    """``at 4.2 % (95% interval 1.1 % to above 30 %)``, or ``none``."""
    if trend.crossing.at is None:
        return "none"
    interval = crossing_interval(trend)
    return f"at {percent(trend.crossing.at)}" + (f" (95% interval {interval})" if interval else "")


def crossing_sentence(trend: Trend) -> str:
    """Where one comparison changes its sign, or that it does not."""
    label = f"{comparison_label(trend.comparison)} on {trend.source}"
    crossing = trend.crossing
    if crossing.at is None:
        first, last = percent(trend.fractions[0]), percent(trend.fractions[-1])
        if not any(trend.comparison.by_dataset[name].value for name in trend.datasets):
            return f"{label}: no difference from {first} to {last} of the episodes."
        kept = ""
        if crossing.replicates is not None:
            kept = f", in {100 * (1 - crossing.replicates):.0f} % of the bootstrap's replicates"
        return f"{label}: the same sign from {first} to {last} of the episodes{kept}."
    if crossing.low == 0 and crossing.high == math.inf:
        told = f"in the mean {crossing_text(trend)} of the episodes"
        return f"{label}: where the sign changes cannot be told; {told}."
    alone = ", without an interval" if crossing.low is None else ""
    return f"{label}: the sign changes {crossing_text(trend)} of the episodes{alone}."


def crossing_interval(trend: Trend) -> str:
    """``1.1 % to above 30 %``; empty where there is none."""
    low, high = trend.crossing.low, trend.crossing.high
    if low is None or high is None:
        return ""
    first, last = percent(trend.fractions[0]), percent(trend.fractions[-1])
    start = percent(low) if low > 0 else f"below {first}"
    return f"{start} to {percent(high) if high < math.inf else f'above {last}'}"


def describe_rule(scores: Scores, arm: str | None = None) -> str:
    """What a rule made of the evaluations that there were: ``mean of the last 3 evaluations``.

    Args:
        scores: a study under the rule.
        arm: whose evaluations; None takes those of all arms.
    """
    cells = [cell for key, cell in scores.curves.items() if arm in (None, key[0])]
    numbers = sorted({len(curve.steps) for cell in cells for curve in cell.values()})
    if numbers == [1]:
        return "only evaluation"
    if scores.rule == "last4":
        return f"mean of the {name_last(numbers)} evaluations"
    if scores.rule == "last":
        return "last evaluation"
    several = f"{numbers[0]}" + (f" to {numbers[-1]}" if len(numbers) > 1 else "") if numbers else "all"
    return f"best of {several} evaluations (optimistic: it is picked by looking at the test score)"


def short_rule(scores: Scores) -> str:
    """The same in a column's heading: ``last 3``, ``last``, ``best``."""
    lengths = (len(curve.steps) for cell in scores.curves.values() for curve in cell.values())
    return name_last(lengths) if scores.rule == "last4" else scores.rule


def choose_focus(scores: Scores, baseline: str) -> str | None:
    """The arm the verdict is about: a pre-trained one by preference, else the best of the others."""
    others = [arm for arm in scores.study.arms if arm != baseline]
    for name in _FOCUS:
        for arm in others:
            if base_name(arm) == name:
                return arm
    means = {arm: found.mean.value for arm in others if (found := aggregate(scores, arm)) is not None}
    return max(means, key=lambda arm: means[arm]) if means else next(iter(others), None)


def choose_comparison(scores: Scores, comparisons: Sequence[Comparison]) -> Comparison:
    """The comparison the verdict is about: the first registered one, else that of the arm in focus."""
    first = comparisons[0]
    if _is_registered(scores, first):
        return first
    focus = choose_focus(scores, first.baseline)
    return next(entry for entry in comparisons if entry.treatment == focus)


def state_verdict(
    scores: Scores, comparisons: Sequence[Comparison], baseline: str | None, target: TargetChoice
) -> Verdict:
    """The finding of a study under one rule.

    Args:
        scores: the study's numbers under the rule.
        comparisons: the registered ones, else every other arm against the baseline.
        baseline: the arm compared with; None without runs.
        target: how targets were chosen, to be stated.
    """
    study = scores.study
    if baseline is None or not study.runs:
        return Verdict(
            sentence="No run has finished with an evaluation yet, so there is nothing to say.",
            basis=f"Folders found: {len(study.excluded)}. Why none of them counts is listed below.",
            cautions=(),
            tone="empty",
        )
    if not comparisons:
        return _one_arm(scores, baseline, target)
    return _against_baseline(scores, choose_comparison(scores, comparisons), comparisons, target)


def state_finding(headline: Comparison, scores: Scores, comparisons: Sequence[Comparison]) -> str:
    """Under another rule: the difference of the arms that the verdict is about."""
    arms = (headline.treatment, headline.baseline)
    comparison = next(entry for entry in comparisons if (entry.treatment, entry.baseline) == arms)
    if comparison.overall is None:
        return f"{_why_no_mean(comparison)}."
    normalized = scores.is_normalized(*comparison.datasets)
    value = format_score(comparison.overall.value, normalized=normalized, signed=True)
    is_registered = _is_registered(scores, comparison)  # whose verdict has Student's interval
    shown = student_estimate(comparison.overall) if is_registered else comparison.overall
    interval = format_interval(shown, normalized=normalized, signed=True)
    return f"{value} ({interval})." if interval else f"{value}, no interval."


def _one_arm(scores: Scores, arm: str, target: TargetChoice) -> Verdict:
    found = aggregate(scores, arm)
    datasets = scores.aggregated
    seeds = min((scores.cell(arm, dataset).size for dataset in datasets), default=0)
    if found is None:
        sentence = f"{arm_label(arm)} has no scores that can be averaged over data sets; see the table."
    else:
        normalized = scores.is_normalized(*datasets)
        value = format_score(found.mean.value, normalized=normalized)
        unit = "a score" if normalized else "a return"
        interval = _parenthesis(found.mean, normalized)
        sentence = f"{arm_label(arm)} reaches {unit} of {value} on {_where(datasets)}{interval}."
        behavior = [behavior_mean(scores.study, name, normalized=normalized) for name in datasets]
        known = [mean for mean in behavior if mean is not None]
        if len(known) == len(datasets):
            own = format_score(sum(known) / len(known), normalized=normalized)
            sentence += f" The training data's own mean is {own}."
    basis = _basis(scores, target, datasets, seeds, paired=False)
    return Verdict(sentence=sentence, basis=basis, cautions=_cautions(scores, seeds), tone="open")


def _against_baseline(
    scores: Scores, comparison: Comparison, comparisons: Sequence[Comparison], target: TargetChoice
) -> Verdict:
    others = [one for one in comparisons if one is not comparison and _is_registered(scores, one)]
    stated = [one for one in (comparison, *others) if one.num_pairs]
    pairs = min((one.fewest_pairs for one in stated), default=0)
    basis = _basis(scores, target, comparison.datasets or tuple(comparison.by_dataset), pairs, paired=True)
    cautions = [*_cautions(scores, pairs), *_left_out([comparison, *others])]
    cautions += _unequal_lengths(scores, comparison)
    cautions += _registered_cautions(scores, comparison, comparisons)
    is_chosen = not _is_registered(scores, comparison) and base_name(comparison.treatment) not in _FOCUS
    if is_chosen and len(comparisons) > 1 and scores.strata(comparison.treatment) is not None:
        cautions.append(
            f"{arm_label(comparison.treatment)} is named for being the highest of {len(comparisons)} arms, "
            "and the highest of several is flattered by chance."
        )
    sentence, tone = _sentence(scores, comparison, comparison.fewest_pairs)
    also = tuple(_sentence(scores, one, one.fewest_pairs)[0] for one in others)
    return Verdict(sentence=sentence, basis=basis, cautions=tuple(cautions), tone=tone, also=also)


def _left_out(stated: Sequence[Comparison]) -> list[str]:
    """Runs in no pair of what the verdict states."""
    runs = [f"{comparison_label(one)} {one.num_unpaired}" for one in stated if one.num_unpaired]
    return [f"Runs left out because the other arm lacks the seed: {', '.join(runs)}."] if runs else []


def _unequal_lengths(scores: Scores, comparison: Comparison) -> list[str]:
    """That the two arms took other numbers of gradient steps, where they did."""
    cells = scores.study.cells
    arms = (comparison.treatment, comparison.baseline)
    taken = [
        {run.num_steps for name in comparison.by_dataset for run in cells[arm, name].values()} for arm in arms
    ]
    if taken[0] == taken[1]:
        return []
    first, second = (
        f"{arm_label(arm)} took {' and '.join(f'{number:,}' for number in sorted(numbers))}"
        for arm, numbers in zip(arms, taken, strict=True)
    )
    return [f"{first} gradient steps, {second}."]


def _sentence(scores: Scores, comparison: Comparison, pairs: int) -> tuple[str, Tone]:
    treatment, baseline = arm_label(comparison.treatment), arm_label(comparison.baseline)
    difference = comparison.overall
    if difference is None:
        return f"{treatment} and {baseline} cannot be compared: {_why_no_mean(comparison)}.", "open"
    if comparison.datasets != scores.aggregated:
        baseline += f" on {', '.join(comparison.datasets)} alone"
    estimate = student_estimate(difference) if _is_registered(scores, comparison) else difference
    normalized = scores.is_normalized(*comparison.datasets)
    unit = "points" if normalized else "in return"
    size = format_score(abs(estimate.value), normalized=normalized)
    direction = "higher" if estimate.value > 0 else "lower"
    signed = format_score(estimate.value, normalized=normalized, signed=True)
    found = f"{treatment} scores {size} {unit} {direction} than {baseline}"
    if estimate.value == 0:
        found = f"{treatment} scores what {baseline} does"
    if not estimate.has_interval:
        single = [name for name in comparison.datasets if comparison.num_pairs[name] == 1]
        if len(single) < len(comparison.datasets):
            return f"{found}, without an interval: there is only one pair on {', '.join(single)}.", "open"
        return f"One seed cannot settle it: {found}, and no interval can be given.", "open"
    if difference.student is not None and not difference.student.has_spread:
        return f"{found}; all pairs of a data set differ alike, so that no interval can be given.", "open"
    interval = format_interval(estimate, normalized=normalized, signed=True)
    least = scores.study.registration.negligible
    is_safe = _is_registered(scores, comparison) or pairs >= FEW_SEEDS
    intervals = (estimate, student_estimate(difference))
    if least is not None and all(within(one, least) for one in intervals) and is_safe:
        return (
            f"No difference that matters between {treatment} and {baseline}: {signed} {unit}, "
            f"95% interval {interval}, inside ±{least:g}.{_if_sets_depend(scores, comparison, least)}",
            "open",
        )
    if not estimate.excludes(0.0):
        return (
            f"No difference can be told between {treatment} and {baseline}: "
            f"{signed} {unit}, 95% interval {interval}.",
            "open",
        )
    start = f"{found} (95% interval {interval})"
    if pairs < FEW_SEEDS:
        return f"{start}, but {pairs} seeds are too few to settle it.", "open"
    if comparison.adjusted_p is not None:
        shown = _format_adjusted(comparison, comparison.adjusted_p)
        if comparison.adjusted_p >= ALPHA:
            return f"{start}, but it may be chance: {shown}.", "open"
        start += f", {shown}"
    rests_on = _if_sets_depend(scores, comparison)
    return f"{start}.{rests_on}", "higher" if estimate.value > 0 else "lower"


def _if_sets_depend(scores: Scores, comparison: Comparison, least: float | None = None) -> str:
    """What a finding comes to where data sets that share seeds depend on each other; empty where it holds.

    Args:
        scores: the study.
        comparison: what a difference was found in; or none that matters, which is smaller than
        least: this.
    """
    student, adjusted = comparison.by_seed, comparison.adjusted_p_by_seed
    if student is None or adjusted is None:
        return ""
    ends = Estimate(value=(student.low + student.high) / 2, low=student.low, high=student.high)
    if adjusted < ALPHA if least is None else within(ends, least):
        return ""
    interval = format_interval(ends, normalized=scores.is_normalized(*comparison.datasets), signed=True)
    shown = f", {_format_adjusted(comparison, adjusted)}" if least is None else ""
    return (
        " This takes the data sets as independent though they share their seeds; from each seed's mean over "
        f"them the interval is {interval}{shown}."
    )


def _format_adjusted(comparison: Comparison, p: float) -> str:
    """``adjusted p = 0.03``, or without the word where there is nothing to adjust for."""
    return f"{'adjusted ' if comparison.num_adjusted > 1 else ''}{format_p(p)}"


def _why_no_mean(comparison: Comparison) -> str:
    """Why there is no difference over all data sets."""
    if comparison.by_dataset:
        return "raw returns of several data sets have no common unit, so each has a difference of its own"
    return "they share no seed on any data set"


def within(estimate: Estimate, size: float) -> bool:
    """Whether the interval lies inside plus or minus a size."""
    low, high = estimate.low, estimate.high
    return low is not None and high is not None and -size < low <= high < size


def student_estimate(difference: Difference) -> Estimate:
    """A difference with Student's interval in place of the bootstrap's."""
    student = difference.student
    if student is None:
        return difference
    return Estimate(value=difference.value, low=student.low, high=student.high)


def _is_registered(scores: Scores, comparison: Comparison) -> bool:
    return (comparison.treatment, comparison.baseline) in scores.study.registration.comparisons


def _registered_cautions(
    scores: Scores, comparison: Comparison, comparisons: Sequence[Comparison]
) -> list[str]:
    """How far the verdict is what was registered."""
    registered = scores.study.registration.comparisons
    if not registered:
        return []
    cautions = []
    is_registered = [_is_registered(scores, one) for one in comparisons]
    if not all(is_registered):
        why = (
            f"arms are compared with {arm_label(comparison.baseline)} as was asked"
            if registered_pairs(scores.study)
            else "none of them has runs of both arms"
        )
        cautions.append(f"{count(len(registered), 'comparison')} registered before the first run: {why}.")
    elif len(registered) > 1:
        absent = len(registered) - len(registered_pairs(scores.study))
        without = f"; {absent} of them {'has' if absent == 1 else 'have'} no runs" if absent else ""
        place = "The first" if registered[0] == (comparison.treatment, comparison.baseline) else "One"
        cautions.append(
            f"{place} of {len(registered)} comparisons registered before the first run{without}; "
            "p-values are adjusted for all of them (Holm)."
        )
    arms = dict.fromkeys(arm for pair in registered for arm in pair if arm not in scores.study.arms)
    varied = [arm for arm in arms if any(base_name(other) == arm for other in scores.study.arms)]
    if varied:
        cautions.append(
            "Arms with runs of several settings, which are told apart and stand in no registered comparison: "
            f"{', '.join(map(arm_label, varied))}."
        )
    if _is_registered(scores, comparison) and comparison.overall and comparison.overall.student:
        cautions.append(
            "The intervals of this verdict are Student's; those in the figures are the bootstrap's."
        )
    return cautions


def _cautions(scores: Scores, seeds: int) -> tuple[str, ...]:
    cautions = []
    if seeds == 0:
        if len(scores.study.arms) > 1:
            cautions.append("Nothing can be paired: arms are compared on the seeds that both have.")
    elif seeds == 1:
        cautions.append(
            "One seed says nothing about the spread between runs; use at least 5 on each data set, better 10."
        )
    elif seeds < FEW_SEEDS:
        cautions.append(
            f"With {seeds} seeds the bootstrap's interval is too narrow; use at least 5, better 10 to 20."
        )
    width = scores.study.registration.until_half_width
    if width is not None and len(scores.study.arms) > 1:
        cautions.append(
            f"Seeds were added to bring the intervals over all data sets within ±{width:g}; intervals of "
            "differences and p-values are corrected for that."
        )
    raw = [dataset for dataset in scores.study.datasets if dataset not in scores.aggregated]
    if raw:
        cautions.append(f"Left out of all means, because scored in raw returns: {', '.join(raw)}.")
    differing = [name for name in scores.study.datasets if len(scores.targets(name)) > 1]
    if differing:
        cautions.append(
            f"Runs are shown at different target returns, for they share none: {', '.join(differing)}."
        )
    num_failed = sum(curve.num_failed for cell in scores.curves.values() for curve in cell.values())
    if num_failed:
        cautions.append(f"In {count(num_failed, 'episode')} the environment failed; they are left out.")
    return tuple(cautions)


def _basis(scores: Scores, target: TargetChoice, datasets: Sequence[str], seeds: int, *, paired: bool) -> str:
    choice = describe_choice(scores.study, target)
    start = f"By the {describe_rule(scores)}" + (f", at {choice}" if choice else "")
    if seeds == 0:
        return f"{start}."
    pairing = "paired by seed, " if paired else ""
    sources = sources_of(scores.study, datasets)
    kind = "data sets" if len(sources) == len(datasets) else f"shares of {count(len(sources), 'data set')}"
    sets = datasets[0] if len(datasets) == 1 else f"{len(datasets)} {kind}"
    least = "" if len(datasets) == 1 else "at least "
    return f"{start}; {pairing}{sets}, {least}{count(seeds, 'seed')}."


def _parenthesis(estimate: Estimate, normalized: bool) -> str:
    interval = format_interval(estimate, normalized=normalized)
    return f" (95% interval {interval})" if interval else ", from one seed and so without an interval"


def _where(datasets: Sequence[str]) -> str:
    return datasets[0] if len(datasets) == 1 else f"average over {len(datasets)} data sets"

"""What runs say: one rule and one choice of target for all arms, aggregates, and paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self, get_args

import numpy as np

from chibit.core.errors import InputError
from chibit.core.files import nearest
from chibit.reporting.read.arms import base_name
from chibit.reporting.read.run import Curve
from chibit.reporting.read.study import Study
from chibit.reporting.read.targets import TargetChoice, check_choice, common_targets, curve_at, given_target
from chibit.reporting.statistics.intervals import (
    CONFIDENCE,
    LOOKED_CONFIDENCE,
    MIN_RUNS,
    Difference,
    Estimate,
    StudentInterval,
    bootstrap,
    holm,
    interquartile_mean,
    mean_over_tasks,
    optimality_gap,
    paired_difference,
    probability_of_improvement,
    student_interval,
)

Rule = Literal["last4", "last", "best"]

RULES: tuple[Rule, ...] = get_args(Rule)
"""The score rules; the first one decides the verdict."""

BASELINES = ("random", "dt", "bc")
"""Arms that others are compared with, by preference: the matched control first."""
_BOOTSTRAP_SEED = 0
_LISTED = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """Every run as one number, under one rule and one choice of target."""

    study: Study
    """The runs."""
    rule: Rule
    """Which evaluations count."""
    curves: dict[tuple[str, str], dict[int, Curve]]
    """For each arm and data set, by seed: the curve at the chosen target."""
    values: dict[tuple[str, str], dict[int, float]]
    """The same curves under the rule: normalized scores, or raw returns where there is no reference."""

    def cell(self, arm: str, dataset: str) -> np.ndarray:
        """(n,) values of an arm's runs on a data set, by rising seed; empty where there are none."""
        by_seed = self.values.get((arm, dataset), {})
        return np.array([by_seed[seed] for seed in sorted(by_seed)])

    def target(self, arm: str, dataset: str) -> float | None:
        """Target return of the cell; None for policies without one."""
        curves = self.curves.get((arm, dataset), {})
        return next((curve.target_return for curve in curves.values()), None)

    def targets(self, dataset: str) -> set[float]:
        """All target returns at which runs on a data set are shown."""
        curves = [curve for key, cell in self.curves.items() if key[1] == dataset for curve in cell.values()]
        return {curve.target_return for curve in curves if curve.target_return is not None}

    def is_normalized(self, *datasets: str) -> bool:
        """Whether values on these data sets are normalized scores."""
        return all(self.study.is_normalized(dataset) for dataset in datasets)

    def among(self, study: Study) -> Self:
        """The same numbers of those arms that are in a part of the study."""
        curves = {key: cell for key, cell in self.curves.items() if key[0] in study.arms}
        values = {key: cell for key, cell in self.values.items() if key[0] in study.arms}
        return replace(self, study=study, curves=curves, values=values)

    @property
    def aggregated(self) -> tuple[str, ...]:
        """Data sets that may be averaged: those with normalized scores, or the only one there is."""
        if len(self.study.datasets) == 1:
            return self.study.datasets
        return tuple(name for name in self.study.datasets if self.study.is_normalized(name))

    def strata(self, arm: str) -> list[np.ndarray] | None:
        """Values of an arm on every data set that is averaged; None where it lacks one."""
        cells = [self.cell(arm, dataset) for dataset in self.aggregated]
        return cells if cells and all(cell.size for cell in cells) else None


@dataclass(frozen=True, kw_only=True, eq=False)
class Measure(Scores):
    """Every run as one number that is no score; lower is better."""

    key: str
    """Name in the page: letters, digits and dashes."""
    title: str
    """Heading."""
    what: str
    """What is measured, within a sentence."""
    axis: str
    """What differences are, on an axis."""
    has_one_unit: bool = True
    """Whether values on several data sets have a common unit, as steps have and errors have not."""

    def is_normalized(self, *datasets: str) -> bool:
        """Never: these are no scores."""
        return False

    @property
    def aggregated(self) -> tuple[str, ...]:
        """Data sets with values, where they may be averaged: errors over shares of one data set alone."""
        names = tuple(name for name in self.study.datasets if any(name == key[1] for key in self.values))
        return names if self.has_one_unit or len(sources_of(self.study, names)) == 1 else ()


@dataclass(frozen=True, kw_only=True)
class Aggregates:
    """One arm over all data sets that are averaged."""

    mean: Estimate
    """Mean over data sets of the mean over runs."""
    interquartile_mean: Estimate
    """Mean of the middle half of all runs."""
    optimality_gap: Estimate | None
    """Mean shortfall from a score of 100; None where scores are raw returns."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One arm against another, on the seeds that both have."""

    treatment: str
    """Arm."""
    baseline: str
    """Arm it is compared with."""
    by_dataset: dict[str, Difference]
    """Mean paired difference on each data set where both have a seed in common."""
    num_pairs: dict[str, int]
    """Seeds in common."""
    dropped: dict[str, tuple[int, ...]]
    """Seeds that only one of the two has, on the data sets where there are any: they are in no pair."""
    overall: Difference | None
    """Mean over the averaged data sets of the mean paired difference; None where they have none in common."""
    probability: Estimate | None
    """Probability that a run of the arm beats one of the baseline on the same data set."""
    datasets: tuple[str, ...]
    """Data sets behind `overall`."""
    adjusted_p: float | None = None
    """p-value of `overall` by Student's t, adjusted by Holm for all comparisons of the study; None where
    there is no interval."""
    num_adjusted: int = 1
    """Comparisons that `adjusted_p` is adjusted for."""
    by_seed: StudentInterval | None = None
    """Of `overall` from one value a seed, its mean over the data sets: what a seed does alike on all of them,
    as by initial weights, does not make it too narrow. None for one data set, or fewer than two seeds."""
    adjusted_p_by_seed: float | None = None
    """p-value of `by_seed`, adjusted likewise."""

    @property
    def fewest_pairs(self) -> int:
        """Fewest seeds in common on a data set behind `overall`, or on any one where there is no mean."""
        return min((self.num_pairs[name] for name in self.datasets or self.num_pairs), default=0)

    @property
    def num_unpaired(self) -> int:
        """Runs of either arm left out because the other lacks their seed."""
        return sum(len(seeds) for seeds in self.dropped.values())


def collect_scores(study: Study, rule: Rule = "last4", target: TargetChoice = "first") -> Scores:
    """Apply one score rule and one choice of target to every run.

    Raises:
        InputError: for a choice of target that the study cannot show.
    """
    check_choice(study, target)
    curves: dict[tuple[str, str], dict[int, Curve]] = {}
    for dataset in study.datasets:
        wanted = _target_on(study, dataset, rule, target)
        for arm in study.arms:
            for seed, run in study.cells.get((arm, dataset), {}).items():
                curves.setdefault((arm, dataset), {})[seed] = curve_at(run, wanted)
    values = {
        (arm, dataset): {seed: curve_value(study, dataset, curve, rule) for seed, curve in cell.items()}
        for (arm, dataset), cell in curves.items()
    }
    return Scores(study=study, rule=rule, curves=curves, values=values)


def curve_points(study: Study, dataset: str, curve: Curve) -> np.ndarray:
    """(N,) normalized scores, or raw returns when any run on the data set has no normalized scores."""
    return curve.values if study.is_normalized(dataset) else curve.mean_returns


def curve_value(study: Study, dataset: str, curve: Curve, rule: Rule) -> float:
    """One curve under a rule, in the data set's unit."""
    rules = curve.rules if study.is_normalized(dataset) else curve.return_rules
    value: float = getattr(rules, rule)
    return value


def behavior_mean(study: Study, dataset: str, *, normalized: bool) -> float | None:
    """Mean score or raw return of the training data's own episodes, over runs; None where no run says it."""
    results = [run.result for run in study.runs if run.dataset == dataset]
    found = [one.behaviour_score if normalized else one.behaviour_mean_return for one in results]
    known = [value for value in found if value is not None]
    return float(np.mean(known)) if known else None


def _target_on(study: Study, dataset: str, rule: Rule, target: TargetChoice) -> float | None:
    """The target that all runs on a data set are shown at; None leaves each run its own first one."""
    common = common_targets(study, dataset) or []
    given = given_target(study, dataset, target)
    if given is not None or not common:
        return given
    if target != "best":
        return common[0]
    runs = [run for run in study.runs if run.dataset == dataset]
    means = {
        target: np.mean(
            [
                curve_value(study, dataset, curve, rule)
                for run in runs
                for curve in run.curves
                if curve.target_return == target
            ]
        )
        for target in common
    }
    return max(means, key=lambda target: means[target])


def choose_baseline(arms: Sequence[str], baseline: str | None = None) -> str | None:
    """The arm that others are compared with.

    Args:
        arms: arms of the study, at least one.
        baseline: the one that was asked for; None takes the first of `BASELINES`, else the first arm.

    Raises:
        InputError: for an arm that the study does not have.
    """
    if baseline is not None:
        if baseline not in arms:
            known = ", ".join(arms[:_LISTED]) + (
                f" or one of {len(arms) - _LISTED} more" if len(arms) > _LISTED else ""
            )
            expected = f"expected an arm with a finished run: {known}" if arms else "but no run was evaluated"
            raise InputError(f"baseline: got {baseline!r}, {expected}{nearest(baseline, arms)}")
        return baseline
    for name in BASELINES:
        for arm in arms:
            if base_name(arm) == name:
                return arm
    return arms[0] if arms else None


def aggregate(scores: Scores, arm: str) -> Aggregates | None:
    """An arm over all averaged data sets; None where it lacks one of them."""
    strata = scores.strata(arm)
    if strata is None:
        return None
    normalized = scores.is_normalized(*scores.aggregated)
    return Aggregates(
        mean=bootstrap(mean_over_tasks, strata, rng=_rng()),
        interquartile_mean=bootstrap(interquartile_mean, strata, rng=_rng()),
        optimality_gap=bootstrap(optimality_gap, strata, rng=_rng()) if normalized else None,
    )


def sources_of(study: Study, datasets: Sequence[str]) -> set[tuple[str, str]]:
    """Names and hashes of the data that data sets of a study are, or are shares of."""
    runs = [run.provenance for run in study.runs if run.dataset in datasets]
    return {(source["data_name"], source["data_hash"]) for source in runs}


def registered_pairs(study: Study) -> list[tuple[str, str]]:
    """The registered comparisons of which both arms have runs."""
    return [pair for pair in study.registration.comparisons if set(pair) <= set(study.arms)]


def held_out_errors(scores: Scores) -> Measure | None:
    """The action error of every run on held-out episodes, at its end; None where none was measured."""
    values: dict[tuple[str, str], dict[int, float]] = {}
    for run in scores.study.runs:
        if len(run.held_out):
            values.setdefault((run.arm, run.dataset), {})[run.seed] = float(run.held_out[-1, 1])
    if not values:
        return None
    return Measure(
        study=scores.study,
        rule=scores.rule,
        curves=scores.curves,
        values=values,
        key="held-out",
        title="Held-out action error",
        what="action error on held-out episodes at the end of training",
        axis="difference in held-out action error",
        has_one_unit=False,
    )


def confidence_of(study: Study) -> float:
    """Nominal level of what is shown as the 95% interval of a difference between arms."""
    return CONFIDENCE if study.registration.until_half_width is None else LOOKED_CONFIDENCE


def paired_values(
    scores: Scores, treatment: str, baseline: str, dataset: str
) -> tuple[np.ndarray, np.ndarray]:
    """Values of two arms on a data set at the seeds that both have, rising; (n,) each."""
    ours = scores.values.get((treatment, dataset), {})
    theirs = scores.values.get((baseline, dataset), {})
    seeds = sorted(set(ours) & set(theirs))
    return np.array([ours[seed] for seed in seeds]), np.array([theirs[seed] for seed in seeds])


def compare(scores: Scores, treatment: str, baseline: str) -> Comparison:
    """One arm against another, paired by seed."""
    pairs: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    dropped: dict[str, tuple[int, ...]] = {}
    for dataset in scores.study.datasets:
        found = paired_values(scores, treatment, baseline, dataset)
        if found[0].size:
            pairs[dataset] = found
        cells = [set(scores.values.get((arm, dataset), {})) for arm in (treatment, baseline)]
        if alone := sorted(cells[0] ^ cells[1]):
            dropped[dataset] = tuple(alone)
    datasets = tuple(dataset for dataset in scores.aggregated if dataset in pairs)
    x = [pairs[dataset][0] for dataset in datasets]
    y = [pairs[dataset][1] for dataset in datasets]
    confidence = confidence_of(scores.study)
    return Comparison(
        treatment=treatment,
        baseline=baseline,
        by_dataset={
            name: paired_difference([a], [b], rng=_rng(), confidence=confidence)
            for name, (a, b) in pairs.items()
        },
        num_pairs={name: a.size for name, (a, _) in pairs.items()},
        dropped=dropped,
        overall=paired_difference(x, y, rng=_rng(), confidence=confidence) if datasets else None,
        probability=bootstrap(probability_of_improvement, x, y, rng=_rng(), resamples=2_000)
        if datasets
        else None,
        datasets=datasets,
        by_seed=_by_seed(scores, treatment, baseline, datasets),
    )


def _by_seed(
    scores: Scores, treatment: str, baseline: str, datasets: Sequence[str]
) -> StudentInterval | None:
    """Student's interval of the seeds' mean differences over data sets; see `Comparison`."""
    cells = [scores.values[arm, dataset] for arm in (treatment, baseline) for dataset in datasets]
    seeds = sorted(set.intersection(*map(set, cells))) if len(datasets) > 1 else []
    if len(seeds) < MIN_RUNS:
        return None
    ours, theirs = (
        np.array([[scores.values[arm, name][seed] for seed in seeds] for name in datasets])
        for arm in (treatment, baseline)
    )
    return student_interval([(ours - theirs).mean(axis=0)], confidence_of(scores.study))


def compare_all(scores: Scores, pairs: Sequence[tuple[str, str]]) -> list[Comparison]:
    """Every pair (arm, reference), with p-values that Holm's method adjusts for all of them together.

    Registered comparisons that have no runs yet count too, as if they had shown nothing.
    """
    found = [compare(scores, arm, reference) for arm, reference in pairs]
    number = max(len(pairs), len(scores.study.registration.comparisons))
    pooled = _adjusted([None if one.overall is None else one.overall.student for one in found], number)
    by_seed = _adjusted([one.by_seed for one in found], number)
    return [
        replace(one, adjusted_p=p, adjusted_p_by_seed=of_seeds, num_adjusted=number)
        for one, p, of_seeds in zip(found, pooled, by_seed, strict=True)
    ]


def _adjusted(students: Sequence[StudentInterval | None], number: int) -> list[float | None]:
    """Holm's p-values in a family of `number`, in which what has no interval shows nothing."""
    p_values = [1.0 if student is None else student.p_value for student in students]
    adjusted = holm([*p_values, *[1.0] * (number - len(students))])
    return [None if student is None else p for student, p in zip(students, adjusted, strict=False)]


def _rng() -> np.random.Generator:
    # Each interval starts from the same seed: adding an arm or a data set does not move the other intervals.
    return np.random.default_rng(_BOOTSTRAP_SEED)

"""Statistics over runs: estimates and bootstrap intervals. Every formula is in docs/statistics.md.

The one data type is a list of strata, one per data set: an array of scores, one per run (seed). Statistics
work on the last axis of each stratum and keep the axes before it, so that the same function gives the point
estimate, from (n,), and all bootstrap replicates at once, from (R, n).

References: Agarwal et al. (2021), "Deep Reinforcement Learning at the Edge of the Statistical Precipice",
for the interquartile mean, the optimality gap, the probability of improvement, performance profiles and the
stratified bootstrap; Welch (1947) for the degrees of freedom of a mean over strata; Holm (1979) for several
comparisons.

Dimensions: D data sets (strata) · n runs in a stratum · R bootstrap replicates · T thresholds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

Strata = Sequence[np.ndarray]
Statistic = Callable[..., np.ndarray]

RESAMPLES = 10_000
"""Bootstrap replicates of a published interval; its ends then vary by about 1 % of its width."""
_BAND_RESAMPLES = 2_000
"""Of a band in a figure."""
CONFIDENCE = 0.95
MIN_RUNS = 2
"""Fewest runs in a stratum for an interval: one run says nothing about the spread between runs."""
LOOKED_CONFIDENCE = 0.99
"""Nominal level of the 95% intervals of a study whose number of seeds was chosen by looking at their spread:
with it they cover 94% and more (docs/statistics.md)."""
LOOK_FROM = 10
"""Fewest pairs on every data set before their spread may end a study."""
_ROUNDING = 1e-9
"""Share of a mean difference below which its standard error is that of rounding."""
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure with its bootstrap interval; without one from a single run, which has no spread."""

    value: float
    """Point estimate, from the runs as they are."""
    low: float | None = None
    """Lower end of the 95% interval; None where there is no interval."""
    high: float | None = None
    """Upper end of the 95% interval; None where there is no interval."""

    @property
    def has_interval(self) -> bool:
        """Whether an interval could be computed."""
        return self.low is not None

    def excludes(self, reference: float) -> bool:
        """Whether there is an interval and the reference lies outside it."""
        return self.low is not None and self.high is not None and not self.low <= reference <= self.high


@dataclass(frozen=True, kw_only=True)
class StudentInterval:
    """What Student's t distribution says of a mean of paired differences."""

    standard_error: float
    """Of the mean."""
    degrees_of_freedom: float
    """By Welch and Satterthwaite; n - 1 for one data set."""
    low: float
    """Lower end of the 95% interval."""
    high: float
    """Upper end of the 95% interval."""
    p_value: float
    """Two-sided, of no difference; 1 where all pairs differ by the same amount: no spread is known then."""

    @property
    def has_spread(self) -> bool:
        """Whether pairs of one data set differ by more than rounding; without, no interval is known."""
        return self.standard_error > _ROUNDING * abs(self.low + self.high) / 2

    @property
    def is_apart(self) -> bool:
        """Whether there is a spread, and the interval leaves zero out."""
        return self.has_spread and not self.low <= 0.0 <= self.high


@dataclass(frozen=True, kw_only=True)
class Difference(Estimate):
    """A mean of paired differences, with its bootstrap interval and Student's."""

    student: StudentInterval | None = None
    """None where there is no interval."""

    @property
    def is_apart(self) -> bool:
        """Whether both intervals leave zero out; of few pairs the bootstrap's alone does so too often."""
        return self.excludes(0.0) and self.student is not None and self.student.is_apart


def mean_and_std(scores: np.ndarray) -> tuple[float, float | None]:
    """Mean and sample standard deviation (divisor n - 1) of one arm's runs on one data set.

    Args:
        scores: (n,) one score per run.

    Returns:
        The mean, and the standard deviation between runs; None for a single run.

    Raises:
        ValueError: without scores.
    """
    if scores.size == 0:
        raise ValueError("mean_and_std needs at least one score")
    return float(scores.mean()), float(scores.std(ddof=1)) if scores.size > 1 else None


def mean_over_tasks(strata: Strata) -> np.ndarray:
    """Mean over data sets of the mean over runs: every data set counts the same, whatever its number of runs.

    Args:
        strata: D arrays (..., n).

    Returns:
        (...) means.
    """
    return np.mean([stratum.mean(axis=-1) for stratum in strata], axis=0)


def interquartile_mean(strata: Strata) -> np.ndarray:
    """Mean of the middle half of all runs of all data sets together; every run counts the same.

    A quarter of the runs, rounded down, is left out at either end.

    Args:
        strata: D arrays (..., n).

    Returns:
        (...) interquartile means.
    """
    pooled = np.sort(np.concatenate(strata, axis=-1), axis=-1)
    size = pooled.shape[-1]
    cut = size // 4
    return pooled[..., cut : size - cut].mean(axis=-1)


def optimality_gap(strata: Strata) -> np.ndarray:
    """How far runs stay below 100, the expert's score, on average; higher ones count as 100. Lower is better.

    Args:
        strata: D arrays (..., n) of normalized scores.

    Returns:
        (...) gaps, at least 0.
    """
    return 100.0 - mean_over_tasks([np.minimum(stratum, 100.0) for stratum in strata])


def probability_of_improvement(treatment: Strata, control: Strata) -> np.ndarray:
    """Probability that a run of the treatment beats one of the control on the same data set; ties count half.

    The mean over data sets of the Mann-Whitney statistic U / (n m).

    Args:
        treatment: D arrays (..., n).
        control: D arrays (..., m), data sets in the same order.

    Returns:
        (...) probabilities in [0, 1].

    Raises:
        ValueError: when the two have different numbers of data sets.
    """
    if len(treatment) != len(control):
        raise ValueError(f"treatment has {len(treatment)} data sets, control {len(control)}")
    return np.mean([_win_rate(x, y) for x, y in zip(treatment, control, strict=True)], axis=0)


def _win_rate(treatment: np.ndarray, control: np.ndarray) -> np.ndarray:
    difference = treatment[..., :, None] - control[..., None, :]
    return (np.sign(difference).mean(axis=(-2, -1)) + 1.0) / 2.0


def performance_profile(strata: Strata, thresholds: np.ndarray) -> np.ndarray:
    """Share of all runs whose score is above each threshold.

    Args:
        strata: D arrays (n,).
        thresholds: (T,) scores.

    Returns:
        (T,) shares in [0, 1], falling.
    """
    pooled = np.concatenate(strata)
    return (pooled[:, None] > thresholds).mean(axis=0)


def performance_profile_band(
    strata: Strata, thresholds: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Pointwise 95% interval of `performance_profile`, by the stratified bootstrap.

    Args:
        strata: D arrays (n,), n >= 2.
        thresholds: (T,) scores.
        rng: generator of the replicates.

    Returns:
        Two (T,) arrays, low and high.
    """
    total = sum(stratum.size for stratum in strata)
    shares = np.zeros((_BAND_RESAMPLES, thresholds.size))
    for stratum in strata:
        above = (stratum[:, None] > thresholds).astype(float)
        shares += _resampling_weights(stratum.size, rng, _BAND_RESAMPLES) @ above * (stratum.size / total)
    return _percentiles(shares)


def mean_band(curves: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Pointwise 95% bootstrap interval of the mean learning curve over runs.

    With two or three runs this is the range from the lowest run to the highest.

    Args:
        curves: (n, T) one curve per run, n >= 2, at the same steps.
        rng: generator of the replicates.

    Returns:
        Two (T,) arrays, low and high.
    """
    return _percentiles(_resampling_weights(len(curves), rng, _BAND_RESAMPLES) @ curves)


def bootstrap(
    statistic: Statistic,
    *groups: Strata,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """Stratified percentile bootstrap of a statistic of one or more groups.

    In each replicate the runs of every data set of every group are drawn anew, with replacement,
    independently.

    Args:
        statistic: maps as many groups to an array over the leading axes, as the functions above do.
        groups: each a list of D arrays (n,).
        rng: generator of the replicates; the same seed gives the same interval.
        resamples: replicates.
        confidence: nominal level of the interval.

    Returns:
        The estimate with its percentile interval; without one where a data set has fewer than two runs.
    """
    value = float(statistic(*groups))
    fewest = min(stratum.size for group in groups for stratum in group)
    if fewest < MIN_RUNS:
        return Estimate(value=value)
    replicates = statistic(*[[_resample(stratum, rng, resamples) for stratum in group] for group in groups])
    low, high = _percentiles(replicates, confidence)
    return Estimate(value=value, low=float(low), high=float(high))


def paired_difference(
    treatment: Strata,
    control: Strata,
    *,
    rng: np.random.Generator,
    confidence: float = CONFIDENCE,
) -> Difference:
    """Mean over data sets of the paired difference, treatment minus control, with both intervals.

    Pairs (two runs with one seed) are drawn together, stratified by data set, so that what a seed does to
    both arms cancels.

    Args:
        treatment: D arrays (n,).
        control: D arrays (n,); entry i of a stratum has the same seed as entry i of the treatment's.
        rng: generator of the replicates.
        confidence: nominal level of the intervals.

    Raises:
        ValueError: when the shapes differ.
    """
    if [x.shape for x in treatment] != [y.shape for y in control]:
        raise ValueError("paired arms need the same seeds on the same data sets")
    differences = [x - y for x, y in zip(treatment, control, strict=True)]
    found = bootstrap(mean_over_tasks, differences, rng=rng, confidence=confidence)
    student = student_interval(differences, confidence) if found.has_interval else None
    return Difference(**vars(found), student=student)


def mean_error(strata: Strata) -> tuple[np.ndarray, np.ndarray]:
    """Standard error of `mean_over_tasks`, and its degrees of freedom by Welch and Satterthwaite.

    With v = s^2 / n of each data set the error is sqrt(sum v) / D, and the degrees of freedom are
    (sum v)^2 / sum (v^2 / (n - 1)).

    Args:
        strata: D arrays (..., n), n >= 2.

    Returns:
        Two arrays (...); without any spread the error is 0, with the sum of n - 1 as degrees of freedom.
    """
    squares = [stratum.var(axis=-1, ddof=1) / stratum.shape[-1] for stratum in strata]
    free = [stratum.shape[-1] - 1 for stratum in strata]
    total = np.sum(squares, axis=0)
    parts = np.sum([v**2 / n for v, n in zip(squares, free, strict=True)], axis=0)
    freedom = np.divide(total**2, parts, out=np.full_like(total, sum(free)), where=parts > 0)
    return np.sqrt(total) / len(strata), freedom


def student_interval(differences: Strata, confidence: float = CONFIDENCE) -> StudentInterval:
    """Student's interval of a mean over data sets of paired differences.

    Args:
        differences: D arrays (n,), n >= 2.
        confidence: nominal level; the p-value is scaled so that it is below 0.05 where the interval leaves
            zero out.
    """
    value = float(mean_over_tasks(differences))
    error, freedom = (float(found) for found in mean_error(differences))
    half = error * student_quantile(confidence, freedom)
    is_spread = error > _ROUNDING * abs(value)
    outside = 1.0 - float(student_within(np.array(abs(value) / error), freedom)) if is_spread else 1.0
    return StudentInterval(
        standard_error=error,
        degrees_of_freedom=freedom,
        low=value - half,
        high=value + half,
        p_value=min(1.0, outside * (1 - CONFIDENCE) / (1 - confidence)),
    )


def is_narrow(error: np.ndarray, freedom: np.ndarray | float, half_width: float) -> np.ndarray:
    """Whether an interval is narrow enough for a study to end: Student's, at the level for repeated looks.

    Args:
        error: (...) standard errors, as `mean_error` gives them.
        freedom: (...) their degrees of freedom.
        half_width: what was asked for.

    Returns:
        (...) bool.
    """
    size = np.divide(half_width, error, out=np.full_like(error, np.inf), where=error > 0)
    return student_within(size, freedom) >= LOOKED_CONFIDENCE


def student_within(size: np.ndarray, freedom: np.ndarray | float) -> np.ndarray:
    """Probability that Student's t lies within plus or minus a size.

    By Gauss's rule on the angle arctan(t / sqrt(freedom)), in which the density is a power of a cosine.

    Args:
        size: (...) values, at least 0; may be infinite.
        freedom: (...) degrees of freedom, at least 1.

    Returns:
        (...) probabilities, to 1e-9, and to 1e-5 in the far tails of less than two degrees.
    """
    freedom = np.asarray(freedom, dtype=float)
    angle = np.minimum(np.arctan(size / np.sqrt(freedom)), 12.0 / np.sqrt(freedom))
    points = 0.5 * angle[..., None] * (_NODES + 1)
    integral = 0.5 * angle * (np.cos(points) ** (freedom[..., None] - 1) @ _WEIGHTS)
    gamma = np.vectorize(math.lgamma, otypes=[float])
    scale = 2 / math.sqrt(math.pi) * np.exp(gamma((freedom + 1) / 2) - gamma(freedom / 2))
    return np.minimum(scale * integral, 1.0)


def student_quantile(confidence: float, freedom: float) -> float:
    """The size that Student's t stays within with a given probability: 2.26 for 0.95 and 9 degrees.

    Args:
        confidence: probability, above 0 and below 1.
        freedom: degrees of freedom, at least 1.
    """
    low, high = 0.0, 1.0
    while student_within(np.array(high), freedom) < confidence:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if student_within(np.array(middle), freedom) < confidence else (low, middle)
        )
    return high


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values: below 0.05 where the family-wise error of 5% allows the claim.

    Args:
        p_values: one for each comparison of the family.

    Returns:
        The adjusted ones in the same order, each at least as large.
    """
    adjusted = [1.0] * len(p_values)
    largest = 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def _resample(stratum: np.ndarray, rng: np.random.Generator, resamples: int) -> np.ndarray:
    return stratum[rng.integers(stratum.size, size=(resamples, stratum.size))]


def _resampling_weights(size: int, rng: np.random.Generator, resamples: int) -> np.ndarray:
    """(R, n) shares of the runs in each replicate: all replicate means are then one matrix product."""
    return rng.multinomial(size, np.full(size, 1.0 / size), size=resamples) / size


def _percentiles(replicates: np.ndarray, confidence: float = CONFIDENCE) -> tuple[np.ndarray, np.ndarray]:
    tail = 100.0 * (1.0 - confidence) / 2.0
    low, high = np.percentile(replicates, [tail, 100.0 - tail], axis=0)
    return low, high

"""At which share of the data a difference between two arms changes its sign."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from chibit.reporting.statistics.comparison import Comparison, Scores, paired_values
from chibit.reporting.statistics.intervals import CONFIDENCE, MIN_RUNS, RESAMPLES, Strata

_SEED = 0
_HASH_DIGITS = 8
"""Shown of a content hash."""


@dataclass(frozen=True, kw_only=True)
class Crossing:
    """Where a difference that depends on the share of the data is zero."""

    at: float | None
    """Share of the episodes; None where no mean difference has another sign than one before it."""
    low: float | None = None
    """Lower end of the 95% interval; 0 where it lies below the smallest share that was run."""
    high: float | None = None
    """Upper end; infinite where it lies above the largest."""
    replicates: float | None = None
    """Share of bootstrap replicates with both signs, in whichever order; None where there is no bootstrap."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Trend:
    """One comparison over shares of one data set."""

    comparison: Comparison
    """The arms."""
    source: str
    """The data set that the shares are of."""
    fractions: tuple[float, ...]
    """Shares of its episodes, rising."""
    datasets: tuple[str, ...]
    """Names of the shares in the study."""
    crossing: Crossing
    """Where the sign changes."""


def find_crossing(
    fractions: Sequence[float], differences: Strata, *, rng: np.random.Generator, resamples: int = RESAMPLES
) -> Crossing:
    """Zero of the mean paired difference, linear between shares in the logarithm of the share.

    Pairs are resampled within each share. A replicate whose sign at the smallest share is already the other
    one crosses below it, one that never changes crosses above the largest; quantiles are over all replicates.

    Args:
        fractions: (F,) shares, rising, at least two.
        differences: F arrays (n,) of paired differences.
        rng: generator of the replicates.
        resamples: replicates.

    Returns:
        The first change of sign, with an interval where every share has two pairs or more.
    """
    logs = np.log(fractions)
    means = np.array([[values.mean() for values in differences]])
    sign = np.sign(means[0][np.flatnonzero(means[0])[0]]) if means.any() else 1.0
    at = float(_first_zero(logs, sign * means)[0])
    crosses = bool(np.isfinite(at))
    if min(values.size for values in differences) < MIN_RUNS:
        return Crossing(at=float(np.exp(at)) if crosses else None)
    draws = np.stack(
        [
            values[rng.integers(values.size, size=(resamples, values.size))].mean(axis=1)
            for values in differences
        ],
        axis=1,
    )
    zeros = _first_zero(logs, sign * draws)
    share = float(((draws > 0).any(axis=1) & (draws < 0).any(axis=1)).mean())
    if not crosses:
        return Crossing(at=None, replicates=share)
    tail = 100 * (1 - CONFIDENCE) / 2
    # Without interpolation between replicates: some of them are infinite.
    low, high = np.exp(np.percentile(zeros, [tail, 100 - tail], method="inverted_cdf"))
    return Crossing(at=float(np.exp(at)), low=float(low), high=float(high), replicates=share)


def _first_zero(logs: np.ndarray, means: np.ndarray) -> np.ndarray:
    """(R,) where rows of (R, F) means first fall to zero on their way to a negative one.

    -inf where that one comes before any positive one, inf where there is none: what is zero has no sign.
    """
    below = means < 0
    first = np.argmax(below, axis=1)
    above = (means > 0) & (np.arange(len(logs)) < first[:, None])
    # The last positive one before it: where zeros lie between the two, the first of these.
    last = np.minimum(len(logs) - 1 - np.argmax(above[:, ::-1], axis=1), len(logs) - 2)
    rows = np.arange(len(means))
    high, low = means[rows, last], means[rows, last + 1]
    zeros = logs[last] + (logs[last + 1] - logs[last]) * high / np.where(high > low, high - low, 1.0)
    return np.where(below.any(axis=1), np.where(above.any(axis=1), zeros, -np.inf), np.inf)


def trends(scores: Scores, comparisons: Sequence[Comparison]) -> list[Trend]:
    """Every comparison on every data set of which the study has two shares or more."""
    shares: dict[tuple[str, str], dict[float, str]] = {}
    for run in scores.study.runs:
        content = (run.provenance["data_name"], run.provenance["data_hash"])
        shares.setdefault(content, {})[run.fraction] = run.dataset
    names = [name for name, _ in shares]
    found = []
    for comparison in comparisons:
        for (name, content_hash), named in shares.items():
            source = name if names.count(name) == 1 else f"{name} ({content_hash[:_HASH_DIGITS]})"
            fractions = [fraction for fraction in sorted(named) if named[fraction] in comparison.by_dataset]
            if len(fractions) < 2:
                continue
            datasets = tuple(named[fraction] for fraction in fractions)
            pairs = [
                paired_values(scores, comparison.treatment, comparison.baseline, name) for name in datasets
            ]
            crossing = find_crossing(fractions, [x - y for x, y in pairs], rng=np.random.default_rng(_SEED))
            found.append(
                Trend(
                    comparison=comparison,
                    source=source,
                    fractions=tuple(fractions),
                    datasets=datasets,
                    crossing=crossing,
                )
            )
    return found

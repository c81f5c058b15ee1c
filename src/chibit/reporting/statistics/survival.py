"""How soon runs reach a fixed level: shares by Kaplan and Meier (1958), and the steps within a horizon.

A run that never gets there is censored at its end: it takes longer than that, and nobody knows how much. The
level is the same for all arms, and no arm's curve decides it, so that an arm that ends higher is not called
slower for having further to go.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from chibit.reporting.read.study import Study
from chibit.reporting.statistics.comparison import Measure, Scores, behavior_mean, curve_points

Cells = dict[tuple[str, str], dict[int, float]]


@dataclass(frozen=True, kw_only=True)
class Levels:
    """Levels for all data sets, in place of the registered ones."""

    score: float | None = None
    """Normalized score, or raw return where there are no scores."""
    error: float | None = None
    """Held-out action error."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Arrivals(Measure):
    """When every run first reached the level of its data set; `values` are the steps, cut at the horizon.

    No run is censored before it, so that their mean is the area under the curve of `kaplan_meier` up to it.
    """

    levels: dict[str, float]
    """Of each data set."""
    horizons: dict[str, float]
    """Steps of the shortest run on each data set."""
    ends: Cells
    """Steps until the level, or until the end of a run that did not reach it."""
    reached: Cells
    """1 where it was reached, else 0."""

    def times(self, arm: str, dataset: str) -> tuple[np.ndarray, np.ndarray]:
        """Steps and whether the level was reached then, (n,) each, by rising seed."""
        ends, reached = self.ends.get((arm, dataset), {}), self.reached.get((arm, dataset), {})
        return np.array([ends[seed] for seed in sorted(ends)]), np.array(
            [reached[seed] > 0 for seed in sorted(ends)], dtype=bool
        )


def kaplan_meier(times: np.ndarray, reached: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Share of runs that have not reached the level yet, corrected for runs that end before.

    Args:
        times: (n,) steps until the level or the end of the run.
        reached: (n,) bool, False where the run ended first.

    Returns:
        (K,) steps at which runs reached it, rising, and (K,) shares left from there on.
    """
    steps = np.unique(times[reached])
    at_risk = (times >= steps[:, None]).sum(axis=1)
    arrived = ((times == steps[:, None]) & reached).sum(axis=1)
    return steps, np.cumprod(1.0 - arrived / at_risk)


def median_time(times: np.ndarray, reached: np.ndarray) -> float | None:
    """First step at which at most half of the runs have not reached the level; None where more never do."""
    steps, left = kaplan_meier(times, reached)
    below = np.flatnonzero(left <= 0.5 + 1e-12)
    return float(steps[below[0]]) if below.size else None


def score_arrivals(scores: Scores, given: float | None = None) -> Arrivals | None:
    """Steps until the first evaluation at or above a fixed score.

    Args:
        scores: the study at the chosen target.
        given: level of all data sets; None takes the registered ones, else the mean score of the training
            data's own episodes.

    Returns:
        None where no data set has a level.
    """
    study = scores.study
    levels = _levels(study, study.registration.score_levels, given)
    for dataset in study.datasets:
        own = behavior_mean(study, dataset, normalized=study.is_normalized(dataset))
        if dataset not in levels and own is not None:
            levels[dataset] = own
    crossings = {
        (arm, dataset): {
            seed: (curve.steps, curve_points(study, dataset, curve) >= levels[dataset])
            for seed, curve in cell.items()
        }
        for (arm, dataset), cell in scores.curves.items()
        if dataset in levels
    }
    return _arrivals(
        scores, levels, crossings, key="score-steps", title="Steps to a fixed score", what="score at or above"
    )


def error_arrivals(scores: Scores, given: float | None = None) -> Arrivals | None:
    """Steps until the held-out action error is first at or below a fixed level; None where there is none.

    Args:
        scores: the study.
        given: level of all data sets; None takes the registered ones.
    """
    study = scores.study
    levels = _levels(study, study.registration.error_levels, given)
    crossings = {
        (arm, dataset): {
            seed: (run.held_out[:, 0], run.held_out[:, 1] <= levels[dataset])
            for seed, run in cell.items()
            if len(run.held_out)
        }
        for (arm, dataset), cell in study.cells.items()
        if dataset in levels
    }
    return _arrivals(
        scores,
        levels,
        crossings,
        key="error-steps",
        title="Steps to a fixed held-out action error",
        what="held-out action error at or below",
    )


def _levels(study: Study, registered: Mapping[str, float], given: float | None) -> dict[str, float]:
    """By the report's name of a data set; registered ones stand under the name in the configuration."""
    levels = {}
    for run in study.runs:
        level = registered.get(str(run.config.get("data"))) if given is None else given
        if level is not None:
            levels[run.dataset] = level
    return levels


def _arrivals(
    scores: Scores,
    levels: dict[str, float],
    crossings: Mapping[tuple[str, str], Mapping[int, tuple[np.ndarray, np.ndarray]]],
    *,
    key: str,
    title: str,
    what: str,
) -> Arrivals | None:
    ends: Cells = {}
    reached: Cells = {}
    horizons: dict[str, float] = {}
    for cell, by_seed in crossings.items():
        for seed, (steps, there) in by_seed.items():
            first = int(np.argmax(there))
            ends.setdefault(cell, {})[seed] = float(steps[first] if there[first] else steps[-1])
            reached.setdefault(cell, {})[seed] = float(there[first])
            horizons[cell[1]] = min(float(steps[-1]), horizons.get(cell[1], np.inf))
    horizons = {name: horizons[name] for name in scores.study.datasets if name in horizons}
    if not ends or max(len(steps) for cell in crossings.values() for steps, _ in cell.values()) < 2:
        return None  # one evaluation tells no time
    values = {
        cell: {seed: min(end, horizons[cell[1]]) for seed, end in by_seed.items()}
        for cell, by_seed in ends.items()
    }
    return Arrivals(
        study=scores.study,
        rule=scores.rule,
        curves=scores.curves,
        values=values,
        key=key,
        title=title,
        what=what,
        axis="difference in gradient steps",
        levels={dataset: levels[dataset] for dataset in horizons},
        horizons=horizons,
        ends=ends,
        reached=reached,
    )

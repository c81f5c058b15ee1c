"""The rules that turn a curve of evaluations into one number, for training and for reports.

A curve is the list of normalized scores (0 to 100) of one run at one target return, in the order of
evaluation.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

CONVERGENCE_MARGIN = 2.0
"""Points within which of its best a run counts as converged (section 5.1 of Reid et al. 2022)."""
LAST_COUNT = 4
"""Evaluations that the last-4 rule averages (Wang et al. 2024)."""


@dataclass(frozen=True)
class CurveScores:
    """One run's curve under the three rules, and when it converged."""

    last: float
    """Score of the last evaluation."""
    last4: float
    """Mean of the last four evaluations, or of all when there are fewer."""
    best: float
    """Highest score of all evaluations: optimistic, for it is chosen by looking at the environment."""
    best_index: int
    """Index of the first evaluation with the highest score."""
    converged_index: int
    """Index of the first evaluation within 2 points of the best."""


def name_last(num_evaluations: Iterable[int]) -> str:
    """What the last-4 rule averaged in curves of these lengths: ``last 4``, ``last 3``, ``last 1 to 4``."""
    counts = sorted({min(LAST_COUNT, number) for number in num_evaluations}) or [LAST_COUNT]
    return f"last {counts[0]}" + (f" to {counts[-1]}" if len(counts) > 1 else "")


def curve_scores(curve: Sequence[float]) -> CurveScores:
    """Apply the rules to one curve.

    Raises:
        ValueError: for an empty curve.
    """
    if not curve:
        raise ValueError("a curve needs at least one evaluation")
    best = max(curve)
    tail = curve[-LAST_COUNT:]
    return CurveScores(
        last=curve[-1],
        last4=sum(tail) / len(tail),
        best=best,
        best_index=list(curve).index(best),
        converged_index=next(i for i, score in enumerate(curve) if score >= best - CONVERGENCE_MARGIN),
    )

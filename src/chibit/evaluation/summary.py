"""The one account of an evaluation: what its episodes say, without those whose environment failed.

The loop, the commands, `result.json` and the reports all ask it, so that a failed episode is in none of their
figures. It needs neither torch nor an environment.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from chibit.core.formatting import count, format_mean, format_number, format_setting
from chibit.environments.kinds import ScoreReference
from chibit.environments.scores import normalized_score


@dataclass(frozen=True, kw_only=True)
class EvaluationSummary:
    """All episodes that were played for one target return at one time."""

    target_return: float | None
    """Raw return that was asked for; None where the policy takes none."""
    returns: tuple[float, ...]
    """Raw returns of the episodes that count: those that did not fail."""
    num_failed: int
    """Episodes whose environment failed."""
    mean_length: float | None
    """Mean environment steps of the episodes that count; None where none does."""
    normalized_score: float | None
    """0 (random) to 100 (expert) for `mean_return`; None without a reference, or if no episode counts."""
    success_rate: float | None = None
    """Share of the episodes that count in which the environment reported success; None if it never does."""

    @property
    def num_episodes(self) -> int:
        """Episodes that count."""
        return len(self.returns)

    @property
    def mean_return(self) -> float | None:
        """Mean raw return; None if no episode counts."""
        return float(np.mean(self.returns)) if self.returns else None

    @property
    def std_return(self) -> float | None:
        """Sample standard deviation (divisor n - 1) between episodes; None for fewer than two."""
        return float(np.std(self.returns, ddof=1)) if len(self.returns) > 1 else None

    @property
    def score(self) -> float | None:
        """The normalized score, or the mean return where there is no reference; None if no episode counts."""
        return self.mean_return if self.normalized_score is None else self.normalized_score

    @property
    def sample(self) -> str:
        """What the figures are of: ``10 episodes``, or ``2 of 3 episodes, 1 failed``."""
        if not self.num_failed:
            return count(self.num_episodes, "episode")
        played = count(self.num_episodes + self.num_failed, "episode")
        return f"{self.num_episodes or 'none'} of {played}, {self.num_failed} failed"

    @property
    def short(self) -> str:
        """``score 38.5 (10 episodes)``, or the mean return without a reference."""
        if self.normalized_score is not None:
            return f"score {format_number(self.normalized_score, decimals=1)} ({self.sample})"
        shown = "no return" if self.mean_return is None else f"return {format_number(self.mean_return)}"
        return f"{shown} ({self.sample})"

    def __str__(self) -> str:
        """``target 3,600: return 1,234 ± 120 (10 episodes), score 38.5``."""
        asked = "" if self.target_return is None else f"target {format_setting(self.target_return)}: "
        if self.mean_return is None:
            return f"{asked}no return ({self.sample})"
        score = self.normalized_score
        scored = "" if score is None else f", score {format_number(score, decimals=1)}"
        rate = self.success_rate
        solved = "" if rate is None else f", success {format_number(100 * rate, decimals=0)} %"
        return (
            f"{asked}return {format_mean(self.mean_return, self.std_return)} ({self.sample}){scored}{solved}"
        )


def summarize(
    episode_returns: Sequence[float],
    *,
    failed_episodes: Collection[int] = (),
    episode_lengths: Sequence[int] = (),
    target_return: float | None = None,
    score_reference: ScoreReference | None = None,
    score: float | None = None,
    successes: Sequence[bool] = (),
) -> EvaluationSummary:
    """Account for the episodes of one evaluation.

    Args:
        episode_returns: raw return of every episode, of a failed one up to its fault.
        failed_episodes: indices of those that failed.
        episode_lengths: environment steps of every episode; empty where they are not known.
        target_return: raw return that was asked for.
        score_reference: raw returns (random, expert) that mean 0 and 100.
        score: the normalized score, where it is known already.
        successes: whether each episode was one; empty where the environment does not say.
    """
    counted = [i for i in range(len(episode_returns)) if i not in failed_episodes]
    returns = tuple(float(episode_returns[i]) for i in counted)
    if counted and score is None and score_reference is not None:
        score = float(normalized_score(float(np.mean(returns)), score_reference))
    return EvaluationSummary(
        target_return=target_return,
        returns=returns,
        num_failed=len(episode_returns) - len(counted),
        mean_length=float(np.mean([episode_lengths[i] for i in counted]))
        if counted and episode_lengths
        else None,
        normalized_score=score if counted else None,
        success_rate=float(np.mean([successes[i] for i in counted])) if counted and successes else None,
    )


def summarize_record(record: Mapping[str, Any]) -> EvaluationSummary:
    """The same of a line of evaluations.jsonl."""
    return summarize(
        record["episode_returns"],
        failed_episodes=record.get("failed_episodes", ()),
        episode_lengths=record.get("episode_lengths", ()),
        target_return=record["target_return"],
        score=record["normalized_score"],
        successes=record.get("successes", ()),
    )

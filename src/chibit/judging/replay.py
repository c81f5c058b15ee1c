"""What a policy would have done at logged histories, beside what was done.

Dimensions: E episodes · N steps of them · S state_dim · A act_dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from chibit.agents.base import Policy
from chibit.data.dataset import TrajectoryDataset
from chibit.judging.judgement import ActionError
from chibit.judging.steps import check_actions


@dataclass(frozen=True, eq=False)
class Replay:
    """Steps of some episodes, end to end."""

    observations: np.ndarray
    """(N, S) raw, as logged."""
    logged: np.ndarray
    """(N, A), or (N,) int64."""
    chosen: np.ndarray
    """What the policy chose instead, of the same shape."""
    rewards: np.ndarray
    """(N,) as logged."""
    episode_starts: np.ndarray
    """(E + 1,) first row of each episode, then N."""


def replay(policy: Policy, dataset: TrajectoryDataset, episodes: Sequence[int]) -> Replay:
    """Show a policy logged episodes, in lockstep.

    It sees logged states, rewards and actions at every step, whatever it would rather have done.

    Args:
        policy: is reset first.
        dataset: the log.
        episodes: numbers of E episodes.

    Raises:
        InputError: if its actions do not have the shape of the log's, are not finite, or are no choices.
    """
    trajectories = [dataset.trajectory(episode) for episode in episodes]
    lengths = np.array([len(trajectory.rewards) for trajectory in trajectories])
    starts = np.concatenate([[0], np.cumsum(lengths)])
    columns = {
        name: np.concatenate([getattr(trajectory, name) for trajectory in trajectories])
        for name in ("observations", "actions", "rewards")
    }
    chosen = np.empty_like(columns["actions"])
    policy.reset(len(trajectories))
    for step in range(int(lengths.max())):
        live = step < lengths
        rows = starts[:-1] + np.minimum(step, lengths - 1)
        given = policy.act(columns["observations"][rows])
        actions = check_actions(given, live, dataset.spec, step)
        chosen[rows[live]] = actions[live]
        rewards = columns["rewards"][rows].astype(np.float64)
        policy.observe(rewards, step + 1 >= lengths, columns["actions"][rows])
    return Replay(columns["observations"], columns["actions"], chosen, columns["rewards"], starts)


def action_error(shown: Replay, spread: np.ndarray) -> ActionError:
    """Error of a replay; `spread` (A,) is that of logged actions."""
    if shown.logged.ndim == 1:
        return ActionError(mean=float((shown.chosen != shown.logged).mean()), by_dimension=())
    squares = (shown.chosen.astype(np.float64) - shown.logged) ** 2
    by_dimension = np.sqrt(squares.mean(0)) / spread
    return ActionError(mean=float(squares.mean()), by_dimension=tuple(by_dimension.tolist()))

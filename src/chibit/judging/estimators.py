"""Fitted Q evaluation and importance sampling, for those who ask: both mislead, and no judgement uses them.

What was measured (docs/judging.md): off the logged behavior linear FQE preferred a policy that falls at once
to all good ones, and its bootstrap shows sampling noise, not that error. The weights of importance sampling
leave one to four episodes of hundreds, so that its answer is the mean of the log, whatever the policy.

Dimensions: N logged steps · E episodes · S state_dim · A act_dim · D features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chibit.agents.base import Policy
from chibit.core.config import Checked
from chibit.core.errors import InputError
from chibit.data.dataset import DatasetSpec, TrajectoryDataset
from chibit.judging.clone import Clone
from chibit.judging.replay import Replay, replay

_NUM_FEATURES, _RIDGE, _ACTION_WEIGHT = 500, 1e-3, 2.0
_MOST_STEPS = 60_000


@dataclass(frozen=True, kw_only=True)
class OtherEstimates(Checked):
    """Values of a policy that are not to be believed."""

    fqe: float
    """Linear fitted Q evaluation: LSTD-Q on random Fourier features (Lagoudakis & Parr, 2003)."""
    wis: float
    """Per-decision weighted importance sampling (Precup et al., 2000), the clone as behavior."""
    effective_episodes: float
    """Episodes that the weights of the last step are worth."""
    num_episodes: int
    """Episodes that both were computed from."""


def other_estimates(
    policy: Policy, dataset: TrajectoryDataset, clone: Clone, *, discount: float, seed: int = 0
) -> OtherEstimates:
    """Estimate a policy's discounted return from its actions at logged histories.

    Args:
        policy: is shown up to 60,000 logged steps.
        dataset: the log.
        clone: of the log.
        discount: per step.
        seed: of the choice of episodes, and of features.

    Raises:
        InputError: where actions are discrete, or do not fit, or no step has a next one or an end.
    """
    check_actions(dataset.spec)
    generator = np.random.default_rng([seed, 5])
    order = generator.permutation(dataset.num_episodes)
    fitting = np.cumsum(dataset.episode_lengths[order]) <= _MOST_STEPS
    episodes = np.sort(order[: max(1, int(fitting.sum()))])
    is_terminated = dataset.episode_ends[episodes, 0]
    if dataset.episode_lengths[episodes].max() == 1 and not is_terminated.any():
        raise InputError(
            f"{dataset.spec.name}: its episodes were cut after one step, so that FQE has nothing to go by; "
            "leave --other-estimates out"
        )
    shown = replay(policy, dataset, episodes.tolist())
    wis, effective = _weighted(shown, clone, discount)
    return OtherEstimates(
        fqe=_linear_fqe(shown, is_terminated, clone, discount, generator),
        wis=wis,
        effective_episodes=effective,
        num_episodes=len(episodes),
    )


def check_actions(spec: DatasetSpec) -> None:
    """Refuse discrete actions.

    Raises:
        InputError: if they are.
    """
    if spec.num_actions is not None:
        raise InputError(f"{spec.name}: actions are discrete, expected continuous ones for FQE and WIS")


def _linear_fqe(
    shown: Replay, is_terminated: np.ndarray, clone: Clone, discount: float, generator: np.random.Generator
) -> float:
    """Mean of Q(s, pi(s)) over first states, where Q is the fixed point on the features."""
    scales, last = clone.scales, shown.episode_starts[1:] - 1
    width = shown.observations.shape[1] + shown.logged.shape[1]
    directions = generator.normal(size=(width, _NUM_FEATURES)) / np.sqrt(width)
    offsets = generator.uniform(0, 2 * np.pi, _NUM_FEATURES)

    def features(actions: np.ndarray, rows: np.ndarray) -> np.ndarray:
        states = scales.states(shown.observations[rows])
        x = np.concatenate([states, scales.actions(actions[rows]) * _ACTION_WEIGHT], axis=1)
        waves = np.cos(x @ directions + offsets) * np.sqrt(2 / _NUM_FEATURES)
        return np.concatenate([np.ones((len(x), 1)), x, waves], axis=1)

    goes_on = np.ones(len(shown.rewards), bool)
    goes_on[last] = False
    # A cut episode's last step has no next action that is known; it is left out.
    used = np.ones(len(goes_on), bool)
    used[last[~is_terminated]] = False
    size = 1 + width + _NUM_FEATURES
    products, shifted, targets = np.zeros((size, size)), np.zeros((size, size)), np.zeros(size)
    for rows in np.array_split(np.flatnonzero(used), max(1, len(used) // 4096)):
        now = features(shown.logged, rows)
        following = features(shown.chosen, np.minimum(rows + 1, len(used) - 1)) * goes_on[rows, None]
        products += now.T @ now
        shifted += now.T @ following
        targets += now.T @ shown.rewards[rows]
    count = int(used.sum())
    weights = np.linalg.solve(
        (products - discount * shifted) / count + _RIDGE * np.eye(size), targets / count
    )
    return float((features(shown.chosen, shown.episode_starts[:-1]) @ weights).mean())


def _weighted(shown: Replay, clone: Clone, discount: float) -> tuple[float, float]:
    """Estimate, and the effective number of episodes at the end of the longest."""
    mean, std = clone.moments(shown.observations)
    log_ratio = 0.5 * (((shown.logged - mean) / std) ** 2 - ((shown.logged - shown.chosen) / std) ** 2).sum(1)
    starts, lengths = shown.episode_starts[:-1], np.diff(shown.episode_starts)
    longest = int(lengths.max())
    sums, rewards = np.zeros((len(starts), longest)), np.zeros((len(starts), longest))
    for e, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        rows = slice(start, start + length)
        sums[e, :length] = np.cumsum(log_ratio[rows])
        sums[e, length:] = sums[e, length - 1]  # an episode that is over keeps its weight
        rewards[e, :length] = shown.rewards[rows] * discount ** np.arange(length)
    weights = np.exp(sums - sums.max(0))
    weights /= weights.sum(0)
    return float((weights * rewards).sum()), float(1 / (weights[:, -1] ** 2).sum())

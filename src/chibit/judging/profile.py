"""What a log holds, and what a policy does in it, as histograms: for those who look before they believe.

Dimensions: N steps · S state_dim · A act_dim.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from chibit.core.bins import bin_range
from chibit.data.choices import constant_columns
from chibit.data.dataset import DatasetSpec, TrajectoryDataset
from chibit.judging.judgement import Histogram, LogProfile

_NUM_BINS, _MOST_DIMENSIONS = 20, 64
_WIDE = 4.0
"""Standard deviations around the mean that are drawn of a state; few outliers would leave one bin of it."""


def profile_of(parts: Sequence[TrajectoryDataset]) -> LogProfile:
    """Look through a log that comes in parts."""
    spec = parts[0].spec
    actions = np.concatenate([part.actions for part in parts])
    return LogProfile(
        is_discrete=spec.num_actions is not None,
        returns=_histogram([part.episode_returns for part in parts]),
        lengths=_histogram([part.episode_lengths for part in parts]),
        rewards=_histogram([part.rewards for part in parts]),
        states=tuple(
            _histogram([part.observations[:, i] for part in parts], wide=_WIDE)
            for i in range(min(spec.state_dim, _MOST_DIMENSIONS))
        ),
        actions=action_histograms(actions, spec),
        constant_states=constant_columns(*(part.seen_as(spec).centered_observations for part in parts)),
        constant_actions=tuple(np.flatnonzero(_is_idle(actions, spec)).tolist()),
    )


def action_histograms(actions: np.ndarray, spec: DatasetSpec) -> tuple[Histogram, ...]:
    """Histograms of (N, A) actions between their bounds, one a dimension, or one of (N,) choices."""
    if spec.num_actions is not None:
        counts = np.bincount(actions, minlength=spec.num_actions)
        return (Histogram(low=-0.5, high=spec.num_actions - 0.5, counts=tuple(counts.tolist())),)
    bounds = list(zip(spec.action_low, spec.action_high, strict=True))[:_MOST_DIMENSIONS]
    return tuple(_counted(actions[:, i], *ends) for i, ends in enumerate(bounds))


def _is_idle(actions: np.ndarray, spec: DatasetSpec) -> np.ndarray:
    if spec.num_actions is not None:
        return np.bincount(actions, minlength=spec.num_actions) == 0
    return np.asarray(actions.min(axis=0) == actions.max(axis=0))


def _histogram(columns: Sequence[np.ndarray], wide: float | None = None) -> Histogram:
    values = np.concatenate(columns).astype(np.float64)
    low, high = values.min(), values.max()
    if wide is not None:
        low = max(low, values.mean() - wide * values.std())
        high = min(high, values.mean() + wide * values.std())
    return _counted(values, float(low), float(high))


def _counted(values: np.ndarray, low: float, high: float) -> Histogram:
    low, high = bin_range(low, high)
    counts, _ = np.histogram(np.clip(values, low, high), bins=_NUM_BINS, range=(low, high))
    return Histogram(low=low, high=high, counts=tuple(counts.tolist()))

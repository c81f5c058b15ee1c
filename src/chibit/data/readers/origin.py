"""What a source says of itself, and how that becomes a data set's description."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from chibit.data.readers.recording import Recording
from chibit.data.spec import DatasetSpec, ObservationPart
from chibit.data.statistics import best_and_high, spread, units_of_returns
from chibit.environments.data_names import is_published_name
from chibit.environments.registry import ENVIRONMENTS
from chibit.environments.scores import score_reference

UNKNOWN = "unknown_environment"
"""Entry of a store's provenance: what its source calls its environment, which was not known then."""
FACTS = "environment"
"""Entry of a store's provenance: `id` of an environment that may change, and digits of what it said then."""
_UNREADABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_LEAST_MARGIN = 1e-3
_NO_BOUND = 1e6
"""Declared bounds this far out stand for none, where the data stay below a thousandth of them."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What is known of a data set beside its steps."""

    name: str
    """See `DatasetSpec.name`."""
    env_id: str | None = None
    """Environment of evaluation, on the allow-list."""
    named_environment: str | None = field(default=None, repr=False)
    """What the source calls it, also where that is not known here."""
    env_options: str = ""
    """What it was made with beyond its defaults, in words; empty where nothing."""
    d4rl_physics: bool = False
    """See `DatasetSpec.d4rl_physics`."""
    score_reference: tuple[float, float] | None = None
    """From the data's own metadata; None looks the environment up."""
    num_actions: int | None = None
    """Number of discrete actions; None takes the largest that occurs, plus one."""
    action_bounds: tuple[tuple[float | None, ...], tuple[float | None, ...]] | None = None
    """Lowest and highest continuous actions; None is taken from the data."""
    max_episode_steps: int | None = None
    """Time limit; None takes the longest episode."""
    target_returns: tuple[float, ...] = ()
    """Returns to ask for; empty takes those of `default_target_returns`."""
    observation_parts: tuple[ObservationPart, ...] = field(default=(), repr=False)
    """See `DatasetSpec.observation_parts`."""
    notes: tuple[str, ...] = ()
    """What was decided while the description was read, one sentence each."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """Where the data came from, as JSON values."""


def make_spec(
    origin: Origin,
    recording: Recording,
    *,
    state_mean: np.ndarray,
    state_std: np.ndarray,
    state_offset: np.ndarray | None,
    returns_to_go: np.ndarray,
    action_range: tuple[np.ndarray, np.ndarray],
    num_actions: int | None,
) -> DatasetSpec:
    """Describe a data set.

    Args:
        origin: what its source and its environment say.
        recording: its steps.
        state_mean: (S,) float64.
        state_std: (S,) float64 population standard deviation.
        state_offset: (S,) float64 that both are less; None for none.
        returns_to_go: (N,) raw.
        action_range: (A,) smallest and largest values that occur.
        num_actions: number of discrete actions, None where they are continuous.
    """
    act_dim = 0 if num_actions is not None else recording.num_action_columns
    low, high = settled_bounds(origin.action_bounds, action_range) if act_dim else ((), ())
    lengths = np.diff(recording.episode_starts)
    scale, baseline = default_return_units(origin.env_id, returns_to_go, recording.episode_starts)
    return DatasetSpec(
        name=origin.name,
        state_dim=recording.observation_size,
        act_dim=act_dim,
        num_actions=num_actions,
        env_id=origin.env_id,
        d4rl_physics=origin.d4rl_physics,
        max_episode_steps=origin.max_episode_steps or int(lengths.max()),
        score_reference=origin.score_reference or score_reference(origin.env_id),
        state_mean=_floats(state_mean),
        state_std=_floats(spread(state_mean, state_std)),
        state_offset=() if state_offset is None else _floats(state_offset),
        action_low=low,
        action_high=high,
        default_target_returns=origin.target_returns
        or default_target_returns(origin.env_id, returns_to_go[recording.episode_starts[:-1]]),
        return_scale=scale,
        return_baseline=baseline,
        image_shape=recording.image_shape,
        observation_parts=origin.observation_parts,
    )


def file_name(path: Path) -> str:
    """Name a data set by its file: without the suffix, unless it would then pass for a published one.

    Bytes that are no UTF-8 and control characters, which no name here may have, are escaped.
    """
    name = path.name if is_published_name(path.stem) else path.stem
    return _UNREADABLE.sub(lambda found: ascii(found[0])[1:-1], name)


def beyond_bounds(spec: DatasetSpec, action_range: tuple[np.ndarray, np.ndarray]) -> tuple[str, ...]:
    """Note actions that lie outside the bounds, if there are any: no policy will repeat them."""
    if spec.num_actions is not None:
        return ()
    low, high = (float(bound) for bound in (action_range[0].min(), action_range[1].max()))
    tolerance = 1e-5 * np.maximum(1.0, np.abs([spec.action_low, spec.action_high]))
    below = (action_range[0] < np.array(spec.action_low) - tolerance[0]).any()
    above = (action_range[1] > np.array(spec.action_high) + tolerance[1]).any()
    return (f"actions reach from {low:g} to {high:g}, beyond their bounds",) if below or above else ()


Bounds: TypeAlias = tuple[Sequence[float | None], Sequence[float | None]]
"""(A,) lowest and highest actions; None or infinite where there is no bound."""


def narrower(declared: Bounds | None, other: Bounds) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """What both allow; what the other allows where there is no such action."""
    if declared is None:
        return _floats(np.array(other[0])), _floats(np.array(other[1]))
    (low, high), (other_low, other_high) = np.array(declared, np.float64), np.array(other, np.float64)
    low, high = np.fmax(low, other_low), np.fmin(high, other_high)
    is_none = low > high
    return _floats(np.where(is_none, other_low, low)), _floats(np.where(is_none, other_high, high))


def settled_bounds(
    declared: Bounds | None,
    reached: tuple[ArrayLike, ArrayLike],
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Lowest and highest action of each dimension: declared ones that leave a range, else what data reach.

    Args:
        declared: (A,) each, of the environment or of the data's own description; None for none.
        reached: (A,) each, smallest and largest action of the data. A little is added around one that never
            changes, since a range of none cannot be divided by.
    """
    found = np.array(reached, np.float64)
    known = np.zeros(found.shape, bool)
    if declared is not None:
        bounds = np.array(declared, np.float64)  # None becomes NaN
        no_bound = (np.abs(bounds) >= _NO_BOUND) & (np.abs(bounds) > 1e3 * np.abs(found).max(axis=0))
        known = np.isfinite(bounds) & ~no_bound
        known &= ~(known.all(axis=0) & (bounds[0] >= bounds[1]))
        found = np.where(known, bounds, found)
    size = np.abs(found).max(axis=0)
    is_flat = found[1] - found[0] <= 1e-6 * size
    margin = np.where(is_flat, np.maximum(1e-3 * size, _LEAST_MARGIN), 0.0)
    low = np.where(known[0], found[0], np.where(is_flat, found.min(axis=0), found[0]) - margin)
    high = np.where(known[1], found[1], np.where(is_flat, found.max(axis=0), found[1]) + margin)
    return _floats(low), _floats(high)


def default_target_returns(env_id: str | None, episode_returns: np.ndarray) -> tuple[float, ...]:
    """Returns to ask for: the usual ones of the environment, else of the data (E,).

    Those are the best, and the one at 90 % of the episodes in order of return: one that is rare and one that
    is not, whatever the sign and the size of rewards. Both are returns that episodes have.
    """
    return usual_target_returns(env_id) or best_and_high(episode_returns)


def default_return_units(
    env_id: str | None, returns_to_go: np.ndarray, episode_starts: np.ndarray
) -> tuple[float, tuple[float, float]]:
    """What returns-to-go are divided by, and what is taken off them first, at step 0 and more at each step.

    The paper's constant for the environment, and nothing; else of the data, (N,) and (E + 1,): the line that
    fits the returns-to-go over the steps of an episode best, and their root mean square around it. So they
    are of order one, whatever the unit of the rewards and whatever every step or episode earns in any case:
    what the model sees is what tells episodes apart. Embeddings are normalized, so that much larger numbers
    would look alike to it, as much smaller ones do. Where nothing differs, the root mean square itself, or 1.
    """
    usual = usual_return_scale(env_id)
    if usual is not None:
        return usual, (0.0, 0.0)
    return units_of_returns(returns_to_go, episode_starts)


def usual_return_scale(env_id: str | None) -> float | None:
    """What the paper divides the returns of an environment by; None where it says nothing."""
    row = ENVIRONMENTS.get(env_id or "")
    return row.return_scale if row else None


def usual_target_returns(env_id: str | None) -> tuple[float, ...]:
    """Returns that are usually asked for in an environment; empty where there are none."""
    row = ENVIRONMENTS.get(env_id or "")
    return row.target_returns if row else ()


def _floats(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(value) for value in values)

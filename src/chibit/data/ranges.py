"""What each dimension of observations and actions holds: its name in the source, its range, what is far out.

Dimensions: N steps · D dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from chibit.core.formatting import count, format_number, listed
from chibit.data.dataset import TrajectoryDataset
from chibit.data.statistics import RunningMoments, blocks_of

MOST_DIMENSIONS = 1000
"""Of each kind that are listed."""
_FAR = 10.0
"""Ranges of all other values, beyond which one is far from them."""
_FEWEST = 20
_MOST = 10
_REWARD = "reward within episodes"


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """One number of an observation, or of a continuous action."""

    what: str
    """observation or action."""
    index: int
    """From 0."""
    name: str
    """In the source; empty where it has none."""
    min: float
    mean: float
    max: float


class _Extremes(NamedTuple):
    """Of (N, D) columns: the least and largest values, how many there are, and the range of all others."""

    low: np.ndarray
    high: np.ndarray
    num_low: np.ndarray
    num_high: np.ndarray
    next_low: np.ndarray
    next_high: np.ndarray


def dimensions(dataset: TrajectoryDataset) -> tuple[Dimension, ...]:
    """The range of each dimension; none of pictures and of choices."""
    found = []
    for what, columns, offset in _parts(dataset):
        columns = columns[:, :MOST_DIMENSIONS]
        low, high = columns.min(axis=0), columns.max(axis=0)
        mean = RunningMoments.of(columns).mean
        for i, values in enumerate(zip(low, mean, high, strict=True)):
            ends = dict(zip(("min", "mean", "max"), (float(v) + offset[i] for v in values), strict=True))
            found.append(Dimension(what=what, index=i, name=_name(dataset, what, i), **ends))
    return tuple(found)


def named(dataset: TrajectoryDataset, what: str, numbers: tuple[int, ...]) -> str:
    """``1 temp, 2, 5``, ten at most."""
    return listed((f"{i} {_name(dataset, what, i)}".strip() for i in numbers), _MOST)


def far_out(dataset: TrajectoryDataset) -> Iterator[str]:
    """Note values that are far outside all others of their dimension, as -9999 for a missing one is."""
    for what, columns, offset in (*_parts(dataset), *_rewards(dataset)):
        if len(columns) < _FEWEST:
            continue
        found = _extremes(columns[:, :MOST_DIMENSIONS])
        room = _FAR * (found.next_high - found.next_low)
        is_few = 2 * (found.num_low + found.num_high) < len(columns)
        is_low = is_few & (room > 0) & (found.next_low - found.low > room)
        is_high = is_few & (room > 0) & (found.high - found.next_high > room)
        wrong = np.flatnonzero(is_low | is_high)
        for i in wrong[:_MOST].tolist():
            value, number = (found.low, found.num_low) if is_low[i] else (found.high, found.num_high)
            rest = (found.next_low if is_low[i] else found.low, found.next_high if is_high[i] else found.high)
            shown = [format_number(float(v[i]) + offset[i]) for v in (value, *rest)]
            name = _name(dataset, what, i)
            place = "" if what == _REWARD else f" dimension {i}{f' ({name})' if name else ''}"
            yield (
                f"{what}{place} is {shown[0]} at "
                f"{count(int(number[i]), 'step')}, far outside all others ({shown[1]} to {shown[2]}): mend "
                "it, or leave the episode out, where it stands for a missing value"
            )
        if len(wrong) > _MOST:
            yield f"{len(wrong) - _MOST:,} more {what} dimensions have values far outside all others"


def _parts(dataset: TrajectoryDataset) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Observations and continuous actions as (N, D) columns, with what is to be added to each."""
    spec = dataset.spec
    if not spec.image_shape:
        offset = np.array(spec.state_offset) if spec.state_offset else np.zeros(spec.state_dim)
        yield "observation", dataset.centered_observations, offset
    if not dataset.is_discrete:
        yield "action", dataset.actions, np.zeros(spec.act_dim)


def _rewards(dataset: TrajectoryDataset) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Rewards of a log likewise, but those of ends: a crash may well cost more than all else."""
    if dataset.spec.env_id is None:
        is_end = dataset.terminations | dataset.truncations
        yield _REWARD, dataset.rewards[~is_end][:, None], np.zeros(1)


def _extremes(columns: np.ndarray) -> _Extremes:
    low, high = columns.min(axis=0), columns.max(axis=0)
    num_low, num_high = np.zeros((2, len(low)), np.int64)
    next_low, next_high = np.full(len(low), np.inf), np.full(len(low), -np.inf)
    for block in blocks_of(columns):
        is_low, is_high = block == low, block == high
        num_low += is_low.sum(axis=0)
        num_high += is_high.sum(axis=0)
        outer = is_low | is_high
        np.minimum(next_low, np.where(outer, np.inf, block).min(axis=0), out=next_low)
        np.maximum(next_high, np.where(outer, -np.inf, block).max(axis=0), out=next_high)
    has_rest = next_low <= next_high
    rest = (np.where(has_rest, ends, 0.0) for ends in (next_low, next_high))
    return _Extremes(low, high, num_low, num_high, *rest)


def _name(dataset: TrajectoryDataset, what: str, index: int) -> str:
    names = dataset.spec.action_names if what == "action" else dataset.spec.observation_names
    return names[index][:40] if names else ""

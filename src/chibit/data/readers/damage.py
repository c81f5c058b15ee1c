"""Episodes with values that are no numbers, left out where the user asks for it."""

from __future__ import annotations

import numpy as np

from chibit.core.errors import InputError
from chibit.data.dataset import returns_to_go
from chibit.data.readers.recording import MOST, Recording, keep_episodes, left_out


def without_damaged(recording: Recording, where: str) -> Recording:
    """Leave out episodes that a store refuses for a value, as NaN, infinite or too large, and note it.

    Raises:
        InputError: if none is left.
    """
    starts = recording.episode_starts
    is_damaged = ~_is_finite(recording.rewards) | ~_is_finite(returns_to_go(recording.rewards, starts))
    first = 0
    for block in recording.blocks():
        rows = slice(first, first + len(block.actions))
        for values in (block.observations, block.actions, block.next_observations):
            if values is not None and values.dtype.kind == "f":
                is_damaged[rows] |= ~_is_finite(values.reshape(len(values), -1)).all(axis=1)
        first = rows.stop
    is_kept = ~np.logical_or.reduceat(is_damaged, starts[:-1])
    lengths = np.diff(starts)
    if not is_kept.any():
        raise InputError(
            f"{where}: all {len(lengths):,} episodes have values that are not finite; repair the data"
        )
    reasons = {"values that are not finite": len(lengths) - int(is_kept.sum())}
    return keep_episodes(recording, is_kept, *left_out(reasons, len(lengths)))


def _is_finite(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return np.abs(values.astype(np.float32)) <= MOST

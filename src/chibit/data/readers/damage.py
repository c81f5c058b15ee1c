"""Episodes with values that are no numbers, left out where the user asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from chibit.core.errors import InputError
from chibit.data.readers.recording import Block, Recording


def without_damaged(recording: Recording, where: str) -> Recording:
    """Leave out episodes in which a value is NaN, infinite or too large for single precision, and note it.

    Raises:
        InputError: if none is left.
    """
    starts = recording.episode_starts
    is_damaged = ~_is_finite(recording.rewards)
    first = 0
    for block in recording.blocks():
        rows = slice(first, first + len(block.actions))
        for values in (block.observations, block.actions, block.next_observations):
            if values is not None and values.dtype.kind == "f":
                is_damaged[rows] |= ~_is_finite(values.reshape(len(values), -1)).all(axis=1)
        first = rows.stop
    is_kept = ~np.logical_or.reduceat(is_damaged, starts[:-1])
    lengths = np.diff(starts)
    if is_kept.all():
        return recording
    if not is_kept.any():
        raise InputError(
            f"{where}: all {len(lengths):,} episodes have values that are not finite; repair the data"
        )
    rows_kept = np.repeat(is_kept, lengths)

    def blocks() -> Iterator[Block]:
        first = 0
        for block in recording.blocks():
            keep = rows_kept[first : first + len(block.actions)]
            first += len(keep)
            if keep.any():
                following = block.next_observations
                yield Block(
                    observations=block.observations[keep],
                    actions=block.actions[keep],
                    next_observations=None if following is None else following[keep],
                )

    note = (
        f"left out {len(lengths) - is_kept.sum():,} of {len(lengths):,} episodes: values that are not finite"
    )
    return replace(
        recording,
        rewards=recording.rewards[rows_kept],
        episode_starts=np.concatenate([[0], np.cumsum(lengths[is_kept])]).astype(np.int64),
        episode_ends=recording.episode_ends[is_kept],
        blocks=blocks,
        notes=(*recording.notes, note),
    )


def _is_finite(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return np.isfinite(values.astype(np.float32))

"""A store of played Atari games: written episode by episode, each picture once.

Pictures go to the disk as they come; only actions and rewards, a few bytes a step, are held until the end.

Dimensions: T steps of an episode · N steps in all · E episodes · H height · W width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np

from chibit.core.errors import InputError
from chibit.core.files import atomic_folder, create
from chibit.data.environment import check_environment
from chibit.data.readers.origin import Origin
from chibit.data.readers.recording import BLOCK_ROWS, Block, Recording
from chibit.data.store import FRAMES, fill_store
from chibit.environments.atari import IMAGE_SHAPE

_HEADER_BYTES = 128


@dataclass(frozen=True, eq=False)
class FrameEpisode:
    """A piece of play, from the first picture of a game to its last."""

    frames: np.ndarray
    """(T, H, W) uint8: what was seen when each action was chosen."""
    actions: np.ndarray
    """(T,) numbers of the game's minimal action set."""
    rewards: np.ndarray
    """(T,) raw."""
    terminated: bool
    """Whether the game was over; otherwise it was cut."""


@dataclass
class _Columns:
    """What is known of the episodes beside their pictures."""

    actions: list[np.ndarray] = field(default_factory=list)
    rewards: list[np.ndarray] = field(default_factory=list)
    terminated: list[bool] = field(default_factory=list)


def write_frame_store(
    folder: Path, episodes: Iterable[FrameEpisode], origin: Origin, *, notes: Iterable[str] = ()
) -> Path:
    """Write a store; the folder appears when it is whole.

    Args:
        folder: where it is to be.
        episodes: taken one at a time.
        origin: what is known of them.
        notes: one sentence each; read after the last episode.

    Returns:
        `folder`.

    Raises:
        InputError: if there is no episode, or an action is not one of the environment's.
    """
    with atomic_folder(folder) as temporary:
        with create(temporary / f"{FRAMES}.npy") as file:
            columns = _write_frames(file, episodes)
        if not columns.actions:
            raise InputError(f"{origin.name}: no whole episode; give more data")
        recording = _recording(columns, tuple(notes))
        fill_store(temporary, recording, check_environment(origin, recording, origin.name))
    return folder


def _write_frames(file: IO[bytes], episodes: Iterable[FrameEpisode]) -> _Columns:
    """Write the pictures as one .npy array, whose header comes last: only then is its length known."""
    columns, count = _Columns(), 0
    file.write(bytes(_HEADER_BYTES))
    for episode in episodes:
        file.write(np.ascontiguousarray(episode.frames).data)
        columns.actions.append(np.array(episode.actions, np.int64))
        columns.rewards.append(np.array(episode.rewards, np.float32))
        columns.terminated.append(episode.terminated)
        count += len(episode.frames)
    file.seek(0)
    shape = (count, *IMAGE_SHAPE[1:])
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    assert file.tell() == _HEADER_BYTES
    return columns


def _recording(columns: _Columns, notes: tuple[str, ...]) -> Recording:
    actions, rewards = np.concatenate(columns.actions)[:, None], np.concatenate(columns.rewards)
    terminated = np.array(columns.terminated)

    def blocks() -> Iterator[Block]:
        for start in range(0, len(actions), BLOCK_ROWS):
            chosen = actions[start : start + BLOCK_ROWS]
            yield Block(observations=np.empty((len(chosen), 0)), actions=chosen, next_observations=None)

    return Recording(
        rewards=rewards,
        episode_starts=np.cumsum([0, *map(len, columns.actions)]),
        episode_ends=np.stack([terminated, ~terminated], axis=1),
        state_dim=0,
        num_action_columns=1,
        is_discrete=True,
        has_next_observations=False,
        blocks=blocks,
        notes=notes,
        image_shape=IMAGE_SHAPE,
    )

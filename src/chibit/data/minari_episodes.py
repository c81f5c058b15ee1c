"""Steps of a Minari data set, episode by episode (Younis et al., 2024).

An episode has one more observation than actions. Dictionary observations become one vector, their parts in
alphabetical order, as `gymnasium.wrappers.FlattenObservation` gives them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from chibit.core.errors import DamagedFileError, InputError
from chibit.data.hdf5 import Hdf5Column, is_group, names, subgroup
from chibit.data.limits import check_declared_size
from chibit.data.recording import (
    BLOCK_ROWS,
    Block,
    Column,
    Recording,
    check_actions,
    check_observations,
    find_episodes,
    read_flags,
    read_rewards,
)

_MAX_DEPTH = 4  # of nested dictionary observations


@dataclass(frozen=True, eq=False)
class MinariEpisode:
    """Columns of one episode of T steps, not yet read."""

    observations: Sequence[Column]
    """Each (T + 1, width): the parts of an observation, side by side."""
    actions: Column
    """(T, A), or (T,) where actions are discrete."""
    rewards: Column
    terminations: Column
    truncations: Column


@dataclass(frozen=True)
class _Layout:
    """What all episodes must share."""

    widths: tuple[int, ...]
    num_action_columns: int
    is_discrete: bool


def hdf5_episodes(file: h5py.File, path: Path) -> tuple[int, Callable[[int], MinariEpisode]]:
    """Find the episodes of an open Minari file.

    Args:
        file: main_data.hdf5.
        path: its path, for messages.

    Returns:
        Their number, and a function that opens one. Nothing stays open behind it: HDF5 keeps a cache for each
        open array.

    Raises:
        DamagedFileError: if episodes are missing in between.
    """
    numbers = {name for name in names(file, path) if name.startswith("episode_")}
    wanted = {f"episode_{index}" for index in range(len(numbers))}
    if numbers != wanted:
        missing = min(wanted - numbers, key=lambda name: int(name.removeprefix("episode_")))
        raise DamagedFileError(f"{path}: {missing} is missing; copy or download the data set again")

    def open_episode(index: int) -> MinariEpisode:
        group = subgroup(file, f"episode_{index}", path)
        present = set(names(group, path))
        for name in ("observations", "actions", "rewards", "terminations", "truncations"):
            if name not in present:
                raise InputError(f"{path}: episode_{index} has no {name}; found {', '.join(sorted(present))}")
        if is_group(group, "actions", path):
            raise InputError(
                f"{path}: actions are dictionaries or tuples; expected vectors or single integers"
            )
        return MinariEpisode(
            observations=_leaves(group, "observations", path),
            **{
                name: Hdf5Column(group, name, path)
                for name in ("actions", "rewards", "terminations", "truncations")
            },
        )

    return len(numbers), open_episode


def array_episode(episode: Mapping[str, Any], path: Path) -> MinariEpisode:
    """Take an episode as Minari's own reader gives it.

    Args:
        episode: observations (an array, or dictionaries of arrays), actions, rewards, terminations,
            truncations.
        path: the data set, for messages.
    """
    return MinariEpisode(
        observations=[_numeric(part, "observations", path) for part in _flat_parts(episode["observations"])],
        actions=_numeric(episode["actions"], "actions", path),
        rewards=_numeric(episode["rewards"], "rewards", path),
        terminations=_numeric(episode["terminations"], "terminations", path),
        truncations=_numeric(episode["truncations"], "truncations", path),
    )


def record_episodes(count: int, open_episode: Callable[[int], MinariEpisode], path: Path) -> Recording:
    """Make a recording of episodes: rewards and ends are read now, the rest when the store asks for it.

    Args:
        count: number of episodes.
        open_episode: gives one by its number.
        path: the file, for messages.

    Raises:
        InputError: if an episode's columns do not fit together, or it differs in shape from the others.
        DamagedFileError: if the file cannot be read or trusted.
    """
    rewards, terminations, truncations = [], [], []
    layout: _Layout | None = None
    kept: list[int] = []
    num_unmarked = declared = 0
    for index in range(count):
        where = f"{path}: episode_{index}"
        episode = open_episode(index)
        declared += _declared_bytes(episode)
        check_declared_size(path, declared, path.stat().st_size if path.is_file() else declared)
        num_steps = _check_lengths(episode, where)
        if num_steps == 0:
            continue
        found = _layout(episode, where)
        if layout is not None and found != layout:
            raise InputError(f"{where}: observations or actions differ in shape from earlier episodes")
        layout = found
        ends = [read_flags(column, where) for column in (episode.terminations, episode.truncations)]
        if not (ends[0][-1] or ends[1][-1]):
            ends[1] = ends[1].copy()
            ends[1][-1] = True
            num_unmarked += 1
        kept.append(index)
        rewards.append(read_rewards(episode.rewards, where))
        terminations.append(ends[0])
        truncations.append(ends[1])
    if layout is None:
        raise InputError(f"{path}: no episode has any steps")
    starts, flags, _ = find_episodes(np.concatenate(terminations), np.concatenate(truncations), str(path))
    notes = []
    if len(kept) < count:
        notes.append(f"left out {count - len(kept)} of {count} episodes: they have no steps")
    if num_unmarked:
        notes.append(f"{num_unmarked} of {len(kept)} episodes have no mark at their end: taken as truncated")
    if len(starts) - 1 > len(kept):
        notes.append(f"{len(kept)} logged episodes are {len(starts) - 1}: some end and go on")
    return Recording(
        rewards=np.concatenate(rewards),
        episode_starts=starts,
        episode_ends=flags,
        state_dim=sum(layout.widths),
        num_action_columns=layout.num_action_columns,
        is_discrete=layout.is_discrete,
        has_next_observations=True,
        blocks=lambda: _merged(_blocks(kept, open_episode)),
        notes=tuple(notes),
    )


def _blocks(kept: Iterable[int], open_episode: Callable[[int], MinariEpisode]) -> Iterator[Block]:
    for index in kept:
        episode = open_episode(index)
        parts = [_rows(column) for column in episode.observations]
        observations = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        yield Block(observations[:-1], _rows(episode.actions), observations[1:])


def _merged(blocks: Iterable[Block]) -> Iterator[Block]:
    """Join small blocks, so that thousands of short episodes do not pay for thousands of operations."""
    waiting: list[Block] = []
    for block in blocks:
        waiting.append(block)
        if sum(len(b.observations) for b in waiting) >= BLOCK_ROWS // 4:
            yield _join(waiting)
            waiting = []
    if waiting:
        yield _join(waiting)


def _join(blocks: Sequence[Block]) -> Block:
    return Block(
        np.concatenate([block.observations for block in blocks]),
        np.concatenate([block.actions for block in blocks]),
        np.concatenate([block.next_observations for block in blocks if block.next_observations is not None]),
    )


def _rows(column: Column) -> np.ndarray:
    values = np.asarray(column[0 : column.shape[0]])
    return values[:, None] if values.ndim == 1 else values


def _layout(episode: MinariEpisode, where: str) -> _Layout:
    widths = tuple(check_observations(part.shape, where) for part in episode.observations)
    return _Layout(widths, *check_actions(episode.actions.shape, episode.actions.dtype, where))


def _check_lengths(episode: MinariEpisode, where: str) -> int:
    columns = {"rewards": episode.rewards, "actions": episode.actions}
    columns |= {"terminations": episode.terminations, "truncations": episode.truncations}
    lengths = {name: column.shape[0] if column.shape else 0 for name, column in columns.items()}
    num_steps = lengths["rewards"]
    observed = {part.shape[0] if part.shape else 0 for part in episode.observations}
    if set(lengths.values()) != {num_steps} or (num_steps and observed != {num_steps + 1}):
        listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise InputError(
            f"{where}: columns differ in length (observations {max(observed, default=0)}, {listed}); "
            "expected as many of each, and one observation more"
        )
    return num_steps


def _declared_bytes(episode: MinariEpisode) -> int:
    columns = [*episode.observations, episode.actions, episode.rewards]
    return sum(int(np.prod(column.shape, dtype=object)) * column.dtype.itemsize for column in columns)


def _leaves(group: h5py.Group, name: str, path: Path, depth: int = 0) -> list[Column]:
    if not is_group(group, name, path):
        return [Hdf5Column(group, name, path)]
    inner = subgroup(group, name, path)
    members = sorted(names(inner, path))
    if depth == _MAX_DEPTH or not members or members[0].startswith("_index_"):
        raise InputError(
            f"{path}: observations are tuples or deeply nested; expected vectors or dictionaries"
        )
    return [leaf for member in members for leaf in _leaves(inner, member, path, depth + 1)]


def _flat_parts(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return [part for key in sorted(value) for part in _flat_parts(value[key])]
    return [value]


def _numeric(value: Any, name: str, path: Path) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise InputError(f"{path}: {name} have type {array.dtype}; expected plain numbers")
    return array

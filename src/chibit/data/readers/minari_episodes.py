"""Steps of a Minari data set, episode by episode (Younis et al., 2024).

An episode has one more observation than actions. Dictionary observations become one vector, their parts in
alphabetical order and discrete ones as one-hot vectors, as `gymnasium.wrappers.FlattenObservation` gives
them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from chibit.core.errors import DamagedFileError, InputError
from chibit.data.readers.columns import Column
from chibit.data.readers.hdf5 import Hdf5Column, Hdf5Group
from chibit.data.readers.recording import (
    BLOCK_ROWS,
    Block,
    Recording,
    check_actions,
    check_observations,
    declared_bytes,
    find_episodes,
    read_flags,
    read_matrix,
    read_rewards,
)
from chibit.data.readers.size_limits import check_declared_size, memory_budget

_COLUMNS = ("actions", "rewards", "terminations", "truncations")
MAX_DEPTH = 4
"""Dictionary observations may be nested so deep."""


class MinariEpisode(Protocol):
    """Columns of one episode of T steps."""

    def observations(self) -> list[Column]:
        """Parts of an observation, to be put side by side, each (T + 1, width)."""
        ...

    def column(self, name: str) -> Column:
        """Actions (T, A) or (T,), rewards (T,), terminations (T,) or truncations (T,)."""
        ...


@dataclass(frozen=True)
class _Layout:
    """What all episodes must share."""

    widths: tuple[int, ...]
    num_action_columns: int
    is_discrete: bool


@dataclass(frozen=True)
class Categories:
    """Discrete parts of an observation: one column for each, with its number of values and the least."""

    counts: tuple[int, ...]
    starts: tuple[int, ...]


@dataclass(frozen=True)
class OneHotColumn:
    """Discrete observations as one-hot vectors, side by side."""

    column: Column
    """(T,) or (T, parts) whole numbers."""
    categories: Categories
    where: str

    @property
    def shape(self) -> tuple[int, ...]:
        """(T, width)."""
        return (*self.column.shape[:1], sum(self.categories.counts))

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of 0 and 1."""
        return np.dtype(np.uint8)

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Read rows.

        Raises:
            InputError: if a value is none of its categories.
        """
        values = np.asarray(self.column[rows])
        counts, starts = np.array(self.categories.counts), np.array(self.categories.starts)
        if math.prod(values.shape[1:]) != len(counts):
            raise InputError(
                f"{self.where}: observations have shape {values.shape}, the observation space has "
                f"{len(counts)} discrete parts"
            )
        numbers = values.reshape(len(values), len(counts)) - starts
        wrong = np.argwhere((numbers < 0) | (numbers >= counts) | (numbers != np.floor(numbers)))
        if len(wrong):
            row, part = wrong[0].tolist()
            place, low = (rows.start or 0) + row, starts[part]
            found, high = numbers[row, part] + low, low + counts[part] - 1
            raise InputError(
                f"{self.where}: observation {place} is {found}, expected a whole number from {low} to {high}"
            )
        encoded = np.zeros((len(values), int(counts.sum())), np.uint8)
        offsets = np.cumsum(counts) - counts
        np.put_along_axis(encoded, (numbers + offsets).astype(np.int64), 1, axis=1)
        return encoded


@dataclass(frozen=True)
class EncodedEpisode:
    """An episode whose discrete observations are one-hot vectors."""

    episode: MinariEpisode
    parts: tuple[Categories | None, ...]
    """Of each part of an observation, in order; None where it is numbers already."""
    where: str

    def observations(self) -> list[Column]:
        """Give the parts of observations.

        Raises:
            InputError: if they are not those of the observation space.
        """
        columns = self.episode.observations()
        if len(columns) != len(self.parts):
            raise InputError(
                f"{self.where}: observations have {len(columns)} parts, their space has {len(self.parts)}"
            )
        return [
            column if categories is None else OneHotColumn(column, categories, self.where)
            for column, categories in zip(columns, self.parts, strict=True)
        ]

    def column(self, name: str) -> Column:
        """Give another column."""
        return self.episode.column(name)


class Hdf5Episode:
    """An episode in a file of Minari's own form, HDF5."""

    def __init__(self, group: Hdf5Group, where: str) -> None:
        """Wrap the group of an episode; `where` is for messages."""
        self._group = group
        self._where = where

    def observations(self) -> list[Column]:
        """Open the parts of observations."""
        return _leaves(self._group.member("observations"), self._where)

    def column(self, name: str) -> Column:
        """Open another column."""
        member = self._group.member(name)
        if isinstance(member, Hdf5Group):
            kind = "dictionaries or tuples; expected vectors or integers"
            raise InputError(f"{self._where}: {name} are {kind}")
        return member


class ArrayEpisode:
    """An episode as Minari's own reader gives it, for its other forms."""

    def __init__(self, episode: Mapping[str, Any], where: str) -> None:
        """Wrap observations (an array, or dictionaries of arrays), actions, rewards and flags."""
        self._episode = episode
        self._where = where

    def observations(self) -> list[Column]:
        """Give the parts of observations."""
        return [self._numeric(part, "observations") for part in _flat_parts(self._episode["observations"])]

    def column(self, name: str) -> Column:
        """Give another column."""
        return self._numeric(self._episode[name], name)

    def _numeric(self, value: Any, name: str) -> np.ndarray:
        array = np.asarray(value)
        if array.dtype.kind not in "fiub":
            raise InputError(f"{self._where}: {name} have type {array.dtype}; expected plain numbers")
        return array


def hdf5_episodes(file: Hdf5Group, path: Path) -> tuple[int, Callable[[int], Hdf5Episode]]:
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
    numbers = {name for name in file.names() if name.startswith("episode_")}
    wanted = {f"episode_{index}" for index in range(len(numbers))}
    if numbers != wanted:
        missing = min(wanted - numbers, key=lambda name: int(name.removeprefix("episode_")))
        raise DamagedFileError(f"{path}: {missing} is missing; copy or download the data set again")

    def open_episode(index: int) -> Hdf5Episode:
        return Hdf5Episode(file.group(f"episode_{index}"), f"{path}: episode_{index}")

    return len(numbers), open_episode


def record_episodes(count: int, open_episode: Callable[[int], MinariEpisode], path: Path) -> Recording:
    """Make a recording of episodes: rewards and ends are read now, the rest when the store asks for it.

    Args:
        count: number of episodes.
        open_episode: gives one by its number.
        path: the file, for messages.

    Raises:
        InputError: if an episode's columns do not fit together, or it differs in shape from the others.
    """
    found = _Ends()
    declared = 0
    stored = path.stat().st_size if path.is_file() else memory_budget()
    for index in range(count):
        where = f"{path}: episode_{index}"
        episode = open_episode(index)
        parts = episode.observations()
        columns = {name: episode.column(name) for name in _COLUMNS}
        declared += sum(
            declared_bytes(
                column.column if isinstance(column, OneHotColumn) else column
            )  # as the file has it
            for column in (*parts, *columns.values())
        )
        check_declared_size(path, declared, stored)
        if _check_lengths(parts, columns, where) > 0:
            found.add(index, _layout(parts, columns["actions"], where), columns, where)
    if found.layout is None:
        raise InputError(f"{path}: no episode has any steps")
    starts, flags, _ = find_episodes(
        np.concatenate(found.terminations), np.concatenate(found.truncations), str(path)
    )
    return Recording(
        rewards=np.concatenate(found.rewards),
        episode_starts=starts,
        episode_ends=flags,
        state_dim=sum(found.layout.widths),
        num_action_columns=found.layout.num_action_columns,
        is_discrete=found.layout.is_discrete,
        has_next_observations=True,
        blocks=lambda: _merged(_blocks(found.kept, open_episode)),
        notes=found.notes(count, len(starts) - 1),
    )


class _Ends:
    """Rewards and ends of the episodes that have steps."""

    def __init__(self) -> None:
        self.layout: _Layout | None = None
        self.kept: list[int] = []
        self.rewards: list[np.ndarray] = []
        self.terminations: list[np.ndarray] = []
        self.truncations: list[np.ndarray] = []
        self._num_unmarked = 0

    def add(self, index: int, layout: _Layout, columns: Mapping[str, Column], where: str) -> None:
        """Read one episode's; InputError if it differs in shape from those before."""
        if self.layout is not None and layout != self.layout:
            raise InputError(f"{where}: observations or actions differ in shape from earlier episodes")
        self.layout = layout
        terminations = read_flags(columns["terminations"], where)
        truncations = read_flags(columns["truncations"], where).copy()
        if not (terminations[-1] or truncations[-1]):
            truncations[-1] = True
            self._num_unmarked += 1
        self.kept.append(index)
        self.rewards.append(read_rewards(columns["rewards"], where))
        self.terminations.append(terminations)
        self.truncations.append(truncations)

    def notes(self, num_logged: int, num_episodes: int) -> tuple[str, ...]:
        """Say what differs from the file: `num_logged` episodes there, `num_episodes` in the recording."""
        notes = []
        num_kept = len(self.kept)
        if num_kept < num_logged:
            notes.append(f"left out {num_logged - num_kept} of {num_logged} episodes: they have no steps")
        if self._num_unmarked:
            unmarked = f"{self._num_unmarked} of {num_kept} episodes"
            notes.append(f"{unmarked} have no mark at their end: taken as truncated")
        if num_episodes > num_kept:
            notes.append(f"{num_kept} logged episodes are {num_episodes}: some end and go on")
        return tuple(notes)


def _blocks(kept: Iterable[int], open_episode: Callable[[int], MinariEpisode]) -> Iterator[Block]:
    for index in kept:
        episode = open_episode(index)
        parts = [read_matrix(column) for column in episode.observations()]
        observations = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        yield Block(observations[:-1], read_matrix(episode.column("actions")), observations[1:])


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


def _layout(parts: Sequence[Column], actions: Column, where: str) -> _Layout:
    widths = tuple(check_observations(part.shape, where) for part in parts)
    return _Layout(widths, *check_actions(actions.shape, actions.dtype, where))


def _check_lengths(parts: Sequence[Column], columns: Mapping[str, Column], where: str) -> int:
    lengths = {name: column.shape[0] if column.shape else 0 for name, column in columns.items()}
    num_steps = lengths["rewards"]
    observed = {part.shape[0] if part.shape else 0 for part in parts}
    if set(lengths.values()) != {num_steps} or (num_steps and observed != {num_steps + 1}):
        listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise InputError(
            f"{where}: columns differ in length (observations {max(observed, default=0)}, {listed}); "
            "expected as many of each, and one observation more"
        )
    return num_steps


def _leaves(member: Hdf5Group | Hdf5Column, where: str, depth: int = 0) -> list[Column]:
    if isinstance(member, Hdf5Column):
        return [member]
    names = sorted(member.names())
    if depth == MAX_DEPTH or not names or names[0].startswith("_index_"):
        raise InputError(
            f"{where}: observations are tuples or deeply nested; expected vectors or dictionaries"
        )
    return [leaf for name in names for leaf in _leaves(member.member(name), where, depth + 1)]


def _flat_parts(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return [part for key in sorted(value) for part in _flat_parts(value[key])]
    return [value]

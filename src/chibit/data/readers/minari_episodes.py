"""Steps of a Minari data set, episode by episode (Younis et al., 2024).

An episode has one more observation than actions. How the parts of an observation are read is in
`minari_spaces.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from chibit.core.errors import DamagedFileError, InputError
from chibit.data.readers.columns import Column
from chibit.data.readers.hdf5 import Hdf5Column, Hdf5Group
from chibit.data.readers.hdf5 import texts as read_texts
from chibit.data.readers.minari_spaces import (
    MAX_DEPTH,
    Categories,
    Numbers,
    OneHotColumn,
    Part,
    Picture,
    Text,
    from_zero,
)
from chibit.data.readers.recording import (
    BLOCK_ROWS,
    Block,
    Recording,
    check_actions,
    check_observations,
    declared_bytes,
    find_episodes,
    left_out,
    read_flags,
    read_matrix,
    read_rewards,
)
from chibit.data.readers.size_limits import check_declared_size, memory_budget

_COLUMNS = ("actions", "rewards", "terminations", "truncations")
_MAX_MISSION = 1000  # letters


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


class SpacedEpisode:
    """An episode whose columns are read as the data set's spaces say."""

    def __init__(
        self, episode: MinariEpisode, parts: tuple[Part, ...], first_action: int, where: str
    ) -> None:
        """Wrap an episode.

        Args:
            episode: its columns as they are stored.
            parts: of an observation, in order.
            first_action: number of the first discrete action.
            where: for messages.
        """
        self._episode, self._parts = episode, parts
        self._first_action, self._where = first_action, where

    def _stored(self) -> list[tuple[Part, Column]]:
        columns = self._episode.observations()
        if len(columns) != len(self._parts):
            raise InputError(
                f"{self._where}: observations have {len(columns)} parts, their space has {len(self._parts)}"
            )
        return list(zip(self._parts, columns, strict=True))

    def observations(self) -> list[Column]:
        """Give the parts that are numbers, as vectors.

        Raises:
            InputError: if they are not those of the observation space.
        """
        return [
            part.view(column, self._where)
            for part, column in self._stored()
            if isinstance(part, Numbers | Categories)
        ]

    def pictures(self) -> Column:
        """Give the one part that is pictures."""
        return next(
            part.view(column, self._where) for part, column in self._stored() if isinstance(part, Picture)
        )

    def mission(self) -> tuple[str, bool]:
        """Give the text that the episode begins with, and whether it stays the same."""
        found = [read_texts(column) for part, column in self._stored() if isinstance(part, Text)]
        first = " ".join(texts[0] for texts in found if texts)
        return first, all(len(set(texts)) == 1 for texts in found)

    def column(self, name: str) -> Column:
        """Give another column."""
        column = self._episode.column(name)
        if name != "actions":
            return column
        if self._first_action and column.dtype.kind in "iu":
            return from_zero(column, self._first_action)
        return Numbers((name,), column.shape[1:]).view(column, self._where)


class Hdf5Episode:
    """An episode in a file of Minari's own form, HDF5."""

    def __init__(self, group: Hdf5Group, where: str) -> None:
        """Wrap the group of an episode; `where` is for messages."""
        self._group = group
        self._where = where

    def observations(self) -> list[Column]:
        """Open the parts of observations."""
        return _leaves(self._group, "observations", self._where)

    def column(self, name: str) -> Column:
        """Open another column."""
        member = self._group.member(name)
        if isinstance(member, Hdf5Group):
            raise InputError(
                f"{self._where}: {name} are dictionaries or tuples; expected vectors or integers"
            )
        return member


class ArrayEpisode:
    """An episode as Minari's own reader gives it, for its other forms."""

    def __init__(self, episode: Mapping[str, Any], where: str) -> None:
        """Wrap observations (an array, or dictionaries of arrays), actions, rewards and flags."""
        self._episode = episode
        self._where = where

    def observations(self) -> list[Column]:
        """Give the parts of observations."""
        parts = map(np.asarray, _flat_parts(self._episode["observations"]))
        return [part if part.dtype.kind == "U" else self._numeric(part, "observations") for part in parts]

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


def record_episodes(
    count: int,
    open_episode: Callable[[int], MinariEpisode],
    path: Path,
    parts: tuple[Part, ...],
    first_action: int = 0,
    *,
    skip_damaged: bool = False,
) -> Recording:
    """Make a recording of episodes: rewards and ends are read now, the rest when the store asks for it.

    Args:
        count: number of episodes.
        open_episode: gives one by its number.
        path: the file, for messages.
        parts: of an observation.
        first_action: number of the first discrete action.
        skip_damaged: leave out episodes that do not fit.

    Raises:
        InputError: if an episode's columns do not fit together, or it differs in shape from the others.
    """

    def open_spaced(index: int) -> SpacedEpisode:
        return SpacedEpisode(open_episode(index), parts, first_action, f"{path}: episode_{index}")

    kinds = _Kinds(parts, path)
    found = _Ends(kinds, path)
    damages: list[InputError | DamagedFileError] = []
    for index in range(count):
        try:
            found.add(index, open_spaced(index), f"{path}: episode_{index}")
        except (InputError, DamagedFileError) as error:
            if not skip_damaged:
                raise
            damages.append(error)
    if found.layout is None or not found.kept:
        raise damages[0] if damages else InputError(f"{path}: no episode has any steps")
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
        has_next_observations=kinds.picture is None,
        blocks=lambda: _merged(_blocks(found.kept, open_spaced, has_numbers=kinds.picture is None)),
        notes=(*kinds.notes(found.layout), *found.notes(count, len(starts) - 1, len(damages))),
        image_shape=kinds.picture.form.image_shape if kinds.picture else (),
        frames=partial(_frames, kinds.picture, found.kept, open_spaced, path) if kinds.picture else None,
        missions=found.missions_at(starts),
    )


class _Kinds:
    """Which parts of an observation are numbers, pictures and texts."""

    def __init__(self, parts: Sequence[Part], path: Path) -> None:
        self.numbers = [part for part in parts if isinstance(part, Numbers | Categories)]
        pictures = [part for part in parts if isinstance(part, Picture)]
        self.has_text = any(isinstance(part, Text) for part in parts)
        if not self.numbers and len(pictures) != 1:
            raise InputError(
                f"{path}: observations have {len(pictures)} pictures and no numbers; expected numbers or "
                "one picture"
            )
        self.picture = None if self.numbers else pictures[0]
        self._left_out = [part.name for part in pictures] if self.numbers else []

    def notes(self, layout: _Layout) -> Iterator[str]:
        """How observations are put together, and what of them is left out."""
        if self.picture is not None:
            yield self.picture.form.note
        if len(self.numbers) > 1:
            parts = zip(self.numbers, layout.widths, strict=True)
            listed = ", ".join(f"{part.name} ({width})" for part, width in parts)
            yield f"observations are {listed}, side by side in this order"
        if self._left_out:
            yield f"left out pictures: {', '.join(self._left_out)}"


class _Ends:
    """Rewards and ends of the episodes that have steps."""

    def __init__(self, kinds: _Kinds, path: Path) -> None:
        self._path, self._declared = path, 0
        self._stored = path.stat().st_size if path.is_file() else memory_budget()
        self.layout: _Layout | None = None
        self.kept: list[int] = []
        self.rewards: list[np.ndarray] = []
        self.terminations: list[np.ndarray] = []
        self.truncations: list[np.ndarray] = []
        self._kinds = kinds
        self._missions: list[str] = []
        self._num_unmarked = self._num_changing = 0

    def add(self, index: int, episode: SpacedEpisode, where: str) -> None:
        """Read one episode's, where it has any; InputError if it differs in shape from those before."""
        columns = {name: episode.column(name) for name in _COLUMNS}
        observed = [episode.pictures()] if self._kinds.picture else episode.observations()
        self._declared += sum(
            # As the file has it: what is made of it is larger and not held.
            declared_bytes(column.column if isinstance(column, OneHotColumn) else column)
            for column in (*(() if self._kinds.picture else observed), *columns.values())
        )
        check_declared_size(self._path, self._declared, self._stored)
        if _check_lengths(observed, columns, where) == 0:
            return
        widths = () if self._kinds.picture else tuple(check_observations(c.shape, where) for c in observed)
        layout = _Layout(widths, *check_actions(columns["actions"].shape, columns["actions"].dtype, where))
        if self.layout is not None and layout != self.layout:
            raise InputError(f"{where}: observations or actions differ in shape from earlier episodes")
        terminations = read_flags(columns["terminations"], where)
        truncations = read_flags(columns["truncations"], where).copy()
        is_unmarked = not (terminations[-1] or truncations[-1])
        truncations[-1] |= is_unmarked
        rewards = read_rewards(columns["rewards"], where)
        mission, is_constant = episode.mission() if self._kinds.has_text else ("", True)
        # Nothing of it is damaged: only now is it taken in.
        self.layout = layout
        self.kept.append(index)
        self.rewards.append(rewards)
        self.terminations.append(terminations)
        self.truncations.append(truncations)
        self._missions.append(mission[:_MAX_MISSION])
        self._num_unmarked += is_unmarked
        self._num_changing += not is_constant

    def missions_at(self, starts: np.ndarray) -> np.ndarray | None:
        """The text of each episode of a recording that begins at `starts`, (E + 1,)."""
        if not self._kinds.has_text:
            return None
        first = np.cumsum([0, *map(len, self.rewards)])
        return np.array(self._missions)[np.searchsorted(first, starts[:-1], side="right") - 1]

    def notes(self, num_logged: int, num_episodes: int, num_damaged: int) -> tuple[str, ...]:
        """Say what differs from the file: `num_logged` episodes there, `num_episodes` in the recording."""
        num_kept = len(self.kept)
        reasons = {"they have no steps": num_logged - num_kept - num_damaged, "damaged": num_damaged}
        notes = list(left_out(reasons, num_logged))
        if self._num_unmarked:
            unmarked = f"{self._num_unmarked} of {num_kept} episodes"
            notes.append(f"{unmarked} have no mark at their end: taken as truncated")
        if num_episodes > num_kept:
            notes.append(f"{num_kept} logged episodes are {num_episodes}: some end and go on")
        if self._num_changing:
            notes.append(f"the text changes within {self._num_changing} episodes: its first is kept")
        return tuple(notes)


def _blocks(
    kept: Iterable[int], open_episode: Callable[[int], SpacedEpisode], *, has_numbers: bool
) -> Iterator[Block]:
    for index in kept:
        episode = open_episode(index)
        actions = read_matrix(episode.column("actions"))
        if not has_numbers:
            yield Block(np.empty((len(actions), 0), np.float32), actions, None)
            continue
        parts = [read_matrix(column) for column in episode.observations()]
        observations = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        yield Block(observations[:-1], actions, observations[1:])


def _frames(
    picture: Picture, kept: Iterable[int], open_episode: Callable[[int], SpacedEpisode], path: Path
) -> Iterator[np.ndarray]:
    """The newest picture of every step."""
    for index in kept:
        episode = open_episode(index)
        steps = np.array([0, episode.column("rewards").shape[0]])
        yield from picture.form.frames(episode.pictures(), steps, f"{path}: episode_{index}")


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
    following = [block.next_observations for block in blocks if block.next_observations is not None]
    return Block(
        np.concatenate([block.observations for block in blocks]),
        np.concatenate([block.actions for block in blocks]),
        np.concatenate(following) if following else None,
    )


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


def _leaves(group: Hdf5Group, name: str, where: str, depth: int = 0) -> list[Column]:
    """Parts of observations: of dictionaries in alphabetical order, of tuples by their number."""
    member = group.member(name, is_variable=True)
    if isinstance(member, Hdf5Column):
        return [member]
    names = sorted(member.names(), key=_place)
    if depth == MAX_DEPTH or not names:
        raise InputError(f"{where}: observations are empty or nested deeper than {MAX_DEPTH} times")
    return [leaf for each in names for leaf in _leaves(member, each, where, depth + 1)]


def _place(name: str) -> tuple[int, str]:
    number = name.removeprefix("_index_")
    return (int(number) if name.startswith("_index_") and number.isdecimal() else -1, name)


def _flat_parts(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return [part for key in sorted(value) for part in _flat_parts(value[key])]
    if isinstance(value, tuple):
        return [part for each in value for part in _flat_parts(each)]
    return [value]

"""What a reader hands to the store: where episodes begin and end, and the steps in blocks, in order.

Steps come as flat columns (D4RL files, arrays) or episode by episode (Minari); the store sees blocks either
way and never holds more than one of them.

Dimensions: N steps · E episodes · n steps of a block · S state_dim · A act_dim.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from chibit.core.errors import InputError
from chibit.core.formatting import count
from chibit.data.readers.columns import EPISODE, Column, Reading, as_quantities
from chibit.data.readers.pictures import PictureForm

BLOCK_ROWS = 1 << 15
"""Rows of a block of flat columns; 2 MB for Hopper, small enough for the cache and large enough for the disk.
"""


MOST = 1.7e38
"""Largest value of a step: half of what single precision holds, so that differences fit into it too."""


@dataclass(frozen=True, eq=False)
class Block:
    """Consecutive steps, as the source holds them."""

    observations: np.ndarray
    """(n, S)."""
    actions: np.ndarray
    """(n, A), (n, 1) where actions are discrete."""
    next_observations: np.ndarray | None
    """(n, S) what was seen after each action; None where the source does not hold it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Recording:
    """Logged episodes, not yet converted."""

    rewards: np.ndarray
    """(N,) float64 or float32."""
    episode_starts: np.ndarray
    """(E + 1,) int64 first row of each episode, then N."""
    episode_ends: np.ndarray
    """(E, 2) bool termination and truncation."""
    state_dim: int
    """S."""
    num_action_columns: int
    """A, or 1 where actions are discrete."""
    is_discrete: bool
    """Whether actions are integers."""
    has_next_observations: bool
    """Whether blocks hold next observations."""
    blocks: Callable[[], Iterator[Block]]
    """Gives the steps from the first to the last, N in all."""
    image_shape: tuple[int, ...] = ()
    """(C, H, W) where observations are stacks of pictures, which are kept apart: blocks then hold none of
    them, and S is 0."""
    frames: Callable[[], Iterator[np.ndarray]] | None = None
    """Gives the newest picture of each step, (n, H, W) uint8 in blocks, N in all; None where there are none,
    or they are in the store already."""
    missions: np.ndarray | None = None
    """(E,) texts that say what each episode is for; None where there are none."""
    has_bytes: bool = False
    """Whether all observations are whole numbers from 0 to 255, which the store then keeps as bytes."""
    notes: tuple[str, ...] = ()
    """What was decided or left out, one sentence each."""

    @property
    def observation_size(self) -> int:
        """Numbers in an observation."""
        return math.prod(self.image_shape) if self.image_shape else self.state_dim


def declared_bytes(column: Column) -> int:
    """Size in memory, by the source's account."""
    return math.prod(column.shape) * column.dtype.itemsize


def find_episodes(
    terminations: np.ndarray, truncations: np.ndarray, where: str, episode_length: int | None = None
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Cut flat steps into episodes after each termination and each truncation.

    Args:
        terminations: (M,) bool.
        truncations: (M,) bool.
        where: the file or data set, for the message.
        episode_length: steps after which what has no end was cut.

    Returns:
        Starts (E + 1,), ends (E, 2) and notes. Steps after the last end belong to an episode whose return is
        unknown; they are left out, and a note says so.

    Raises:
        InputError: if no step ends an episode.
    """
    last_rows = np.flatnonzero(terminations | truncations)
    if len(last_rows) == 0:
        remedy = "or say of a file which episode a step is of by --columns episode=COLUMN, or cut it by "
        remedy += "--episode-length N"
        if episode_length is not None:
            remedy = f"or cut it after fewer than {episode_length:,} steps by --episode-length"
        steps = f"none of {len(terminations):,} steps ends an episode"
        raise InputError(f"{where}: {steps}; mark terminations or truncations, {remedy}")
    starts = np.concatenate([[0], last_rows + 1]).astype(np.int64)
    ends = np.stack([terminations[last_rows], truncations[last_rows]], axis=1)
    tail = len(terminations) - int(starts[-1])
    notes = (f"left out the last {count(tail, 'step')}: an episode without an end",) if tail else ()
    return starts, ends, notes


def truncate_at_limit(terminations: np.ndarray, limit: int) -> np.ndarray:
    """Mark the steps at which a time limit must have cut an episode, for data that do not record it.

    Args:
        terminations: (M,) bool.
        limit: steps of the longest episode.

    Returns:
        (M,) bool, True on the limit-th step since the last end unless the episode terminated there.
    """
    truncations = np.zeros(len(terminations), bool)
    start = 0
    for end in [*np.flatnonzero(terminations).tolist(), len(terminations)]:
        truncations[start + limit - 1 : end : limit] = True
        start = end + 1
    return truncations


def record_columns(
    columns: Mapping[str, Column],
    *,
    where: str,
    time_limit: int | None = None,
    num_state_columns: int | None = None,
    reading: Reading | None = None,
) -> Recording:
    """Make a recording of flat columns.

    Args:
        columns: observations (M, S), actions (M, A) or (M,), rewards (M,), terminations (M,) and, if known,
            truncations (M,), next_observations (M, S) and episode (M,), which changes where one begins;
            without terminations none was terminated.
        where: the file or data set, for messages.
        time_limit: steps after which an episode was cut, used where there are no truncations.
        num_state_columns: how many observation columns to keep, from the left; None keeps all.
        reading: what the user says: when to cut what has no end, and whether actions are quantities.

    Raises:
        InputError: if columns have other shapes or different lengths, or if no episode ends.
    """
    reading = reading or Reading()
    num_rows = check_lengths(columns, where)
    if reading.continuous_actions:
        columns = {**columns, "actions": as_quantities(columns["actions"])}
    observations = columns["observations"]
    form = PictureForm.of(observations.shape[1:], observations.dtype)
    if form is not None:
        empty = np.empty((num_rows, 0), np.float32)
        columns = {n: c for n, c in columns.items() if n != "next_observations"} | {"observations": empty}
    state_dim = 0 if form else check_observations(observations.shape, where)
    num_action_columns, is_discrete = check_actions(columns["actions"].shape, columns["actions"].dtype, where)
    following = columns.get("next_observations")
    if following is not None and following.shape[1:] != columns["observations"].shape[1:]:
        found, expected = following.shape, columns["observations"].shape
        raise InputError(f"{where}: next_observations have shape {found}, expected {expected}")
    terminations, truncations, notes = _read_ends(
        columns, num_rows, where, time_limit, reading.episode_length
    )
    starts, ends, tail_notes = find_episodes(terminations, truncations, where, reading.episode_length)
    state_dim = min(state_dim, num_state_columns or state_dim)
    frames: Callable[[], Iterator[np.ndarray]] | None = None
    if form is not None:
        frames = partial(form.frames, observations, starts, where)
        notes = (*notes, form.note)
    return Recording(
        rewards=read_rewards(columns["rewards"], f"{where}: rewards")[: starts[-1]],
        episode_starts=starts,
        episode_ends=ends,
        state_dim=state_dim,
        num_action_columns=num_action_columns,
        is_discrete=is_discrete,
        has_next_observations=following is not None,
        blocks=lambda: column_blocks(columns, int(starts[-1]), state_dim),
        notes=(*notes, *tail_notes),
        image_shape=form.image_shape if form else (),
        frames=frames,
    )


def _read_ends(
    columns: Mapping[str, Column],
    num_rows: int,
    where: str,
    time_limit: int | None,
    episode_length: int | None,
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Where episodes were terminated and cut, (M,) bool each, and notes on what was decided."""
    none = np.zeros(num_rows, bool)
    terminations, truncations = (
        read_flags(columns[name], f"{where}: {name}") if name in columns else none
        for name in ("terminations", "truncations")
    )
    notes = [] if "terminations" in columns else ["no terminations recorded: every episode counts as cut"]
    if EPISODE in columns:
        is_last, flags = last_rows(columns[EPISODE], where), terminations | truncations
        episodes = np.cumsum(is_last) - is_last
        if split := len(np.unique(episodes[flags & ~is_last])):
            total = count(int(is_last.sum()), "logged episode")
            notes.append(f"{split:,} of {total} end by a flag and go on: split there")
        truncations = truncations | (is_last & ~terminations)
    elif episode_length is None and "truncations" not in columns:
        if time_limit is None:
            notes.append("no truncations recorded: episodes end at terminations only")
        else:
            truncations = truncate_at_limit(terminations, time_limit)
            notes.append(f"no truncations recorded: episodes were cut at the limit of {time_limit} steps")
    if episode_length is not None:
        cuts = truncate_at_limit(terminations | truncations, episode_length)
        truncations = truncations | cuts
        notes.append(f"cut {count(int(cuts.sum()), 'time')} after {episode_length:,} steps without an end")
    return terminations, truncations, tuple(notes)


def find_ends(columns: Mapping[str, Column], where: str) -> np.ndarray:
    """The last step of each episode, (M,) bool, by flags alone."""
    ends = np.zeros(columns["rewards"].shape[0], bool)
    for name in ("terminations", "truncations"):
        if name in columns:
            ends |= read_flags(columns[name], f"{where}: {name}")
    return ends


def last_rows(column: Column, where: str) -> np.ndarray:
    """The last step of each episode, (M,) bool, by a column that changes with the episode.

    Raises:
        InputError: if the steps of an episode are not one after the other.
    """
    values = read_vector(column, f"{where}: {EPISODE}")
    is_last = np.append(values[1:] != values[:-1], True)
    runs = values[is_last]
    if fault := _fault_of_names(runs):
        again, problem = fault
        row = int(np.flatnonzero(is_last)[again - 1]) + 1 if again else 0
        raise InputError(f"{where}: {EPISODE}: row {row} {problem}")
    first = np.zeros(len(runs), bool)
    first[np.unique(runs, return_index=True)[1]] = True
    if not first.all():
        again = int(np.flatnonzero(~first)[0])
        row = int(np.flatnonzero(is_last)[again - 1]) + 1
        raise InputError(
            f"{where}: {EPISODE}: {runs[again]} comes back in row {row}, after other episodes; "
            "sort the rows by episode and time"
        )
    return is_last


def _fault_of_names(names: np.ndarray) -> tuple[int, str] | None:
    """The first of the names of episodes (n,) that is missing, or that its type cannot tell from others."""
    kind = names.dtype.kind
    if kind in "US":
        wrong = np.char.str_len(np.char.strip(names)) == 0
        return (int(wrong.argmax()), "is empty; fill it in") if wrong.any() else None
    wrong = ~np.isfinite(names) if kind in "fM" else np.zeros(len(names), bool)
    if wrong.any():
        return int(wrong.argmax()), "is not finite; fill it in"
    if kind == "f" and (wrong := np.abs(names) >= exact_below(names.dtype)).any():
        at = int(wrong.argmax())
        problem = f"is {names[at]:.0f}, which {names.dtype.name} does not tell from its neighbors"
        return at, f"{problem}; write such names as integers or as text"
    return None


def exact_below(dtype: np.dtype[Any]) -> float:
    """The size from which on a type of floats does not tell whole numbers apart."""
    return 2.0 ** (np.finfo(dtype).nmant + 1)


def without_following(recording: Recording) -> Recording:
    """The same steps, of which what was seen after them is not known."""

    def blocks() -> Iterator[Block]:
        return (replace(block, next_observations=None) for block in recording.blocks())

    return replace(recording, has_next_observations=False, blocks=blocks)


def left_out(reasons: Mapping[str, int], total: int, what: str = "episodes") -> tuple[str, ...]:
    """Notes on how many of a source's episodes, or other parts, were left out, by the reason."""
    return tuple(
        f"left out {number:,} of {total:,} {what}: {why}" for why, number in reasons.items() if number
    )


def keep_episodes(recording: Recording, is_kept: np.ndarray, *notes: str) -> Recording:
    """Leave out episodes, (E,) bool, and say it in notes; nothing changes where all are kept."""
    if is_kept.all():
        return recording
    lengths = np.diff(recording.episode_starts)
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

    def frames() -> Iterator[np.ndarray]:
        first = 0
        for pictures in recording.frames() if recording.frames else ():
            yield pictures[rows_kept[first : first + len(pictures)]]
            first += len(pictures)

    return replace(
        recording,
        rewards=recording.rewards[rows_kept],
        episode_starts=np.concatenate([[0], np.cumsum(lengths[is_kept])]).astype(np.int64),
        episode_ends=recording.episode_ends[is_kept],
        blocks=blocks,
        frames=frames if recording.frames else None,
        missions=None if recording.missions is None else recording.missions[is_kept],
        notes=(*recording.notes, *notes),
    )


def column_blocks(columns: Mapping[str, Column], num_steps: int, state_dim: int) -> Iterator[Block]:
    """Blocks of the first `num_steps` rows of flat columns, with `state_dim` columns of observations."""
    following = columns.get("next_observations")
    for start in range(0, num_steps, BLOCK_ROWS):
        rows = slice(start, min(start + BLOCK_ROWS, num_steps))
        yield Block(
            observations=read_matrix(columns["observations"], rows)[:, :state_dim],
            actions=read_matrix(columns["actions"], rows),
            next_observations=None if following is None else read_matrix(following, rows)[:, :state_dim],
        )


def check_observations(shape: tuple[int, ...], where: str) -> int:
    """Return the width of observations.

    Raises:
        InputError: if they are not vectors.
    """
    if len(shape) == 1:
        return 1
    if len(shape) != 2 or shape[1] == 0:
        raise InputError(
            f"{where}: observations have shape {shape}; expected (steps, width): vectors, "
            "or pictures of at least 36 x 36 bytes"
        )
    return shape[1]


def check_actions(shape: tuple[int, ...], dtype: np.dtype[Any], where: str) -> tuple[int, bool]:
    """Return the number of action columns and whether actions are discrete (integers in one column).

    Raises:
        InputError: if they are neither vectors of floats nor single integers.
    """
    width = 1 if len(shape) == 1 else shape[1] if len(shape) == 2 else 0
    is_discrete = dtype.kind in "iub"
    if width == 0 or (is_discrete and width > 1):
        kind = "integers" if is_discrete else "numbers"
        raise InputError(
            f"{where}: actions are {kind} of shape {shape}; expected floats (N, width) or integers (N,)"
            + ("; say --continuous-actions, or give floats, where they are quantities" if is_discrete else "")
        )
    return width, is_discrete


def read_flags(column: Column, where: str) -> np.ndarray:
    """Read (M,) flags as bool.

    Raises:
        InputError: if a value is neither 0 nor 1.
    """
    values = read_vector(column, where)
    if values.dtype == bool:
        return values
    wrong = np.flatnonzero((values != 0) & (values != 1))
    if len(wrong):
        raise InputError(f"{where}: row {wrong[0]} is {values[wrong[0]]}, expected 0 or 1")
    return values != 0


def read_rewards(column: Column, where: str) -> np.ndarray:
    """Read (M,) rewards, as they are where these are single or double precision; the store checks them."""
    values = read_vector(column, where)
    return values if values.dtype.kind == "f" and values.dtype.itemsize >= 4 else values.astype(np.float64)


def read_matrix(column: Column, rows: slice = slice(None)) -> np.ndarray:
    """Read rows of a column, (n, width); numbers are vectors of one."""
    values = np.asarray(column[rows])
    return values[:, None] if values.ndim == 1 else values


def read_vector(column: Column, where: str) -> np.ndarray:
    """Read a column of shape (M,) or (M, 1) whole.

    Raises:
        InputError: if it has another shape.
    """
    if len(column.shape) not in (1, 2) or (len(column.shape) == 2 and column.shape[1] != 1):
        raise InputError(
            f"{where}: shape {column.shape}, expected ({column.shape[0] if column.shape else 'steps'},)"
        )
    return np.asarray(column[0 : column.shape[0]]).reshape(-1)


def check_lengths(columns: Mapping[str, Column], where: str) -> int:
    """Return the number of rows of columns; InputError if there are none, or columns differ in it."""
    lengths = {name: (column.shape[0] if column.shape else 0) for name, column in columns.items()}
    if len(set(lengths.values())) != 1:
        listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise InputError(f"{where}: columns differ in length ({listed}); expected one row for each step")
    num_rows = next(iter(lengths.values()))
    if num_rows == 0:
        raise InputError(f"{where}: no steps")
    return num_rows

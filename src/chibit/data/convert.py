"""Data sets in other forms: a store, a Minari data set or an `.npz` file, of any form that is read.

What was written is read again and compared, so that what a form cannot hold is said.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from chibit.core.arrays import Rows, write_npz
from chibit.core.config import as_field
from chibit.core.errors import InputError
from chibit.core.files import make_folder, user_path
from chibit.core.formatting import format_setting, listed
from chibit.data.dataset import TrajectoryDataset
from chibit.data.load import complete, load_dataset, open_recording, read_reading
from chibit.data.readers.recording import BLOCK_ROWS, Block, Recording
from chibit.data.resolve import Places, find_source, home_folder
from chibit.data.samplers.frames import FrameStacks
from chibit.data.spec import DatasetSpec
from chibit.data.store import OBSERVATIONS, copy_store

Form = Literal["store", "minari", "npz"]
_FRAME_ROWS = 512
_Columns = Callable[[Block], np.ndarray | None]


def convert(
    name_or_path: str | Path,
    out: Path,
    to: Form,
    *,
    env_id: str | None = None,
    columns: Sequence[str] | Mapping[str, str | Sequence[str]] = (),
    episode_length: int | None = None,
    skip_damaged: bool = False,
    continuous_actions: bool = False,
    action_low: ArrayLike | None = None,
    action_high: ArrayLike | None = None,
    progress: bool = True,
) -> tuple[str, ...]:
    """Write a data set in another form; numbers keep the precision that they have at their source.

    Args:
        name_or_path: as for `load_dataset`.
        out: the file or folder to write; nothing is written over.
        to: `store` copies the cache's, `minari` makes a data set that Minari loads, `npz` flat columns.
        env_id: as for `load_dataset`.
        columns: as for `load_dataset`.
        episode_length: as for `load_dataset`.
        skip_damaged: as for `load_dataset`.
        continuous_actions: as for `load_dataset`.
        action_low: as for `load_dataset`.
        action_high: as for `load_dataset`.
        progress: as for `load_dataset`.

    Returns:
        What is not the same in the new form, one sentence each; empty where nothing was lost.

    Raises:
        InputError: if there is something under `out`, or it is no name for the form.
        ResourceError: for a full disk.
    """
    to, out = as_field(Form, to, "to"), user_path(out)
    _check_name(out, to)
    options: dict[str, Any] = {
        "columns": columns,
        "episode_length": episode_length,
        "skip_damaged": skip_damaged,
        "continuous_actions": continuous_actions,
    }
    bounds: dict[str, Any] = {"action_low": action_low, "action_high": action_high}
    dataset = load_dataset(name_or_path, env_id=env_id, progress=progress, **options, **bounds)
    make_folder(out.parent)
    if to == "store":
        copy_store(dataset, out)
    else:
        with _open(name_or_path, dataset, options, progress) as recording:
            (_write_npz if to == "npz" else _write_minari)(out, recording, dataset)
    return tuple(_differences(dataset, load_dataset(out, progress=False)))


def _check_name(out: Path, to: Form) -> None:
    if out.exists() or out.is_symlink():
        raise InputError(f"out: {out} is there already; choose another")
    if to == "npz" and out.suffix != ".npz":
        raise InputError(f"out: {out}, expected a name that ends in .npz")
    if to != "npz" and out.suffix in (".npz", ".hdf5", ".csv", ".parquet"):
        raise InputError(f"out: {out}, expected the name of a folder")
    if to == "minari" and not out.name.rpartition("-v")[2].isdecimal():
        raise InputError(
            f"out: {out}, expected a name that ends in a version as Minari's ids do: {out.name}-v0"
        )


@contextlib.contextmanager
def _open(
    name_or_path: str | Path, dataset: TrajectoryDataset, options: Mapping[str, Any], progress: bool
) -> Iterator[Recording]:
    """The steps in the precision of their source."""
    source = find_source(name_or_path, Places(None, home_folder(), download=False, progress=progress))
    if source.format is None:
        yield _stored(dataset)
        return
    with open_recording(source, complete(read_reading(**options), source)) as (recording, _):
        yield recording


def _stored(dataset: TrajectoryDataset) -> Recording:
    """The steps of a store."""
    spec, starts, final = dataset.spec, dataset.episode_starts, dataset.final_observations

    def blocks() -> Iterator[Block]:
        actions = dataset.actions[:, None] if dataset.is_discrete else dataset.actions
        seen = (
            dataset.observations if dataset.frames is None else np.empty((dataset.num_steps, 0), np.float32)
        )
        for first in range(0, dataset.num_steps, BLOCK_ROWS):
            rows = slice(first, min(first + BLOCK_ROWS, dataset.num_steps))
            following = None
            if final is not None:
                following = np.concatenate([seen[rows.start + 1 : rows.stop + 1], seen[:1]])[
                    : rows.stop - first
                ]
                last = slice(*np.searchsorted(starts[1:] - 1, [rows.start, rows.stop]).tolist())
                following[starts[1:][last] - 1 - first] = final[last]
            yield Block(seen[rows], actions[rows], following)

    return Recording(
        rewards=dataset.rewards,
        episode_starts=starts,
        episode_ends=dataset.episode_ends,
        state_dim=spec.num_state_columns,
        num_action_columns=1 if dataset.is_discrete else spec.act_dim,
        is_discrete=dataset.is_discrete,
        has_next_observations=final is not None,
        blocks=blocks,
        image_shape=spec.image_shape,
        missions=dataset.missions,
        has_bytes=(dataset.folder / f"{OBSERVATIONS}.npy").is_file(),
    )


def _write_npz(out: Path, recording: Recording, dataset: TrajectoryDataset) -> None:
    num_steps = int(recording.episode_starts[-1])
    terminations, truncations = np.zeros((2, num_steps), bool)
    last = recording.episode_starts[1:] - 1
    terminations[last], truncations[last] = recording.episode_ends.T
    arrays: dict[str, np.ndarray | Rows] = {
        "observations": _rows(recording, lambda block: block.observations),
        "actions": _rows(recording, lambda block: block.actions),
        "rewards": recording.rewards,
        "terminations": terminations,
        "truncations": truncations,
    }
    if recording.is_discrete:
        arrays["actions"] = np.concatenate([block.actions[:, 0] for block in recording.blocks()])
    else:
        bounds = dataset.spec.action_low, dataset.spec.action_high
        arrays["action_low"], arrays["action_high"] = map(np.array, bounds)
    if recording.has_next_observations:
        arrays["next_observations"] = _rows(recording, lambda block: block.next_observations)
    if dataset.frames is not None:
        stacks = _stacks(dataset)
        first = next(stacks)
        shape = (num_steps, *first.shape[1:])
        arrays["observations"] = Rows(first.dtype, shape, itertools.chain([first], stacks))
    if dataset.spec.env_id is not None:
        arrays["env_id"] = np.array(dataset.spec.env_id)
    write_npz(out, arrays)


def _rows(recording: Recording, part: _Columns) -> Rows:
    pieces = _pieces(recording, part)
    first = next(pieces)
    shape = (int(recording.episode_starts[-1]), *first.shape[1:])
    return Rows(first.dtype, shape, itertools.chain([first], pieces))


def _pieces(recording: Recording, part: _Columns) -> Iterator[np.ndarray]:
    return (piece for block in recording.blocks() if (piece := part(block)) is not None)


def _stacks(dataset: TrajectoryDataset) -> Iterator[np.ndarray]:
    """Observations that are pictures, (n, H, W) or stacks (n, C, H, W)."""
    assert dataset.frames is not None
    depth = dataset.spec.image_shape[0]
    stacks = FrameStacks(dataset.frames, dataset.episode_starts, depth)
    for first in range(0, dataset.num_steps, _FRAME_ROWS):
        rows = np.arange(first, min(first + _FRAME_ROWS, dataset.num_steps))
        yield dataset.frames[rows] if depth == 1 else stacks.stacks(rows)


def _write_minari(out: Path, recording: Recording, dataset: TrajectoryDataset) -> None:
    from chibit.data.collect.minari_writer import Spaces, write_folder

    spec = dataset.spec
    shape = spec.image_shape[1:] if spec.image_shape[:1] == (1,) else spec.image_shape
    metadata: dict[str, Any] = {"dataset_id": out.name}
    if not recording.has_next_observations:
        metadata["final_observations"] = False
    if spec.score_reference is not None:
        metadata["ref_min_score"], metadata["ref_max_score"] = spec.score_reference
    if spec.d4rl_physics:
        metadata["physics"] = {"d4rl_physics": True}
    spaces = Spaces(
        observation_shape=shape or (spec.state_dim,),
        is_picture=bool(shape),
        num_actions=spec.num_actions,
        action_bounds=(spec.action_low, spec.action_high),
        missions=recording.missions,
        parts=spec.observation_parts if recording.has_bytes else (),
    )
    write_folder(out, spaces, spec.env_id, _episodes(recording, dataset), lambda: metadata)


def _episodes(recording: Recording, dataset: TrajectoryDataset) -> Iterator[Any]:
    """Episodes one by one, as Minari keeps them: with one observation more than steps."""
    from chibit.data.collect.behavior.rollout import Episode
    from chibit.data.collect.minari_writer import split_parts

    lengths = np.diff(recording.episode_starts).tolist()
    numbers = _pieces(recording, lambda block: block.observations)
    seen = _cut(numbers if dataset.frames is None else _stacks(dataset), lengths)
    actions = _cut(_pieces(recording, lambda block: block.actions), lengths)
    following = _cut(_pieces(recording, lambda block: block.next_observations), lengths)
    missions = [None] * len(lengths) if recording.missions is None else recording.missions.tolist()
    for index, length in enumerate(lengths):
        observations = next(seen)
        # Where it is not known, the last one again.
        last = next(following)[-1:] if recording.has_next_observations else observations[-1:]
        first = int(recording.episode_starts[index])
        chosen = next(actions)
        terminated, truncated = recording.episode_ends[index].tolist()
        whole: Any = np.concatenate([observations, last])
        if recording.has_bytes:
            parts = split_parts(whole, dataset.spec.observation_parts)
            whole = {**parts, "mission": [missions[index]] * (length + 1)}
        elif missions[index] is not None:
            whole = {"mission": [missions[index]] * (length + 1), "observation": whole}
        yield Episode(
            reset_seed=None,
            observations=whole,
            actions=chosen[:, 0].astype(np.int64) if recording.is_discrete else chosen,
            rewards=np.asarray(recording.rewards[first : first + length]),
            terminated=terminated,
            truncated=truncated,
        )


def _cut(pieces: Iterator[np.ndarray], lengths: Sequence[int]) -> Iterator[np.ndarray]:
    """Rows that come in blocks, in pieces of other lengths."""
    waiting: list[np.ndarray] = []
    for length in lengths:
        while sum(map(len, waiting)) < length:
            waiting.append(next(pieces))
        rows = waiting[0] if len(waiting) == 1 else np.concatenate(waiting)
        yield rows[:length]
        waiting = [rows[length:]]


def _differences(before: TrajectoryDataset, after: TrajectoryDataset) -> Iterator[str]:
    """What is not the same in the new form."""
    if before.missions is not None and after.missions is None:
        yield "the texts of what episodes are for are lost"
    if before.final_observations is not None and after.final_observations is None:
        yield "the last observations of episodes are lost"
    same = all(
        np.array_equal(old, new)
        for name in ("records", "episode_starts", "episode_ends", "final_observations", "frames")
        if (old := getattr(before, name)) is not None and (new := getattr(after, name)) is not None
    )
    if not same or (before.frames is None) != (after.frames is None):
        yield "steps are not the same, by rounding or more"
    for field in fields(DatasetSpec):
        old, new = getattr(before.spec, field.name), getattr(after.spec, field.name)
        if field.name == "name" or old in (None, ()):  # the file's; nothing to lose
            continue
        if field.name.endswith("_names") and len(old) == 1:  # as much the file's
            continue
        is_rounding = field.name.startswith("state_") if same else _shown(old) == _shown(new)
        if old != new and not is_rounding:
            yield f"{field.name} was {_shown(old)} and is {_shown(new)}"


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({listed(map(_shown, value), 6)})"
    return format_setting(value) if isinstance(value, float) else str(value)

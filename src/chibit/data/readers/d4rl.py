"""D4RL's flat HDF5 files (Fu et al., 2020), by id or by path."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from chibit.core.errors import InputError
from chibit.data.environment import choose_environment
from chibit.data.fetch import download
from chibit.data.readers.columns import (
    EPISODE,
    Column,
    Reading,
    check_needed,
    describe_columns,
    join,
    locate_columns,
)
from chibit.data.readers.hdf5 import Budget, Hdf5Column, Hdf5Group, open_hdf5, texts
from chibit.data.readers.origin import Origin, file_name
from chibit.data.readers.recording import Recording, keep_episodes, read_flags, record_columns
from chibit.environments.d4rl import D4RL_SETS, URL, D4rlSet

_STEMS = {known.stem: dataset_id for dataset_id, known in D4RL_SETS.items()}


def find_id(name: str) -> str | None:
    """Find the id that a name means: `hopper-medium-replay-v2`, or the file's `hopper_medium_replay-v2`."""
    return name if name in D4RL_SETS else _STEMS.get(name)


def find_file(dataset_id: str, folder: Path) -> Path | None:
    """Find the file of a data set in `folder`, or in D4RL's own: $D4RL_DATASET_DIR, else ~/.d4rl/datasets."""
    own = os.environ.get("D4RL_DATASET_DIR") or "~/.d4rl/datasets"
    places = (folder, Path(os.path.expanduser(own)))
    names = (f"{D4RL_SETS[dataset_id].stem}.hdf5", f"{dataset_id}.hdf5")
    candidates = (place / name for place in places for name in names)
    return next((path for path in candidates if path.is_file()), None)


def find_or_download(
    dataset_id: str, folder: Path, *, allow_download: bool, progress: bool, url: str = URL
) -> Path:
    """Find the file of a data set, or fetch it from its public location.

    Args:
        dataset_id: one of `D4RL_SETS`.
        folder: where files are kept, and downloaded to.
        allow_download: whether the network may be used.
        progress: show a bar.
        url: where the files are.

    Raises:
        InputError: if it is not here and may not be downloaded.
    """
    found = find_file(dataset_id, folder)
    if found is not None:
        return found
    known = D4RL_SETS[dataset_id]
    if not allow_download:
        raise InputError(f"{dataset_id}: not in {folder}; put {url}/{known.file} there")
    return download(f"{url}/{known.file}", folder / f"{known.stem}.hdf5", progress=progress)


@contextlib.contextmanager
def read_d4rl(path: Path, reading: Reading | None = None) -> Iterator[tuple[Recording, Origin]]:
    """Read a file in D4RL's layout; its name says which data set it is.

    Raises:
        InputError: if columns are missing or do not fit together.
    """
    reading = reading or Reading()
    dataset_id = find_id(path.stem)
    known = D4RL_SETS.get(dataset_id or "")
    with open_hdf5(path) as file:
        located = locate_columns(file.names(), str(path), reading)
        found = {
            ours: [file.column(name, is_variable=ours == EPISODE) for name in theirs]
            for ours, theirs in located.items()
        }
        there = set(found) - {"truncations"} if known else found  # D4RL's own mark terminations, too
        check_needed(there, file.names(), str(path), reading)
        goals = _goals(file, found)
        Budget(path).take(column for parts in (*found.values(), goals) for column in parts)
        columns: dict[str, Column] = {ours: join(parts, f"{path}: {ours}") for ours, parts in found.items()}
        if EPISODE in columns and columns[EPISODE].dtype.kind in "SO":
            columns[EPISODE] = np.array(texts(columns[EPISODE]))
        columns, notes = _cut_at_goals(columns, goals, path, reading)
        recording = record_columns(
            columns,
            where=str(path),
            time_limit=known.time_limit if known else None,
            num_state_columns=known.num_state_columns if known else None,
            reading=reading,
        )
        if goals and known is not None:
            recording = _without_repeated_goals(recording)
        origin = make_origin(path, dataset_id, columns["observations"].shape[-1], kind="d4rl")
        if known is None:
            widths = {
                name: math.prod(column.shape[1:])
                for ours, theirs in located.items()
                for name, column in zip(theirs, found[ours], strict=True)
            }
            described, more = describe_columns(file.names(), located, widths)
            origin, notes = replace(origin, provenance=origin.provenance | described), (*notes, *more)
        yield recording, replace(origin, notes=(*origin.notes, *notes))


def _goals(file: Hdf5Group, found: Mapping[str, Sequence[Hdf5Column]]) -> list[Hdf5Column]:
    """What the mazes record of where to go, (N, 2); none elsewhere, nor where episodes have a column."""
    if EPISODE not in found and file.has_group("infos"):
        with contextlib.suppress(InputError):  # it is something else of this name
            goal = file.group("infos").column("goal")
            if goal.shape[:1] == found["rewards"][0].shape[:1] != ():
                return [goal]
    return []


def _cut_at_goals(
    columns: dict[str, Column], goals: list[Hdf5Column], path: Path, reading: Reading
) -> tuple[dict[str, Column], tuple[str, ...]]:
    """Cut a walk through a maze whose file marks no end (Maze2d) where it is given another goal."""
    named = [columns[name] for name in ("terminations", "truncations") if name in columns]
    if not goals or reading.episode_length or any(read_flags(flags, str(path)).any() for flags in named):
        return columns, ()
    goal = goals[0][0 : goals[0].shape[0]]
    changes = np.append((goal[1:] != goal[:-1]).reshape(len(goal) - 1, -1).any(axis=1), False)
    if not changes.any():
        return columns, ()
    note = f"no ends recorded: cut {int(changes.sum()):,} times where the goal changes"
    return {**columns, "truncations": changes}, (note,)


def _without_repeated_goals(recording: Recording) -> Recording:
    """Leave out steps in which a goal is still flagged that ended the episode before (AntMaze)."""
    ends = recording.episode_ends[:, 0]
    is_repeated = ends & (np.diff(recording.episode_starts) == 1) & np.append(False, ends[:-1])
    note = f"left out {int(is_repeated.sum()):,} steps: the goal of the episode before is still flagged"
    return keep_episodes(recording, ~is_repeated, note)


def make_origin(path: Path, dataset_id: str | None, num_columns: int, *, kind: str) -> Origin:
    """Say what a D4RL id tells of a file.

    Args:
        path: the file.
        dataset_id: one of `D4RL_SETS`, or None: then the file's name is all that is known.
        num_columns: width of its observations.
        kind: of the source, for the provenance.
    """
    provenance = {"kind": kind, "path": str(path.absolute())}
    if dataset_id is None:
        note = f"{path.stem!r} is no D4RL id, and the file names no environment"
        return Origin(name=file_name(path), notes=(note,), provenance=provenance)
    known: D4rlSet = D4RL_SETS[dataset_id]
    env_id, notes = choose_environment(known.env_id)
    if known.env_id is None:
        notes = ("no environment of today shows these observations: training only",)
    kept = known.num_state_columns
    if kept is not None and num_columns > kept:
        notes = (f"kept the first {kept} of {num_columns} observations: Ant-v4 shows no contact forces",)
    return Origin(
        name=dataset_id,
        env_id=env_id,
        named_environment=known.env_id,
        d4rl_physics=known.d4rl_physics,
        score_reference=known.score_reference,
        max_episode_steps=known.max_episode_steps,
        notes=notes,
        provenance=provenance,
    )

"""What d3rlpy (Seno and Imai, 2022) writes.

Version 2 (`ReplayBuffer.dump`) has `observations_0`, `actions_0`, `rewards_0` and `terminated_0` of its first
episode, and so on; version 1 is flat, with `terminals` and `episode_terminals`.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from chibit.core.errors import DamagedFileError, InputError
from chibit.data.readers.columns import Column, Reading, refuse_part
from chibit.data.readers.episodes import Joined, join_episodes
from chibit.data.readers.hdf5 import Budget, Hdf5Column, Hdf5Group, open_hdf5
from chibit.data.readers.origin import Origin, file_name
from chibit.data.readers.recording import Recording, read_flags, record_columns

_FLAT_ENDS = "episode_terminals"
_NAMES = {
    "observations": "observations",
    "actions": "actions",
    "rewards": "rewards",
    "terminations": "terminated",
}


def is_layout(file: Hdf5Group) -> bool:
    """Whether a file is a dump."""
    names = file.names()
    return {"columns", "num_episodes"} <= set(names) or _FLAT_ENDS in names


@contextlib.contextmanager
def read(path: Path, reading: Reading) -> Iterator[tuple[Recording, Origin]]:
    """Read a dump.

    Raises:
        InputError: if observations are tuples, or columns do not fit together.
        DamagedFileError: if an episode is missing.
    """
    refuse_part(path, reading.part)
    if reading.columns:
        raise InputError(f"{path}: a dump of d3rlpy says what its columns are; leave --columns out")
    with open_hdf5(path) as file:
        names = file.names()
        notes: tuple[str, ...] = ()
        if _FLAT_ENDS in names:
            columns = _flat(file, path)
        else:
            joined = _joined(file, names, path, reading.skip_damaged)
            columns, notes = joined.columns, joined.notes
        actions = columns["actions"]
        if actions.dtype.kind in "iub" and actions.shape[1:] == (1,):
            columns["actions"] = np.asarray(actions[0 : actions.shape[0]])[:, 0]
        provenance = {"kind": "d3rlpy", "path": str(path.absolute())}
        origin = Origin(name=file_name(path), notes=notes, provenance=provenance)
        yield record_columns(columns, where=str(path), reading=reading), origin


def _flat(file: Hdf5Group, path: Path) -> dict[str, Column]:
    """Columns of version 1."""
    found = {name: file.column(name) for name in ("observations", "actions", "rewards")}
    terminals, ends = file.column("terminals"), file.column(_FLAT_ENDS)
    Budget(path).take([*found.values(), terminals, ends])
    terminations = read_flags(terminals, f"{path}: terminals")
    truncations = read_flags(ends, f"{path}: {_FLAT_ENDS}") & ~terminations
    return {**found, "terminations": terminations, "truncations": truncations}


def _joined(file: Hdf5Group, names: Collection[str], path: Path, skip_damaged: bool) -> Joined:
    """Columns of version 2."""
    numbers = {int(name.rpartition("_")[2]) for name in names if re.fullmatch(r"rewards_\d{1,9}", name)}
    if any(re.fullmatch(r"observations_\d+_\d+", name) for name in names):
        raise InputError(f"{path}: observations are tuples; put their parts side by side and dump them again")
    if numbers != set(range(len(numbers))) or not numbers:
        raise DamagedFileError(f"{path}: episodes are missing; copy or dump the data again")
    budget = Budget(path)

    def open_episode(number: int) -> dict[str, Column]:
        columns = {ours: file.column(f"{theirs}_{number}") for ours, theirs in _NAMES.items()}
        budget.take(columns.values())
        return {**columns, "terminations": _last(columns)}

    episodes = [(f"{path}: episode {n}", partial(open_episode, n)) for n in range(len(numbers))]
    return join_episodes(episodes, str(path), skip_damaged=skip_damaged)


def _last(columns: dict[str, Hdf5Column]) -> Column:
    """The one flag of an episode, at its last step."""
    flags = np.zeros(columns["rewards"].shape[0], bool)
    flags[-1:] = columns["terminations"].scalar()
    return flags

"""What d3rlpy (Seno and Imai, 2022) writes.

Version 2 (`ReplayBuffer.dump`) has `observations_0`, `actions_0`, `rewards_0` and `terminated_0` of its first
episode, and so on; version 1 is flat, with `terminals` and `episode_terminals`.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np

from chibit.core.errors import DamagedFileError, InputError
from chibit.data.readers.columns import Column, Reading, refuse_part
from chibit.data.readers.episodes import join_episodes
from chibit.data.readers.hdf5 import Hdf5Column, Hdf5Group, check_budget, open_hdf5
from chibit.data.readers.origin import Origin, file_name
from chibit.data.readers.recording import Recording, read_flags, record_columns

_FLAT_ENDS = "episode_terminals"
_NAMES = {
    "observations": "observations",
    "actions": "actions",
    "rewards": "rewards",
    "terminations": "terminated",
}


def is_layout(names: Collection[str]) -> bool:
    """Whether a file with these members is a dump."""
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
        columns = _flat(file, path) if _FLAT_ENDS in names else _joined(file, names, path)
        actions = columns["actions"]
        if actions.dtype.kind in "iub" and actions.shape[1:] == (1,):
            columns["actions"] = np.asarray(actions[0 : actions.shape[0]])[:, 0]
        provenance = {"kind": "d3rlpy", "path": str(path.absolute())}
        origin = Origin(name=file_name(path), provenance=provenance)
        yield record_columns(columns, where=str(path), episode_length=reading.episode_length), origin


def _flat(file: Hdf5Group, path: Path) -> dict[str, Column]:
    """Columns of version 1."""
    found = {name: file.column(name) for name in ("observations", "actions", "rewards")}
    terminals, ends = file.column("terminals"), file.column(_FLAT_ENDS)
    check_budget(path, [*found.values(), terminals, ends])
    terminations = read_flags(terminals, f"{path}: terminals")
    truncations = read_flags(ends, f"{path}: {_FLAT_ENDS}") & ~terminations
    return {**found, "terminations": terminations, "truncations": truncations}


def _joined(file: Hdf5Group, names: Collection[str], path: Path) -> dict[str, Column]:
    """Columns of version 2."""
    numbers = {int(name.rpartition("_")[2]) for name in names if re.fullmatch(r"rewards_\d{1,9}", name)}
    if any(re.fullmatch(r"observations_\d+_\d+", name) for name in names):
        raise InputError(f"{path}: observations are tuples; put their parts side by side and dump them again")
    if numbers != set(range(len(numbers))) or not numbers:
        raise DamagedFileError(f"{path}: episodes are missing; copy or dump the data again")
    episodes = [(f"{path}: episode {number}", _episode(file, number)) for number in range(len(numbers))]
    check_budget(path, [column for _, columns in episodes for column in columns.values()])
    whole = [(place, {**columns, "terminations": _last(columns)}) for place, columns in episodes]
    return join_episodes(whole, str(path))


def _episode(file: Hdf5Group, number: int) -> dict[str, Hdf5Column]:
    return {ours: file.column(f"{theirs}_{number}") for ours, theirs in _NAMES.items()}


def _last(columns: dict[str, Hdf5Column]) -> Column:
    """The one flag of an episode, at its last step."""
    flags = np.zeros(columns["rewards"].shape[0], bool)
    flags[-1:] = columns["terminations"].scalar()
    return flags

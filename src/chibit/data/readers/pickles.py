"""Pickled lists of trajectories, as Decision Transformer repositories make them, read but never run."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import numpy as np

from chibit.core.arrays import map_array
from chibit.core.errors import InputError, ResourceError
from chibit.core.files import check_regular
from chibit.core.temporary import temporary_folder
from chibit.data.readers import unpickler
from chibit.data.readers.base import ColumnFormat
from chibit.data.readers.columns import EPISODE, Column, Reading, check_needed
from chibit.data.readers.d4rl import find_id, make_origin
from chibit.data.readers.origin import Origin
from chibit.data.readers.recording import Recording, left_out, read_flags, record_columns
from chibit.data.readers.sandbox import run_apart
from chibit.data.readers.size_limits import memory_budget
from chibit.environments.d4rl import D4RL_SETS

_MAX_SECONDS = 600
_BASE_BYTES = 1 << 30  # address space of Python and numpy themselves
_BYTES_PER_BYTE = 6  # of address space for each byte of the file


class Pickles(ColumnFormat, key="pickles"):
    """Pickled lists of trajectories."""

    suffixes = (".pkl", ".pickle")
    expected = ".pkl (list of trajectories)"

    def read_as(self, path: Path, reading: Reading) -> AbstractContextManager[tuple[Recording, Origin]]:
        """As `read_trajectory_list`."""
        return read_trajectory_list(path, reading)


@contextlib.contextmanager
def read_trajectory_list(path: Path, reading: Reading | None = None) -> Iterator[tuple[Recording, Origin]]:
    """Read a pickled list of dictionaries with observations, actions, rewards and perhaps terminals.

    Each dictionary is an episode. One whose last step is not terminal was cut by a time limit. A dictionary
    alone holds the columns of all steps, as a `.npz` file does.

    Args:
        path: the .pkl file; a D4RL id as its name gives the environment.
        reading: what the user says of its columns, and after how many steps a longer episode is cut.

    Raises:
        InputError: if the file is missing, or no episode has steps.
        DamagedFileError: if it is damaged, or holds anything but arrays of numbers; nothing in it is
            executed.
        ResourceError: if it needs more memory than this machine has.
    """
    reading = reading or Reading()
    with temporary_folder() as folder:
        _convert(path, folder, reading)
        columns: dict[str, Column] = {file.stem: map_array(file) for file in folder.glob("*.npy")}
        notes: tuple[str, ...] = ()
        if "lengths" in columns:
            notes = _mark_ends(columns, path, reading)
        else:
            check_needed(columns, columns, str(path), reading)
        dataset_id = find_id(path.stem)
        origin = make_origin(path, dataset_id, columns["observations"].shape[-1], kind="trajectory list")
        recording = record_columns(
            columns,
            where=str(path),
            num_state_columns=D4RL_SETS[dataset_id].num_state_columns if dataset_id else None,
            reading=reading,
        )
        yield recording, replace(origin, notes=(*origin.notes, *notes))


def _mark_ends(columns: dict[str, Column], path: Path, reading: Reading) -> tuple[str, ...]:
    """Truncate each trajectory at its last step where it was not terminated; note those without steps."""
    if EPISODE in reading.columns:
        raise InputError(f"{path}: every trajectory is an episode; leave {EPISODE}=... out of --columns")
    lengths = np.asarray(columns.pop("lengths")[:])
    truncations = np.zeros(int(lengths[lengths > 0].sum()), bool)
    if "truncations" in columns:
        truncations = read_flags(columns["truncations"], f"{path}: truncations").copy()
    last = np.cumsum(lengths[lengths > 0]) - 1
    terminations = np.zeros(len(truncations), bool)
    if "terminations" in columns:
        terminations = read_flags(columns["terminations"], f"{path}: terminations")
    truncations[last] |= ~terminations[last]
    columns["truncations"] = truncations
    reasons = {"they have no steps": int((lengths == 0).sum()), "damaged": int((lengths < 0).sum())}
    return left_out(reasons, len(lengths))


def _convert(path: Path, folder: Path, reading: Reading) -> None:
    """Write the columns of a pickle as .npy files, in a process that can do nothing else."""
    size = check_regular(path)
    max_bytes = _BASE_BYTES + _BYTES_PER_BYTE * size
    if max_bytes > 2 * memory_budget():
        raise ResourceError(f"{path}: reading {size >> 20} MB of pickle takes {max_bytes >> 20} MB of memory")
    said = json.dumps({"columns": reading.columns, "skip_damaged": reading.skip_damaged})
    run_apart([unpickler.__file__], path, folder, said, max_bytes=max_bytes, max_seconds=_MAX_SECONDS)

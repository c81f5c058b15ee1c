"""Flat columns in .npz files, as `numpy.savez` writes them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from chibit.core.arrays import open_npz
from chibit.core.errors import DamagedFileError, InputError
from chibit.data.bounds import bounds_in_npz
from chibit.data.environment import choose_environment
from chibit.data.readers.base import ColumnFormat
from chibit.data.readers.columns import EPISODE, Column, Reading, check_needed, join, locate_columns
from chibit.data.readers.origin import Origin, file_name
from chibit.data.readers.recording import Recording, record_columns
from chibit.data.readers.size_limits import check_declared_size

_ENV_ID = "env_id"
_MAX_ENV_ID_BYTES = 1000


class Npz(ColumnFormat, key="npz"):
    """Columns in a .npz file."""

    suffixes = (".npz",)

    def read_as(self, path: Path, reading: Reading) -> AbstractContextManager[tuple[Recording, Origin]]:
        """As `read_npz`."""
        return read_npz(path, reading)


@contextlib.contextmanager
def read_npz(path: Path, reading: Reading | None = None) -> Iterator[tuple[Recording, Origin]]:
    """Read a file of columns: observations, actions, rewards, terminations.

    Also truncations, next_observations and episode, if they are known. An entry `env_id` (a string) names the
    environment, `action_low` and `action_high` give bounds.

    Raises:
        InputError: if columns are missing, hold anything but numbers, or do not fit together.
    """
    reading = reading or Reading()
    columns, name = _load(path, reading)
    env_id, notes = choose_environment(name)
    provenance = {"kind": "npz", "path": str(path.absolute())}
    recording = record_columns(columns, where=str(path), episode_length=reading.episode_length)
    bounds = None if recording.is_discrete else bounds_in_npz(path, recording.num_action_columns)
    yield (
        recording,
        Origin(name=file_name(path), env_id=env_id, notes=notes, provenance=provenance, action_bounds=bounds),
    )


def _load(path: Path, reading: Reading) -> tuple[dict[str, Column], str | None]:
    """Read the columns and the environment's name, after a look at what every one of them declares."""
    total = 0
    with open_npz(path) as archive:
        env_id = [_ENV_ID] if _ENV_ID in archive.names else []
        names = [name for name in archive.names if name != _ENV_ID]
        found = locate_columns(names, str(path), reading)
        present = [*env_id, *(name for theirs in found.values() for name in theirs)]
        for name in present:
            shape, dtype = archive.declared(name)
            size = math.prod(shape) * dtype.itemsize
            is_env_id = name == _ENV_ID and dtype.kind == "U" and shape == () and size <= _MAX_ENV_ID_BYTES
            is_text = dtype.kind == "U" and (name,) == found.get(EPISODE)
            if not is_env_id and not is_text and (dtype.kind not in "fiub" or dtype.itemsize > 8):
                kind = DamagedFileError if dtype.hasobject else InputError  # objects are a pickle
                raise kind(f"{path}: {name} has type {dtype}; expected plain numbers")
            total += size
        check_declared_size(path, total, archive.stored)
        check_needed(found, names, str(path), reading)
        columns = {
            ours: join([archive.read(name) for name in theirs], f"{path}: {ours}")
            for ours, theirs in found.items()
        }
        return columns, str(archive.read(_ENV_ID)) if env_id else None

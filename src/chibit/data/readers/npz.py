"""Flat columns in .npz files, as `numpy.savez` writes them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from chibit.core.arrays import open_npz
from chibit.core.errors import DamagedFileError, InputError
from chibit.data.environment import choose_environment
from chibit.data.readers.base import Format
from chibit.data.readers.origin import Origin, file_name
from chibit.data.readers.recording import COLUMN_NAMES, Recording, name_columns, record_columns
from chibit.data.readers.size_limits import check_declared_size

_ENV_ID = "env_id"
_MAX_ENV_ID_BYTES = 1000


class Npz(Format, key="npz"):
    """Columns in a .npz file."""

    suffixes = (".npz",)

    def read(self, path: Path) -> AbstractContextManager[tuple[Recording, Origin]]:
        """As `read_npz`."""
        return read_npz(path)


@contextlib.contextmanager
def read_npz(path: Path) -> Iterator[tuple[Recording, Origin]]:
    """Read a file of columns: observations, actions, rewards, terminations.

    Also truncations and next_observations, if they are known. An entry `env_id` (a string) names the
    environment.

    Raises:
        InputError: if columns are missing, hold anything but numbers, or do not fit together.
    """
    arrays = _load(path)
    name = arrays.pop(_ENV_ID, None)
    env_id, notes = choose_environment(None if name is None else str(name))
    columns = {ours: arrays[theirs] for ours, theirs in name_columns(arrays, str(path)).items()}
    provenance = {"kind": "npz", "path": str(path.absolute())}
    origin = Origin(name=file_name(path), env_id=env_id, notes=notes, provenance=provenance)
    yield record_columns(columns, where=str(path)), origin


def _load(path: Path) -> dict[str, Any]:
    """Read the columns, after a look at what every one of them declares."""
    wanted = {name for names in COLUMN_NAMES.values() for name in names}
    total = 0
    with open_npz(path) as archive:
        present = [name for name in archive.names if name in wanted or name == _ENV_ID]
        for name in present:
            shape, dtype = archive.declared(name)
            size = math.prod(shape) * dtype.itemsize
            is_env_id = name == _ENV_ID and dtype.kind == "U" and shape == () and size <= _MAX_ENV_ID_BYTES
            if not is_env_id and (dtype.kind not in "fiub" or dtype.itemsize > 8):
                kind = DamagedFileError if dtype.hasobject else InputError  # objects are a pickle
                raise kind(f"{path}: {name} has type {dtype}; expected plain numbers")
            total += size
        check_declared_size(path, total, archive.stored)
        name_columns(archive.names, str(path))  # here, where all names are known, for its message
        return {name: archive.read(name) for name in present}

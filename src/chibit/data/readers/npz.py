"""Flat columns in .npz files, as `numpy.savez` writes them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

from chibit.core.arrays import Npz, open_npz
from chibit.core.errors import DamagedFileError, InputError
from chibit.data.bounds import bounds_in_npz
from chibit.data.environment import choose_environment
from chibit.data.readers.base import ColumnFormat, suffix_of
from chibit.data.readers.columns import (
    ACTION_HIGH,
    ACTION_LOW,
    EPISODE,
    TIME,
    Column,
    Reading,
    check_needed,
    describe_columns,
    join,
    locate_columns,
)
from chibit.data.readers.origin import Origin, file_name
from chibit.data.readers.recording import Recording, record_columns
from chibit.data.readers.size_limits import check_declared_size
from chibit.data.readers.timing import find_time, in_order, times_in

_ENV_ID = "env_id"
_MAX_ENV_ID_BYTES = 1000
_TEXT = ": write choices as whole numbers from 0, and other text as columns of 1 and 0"
_TIMES = ": write them by astype('datetime64[us]'), or as numbers"
_WIDE = ": write them by astype(float)"
_TIME = f": write hours or days as such, or say --columns {TIME}=ARRAY where it only says when a step was"


class NpzFiles(ColumnFormat, key="npz"):
    """Columns in a .npz file."""

    suffixes = (".npz",)
    has_time: ClassVar[bool] = True

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
    columns, name, described, order_notes = _load(path, reading)
    env_id, notes = choose_environment(name)
    notes = (*notes, *order_notes, *pair_note(path, {"-train": "-val"}))
    provenance = {"kind": "npz", "path": str(path.absolute()), **described}
    recording = record_columns(columns, where=str(path), reading=reading)
    bounds = None if recording.is_discrete else bounds_in_npz(path, recording.num_action_columns)
    yield (
        recording,
        Origin(
            name=file_name(path),
            env_id=env_id,
            named_environment=name,
            notes=notes,
            provenance=provenance,
            action_bounds=bounds,
        ),
    )


def _load(
    path: Path, reading: Reading
) -> tuple[dict[str, Column], str | None, dict[str, Any], tuple[str, ...]]:
    """Read the columns, in the order of their times, the environment's name, names of columns, and notes."""
    with open_npz(path) as archive:
        env_id = [_ENV_ID] if _ENV_ID in archive.names else []
        names = [name for name in archive.names if name != _ENV_ID]
        found = locate_columns(names, str(path), reading)
        time = find_time(names, found, reading)
        if time.name and (time.is_said or _may_be_time(archive, time.name, found)):
            found[TIME] = (time.name,)
        check_arrays(archive, path, [*env_id, *(name for theirs in found.values() for name in theirs)], found)
        check_needed(found, names, str(path), reading)
        columns = {
            ours: join([archive.read(name) for name in theirs], f"{path}: {ours}")
            for ours, theirs in found.items()
        }
        if TIME in columns and columns[TIME].dtype.kind in "SU":
            columns[TIME] = times_in(columns[TIME])
        name = str(archive.read(_ENV_ID).item()) if env_id else None
        shapes = {each: archive.declared(each)[0] for theirs in found.values() for each in theirs}
    widths = {each: math.prod(shape[1:]) for each, shape in shapes.items()}
    others = [each for each in names if each not in (ACTION_LOW, ACTION_HIGH)]
    described, notes = describe_columns(others, found, widths)
    columns, more = in_order(columns, time, str(path))
    return columns, name, described, (*notes, *more)


def _may_be_time(archive: Npz, name: str, found: Mapping[str, Sequence[str]]) -> bool:
    """Whether an array that only its name calls one of times has a number or a time for each row."""
    shape, dtype = archive.declared(name)
    rows = {archive.declared(each)[0][:1] for theirs in found.values() for each in theirs}
    return dtype.kind in "fiuMSU" and rows == {shape}


def check_arrays(
    archive: Npz,
    path: Path,
    names: Sequence[str],
    found: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
) -> None:
    """Look at what arrays of an archive declare, before one of them is read; `found` are their uses.

    Raises:
        InputError: if one holds anything but numbers.
        DamagedFileError: if one is a pickle, or they are far too large for the file.
    """
    total = 0
    for name in names:
        shape, dtype = archive.declared(name)
        size = math.prod(shape) * dtype.itemsize
        is_env_id = (
            name == _ENV_ID and dtype.kind == "U" and shape in ((), (1,)) and size <= _MAX_ENV_ID_BYTES
        )
        names_episodes = dtype.kind in "SUM" and (name,) == found.get(EPISODE)
        is_time = dtype.kind in "MSU" and (name,) == found.get(TIME)
        if dtype.hasobject:
            raise DamagedFileError(
                f"{path}: {name} has type object, a pickle; expected plain numbers, or text by astype(str)"
            )
        if not (is_env_id or names_episodes or is_time) and (dtype.kind not in "fiub" or dtype.itemsize > 8):
            hints = {"U": _TEXT, "S": _TEXT, "M": _TIME, "m": _TIME, "f": _WIDE}
            hint = _TIMES if (name,) == found.get(TIME) else hints.get(dtype.kind, "")
            raise InputError(f"{path}: {name} has type {dtype}; expected plain numbers{hint}")
        total += size
    check_declared_size(path, total, archive.stored)


def names_of(path: Path) -> set[str]:
    """Names of the arrays in a file; none where it is no archive."""
    if suffix_of(path) != ".npz" or not path.is_file():
        return set()
    with open_npz(path) as archive:
        return set(archive.names)


def pair_note(path: Path, endings: Mapping[str, str]) -> tuple[str, ...]:
    """A note on the file for validation that lies beside one to train on; `endings` of the two names."""
    for train, validation in endings.items():
        stem = path.stem.removesuffix(train)
        other = path.with_name(f"{stem}{validation}.npz")
        if path.stem.endswith(train) and not path.stem.endswith(validation) and other.is_file():
            return (f"{other.name} lies beside it: --validation-data {other.name} measures on that",)
    return ()

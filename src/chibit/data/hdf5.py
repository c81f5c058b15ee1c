"""HDF5 files from strangers: only plain numeric arrays in the file itself, and no more than memory holds.

HDF5 can point to other files (external links, external storage, virtual data sets), load code (filter plug-
ins) and claim any size. All of that is refused on the file's own description, before a value is read.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from chibit.core.errors import DamagedFileError, InputError, UserError
from chibit.data.limits import check_declared_size

_BUILT_IN_FILTERS = {1: "deflate", 2: "shuffle", 3: "fletcher32", 32000: "lzf"}
_MAX_CHUNK = 256 << 20  # bytes; a chunk is unpacked whole even if one row of it is wanted
_LIBRARY_ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError, AttributeError)


@contextlib.contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """Open a file read-only.

    Raises:
        InputError: if it is missing or may not be read.
        DamagedFileError: if it is not a whole HDF5 file.
    """
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise InputError(f"{path}: cannot read ({error.strerror})") from error
    with _reading(path):
        file = h5py.File(path, "r")
    with file:
        yield file


def names(group: h5py.Group, path: Path) -> list[str]:
    """List what a group holds, without opening it."""
    with _reading(path):
        return list(group)


def subgroup(group: h5py.Group, name: str, path: Path) -> h5py.Group:
    """Open a group in a group.

    Raises:
        DamagedFileError: if it is not there, or not a group that lies in the file itself.
    """
    with _reading(path):
        item = _item(group, name, path)
        if not isinstance(item, h5py.Group):
            raise DamagedFileError(f"{path}: {item.name} is not a group")
        return item


def is_group(group: h5py.Group, name: str, path: Path) -> bool:
    """Whether a member is a group; links are refused as everywhere."""
    with _reading(path):
        return isinstance(_item(group, name, path), h5py.Group)


class Hdf5Column:
    """A numeric array in a file, read by slices of rows."""

    def __init__(self, group: h5py.Group, name: str, path: Path) -> None:
        """Open it.

        Args:
            group: where it is.
            name: its name there.
            path: the file, for messages.

        Raises:
            DamagedFileError: if it is not there, not numeric, or not a plain array in the file itself.
        """
        self._path = path
        with _reading(path):
            item = _item(group, name, path)
            if not isinstance(item, h5py.Dataset):
                raise DamagedFileError(f"{path}: {item.name} is not an array")
            _check_storage(item, path)
            self._dataset = item
            self.shape: tuple[int, ...] = item.shape
            self.dtype: np.dtype[Any] = item.dtype

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Read rows.

        Raises:
            DamagedFileError: if the file does not give them.
        """
        with _reading(self._path):
            values: np.ndarray = self._dataset[rows]
            return values

    @property
    def declared_bytes(self) -> int:
        """Size in memory, by the file's account."""
        return math.prod(self.shape) * max(self.dtype.itemsize, 4)


def check_budget(path: Path, columns: Iterable[Hdf5Column]) -> None:
    """Refuse to read columns that are larger than memory, or impossibly larger than their file.

    Raises:
        DamagedFileError: if the file is far too small to hold them.
        ResourceError: if they would not fit into memory.
    """
    check_declared_size(path, sum(column.declared_bytes for column in columns), path.stat().st_size)


def _item(group: h5py.Group, name: str, path: Path) -> Any:
    link = group.get(name, getlink=True)
    if not isinstance(link, h5py.HardLink):
        kind = "external" if isinstance(link, h5py.ExternalLink) else "soft"
        raise DamagedFileError(f"{path}: {name!r} is a {kind} link; expected data in the file itself")
    return group[name]


def _check_storage(item: h5py.Dataset, path: Path) -> None:
    """Refuse what is not a plain numeric array stored in the file."""
    properties = item.id.get_create_plist()
    where = f"{path}: {item.name}"
    if properties.get_external_count() > 0:
        raise DamagedFileError(f"{where} keeps its data in another file; expected data in the file itself")
    if properties.get_layout() == h5py.h5d.VIRTUAL:
        raise DamagedFileError(f"{where} is a virtual data set; expected data in the file itself")
    if item.shape is None or item.dtype.kind not in "fiub" or item.dtype.itemsize > 8:
        raise DamagedFileError(f"{where} has type {item.dtype}; expected plain numbers")
    for index in range(properties.get_nfilters()):
        number = properties.get_filter(index)[0]
        if number not in _BUILT_IN_FILTERS:
            known = ", ".join(_BUILT_IN_FILTERS.values())
            raise DamagedFileError(f"{where} needs filter {number}; expected one of {known}")
    if item.chunks is not None and math.prod(item.chunks) * item.dtype.itemsize > _MAX_CHUNK:
        raise DamagedFileError(f"{where} has chunks of {item.chunks}; expected at most {_MAX_CHUNK >> 20} MB")


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what the HDF5 library raises into one line; kept to calls of the library alone."""
    try:
        yield
    except UserError:
        raise
    except _LIBRARY_ERRORS as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DamagedFileError(f"{path}: damaged HDF5 file ({reason}); copy or download it again") from error

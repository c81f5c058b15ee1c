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

from chibit.core.arrays import reading
from chibit.core.errors import DamagedFileError, InputError
from chibit.core.files import check_regular
from chibit.core.formatting import listed
from chibit.data.readers.columns import Column
from chibit.data.readers.recording import declared_bytes
from chibit.data.readers.size_limits import check_declared_size

_BUILT_IN_FILTERS = {1: "deflate", 2: "shuffle", 3: "fletcher32", 32000: "lzf"}
_MAX_CHUNK = 256 << 20  # bytes; a chunk is unpacked whole even if one row of it is wanted


@contextlib.contextmanager
def open_hdf5(path: Path) -> Iterator[Hdf5Group]:
    """Open a file read-only and give its root."""
    check_regular(path)  # the library takes a path, so that it can map the file
    with _reading(path):
        file = h5py.File(path, "r")
    with file:
        with _reading(path):
            root = file["/"].id
        yield Hdf5Group(root, path, "")


class Hdf5Group:
    """A group in a file. On h5py's low level, which opens an array in a third of the time."""

    def __init__(self, identifier: h5py.h5g.GroupID, path: Path, name: str) -> None:
        """Wrap an open group; `name` is its place in the file."""
        self._id = identifier
        self._path = path
        self._name = name

    def names(self) -> list[str]:
        """List the members, without opening them."""
        with _reading(self._path):
            return [name.decode() for name in self._id]

    def has_group(self, name: str) -> bool:
        """Whether there is such a member and it is a group in the file itself."""
        with _reading(self._path):
            if not self._id.links.exists(name.encode()):
                return False
            is_here = self._id.links.get_info(name.encode()).type == h5py.h5l.TYPE_HARD
            return is_here and h5py.h5o.get_info(self._id, name.encode()).type == h5py.h5o.TYPE_GROUP

    def member(self, name: str, *, is_variable: bool = False) -> Hdf5Group | Hdf5Column:
        """Open a member.

        Args:
            name: of the member.
            is_variable: whether elements of an array may be texts, or bytes such as encoded pictures.

        Raises:
            InputError: if it is not there; the message lists what is.
        """
        where = f"{self._name}/{name}"
        with _reading(self._path):
            opened = self._open(name, where)
        if isinstance(opened, h5py.h5g.GroupID):
            return Hdf5Group(opened, self._path, where)
        if isinstance(opened, h5py.h5d.DatasetID):
            return Hdf5Column(opened, self._path, where, is_variable=is_variable)
        raise DamagedFileError(f"{self._path}: {where} is neither an array nor a group")

    def group(self, name: str) -> Hdf5Group:
        """Open a member that must be a group; raises as `member` does."""
        member = self.member(name)
        if isinstance(member, Hdf5Group):
            return member
        raise DamagedFileError(f"{self._path}: {self._name}/{name} is not a group")

    def column(self, name: str, *, is_variable: bool = False) -> Hdf5Column:
        """Open a member that must be an array; arguments as of `member`, and InputError for a group, too."""
        member = self.member(name, is_variable=is_variable)
        if isinstance(member, Hdf5Column):
            return member
        where = f"{self._path}: {self._name}/{name}"
        if inner := sorted(member.names()):
            raise InputError(
                f"{where} is a group of {listed(inner, 20)}; expected an array; write them side by side as "
                "one"
            )
        raise DamagedFileError(f"{where} is not an array")

    def _open(self, name: str, where: str) -> Any:
        if not self._id.links.exists(name.encode()):
            found = listed(sorted(self.names()), 20) or "nothing"
            raise InputError(f"{self._path}: no {where.removeprefix('/')}; found {found}")
        kind = self._id.links.get_info(name.encode()).type
        if kind != h5py.h5l.TYPE_HARD:
            described = "soft" if kind == h5py.h5l.TYPE_SOFT else "external"
            raise DamagedFileError(
                f"{self._path}: {where}: {described} link; expected data in the file itself"
            )
        return h5py.h5o.open(self._id, name.encode())


class Hdf5Column:
    """A numeric array in a file, read by slices of rows."""

    def __init__(
        self, identifier: h5py.h5d.DatasetID, path: Path, name: str, *, is_variable: bool = False
    ) -> None:
        """Wrap an open array after a look at how it is stored.

        Args:
            identifier: the open array.
            path: the file.
            name: its place in the file.
            is_variable: whether elements may be texts or bytes.

        Raises:
            InputError: if it is not numeric, or has no shape.
        """
        self._id = identifier
        self._path = path
        with _reading(path):
            self.dtype: np.dtype[Any] = identifier.dtype
            if not (is_variable and _is_text_or_bytes(self.dtype)):
                _check_numbers(self.dtype, f"{path}: {name}")
            _check_storage(identifier, self.dtype, f"{path}: {name}")
            self.shape: tuple[int, ...] = identifier.shape

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Read rows.

        Raises:
            DamagedFileError: if the file does not give them.
        """
        start, stop, _ = rows.indices(self.shape[0])
        shape = (max(stop - start, 0), *self.shape[1:])
        with _reading(self._path):
            values = np.empty(shape, self.dtype)
            if values.size:
                in_file = self._id.get_space()
                in_file.select_hyperslab((start, *(0 for _ in shape[1:])), shape)
                self._id.read(h5py.h5s.create_simple(shape), in_file, values)
            return values

    def scalar(self) -> Any:
        """Read the one value of an array without rows, or of length 1."""
        with _reading(self._path):
            values = np.empty(self.shape, self.dtype)
            self._id.read(h5py.h5s.ALL, h5py.h5s.ALL, values)
            return values.reshape(1)[0]


def texts(column: Column) -> list[str]:
    """Read a column of texts whole; different ones stay different, whatever their encoding."""
    rows = np.asarray(column[0 : column.shape[0]] if column.shape else ()).reshape(-1)
    return [row.decode(errors="backslashreplace") if isinstance(row, bytes) else str(row) for row in rows]


class Budget:
    """What of a file may be read: no more than memory holds, and than a file of its size can."""

    def __init__(self, path: Path) -> None:
        """Begin with a file of which nothing was read."""
        self._path, self._stored, self._declared = path, path.stat().st_size, 0

    def take(self, columns: Iterable[Hdf5Column]) -> None:
        """Count columns that are to be read.

        Raises:
            DamagedFileError: if the file is far too small to hold all of them.
            ResourceError: if they are larger than memory.
        """
        self._declared += sum(map(declared_bytes, columns))
        check_declared_size(self._path, self._declared, self._stored)


def _is_text_or_bytes(dtype: np.dtype[Any]) -> bool:
    return h5py.check_string_dtype(dtype) is not None or h5py.check_vlen_dtype(dtype) == np.uint8


def _check_numbers(dtype: np.dtype[Any], where: str) -> None:
    if dtype.kind not in "fiub" or dtype.itemsize > 8:
        raise InputError(f"{where} has type {dtype}, as text and encoded images have; expected plain numbers")


def _check_storage(identifier: h5py.h5d.DatasetID, dtype: np.dtype[Any], where: str) -> None:
    """Refuse what is not a plain array stored in the file."""
    if identifier.get_space().get_simple_extent_type() == h5py.h5s.NULL:
        raise InputError(f"{where} is an empty data set without a shape; expected plain numbers")
    properties = identifier.get_create_plist()
    if properties.get_external_count() > 0:
        raise DamagedFileError(f"{where} keeps its data in another file; expected data in the file itself")
    layout = properties.get_layout()
    if layout == h5py.h5d.VIRTUAL:
        raise DamagedFileError(f"{where} is a virtual data set; expected data in the file itself")
    for index in range(properties.get_nfilters()):
        number = properties.get_filter(index)[0]
        if number not in _BUILT_IN_FILTERS:
            known = ", ".join(_BUILT_IN_FILTERS.values())
            raise DamagedFileError(f"{where} needs filter {number}; expected one of {known}")
    if layout == h5py.h5d.CHUNKED and math.prod(properties.get_chunk()) * dtype.itemsize > _MAX_CHUNK:
        chunk = properties.get_chunk()
        raise DamagedFileError(f"{where} has chunks of {chunk}; expected at most {_MAX_CHUNK >> 20} MB")


def _reading(path: Path) -> contextlib.AbstractContextManager[None]:
    return reading(path, "HDF5", "copy or download it again")

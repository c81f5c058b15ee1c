"""Arrays in files: `.npz` archives, looked at before they are read, and `.npy` files as memory maps.

The one place in which either is opened. What an archive says of itself is compared with what it holds before
anything is allocated; objects, links, encryption and names that lead elsewhere are refused.
"""

from __future__ import annotations

import contextlib
import math
import os
import stat
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from chibit.core.errors import (
    DamagedFileError,
    InputError,
    UserError,
    first_line,
    is_out_of_resources,
    read_error,
)
from chibit.core.files import open_regular, replacing

_LIBRARY_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    tokenize.TokenError,  # of numpy's reader of headers, as are the syntax and type errors
    SyntaxError,
    TypeError,
    OSError,
    ValueError,
    EOFError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
)


@contextlib.contextmanager
def reading(path: Path, what: str = "", remedy: str = "write it again") -> Iterator[None]:
    """Turn what libraries raise when they read arrays into one line; kept to calls of theirs alone.

    Args:
        path: the file.
        what: its kind; empty is the suffix.
        remedy: what to do about a damaged one.

    Raises:
        DamagedFileError: for an error of a library.
    """
    try:
        yield
    except UserError:
        raise
    except _LIBRARY_ERRORS as error:
        if isinstance(error, OSError) and is_out_of_resources(error):
            raise read_error(path, error, InputError) from error
        reason = first_line(error)
        raise DamagedFileError(f"{path}: damaged {what or path.suffix} file ({reason}); {remedy}") from error


class Npz:
    """An open `.npz` archive; an array is read when it is asked for."""

    def __init__(self, archive: zipfile.ZipFile, path: Path, stored: int) -> None:
        """Look at every member's name; raises as `open_npz`."""
        self._archive, self._path = archive, path
        self.stored = stored
        """Bytes of the file."""
        with reading(path):
            for member in archive.infolist():
                _check_member(member, path)
            self.names = [name.removesuffix(".npy") for name in archive.namelist()]
            """Names of the arrays."""

    def declared(self, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Shape and type of an array, by the file's own account.

        Raises:
            DamagedFileError: if there is none, or the file holds less than it declares.
        """
        with reading(self._path):
            member = self._archive.getinfo(f"{name}.npy")
            with self._archive.open(member) as file:
                shape, _, dtype = read_header(file)
        size = math.prod(shape) * dtype.itemsize
        if size > member.file_size:
            raise DamagedFileError(f"{self._path}: {name} declares {size} bytes and holds {member.file_size}")
        return shape, dtype

    def read(self, name: str) -> np.ndarray:
        """Read an array, after a look at what it declares."""
        self.declared(name)
        with reading(self._path), self._archive.open(f"{name}.npy") as file:
            return read_npy(file)


@contextlib.contextmanager
def open_npz(path: Path, *, inside: Path | None = None, most: int | None = None) -> Iterator[Npz]:
    """Open an archive as `numpy.savez` writes it; arguments as of `open_regular`."""
    with open_regular(path, inside=inside, most=most) as file:
        with reading(path):
            archive = zipfile.ZipFile(file)
        with archive:
            yield Npz(archive, path, os.fstat(file.fileno()).st_size)


def map_array(path: Path, *, inside: Path | None = None) -> np.ndarray:
    """Open a `.npy` file as a read-only memory map; arguments as of `open_regular`."""
    with open_regular(path, inside=inside) as file, reading(path):
        shape, is_fortran, dtype = read_header(file)
        if dtype.hasobject:
            raise ValueError("it holds objects")
        order: Any = "F" if is_fortran else "C"
        return np.memmap(file, dtype, mode="r", offset=file.tell(), shape=shape, order=order)


@dataclass(frozen=True)
class Rows:
    """An array that comes in blocks of rows."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    blocks: Iterable[np.ndarray]


def write_npz(path: Path, arrays: Mapping[str, np.ndarray | Rows]) -> None:
    """Write a `.npz` archive, whole or not at all, of which a block at a time is in memory.

    Raises:
        ResourceError: when the system refuses.
    """
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                if isinstance(array, Rows):
                    write_rows(file, array.dtype, array.shape, array.blocks)
                else:
                    np.lib.format.write_array(file, np.asarray(array), allow_pickle=False)


def write_rows(
    file: IO[bytes], dtype: np.dtype[Any], shape: tuple[int, ...], blocks: Iterable[np.ndarray]
) -> None:
    """Write a `.npy` array of a shape that comes in blocks of rows, in order and in all as many."""
    header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    count = 0
    for block in blocks:
        file.write(np.ascontiguousarray(block, dtype).data)
        count += len(block)
    assert count == shape[0]


def read_npy(file: Any) -> np.ndarray:
    """Read an array without objects from an open file, which names itself in what goes wrong."""
    array: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
    return array


def read_header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, order (True is Fortran's) and type of the array in an open file, which is then at its data."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, is_fortran, dtype = read(file)
    if any(size < 0 for size in shape):
        raise ValueError(f"shape {shape}")
    return shape, is_fortran, dtype


def _check_member(member: zipfile.ZipInfo, path: Path) -> None:
    """Refuse an archive whose members would lie elsewhere if it were unpacked; here none is."""
    parts = member.filename.replace("\\", "/").split("/")
    is_link = stat.S_ISLNK(member.external_attr >> 16)
    if is_link or ".." in parts or parts[0] in ("", "~") or not member.filename.isprintable():
        kind = "a link" if is_link else "outside the archive"
        raise DamagedFileError(f"{path}: {member.filename[:80]!r} is {kind}; it is not to be trusted")

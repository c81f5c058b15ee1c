"""One gzipped array of DQN-replay, read row by row and checked before anything is believed."""

from __future__ import annotations

import contextlib
import gzip
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from chibit.core.arrays import read_header, read_npy, reading
from chibit.core.errors import DamagedFileError
from chibit.core.files import open_regular
from chibit.environments.atari import IMAGE_SHAPE

REMEDY = "download it again"
ROW_SHAPES: dict[str, tuple[int, ...]] = {
    "observation": IMAGE_SHAPE[1:],
    "action": (),
    "reward": (),
    "terminal": (),
}
_DTYPE_KINDS = {"observation": "u", "action": "iu", "reward": "fiu", "terminal": "iub"}
_SKIPPED_ROWS = 512


class Shard:
    """An open shard, read from its beginning on."""

    def __init__(self, file: gzip.GzipFile, path: Path, kind: str) -> None:
        """Read the header."""
        self._file, self._path = file, path
        with _reading(path):
            shape, is_fortran, self._dtype = read_header(file)
        expected = ROW_SHAPES[kind]
        wrong_dtype = self._dtype.kind not in _DTYPE_KINDS[kind] or (expected and self._dtype != np.uint8)
        if shape[1:] != expected or not shape or is_fortran or wrong_dtype:
            raise DamagedFileError(
                f"{path}: {self._dtype} {shape}, expected rows of shape {expected}; is it a shard of {kind}s?"
            )
        self.num_rows = int(shape[0])
        self._row_shape = expected

    def read(self, count: int) -> np.ndarray:
        """Read the next rows.

        Raises:
            DamagedFileError: if the file ends before.
        """
        rows = np.empty((count, *self._row_shape), self._dtype)
        view = rows.data.cast("B") if count else memoryview(b"")
        done = 0
        with _reading(self._path):
            while done < len(view):
                got = self._file.readinto(view[done:])
                if not got:
                    raise EOFError("the array ends early")
                done += got
        return rows

    def skip(self, count: int) -> None:
        """Pass over rows."""
        while count > 0:
            self.read(min(count, _SKIPPED_ROWS))
            count -= _SKIPPED_ROWS


@contextlib.contextmanager
def open_shard(path: Path, kind: str) -> Iterator[Shard]:
    """Open a shard.

    Args:
        path: the .gz file.
        kind: a key of `ROW_SHAPES`.

    Raises:
        DamagedFileError: if it is no gzipped array of that kind.
    """
    with _unpacked(path) as file:
        yield Shard(file, path, kind)


def read_count(path: Path) -> int:
    """Read a shard that holds one number, 0 or more.

    Raises:
        DamagedFileError: if it holds anything else.
    """
    with _reading(path), _unpacked(path) as file:
        count = read_npy(file)
        if count.shape != () or count.dtype.kind not in "iu" or count < 0:
            raise ValueError(f"{count.dtype} {count.shape}, expected one count")
    return int(count)


@contextlib.contextmanager
def _unpacked(path: Path) -> Iterator[gzip.GzipFile]:
    with (
        open_regular(path, kind=DamagedFileError, remedy=REMEDY) as packed,
        gzip.GzipFile(fileobj=packed) as file,
    ):
        yield file


def _reading(path: Path) -> contextlib.AbstractContextManager[None]:
    return reading(path, "gzipped", REMEDY)

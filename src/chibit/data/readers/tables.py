"""Tables of steps, a row a step: one file with a column of episodes, or a folder of files, an episode each.

A format says how one of its files is read as arrow's columns; here they become arrays of plain numbers.
"""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from chibit.core.arrays import reading as reading_errors
from chibit.core.errors import DamagedFileError, InputError, ResourceError
from chibit.core.files import list_folder, open_regular
from chibit.data.readers.columns import EPISODE, Column, Reading, check_needed, join, locate_columns
from chibit.data.readers.origin import Origin, file_name
from chibit.data.readers.recording import Recording, last_rows, record_columns
from chibit.data.readers.sandbox import ApartColumnFormat
from chibit.data.readers.size_limits import check_declared_size, memory_budget

_NUMBER_BYTES = 8


class TableFormat(ApartColumnFormat):
    """A format of tables, read by pyarrow in a process of their own."""

    def claim(self, path: Path) -> Path | None:
        """A file, or a folder that holds some."""
        if path.is_dir():
            return path if any(file.suffix in self.suffixes for file in path.iterdir()) else None
        return super().claim(path)

    @abstractmethod
    def read_names(self, file: BinaryIO) -> tuple[list[str], int]:
        """Names of a file's columns, and its rows by its own account, 0 where it has none."""

    @abstractmethod
    def read_table(self, file: BinaryIO, names: Sequence[str]) -> Mapping[str, Any]:
        """Some columns of a file, as arrow's."""

    @contextlib.contextmanager
    def read_here_as(self, path: Path, reading: Reading) -> Iterator[tuple[Recording, Origin]]:
        """Read all files, one after the other."""
        files = [path]
        if path.is_dir():
            files = [file for file in list_folder(path, inside=path) if file.suffix in self.suffixes]
        columns, notes = self.read_files(
            files, path, reading, lambda file: self._read_file(file, path, reading)
        )
        if EPISODE in columns:
            is_last = np.asarray(columns[EPISODE][0 : columns[EPISODE].shape[0]])
            columns[EPISODE] = np.cumsum(is_last) - is_last
        provenance = {"kind": self.key, "path": str(path.absolute())}
        origin = Origin(name=file_name(path), notes=notes, provenance=provenance)
        yield record_columns(columns, where=str(path), episode_length=reading.episode_length), origin

    def read_files(
        self,
        files: Sequence[Path],
        path: Path,
        reading: Reading,
        read_file: Callable[[Path], dict[str, Column]],
    ) -> tuple[dict[str, Column], tuple[str, ...]]:
        """Read the columns of files, one after the other, and note how many of a folder were damaged."""
        parts: list[dict[str, Column]] = []
        for file in files:
            try:
                parts.append(read_file(file))
            except DamagedFileError:
                if not reading.skip_damaged or file == path:
                    raise
                continue
            if set(parts[-1]) != set(parts[0]):
                there, first = (", ".join(sorted(part)) for part in (parts[-1], parts[0]))
                raise InputError(f"{file}: has {there}; expected {first} as in {files[0].name}")
        if not parts:
            raise DamagedFileError(f"{path}: all {len(files):,} files are damaged; copy them again")
        num_damaged = len(files) - len(parts)
        notes = (f"left out {num_damaged:,} of {len(files):,} files: damaged",) if num_damaged else ()
        return {name: _concatenate([part[name] for part in parts], path, name) for name in parts[0]}, notes

    def _read_file(self, path: Path, given: Path, reading: Reading) -> dict[str, Column]:
        """The columns of a file; that of episodes is 1 in the last row of each."""
        is_episode = [EPISODE] if given.is_dir() else []

        def find(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
            found = locate_columns(names, str(path), reading)
            check_needed([*found, *is_episode], names, str(path), reading)
            return found

        columns = self.read_columns(path, given, find, reading)
        if EPISODE in columns:
            columns[EPISODE] = last_rows(columns[EPISODE], str(path)).astype(np.int64)
        elif is_episode:
            columns[EPISODE] = np.arange(columns["rewards"].shape[0], 0, -1) == 1
        return columns

    def read_columns(
        self,
        path: Path,
        given: Path,
        find: Callable[[Sequence[str]], dict[str, tuple[str, ...]]],
        reading: Reading,
    ) -> dict[str, Column]:
        """The columns of a file by our names; `find` says which of its own those are."""
        try:
            import pyarrow  # noqa: F401
        except ImportError as error:
            raise InputError(
                f"{path}: tables need the extra parquet: pip install 'chibit[parquet]'"
            ) from error
        with open_regular(path, inside=given if given.is_dir() else None) as file:
            with reading_errors(path):
                names, num_rows = self.read_names(file)
            found = find(names)
            wanted = [name for theirs in found.values() for name in theirs]
            size = file.seek(0, 2)
            check_declared_size(path, num_rows * len(wanted) * _NUMBER_BYTES, size)
            if size > memory_budget():
                raise ResourceError(f"{path}: {size >> 20:,} MB, more than half of this machine's memory")
            file.seek(0)
            with reading_errors(path):
                table = self.read_table(file, wanted)
        return {
            ours: join(
                [
                    _numbers(table[name], f"{path}: {name}", ours == EPISODE, reading.skip_damaged)
                    for name in theirs
                ],
                f"{path}: {ours}",
            )
            for ours, theirs in found.items()
        }


def _concatenate(parts: Sequence[Column], path: Path, name: str) -> np.ndarray:
    arrays = [np.asarray(part[slice(None)]) for part in parts]
    if len({array.shape[1:] for array in arrays}) != 1:
        raise InputError(f"{path}: {name} differ in width between files")
    return np.concatenate(arrays)


def _numbers(column: Any, where: str, text: bool = False, empty: bool = False) -> np.ndarray:
    """An arrow column as numbers (n,), or vectors (n, width) of lists.

    Text, and empty cells among reals, which become NaN, are taken only where that is asked for.
    """
    import pyarrow as pa
    import pyarrow.compute

    types, kind = pa.types, column.type
    if types.is_dictionary(kind):
        column = pa.chunked_array([chunk.dictionary_decode() for chunk in column.chunks], kind.value_type)
        kind = kind.value_type
    if types.is_null(kind):
        raise InputError(f"{where} is empty; expected a number in every row")
    if column.null_count and not (empty and types.is_floating(kind)):
        row = int(np.flatnonzero(column.is_null().to_numpy())[0])
        raise InputError(f"{where}: row {row} is empty; expected a number in every row")
    if types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind):
        return np.asarray(column.to_numpy())
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        flat = pa.chunked_array([chunk.flatten() for chunk in column.chunks], kind.value_type)
        values = _numbers(flat, where, empty=empty)
        if not types.is_fixed_size_list(kind):
            lengths = pyarrow.compute.list_value_length(column).unique().to_pylist()
            if len(lengths) > 1:
                shown = f"{min(lengths)} to {max(lengths)}"
                raise InputError(f"{where}: lists of {shown} numbers; expected one length")
        return values.reshape(len(column), -1)
    if types.is_string(kind) or types.is_large_string(kind):
        values = column.to_pylist()
        if text:
            return np.array(values)
        row = next((row for row, value in enumerate(values) if not _is_number(value)), 0)
        raise InputError(f"{where}: row {row} is {values[row][:40]!r}; expected numbers")
    raise InputError(f"{where} has type {kind}; expected numbers")


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True

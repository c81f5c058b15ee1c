"""Tables of steps, a row a step: one file with a column of episodes, or a folder of files, an episode each.

A format says how one of its files is read as arrow's columns; here they become arrays of plain numbers.
"""

from __future__ import annotations

import codecs
import contextlib
import itertools
import re
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np

from chibit.core.arrays import reading as reading_errors
from chibit.core.errors import DamagedFileError, InputError, ResourceError
from chibit.core.files import links_within, list_folder, open_regular
from chibit.core.formatting import listed
from chibit.data.readers.arrow_columns import is_rounded, numbers_of, stored, times_of
from chibit.data.readers.base import FORMATS, suffix_of
from chibit.data.readers.columns import (
    EPISODE,
    TIME,
    Column,
    Reading,
    check_needed,
    describe_columns,
    join,
    locate_columns,
)
from chibit.data.readers.nested import Header
from chibit.data.readers.origin import Origin, file_name
from chibit.data.readers.recording import (
    Recording,
    last_rows,
    left_out,
    read_vector,
    record_columns,
)
from chibit.data.readers.sandbox import ApartColumnFormat
from chibit.data.readers.size_limits import check_declared_size, memory_budget
from chibit.data.readers.timing import TimeColumn, find_time, in_order

_NUMBER_BYTES = 8
_MOST_LABELS = 10
_HEAD_BYTES = 1 << 16
_LIST = re.compile(r"[\[(][\s\d.+-]*[,\s;]")
"""How a text begins that is numbers in brackets, which a line of units (``[m]``) is not."""
_WIDE_TEXT = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass
class _Seen:
    """What the files of a source say beside their columns."""

    ends: list[tuple[Any, Any]] = field(default_factory=list)
    """Which episodes a file of a folder begins and ends with, where it says so."""
    time: TimeColumn | None = None
    """Of the first file."""
    description: tuple[dict[str, Any], tuple[str, ...]] | None = None
    """Of the first file, as `describe_columns` gives it."""
    found: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Columns of the first file that has objects, by our names."""

    def spread(
        self, header: Header, found: Mapping[str, tuple[str, ...]], path: Path
    ) -> dict[str, tuple[str, ...]]:
        """Columns of a file with what is in objects, in the order of the first file: theirs may be any."""
        spread = {ours: header.spread(theirs, str(path)) for ours, theirs in found.items()}
        if not header.parts:
            return spread
        self.found = self.found or spread
        for ours, theirs in spread.items():
            first = self.found.get(ours, theirs)
            if sorted(theirs) != sorted(first):
                there = f"{listed(theirs, 20)} for {ours}"
                raise InputError(f"{path}: has {there}; expected {listed(first, 20)} as in the first file")
        return {ours: self.found.get(ours, theirs) for ours, theirs in spread.items()}


class TableFormat(ApartColumnFormat):
    """A format of tables, read by pyarrow in a process of their own."""

    has_time: ClassVar[bool] = True
    first_line: ClassVar[int | None] = None
    """Of a file, on which its first row is, from 1; None where rows are no lines."""
    remedy_of_numbers: ClassVar[str] = "write them without quotes"
    """For a column of texts that are all numbers."""

    def claim(self, path: Path) -> Path | None:
        """A file, or a folder that holds some."""
        if path.is_dir():
            return path if any(suffix_of(file) in self.suffixes for file in _shown(path.iterdir())) else None
        return super().claim(path)

    @abstractmethod
    def read_header(self, file: BinaryIO) -> Header:
        """What a file says of its columns."""

    @abstractmethod
    def read_table(self, file: BinaryIO, names: Sequence[str]) -> Mapping[str, Any]:
        """Some columns of a file, as arrow's; those in objects under `Header.leaves`."""

    def read_texts(self, file: BinaryIO, name: str) -> Any:
        """A column of numbers as it is written, as arrow's texts; None where nothing else is written."""
        return None

    @contextlib.contextmanager
    def read_here_as(self, path: Path, reading: Reading) -> Iterator[tuple[Recording, Origin]]:
        """Read all files, one after the other."""
        files = self._tables_in(path) if path.is_dir() else [path]
        seen = _Seen()
        columns, notes = self.read_files(
            files, path, reading, lambda file: self._read_file(file, path, reading, seen)
        )
        if path.is_dir() and (others := self._others_in(path)):
            notes += (
                f"not read in this folder: {listed(others)}; unpack, rename or move what belongs to it",
            )
        if split := sum(last == first for (_, last), (first, _) in itertools.pairwise(seen.ends)):
            notes += (f"{split:,} files begin with the episode of the file before: taken as another one",)
        if EPISODE in columns:
            is_last = np.asarray(columns[EPISODE][0 : columns[EPISODE].shape[0]])
            columns[EPISODE] = np.cumsum(is_last) - is_last
        columns, more = in_order(columns, seen.time or TimeColumn(""), str(path))
        notes += more
        described, more = seen.description or ({}, ())
        provenance = {"kind": self.key, "path": str(path.absolute()), **described}
        origin = Origin(name=file_name(path), notes=(*notes, *more), provenance=provenance)
        yield record_columns(columns, where=str(path), reading=reading), origin

    def _tables_in(self, folder: Path) -> list[Path]:
        """The files of a folder; InputError where it has tables of other formats too."""
        suffixes = {s for each in FORMATS.values() if isinstance(each, TableFormat) for s in each.suffixes}
        files = [file for file in _shown(list_folder(folder, inside=folder)) if suffix_of(file) in suffixes]
        kinds = sorted({suffix_of(file) for file in files})
        if not set(kinds) <= set(self.suffixes):
            raise InputError(
                f"{folder}: has tables of several kinds ({', '.join(kinds)}); put each in a folder"
            )
        return files

    def _others_in(self, folder: Path) -> list[str]:
        """Names of what may hold steps in a folder and is not read: ``b.csv.gz``, folders."""
        suffixes = {suffix for each in FORMATS.values() for suffix in each.suffixes}
        return [
            file.name
            for file in _shown(list_folder(folder, inside=folder))
            if suffix_of(file) not in self.suffixes
            and (file.is_dir() or {each.lower() for each in file.suffixes} & suffixes)
        ]

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
            if parts[-1].keys() - {TIME} != parts[0].keys() - {TIME}:
                there, first = (", ".join(sorted(part)) for part in (parts[-1], parts[0]))
                raise InputError(f"{file}: has {there}; expected {first} as in {files[0].name}")
        if not parts:
            raise DamagedFileError(f"{path}: all {len(files):,} files are damaged; copy them again")
        whole = [part for part in parts if next(iter(part.values())).shape[0]]
        if not whole:
            raise InputError(f"{path}: no steps")
        reasons = {"damaged": len(files) - len(parts), "they have no rows": len(parts) - len(whole)}
        notes = left_out(reasons, len(files), "files")
        names = [name for name in whole[0] if all(name in part for part in whole)]  # times may lack in some
        return {name: _concatenate([part[name] for part in whole], path, name) for name in names}, notes

    def _read_file(self, path: Path, given: Path, reading: Reading, seen: _Seen) -> dict[str, Column]:
        """The columns of a file; that of episodes is 1 in the last row of each. `seen` takes in the rest."""
        is_episode = [EPISODE] if given.is_dir() else []

        def find(header: Header) -> dict[str, tuple[str, ...]]:
            found = locate_columns(header.names, str(path), reading, header.inner)
            check_needed([*found, *is_episode], header.names, str(path), reading)
            time = find_time(header.names, found, reading)
            seen.time = seen.time or time
            found |= {TIME: (time.name,)} if time.name else {}
            return seen.spread(header, found, path)

        columns, description = self.read_columns(path, given, find, reading)
        seen.description = seen.description or description
        if EPISODE in columns and columns[EPISODE].shape[0]:
            names = read_vector(columns[EPISODE], f"{path}: {EPISODE}")
            seen.ends.append((names[0], names[-1]))
            columns[EPISODE] = last_rows(names, str(path)).astype(np.int64)
        elif is_episode:
            columns[EPISODE] = np.arange(columns["rewards"].shape[0], 0, -1) == 1
        return columns

    def read_columns(
        self,
        path: Path,
        given: Path,
        find: Callable[[Header], dict[str, tuple[str, ...]]],
        reading: Reading,
    ) -> tuple[dict[str, Column], tuple[dict[str, Any], tuple[str, ...]]]:
        """The columns of a file by our names, which `find` tells by its own, and `describe_columns`."""
        try:
            import pyarrow  # noqa: F401
        except ImportError as error:
            raise InputError(
                f"{path}: tables need the extra parquet: pip install 'chibit[parquet]'"
            ) from error
        with open_regular(path, inside=links_within(given) if given.is_dir() else None) as file:
            size = file.seek(0, 2)
            if not size:
                raise DamagedFileError(f"{path}: is empty; copy or write it again")
            file.seek(0)
            if self.first_line is not None:
                _check_encoding(file, path)
            with reading_errors(path):
                header = self.read_header(file)
            found = find(header)
            wanted = [name for theirs in found.values() for name in theirs]
            check_declared_size(path, header.num_rows * len(wanted) * _NUMBER_BYTES, size)
            if size > memory_budget():
                raise ResourceError(f"{path}: {size >> 20:,} MB, more than half of this machine's memory")
            file.seek(0)
            with reading_errors(path):
                whole = self.read_table(file, wanted)
                table = {name: stored(whole[name]) for name in wanted}
                for name in filter(lambda name: is_rounded(table[name]), found.get(EPISODE, ())):
                    file.seek(0)
                    texts = self.read_texts(file, name)
                    table[name] = table[name] if texts is None else texts
        parts: dict[str, list[Column]] = {ours: [] for ours in found}
        lacks_any, widths = np.zeros(len(table[wanted[0]]), bool), dict.fromkeys(wanted, 1)
        for ours, name in ((ours, name) for ours, theirs in found.items() for name in theirs):
            if ours == TIME:
                parts[TIME].append(times_of(table[name]))
                continue
            self._refuse_text(table[name], path, name, ours)
            values, lacks = numbers_of(table[name], f"{path}: {name}", is_text=ours == EPISODE)
            if lacks.any() and (ours == EPISODE or not reading.skip_damaged):
                remedy = "" if ours == EPISODE else ", or leave such episodes out by --skip-damaged"
                remedy = f", take the column out{remedy}" if ours == "next_observations" else remedy
                place = self._place(path, int(np.flatnonzero(lacks)[0]))
                raise InputError(f"{path}: {name}: {place} is empty or NaN; fill it in{remedy}")
            parts[ours].append(values)
            widths[name] = values.shape[1] if values.ndim == 2 else 1
            lacks_any |= lacks
        columns = {ours: join(arrays, f"{path}: {ours}") for ours, arrays in parts.items()}
        if lacks_any.any():  # marked, so that the episode is left out
            seen = np.array(columns["observations"][0 : len(lacks_any)], np.float64)
            seen[lacks_any] = np.nan
            columns["observations"] = seen
        return columns, describe_columns(header.leaves, found, widths)

    def _place(self, path: Path, row: int) -> str:
        """Where a row is, for a message. Readers pass over empty lines."""
        if self.first_line is None:
            return f"row {row:,} (from 0)"
        line = row + self.first_line
        with open_regular(path) as file:
            written = (number for number, text in enumerate(file, 1) if text.strip(b"\r\n"))
            return f"line {next(itertools.islice(written, line - 1, None), line):,}"

    def _refuse_text(self, column: Any, path: Path, name: str, ours: str) -> None:
        """Refuse text and times as numbers, in a line that says what to do."""
        import pyarrow as pa

        if ours == EPISODE or not len(column):
            return
        types, kind, where = pa.types, column.type, f"{path}: {name}"
        kind = kind.value_type if types.is_dictionary(kind) else kind
        if types.is_binary(kind) or types.is_large_binary(kind):
            raise InputError(f"{where} is text, and not UTF-8; save the file as UTF-8")
        if types.is_temporal(kind):
            raise InputError(
                f"{where} has type {kind}; expected numbers: write hours or days as such, or say "
                f"--columns {TIME}=COLUMN where it only says when a step was"
            )
        if not (types.is_string(kind) or types.is_large_string(kind)):
            return
        texts = column.cast(kind).to_pylist()
        row = next((row for row, text in enumerate(texts) if text is None or not _is_number(text)), 0)
        labels = sorted({text for text in texts if text and not _is_number(text)})
        are_numbers = [text is not None and _is_number(text) for text in texts]
        numbers = (
            "write 1 and 0"
            if ours in ("terminations", "truncations")
            else "write a number, or take the line out"
        )
        if all(are_numbers):
            numbers = self.remedy_of_numbers
        elif _LIST.match(str(texts[row])):
            numbers = f"write a column for each number: {name}_0, {name}_1, ..."
        elif ours == "actions" and len(labels) <= _MOST_LABELS and not any(are_numbers):
            pairs = ", ".join(f"{label[:20]} as {number}" for number, label in enumerate(labels))
            numbers = f"write choices as whole numbers from 0 ({pairs})"
        elif ours == "observations" and 1 < len(labels) <= _MOST_LABELS:
            shown = ", ".join(label[:20] for label in labels)
            numbers = f"write a column of 1 and 0 for each of {shown}, or name others by --columns {ours}=..."
        found = f"{self._place(path, row)} is {str(texts[row])[:40]!r}"
        raise InputError(f"{where}: {found}; expected numbers; {numbers}")


def _check_encoding(file: BinaryIO, path: Path) -> None:
    """Refuse text in another encoding than UTF-8, by the beginning of a file."""
    head = file.read(_HEAD_BYTES)
    file.seek(0)
    is_text = head.startswith(_WIDE_TEXT)
    with contextlib.suppress(UnicodeDecodeError):
        codecs.getincrementaldecoder("utf-8")().decode(head)
        return
    if is_text or b"\0" not in head:  # else it is no text at all, and the reader says so
        raise InputError(f"{path}: text that is not UTF-8; save it as UTF-8 (encoding, character set)")


def _concatenate(parts: Sequence[Column], path: Path, name: str) -> np.ndarray:
    arrays = [np.asarray(part[slice(None)]) for part in parts]
    if len({array.shape[1:] for array in arrays}) != 1:
        raise InputError(f"{path}: {name} differ in width between files")
    if name == TIME and len({array.dtype.kind == "M" for array in arrays}) != 1:
        arrays = [np.full(len(array), np.nan) for array in arrays]
    return np.concatenate(arrays)


def _shown(files: Iterable[Path]) -> Iterator[Path]:
    """Files that are not hidden, as those are that macOS writes beside others (``._a.csv``)."""
    return (file for file in files if not file.name.startswith("."))


def _is_number(value: str) -> bool:
    """As arrow sees it, which takes neither the digits of other scripts nor ``1_000``, as Python does."""
    try:
        float(value)
    except ValueError:
        return False
    return value.isascii() and "_" not in value

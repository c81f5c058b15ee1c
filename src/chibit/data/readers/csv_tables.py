"""Tables in CSV files with a line of names, separated by commas, semicolons or tabs."""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, ClassVar

from chibit.data.readers.nested import Header
from chibit.data.readers.tables import TableFormat

_HEAD_BYTES = 1 << 20
_WITH_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")


class CsvTables(TableFormat, key="csv"):
    """CSV files."""

    suffixes = (".csv", ".tsv")
    first_line: ClassVar[int | None] = 2
    expected = ".csv or .tsv (a row a step)"
    remedy_of_numbers = "write decimals with points in all columns, or with commas in all"

    def read_header(self, file: BinaryIO) -> Header:
        """Read the first line."""
        return Header(_Head.read(file).names)

    def read_table(self, file: BinaryIO, names: Sequence[str]) -> Mapping[str, Any]:
        """Read columns, whose types follow from all of their rows."""
        table: Mapping[str, Any] = _read(file, names)
        return table

    def read_texts(self, file: BinaryIO, name: str) -> Any:
        """Read a column without a look at what it holds."""
        import pyarrow as pa

        return _read(file, [name], {name: pa.string()})[name]


def _read(file: BinaryIO, names: Sequence[str], types: Mapping[str, Any] | None = None) -> Any:
    """Read columns of an open file, whose types follow from all of their rows where they are not given."""
    from pyarrow.csv import ConvertOptions, ParseOptions, ReadOptions, read_csv

    head = _Head.read(file)
    if not head.has_rows:  # names alone, without the end of their line
        return dict.fromkeys(names, ())
    file.seek(0)
    return read_csv(
        file,
        read_options=ReadOptions(use_threads=False, column_names=head.names, skip_rows=1),
        parse_options=ParseOptions(delimiter=head.delimiter),
        convert_options=ConvertOptions(
            include_columns=list(dict.fromkeys(names)),
            decimal_point="," if head.has_decimal_commas(names) else ".",
            column_types=types,
        ),
    )


@dataclass(frozen=True)
class _Head:
    """The beginning of a file."""

    names: list[str]
    """Of the columns, without spaces around them."""
    delimiter: str
    """What separates them: what is there most often, in the first row as well."""
    lines: Sequence[str]
    """Of the first rows, with their ends."""
    has_rows: bool

    @classmethod
    def read(cls, file: BinaryIO) -> _Head:
        """Read the first megabyte; raises ValueError for a line of names that is none."""
        start = file.read(_HEAD_BYTES).removeprefix(codecs.BOM_UTF8)
        first, *lines = start.splitlines(keepends=True) or [b""]
        line = first.decode().strip("\r\n")
        rows = [text for text in (row.decode(errors="replace") for row in lines) if text.strip()]
        row = rows[0] if rows else line
        delimiter = max(",;\t", key=lambda mark: (min(line.count(mark), row.count(mark)), line.count(mark)))
        try:
            names = next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
        except csv.Error as error:
            raise ValueError(str(error)) from error
        return cls([name.strip() for name in names], delimiter, rows, bool(lines) or bool(file.read(1)))

    def has_decimal_commas(self, wanted: Collection[str]) -> bool:
        """Whether commas do not separate, and one is in a number of wanted columns in the first rows."""
        if self.delimiter == ",":
            return False
        places = [i for i, name in enumerate(self.names) if name in wanted]
        try:
            for row in csv.reader(self.lines, delimiter=self.delimiter):
                if any(_WITH_COMMA.fullmatch(row[i].strip()) for i in places if i < len(row)):
                    return True
        except csv.Error:  # what is not read here is not read as columns either
            pass
        return False

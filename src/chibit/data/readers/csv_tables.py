"""Tables in CSV files with a line of names, separated by commas, semicolons or tabs."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO, ClassVar

from chibit.data.readers.nested import Header
from chibit.data.readers.tables import TableFormat

_MAX_HEADER_BYTES = 1 << 20


class CsvTables(TableFormat, key="csv"):
    """CSV files."""

    suffixes = (".csv", ".tsv")
    first_line: ClassVar[int | None] = 2
    expected = ".csv or .tsv (a row a step)"

    def read_header(self, file: BinaryIO) -> Header:
        """Read the first line."""
        return Header(_header(file)[0])

    def read_table(self, file: BinaryIO, names: Sequence[str]) -> Mapping[str, Any]:
        """Read columns, whose types follow from all of their rows."""
        from pyarrow.csv import ConvertOptions, ParseOptions, ReadOptions, read_csv

        header, delimiter = _header(file)
        start = file.tell()
        if not file.read(1):  # names alone, without the end of their line
            return dict.fromkeys(names, ())
        file.seek(start)
        table: Mapping[str, Any] = read_csv(
            file,
            read_options=ReadOptions(use_threads=False, column_names=header, skip_rows=1),
            parse_options=ParseOptions(delimiter=delimiter),
            convert_options=ConvertOptions(
                include_columns=list(dict.fromkeys(names)), decimal_point=_decimal_point(file, delimiter)
            ),
        )
        return table


def _header(file: BinaryIO) -> tuple[list[str], str]:
    """Names of the columns, without spaces around them, and what separates them: what is there most often."""
    line = file.readline(_MAX_HEADER_BYTES).decode("utf-8-sig").strip("\r\n")
    delimiter = max(",;\t", key=line.count)
    names = next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
    return [name.strip() for name in names], delimiter


def _decimal_point(file: BinaryIO, delimiter: str) -> str:
    """A comma where it does not separate columns and a field of the first rows is a number with one."""
    rows = file.read(_MAX_HEADER_BYTES)
    file.seek(0)
    edge = re.escape(delimiter.encode())
    is_there = re.search(rb"(?:^|%b) *-?\d+,\d+ *(?:%b|\r?$)" % (edge, edge), rows, re.MULTILINE)
    return "," if delimiter != "," and is_there else "."

"""Tables in CSV files with a line of names, separated by commas, semicolons or tabs."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

from chibit.data.readers.tables import TableFormat

_MAX_HEADER_BYTES = 1 << 20


class CsvTables(TableFormat, key="csv"):
    """CSV files."""

    suffixes = (".csv", ".tsv")
    expected = ".csv or .tsv (a row a step)"

    def read_names(self, file: BinaryIO) -> tuple[list[str], int]:
        """Read the first line."""
        line, delimiter = _header(file)
        return next(csv.reader([line], delimiter=delimiter), []), 0

    def read_table(self, file: BinaryIO, names: Sequence[str]) -> Mapping[str, Any]:
        """Read columns, whose types follow from all of their rows."""
        from pyarrow.csv import ConvertOptions, ParseOptions, ReadOptions, read_csv

        _, delimiter = _header(file)
        table: Mapping[str, Any] = read_csv(
            file,
            read_options=ReadOptions(use_threads=False),
            parse_options=ParseOptions(delimiter=delimiter),
            convert_options=ConvertOptions(
                include_columns=list(dict.fromkeys(names)), decimal_point=_decimal_point(file, delimiter)
            ),
        )
        return table


def _header(file: BinaryIO) -> tuple[str, str]:
    """The line of names, and what separates them: what is there most often."""
    line = file.readline(_MAX_HEADER_BYTES).decode("utf-8-sig").strip("\r\n")
    return line, max(",;\t", key=line.count)


def _decimal_point(file: BinaryIO, delimiter: str) -> str:
    """A comma where the first rows have one between digits, and it does not separate columns."""
    rows = file.read(_MAX_HEADER_BYTES)
    file.seek(0)
    return "," if delimiter != "," and re.search(rb"\d,\d", rows) else "."

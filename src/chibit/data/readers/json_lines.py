"""Tables in files of JSON lines: an object a step, with numbers, lists of numbers, and objects of these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO, ClassVar

from chibit.data.readers.nested import Header, flat, header_of
from chibit.data.readers.tables import TableFormat


class JsonLines(TableFormat, key="json lines"):
    """Files of JSON lines."""

    suffixes = (".jsonl", ".ndjson")
    first_line: ClassVar[int | None] = 1
    expected = ".jsonl or .ndjson (an object a step)"

    def read_header(self, file: BinaryIO) -> Header:
        """Read the file, since names may come late."""
        return header_of(_read(file).schema)

    def read_table(self, file: BinaryIO, names: Sequence[str]) -> Mapping[str, Any]:
        """Read all columns."""
        table: Mapping[str, Any] = flat(_read(file))
        return table


def _read(file: BinaryIO) -> Any:
    from pyarrow.json import ReadOptions, read_json

    return read_json(file, read_options=ReadOptions(use_threads=False, block_size=1 << 24))

"""Tables in Parquet files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO, ClassVar

from chibit.data.readers.nested import Header, flat, header_of
from chibit.data.readers.tables import TableFormat


class Parquet(TableFormat, key="parquet"):
    """Parquet files."""

    suffixes: ClassVar[tuple[str, ...]] = (".parquet",)
    expected = ".parquet (a row a step)"

    def read_header(self, file: BinaryIO) -> Header:
        """Read the description at the end of the file."""
        from pyarrow.parquet import ParquetFile

        description = ParquetFile(file)
        return header_of(description.schema_arrow, int(description.metadata.num_rows))

    def read_table(self, file: BinaryIO, names: Sequence[str]) -> Mapping[str, Any]:
        """Read columns."""
        from pyarrow.parquet import ParquetFile

        table: Mapping[str, Any] = flat(ParquetFile(file).read(list(dict.fromkeys(names)), use_threads=False))
        return table

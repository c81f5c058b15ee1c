"""Tables that come with the package."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from chibit.core.files import open_regular


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file, by the names in its first line."""
    with io.TextIOWrapper(open_regular(path), "utf-8", newline="") as file:
        return list(csv.DictReader(file))

"""How much a file from elsewhere may ask for, checked on what it declares, before anything is read."""

from __future__ import annotations

from pathlib import Path

from rich.filesize import decimal

from chibit.core.errors import DamagedFileError, ResourceError
from chibit.core.memory import memory_budget as memory_budget

MAX_RATIO = 10_000
"""Declared over stored bytes. Deflate packs at most 1,032 times, and so pictures of tiles are; columns of
Parquet that hardly change are packed some thousands of times. What declares more does not hold it."""
SMALL = 64 << 20
"""Bytes below which the ratio does not matter."""


def check_declared_size(path: Path, declared: int, stored: int) -> None:
    """Refuse a file whose arrays would not fit into memory, or that is far too small to hold them.

    Args:
        path: the file, for the message.
        declared: bytes of all arrays that are to be read, by the file's own account.
        stored: bytes of the file.
    """
    if declared > max(SMALL, MAX_RATIO * stored):
        raise DamagedFileError(
            f"{path}: declares {decimal(declared)} of data in a file of {decimal(stored)}; it is damaged or "
            "not to be trusted"
        )
    if declared > memory_budget():
        raise ResourceError(
            f"{path}: holds {decimal(declared)}, more than half of this machine's memory "
            f"({decimal(memory_budget())}); use a part of the data or a larger machine"
        )

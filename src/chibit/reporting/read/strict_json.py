"""JSON from run directories, read strictly: what is not as it should be is `Refused`, with the reason."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from chibit.core.config import unambiguous
from chibit.core.errors import DamagedFileError, UserError, shown
from chibit.core.files import read_regular
from chibit.core.run_records import MetricsRecord, read_record

T = TypeVar("T")
Kind = Literal[
    "unfinished", "diverged", "damaged", "foreign", "other schema", "not evaluated", "not played",
    "duplicate",
]  # fmt: skip

_MAX_NAME = 200
_LARGEST = 1e39
"""Beyond single precision, in which returns and losses are kept; sums and squares of it are still finite."""
_MAX_INTEGER = 2**63 - 1
_MAX_DEPTH, _MAX_KEYS, _MAX_TEXT, _MAX_REASON = 20, 1000, 2000, 400
_MAX_OBJECT_BYTES, _MAX_LOG_BYTES = 4 << 20, 1 << 30


class Refused(Exception):
    """Why a folder is not read."""

    def __init__(self, kind: Kind, reason: str) -> None:
        super().__init__(reason)
        self.kind: Kind = kind
        self.reason = _cut(" ".join(reason.split()), _MAX_REASON)


def read_object(folder: Path, name: str) -> dict[str, Any]:
    """A JSON file that holds one object."""
    value = _parse(_read_bytes(folder, name, _MAX_OBJECT_BYTES), name)
    if not isinstance(value, dict):
        raise Refused("damaged", f"{name}: {type(value).__name__} where an object was expected")
    return value


def read_lines(
    folder: Path, name: str, *, at_most: int | None = None, cut_allowed: bool = False
) -> Iterator[tuple[str, Any]]:
    """Values of a JSON-lines log, each with where it stands; nothing for a log that is not there.

    Args:
        folder: run directory.
        name: name of the log.
        at_most: read only this many records, evenly spaced, the first and the last among them.
        cut_allowed: accept a last line that was cut off, and leave it out.

    Raises:
        Refused: for a line that is not JSON.
    """
    if not os.path.lexists(folder / name):
        return
    *lines, rest = _read_bytes(folder, name, _MAX_LOG_BYTES).split(b"\n")
    if rest and not cut_allowed:
        raise Refused("damaged", f"{name}: its last line is cut off")
    chosen = list(range(len(lines)))
    if at_most is not None and len(lines) > at_most:
        chosen = sorted({round(i) for i in np.linspace(0, len(lines) - 1, at_most)})
    for i in chosen:
        where = f"{name}, line {i + 1}"
        yield where, _parse(lines[i], where)


def read_as(kind: type[T], data: Any, where: str) -> T:
    """A record as `core.run_records` declares it."""
    try:
        return read_record(kind, data, where)
    except DamagedFileError as error:
        raise Refused("damaged", str(error)) from error


def read_step(record: Any, where: str) -> int:
    """The step of a line of metrics.jsonl, as `MetricsRecord` declares it, in less time."""
    step = record.get("step") if isinstance(record, dict) else None
    return step if type(step) is int and step >= 0 else read_as(MetricsRecord, record, where).step


def read_number(value: Any, where: str) -> float:
    """A finite number."""
    if type(value) not in (int, float):
        raise Refused("damaged", f"{where} is {shown(value)}, expected a finite number")
    return float(value)


def shown_name(path: Path) -> str:
    """A path's last part, of ``.`` that of the folder it is, as text that any file can hold.

    Names need not be Unicode.
    """
    name = os.path.basename(os.path.abspath(path))
    return os.fsencode(name).decode("utf-8", "replace")


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _read_bytes(folder: Path, name: str, most: int) -> bytes:
    try:
        return read_regular(folder / name, inside=folder, most=most)
    except UserError as error:
        reason = str(error).removeprefix(f"{folder / name}: ")
        raise Refused("damaged", f"{name}: {reason}") from error


def _parse(text: bytes, where: str) -> Any:
    try:
        return _checked(json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=unambiguous), 0)
    except (ValueError, RecursionError) as error:
        raise Refused("damaged", f"{where}: not valid JSON") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _checked(value: Any, depth: int) -> Any:
    """The same value with long texts cut; ValueError where it is nested too deep, or is none of ours."""
    if type(value) is float:
        if not abs(value) <= _LARGEST:
            raise ValueError("a number beyond all measure")
        return value
    if type(value) is int:
        if abs(value) > _MAX_INTEGER:
            raise ValueError("an integer beyond 64 bits")
        return value
    if depth > _MAX_DEPTH:
        raise ValueError("nested too deep")
    if isinstance(value, str):
        value.encode()  # a lone surrogate is a UnicodeEncodeError, which is a ValueError
        return _cut(value, _MAX_TEXT)
    if isinstance(value, list):
        if all(type(item) is float and abs(item) <= _LARGEST for item in value):
            return value
        return [_checked(item, depth + 1) for item in value]
    if isinstance(value, dict):
        if len(value) > _MAX_KEYS:
            raise ValueError(f"{len(value)} keys in one object")
        if not all(len(key) <= _MAX_NAME and key.isprintable() for key in value):
            raise ValueError("a key that is no name")
        return {key: _checked(item, depth + 1) for key, item in value.items()}
    return value

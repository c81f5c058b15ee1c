"""JSON from run directories, read strictly: what is not as it should be is `Refused`, with the reason."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

Kind = Literal["unfinished", "diverged", "damaged", "foreign", "other schema", "not evaluated", "duplicate"]

_MAX_NAME = 200
_MAX_STEP = 2**53
_LARGEST = 1e300
"""No return or loss comes near it; comparing also refuses NaN, infinity and integers that no float holds."""


class Refused(Exception):
    """Why a folder is not read."""

    def __init__(self, kind: Kind, reason: str) -> None:
        super().__init__(reason)
        self.kind: Kind = kind
        self.reason = reason


def read_object(folder: Path, name: str) -> dict[str, Any]:
    """A JSON file that holds one object."""
    value = _parse(_read_bytes(folder, name), name)
    if not isinstance(value, dict):
        raise Refused("damaged", f"{name}: {type(value).__name__} where an object was expected")
    return value


def read_lines(
    folder: Path, name: str, *, at_most: int | None = None, cut_allowed: bool = False
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Records of a JSON-lines log, each with where it stands; nothing for a log that is not there.

    Args:
        folder: run directory.
        name: name of the log.
        at_most: read only this many records, evenly spaced, the first and the last among them.
        cut_allowed: accept a last line that was cut off, and leave it out.

    Raises:
        Refused: for a line that is not a record with a step.
    """
    if not (folder / name).is_file():
        return
    *lines, rest = _read_bytes(folder, name).split(b"\n")
    if rest and not cut_allowed:
        raise Refused("damaged", f"{name}: its last line is cut off")
    chosen = list(range(len(lines)))
    if at_most is not None and len(lines) > at_most:
        chosen = sorted({round(i) for i in np.linspace(0, len(lines) - 1, at_most)})
    for i in chosen:
        where = f"{name}, line {i + 1}"
        record = _parse(lines[i], where)
        step = record.get("step") if isinstance(record, dict) else None
        if type(step) is not int or not 0 <= step <= _MAX_STEP:
            raise Refused("damaged", f"{where}: not a log record with a step")
        yield where, record


def require(data: dict[str, Any], key: str, kind: type, where: str) -> Any:
    """A field of exactly that type (so that true is no integer)."""
    value = data.get(key)
    if type(value) is not kind:
        raise Refused("damaged", f"{where}: {key} is {quoted(value)}, expected {kind.__name__}")
    return value


def require_name(data: dict[str, Any], key: str, where: str) -> str:
    """A field that holds a printable text of reasonable length."""
    value: str = require(data, key, str, where)
    if not value or len(value) > _MAX_NAME or not value.isprintable():
        raise Refused("foreign", f"{where}: {key} {quoted(value)} is not a name")
    return value


def require_number(value: Any, where: str) -> float:
    """A finite number."""
    if type(value) not in (int, float) or not abs(value) <= _LARGEST:
        raise Refused("damaged", f"{where} is {quoted(value)}, expected a finite number")
    return float(value)


def quoted(value: Any) -> str:
    """A value as a message shows it, cut to 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _read_bytes(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise Refused("damaged", f"{name}: cannot be read ({error.strerror})") from error


def _parse(text: bytes, where: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise Refused("damaged", f"{where}: not valid JSON") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")

"""Configuration as frozen dataclasses: to JSON, strictly back from JSON, and a content hash.

Strict means: an unknown key, a missing required key or a value of the wrong type is refused by name. Nothing
is converted "just in case"; the one exception is JSON's own: an integer where a float is expected, and a list
where a tuple is.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from chibit.core.errors import DamagedFileError, InputError
from chibit.core.files import nearest, read_regular

T = TypeVar("T")
_MAX_JSON_BYTES = 64 << 20


def to_json(config: Any) -> Any:
    """A dataclass (or tuple, dict, number, string, None) as plain JSON values."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {field.name: to_json(getattr(config, field.name)) for field in dataclasses.fields(config)}
    if isinstance(config, (list, tuple)):
        return [to_json(value) for value in config]
    if isinstance(config, Mapping):
        return {str(key): to_json(value) for key, value in config.items()}
    if isinstance(config, Path):
        return str(config)
    return config


def from_json(cls: type[T], data: Any, where: str = "config", ready: Mapping[str, Any] | None = None) -> T:
    """Build a dataclass from JSON values.

    Args:
        cls: the dataclass.
        data: what ``json.load`` gave.
        where: what is being read, for the message, for example "config.json".
        ready: fields whose values are objects already, for those whose class depends on the data.

    Raises:
        InputError: naming the field, what was given and what was expected.
    """
    value: T = _convert_dataclass(cls, data, where, ready or {})
    return value


def config_hash(config: Any) -> str:
    """Eight hexadecimal digits of the SHA-256 over the canonical JSON of a configuration."""
    canonical = json.dumps(to_json(config), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:8]


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: if it is missing, or is no regular file.
        DamagedFileError: if it is not valid JSON.
    """
    content = read_regular(path, most=_MAX_JSON_BYTES, remedy="check the path, or restore it")
    try:
        return json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"{path}: not valid JSON ({error}); restore the file or remove it") from error


def _convert(kind: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(kind)
    if kind is Any:
        return value
    if origin is Literal:
        return _convert_literal(kind, value, where)
    if origin in (Union, types.UnionType):
        return _convert_union(kind, value, where)
    if origin is tuple:
        return _convert_tuple(kind, value, where)
    if origin is dict:
        if not isinstance(value, dict):
            raise _refusal(where, value, "an object")
        value_kind = typing.get_args(kind)[1]
        return {key: _convert(value_kind, item, f"{where}.{key}") for key, item in value.items()}
    if dataclasses.is_dataclass(kind):
        return _convert_dataclass(kind, value, where)
    return _convert_scalar(kind, value, where)


def _convert_scalar(kind: Any, value: Any, where: str) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is type(None):
        if value is None:
            return None
        raise _refusal(where, value, "null")
    if kind is Path:
        if isinstance(value, str):
            return Path(value)
        raise _refusal(where, value, "a path")
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise _refusal(where, value, getattr(kind, "__name__", str(kind)))
    return value


def _convert_literal(kind: Any, value: Any, where: str) -> Any:
    choices = typing.get_args(kind)
    if value not in choices or type(value) not in {type(choice) for choice in choices}:
        hint = nearest(value, [c for c in choices if isinstance(c, str)]) if isinstance(value, str) else ""
        raise _refusal(where, value, "one of " + ", ".join(map(str, choices)) + hint)
    return value


def _convert_union(kind: Any, value: Any, where: str) -> Any:
    failures = []
    for option in typing.get_args(kind):
        try:
            return _convert(option, value, where)
        except InputError as error:
            failures.append(error)
    raise failures[0]


def _convert_tuple(kind: Any, value: Any, where: str) -> tuple:
    if not isinstance(value, (list, tuple)):
        raise _refusal(where, value, "a list")
    item_kinds = typing.get_args(kind)
    if len(item_kinds) == 2 and item_kinds[1] is Ellipsis:
        item_kinds = (item_kinds[0],) * len(value)
    if len(item_kinds) != len(value):
        raise _refusal(where, value, f"{len(item_kinds)} values")
    return tuple(
        _convert(item, v, f"{where}[{i}]") for i, (item, v) in enumerate(zip(item_kinds, value, strict=True))
    )


def _convert_dataclass(kind: Any, value: Any, where: str, ready: Mapping[str, Any] | None = None) -> Any:
    ready = ready or {}
    if not isinstance(value, dict):
        raise _refusal(where, value, "an object")
    hints = typing.get_type_hints(kind)
    fields = {
        field.name: field for field in dataclasses.fields(kind) if field.init and field.name not in ready
    }
    for key in value:
        if key not in fields:
            raise InputError(f"{where}: unknown field {key!r}{nearest(str(key), fields)}")
    missing = [
        name
        for name, field in fields.items()
        if name not in value
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise InputError(f"{where}: missing field {missing[0]!r}")
    converted = {key: _convert(hints[key], item, f"{where}.{key}") for key, item in value.items()}
    return kind(**converted, **ready)


def _refusal(where: str, value: Any, expected: str) -> InputError:
    shown = repr(value)
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    return InputError(f"{where}: got {shown}, expected {expected}")

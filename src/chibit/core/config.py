"""Configuration as frozen dataclasses: checked however they are made, to JSON, back from it, and hashed.

A config class inherits `Checked`: flags, JSON and Python alike then refuse an unknown field, a missing one, a
value of the wrong type or outside the range that `core.fields` let the field declare. Nothing is converted
"just in case"; the exceptions are an integer where a float is expected, a list where a tuple is, text where a
path is, `~` in a path, and numpy's numbers and arrays.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union

import numpy as np

from chibit.core.errors import DamagedFileError, InputError, shown
from chibit.core.fields import (
    FLOAT32,
    INT64,
    Flat,
    Needs,
    NeedsData,
    Since,
    Was,
    check_declared,
    check_number,
    check_text,
    refusal,
)
from chibit.core.files import nearest, read_regular

T = TypeVar("T")
_MAX_JSON_BYTES = 64 << 20
_checked: ContextVar[type | None] = ContextVar("_checked", default=None)
"""Class whose fields `from_json` has just checked, so that they are not checked twice."""


class Checked:
    """Base of config dataclasses: each field has the type and lies in the range that it declares.

    A class that must check fields against each other does so after ``super().__post_init__()``.
    """

    def __post_init__(self) -> None:
        kind: Any = type(self)
        if _checked.get() is kind:
            _checked.set(None)
            return
        hints = _hints(kind)
        for field in dataclasses.fields(kind):
            given = getattr(self, field.name)
            value = _convert(hints[field.name], given, field.name)
            if value is not given:
                object.__setattr__(self, field.name, value)


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind, include_extras=True)


@cache
def _on_disk(kind: Any, name: str) -> tuple[Was, bool]:
    """What files call a field, and whether they write its own fields in its place."""
    declared = declarations(kind, name)
    was = next((found for found in declared if isinstance(found, Was)), Was(name))
    return was, any(isinstance(found, Flat) for found in declared)


@cache
def _since(kind: Any) -> dict[str, Any]:
    """Fields that came later, and the values that files without them mean."""
    declared = {field.name: declarations(kind, field.name) for field in dataclasses.fields(kind)}
    return {name: x.before for name, found in declared.items() for x in found if isinstance(x, Since)}


def declarations(kind: Any, name: str) -> tuple[Any, ...]:
    """What a field's ``Annotated`` type declares."""
    hint = _hints(kind)[name]
    return typing.get_args(hint)[1:] if typing.get_origin(hint) is Annotated else ()


def renamed(config: Any) -> Iterator[tuple[str, Was]]:
    """Fields of a config, and of those nested in it, that had another name or other values, with what was."""
    kind: Any = type(config)
    for field in dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ():
        was, _ = _on_disk(kind, field.name)
        if was != Was(field.name):
            yield field.name, was
        yield from renamed(getattr(config, field.name))


def to_json(config: Any) -> Any:
    """A dataclass (or tuple, dict, number, string, None) as plain JSON values, by its fields' first names."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        record: dict[str, Any] = {}
        for field in dataclasses.fields(config):
            was, is_flat = _on_disk(type(config), field.name)
            given = getattr(config, field.name)
            if _since(type(config)).get(field.name, dataclasses.MISSING) == given:
                continue
            value = to_json(was.write(given))
            record |= value if is_flat else {was.name: value}
        return record
    if isinstance(config, (list, tuple)):
        return [to_json(value) for value in config]
    if isinstance(config, Mapping):
        return {str(key): to_json(value) for key, value in config.items()}
    if isinstance(config, Path):
        return str(config)
    return config


def from_json(cls: type[T], data: Any, where: str = "config") -> T:
    """Build a dataclass from JSON values.

    Args:
        cls: the dataclass.
        data: what ``json.load`` gave; what is an object of its field's class already stays it.
        where: what is being read, for the message, for example "config.json".

    Raises:
        InputError: naming the field, what was given and what was expected.
    """
    value: T = _convert_dataclass(cls, data, where)
    return value


def as_field(kind: Any, value: Any, name: str) -> Any:
    """An argument of a function, held to a type and range as a config's field would be.

    Args:
        kind: the type, such as `Count` or ``Seed | None``.
        value: what was given.
        name: of the argument, for the message.

    Raises:
        InputError: naming it, what was given and what was expected.
    """
    return _convert(kind, value, name)


def settings_of(kind: Any) -> dict[str, str]:
    """Names that `with_settings` takes for a class, each with the nested config it belongs to, or nothing."""
    names: dict[str, str] = {}
    for field in dataclasses.fields(kind):
        nested = _nested_fields(kind, field.name)
        names |= {field.name: "", **{inner.name: field.name for inner in nested}}
    return names


def _nested_fields(kind: Any, name: str) -> tuple[dataclasses.Field[Any], ...]:
    """The fields of a nested config that flags and files have beside its holder's own; none of others."""
    is_flat = _on_disk(kind, name)[1]
    return dataclasses.fields(typing.get_args(_hints(kind)[name])[0]) if is_flat else ()


def with_settings(config: T, settings: Mapping[str, Any]) -> T:
    """A config with other values of some of `settings_of` it; raises as its class does."""
    names = settings_of(type(config))
    own = {name: value for name, value in settings.items() if not names[name]}
    for holder in {names[name] for name in settings} - {""}:
        inner = {name: value for name, value in settings.items() if names[name] == holder}
        own[holder] = dataclasses.replace(own.get(holder, getattr(config, holder)), **inner)
    changed: T = dataclasses.replace(config, **own)  # type: ignore[type-var]
    return changed


def find_idle(
    config: Any, base: Any = None, outer: Sequence[tuple[Needs, Any]] = (), *, data: Any = None
) -> Iterator[str]:
    """What was asked for and does nothing, as fields declare with `Needs`.

    Args:
        config: a dataclass, as asked for.
        base: what it was before that, such as a recipe: what that has already may be idle, so that one flag
            is enough to switch off what others belong to. None is the defaults.
        outer: declarations about `config` as a whole, and the configs that decide on them.
        data: what it is used with, once that is known; decides what `NeedsData` declares.

    Yields:
        A line for each field whose value is neither its default nor that of `base`.
    """
    kind: Any = type(config)
    for field in dataclasses.fields(kind):
        declared = declarations(kind, field.name)
        needs = [(need, holder) for need, holder in outer if not need.of or field.name in need.of]
        needs += [(need, config) for need in declared if isinstance(need, Needs)]
        value = getattr(config, field.name)
        before = field.default if base is None else getattr(base, field.name)
        if dataclasses.is_dataclass(value):
            yield from find_idle(value, before if isinstance(before, type(value)) else None, needs, data=data)
        elif value not in (field.default, before):
            unmet = [need.what for need, holder in needs if not need.holds(holder)]
            of_data = [] if data is None else [need for need in declared if isinstance(need, NeedsData)]
            unmet += [need.what for need in of_data if not need.holds(config, data)]
            if unmet:
                yield f"{field.name}: got {shown(value)}, but it acts with {unmet[0]} only"


def config_hash(config: Any) -> str:
    """Eight hexadecimal digits of the SHA-256 over the canonical JSON of a configuration."""
    canonical = json.dumps(to_json(config), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:8]


def read_json(path: Path, *, inside: Path | None = None) -> Any:
    """Read a JSON file.

    Args:
        path: the file.
        inside: a folder in which it must lie once links are followed.

    Raises:
        InputError: if it is missing, is no regular file, or lies elsewhere.
        DamagedFileError: if it is not valid JSON.
    """
    remedy = "check the path, or restore it"
    return parse_json(read_regular(path, inside=inside, most=_MAX_JSON_BYTES, remedy=remedy), path)


_SCALARS = frozenset({int, float, bool, str, Path, type(None)})


def unambiguous(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; ValueError where a name is there twice: readers keep one value or the other."""
    found: dict[str, Any] = {}
    for name, value in fields:
        if name in found:
            raise ValueError(f"{shown(name)} is there twice")
        found[name] = value
    return found


def parse_json(content: bytes, where: Path | str) -> Any:
    """Values from JSON in UTF-8; DamagedFileError, which names `where` it stands, if it is not valid."""
    try:
        return json.loads(content.decode("utf-8-sig"), object_pairs_hook=unambiguous)
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"{where}: not valid JSON ({error}); restore the file or remove it") from error


def _convert(kind: Any, value: Any, where: str) -> Any:
    if kind is Any:
        return value
    if kind in _SCALARS:
        return _convert_scalar(kind, value, where)
    origin = typing.get_origin(kind)
    if isinstance(kind, TypeVar):
        return value if kind.__bound__ is None else _convert(kind.__bound__, value, where)
    if origin is Annotated:
        inner, *metadata = typing.get_args(kind)
        value = _convert(inner, value, where)
        check_declared(value, tuple(metadata), where)
        return value
    if origin is Literal:
        return _convert_literal(kind, value, where)
    if origin in (Union, types.UnionType):
        return _convert_union(kind, value, where)
    if origin is tuple:
        return _convert_tuple(kind, value, where)
    if origin is dict:
        if not isinstance(value, dict):
            raise refusal(where, value, "an object")
        value_kind = typing.get_args(kind)[1]
        return {key: _convert(value_kind, item, f"{where}.{key}") for key, item in value.items()}
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return value if isinstance(value, kind) else _convert_dataclass(kind, value, where)
    return _convert_scalar(kind, value, where)


def _convert_scalar(kind: Any, value: Any, where: str) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if kind is type(None):
        if value is None:
            return None
        raise refusal(where, value, "null")
    if kind in (Path, str) and isinstance(value, (str, Path)):
        check_text(str(value), where)
        return kind(os.path.expanduser(value) if kind is Path else value)
    number = isinstance(value, int) and not isinstance(value, bool)
    if not (isinstance(value, kind) or (kind is float and number)) or (kind is int and not number):
        raise refusal(where, value, "a path" if kind is Path else getattr(kind, "__name__", str(kind)))
    if isinstance(value, str):
        check_text(value, where)
    elif kind in (int, float):
        check_number(value, kind, where)
        return kind(value)
    return value


def _convert_literal(kind: Any, value: Any, where: str) -> Any:
    choices = typing.get_args(kind)
    if value not in choices or type(value) not in {type(choice) for choice in choices}:
        hint = nearest(value, [c for c in choices if isinstance(c, str)]) if isinstance(value, str) else ""
        raise refusal(where, value, "one of " + ", ".join(map(str, choices)) + hint)
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
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, (list, tuple)):
        raise refusal(where, value, "a list")
    item_kinds = typing.get_args(kind)
    if len(item_kinds) == 2 and item_kinds[1] is Ellipsis:
        # Long lists of returns and lengths, in a fraction of the time.
        most = {float: FLOAT32, int: INT64}.get(item_kinds[0])
        if most and all(type(item) is item_kinds[0] and abs(item) <= most for item in value):
            return tuple(value)
        item_kinds = (item_kinds[0],) * len(value)
    if len(item_kinds) != len(value):
        raise refusal(where, value, f"{len(item_kinds)} values")
    return tuple(
        _convert(item, v, f"{where}[{i}]") for i, (item, v) in enumerate(zip(item_kinds, value, strict=True))
    )


def _convert_dataclass(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise refusal(where, value, "an object")
    hints = _hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}
    value = {**_since(kind), **_by_name(kind, value, fields, where)}
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
    token = _checked.set(kind)
    try:
        return kind(**converted)
    except InputError as error:  # fields that do not go together
        raise InputError(f"{where}: {error}") from error
    finally:
        _checked.reset(token)


def _by_name(kind: Any, value: dict[Any, Any], fields: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Values of fields by the names that they have now."""
    places: dict[str, tuple[str, str]] = {}  # what a file may call it, to the field and one nested in it
    for name in fields:
        places |= {nested.name: (name, nested.name) for nested in _nested_fields(kind, name)}
        places |= {_on_disk(kind, name)[0].name: (name, ""), name: (name, "")}
    found: dict[str, Any] = {}
    parts: dict[str, dict[str, Any]] = {}
    for key, item in value.items():
        if key not in places:
            raise InputError(f"{where}: unknown field {key!r}{nearest(str(key), places)}")
        name, nested = places[key]
        if name in found and not (nested and name in parts):
            raise InputError(f"{where}: {name} is given twice, also as {key!r}")
        if nested:
            found[name] = parts.setdefault(name, {})
            parts[name][nested] = item
        else:
            found[name] = _on_disk(kind, name)[0].read(item)
    return found

"""Columns of objects in tables, as loggers write them: ``{"obs": {"temp": 20.5, "flow": [1, 2]}}``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from chibit.core.errors import InputError

_DEEPEST = 16


@dataclass(frozen=True)
class Header:
    """What a file says of its columns."""

    names: Sequence[str]
    """In the file's order."""
    num_rows: int = 0
    """By its own account; 0 where it has none."""
    inner: Sequence[str] = ()
    """Names of what is in columns of objects, and in objects there: ``obs.temp, obs.tank, obs.tank.flow``."""
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Of each object, what in it holds values itself: ``obs`` to ``obs.temp, obs.tank.flow``."""

    @property
    def leaves(self) -> list[str]:
        """Names of all that holds values itself."""
        return [leaf for name in self.names for leaf in self.parts.get(name, (name,))]

    def spread(self, wanted: Iterable[str], where: str) -> tuple[str, ...]:
        """Names of columns, with what is in objects in place of those.

        Raises:
            InputError: where nothing is in one, or something has the name of a column beside it.
        """
        found: list[str] = []
        for name in wanted:
            parts = self.parts.get(name, (name,))
            if not parts:
                raise InputError(f"{where}: {name} has objects with nothing in them; expected numbers")
            found += parts
        leaves = self.leaves
        for name in found:
            if leaves.count(name) > 1:
                raise InputError(f"{where}: column {name!r} is there in an object, too; rename one of them")
        return tuple(found)


def header_of(schema: Any, num_rows: int = 0) -> Header:
    """What arrow's schema says."""
    inner: list[str] = []
    parts: dict[str, tuple[str, ...]] = {}
    for column in schema:
        _look_into(column.name, column.type, inner, parts)
    return Header(schema.names, num_rows, inner, parts)


def _look_into(
    name: str, kind: Any, inner: list[str], parts: dict[str, tuple[str, ...]], depth: int = 0
) -> tuple[str, ...]:
    """Give what holds values itself in a column; `inner` and `parts` take in the rest of a header."""
    import pyarrow as pa

    if depth:
        inner.append(name)
    if depth == _DEEPEST or not pa.types.is_struct(kind):
        return (name,)
    found = [_look_into(f"{name}.{entry.name}", entry.type, inner, parts, depth + 1) for entry in kind]
    parts[name] = tuple(leaf for leaves in found for leaf in leaves)
    return parts[name]


def flat(table: Any) -> Any:
    """Arrow's table with a column for each entry of objects, in objects too; deeper ones than 16 stay."""
    import pyarrow as pa

    for _ in range(_DEEPEST):
        if not any(map(pa.types.is_struct, table.schema.types)):
            break
        table = table.flatten()
    return table

"""Which columns of a file are which: by the names that loggers usually give them, or by a user's mapping."""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from chibit.core.config import as_field
from chibit.core.errors import InputError
from chibit.core.files import nearest, read_regular
from chibit.core.formatting import listed
from chibit.data.readers.unpickler import COLUMN_NAMES, EPISODE_NAMES, MalformedError, find_usual

EPISODE = "episode"
"""Our name of the column that says which episode a step is of."""
TIME = "time"
"""Of the column by which the steps of an episode are in order; see `chibit.data.readers.timing`."""
ACTION_LOW, ACTION_HIGH = "action_low", "action_high"
"""Bounds of actions, which the file beside data may give too."""
_NAMES: Mapping[str, Sequence[str]] = COLUMN_NAMES | EPISODE_NAMES | {TIME: ()}
NAMES = "columns"
"""Entry of a store's provenance: names in the source of each number of an observation and of an action."""
_WIDE = ("observations", "actions", "next_observations")
_MAX_TOML_BYTES = 1 << 20
_MOST_NAMES = 1000


class Column(Protocol):
    """An array, in memory or in a file, that gives its rows when sliced."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows first."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of its elements."""
        ...

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Read rows."""
        ...


@dataclass(frozen=True)
class Reading:
    """What a user says of a file that the file does not say itself."""

    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Our names of columns and the file's; several are put side by side. Others are known by usual names."""
    episode_length: int | None = None
    """Steps after which an unbroken log is cut."""
    skip_damaged: bool = False
    """Whether damaged episodes are left out in place of a refusal."""
    continuous_actions: bool = False
    """Whether whole numbers as actions are quantities, in place of choices."""
    part: str = ""
    """Name of the part of the data that is wanted, where they have named parts; empty for all."""

    def refuse_said(self, what: str) -> None:
        """Refuse what is said of columns, episodes and actions, for data that say it themselves.

        Raises:
            InputError: with what they are, for the message.
        """
        if self.columns or self.episode_length is not None or self.continuous_actions:
            raise InputError(
                f"{what} columns, episodes and actions already; leave --columns, --episode-length and "
                "--continuous-actions out"
            )


def refuse_part(path: Path, part: str) -> None:
    """Refuse the name of a part, for data that have none."""
    if part:
        raise InputError(f"{path}: has no part {part!r}; only robomimic's and LeRobot's data have parts")


def parse_columns(given: Sequence[str] | Mapping[str, str | Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Read a mapping of columns: ``["observations=obs,temp", "episode=batch"]``, or the same as a dictionary.

    Raises:
        InputError: for a name that is none of ours, or a column that is named twice.
    """
    if not isinstance(given, Mapping):
        given = as_field(tuple[str, ...], given, "columns")
        parts = [word.partition("=") for word in given]
        for word, (name, _, listed) in zip(given, parts, strict=True):
            if not listed:
                raise InputError(f"columns: got {word!r}, expected NAME=COLUMN as in observations=obs,temp")
            if sum(name == other for other, _, _ in parts) > 1:
                raise InputError(f"columns: {name} is given twice; separate its columns by commas")
        given = {name: listed.split(",") for name, _, listed in parts}
    mapping: dict[str, tuple[str, ...]] = {}
    for name, columns in given.items():
        if name not in _NAMES:
            raise InputError(
                f"columns: unknown name {name!r}; expected one of {', '.join(_NAMES)}{nearest(name, _NAMES)}"
            )
        names = (columns,) if isinstance(columns, str) else columns
        if not isinstance(names, Sequence) or not names or not all(isinstance(n, str) and n for n in names):
            raise InputError(f"columns: {name} got {names!r}, expected names of columns")
        if len(set(names)) != len(names):
            raise InputError(f"columns: {name} names a column twice: {', '.join(names)}")
        if len(names) > 1 and name not in _WIDE:
            raise InputError(f"columns: {name} got {', '.join(names)}; expected one column")
        mapping[name] = tuple(names)
    return mapping


def mapping_beside(path: Path) -> dict[str, tuple[str, ...]]:
    """Read the mapping in the file beside data, whose lines are as ``observations = ["obs", "temp"]``."""
    beside = read_beside(path)
    try:
        return parse_columns({k: v for k, v in beside.items() if k not in (ACTION_LOW, ACTION_HIGH)})
    except InputError as error:
        raise InputError(f"{file_beside(path)}: {error}") from error
    except TypeError as error:
        raise InputError(
            f"{file_beside(path)}: not a mapping of columns ({error}); mend or rename it"
        ) from error


def file_beside(path: Path) -> Path:
    """What says more of data: `columns.toml` in a folder, `log.toml` beside `log.csv`."""
    return path / "columns.toml" if path.is_dir() else path.with_suffix(".toml")


def read_beside(path: Path) -> dict[str, Any]:
    """Read that file; empty where there is none."""
    file = file_beside(path)
    if not file.exists():
        return {}
    try:
        return tomllib.loads(read_regular(file, most=_MAX_TOML_BYTES).decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: not a mapping of columns ({error}); mend or rename it") from error


def locate_columns(
    names: Sequence[str], where: str, reading: Reading, also: Sequence[str] = ()
) -> dict[str, tuple[str, ...]]:
    """Find the columns of a file among the names in it, which are in the file's order.

    A column that the user's mapping does not name is known by a usual name, or by a usual name with numbers:
    ``observation_0, observation_1``.

    Args:
        names: of the columns.
        where: they are, for messages.
        reading: the user's mapping.
        also: names of parts of columns, which the mapping alone may use.

    Returns:
        Our name of each column that is there, and the file's, several where they are to be put side by side.
    """
    times, known = Counter(names), [*names, *also]
    for ours, theirs in reading.columns.items():
        _refuse_twice(theirs, Counter(known), where)
        for name in theirs:
            if name not in known and (ours, name) != (TIME, "none"):
                raise InputError(
                    f"{where}: no column {name!r} for {ours}; {_listed(known)}{nearest(name, known)}"
                )
    columns = {}
    for ours, usual in _NAMES.items():
        if ours == TIME:
            continue  # what it is depends on the others
        try:
            theirs = reading.columns.get(ours) or find_usual(usual, times, ours)
        except MalformedError as error:
            raise InputError(f"{where}: {error}") from error
        _refuse_twice(theirs, times, where)
        if theirs:
            columns[ours] = theirs
    return columns


def _refuse_twice(wanted: Iterable[str], times: Mapping[str, int], where: str) -> None:
    for name in wanted:
        if times.get(name, 0) > 1:
            raise InputError(f"{where}: column {name!r} is there {times[name]} times; rename all but one")


def check_needed(columns: Collection[str], found: Iterable[str], where: str, reading: Reading | None) -> None:
    """Refuse a file without a column that is needed; None is one whose columns cannot be named."""
    needed = ["observations", "actions", "rewards"]
    has_ends = EPISODE in columns or "truncations" in columns
    if not has_ends and (reading is None or reading.episode_length is None):
        needed.append("terminations")
    for ours in needed:
        if ours not in columns:
            hint = "" if reading is None else f"; name it by --columns {ours}=COLUMN"
            if hint and ours == "terminations":
                hint += (
                    f", or which episode a step is of by {EPISODE}=COLUMN, or cut it by --episode-length N"
                )
            raise InputError(f"{where}: no {ours}; {_listed(found)}{hint}")


def _listed(names: Iterable[str]) -> str:
    return f"found {listed(sorted(names), 20) or 'nothing'}"


def describe_columns(
    names: Iterable[str], found: Mapping[str, Sequence[str]], widths: Mapping[str, int]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What provenance says of columns, and a note on those that are not used.

    Args:
        names: of all columns of a file.
        found: what `locate_columns` gives.
        widths: numbers of a row in the columns that are used.
    """
    known = {}
    for ours in ("observations", "actions"):
        theirs = found[ours]
        parts = [
            [name] if widths[name] == 1 else [f"{name}[{i}]" for i in range(widths[name])] for name in theirs
        ]
        if sum(map(len, parts)) <= _MOST_NAMES and (len(theirs) > 1 or widths[theirs[0]] == 1):
            known[ours] = [name for part in parts for name in part]
    used = {name for theirs in found.values() for name in theirs}
    unused = [name for name in dict.fromkeys(names) if name and name not in used]
    more = f" and {len(unused) - 20:,} more" if len(unused) > 20 else ""
    notes = (f"columns that are not used: {', '.join(unused[:20])}{more}",) if unused else ()
    return {NAMES: known} if known else {}, notes


class View:
    """A column whose rows are made something else of as they are read."""

    def __init__(
        self,
        column: Column,
        make: Callable[[np.ndarray], np.ndarray],
        dtype: npt.DTypeLike,
        shape: tuple[int, ...] | None = None,
    ) -> None:
        """Wrap a column; `make` takes rows and gives as many, of a type and, where it is another, a shape."""
        self._column, self._make = column, make
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self.shape = column.shape if shape is None else (column.shape[0], *shape)

    def __getitem__(self, rows: slice) -> np.ndarray:
        return self._make(np.asarray(self._column[rows]))


def as_quantities(column: Column) -> Column:
    """A column as floats, whatever numbers it holds."""
    return View(column, lambda rows: rows.astype(np.float64), np.float64)


class _Joined:
    """Columns side by side, as one of numbers; whole ones stay whole."""

    def __init__(self, parts: Sequence[Column], shape: tuple[int, ...]) -> None:
        self._parts = parts
        self.shape = shape
        self.dtype = np.result_type(*(part.dtype for part in parts))

    def __getitem__(self, rows: slice) -> np.ndarray:
        parts = [np.asarray(part[rows], self.dtype) for part in self._parts]
        return np.concatenate([part.reshape(len(part), -1) for part in parts], 1)


def join(parts: Sequence[Column], where: str) -> Column:
    """Put columns side by side; one alone stays as it is.

    Raises:
        InputError: if they differ in length, or are not numbers or vectors.
    """
    if len(parts) == 1:
        return parts[0]
    shapes = [part.shape for part in parts]
    if len({shape[:1] for shape in shapes}) != 1 or not all(1 <= len(shape) <= 2 for shape in shapes):
        raise InputError(
            f"{where}: columns of shapes {', '.join(map(str, shapes))} cannot be put side by side"
        )
    return _Joined(parts, (shapes[0][0], sum(shape[1] if len(shape) == 2 else 1 for shape in shapes)))

"""What the spaces in Minari's metadata say of observations and actions, and how their parts are read.

An observation becomes one vector as `gymnasium.spaces.flatten` makes it: discrete parts as one-hot vectors,
arrays as rows of numbers, dictionaries in alphabetical and tuples in their own order. Two kinds of parts are
kept apart: texts, which say what an episode is for, and pictures.
"""

from __future__ import annotations

import io
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from chibit.core.arrays import reading
from chibit.core.errors import DamagedFileError, InputError
from chibit.data.readers.columns import Column, View
from chibit.data.readers.pictures import PictureForm
from chibit.data.spec import ObservationPart

MAX_DEPTH = 4
"""Dictionaries and tuples may be nested so deep."""
_MAX_CATEGORIES = 4096


@dataclass(frozen=True)
class _Named:
    """A part of an observation."""

    path: tuple[str, ...]
    """Keys that lead to it; empty where it is the whole observation."""

    @property
    def name(self) -> str:
        """The keys as one word."""
        return "/".join(self.path)


@dataclass(frozen=True)
class Numbers(_Named):
    """An array of numbers."""

    shape: tuple[int, ...] | None = None
    """Of one observation; None where the metadata do not say."""

    def view(self, column: Column, where: str) -> Column:
        """The column as vectors.

        Raises:
            InputError: if the numbers were stored as a picture.
        """
        is_changed = self.shape is not None and column.dtype == np.uint8 and column.shape[1:] != self.shape
        if column.dtype.kind == "O" or (is_changed and len(column.shape) == 2):
            raise self.as_jpeg(where)
        if len(column.shape) <= 2 or column.shape[1:] != self.shape:
            return column
        width = math.prod(column.shape[1:])
        return View(column, lambda rows: rows.reshape(len(rows), width), column.dtype, (width,))

    @property
    def is_grid(self) -> bool:
        """Whether it could be taken for a picture."""
        return self.shape is not None and len(self.shape) > 1

    def as_jpeg(self, where: str) -> InputError:
        """The refusal of numbers that are stored as something else."""
        return InputError(
            f"{where}: {self.name or 'observations'} of shape {self.shape} are stored as text or JPEG, "
            "which changes numbers; expected plain numbers; write the data with jpeg_encoding=False"
        )


@dataclass(frozen=True)
class Categories(_Named):
    """Discrete parts of an observation: one column for each, with its number of values and the least."""

    shape: tuple[int, ...]
    """Of one observation: () of a single number."""
    counts: tuple[int, ...]
    starts: tuple[int, ...]

    def view(self, column: Column, where: str) -> Column:
        """The column as one-hot vectors."""
        return OneHotColumn(column, self, where)


@dataclass(frozen=True)
class Text(_Named):
    """A text of what the episode is for."""


@dataclass(frozen=True)
class Repeated(_Named):
    """What stands in another part, too: left out."""


@dataclass(frozen=True)
class Picture(_Named):
    """A picture, or a stack of them."""

    shape: tuple[int, ...]
    form: PictureForm

    def view(self, column: Column, where: str) -> Column:
        """The pictures, decoded where they are stored as JPEG."""
        if column.shape[1:] == self.shape:
            return column
        return View(
            column, lambda rows: np.stack([self._decode(row, where) for row in rows]), np.uint8, self.shape
        )

    def _decode(self, row: np.ndarray, where: str) -> np.ndarray:
        from PIL import Image

        content = bytes(np.asarray(row, np.uint8))
        with reading(Path(where), "JPEG"), Image.open(io.BytesIO(content), formats=["JPEG"]) as image:
            size = image.height, image.width
            if size != self.shape[:2]:
                raise DamagedFileError(f"{where}: a picture of {size[0]} x {size[1]}, expected {self.shape}")
            return np.asarray(image, np.uint8).reshape(self.shape)


Part = Numbers | Categories | Text | Repeated | Picture


@dataclass(frozen=True)
class OneHotColumn:
    """Discrete observations as one-hot vectors, side by side."""

    column: Column
    """(T,) or (T, parts) whole numbers."""
    categories: Categories
    where: str

    @property
    def shape(self) -> tuple[int, ...]:
        """(T, width)."""
        return (*self.column.shape[:1], sum(self.categories.counts))

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of 0 and 1."""
        return np.dtype(np.uint8)

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Read rows.

        Raises:
            InputError: if a value is none of its categories.
        """
        values = np.asarray(self.column[rows])
        counts, starts = np.array(self.categories.counts), np.array(self.categories.starts)
        if math.prod(values.shape[1:]) != len(counts):
            raise InputError(
                f"{self.where}: observations have shape {values.shape}, the observation space has "
                f"{len(counts)} discrete parts"
            )
        numbers = values.reshape(len(values), len(counts)) - starts
        wrong = np.argwhere((numbers < 0) | (numbers >= counts) | (numbers != np.floor(numbers)))
        if len(wrong):
            row, part = wrong[0].tolist()
            place, low = (rows.start or 0) + row, starts[part]
            found, high = numbers[row, part] + low, low + counts[part] - 1
            raise InputError(
                f"{self.where}: observation {place} is {found}, expected a whole number from {low} to {high}"
            )
        encoded = np.zeros((len(values), int(counts.sum())), np.uint8)
        offsets = np.cumsum(counts) - counts
        np.put_along_axis(encoded, (numbers + offsets).astype(np.int64), 1, axis=1)
        return encoded


def from_zero(column: Column, start: int) -> Column:
    """Discrete actions that begin elsewhere, counted from 0."""
    return View(column, lambda rows: rows.astype(np.int64) - start, np.int64)


def observation_parts(space: dict[str, Any], where: str, repeated: Collection[str] = ()) -> tuple[Part, ...]:
    """Read the parts of an observation in the order in which episodes give them; one where nothing is said.

    Args:
        space: as metadata give it.
        where: the data set, for messages.
        repeated: names of the parts that are left out.

    Raises:
        DamagedFileError: if a discrete space makes no sense.
        InputError: if it has too many values.
    """
    parts = _parts(space, (), where)
    return tuple(Repeated(part.path) if part.name in repeated else part for part in parts)


def described(parts: Sequence[Part]) -> tuple[ObservationPart, ...]:
    """What observations were before they became vectors; empty where they were that, or it is not known."""
    numbers = [part for part in parts if isinstance(part, Numbers | Categories)]
    kept = []
    for part in numbers:
        if part.shape is None or (isinstance(part, Numbers) and not part.path and len(part.shape) < 2):
            return ()
        counts, starts = (part.counts, part.starts) if isinstance(part, Categories) else ((), ())
        kept.append(ObservationPart(path=part.path, shape=part.shape, counts=counts, starts=starts))
    return tuple(kept)


def _parts(space: Any, path: tuple[str, ...], where: str) -> Iterator[Part]:
    space = space if isinstance(space, dict) else {}
    kind, subspaces = space.get("type"), space.get("subspaces")
    is_shallow = len(path) < MAX_DEPTH
    if is_shallow and kind == "Dict" and isinstance(subspaces, dict):
        for key in sorted(subspaces):
            yield from _parts(subspaces[key], (*path, key), where)
    elif is_shallow and kind == "Tuple" and isinstance(subspaces, list):
        for index, subspace in enumerate(subspaces):
            yield from _parts(subspace, (*path, str(index)), where)
    elif kind == "Discrete":
        counts, starts = _categories([space.get("n")], [space.get("start", 0)], where)
        yield Categories(path, (), counts, starts)
    elif kind == "MultiDiscrete":
        given = np.array(space.get("nvec"), object)
        least = np.array(space.get("start", np.zeros(given.shape, int).tolist()), object)
        counts, starts = _categories(_listed(given), _listed(least), where)
        yield Categories(path, given.shape, counts, starts)
    elif kind == "Text":
        yield Text(path)
    else:
        shape = _shape(space)
        form = None
        if shape is not None and space.get("dtype") == "uint8":
            form = PictureForm.of(shape, np.dtype(np.uint8))
        yield Numbers(path, shape) if form is None or shape is None else Picture(path, shape, form)


def _listed(numbers: np.ndarray) -> list[Any] | None:
    return numbers.ravel().tolist() if numbers.ndim else None


def _shape(space: dict[str, Any]) -> tuple[int, ...] | None:
    shape = space.get("shape", space.get("n"))  # that of MultiBinary
    shape = [shape] if type(shape) is int else shape
    if isinstance(shape, list) and all(type(size) is int and size >= 0 for size in shape):
        return tuple(shape)
    return None


def _categories(counts: Any, starts: Any, where: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Numbers of values, and the least ones."""
    lists = [value for value in (counts, starts) if isinstance(value, list)]
    is_whole = all(type(number) is int and abs(number) < 1 << 53 for value in lists for number in value)
    if len(lists) < 2 or not is_whole or len(counts) != len(starts) or not counts or min(counts) < 1:
        raise DamagedFileError(
            f"{where}: the discrete observation space has counts {str(counts)[:80]} and starts "
            f"{str(starts)[:80]}; expected whole numbers; copy or download the data set again"
        )
    if sum(counts) > _MAX_CATEGORIES:
        raise InputError(
            f"{where}: discrete observations with {sum(counts):,} values, expected at most "
            f"{_MAX_CATEGORIES:,} (one-hot vectors); embed them first"
        )
    return tuple(counts), tuple(starts)

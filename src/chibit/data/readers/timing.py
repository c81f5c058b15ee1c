"""Rows of an episode in the order of their times, where a column has these.

Dimensions: N rows.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from chibit.core.errors import InputError
from chibit.core.formatting import count, format_setting
from chibit.data.readers.columns import EPISODE, TIME, Column, Reading
from chibit.data.readers.recording import check_lengths, find_ends, last_rows

_USUAL = ("time", "timestamp", "datetime", "date", "step", "t")
_NONE = ("none",)
_ISO = re.compile(r"\d{4}-\d\d-\d\d(?:[T ][\d:.]+)?(Z|[+-]\d\d:?\d\d)?")
_TOLERANCE = 0.1
"""Of the usual step, by which others may differ: clocks jitter."""


@dataclass(frozen=True)
class TimeColumn:
    """The column that has the times of rows."""

    name: str
    """In the file; empty for none."""
    is_said: bool = False
    """Whether the user names it; else it is known by a usual name, and may mean something else."""
    note: str = ""
    """Why there is none."""


def find_time(names: Sequence[str], used: Mapping[str, Sequence[str]], reading: Reading) -> TimeColumn:
    """The column of times: what the user says, else the one of a usual name that is not used otherwise."""
    said = reading.columns.get(TIME)
    if said:
        return TimeColumn("" if said == _NONE and said[0] not in names else said[0], is_said=True)
    taken = {name for theirs in used.values() for name in theirs}
    found = [name for name in names if name.lower() in _USUAL and name not in taken]
    if len(found) > 1:
        listed = " or ".join(found)
        return TimeColumn(
            "", note=f"time may be {listed}: order is not checked; say --columns {TIME}={found[0]}"
        )
    return TimeColumn(found[0] if found else "")


def times_in(texts: Any) -> np.ndarray:
    """Texts as times, as ISO 8601 writes them; NaT for all where one is none, or only some have zones."""
    try:
        words = np.char.strip(np.asarray(texts[slice(None)]).astype(str))
        found = [_ISO.fullmatch(word) for word in words.ravel().tolist()]
        if all(found) and len({bool(one and one[1]) for one in found}) <= 1:
            with warnings.catch_warnings(action="ignore"):  # that zones are taken off
                return words.astype("datetime64[us]")
    except ValueError:
        pass
    return np.full(texts.shape, "NaT", "datetime64[us]")


def in_order(
    columns: Mapping[str, Column], column: TimeColumn, where: str
) -> tuple[dict[str, Column], tuple[str, ...]]:
    """Sort the rows of each episode by the time that the user names; say where one of a usual name goes back.

    A usual name may mean something else, as steps left, the time of a day that ends, or a temperature.

    Args:
        columns: all of the file, among them `time`, where it has one: numbers or datetime64, NaN or NaT where
            it is neither. Rows are sorted where `episode` tells episodes apart: flags are then elsewhere.
        column: what it is called.
        where: the file, for messages.

    Returns:
        The others of the columns, and notes on what was sorted, equal times, and steps of uneven length.

    Raises:
        InputError: for times that are none, or cannot be sorted by, in a column that the user names.
    """
    rest = {name: values for name, values in columns.items() if name != TIME}
    if TIME not in columns:
        return rest, (column.note,) if column.note else ()
    check_lengths(columns, where)
    may_sort = EPISODE in columns
    is_last = last_rows(columns[EPISODE], where) if may_sort else find_ends(columns, where)
    times = np.asarray(columns[TIME][0 : len(is_last)])
    if times.size == len(times):
        times = times.reshape(-1)  # from (N, 1)
    within = ~is_last[:-1]
    problem = _problem(times)
    if problem and not column.is_said:
        return rest, ()
    goes_back = np.zeros(0, bool) if problem else within & (_steps(times) < 0)
    if goes_back.any() and not may_sort:
        problem = (
            "it goes back within episodes, which only their ends tell apart; sort the rows, or name episode="
        )
    if problem and column.is_said:
        raise InputError(f"{where}: {TIME}: {problem}; mend it, or say {TIME}=none to take rows as they come")
    episodes = np.cumsum(is_last) - is_last
    number = f"{len(np.unique(episodes[:-1][goes_back])):,} of {count(int(is_last.sum()), 'episode')}"
    if goes_back.any() and not column.is_said:
        remedy = f"--columns {TIME}={column.name} sorts them" if may_sort else "name episode=, or sort them"
        return rest, (
            f"column {column.name} goes back in {number}: rows are taken as they come; {remedy}, if it says "
            "when a step was",
        )
    notes: list[str] = []
    if goes_back.any():
        order = np.lexsort((times, episodes))
        times = times[order]
        rest = {n: v if n == EPISODE else np.asarray(v[0 : len(order)])[order] for n, v in rest.items()}
        notes.append(f"sorted the rows of {number} by {column.name}")
    steps = _steps(times)[within]
    if not column.is_said and 2 * int((steps == 0).sum()) > len(steps):
        return rest, ()  # a day, or whatever else stays the same
    return rest, (*notes, *_uneven(steps, column, times.dtype.kind == "M"))


def _problem(times: np.ndarray) -> str:
    """Why a column is no time to go by; empty where it is one."""
    if times.ndim != 1:
        return "it holds several numbers a row"
    if (np.isnat(times) if times.dtype.kind == "M" else ~np.isfinite(times)).any():
        return "not every row has a number, or a time as 2026-10-01T00:15, all with a zone or none"
    return ""


def _steps(times: np.ndarray) -> np.ndarray:
    """(N - 1,) from each row to the next, datetimes in seconds."""
    if times.dtype.kind == "M":
        if np.datetime_data(times.dtype)[0] in ("Y", "M"):  # of which seconds are no part
            times = times.astype("datetime64[D]")
        return np.diff(times) / np.timedelta64(1, "s")
    return np.diff(times.astype(np.int64 if times.dtype.kind in "iub" else np.float64))


def _uneven(steps: np.ndarray, column: TimeColumn, is_clock: bool) -> list[str]:
    """Notes on steps within episodes that take no time, or another than most."""
    notes = []
    total = count(len(steps), "step")
    if ties := int((steps == 0).sum()):
        notes.append(f"at {ties:,} of {total} {column.name} is that of the step before: rows written twice?")
    moving = steps[steps > 0]
    if len(moving):
        usual, unit = float(np.median(moving)), " s" if is_clock else ""
        if odd := int((np.abs(moving - usual) > _TOLERANCE * usual).sum()):
            shown, most = (format_setting(float(value)) + unit for value in (usual, moving.max()))
            notes.append(
                f"at {odd:,} of {total} the time between rows ({column.name}) is not {shown}, "
                f"but up to {most}: each row counts as one step"
            )
    return notes

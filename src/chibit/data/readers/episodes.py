"""Episodes that a source keeps apart, laid end to end as flat columns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from chibit.core.errors import DamagedFileError, InputError
from chibit.data.readers.columns import Column
from chibit.data.readers.recording import check_lengths, left_out, read_flags

_DEFAULTS = {
    "rewards": "no rewards recorded: all are 0",
    "terminations": "no ends recorded: episodes were cut",
}
"""Columns that an episode may lack, and what is said then."""


@dataclass(frozen=True)
class Joined:
    """Episodes end to end."""

    columns: dict[str, Column]
    """Flat, `truncations` among them."""
    places: list[str]
    """Of the episodes that these are, in the source."""
    notes: tuple[str, ...]
    """What was left out or decided, one sentence each."""


def join_episodes(
    episodes: Iterable[tuple[str, Callable[[], Mapping[str, Column]]]],
    where: str,
    *,
    skip_damaged: bool = False,
) -> Joined:
    """Lay episodes end to end.

    Args:
        episodes: of each its place in the source, for messages, and what gives its columns, of T steps each;
            rewards and terminations may be missing. An episode is one whatever is flagged in it: it was
            terminated where its last `terminations` say so, else it was cut.
        where: the source, for messages.
        skip_damaged: leave out episodes that cannot be read, or do not fit together.

    Returns:
        The columns. Episodes without steps are left out.

    Raises:
        InputError: if columns differ in length within an episode or in width between episodes.
        DamagedFileError: if one cannot be read.
    """
    parts: dict[str, list[np.ndarray]] = {}
    places: list[str] = []
    notes: list[str] = []
    num_empty = 0
    damages: list[InputError | DamagedFileError] = []
    for place, give_columns in episodes:
        try:
            columns = give_columns()
            arrays = _arrays(columns, place, parts)
        except (InputError, DamagedFileError) as error:
            if not skip_damaged:
                raise
            damages.append(error)
            continue
        if not arrays:
            num_empty += 1
            continue
        if not places:
            notes = [note for name, note in _DEFAULTS.items() if name not in columns]
        places.append(place)
        for name, array in arrays.items():
            parts.setdefault(name, []).append(array)
    if not places:
        raise damages[0] if damages else InputError(f"{where}: no episode has any steps")
    reasons = {"they have no steps": num_empty, "damaged": len(damages)}
    notes += left_out(reasons, len(places) + num_empty + len(damages))
    return Joined({name: np.concatenate(arrays) for name, arrays in parts.items()}, places, tuple(notes))


def _arrays(
    columns: Mapping[str, Column], place: str, before: Mapping[str, list[np.ndarray]]
) -> dict[str, np.ndarray]:
    """Read an episode's columns, with marks of its end; nothing where it has no steps."""
    if not any(column.shape[0] if column.shape else 0 for column in columns.values()):
        return {}
    length = check_lengths(columns, place)
    arrays = {name: np.asarray(column[0:length]) for name, column in columns.items()}
    arrays.setdefault("rewards", np.zeros(length))
    last = np.arange(length) == length - 1
    flags = arrays.get("terminations", np.zeros(length, bool))
    arrays["terminations"] = read_flags(flags, f"{place}: terminations") & last
    arrays["truncations"] = last & ~arrays["terminations"]
    if before and before.keys() != arrays.keys():
        raise InputError(f"{place}: has {', '.join(arrays)}; expected {', '.join(before)} as before")
    for name, array in arrays.items():
        expected = before[name][0].shape[1:] if name in before else array.shape[1:]
        if array.shape[1:] != expected:
            raise InputError(f"{place}: {name} of a step have shape {array.shape[1:]}, before {expected}")
    return arrays

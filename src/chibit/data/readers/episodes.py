"""Episodes that a source keeps apart, laid end to end as flat columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from chibit.core.errors import InputError
from chibit.data.readers.columns import Column
from chibit.data.readers.recording import check_lengths, read_flags


def join_episodes(episodes: Iterable[tuple[str, Mapping[str, Column]]], where: str) -> dict[str, Column]:
    """Lay episodes end to end.

    Args:
        episodes: of each its place in the source, for messages, and its columns, of T steps each. An episode
            is one whatever is flagged in it: it was terminated where its last `terminations` say so, else it
            was cut.
        where: the source, for messages.

    Returns:
        The columns, and `truncations`. Episodes without steps are left out.

    Raises:
        InputError: if columns differ in length within an episode or in width between episodes.
    """
    parts: dict[str, list[np.ndarray]] = {}
    ends: list[np.ndarray] = []
    for place, columns in episodes:
        if not any(column.shape[0] if column.shape else 0 for column in columns.values()):
            continue
        length = check_lengths(columns, place)
        last = np.zeros(length, bool)
        last[-1] = True
        flags = read_flags(columns["terminations"], f"{place}: terminations") & last
        ends.append(np.stack([flags, last & ~flags]))
        if parts and parts.keys() != columns.keys():
            raise InputError(f"{place}: has {', '.join(columns)}; expected {', '.join(parts)} as before")
        for name, column in columns.items():
            found, expected = (
                column.shape[1:],
                parts[name][0].shape[1:] if name in parts else column.shape[1:],
            )
            if found != expected:
                raise InputError(f"{place}: {name} of a step have shape {found}, before {expected}")
            parts.setdefault(name, []).append(np.asarray(column[0:length]))
    if not ends:
        raise InputError(f"{where}: no episode has any steps")
    joined: dict[str, Column] = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    terminations, truncations = np.concatenate(ends, axis=1)
    return {**joined, "terminations": terminations, "truncations": truncations}

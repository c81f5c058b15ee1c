"""Demonstrations in robomimic's HDF5 layout (Mandlekar et al., 2021): a group an episode.

data/demo_0/{actions (T, A), rewards (T,), dones (T,), obs/<key> (T, ...), next_obs/<key> (T, ...)}
data (attribute env_args), mask/<filter key>: names of demonstrations
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from chibit.core.errors import DamagedFileError, InputError
from chibit.core.formatting import listed
from chibit.data.readers.columns import Column, Reading, check_needed, join, locate_columns
from chibit.data.readers.episodes import join_episodes
from chibit.data.readers.hdf5 import Budget, Hdf5Column, Hdf5Group, open_hdf5, texts
from chibit.data.readers.origin import Origin, file_name
from chibit.data.readers.recording import Recording, record_columns

_DEMO = re.compile(r"demo_\d{1,9}")


def is_layout(file: Hdf5Group) -> bool:
    """Whether a file holds demonstrations."""
    names = file.names()
    if "actions" in names or not file.has_group("data"):
        return False
    return set(names) <= {"data", "mask"} or any(map(_DEMO.fullmatch, file.group("data").names()))


@contextlib.contextmanager
def read(path: Path, reading: Reading) -> Iterator[tuple[Recording, Origin]]:
    """Read demonstrations: all, or those of the filter key that `reading.part` names.

    The observation is what `reading.columns` maps to it, keys below `obs` (or `states`); without that all
    keys that are numbers or vectors, in alphabetical order. Pictures are left out, which a note says.

    Raises:
        InputError: if there are no demonstrations, or keys are missing.
    """
    with open_hdf5(path) as file:
        names, notes = _chosen(file, path, reading.part)
        demos = [_Demo(file.group("data").group(name), f"{path}: data/{name}") for name in names]
        keys, pictures = demos[0].keys(reading)
        notes.append(f"observations are {', '.join(keys)}, side by side in this order")
        if pictures:
            notes.append(f"left out pictures: {', '.join(pictures)}")
        budget = Budget(path)
        joined = join_episodes(
            ((demo.where, partial(demo.find, keys, reading, budget)) for demo in demos),
            str(path),
            skip_damaged=reading.skip_damaged,
        )
        name = file_name(path) + (f"-{reading.part}" if reading.part else "")
        provenance = {"kind": "robomimic", "path": str(path.absolute()), "part": reading.part}
        origin = Origin(name=name, notes=(*notes, *joined.notes), provenance=provenance)
        yield record_columns(joined.columns, where=str(path), reading=reading), origin


def _chosen(file: Hdf5Group, path: Path, part: str) -> tuple[list[str], list[str]]:
    """Names of demonstrations in order, and notes on filter keys."""
    there = file.group("data").names()
    names = [name for name in there if _DEMO.fullmatch(name)]
    others = sorted(set(there) - set(names))
    notes = [f"not read, since only demo_0, demo_1, ... are: {listed(others)}"] if others else []
    mask = file.group("mask") if "mask" in file.names() else None
    parts = (
        {}
        if mask is None
        else {key: set(texts(mask.column(key, is_variable=True))) for key in sorted(mask.names())}
    )
    found = ", ".join(f"{key} ({len(chosen):,})" for key, chosen in parts.items()) or "none"
    if part and part not in parts:
        raise InputError(f"{path}: no filter key {part!r}; found {found}")
    if part and not parts[part] <= set(names):
        missing = min(parts[part] - set(names))
        raise DamagedFileError(f"{path}: mask/{part} names {missing[:40]!r}, which is missing; copy it again")
    names = sorted(parts[part] if part else names, key=lambda name: int(name.removeprefix("demo_")))
    if not names:
        raise InputError(f"{path}: no demonstrations (data/demo_0, data/demo_1, ...)")
    if not parts or part:
        return names, notes
    return names, [
        f"all demonstrations; filter keys are {found}, as in {path.name}:{next(iter(parts))}",
        *notes,
    ]


class _Demo:
    """An episode."""

    def __init__(self, group: Hdf5Group, where: str) -> None:
        self._group, self.where = group, where
        members = group.names()
        self._members = [name for name in members if name not in ("obs", "next_obs")]
        self._keys = sorted(group.group("obs").names()) if "obs" in members else []
        self._following = group.group("next_obs").names() if "next_obs" in members else []

    def _open(self, name: str) -> Hdf5Column:
        return (self._group.group("obs") if name in self._keys else self._group).column(name)

    def keys(self, reading: Reading) -> tuple[tuple[str, ...], list[str]]:
        """Names of the parts of an observation, and those of pictures that were left out."""
        if "observations" in reading.columns:
            return reading.columns["observations"], []
        if not self._keys:
            found = ", ".join(sorted(self._members)) or "nothing"
            hint = "robomimic's dataset_states_to_obs.py makes them, or --columns observations=states"
            raise InputError(f"{self.where}: no obs; found {found}; {hint}")
        is_picture = {key: len(self._open(key).shape) > 2 for key in self._keys}
        chosen = tuple(key for key in self._keys if not is_picture[key])
        if not chosen:
            raise InputError(
                f"{self.where}: obs holds pictures alone; choose one: --columns observations={self._keys[0]}"
            )
        return chosen, [key for key in self._keys if is_picture[key]]

    def find(self, keys: tuple[str, ...], reading: Reading, budget: Budget) -> dict[str, Column]:
        """The columns, by our names."""
        names = [*self._members, *self._keys]
        mapping = {**reading.columns, "observations": keys}
        found = locate_columns(names, self.where, Reading(mapping))
        check_needed({*found, "rewards", "terminations"}, names, self.where, reading)  # those may be missing
        columns = {ours: [self._open(name) for name in theirs] for ours, theirs in found.items()}
        if set(keys) <= set(self._following):
            following = self._group.group("next_obs")
            columns["next_observations"] = [following.column(key) for key in keys]
        budget.take(column for parts in columns.values() for column in parts)
        return {ours: join(parts, f"{self.where}: {ours}") for ours, parts in columns.items()}

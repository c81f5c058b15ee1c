"""OGBench's `.npz` files (Park et al., 2025): walks without a task, and so without rewards.

Of each walk the last row, where `terminals` is 1, holds what was seen at its end, and an action that was not
taken. Other arrays (`qpos`, `qvel`, `button_states`) are of the simulator.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np

from chibit.core.arrays import open_npz
from chibit.data.readers.base import ColumnFormat
from chibit.data.readers.columns import Reading
from chibit.data.readers.npz import check_arrays, names_of, pair_note, read_npz
from chibit.data.readers.origin import Origin, file_name
from chibit.data.readers.recording import Recording, check_lengths, read_flags, record_columns
from chibit.data.readers.unpickler import COLUMN_NAMES

_NAMES = ("observations", "actions", "terminals")
_THEIRS = re.compile(
    r"(visual-)?(pointmaze|antmaze|humanoidmaze|antsoccer|cube|scene|puzzle|powderworld)-[a-z0-9-]+-v\d+(-val)?"
)


class OgBench(ColumnFormat, key="ogbench"):
    """OGBench's files, which are told from others by what is in them."""

    expected = "OGBench's .npz"

    def claim(self, path: Path) -> Path | None:
        """A file with the simulator's positions or a name of theirs, and without rewards of any name."""
        names = names_of(path)
        has_rewards = names & set(COLUMN_NAMES["rewards"])
        is_theirs = "qpos" in names or _THEIRS.fullmatch(path.stem)
        return path if names >= set(_NAMES) and is_theirs and not has_rewards else None

    def read_as(self, path: Path, reading: Reading) -> AbstractContextManager[tuple[Recording, Origin]]:
        """As `read_ogbench`; as other `.npz` files where the user names its columns."""
        return read_npz(path, reading) if reading.columns else read_ogbench(path, reading)


@contextlib.contextmanager
def read_ogbench(path: Path, reading: Reading) -> Iterator[tuple[Recording, Origin]]:
    """Read a file; raises InputError if its columns do not fit together. Walks without steps are left out."""
    with open_npz(path) as archive:
        check_arrays(archive, path, _NAMES)
        columns = [archive.read(name) for name in _NAMES]
    observations, actions, terminals = columns
    is_last = read_flags(terminals, f"{path}: terminals")
    check_lengths(dict(zip(_NAMES, columns, strict=True)), str(path))
    is_step = ~is_last
    found = {
        "observations": observations[is_step],
        "actions": actions[is_step],
        "rewards": np.zeros(int(is_step.sum())),
        "terminations": np.zeros(int(is_step.sum()), bool),
        "truncations": np.append(is_last[1:], False)[is_step],
        "next_observations": np.roll(observations, -1, axis=0)[is_step],
    }
    notes = (
        "no rewards recorded, as the data are without a task: all are 0",
        *pair_note(path, {"": "-val"}),
    )
    provenance = {"kind": "ogbench", "path": str(path.absolute())}
    origin = Origin(name=file_name(path), notes=notes, provenance=provenance)
    yield record_columns(found, where=str(path), reading=reading), origin

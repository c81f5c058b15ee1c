"""NeoRL's `.npz` files (Qin et al., 2022), which say by `index` in which rows their trajectories begin.

Those of NeoRL-2 mark ends by `done` and `truncated`, and are read as other `.npz` files are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np

from chibit.core.arrays import open_npz
from chibit.core.errors import InputError
from chibit.data.readers.base import ColumnFormat
from chibit.data.readers.columns import Column, Reading
from chibit.data.readers.npz import check_arrays, names_of, pair_note, read_npz
from chibit.data.readers.origin import Origin, file_name
from chibit.data.readers.recording import Recording, read_flags, read_vector, record_columns

_NAMES = {
    "observations": "obs",
    "actions": "action",
    "rewards": "reward",
    "terminations": "done",
    "next_observations": "next_obs",
}


class NeoRl(ColumnFormat, key="neorl"):
    """NeoRL's files, which are told from others by what is in them."""

    expected = "NeoRL's .npz"

    def claim(self, path: Path) -> Path | None:
        """A file with all of its arrays and no `truncated`, whose `index` does not number the rows."""
        names = names_of(path)
        if not names >= {*_NAMES.values(), "index"} or "truncated" in names:
            return None
        with open_npz(path) as archive:
            (num_starts, *_), (num_rows, *_) = (
                (*archive.declared(name)[0], 0) for name in ("index", _NAMES["rewards"])
            )
        return path if num_starts < num_rows else None

    def read_as(self, path: Path, reading: Reading) -> AbstractContextManager[tuple[Recording, Origin]]:
        """As `read_neorl`; as other `.npz` files where the user names its columns."""
        return read_npz(path, reading) if reading.columns else read_neorl(path, reading)


@contextlib.contextmanager
def read_neorl(path: Path, reading: Reading) -> Iterator[tuple[Recording, Origin]]:
    """Read a file; raises InputError if its columns do not fit together."""
    with open_npz(path) as archive:
        check_arrays(archive, path, [*_NAMES.values(), "index"])
        columns: dict[str, Column] = {ours: archive.read(theirs) for ours, theirs in _NAMES.items()}
        starts = read_vector(archive.read("index"), f"{path}: index")
    num_rows = columns["rewards"].shape[0]
    is_order = len(starts) and starts[0] == 0 and (np.diff(starts) > 0).all() and starts[-1] < num_rows
    if starts.dtype.kind not in "iu" or not is_order:
        raise InputError(f"{path}: index: expected the rows in which trajectories begin, from 0 upwards")
    truncations = np.zeros(num_rows, bool)
    truncations[np.append(starts[1:], num_rows) - 1] = True
    terminations = read_flags(columns["terminations"], f"{path}: done")
    if len(terminations) == num_rows:
        truncations &= ~terminations
    provenance = {"kind": "neorl", "path": str(path.absolute())}
    notes = pair_note(path, {"-train": "-val"})
    origin = Origin(name=file_name(path), notes=notes, provenance=provenance)
    columns["truncations"] = truncations
    yield record_columns(columns, where=str(path), reading=reading), origin

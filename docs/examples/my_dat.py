"""Tables of numbers with spaces between, as an example of a data format of one's own.

The columns are ``observation_0, observation_1, ..., action_0, ..., reward, terminated``, a row a step. In the
folder of this file:

    export CHIBIT_PLUGINS=my_dat
    chibit train --data log.dat
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from chibit.core.errors import InputError
from chibit.core.files import open_regular
from chibit.data.readers.base import Format
from chibit.data.readers.origin import Origin, file_name
from chibit.data.readers.recording import Recording, record_columns


class Dat(Format, key="dat"):
    """Tables with a line of names."""

    suffixes = (".dat",)

    @contextlib.contextmanager
    def read(self, path: Path) -> Iterator[tuple[Recording, Origin]]:
        """Read a whole file."""
        with open_regular(path) as file:
            names = file.readline().decode().split()
            table = np.loadtxt(file, ndmin=2)
        if not {"observation_0", "action_0", "reward", "terminated"} <= set(names):
            raise InputError(
                f"{path}: found {', '.join(names)}; expected observation_0, action_0, reward ..."
            )
        columns = {
            "observations": table[:, [name.startswith("observation_") for name in names]],
            "actions": table[:, [name.startswith("action_") for name in names]],
            "rewards": table[:, names.index("reward")],
            "terminations": table[:, names.index("terminated")],
        }
        origin = Origin(name=file_name(path), provenance={"kind": "dat", "path": str(path.absolute())})
        yield record_columns(columns, where=str(path)), origin

"""Files in HDF5, by what is in them: d3rlpy's dumps, robomimic's demonstrations, else D4RL's flat layout."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from chibit.data.readers import d3rlpy, d4rl, robomimic
from chibit.data.readers.columns import Reading, refuse_part
from chibit.data.readers.hdf5 import open_hdf5
from chibit.data.readers.origin import Origin
from chibit.data.readers.recording import Recording
from chibit.data.readers.sandbox import ApartColumnFormat


class Hdf5Files(ApartColumnFormat, key="hdf5"):
    """HDF5 files. What is in one is looked at in the process that reads it."""

    suffixes = (".hdf5", ".h5")
    expected = ".hdf5 or .h5 (D4RL's, d3rlpy's or robomimic's layout)"

    has_parts = True

    def claim(self, path: Path) -> Path | None:
        """Any but Minari's, which have a name of their own."""
        return None if path.name == "main_data.hdf5" else super().claim(path)

    def read_here_as(self, path: Path, reading: Reading) -> AbstractContextManager[tuple[Recording, Origin]]:
        """As the reader of the layout."""
        with open_hdf5(path) as file:
            layout = next((each for each in (d3rlpy, robomimic) if each.is_layout(file)), None)
        if layout is not None:
            return layout.read(path, reading)
        refuse_part(path, reading.part)
        return d4rl.read_d4rl(path, reading)

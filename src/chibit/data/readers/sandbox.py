"""HDF5 files are read in a process of their own, with limits on memory and time.

The process runs a reader, writes the steps as flat .npy files, and ends; its parent maps those files. What a
damaged or hostile file does to the HDF5 library, it does to a process that holds nothing else.

    observations.npy, actions.npy, next_observations.npy, rewards.npy, episode_starts.npy, episode_ends.npy
    description.json   the rest of the recording, and its origin
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from chibit.core.arrays import map_array
from chibit.core.config import from_json, read_json, to_json
from chibit.core.errors import DamagedFileError, InputError, ResourceError, UserError
from chibit.core.files import check_regular, create, resource_error, write_atomic
from chibit.core.platform import die_with_parent, limit_reader
from chibit.core.temporary import temporary_folder
from chibit.data.readers.origin import Origin
from chibit.data.readers.recording import BLOCK_ROWS, Block, Recording
from chibit.data.readers.size_limits import memory_budget

_READERS = {"d4rl": "read_d4rl", "minari": "read_minari"}  # of the modules of those names
_BASE_BYTES = 2 << 30  # address space of Python and its libraries
_BASE_SECONDS, _BYTES_A_SECOND = 600, 2_000_000  # of processor time; a slow disk does not count
_DESCRIPTION = "description.json"
_BLOCKS = ("observations", "actions", "next_observations")
_WHOLE = ("rewards", "episode_starts", "episode_ends")
_START = (
    "import sys; sys.path[:] = sys.argv.pop(1).split(sys.argv.pop(1)); "
    "from chibit.data.readers.sandbox import main; sys.exit(main(sys.argv[1:]))"
)


def read_d4rl_apart(path: Path) -> contextlib.AbstractContextManager[tuple[Recording, Origin]]:
    """As `d4rl.read_d4rl`, in a process of its own."""
    return _read_apart("d4rl", path)


def read_minari_apart(path: Path) -> contextlib.AbstractContextManager[tuple[Recording, Origin]]:
    """As `minari.read_minari`, in a process of its own."""
    return _read_apart("minari", path)


@contextlib.contextmanager
def _read_apart(reader: str, path: Path) -> Iterator[tuple[Recording, Origin]]:
    """Run a reader with limits.

    Raises:
        UserError: as the reader; DamagedFileError if it takes more memory or time than any such file may.
    """
    with temporary_folder() as folder:
        _run(reader, path, folder)
        yield _open(folder, path)


def _run(reader: str, path: Path, folder: Path) -> None:
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    size = sum(check_regular(file) for file in files)
    limits = str(_BASE_BYTES + memory_budget()), str(_BASE_SECONDS + size // _BYTES_A_SECOND)
    places = [str(Path(__file__).parents[3]), *(place for place in sys.path if place)]
    program = [sys.executable, "-I", "-c", _START, os.pathsep.join(places), os.pathsep]
    result = subprocess.run(
        [*program, reader, str(path), str(folder), *limits],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        # The library loads no filter plug-ins, wherever they are said to be.
        env=os.environ | {"HDF5_PLUGIN_PRELOAD": "::", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        check=False,
    )
    if result.returncode == 0:
        return
    lines = result.stderr.strip().splitlines()
    for kind in (InputError, DamagedFileError, ResourceError):
        if result.returncode == kind.exit_code and lines:
            raise kind(lines[-1])
    reason = f"signal {-result.returncode}" if result.returncode < 0 else (lines or ["an error"])[-1][:200]
    raise DamagedFileError(
        f"{path}: reading it ended with {reason}; the file is damaged or not to be trusted"
    )


def _open(folder: Path, path: Path) -> tuple[Recording, Origin]:
    """Map what the process has written."""
    try:
        description = read_json(folder / _DESCRIPTION)
        arrays = {file.stem: map_array(file) for file in folder.glob("*.npy")}
        columns = {name: arrays.pop(name) for name in _BLOCKS if name in arrays}
        origin = from_json(Origin, description["origin"], "origin")
        notes = tuple(description["recording"].pop("notes"))
        whole: dict[str, Any] = {name: np.array(arrays[name]) for name in _WHOLE}
        recording = Recording(
            **whole, **description["recording"], notes=notes, blocks=lambda: _blocks(columns)
        )
    except (KeyError, TypeError, ValueError, EOFError) as error:
        raise DamagedFileError(f"{path}: reading it gave no steps ({error}); copy the file again") from error
    return recording, origin


def _blocks(columns: Mapping[str, np.ndarray]) -> Iterator[Block]:
    following = columns.get("next_observations")
    for start in range(0, len(columns["actions"]), BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        yield Block(
            observations=np.asarray(columns["observations"][rows]),
            actions=np.asarray(columns["actions"][rows]),
            next_observations=None if following is None else np.asarray(following[rows]),
        )


def write_recording(folder: Path, recording: Recording, origin: Origin) -> None:
    """Write a recording so that `_open` gives it back."""
    num_steps = int(recording.episode_starts[-1])
    with contextlib.ExitStack() as stack:
        writers: dict[str, _ColumnWriter] = {}
        for block in recording.blocks():
            for name in _BLOCKS:
                values = getattr(block, name)
                if values is not None and name not in writers:
                    file = stack.enter_context(create(folder / f"{name}.npy"))
                    writers[name] = _ColumnWriter(
                        file, values, num_steps, is_discrete=recording.is_discrete and name == "actions"
                    )
                if values is not None:
                    writers[name].write(values)
    for name in _WHOLE:
        with create(folder / f"{name}.npy") as file:
            np.save(file, getattr(recording, name))
    rest = {
        name: getattr(recording, name)
        for name in ("state_dim", "num_action_columns", "is_discrete", "has_next_observations", "notes")
    }
    description = {"recording": to_json(rest), "origin": to_json(origin)}
    write_atomic(folder / _DESCRIPTION, json.dumps(description))


class _ColumnWriter:
    """Appends rows to a .npy file: integers as int64, and other numbers in the first rows' precision."""

    def __init__(self, file: IO[bytes], first: np.ndarray, num_rows: int, *, is_discrete: bool) -> None:
        self._file = file
        wide = np.float64 if first.dtype.itemsize > 4 or first.dtype.kind != "f" else np.float32
        self._dtype = np.dtype(np.int64 if is_discrete else wide)
        header = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": (num_rows, *first.shape[1:]),
        }
        np.lib.format.write_array_header_1_0(file, header)

    def write(self, values: np.ndarray) -> None:
        with np.errstate(over="ignore"):  # becomes infinite, and is refused with its place by the store
            self._file.write(np.ascontiguousarray(values, self._dtype).data)


def main(arguments: Sequence[str]) -> int:
    """Read one file under limits: READER PATH FOLDER MAX_BYTES MAX_SECONDS."""
    reader, given, folder, max_bytes, max_seconds = arguments
    die_with_parent()
    read: Any = getattr(importlib.import_module(f"chibit.data.readers.{reader}"), _READERS[reader])
    limit_reader(int(max_bytes), int(max_seconds))
    try:
        with read(Path(given)) as (recording, origin):
            try:
                write_recording(Path(folder), recording, origin)
            except OSError as error:
                raise resource_error(folder, error) from error
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except MemoryError:
        print(f"{given}: asks for more memory than any such file may; it is damaged", file=sys.stderr)
        return DamagedFileError.exit_code
    return 0

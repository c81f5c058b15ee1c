"""Files that are not to be trusted are read in a process of their own, with limits on memory and time.

The process runs a reader, writes the steps as flat .npy files, and ends; its parent maps those files. What a
damaged or hostile file does to a library, it does to a process that holds nothing else. Pickles have
a program of their own, `unpickler.py`; the readers of HDF5 run in `main` below and write

    observations.npy, actions.npy, next_observations.npy, rewards.npy, episode_starts.npy, episode_ends.npy
    description.json   the rest of the recording, and its origin
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from chibit.core.arrays import map_array, write_rows
from chibit.core.config import from_json, read_json, to_json
from chibit.core.errors import DamagedFileError, InputError, ResourceError, UserError
from chibit.core.files import check_regular, create, resource_error, write_atomic
from chibit.core.temporary import temporary_folder
from chibit.data.readers.base import ColumnFormat, Format
from chibit.data.readers.columns import Reading
from chibit.data.readers.origin import Origin
from chibit.data.readers.recording import Recording, column_blocks
from chibit.data.readers.size_limits import memory_budget
from chibit.data.readers.unpickler import limit
from chibit.data.statistics import blocks_of
from chibit.environments.kinds import OwnEnvironment
from chibit.environments.registry import own_ids, register

_BASE_BYTES = 2 << 30  # address space of Python and its libraries
_BASE_SECONDS, _BYTES_A_SECOND = 600, 2_000_000  # of processor time
_WALL_FACTOR = 4  # a slow disk or a busy machine takes longer than the processor
_DESCRIPTION = "description.json"
_BLOCKS = ("observations", "actions", "next_observations")
_WHOLE = ("rewards", "episode_starts", "episode_ends", "missions")
_FRAMES = "frames"
_DESCRIBED = ("state_dim", "num_action_columns", "is_discrete", "has_next_observations")
_START = (
    "import sys; sys.path[:] = sys.argv.pop(1).split(sys.argv.pop(1)); "
    "from chibit.data.readers.sandbox import main; sys.exit(main(sys.argv[1:]))"
)
_QUIET = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
_NO_PLUGINS = {"HDF5_PLUGIN_PRELOAD": "::"}  # HDF5 loads no filters, wherever they are said to be


def run_apart(
    program: Sequence[str], path: Path, folder: Path, *more: str, max_bytes: int, max_seconds: int
) -> None:
    """Have a program of this package's read a file: PROGRAM PATH FOLDER MAX_BYTES MAX_SECONDS MORE.

    It limits itself, writes what it has read into the folder, and exits with 0. Refusing, it says why in the
    last line of standard error and exits with the code of a `UserError`. Any other end is the file's doing.

    Args:
        program: arguments of Python.
        path: the file, or a folder of files.
        folder: for what is read.
        more: what it is told beside.
        max_bytes: address space.
        max_seconds: processor time; the clock's has a bound too.

    Raises:
        UserError: as the program; DamagedFileError where it came to another end.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-I", *program, str(path), str(folder), str(max_bytes), str(max_seconds), *more],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_WALL_FACTOR * max_seconds,
            env=os.environ | _QUIET | _NO_PLUGINS,
            check=False,
        )
        code, lines = done.returncode, done.stderr.strip().splitlines()
    except subprocess.TimeoutExpired:
        code, lines = 1, ["no end in sight"]
    if code == 0:
        return
    for kind in (InputError, DamagedFileError, ResourceError):
        if code == kind.exit_code and lines:
            raise kind(lines[-1])
    reason = f"signal {-code}" if code < 0 else (lines or ["an error"])[-1][:200]
    raise DamagedFileError(
        f"{path}: refused: reading it ended with {reason}; the file is damaged or not to be trusted"
    )


class ApartFormat(Format):
    """A format whose files are read in a process of their own: it finds the class by its key."""

    def read(self, path: Path) -> AbstractContextManager[tuple[Recording, Origin]]:
        """As `read_here`; DamagedFileError if it takes more memory or time than any such file may."""
        return self.read_as(path, Reading())

    def read_as(self, path: Path, reading: Reading) -> AbstractContextManager[tuple[Recording, Origin]]:
        """As `read`, with what the user says of the file."""
        reading.refuse_said(f"{path}: data of format {self.key!r} have")
        return _read_apart(self.key, path, reading)

    def read_here_as(self, path: Path, reading: Reading) -> AbstractContextManager[tuple[Recording, Origin]]:
        """As `Format.read_as`, in this process."""
        return self.read_here(path)

    @abstractmethod
    def read_here(self, path: Path) -> AbstractContextManager[tuple[Recording, Origin]]:
        """As `Format.read`, in this process."""


class ApartColumnFormat(ApartFormat, ColumnFormat):
    """Both: a file's columns may have any name, and it is read in a process of its own."""

    def read_as(self, path: Path, reading: Reading) -> AbstractContextManager[tuple[Recording, Origin]]:
        """As `read`, with what the user says of the file."""
        return _read_apart(self.key, path, reading)

    def read_here(self, path: Path) -> AbstractContextManager[tuple[Recording, Origin]]:
        """As `read_here_as`, of a file with usual names."""
        return self.read_here_as(path, Reading())

    @abstractmethod
    def read_here_as(self, path: Path, reading: Reading) -> AbstractContextManager[tuple[Recording, Origin]]:
        """As `Format.read_as`, in this process."""


@contextlib.contextmanager
def _read_apart(key: str, path: Path, reading: Reading) -> Iterator[tuple[Recording, Origin]]:
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    size = sum(check_regular(file) for file in files)
    places = os.pathsep.join([str(Path(__file__).parents[3]), *(place for place in sys.path if place)])
    with temporary_folder() as folder:
        run_apart(
            ["-c", _START, places, os.pathsep, key],
            path,
            folder,
            json.dumps({**to_json(reading), "environments": own_ids()}),
            max_bytes=_BASE_BYTES + memory_budget(),
            max_seconds=_BASE_SECONDS + size // _BYTES_A_SECOND,
        )
        yield _open(folder, path)


def _open(folder: Path, path: Path) -> tuple[Recording, Origin]:
    """Map what the process has written."""
    try:
        description = read_json(folder / _DESCRIPTION)
        arrays = {file.stem: map_array(file) for file in folder.glob("*.npy")}
        columns = {name: arrays.pop(name) for name in _BLOCKS if name in arrays}
        origin = from_json(Origin, description["origin"], "origin")
        described = description["recording"]
        notes, image_shape = tuple(described.pop("notes")), tuple(described.pop("image_shape"))
        whole: dict[str, Any] = {name: np.array(arrays[name]) for name in _WHOLE if name in arrays}
        recording = Recording(
            **whole,
            **described,
            notes=notes,
            image_shape=image_shape,
            frames=None if _FRAMES not in arrays else lambda: blocks_of(arrays[_FRAMES]),
            blocks=lambda: column_blocks(columns, len(columns["actions"]), columns["observations"].shape[1]),
        )
    except (KeyError, TypeError, ValueError, EOFError) as error:
        raise DamagedFileError(f"{path}: reading it gave no steps ({error}); copy the file again") from error
    return recording, origin


def write_recording(folder: Path, recording: Recording, origin: Origin) -> None:
    """Write a recording so that `_open` gives it back.

    Integers become int64, and other numbers have the precision of the first rows.
    """
    num_steps = int(recording.episode_starts[-1])
    with contextlib.ExitStack() as stack, np.errstate(over="ignore"):  # the store says where it is infinite
        files: dict[str, Any] = {}
        for block in recording.blocks():
            for name in _BLOCKS:
                values = getattr(block, name)
                if values is None:
                    continue
                if name not in files:
                    wide = np.float64 if values.dtype.itemsize > 4 or values.dtype.kind != "f" else np.float32
                    dtype = np.dtype(np.int64 if recording.is_discrete and name == "actions" else wide)
                    file = stack.enter_context(create(folder / f"{name}.npy"))
                    header = {"descr": dtype.str, "fortran_order": False}
                    header["shape"] = (num_steps, *values.shape[1:])
                    np.lib.format.write_array_header_1_0(file, header)
                    files[name] = file, dtype
                file, dtype = files[name]
                file.write(np.ascontiguousarray(values, dtype).data)
        if recording.frames is not None:
            file = stack.enter_context(create(folder / f"{_FRAMES}.npy"))
            write_rows(file, np.dtype(np.uint8), (num_steps, *recording.image_shape[1:]), recording.frames())
    for name in _WHOLE:
        if (values := getattr(recording, name)) is not None:
            with create(folder / f"{name}.npy") as file:
                np.save(file, values)
    rest = {name: getattr(recording, name) for name in (*_DESCRIBED, "image_shape", "notes")}
    description = {"recording": to_json(rest), "origin": to_json(origin)}
    write_atomic(folder / _DESCRIPTION, json.dumps(description))


def main(arguments: Sequence[str]) -> int:
    """Read one file under limits: KEY PATH FOLDER MAX_BYTES MAX_SECONDS READING."""
    key, given, folder, max_bytes, max_seconds, said = arguments
    limit(int(max_bytes), int(max_seconds))
    from chibit.data.resolve import all_formats

    try:
        format = all_formats().get(key)
        if not isinstance(format, ApartFormat):
            raise InputError(f"{given}: format {key!r} is not known here; name its module in CHIBIT_PLUGINS")
        record = json.loads(said)
        for env_id in record.pop("environments"):  # to be named by the file; it is not built in here
            register(OwnEnvironment(name=env_id, ids=(env_id,)))
        columns = {name: tuple(theirs) for name, theirs in record["columns"].items()}
        reading = Reading(**{**record, "columns": columns})
        with format.read_here_as(Path(given), reading) as (recording, origin):
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

"""Flat columns in .npz files, as `numpy.savez` writes them."""

from __future__ import annotations

import contextlib
import math
import stat
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from chibit.core.errors import DamagedFileError, InputError, UserError
from chibit.core.files import is_out_of_resources, read_error
from chibit.data.environment import choose_environment
from chibit.data.limits import check_declared_size
from chibit.data.origin import Origin, file_name
from chibit.data.recording import COLUMN_NAMES, Recording, name_columns, record_columns

_ENV_ID = "env_id"
_MAX_ENV_ID_BYTES = 1000
_LIBRARY_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    tokenize.TokenError,  # of numpy's reader of headers, as are the syntax and type errors
    SyntaxError,
    TypeError,
    OSError,
    ValueError,
    EOFError,
    KeyError,
    RuntimeError,
    MemoryError,
)


@contextlib.contextmanager
def read_npz(path: Path) -> Iterator[tuple[Recording, Origin]]:
    """Read a file of columns: observations, actions, rewards, terminations.

    Also truncations and next_observations, if they are known. An entry `env_id` (a string) names the
    environment.

    Raises:
        InputError: if columns are missing or do not fit together.
        DamagedFileError: if the file is damaged, or holds anything but numbers.
        ResourceError: if it is too large for this machine.
    """
    try:
        arrays = _load(path)
    except UserError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except _LIBRARY_ERRORS as error:
        if isinstance(error, PermissionError) or (isinstance(error, OSError) and is_out_of_resources(error)):
            raise read_error(path, error) from error
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DamagedFileError(f"{path}: damaged .npz file ({reason}); write it again") from error
    name = arrays.pop(_ENV_ID, None)
    env_id, notes = choose_environment(None if name is None else str(name))
    columns = {ours: arrays[theirs] for ours, theirs in name_columns(arrays, str(path)).items()}
    provenance = {"kind": "npz", "path": str(path.absolute())}
    origin = Origin(name=file_name(path), env_id=env_id, notes=notes, provenance=provenance)
    yield record_columns(columns, where=str(path)), origin


def _load(path: Path) -> dict[str, Any]:
    """Read the columns, after a look at what every one of them declares."""
    wanted = {name for names in COLUMN_NAMES.values() for name in names}
    declared = 0
    present = []
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            _check_member(member, path)
            if name not in wanted and name != _ENV_ID:
                continue
            with archive.open(member) as file:
                shape, dtype = _header(file)
            size = math.prod(shape) * dtype.itemsize
            is_env_id = name == _ENV_ID and dtype.kind == "U" and shape == () and size <= _MAX_ENV_ID_BYTES
            if not is_env_id and (dtype.kind not in "fiub" or dtype.itemsize > 8):
                raise DamagedFileError(f"{path}: {name} has type {dtype}; expected plain numbers")
            if size > member.file_size:
                raise DamagedFileError(f"{path}: {name} declares {size} bytes and holds {member.file_size}")
            declared += size
            present.append(name)
    check_declared_size(path, declared, path.stat().st_size)
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in present}


def _check_member(member: zipfile.ZipInfo, path: Path) -> None:
    """Refuse an archive whose members would lie elsewhere if it were unpacked; here none is."""
    parts = member.filename.replace("\\", "/").split("/")
    is_link = stat.S_ISLNK(member.external_attr >> 16)
    if is_link or ".." in parts or parts[0] in ("", "~") or not member.filename.isprintable():
        kind = "a link" if is_link else "outside the archive"
        raise DamagedFileError(f"{path}: {member.filename[:80]!r} is {kind}; it is not to be trusted")


def _header(file: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Read the header of a .npy member."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype

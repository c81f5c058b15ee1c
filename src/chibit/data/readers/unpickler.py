"""Read a list of trajectories from a pickle without running anything in it: a program of its own.

    python -I unpickler.py FILE FOLDER MAX_BYTES MAX_SECONDS [READING]

writes FOLDER/<column>.npy for each column and prints nothing; READING is what a user says of the file, as
JSON: a mapping `columns`, and `skip_damaged`. A refusal is one line on standard error; the exit code is 2 for
columns that do not fit together, 3 for a file that is damaged or not to be trusted, and 4 for a full disk.

A pickle is a program that may call anything it can name. Here it can name only what an array needs, and even
those names lead to the classes below, which take bytes, a shape and a simple type, check that they fit, and
call nothing of numpy's own unpickling. Memory and time are limited by the operating system, since a pickle
may also just ask for a terabyte. This file imports nothing of chibit, so that it starts in a tenth of a
second and can do nothing else.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import math
import pickle
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

resource: Any
try:
    import resource
except ImportError:
    resource = None

_PR_SET_PDEATHSIG, _SIGKILL = 1, 9
COLUMN_NAMES = {
    "observations": ("observations", "observation", "obs", "states", "state"),
    "actions": ("actions", "action", "acts", "act"),
    "rewards": ("rewards", "reward", "rew"),
    "terminations": (
        *("terminations", "terminals", "dones"),
        *("termination", "terminal", "terminated", "done"),
    ),
    "truncations": ("truncations", "timeouts", "truncation", "timeout", "truncated"),
    "next_observations": (
        *("next_observations", "next_observation", "next_obs", "next_states", "next_state"),
    ),
}
"""Our name of a column and those that files give it: Gymnasium's, D4RL's, and those of other loggers."""
EPISODE_NAMES = {"episode": ("episode", "episode_id", "episode_ids", "episode_index")}
"""The same of the column that says which episode a step is of."""
NEEDED = ("observations", "actions", "rewards")
MALFORMED, REFUSED, NO_SPACE = 2, 3, 4
DAMAGE = (
    pickle.UnpicklingError,
    EOFError,
    ValueError,
    TypeError,
    AttributeError,
    IndexError,
    KeyError,
    OverflowError,
    ImportError,
    RecursionError,
    AssertionError,
)
"""What bytes out of place make of an unpickler."""
_MAX_DIMENSIONS = 4


_NOT_NUMBERS = re.compile(r"c\d{1,2}|[USMm]\d{1,4}")
"""numpy's types of complex numbers, text and times, which are no fault of a file."""


class RefusedError(Exception):
    """The file holds something that is not a list of dictionaries of arrays."""


class MalformedError(Exception):
    """Trajectories are there, but their columns do not fit together."""


class _Dtype:
    """Stands in for numpy.dtype: a plain number type, perhaps with a byte order."""

    def __init__(self, name: Any = None, *_flags: Any) -> None:
        if isinstance(name, str) and _NOT_NUMBERS.fullmatch(name):
            raise MalformedError(f"an array of type {name}; expected plain numbers")
        dtype = np.dtype(name) if isinstance(name, str) and len(name) <= 4 else None
        if dtype is None or dtype.kind not in "fiub" or dtype.itemsize > 8:
            raise RefusedError(f"an array of type {str(name)[:40]!r}; expected plain numbers")
        self.value = dtype

    def __setstate__(self, state: Any) -> None:
        # (version, byte order, subdtype, names, fields, item size, alignment, flags): only the byte order can
        # matter.
        if not isinstance(state, tuple) or len(state) < 5 or state[1] not in ("<", ">", "|", "="):
            raise RefusedError("a malformed number type")
        if any(part is not None for part in state[2:5]):
            raise RefusedError("a structured type; expected plain numbers")
        if state[1] in "<>":
            self.value = self.value.newbyteorder(state[1])


class _Array:
    """Stands in for numpy.ndarray: filled by the state that numpy's pickles hold."""

    def __init__(self, *_arguments: Any) -> None:
        self.value: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise RefusedError("a malformed array")
        _, shape, dtype, is_fortran, data = state
        self.value = _make_array(data, dtype, shape, "F" if is_fortran else "C")


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any = "C", *_rest: Any) -> _Array:
    """Stand in for numpy's reconstruction of arrays in protocol 5."""
    array = _Array()
    array.value = _make_array(data, dtype, shape, order)
    return array


def _scalar(dtype: Any, data: Any = b"") -> Any:
    """Stand in for numpy's reconstruction of single numbers."""
    return _make_array(data, dtype, (), "C")[()]


def _encode(text: Any, encoding: Any) -> bytes:
    """Stand in for codecs.encode, by which protocol 2 writes bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise RefusedError("bytes in an unknown form")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """Stand in for bytes(), by which protocol 2 writes none."""
    return b""


def _make_array(data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    if isinstance(data, str):  # bytes of a Python 2 pickle
        data = data.encode("latin1")
    is_shape = isinstance(shape, tuple) and len(shape) <= _MAX_DIMENSIONS
    if not (is_shape and all(type(size) is int and size >= 0 for size in shape)):
        raise RefusedError("an array of a malformed shape")
    if not isinstance(dtype, _Dtype) or order not in ("C", "F") or not isinstance(data, bytes | bytearray):
        raise RefusedError("an array of objects; expected plain numbers")
    if math.prod(shape) * dtype.value.itemsize != len(data):
        raise RefusedError(f"an array of shape {shape} in {len(data)} bytes")
    return np.frombuffer(data, dtype.value).reshape(shape, order=order)


_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")
_ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): _no_bytes,
    **{(module, "_reconstruct"): _Array for module in _MULTIARRAY},
    **{(module, "scalar"): _scalar for module in _MULTIARRAY},
    **{(module, "_frombuffer"): _from_buffer for module in ("numpy.core.numeric", "numpy._core.numeric")},
}


def find_usual(usual: Sequence[str], names: Iterable[str], ours: str) -> tuple[str, ...]:
    """The column under one of its usual names, or those of which one is the beginning, by their number.

    Capitals are as small letters where no name is written as usual.

    Raises:
        MalformedError: where more than one may be meant, or a number is missing.
    """
    there = list(names)
    if found := _find(usual, there, ours):
        return found
    small = [name.lower() for name in there]
    found = _find(usual, small, ours)
    for name in found:
        if small.count(name) > 1:
            listed = " or ".join(other for other in there if other.lower() == name)
            raise MalformedError(f"{ours} may be {listed}; rename one, or say which by --columns {ours}=...")
    return tuple(there[small.index(name)] for name in found)


def _find(usual: Sequence[str], there: Sequence[str], ours: str) -> tuple[str, ...]:
    found: list[tuple[str, ...]] = [(name,) for name in usual if name in there]
    for name in usual:
        pattern = re.compile(rf"{name}[_.\[]?(\d{{1,9}})\]?")
        matches = ((pattern.fullmatch(other), other) for other in there)
        numbered = sorted(
            ((int(match[1]), other) for match, other in matches if match), key=lambda pair: pair[0]
        )
        if not numbered:
            continue
        columns = tuple(other for _, other in numbered)
        found.append(columns)
        for at, (number, other) in enumerate(numbered, min(numbered[0][0], 1)):
            if number < at:
                raise MalformedError(f"{columns[columns.index(other) - 1]} and {other} have one number")
            if number > at:
                raise MalformedError(f"{name} {at} is missing among {', '.join(columns[:20])}")
    if len(found) > 1:
        listed = " or ".join("+".join(columns[:20]) for columns in found)
        raise MalformedError(f"{ours} may be {listed}; say which by --columns {ours}={found[0][0]}")
    return found[0] if found else ()


class RestrictedUnpickler(pickle.Unpickler):
    """Knows no names but those of arrays."""

    def find_class(self, module: str, name: str) -> Any:
        """Give the stand-in for an admitted name.

        Raises:
            RefusedError: for every other name.
        """
        found = _ADMITTED.get((module, name))
        if found is None:
            raise RefusedError(f"it asks for {module}.{name}"[:120])
        return found


def read_trajectories(
    file: BinaryIO, columns: dict[str, list[str]] | None = None, *, skip_damaged: bool = False
) -> list[dict[str, np.ndarray]] | dict[str, np.ndarray]:
    """Read trajectories.

    Args:
        file: a pickled list of dictionaries of arrays, as Decision Transformer repositories make them, or one
            dictionary of arrays with all steps.
        columns: our names of columns and the file's, to be put side by side, where they are not usual ones.
        skip_damaged: leave trajectories out whose columns do not fit together.

    Returns:
        For each trajectory its columns under our names, none for one that is left out; or those of all steps.

    Raises:
        RefusedError: if it is anything else.
    """
    value = RestrictedUnpickler(file, encoding="latin1").load()
    if isinstance(value, dict) and value:
        return _columns(value, "the dictionary", columns or {}, COLUMN_NAMES | EPISODE_NAMES)
    if not isinstance(value, list | tuple) or not value:
        empty = "an empty" if isinstance(value, list | tuple | dict) else "a"
        raise MalformedError(
            f"{empty} {type(value).__name__}; expected a list of trajectories or a dictionary of columns"
        )
    found: list[dict[str, np.ndarray]] = []
    first: dict[str, np.ndarray] = {}
    for index, item in enumerate(value):
        where = f"trajectory {index}"
        try:
            found.append(_columns(item, where, columns or {}, COLUMN_NAMES))
            if len(found[-1]["rewards"]):  # those without steps may lack columns, or their width
                first = first or found[-1]
                _check_alike(found[-1], first, where)
        except MalformedError:
            del found[index:]
            if not skip_damaged or (index == len(value) - 1 and not any(found)):
                raise
            found.append({})
    return found


def _columns(
    trajectory: Any, where: str, mapping: dict[str, list[str]], known: dict[str, tuple[str, ...]]
) -> dict[str, np.ndarray]:
    if not isinstance(trajectory, dict):
        raise MalformedError(f"{where} is a {type(trajectory).__name__}; expected a dictionary")
    columns = {}
    for ours, usual in known.items():
        try:
            names = mapping.get(ours) or find_usual(usual, filter(_is_text, trajectory), ours)
        except MalformedError as error:
            raise MalformedError(f"{where}: {error}") from error
        missing = next((name for name in names if name not in trajectory), None)
        if missing is not None or not (names or ours not in NEEDED):
            accepted = ours if missing is None else f"{missing!r} for {ours}"
            found = ", ".join(sorted(repr(str(name)[:40]) for name in list(trajectory)[:20])) or "nothing"
            raise MalformedError(f"{where} has no {accepted}; found {found}")
        if names:
            parts = [_plain_array(trajectory[name], f"{where}: {name}") for name in names]
            columns[ours] = parts[0] if len(parts) == 1 else _side_by_side(parts, f"{where}: {ours}")
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) != 1:
        listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise MalformedError(f"{where}: columns differ in length ({listed})")
    return columns


def _check_alike(columns: dict[str, np.ndarray], first: dict[str, np.ndarray], where: str) -> None:
    if columns.keys() != first.keys():
        raise MalformedError(f"{where} has {', '.join(columns)}; expected {', '.join(first)} as before")
    for name, column in columns.items():
        if column.shape[1:] != first[name].shape[1:]:
            shapes = f"{column.shape[1:]}, before {first[name].shape[1:]}"
            raise MalformedError(f"{where}: {name} differ in shape between trajectories: {shapes}")


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _side_by_side(parts: list[np.ndarray], where: str) -> np.ndarray:
    if len({len(part) for part in parts}) != 1 or any(part.ndim > 2 for part in parts):
        shapes = ", ".join(str(part.shape) for part in parts)
        raise MalformedError(f"{where}: columns of shapes {shapes} cannot be put side by side")
    matrices = [part[:, None] if part.ndim == 1 else part for part in parts]
    return np.concatenate(matrices, axis=1)


def _plain_array(value: Any, where: str) -> np.ndarray:
    try:
        array = np.asarray(_numbers(value))
    except (TypeError, ValueError, OverflowError) as error:  # something else, or rows of different lengths
        raise MalformedError(f"{where} is no array of numbers") from error
    if array.ndim == 0 or array.dtype.kind not in "fiub":
        raise MalformedError(f"{where} is no array of numbers")
    return array


def _numbers(value: Any) -> Any:
    """An array, or numbers and arrays in lists in lists, without the stand-ins."""
    if isinstance(value, _Array):
        return value.value
    if isinstance(value, list | tuple):
        return [_numbers(part) for part in value]
    if isinstance(value, int | float | np.ndarray | np.generic):
        return value
    raise TypeError(type(value).__name__)


def write_columns(
    found: list[dict[str, np.ndarray]] | dict[str, np.ndarray], folder: Path, max_bytes: int
) -> None:
    """Write each column of all trajectories, end to end, and `lengths` where they are apart: -1 is left out.

    Raises:
        MalformedError: if there are no steps.
        RefusedError: if one array is used so often that the columns would explode.
    """
    given = [found] if isinstance(found, dict) else found
    trajectories = [each for each in given if each and len(each["rewards"])]
    if not trajectories:
        raise MalformedError("no trajectory has steps")
    names = list(trajectories[0])
    total = sum(trajectory[name].nbytes for trajectory in trajectories for name in names)
    if total > max_bytes:
        raise RefusedError(f"its arrays take {total} bytes once written out; at most {max_bytes} are allowed")
    if isinstance(found, list):
        lengths = np.array([len(each["rewards"]) if each else -1 for each in found])
        np.save(folder / "lengths.npy", lengths)
    for name in names:
        np.save(folder / f"{name}.npy", np.concatenate([trajectory[name] for trajectory in trajectories]))


def limit(max_bytes: int, max_seconds: int) -> None:
    """Bound what is left of this process's life: memory, time, no core file, and not beyond its parent's."""
    with contextlib.suppress(AttributeError, TypeError, OSError):  # only Linux ends it with its parent
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, _SIGKILL)
    if resource is None:  # on Windows there are no limits
        return
    with contextlib.suppress(ValueError):  # macOS knows this limit and does not take it
        resource.setrlimit(resource.RLIMIT_AS, (max_bytes, max_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (max_seconds, max_seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main(arguments: list[str]) -> int:
    """Convert one file under limits."""
    path, folder, max_bytes = arguments[0], Path(arguments[1]), int(arguments[2])
    limit(max_bytes, int(arguments[3]))
    try:
        with open(path, "rb") as file:
            said = json.loads(arguments[4]) if arguments[4:] else {}
            write_columns(read_trajectories(file, **said), folder, max_bytes)
        return 0
    except MalformedError as error:
        return _refuse(MALFORMED, f"{path}: {error}")
    except OSError as error:
        return _refuse(NO_SPACE, f"{folder}: cannot write ({error}); free some space")
    except RefusedError as error:
        reason = str(error)
    except MemoryError:
        reason = "it asks for more memory than its size allows"
    except DAMAGE as error:
        reason = f"not a whole pickle ({type(error).__name__}: {str(error)[:200]})"
    expected = "a pickled list of dictionaries of arrays"
    return _refuse(REFUSED, f"{path}: refused: {reason}; expected {expected}")


def _refuse(code: int, message: str) -> int:
    print(" ".join(message.split()), file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

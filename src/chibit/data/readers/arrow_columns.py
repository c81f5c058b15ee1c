"""Arrow's columns as arrays of plain numbers, of names of episodes, and of times.

Dimensions: n rows.
"""

from __future__ import annotations

import contextlib
import itertools
from typing import Any

import numpy as np

from chibit.core.errors import InputError
from chibit.data.readers.recording import exact_below

_A_SECOND = {"s": 1, "ms": 1e3, "us": 1e6, "ns": 1e9}


def numbers_of(column: Any, where: str, *, is_text: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """An arrow column as numbers (n,), or vectors (n, width) of lists, and which rows lack any, (n,) bool.

    What is lacking is 0. Only a column that names episodes may be text.
    """
    import pyarrow as pa
    import pyarrow.compute

    if not len(column):
        return np.zeros(0), np.zeros(0, bool)
    types, kind = pa.types, column.type
    if types.is_dictionary(kind):
        column = pa.chunked_array([chunk.dictionary_decode() for chunk in column.chunks], kind.value_type)
        kind = kind.value_type
    if types.is_null(kind):
        raise InputError(f"{where} is empty; expected a number in every row")
    lacks = np.asarray(column.is_null().to_numpy(), bool)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        lengths = pyarrow.compute.list_value_length(column).drop_null().unique().to_pylist()
        if len(lengths) != 1 or not lengths[0]:
            shown = f"{min(lengths, default=0)} to {max(lengths, default=0)}"
            raise InputError(f"{where}: lists of {shown} numbers; expected one length")
        flat = pa.chunked_array([chunk.flatten() for chunk in column.chunks], kind.value_type)
        inner, gaps = numbers_of(flat, where)
        values = np.zeros((len(column), inner.size // int((~lacks).sum())), inner.dtype)
        values[~lacks] = inner.reshape(-1, values.shape[1])
        lacks[~lacks] |= gaps.reshape(-1, lengths[0]).any(axis=1)
        return values, lacks
    if is_text and not (types.is_integer(kind) or types.is_floating(kind)):
        names = _names(column, where)
        return names, lacks | (np.char.str_len(np.char.strip(names)) == 0)
    if types.is_decimal(kind):
        column = _undecimal(column)
        kind = column.type
    if types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind):
        return np.asarray(column.fill_null(pa.scalar(0).cast(kind)).to_numpy()), lacks
    raise InputError(f"{where} has type {kind}; expected numbers")


def stored(column: Any) -> Any:
    """An arrow column of what a type of its own, as of UUIDs, is stored as."""
    import pyarrow as pa

    is_own = len(column) and isinstance(column.type, pa.BaseExtensionType)
    return column.cast(column.type.storage_type) if is_own else column


def is_rounded(column: Any) -> bool:
    """Whether arrow may have taken whole numbers for floats that do not tell them apart."""
    import pyarrow as pa
    import pyarrow.compute

    if not len(column) or not pa.types.is_float64(column.type):
        return False
    largest = pyarrow.compute.max(pyarrow.compute.abs(column)).as_py()
    return largest is not None and largest >= exact_below(np.dtype(np.float64))


def _names(column: Any, where: str) -> np.ndarray:
    """An arrow column that names episodes as texts (n,), empty where it has none; of bytes in hexadecimal."""
    import pyarrow as pa

    types, kind = pa.types, column.type
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return np.array([(name or b"").hex() for name in column.to_pylist()], str)
    try:
        return np.array(column.cast(pa.string()).fill_null("").to_pylist(), str)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(f"{where} has type {kind}; expected numbers or text") from error


def _undecimal(column: Any) -> Any:
    """An arrow column of decimals as floats, or as whole numbers where its type has none but these."""
    import pyarrow as pa

    if column.type.scale <= 0:
        with contextlib.suppress(pa.ArrowInvalid):
            return column.cast(pa.int64())
    return column.cast(pa.float64())


def times_of(column: Any) -> np.ndarray:
    """An arrow column (n,) as numbers, or datetime64; NaN or NaT where it is neither."""
    import pyarrow as pa

    if not len(column):
        return np.zeros(0)
    types, kind = pa.types, column.type
    if types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if types.is_time(kind) or types.is_duration(kind):
        numbers = column.cast(pa.int32() if types.is_time32(kind) else pa.int64())
        return np.asarray(numbers.to_numpy()) / _A_SECOND[kind.unit]
    if types.is_decimal(kind):
        return np.asarray(column.cast(pa.float64()).to_numpy())
    if types.is_integer(kind) or types.is_floating(kind) or types.is_timestamp(kind):
        return np.asarray(column.to_numpy())
    is_text = types.is_string(kind) or types.is_large_string(kind)
    zones = (None, "UTC") if is_text else (None,) if types.is_date(kind) else ()
    for unit, zone in itertools.product(("us", "ns"), zones):  # the second where the first loses digits
        with contextlib.suppress(pa.ArrowInvalid, pa.ArrowNotImplementedError):
            return np.asarray(column.cast(pa.timestamp(unit, tz=zone)).to_numpy())
    return np.full(len(column), np.nan)

"""Arrays of numbers that a caller gives."""

from __future__ import annotations

from typing import Any

import numpy as np

from chibit.core.errors import InputError, first_line

_TEXT = "; give choices as whole numbers from 0, and other text as columns of 1 and 0"
_OBJECT = "; give a number in each place, by astype(float) where they are numbers"
_TIME = "; give seconds, hours or days as such"
_REMEDIES = {"U": _TEXT, "S": _TEXT, "O": _OBJECT, "M": _TIME, "m": _TIME}
"""By the kind of what is no number."""


def as_numbers(what: str, values: Any) -> np.ndarray:
    """An array of what was given: an array, a list, a tensor of the CPU.

    Args:
        what: it is, for the message, in the plural.
        values: which nobody has looked at.

    Raises:
        InputError: if it is something else than numbers, or some of them are masked.
    """
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise InputError(f"{what} have rows of different lengths, expected as many in each") from error
    except (TypeError, RuntimeError) as error:  # of tensors: on a device, with gradients
        raise InputError(f"{what} cannot be read as an array ({first_line(error)})") from error
    if array.dtype.kind not in "fiub":
        remedy = _REMEDIES.get(array.dtype.kind, "")
        raise InputError(f"{what} have type {array.dtype}, expected numbers{remedy}")
    if type(values) is not np.ndarray and isinstance(values, np.ndarray) and np.ma.is_masked(values):
        place = tuple(int(axis[0]) for axis in np.nonzero(np.ma.getmaskarray(values)))
        raise InputError(
            f"{what} are masked at {list(place)}, expected a number in each place; fill it in, or leave that "
            "episode out"
        )
    return array

"""Which observations are pictures, of data and of environments alike. Imports numpy alone."""

from __future__ import annotations

import numpy as np

MIN_SIDE = 36
"""Pixels below which it is a grid of numbers: the convolutions need as many."""
_MOST_CHANNELS = 8


def channel_axis(shape: tuple[int, ...], dtype: np.dtype) -> int | None:
    """Axis of colors, or of a stack's pictures; -1 for one picture without; None for what is no pictures."""
    if dtype != np.uint8 or len(shape) not in (2, 3):
        return None
    axis = -1 if len(shape) == 2 else 2 if shape[2] <= shape[0] else 0
    sides = shape if axis < 0 else shape[:2] if axis else shape[1:]
    return axis if min(sides) >= MIN_SIDE and (axis < 0 or shape[axis] <= _MOST_CHANNELS) else None

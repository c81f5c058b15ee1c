"""Observations that are pictures: how they lie in a source, and as gray frames, each once.

Dimensions: n consecutive steps · C pictures in a stack · H height · W width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from chibit.core.errors import InputError
from chibit.data.readers.columns import Column
from chibit.environments.pictures import channel_axis

_BLOCK_ROWS = 512
_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as in JPEG


@dataclass(frozen=True)
class PictureForm:
    """How a picture or a stack of them lies in an array of (n, *shape) bytes."""

    depth: int
    """C; 1 where an observation is one picture."""
    height: int
    width: int
    channels: int
    """Axis, without n, of colors or of a stack's pictures; -1 where there is none."""
    is_color: bool

    @classmethod
    def of(cls, shape: tuple[int, ...], dtype: np.dtype) -> PictureForm | None:
        """The form of observations of a shape, without n; None where they are no pictures."""
        channels = channel_axis(shape, dtype)
        if channels is None:
            return None
        count = 1 if channels < 0 else shape[channels]
        height, width = shape[1:] if channels == 0 else shape[:2]
        return cls(1 if count == 3 else count, height, width, channels, count == 3)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.depth, self.height, self.width

    @property
    def note(self) -> str:
        """What becomes of them."""
        if self.is_color:
            return f"pictures in color, {self.height} x {self.width}, are read as gray"
        if self.depth > 1:
            return (
                f"stacks of {self.depth} pictures are kept picture by picture; before an episode it is black"
            )
        return f"observations are gray pictures of {self.height} x {self.width}"

    def stacks(self, values: np.ndarray) -> np.ndarray:
        """(n, *shape) as (n, C, H, W) gray."""
        if self.channels < 0:
            return values[:, None]
        stacked = np.moveaxis(values, self.channels + 1, 1)
        if not self.is_color:
            return stacked
        gray = np.tensordot(stacked.astype(np.float32), _LUMINANCE, axes=(1, 0))
        return np.rint(gray).astype(np.uint8)[:, None]

    def frames(self, column: Column, starts: np.ndarray, where: str) -> Iterator[np.ndarray]:
        """The newest picture of each of the first `starts[-1]` steps, (n, H, W) in blocks.

        Raises:
            InputError: if stacks do not follow each other within an episode.
        """
        before: np.ndarray | None = None
        for first in range(0, int(starts[-1]), _BLOCK_ROWS):
            rows = slice(first, min(first + _BLOCK_ROWS, int(starts[-1])))
            stacks = self.stacks(np.asarray(column[rows]))
            if self.depth > 1:
                previous = stacks[:-1] if before is None else np.concatenate([before, stacks[:-1]])
                offset = len(stacks) - len(previous)
                goes_on = ~np.isin(np.arange(rows.start + offset, rows.stop), starts)
                differs = (stacks[offset:, :-1] != previous[:, 1:]).any(axis=(1, 2, 3)) & goes_on
                if differs.any():
                    row = rows.start + offset + int(np.flatnonzero(differs)[0])
                    raise InputError(
                        f"{where}: observation {row} of {self.depth} pictures does not go on from the one "
                        "before; give single pictures, gray or with three colors"
                    )
                before = stacks[-1:]
            yield np.ascontiguousarray(stacks[:, -1])

"""Batches of several runs at once: each run's own draws, gathered together.

Dimensions: R runs · B batch · K context in timesteps.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from chibit.core.runtime import room_on, send
from chibit.data.samplers.resident import Resident
from chibit.data.samplers.windows import SequenceBatch, WindowSampler


def side_by_side(batches: Sequence[SequenceBatch], device: torch.device) -> SequenceBatch:
    """Batches of R runs, which lie on the host, as one on a device: every field has a first axis of R."""
    columns = [vars(batch) for batch in batches]
    laid = {name: torch.stack([column[name] for column in columns]) for name in columns[0]}
    if device.type != "cpu":
        laid = {name: send(column, device) for name, column in laid.items()}
    return SequenceBatch(**laid)


class StackedSampler:
    """Windows of R runs; their samplers' states move as if each had drawn alone."""

    def __init__(self, samplers: Sequence[WindowSampler], device: torch.device) -> None:
        """Gather what samplers of one shape draw.

        On a device, data for which there is room stay there, each data set once, and of a step only the rows
        of all runs travel, in one piece.
        """
        self._samplers, self._device = list(samplers), device
        self._data: Resident | None = None
        self._firsts = np.zeros((len(samplers), 1), np.int64)  # row of the joined data where a run's begin
        if device.type == "cpu":
            return
        keys = [(sampler.dataset.content_hash, sampler.dataset.spec) for sampler in samplers]
        distinct = list(dict.fromkeys(keys))
        parts = [samplers[keys.index(key)] for key in distinct]
        if sum(part.num_bytes for part in parts) <= room_on(device):
            self._data, firsts = Resident.joined([part.resident(device) for part in parts])
            self._firsts[:, 0] = [firsts[distinct.index(key)] for key in keys]

    def keep(self, places: Sequence[int]) -> None:
        """Go on with the runs of some places alone."""
        self._samplers = [self._samplers[place] for place in places]
        self._firsts = self._firsts[list(places)]

    def sample(self) -> SequenceBatch:
        """Draw the next batch of each run: every field has a first axis of R; see `own_rows` for its rows."""
        if self._data is not None:
            return self._gathered(self._data)
        return side_by_side([sampler.sample() for sampler in self._samplers], self._device)

    def _gathered(self, data: Resident) -> SequenceBatch:
        """The same on the device."""
        first, rows = self._samplers[0], np.stack([sampler.draw() for sampler in self._samplers])  # (R, B)
        anchors = (rows + self._firsts).reshape(-1)
        columns = data.windows(anchors, first.context_length, by_last=first.anchor == "last")
        laid = {name: column.unflatten(0, rows.shape) for name, column in columns.items()}
        return SequenceBatch(**laid)

    def own_rows(self, rows: np.ndarray, place: int) -> np.ndarray:
        """Rows of a run's own data set, of those that its batches have here."""
        return rows if self._data is None else rows - self._firsts[place, 0]

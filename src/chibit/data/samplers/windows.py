"""Windows of consecutive steps for sequence models: uniform over all steps, one gather for each batch.

Dimensions: B batch · K context in timesteps · S state_dim · A act_dim.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from chibit.core.memory import check_fits
from chibit.data.dataset import TrajectoryDataset
from chibit.data.samplers.base import RowSampler, check_sizes, to_device
from chibit.data.samplers.resident import Resident

WindowAnchor = Literal["first", "last"]


@dataclass(frozen=True)
class SequenceBatch:
    """B windows of up to K steps, padded on the RIGHT: real steps come first.

    Right padding is exact for a causal model whose positions are absolute timesteps: no real step ever
    attends to padding. Padding is 0 everywhere.
    """

    returns_to_go: Tensor
    """(B, K) float32 raw, not divided by a scale."""
    states: Tensor
    """(B, K, S) float32 normalized; stacks of pictures are (B, K, C, H, W) uint8 as they are, and padding
    then shows the last ones."""
    actions: Tensor
    """(B, K, A) float32, or (B, K) int64 where actions are discrete."""
    timesteps: Tensor
    """(B, K) int64 steps since the start of the episode."""
    attention_mask: Tensor
    """(B, K) bool, True = real step."""
    rows: Tensor
    """(B,) int64 first row of each window in the data set drawn from."""

    @property
    def shown(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What a model is shown, in its order: returns-to-go, states, actions, timesteps."""
        return self.returns_to_go, self.states, self.actions, self.timesteps

    def to(self, device: torch.device) -> SequenceBatch:
        """The same batch on a device; itself where it is there."""
        return to_device(self, device)


class WindowSampler(RowSampler):
    """Draws windows by one of their ends, uniformly over all steps of the data set.

    ``first``, as `get_batch` of Chen et al. (2021): the drawn step begins the window, which ends after K
    steps or with the episode. ``last``: the drawn step ends it, and it begins K - 1 steps before or with the
    episode, as the windows do that a policy sees. The first step of T-step episodes is then in min(1, K / T)
    of their windows; with ``first`` it is in 1 / T of them.
    """

    def __init__(
        self,
        dataset: TrajectoryDataset,
        *,
        context_length: int,
        batch_size: int,
        generator: np.random.Generator,
        anchor: WindowAnchor = "first",
    ) -> None:
        """Prepare the draws.

        Args:
            dataset: what to draw from; its memory map is read as needed.
            context_length: K, at least 1.
            batch_size: B, at least 1.
            generator: source of all randomness; `state_dict` holds its state.
            anchor: which end of a window is drawn.

        Raises:
            InputError: if `context_length` or `batch_size` is below 1.
        """
        check_sizes(context_length=context_length)
        super().__init__(dataset, batch_size=batch_size, generator=generator)
        self.context_length, self.anchor = context_length, anchor
        what = f"batch_size: a batch of {batch_size:,} windows of {context_length:,} steps"
        num_bytes = batch_size * context_length * self._row_bytes
        check_fits(num_bytes, what, "lower batch_size or context_length")
        self._offsets = np.arange(context_length)
        self._there: Resident | None = None

    def resident(self, device: torch.device) -> Resident:
        """The data on a device."""
        return Resident(self.dataset, self._normalize, device)

    def move_to(self, device: torch.device) -> None:
        """Keep the data on a device, and gather batches there from now on."""
        self._there = self.resident(device)

    def draw(self) -> np.ndarray:
        """Draw (B,) rows that anchor the next batch, without it."""
        return self._draw(len(self._records))

    def sample(self) -> SequenceBatch:
        """Draw the next batch."""
        return self.windows(self.draw())

    def windows(self, rows: np.ndarray) -> SequenceBatch:
        """Give the windows that are anchored at chosen rows.

        Args:
            rows: (B,) int64 rows of the data set.
        """
        if self._there is not None:
            by_last = self.anchor == "last"
            return SequenceBatch(**self._there.windows(rows, self.context_length, by_last=by_last))
        episodes = np.searchsorted(self._starts, rows, side="right") - 1
        ends = self._starts[episodes + 1]
        if self.anchor == "last":
            ends = rows + 1
            rows = np.maximum(self._starts[episodes], ends - self.context_length)
        steps = rows[:, None] + self._offsets
        mask = steps < ends[:, None]
        # Rows past the end repeat the last one and are blanked below, so that the gather needs no branch.
        records = self._records.take(np.minimum(steps, ends[:, None] - 1), axis=0)  # (B, K, W)
        if self._stacks is None:
            states = self._normalize(records[..., self._states])
            states *= mask[..., None]
        else:
            states = self._stacks.windows(rows, len(self._offsets))
        records *= mask[..., None]
        timesteps = (steps - self._starts[episodes][:, None]) * mask
        return SequenceBatch(
            returns_to_go=torch.from_numpy(np.ascontiguousarray(records[..., 0])),
            states=torch.from_numpy(states),
            actions=self._actions(records),
            timesteps=torch.from_numpy(timesteps),
            attention_mask=torch.from_numpy(mask),
            rows=torch.from_numpy(rows),
        )

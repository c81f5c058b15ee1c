"""Whole episodes with the text of what each is for.

Dimensions: B batch · K longest episode, or context, in timesteps · L tokens, or features, of a text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from chibit.core.errors import InputError
from chibit.data.dataset import TrajectoryDataset
from chibit.data.normalizer import StateNormalizer
from chibit.data.samplers.windows import SequenceBatch, WindowSampler


@dataclass(frozen=True)
class MissionBatch(SequenceBatch):
    """B episodes, or pieces of K steps, padded on the right; states are as the environment gives them."""

    text: Tensor
    """(B, L) as the agent encodes the texts of what these episodes are for."""


class MissionSampler(WindowSampler):
    """Draws episodes uniformly; of one that is longer than the context, a piece whose end is drawn."""

    def __init__(
        self,
        dataset: TrajectoryDataset,
        encode: Callable[[Sequence[str]], Tensor],
        *,
        context_length: int,
        batch_size: int,
        generator: np.random.Generator,
    ) -> None:
        """Prepare the draws.

        Args:
            dataset: what to draw from; it has missions.
            encode: makes one tensor (M, L) of M texts; called once, with the different ones.
            context_length: most steps of an episode.
            batch_size: B.
            generator: source of all randomness.

        Raises:
            InputError: if the data have no texts.
        """
        if dataset.missions is None:
            raise InputError(
                f"{dataset.spec.name}: says in no words what its episodes are for; give data with missions, "
                "or another agent"
            )
        super().__init__(
            dataset, context_length=context_length, batch_size=batch_size, generator=generator, anchor="last"
        )
        self._normalize = StateNormalizer(np.zeros(1, np.float32), np.ones(1, np.float32))
        texts, places = np.unique(dataset.missions, return_inverse=True)
        self._lengths = np.diff(self._starts)
        self._texts = encode(texts.tolist())
        self._text_of = torch.from_numpy(np.repeat(places, self._lengths))  # (N,) of each row
        if self._mixed is not None:  # bounds of rows become those of episodes
            bounds, shares = self._mixed
            self._mixed = np.searchsorted(self._starts, bounds), shares

    def move_to(self, device: torch.device) -> None:
        """Keep the data and the texts on a device."""
        super().move_to(device)
        self._texts, self._text_of = self._texts.to(device), self._text_of.to(device)

    def sample(self) -> MissionBatch:
        """Draw the next batch."""
        episodes = self._draw(len(self._lengths))
        lengths, most = self._lengths[episodes], self.context_length
        back = np.maximum(lengths - most, 0)  # pieces of a longer one may end so much earlier
        last = self._starts[episodes + 1] - 1
        if back.any():
            last = last - self._generator.integers(0, back + 1)
        return self.windows(last)

    def windows(self, rows: np.ndarray) -> MissionBatch:
        """Give the pieces that end at chosen rows (B,), with their texts."""
        batch = super().windows(rows)
        begun = self._starts[np.searchsorted(self._starts, rows, side="right") - 1]
        steps = int(np.minimum(rows - begun + 1, self.context_length).max())
        text = self._texts[self._text_of[batch.rows]]
        cut = {name: column[:, :steps] for name, column in vars(batch).items() if name != "rows"}
        return MissionBatch(**cut, rows=batch.rows, text=text)

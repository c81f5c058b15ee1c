"""Single transitions for value-based and cloning agents: uniform over all steps whose next state is known.

Dimensions: B batch · S state_dim · A act_dim.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from chibit.core.errors import InputError
from chibit.core.memory import check_fits
from chibit.data.dataset import TrajectoryDataset
from chibit.data.normalizer import StateNormalizer
from chibit.data.samplers.base import RowSampler, to_device
from chibit.data.samplers.resident import ResidentTransitions


@dataclass(frozen=True)
class TransitionBatch:
    """B transitions (s, a, r, s')."""

    states: Tensor
    """(B, S) float32 normalized; stacks of pictures are (B, C, H, W) uint8 as they are."""
    actions: Tensor
    """(B, A) float32, or (B,) int64 where actions are discrete."""
    rewards: Tensor
    """(B,) float32, raw or as `reward_transform` gave them."""
    next_states: Tensor
    """As `states`."""
    terminations: Tensor
    """(B,) float32; 1 where the environment ended the episode. A truncation is 0: the value of s' still
    counts."""
    rows: Tensor
    """(B,) int64 rows of the data set drawn from."""

    def to(self, device: torch.device) -> TransitionBatch:
        """The same batch on a device; itself where it is there."""
        return to_device(self, device)


class TransitionSampler(RowSampler):
    """Draws transitions uniformly.

    The last step of a truncated episode is left out where the data do not hold the observation after it,
    since its value target would need one. After a termination no value is needed, and the state itself stands
    in. Who clones needs none at all: with ``needs_next=False`` every step is drawn.
    """

    num_left_out: int
    """Steps that are never drawn, because their next observation is unknown."""

    def __init__(
        self,
        dataset: TrajectoryDataset,
        *,
        batch_size: int,
        generator: np.random.Generator,
        needs_next: bool = True,
        reward_transform: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> None:
        """Prepare the draws.

        Args:
            dataset: what to draw from; its memory map is read as needed.
            batch_size: B, at least 1.
            generator: source of all randomness; `state_dict` holds its state.
            needs_next: leave out steps whose next observation is unknown; else their own state stands in.
            reward_transform: maps raw rewards to what the batch holds, each by itself; None keeps them.

        Raises:
            InputError: if `batch_size` is below 1, or no step has a next observation.
        """
        super().__init__(dataset, batch_size=batch_size, generator=generator)
        num_bytes = 2 * batch_size * self._row_bytes  # a state and the next
        check_fits(num_bytes, f"batch_size: a batch of {batch_size:,} transitions", "lower batch_size")
        self._terminated = np.asarray(dataset.episode_ends[:, 0])
        self._final = None if dataset.final_observations is None else np.asarray(dataset.final_observations)
        self._normalize_raw = StateNormalizer.from_spec(dataset.spec)
        self._reward_transform = reward_transform
        self._there: ResidentTransitions | None = None
        left_out = np.empty(0, np.int64)
        if needs_next and self._final is None:
            left_out = self._starts[1:][~self._terminated] - 1
        self.num_left_out = len(left_out)
        self._num_rows = len(self._records) - self.num_left_out
        # Rank of the first drawable row after each one left out: turns a draw's rank into its row with one
        # search.
        self._ranks_left_out = left_out - np.arange(len(left_out))
        if self._mixed is not None:
            bounds, weights = self._mixed
            self._mixed = bounds - np.searchsorted(left_out, bounds), weights
        if self._num_rows == 0:
            raise InputError(
                f"{dataset.spec.name}: no step has a next observation; give data with longer episodes"
            )

    def move_to(self, device: torch.device) -> None:
        """Keep the data on a device, and gather batches there from now on."""
        self._there = ResidentTransitions(
            self.dataset,
            self._normalize,
            device,
            rewards=self._rewards(self._records),
            final_states=None if self._final is None else self._normalize_raw(self._final),
        )

    def sample(self) -> TransitionBatch:
        """Draw the next batch."""
        ranks = self._draw(self._num_rows)
        return self.transitions(ranks + np.searchsorted(self._ranks_left_out, ranks, side="right"))

    def transitions(self, rows: np.ndarray) -> TransitionBatch:
        """Give the transitions of chosen rows.

        Args:
            rows: (B,) int64 rows of the data set.
        """
        if self._there is not None:
            return TransitionBatch(**self._there.transitions(rows))
        episodes = np.searchsorted(self._starts, rows, side="right") - 1
        is_last = rows == self._starts[episodes + 1] - 1
        records = self._records.take(rows, axis=0)  # (B, W)
        states, next_states = self._read(rows, np.where(is_last, rows, rows + 1), records)
        if self._final is not None:
            next_states[is_last] = self._normalize_raw(self._final[episodes[is_last]])
        return TransitionBatch(
            states=torch.from_numpy(states),
            actions=self._actions(records),
            rewards=torch.from_numpy(self._rewards(records)),
            next_states=torch.from_numpy(next_states),
            terminations=torch.from_numpy((is_last & self._terminated[episodes]).astype(np.float32)),
            rows=torch.from_numpy(rows),
        )

    def _rewards(self, records: np.ndarray) -> np.ndarray:
        """Of records (..., W), as the batch holds them."""
        rewards = np.ascontiguousarray(records[:, -1])
        if self._reward_transform is None:
            return rewards
        return np.asarray(self._reward_transform(rewards), np.float32)

    def _read(
        self, rows: np.ndarray, following: np.ndarray, records: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """States of rows and of the ones that follow them, as the batch holds them."""
        if self._stacks is not None:
            return self._stacks.stacks(rows), self._stacks.stacks(following)
        after = self._records.take(following, axis=0)[:, self._states]
        return self._normalize(records[:, self._states]), self._normalize(after)

"""A data set's columns on a device, where batches are gathered: only the numbers of rows travel.

Those are drawn on the host as ever, so that a run sees the same batches; what comes out equals what the host
would have gathered, to the bit.

Dimensions: B batch · K context in timesteps · C pictures in a stack · N steps of the data.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from chibit.core.runtime import send
from chibit.data.dataset import TrajectoryDataset

_BLOCK_BYTES = 1 << 26
Columns = dict[str, Tensor]
"""Fields of a batch."""


class Resident:
    """The columns, with normalized states."""

    def __init__(
        self, dataset: TrajectoryDataset, normalize: Callable[[np.ndarray], np.ndarray], device: torch.device
    ) -> None:
        """Take the columns there, a block at a time."""
        self.device = device
        self._states = slice(1, 1 + dataset.spec.num_state_columns)
        self._is_discrete = dataset.is_discrete

        def prepare(records: np.ndarray) -> np.ndarray:
            records = np.array(records)
            records[:, self._states] = normalize(records[:, self._states])
            return records

        self._records = self.take(np.asarray(dataset.records), prepare)
        self._starts = self.take(np.asarray(dataset.episode_starts))
        self._frames: Tensor | None = None
        if dataset.frames is not None:
            self._frames, self._depth = self.take(np.asarray(dataset.frames)), dataset.spec.image_shape[0]

    @classmethod
    def joined(cls, parts: Sequence[Resident]) -> tuple[Resident, list[int]]:
        """The columns of several data sets without pictures end to end, and the first row of each."""
        firsts = [0, *itertools.accumulate(len(part._records) for part in parts)]
        whole = copy.copy(parts[0])
        whole._records = torch.cat([part._records for part in parts])
        starts = [part._starts[:-1] + first for part, first in zip(parts, firsts, strict=False)]
        whole._starts = torch.cat([*starts, parts[-1]._starts[-1:] + firsts[-2]])
        return whole, firsts[:-1]

    def take(self, column: np.ndarray, prepare: Callable[[np.ndarray], np.ndarray] = np.array) -> Tensor:
        """A column on the device, row by row as `prepare` gives it."""
        rows = max(1, _BLOCK_BYTES // max(1, column[:1].nbytes))
        kind = torch.from_numpy(prepare(column[:1])).dtype
        taken = torch.empty(column.shape, dtype=kind, device=self.device)
        for first in range(0, len(column), rows):
            taken[first : first + rows] = torch.from_numpy(prepare(column[first : first + rows]))
        return taken

    def windows(self, rows: np.ndarray, num_steps: int, *, by_last: bool) -> Columns:
        """Fields of the `SequenceBatch` of windows that begin, or end, at rows (B,)."""
        first = send(torch.from_numpy(rows), self.device)
        begin, ends = self._episodes(first)
        if by_last:
            ends = first + 1
            first = torch.maximum(begin, ends - num_steps)
        begin, ends = begin[:, None], ends[:, None]
        steps = first[:, None] + torch.arange(num_steps, device=self.device)
        mask = steps < ends
        records = self._records[torch.minimum(steps, ends - 1)] * mask[..., None]  # (B, K, W)
        return {
            "returns_to_go": records[..., 0].contiguous(),
            "states": records[..., self._states].contiguous()
            if self._frames is None
            else self.stacks(first, num_steps),
            "actions": self._actions(records),
            "timesteps": (steps - begin) * mask,
            "attention_mask": mask,
            "rows": first,
        }

    def _actions(self, records: Tensor) -> Tensor:
        actions = records[..., self._states.stop : -1]
        return actions[..., 0].long() if self._is_discrete else actions.contiguous()

    def _episodes(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """First row of the episode of each row (B,), and the row after its last."""
        episodes = torch.searchsorted(self._starts, rows, right=True)
        return self._starts[episodes - 1], self._starts[episodes]

    def stacks(self, rows: Tensor, num_steps: int) -> Tensor:
        """Stacks (B, K, C, H, W) of pictures of consecutive steps from rows (B,) on, see `FrameStacks`."""
        assert self._frames is not None
        begin, ends = (bound[:, None] for bound in self._episodes(rows))
        wanted = rows[:, None] + torch.arange(1 - self._depth, num_steps, device=self.device)
        pictures = self._frames[torch.minimum(torch.maximum(wanted, begin), ends - 1)]
        pictures = pictures * (wanted >= begin)[..., None, None]
        return pictures.unfold(1, self._depth, 1).permute(0, 1, 4, 2, 3)


class ResidentTransitions(Resident):
    """The columns, and what transitions need besides."""

    def __init__(
        self,
        dataset: TrajectoryDataset,
        normalize: Callable[[np.ndarray], np.ndarray],
        device: torch.device,
        *,
        rewards: np.ndarray,
        final_states: np.ndarray | None,
    ) -> None:
        """Take the columns there, rewards (N,) as batches hold them, and normalized final states (E, S)."""
        super().__init__(dataset, normalize, device)
        self._rewards = self.take(rewards)
        self._terminated = self.take(np.asarray(dataset.episode_ends[:, 0]))
        self._final = None if final_states is None else self.take(final_states)

    def transitions(self, rows: np.ndarray) -> Columns:
        """Fields of the `TransitionBatch` of rows (B,)."""
        at = send(torch.from_numpy(rows), self.device)
        episodes = torch.searchsorted(self._starts, at, right=True)
        is_last = at == self._starts[episodes] - 1
        records, following = self._records[at], torch.where(is_last, at, at + 1)
        if self._frames is None:
            states, after = records[:, self._states].contiguous(), self._records[following][:, self._states]
        else:
            states, after = (self.stacks(each, 1)[:, 0] for each in (at, following))
        if self._final is not None:
            after = torch.where(is_last[:, None], self._final[episodes - 1], after)
        return {
            "states": states,
            "actions": self._actions(records),
            "rewards": self._rewards[at],
            "next_states": after.contiguous(),
            "terminations": (is_last & self._terminated[episodes - 1]).float(),
            "rows": at,
        }

"""Windows of consecutive steps for sequence models: uniform over all steps, one gather for each batch.

Dimensions: B batch · K context in timesteps · S state_dim · A act_dim.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from chibit.core.errors import DamagedFileError, InputError
from chibit.core.memory import check_fits
from chibit.data.dataset import TrajectoryDataset
from chibit.data.samplers.frames import FrameStacks

BatchT = TypeVar("BatchT", bound=Any)


@dataclass(frozen=True)
class SequenceBatch:
    """B windows of up to K steps, padded on the RIGHT: real steps come first.

    Right padding is exact for a causal model whose positions are absolute timesteps: no real step ever
    attends to padding. Padding is 0 everywhere.
    """

    returns_to_go: Tensor
    """(B, K) float32 raw, not divided by a scale."""
    states: Tensor
    """(B, K, S) float32 normalised; stacks of pictures are (B, K, C, H, W) uint8 as they are, and padding
    then shows the last ones."""
    actions: Tensor
    """(B, K, A) float32, or (B, K) int64 where actions are discrete."""
    timesteps: Tensor
    """(B, K) int64 steps since the start of the episode."""
    attention_mask: Tensor
    """(B, K) bool, True = real step."""
    rows: Tensor
    """(B,) int64 first row of each window in the data set drawn from."""

    def to(self, device: torch.device) -> SequenceBatch:
        """The same batch on a device; itself where it is there."""
        return to_device(self, device)


class WindowSampler:
    """Draws windows as `get_batch` of Chen et al. (2021) does.

    An episode is chosen with probability proportional to its length and the window starts at any of its steps
    with equal probability; that is one uniform draw over all steps of the data set. The window ends after K
    steps or with the episode.
    """

    def __init__(
        self,
        dataset: TrajectoryDataset,
        *,
        context_length: int,
        batch_size: int,
        generator: np.random.Generator,
    ) -> None:
        """Prepare the draws.

        Args:
            dataset: what to draw from; its memory map is read as needed.
            context_length: K, at least 1.
            batch_size: B, at least 1.
            generator: source of all randomness; `state_dict` holds its state.

        Raises:
            InputError: if `context_length` or `batch_size` is below 1.
            ResourceError: if a batch is larger than memory.
        """
        for name, value in (("context_length", context_length), ("batch_size", batch_size)):
            if value < 1:
                raise InputError(f"{name}: got {value}, expected at least 1")
        self.dataset, self.context_length = dataset, context_length
        spec = dataset.spec
        self._records = np.asarray(dataset.records)  # a plain view: indexing np.memmap itself is slow
        what = f"batch_size: a batch of {batch_size:,} windows of {context_length:,} steps"
        num_bytes = 4 * batch_size * context_length * self._records.shape[1]
        check_fits(num_bytes, what, "lower batch_size or context_length")
        self._starts = np.asarray(dataset.episode_starts)
        self._offsets = np.arange(context_length)
        self._batch_size = batch_size
        self._generator = generator
        self._is_discrete = dataset.is_discrete
        self._states = slice(1, 1 + spec.num_state_columns)
        self._stacks = frame_stacks(dataset)
        self._mean = np.asarray(spec.state_mean, np.float32)
        self._std = np.asarray(spec.state_std, np.float32)

    def sample(self) -> SequenceBatch:
        """Draw the next batch."""
        return self.windows(self._generator.integers(0, len(self._records), self._batch_size))

    def windows(self, rows: np.ndarray) -> SequenceBatch:
        """Give the windows that start at chosen rows.

        Args:
            rows: (B,) int64 rows of the data set.
        """
        episodes = np.searchsorted(self._starts, rows, side="right") - 1
        ends = self._starts[episodes + 1]
        steps = rows[:, None] + self._offsets
        mask = steps < ends[:, None]
        # Rows past the end repeat the last one and are blanked below, so that the gather needs no branch.
        records = self._records.take(np.minimum(steps, ends[:, None] - 1), axis=0)  # (B, K, W)
        if self._stacks is None:
            states = records[..., self._states] - self._mean
            states /= self._std
            states *= mask[..., None]
        else:
            states = self._stacks.windows(rows, len(self._offsets))
        records *= mask[..., None]
        timesteps = (steps - self._starts[episodes][:, None]) * mask
        actions = records[..., self._states.stop : -1]
        if self._is_discrete:
            actions = actions[..., 0].astype(np.int64)
        return SequenceBatch(
            returns_to_go=torch.from_numpy(np.ascontiguousarray(records[..., 0])),
            states=torch.from_numpy(states),
            actions=torch.from_numpy(np.ascontiguousarray(actions)),
            timesteps=torch.from_numpy(timesteps),
            attention_mask=torch.from_numpy(mask),
            rows=torch.from_numpy(rows),
        )

    def state_dict(self) -> dict[str, Any]:
        """The generator's state, from which the draws go on to the bit."""
        return {"generator": dict(self._generator.bit_generator.state)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state that `state_dict` gave.

        Raises:
            DamagedFileError: if it is not the state of a generator of this kind.
        """
        restore_generator(self._generator, state)


def to_device(batch: BatchT, device: torch.device) -> BatchT:
    """A dataclass of tensors on a device; the same object where they are on the CPU and stay there."""
    if device.type == "cpu":
        return batch
    return replace(batch, **{name: x.to(device, non_blocking=True) for name, x in vars(batch).items()})


def frame_stacks(dataset: TrajectoryDataset) -> FrameStacks | None:
    """Give what reads the observations of a data set that are images; None where they are vectors."""
    if dataset.frames is None:
        return None
    return FrameStacks(dataset.frames, dataset.episode_starts, dataset.spec.image_shape[0])


def restore_generator(generator: np.random.Generator, state: Mapping[str, Any]) -> None:
    """Set a sampler's generator to a state that its `state_dict` gave.

    Raises:
        DamagedFileError: if it is not the state of a generator of this kind.
    """
    try:
        generator.bit_generator.state = state["generator"]
    except (KeyError, TypeError, ValueError) as error:
        kind = type(generator.bit_generator).__name__
        raise DamagedFileError(
            f"sampler state: expected that of a {kind} generator ({error}); resume from another checkpoint"
        ) from error

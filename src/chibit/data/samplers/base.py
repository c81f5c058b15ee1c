"""What samplers of windows and of single transitions share: the columns they read, the dice, the states."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch

from chibit.core.errors import DamagedFileError, InputError
from chibit.data.dataset import TrajectoryDataset
from chibit.data.normalizer import StateNormalizer
from chibit.data.samplers.frames import FrameStacks

BatchT = TypeVar("BatchT", bound=Any)


class RowSampler(ABC):
    """Draws rows of a data set with a generator, whose state it saves and restores."""

    def __init__(
        self, dataset: TrajectoryDataset, *, batch_size: int, generator: np.random.Generator
    ) -> None:
        """Take views of the columns; the memory map is read as needed.

        Raises:
            InputError: if `batch_size` is below 1.
        """
        check_sizes(batch_size=batch_size)
        spec = dataset.spec
        self.dataset = dataset
        self._batch_size, self._generator = batch_size, generator
        self._records = np.asarray(dataset.records)  # a plain view: indexing np.memmap itself is slow
        self._starts = np.asarray(dataset.episode_starts)
        self._states = slice(1, 1 + spec.num_state_columns)
        self._normalize = StateNormalizer.of_centered(spec)
        self._mixed: tuple[np.ndarray, np.ndarray] | None = None  # bounds of draws, and their shares
        if dataset.mixture is not None and dataset.mixture.weights:
            self._mixed = dataset.mixture.row_ranges(self._starts)
        self._row_bytes = self._records[:1].nbytes
        """Of a step in a batch."""
        self._stacks = None
        if dataset.frames is not None:
            self._stacks = FrameStacks(dataset.frames, dataset.episode_starts, spec.image_shape[0])
            self._row_bytes += math.prod(spec.image_shape)

    @property
    def num_bytes(self) -> int:
        """What its data take on a device."""
        frames = self.dataset.frames
        return self._records.nbytes + (0 if frames is None else frames.nbytes)

    @abstractmethod
    def sample(self) -> Any:
        """Draw the next batch."""

    @abstractmethod
    def move_to(self, device: torch.device) -> None:
        """Keep the data on a device, and gather batches there from now on; the draws stay the same."""

    def _draw(self, number: int) -> np.ndarray:
        """(B,) draws from 0 to `number` - 1, as often from each data set of a mixture as its weight says."""
        if self._mixed is None:
            return self._generator.integers(0, number, self._batch_size)
        bounds, weights = self._mixed
        weights = weights * (np.diff(bounds) > 0)
        chosen = self._generator.choice(len(weights), self._batch_size, p=weights / weights.sum())
        return self._generator.integers(bounds[chosen], bounds[chosen + 1])

    def _actions(self, records: np.ndarray) -> torch.Tensor:
        """Actions (..., A) float32, or (...) int64 where they are discrete, of records (..., W)."""
        actions = records[..., self._states.stop : -1]
        if self.dataset.is_discrete:
            return torch.from_numpy(actions[..., 0].astype(np.int64))
        return torch.from_numpy(np.ascontiguousarray(actions))

    def state_dict(self) -> dict[str, Any]:
        """The generator's state, from which the draws go on to the bit."""
        return {"generator": dict(self._generator.bit_generator.state)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state that `state_dict` gave; DamagedFileError if it is none."""
        restore_generator(self._generator, state)


def check_sizes(**sizes: int) -> None:
    """Refuse a size below 1."""
    for name, value in sizes.items():
        if value < 1:
            raise InputError(f"{name}: got {value}, expected at least 1")


def to_device(batch: BatchT, device: torch.device) -> BatchT:
    """A dataclass of tensors on a device; the same object where they are on the CPU and stay there."""
    if device.type == "cpu":
        return batch
    return replace(batch, **{name: x.to(device, non_blocking=True) for name, x in vars(batch).items()})


def restore_generator(generator: np.random.Generator, state: Mapping[str, Any]) -> None:
    """Set a sampler's generator to a state that its `state_dict` gave."""
    try:
        generator.bit_generator.state = state["generator"]
    except (KeyError, TypeError, ValueError) as error:
        kind = type(generator.bit_generator).__name__
        raise DamagedFileError(
            f"sampler state: expected that of a {kind} generator ({error}); resume from another checkpoint"
        ) from error

"""Where batches are gathered: on the host, on the device, or on the host while the device works."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import torch

from chibit.core.runtime import room_on
from chibit.data.samplers.base import RowSampler


def place(sampler: Any, device: torch.device) -> Any:
    """Give a sampler of the same draws that keeps a device from waiting.

    On the CPU, and for samplers of others, it is the sampler itself. Data for which there is `room_on` the
    device stay there; of larger ones the next batch is read while the device works.
    """
    if device.type == "cpu" or not isinstance(sampler, RowSampler):
        return sampler
    if sampler.num_bytes <= room_on(device):
        sampler.move_to(device)
        return sampler
    return PrefetchingSampler(sampler, device)


class PrefetchingSampler:
    """Reads the next batch in a thread, into memory from which it travels while the device works."""

    def __init__(self, sampler: RowSampler, device: torch.device) -> None:
        """Read by a sampler that nobody else draws from."""
        self.dataset = sampler.dataset
        self._sampler, self._device = sampler, device
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._next: Future[tuple[dict[str, Any], Any]] | None = None

    def sample(self) -> Any:
        """Give the next batch, and begin to read the one after it."""
        pending = self._next or self._thread.submit(self._read)
        _, batch = pending.result()
        self._next = self._thread.submit(self._read)
        return batch.to(self._device)

    def _read(self) -> tuple[dict[str, Any], Any]:
        """A batch, and the state from which it was drawn."""
        state, batch = copy.deepcopy(self._sampler.state_dict()), self._sampler.sample()
        if self._device.type == "cuda":
            batch = replace(batch, **{name: column.pin_memory() for name, column in vars(batch).items()})
        return state, batch

    def state_dict(self) -> dict[str, Any]:
        """The state from which the next batch to be given is drawn."""
        return self._sampler.state_dict() if self._next is None else self._next.result()[0]

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state that `state_dict` gave; DamagedFileError if it is none."""
        if self._next is not None:
            self._next.result()
            self._next = None
        self._sampler.load_state_dict(state)

"""The processes of a data-parallel run, as torchrun starts them; one process alone needs none of it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from chibit.core.errors import InputError


@dataclass(frozen=True)
class Workers:
    """This process among all of them."""

    rank: int = 0
    """Number of this process, from 0."""
    size: int = 1
    """Processes in all."""
    local_rank: int = 0
    """Number of this process on its machine; its CUDA device."""

    @property
    def is_first(self) -> bool:
        """Whether this process writes what all share."""
        return self.rank == 0

    @contextlib.contextmanager
    def first_alone(self) -> Iterator[None]:
        """Context that the first process goes through before the others."""
        if self.size > 1 and not self.is_first:
            dist.barrier()
        yield
        if self.size > 1 and self.is_first:
            dist.barrier()

    def add_up(self, tensors: Iterable[torch.Tensor]) -> None:
        """Replace each tensor by its sum over all processes."""
        if self.size > 1:
            for tensor in tensors:
                dist.all_reduce(tensor)

    def any(self, here: bool) -> bool:
        """Whether something is so in any process; their hosts wait for each other, not for their devices."""
        if self.size == 1:
            return here
        there = torch.tensor(here, dtype=torch.int32)
        dist.all_reduce(there)
        return bool(there)

    def gather(self, value: Any) -> list[Any]:
        """One value from each process, in the order of ranks."""
        if self.size == 1:
            return [value]
        gathered: list[Any] = [None] * self.size
        dist.all_gather_object(gathered, value)
        return gathered


@contextlib.contextmanager
def join_workers(device: str) -> Iterator[Workers]:
    """Join the other processes that torchrun started, and leave them at the end.

    Args:
        device: tensors on "cuda" are added up through NCCL, anything else goes through gloo.

    Raises:
        InputError: when torchrun's variables are not numbers.
    """
    given = {name: os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    if not all(given.values()):
        yield Workers()
        return
    if not all(value.isdigit() for value in given.values()):
        raise InputError(f"torchrun's variables: got {given}, expected numbers; start with torchrun")
    workers = Workers(int(given["RANK"]), int(given["WORLD_SIZE"]), int(given["LOCAL_RANK"]))
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo")
    try:
        yield workers
    finally:
        dist.destroy_process_group()

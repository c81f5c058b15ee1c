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
    started: bool = False
    """Whether torchrun has started it."""

    @classmethod
    def of_torchrun(cls) -> Workers:
        """What torchrun says of this process; one alone without it.

        Raises:
            InputError: when its variables are not numbers.
        """
        given = {name: os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
        if not all(given.values()):
            return cls()
        if not all(value.isdigit() for value in given.values()):
            raise InputError(f"torchrun's variables: got {given}, expected numbers; start with torchrun")
        return cls(int(given["RANK"]), int(given["WORLD_SIZE"]), int(given["LOCAL_RANK"]), started=True)

    def device(self, asked: str) -> str:
        """A run's device as this process takes it: of a machine's GPUs, each process has its own."""
        shares = asked == "cuda" or (asked == "auto" and torch.cuda.is_available())
        return f"cuda:{self.local_rank}" if shares and self.size > 1 else asked

    @contextlib.contextmanager
    def joined(self, device: torch.device) -> Iterator[None]:
        """Context in which the processes talk: of what is on CUDA through NCCL, of all else through gloo."""
        if not self.started:
            yield
            return
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
        try:
            yield
        finally:
            dist.destroy_process_group()

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

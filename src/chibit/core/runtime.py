"""Device, precision, threads and torch's random state: decided once, passed on explicitly."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from chibit.core.errors import InputError
from chibit.core.platform import total_memory

Precision = Literal["fp32", "bf16"]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # from glibc's malloc.h
_KEPT_BLOCK_BYTES = 1 << 30
_KEPT_BYTES = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """Where and how precisely tensors are computed."""

    device: str = "cpu"
    """"cpu", "cuda" or "cuda:N"."""
    precision: Precision = "fp32"
    """"bf16" runs the forward pass in bfloat16 autocast; parameters and optimizer state stay fp32."""
    num_threads: int = 1
    """Threads inside one operation on the CPU. Small models are fastest with one; run several seeds side by
    side instead."""

    @property
    def torch_device(self) -> torch.device:
        """The device as torch names it."""
        return torch.device(self.device)

    @property
    def sum_dtype(self) -> torch.dtype:
        """What numbers of several batches are added up in: float64, which Apple's GPUs do not have."""
        return torch.float32 if self.torch_device.type == "mps" else torch.float64

    @property
    def memory(self) -> int:
        """Bytes of memory that the device has."""
        if self.torch_device.type == "cuda":
            return int(torch.cuda.get_device_properties(self.torch_device).total_memory)
        return total_memory()

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Context of the forward pass: bfloat16 autocast, or nothing in fp32."""
        if self.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.torch_device.type, dtype=torch.bfloat16)


def resolve_runtime(device: str = "auto", precision: str = "fp32", num_threads: int = 1) -> Runtime:
    """Check what was asked for against this machine and set the number of threads.

    Args:
        device: "auto" (CUDA where present, else CPU), "cpu", "cuda" or "cuda:N".
        precision: "fp32" or "bf16".
        num_threads: threads inside one operation, at least 1.

    Raises:
        InputError: for an unknown device or precision, or a CUDA device that is not there.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"device: got {device!r}, expected auto, cpu, cuda or cuda:N") from error
    if kind.type not in ("cpu", "cuda"):
        raise InputError(f"device: got {device!r}, expected auto, cpu, cuda or cuda:N")
    if kind.type == "cuda" and (
        not torch.cuda.is_available() or (kind.index or 0) >= torch.cuda.device_count()
    ):
        raise InputError(f"device: {device!r} is not on this machine; use --device cpu")
    if precision not in ("fp32", "bf16"):
        raise InputError(f"precision: got {precision!r}, expected fp32 or bf16")
    if num_threads < 1:
        raise InputError(f"num_threads: got {num_threads}, expected at least 1")
    torch.set_num_threads(num_threads)
    _keep_freed_memory()
    return Runtime(device=device, precision=precision, num_threads=num_threads)  # type: ignore[arg-type]


def _keep_freed_memory() -> None:
    """Let glibc keep the memory that a step frees, up to a gibibyte, for the next step.

    Pages that it gives back to the system come back one fault at a time, which takes 5 to 10 % of a
    training step on a CPU. Other C libraries have no `mallopt`, and are left alone.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(_M_MMAP_THRESHOLD, _KEPT_BLOCK_BYTES)
    mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def seed_torch(seed: int) -> None:
    """Seed torch's global generators (initialization and dropout draw from them)."""
    torch.manual_seed(seed)


def read_scalars(values: Iterable[float | Tensor]) -> list[float]:
    """Numbers, and scalars of one device, as numbers; the host waits for the device once."""
    values = list(values)
    scalars = [value for value in values if isinstance(value, Tensor)]
    read = iter(torch.stack(scalars).tolist() if scalars else ())
    return [next(read) if isinstance(value, Tensor) else value for value in values]


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Without gradients, and in evaluation mode, which is put back as it was."""
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        module.train(was_training)


def capture_rng() -> dict[str, Any]:
    """The state of torch's global generators, for a checkpoint."""
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def restore_rng(state: dict[str, Any]) -> None:
    """Put torch's global generators back.

    Raises:
        ValueError: on a state that is missing or of the wrong length.
    """
    try:
        torch.set_rng_state(state["cpu"])
    except (KeyError, TypeError, RuntimeError) as error:
        raise ValueError("the state of torch's generator is missing or of the wrong length") from error
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])

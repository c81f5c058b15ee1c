"""Device, precision, threads and torch's random state: decided once, passed on explicitly."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from chibit.core.errors import InputError
from chibit.core.memory import memory_budget
from chibit.core.platform import total_memory

Precision = Literal["fp32", "tf32", "bf16"]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # from glibc's malloc.h
_KEPT_BLOCK_BYTES = 1 << 30
_KEPT_BYTES = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """Where and how precisely tensors are computed."""

    device: str = "cpu"
    """"cpu", "cuda", "cuda:N", or another accelerator that torch has."""
    precision: Precision = "fp32"
    """"bf16" runs the forward pass in bfloat16 autocast; parameters and optimizer state stay fp32. "tf32"
    rounds the factors of matrix products and convolutions to 10 bits of mantissa on CUDA GPUs."""
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

    @property
    def record(self) -> dict[str, Any]:
        """What provenance says of it."""
        name = None
        if self.torch_device.type == "cuda":
            name = torch.cuda.get_device_name(self.torch_device)
        return {"device": self.device, "name": name, "precision": self.precision}

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Context of the forward pass: bfloat16 autocast, or nothing."""
        if self.precision != "bf16":
            return contextlib.nullcontext()
        return torch.autocast(self.torch_device.type, dtype=torch.bfloat16)


def resolve_runtime(device: str = "auto", precision: str = "fp32", num_threads: int = 1) -> Runtime:
    """Check what was asked for against this machine; set the number of threads and the current device.

    Args:
        device: "auto" (CUDA where present, else CPU), "cpu", or an accelerator that torch has here: "cuda",
            "cuda:N", "mps".
        precision: "fp32", "tf32" (on CUDA) or "bf16".
        num_threads: threads inside one operation, at least 1.

    Raises:
        InputError: for an unknown device or precision, or a device that is not there.
    """
    if device == "auto":
        device = "cuda" if is_on_gpu(device) else "cpu"
    try:
        kind = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"device: got {device!r}, expected auto, cpu, cuda, cuda:N or mps") from error
    if precision not in get_args(Precision):
        raise InputError(f"precision: got {precision!r}, expected {', '.join(get_args(Precision))}")
    if precision == "tf32" and kind.type != "cuda":
        raise InputError(f"precision: tf32 is of CUDA GPUs, and the device is {device}; use fp32 or bf16")
    if num_threads < 1:
        raise InputError(f"num_threads: got {num_threads}, expected at least 1")
    if kind.type != "cpu":
        _take_accelerator(kind, device)
    if kind.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.set_num_threads(num_threads)
    _keep_freed_memory()
    return Runtime(device=device, precision=precision, num_threads=num_threads)  # type: ignore[arg-type]


def is_on_gpu(device: str) -> bool:
    """Whether what a run is asked to run on is a CUDA device, or will be one."""
    return torch.cuda.is_available() if device == "auto" else device.partition(":")[0] == "cuda"


def _take_accelerator(device: torch.device, asked: str) -> None:
    """Make it the one that is meant where none is named; InputError if it is not there."""
    here = torch.accelerator.current_accelerator(check_available=True)
    if here is None or here.type != device.type:
        raise InputError(f"device: {asked!r} is not on this machine; use --device cpu")
    count = torch.accelerator.device_count()
    number = asked.partition(":")[2]  # torch keeps 8 bits of it: its cuda:256 is cuda:0
    if number and int(number) >= count:
        raise InputError(f"device: {asked!r} is not on this machine, whose last is {device.type}:{count - 1}")
    if device.index is not None:
        torch.accelerator.set_device_index(device.index)


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


def free_memory(device: torch.device) -> int:
    """Bytes that work may take: what is free on a CUDA device, else half of the machine's."""
    if device.type != "cuda":
        return memory_budget()
    # What earlier work of this process has let go of is torch's, and not free for the driver.
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + kept


def room_on(device: torch.device) -> int:
    """Bytes that data may take: half of what is free on a CUDA device, else a quarter of the machine's."""
    return free_memory(device) // 2


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on a device; the host does not wait until it is there."""
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)


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


def capture_rng(device: torch.device) -> dict[str, Any]:
    """The state of torch's global generators on the CPU and on a device, for a checkpoint."""
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if device.type != "cpu":
        state[device.type] = torch.get_device_module(device).get_rng_state(*_named(device))
    return state


def restore_rng(state: Mapping[str, Any], device: torch.device) -> None:
    """Put torch's global generators back.

    Args:
        state: as `capture_rng` gave it; version 0.1 kept a list of all the machine's GPUs under "cuda".
        device: where the run goes on.

    Raises:
        ValueError: on a state that is missing, of the wrong length, or of another kind of device.
    """
    for kind in {*state, device.type} - {"cpu"}:
        of_all = isinstance(state.get(kind), list)
        if kind != device.type and not of_all:
            raise ValueError(f"they are drawn on {kind}, the run would go on with {device}")
        if kind == device.type and (
            kind not in state or (of_all and (device.index or 0) >= len(state[kind]))
        ):
            raise ValueError(f"there are none of {device}")
    try:
        torch.set_rng_state(state["cpu"])
        if device.type != "cpu":
            own = state[device.type]
            own = own[device.index or 0] if isinstance(own, list) else own
            torch.get_device_module(device).set_rng_state(own, *_named(device))
    except (KeyError, TypeError, RuntimeError) as error:
        raise ValueError("the state of torch's generator is missing or of the wrong length") from error


def _named(device: torch.device) -> tuple[torch.device, ...]:
    """A device as an argument of its module's functions; there is one of Apple's."""
    return () if device.type == "mps" else (device,)

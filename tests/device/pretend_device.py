"""A pretend accelerator: the CPU's arithmetic on a device named `pretend`, to test device code without one.

As on CUDA, an operation on tensors of two devices raises. What costs time there is counted, with the line of
the package that it stands on: `syncs` (the host waits for the device: `.item()`, copies to the CPU, results
whose shape depends on values), `copies` (from the host to the device) and `kernels`.

    with pretend_device() as seen:
        agent = make_agent(config, spec, Runtime(device="pretend"))
        agent.update(sampler.sample())
    assert seen.syncs == {}

Its limits: float32 alone, no autocast policy, no streams, no flash kernels.
"""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from unittest import mock

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "pretend"
_ATEN = torch.ops.aten
_SHAPE_FROM_VALUES = {
    _ATEN.nonzero.default,
    _ATEN.masked_select.default,
    _ATEN._unique2.default,
    _ATEN.bincount.default,
    _ATEN.repeat_interleave.Tensor,
}
_INDEXING = {
    _ATEN.index.Tensor,
    _ATEN.index_put_.default,
    _ATEN.index_put.default,
    _ATEN._index_put_impl_.default,
}
_VIEWS = {
    *("view", "_unsafe_view", "_reshape_alias", "expand", "permute", "transpose", "t", "slice", "select"),
    *("squeeze", "unsqueeze", "split", "split_with_sizes", "chunk", "unbind", "unfold"),
    *("detach", "alias", "as_strided", "lift_fresh"),
}


@dataclass
class Seen:
    """What happened on the device, as counts by kind and line of the package."""

    syncs: Counter[str] = field(default_factory=Counter)
    copies: Counter[str] = field(default_factory=Counter)
    kernels: Counter[str] = field(default_factory=Counter)

    def clear(self) -> None:
        """Begin to count anew."""
        for counter in (self.syncs, self.copies, self.kernels):
            counter.clear()


class _Backend:
    """What torch asks of a backend's module."""

    def is_available(self) -> bool:
        return True

    is_initialized = is_available

    def current_device(self) -> int:
        return 0

    def device_count(self) -> int:
        return 1

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        pass

    def get_rng_state(self, *_: Any) -> torch.Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, *_: Any) -> None:
        pass

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


@cache
def register() -> None:
    """Make the device known; before the process's first backward pass, which fixes what devices there are."""
    _setup_privateuseone_for_python_backend(NAME, backend_module=_Backend())


class PretendTensor(torch.Tensor):
    """A tensor of the device; `inner` holds its values on the CPU."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor, requires_grad: bool = False) -> PretendTensor:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=torch.device(NAME, 0),
            requires_grad=requires_grad,
        )
        made.inner = inner
        return made

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __repr__(self) -> str:
        return f"PretendTensor({self.inner})"

    def tolist(self) -> Any:
        """As of every tensor; the host waits for it."""
        _Pretence.active.seen.syncs[f"tolist {_line()}"] += 1
        return self.inner.tolist()

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _Pretence.active.run(func, args, kwargs or {})


def _line() -> str:
    """The innermost line of the package that is being run."""
    frame = sys._getframe()
    while frame is not None:
        if "/chibit/" in frame.f_code.co_filename:
            return f"{frame.f_code.co_filename.rpartition('/chibit/')[2]}:{frame.f_lineno}"
        frame = frame.f_back
    return "?"


def _is_pretend(device: Any) -> bool:
    return device is not None and torch.device(device).type == NAME


def _unwrapped(value: Any) -> Any:
    if isinstance(value, PretendTensor):
        return value.inner
    return torch.device("cpu") if isinstance(value, torch.device) and _is_pretend(value) else value


class _Pretence(TorchDispatchMode):
    """Every operation that touches the device passes here."""

    active: _Pretence

    def __init__(self) -> None:
        super().__init__()
        self.seen = Seen()
        self.generators: list[torch.Generator] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        leaves = pytree.tree_leaves((args, kwargs))
        if any(isinstance(leaf, PretendTensor) for leaf in leaves) or _is_pretend(kwargs.get("device")):
            return self.run(func, args, kwargs)
        return func(*args, **kwargs)

    def run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Count, refuse what mixes devices, compute on the CPU, and wrap what is of the device."""
        leaves, structure = pytree.tree_flatten((args, kwargs))
        here = [leaf for leaf in leaves if isinstance(leaf, PretendTensor)]
        on_cpu = [
            leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and not isinstance(leaf, PretendTensor)
        ]
        name = func._schema.name.split("::")[1]
        if func is _ATEN._local_scalar_dense.default:
            self._sync("item")
            return func(here[0].inner)
        stays = self._count(func, name, args, kwargs, here, on_cpu)
        if stays:
            self._check_generator(kwargs.get("generator"))
            if name not in _VIEWS:
                self.seen.kernels[name] += 1
        inner_args, inner_kwargs = pytree.tree_unflatten([_unwrapped(leaf) for leaf in leaves], structure)
        if inner_kwargs.get("pin_memory"):
            inner_kwargs["pin_memory"] = False
        result = func(*inner_args, **inner_kwargs)
        if not stays:
            return result
        known = {id(tensor.inner): tensor for tensor in here}  # in place: the same tensor comes back

        def wrap(value: Any) -> Any:
            if not isinstance(value, torch.Tensor) or isinstance(value, PretendTensor):
                return value
            return known[id(value)] if id(value) in known else PretendTensor(value)

        return pytree.tree_map(wrap, result)

    def _count(
        self,
        func: Any,
        name: str,
        args: Any,
        kwargs: dict[str, Any],
        here: list[PretendTensor],
        on_cpu: list[torch.Tensor],
    ) -> bool:
        """Whether the result is of the device; copies and waits are counted, mixing is refused."""
        wants = kwargs.get("device")
        if func is _ATEN._to_copy.default and wants is not None:
            if here and not _is_pretend(wants):
                self._sync("to the host")
                return False
            if not here:
                self._copy("to the device")
        elif func is _ATEN.copy_.default and here and on_cpu:
            if not isinstance(args[0], PretendTensor):
                self._sync("to the host")
                return False
            self._copy("to the device")
        elif here:
            self._refuse_mixing(func, args, on_cpu)
            if func in _SHAPE_FROM_VALUES:
                self._sync(name)
        return bool(here) if wants is None else _is_pretend(wants)

    def _refuse_mixing(self, func: Any, args: Any, on_cpu: list[torch.Tensor]) -> None:
        foreign = [tensor for tensor in on_cpu if tensor.dim() > 0]
        if func in _INDEXING and isinstance(args[0], PretendTensor):
            indices = [each for each in args[1] or [] if isinstance(each, torch.Tensor)]
            if any(not isinstance(index, PretendTensor) for index in indices):
                self._copy("index")
            if any(index.dtype in (torch.bool, torch.uint8) for index in indices):
                self._sync("boolean index")
            foreign = [tensor for tensor in foreign if not any(tensor is index for index in indices)]
        if foreign:
            shapes = [tuple(tensor.shape) for tensor in foreign]
            raise RuntimeError(f"tensors of two devices: {func} has {shapes} of the CPU, at {_line()}")

    def _check_generator(self, generator: torch.Generator | None) -> None:
        own = [known._cdata for known in self.generators]  # each look at a generator is another object
        if generator is not None and generator._cdata not in own:
            raise RuntimeError(f"a generator of the CPU draws for the device, at {_line()}")

    def _sync(self, kind: str) -> None:
        self.seen.syncs[f"{kind} {_line()}"] += 1

    def _copy(self, kind: str) -> None:
        self.seen.copies[f"{kind} {_line()}"] += 1


@contextlib.contextmanager
def pretend_device() -> Iterator[Seen]:
    """Within it `torch.device("pretend")` can be used; gives what is seen on it."""
    register()
    pretence = _Pretence.active = _Pretence()
    make_tensor, make_generator, save = torch.tensor, torch.Generator, torch.save

    def tensor(data: Any, *args: Any, device: Any = None, **kwargs: Any) -> torch.Tensor:
        made = make_tensor(data, *args, **kwargs)
        if not _is_pretend(device):
            return made if device is None else made.to(device)
        pretence._copy("to the device")
        return PretendTensor(made)

    class Generator:
        """Makes one of the CPU and remembers for which device."""

        def __new__(cls, device: Any = "cpu") -> Any:
            made = make_generator("cpu")
            if _is_pretend(device):
                pretence.generators.append(made)
            return made

    def save_tensors(content: Any, *args: Any, **kwargs: Any) -> None:
        def on_host(value: Any) -> Any:
            if isinstance(value, PretendTensor):
                raise AssertionError("a file gets tensors of the device: it could not be read without one")
            return value

        save(pytree.tree_map(on_host, content), *args, **kwargs)

    swaps = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        with (
            mock.patch.object(torch, "tensor", tensor),
            mock.patch.object(torch, "Generator", Generator),
            mock.patch.object(torch, "save", save_tensors),
            mock.patch.object(torch, "inference_mode", torch.no_grad),  # not for subclasses of Tensor
            pretence,
        ):
            yield pretence.seen
    finally:
        torch.__future__.set_swap_module_params_on_conversion(swaps)

"""Dropout, and where its random numbers come from.

By default they are a stream, drawn one after the other from torch's generator of the device. Within `drawing`
they come from what is given there: `Counted` computes them from the run's seed, the step and the place in the
step, so that they are the same on every device, alone or beside other runs; `Streams` has a generator for
each of several runs.

Dimensions: R runs at once · W words, each of which decides four coordinates.
"""

from __future__ import annotations

import contextlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_BITS = 64
_GOLDEN, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
"""Of splitmix64 (Steele et al., 2014)."""


def dropout(x: Tensor, p: float, *, training: bool, as_torch: bool = False) -> Tensor:
    """Drop each coordinate with probability p (rounded to 1/65536) and rescale the rest to keep the mean.

    On CPU one 64-bit draw of the global generator decides four coordinates, which costs a tenth of
    `F.dropout`; elsewhere it is `F.dropout`. Within `drawing` the draws are those.

    Args:
        x: any shape.
        p: probability in [0, 1).
        training: False returns x itself.
        as_torch: whether a stream is drawn from as `F.dropout` does it, on CPU too.
    """
    if not training or p == 0.0:
        return x
    active = _ACTIVE.get()
    if active is not None:
        draws, place = active
        asked = (tuple(x.shape), p, x.dtype if as_torch else None)
        keep = draws.masks(*asked)[0] if place is None else _OfEachRun.apply(place, draws, *asked)
        return x * keep.to(x.dtype)
    if as_torch or x.device.type != "cpu":
        return F.dropout(x, p)
    words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    return x * _mask(words.view(torch.int16)[: x.numel()].view(x.shape), p).to(x.dtype)


def _mask(draws: Tensor, p: float) -> Tensor:
    """0 where one of int16 draws says to drop, else what keeps the mean."""
    dropped = min(max(1, round(p * 65536)), 65535)
    # 1 where draws >= dropped - 32768, else 0, by arithmetic: five times faster than a comparison and a cast.
    keep = draws.to(torch.float32).sub_(dropped - 32769).clamp_(0.0, 1.0)
    return keep.mul_(65536 / (65536 - dropped))


class Draws(ABC):
    """Random numbers of one run, or of several at once."""

    @abstractmethod
    def words(self, number: int) -> Tensor:
        """Draw the next (R, W) int64."""

    def masks(self, shape: tuple[int, ...], p: float, as_torch: torch.dtype | None) -> Tensor:
        """Draw (R, *shape) factors: 0 with probability p, else 1 / (1 - p).

        Args:
            shape: of a run's.
            p: see `dropout`.
            as_torch: of what they multiply, where a stream is drawn from as `F.dropout` does it.
        """
        number = math.prod(shape)
        words = self.words((number + 3) // 4)
        return _mask(words.view(torch.int16)[:, :number].reshape(len(words), *shape), p)


class Counted(Draws):
    """Computed from seed, step and place in the step; nothing is remembered from step to step."""

    def __init__(self, seeds: Tensor) -> None:
        """Draw for R runs of (R,) int64 seeds, where those lie."""
        self.seeds = seeds
        self._most = 0
        self.begin(0)

    def begin(self, step: int) -> None:
        """Begin a step, at its first place."""
        self._step, self._used, self._first = step, 0, 0
        self._ahead = self.seeds.new_empty(len(self.seeds), 0)

    def words(self, number: int) -> Tensor:
        """Draw the next (R, W); those of a whole step are drawn at once where a step has shown how many."""
        end = self._used + number
        if end > self._first + self._ahead.shape[1]:
            self._first = self._used
            self._ahead = self._at(self._used, max(number, self._most - self._used))
        taken = self._ahead[:, self._used - self._first : end - self._first]
        self._used, self._most = end, max(self._most, end)
        return taken

    def _at(self, first: int, number: int) -> Tensor:
        """(R, number) words of the step from a place on."""
        keys = _mixed(self.seeds + _signed(_GOLDEN * (2 * self._step + 1)))
        places = torch.arange(first + 1, first + number + 1, device=self.seeds.device)
        return _mixed(_mixed(keys)[:, None] + places * _signed(_GOLDEN))


def _signed(number: int) -> int:
    """The 64 last bits of a number, as the int64 that has them."""
    number %= 1 << _BITS
    return number - (1 << _BITS) if number >> (_BITS - 1) else number


def _mixed(words: Tensor) -> Tensor:
    """Splitmix64's finalizer of int64 words, in new memory; integers wrap around."""
    words = _folded(words, 30).mul_(_signed(_FIRST))
    words = _folded(words, 27).mul_(_signed(_SECOND))
    return _folded(words, 31)


def _folded(words: Tensor, by: int) -> Tensor:
    """Words XOR themselves shifted to the right, with zeros from the left."""
    return (words >> by).bitwise_and_((1 << (_BITS - by)) - 1).bitwise_xor_(words)


class Streams(Draws):
    """A generator of the CPU for each run, drawn from as the run alone draws from torch's own."""

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        """Draw from generators, whose states are the runs'."""
        self.generators = list(generators)

    def words(self, number: int) -> Tensor:
        """Draw the next (R, W)."""
        drawn = torch.empty(len(self.generators), number, dtype=torch.int64)
        for row, generator in zip(drawn, self.generators, strict=True):
            row.random_(-(2**63), None, generator=generator)
        return drawn

    def masks(self, shape: tuple[int, ...], p: float, as_torch: torch.dtype | None) -> Tensor:
        """See `Draws.masks`."""
        if as_torch is None:
            return super().masks(shape, p, as_torch)
        drawn = torch.empty(len(self.generators), *shape, dtype=as_torch)
        for row, generator in zip(drawn, self.generators, strict=True):
            row.bernoulli_(1.0 - p, generator=generator)
        return drawn.div_(1.0 - p)


_ACTIVE: ContextVar[tuple[Draws, Tensor | None] | None] = ContextVar("draws", default=None)


@contextlib.contextmanager
def drawing(draws: Draws | None, place: Tensor | None = None) -> Iterator[None]:
    """Take dropout's random numbers from `draws` within.

    Args:
        draws: of one run, or of several; None is torch's generator of the device.
        place: where several models are one function under `torch.func.vmap`: anything that is batched there.
    """
    before = _ACTIVE.set(None if draws is None else (draws, place))
    try:
        yield
    finally:
        _ACTIVE.reset(before)


def is_counted() -> bool:
    """Whether dropout's random numbers are others than torch's own."""
    return _ACTIVE.get() is not None


def is_stacked() -> bool:
    """Whether several models are being computed as one function."""
    active = _ACTIVE.get()
    return active is not None and active[1] is not None


class _OfEachRun(torch.autograd.Function):
    """Masks from outside `vmap`, where those of all runs are drawn at once."""

    @staticmethod
    def forward(place: Tensor, draws: Draws, shape: Any, p: float, as_torch: Any) -> Tensor:
        raise AssertionError("a stack is computed under vmap")

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return None, None, None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, place: Any, draws: Draws, shape: Any, p: float, as_torch: Any) -> Any:
        return draws.masks(shape, p, as_torch), 0

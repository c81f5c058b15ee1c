"""The one map of observations to zero mean and unit spread.

Dimensions: S state_dim.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from chibit.data.dataset import DatasetSpec


@dataclass(frozen=True, eq=False)
class StateNormalizer:
    """The one map of observations to zero mean and unit spread: of samplers, policies and exported graphs."""

    mean: Any
    """(S,) float32, an array or a tensor."""
    std: Any
    """(S,) float32, positive, of the same kind."""
    offset: Any = None
    """(S,) float64, taken off first, of the same kind; None for none."""

    @classmethod
    def from_spec(cls, spec: DatasetSpec) -> StateNormalizer:
        """Of raw observations: mean, spread and offset from a data set's description, as arrays."""
        offset = np.asarray(spec.state_offset, np.float64) if spec.state_offset else None
        return replace(cls.of_centered(spec), offset=offset)

    @classmethod
    def of_centered(cls, spec: DatasetSpec) -> StateNormalizer:
        """Of observations less the offset, as records hold them."""
        return cls(np.asarray(spec.state_mean, np.float32), np.asarray(spec.state_std, np.float32))

    def __call__(self, observations: Any) -> Any:
        """Normalize (..., S) raw observations; arrays become float32. Images pass as they are, uint8."""
        if not len(self.mean):
            return observations
        if self.offset is not None:  # in double precision until it is off
            rest = observations - self.offset
            observations = rest.astype(np.float32) if isinstance(rest, np.ndarray) else rest.float()
        states = observations - self.mean
        states /= self.std
        return states.astype(np.float32, copy=False) if isinstance(states, np.ndarray) else states

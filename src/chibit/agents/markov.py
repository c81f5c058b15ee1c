"""Agents that see one state at a time: from raw observations to actions inside the bounds.

Dimensions: B batch · E episodes rolled out at once · S state_dim · A act_dim.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from chibit.agents.base import PolicyStep
from chibit.core.acting import are_moderate
from chibit.core.state_policies import MemorylessPolicy
from chibit.data.dataset import DatasetSpec
from chibit.data.normalizer import StateNormalizer
from chibit.models.projections import ActionRange


class MarkovPolicy(MemorylessPolicy):
    """Acts on the current observation alone, by a function of normalized states."""

    def __init__(
        self,
        spec: DatasetSpec,
        device: torch.device,
        actions: Callable[[Tensor], Tensor],
        *,
        epsilon: float = 0.0,
    ) -> None:
        """Act with a function of normalized states.

        Args:
            spec: of the data that the function was learned from.
            device: where the function computes.
            actions: maps (E, S) float32 to (E, A) within the environment's bounds, or to (E,) int64.
            epsilon: probability of a random action instead, where actions are discrete.
        """
        super().__init__(spec.num_actions, epsilon)
        self._normalizer = StateNormalizer.from_spec(spec)
        self.dtype = spec.observation_dtype
        self._device = device
        self._actions = actions

    @torch.inference_mode()
    def _choose(self, observations: np.ndarray) -> np.ndarray:
        # A finished episode may show anything; its action must be finite all the same.
        states = self._normalizer(observations)
        if not (are_moderate(states) or np.isfinite(states).all()):
            states = np.nan_to_num(states)
        actions: np.ndarray = self._actions(torch.from_numpy(states).to(self._device)).cpu().numpy()
        return actions


class RawStates(nn.Module):
    """Base of modules, for ONNX graphs, that take observations as the environment gives them."""

    mean: Tensor
    std: Tensor
    offset: Tensor | None

    def __init__(self, spec: DatasetSpec) -> None:
        """Keep what `StateNormalizer` has."""
        super().__init__()
        self.register_buffer("mean", torch.tensor(spec.state_mean))
        self.register_buffer("std", torch.tensor(spec.state_std))
        offset = torch.tensor(spec.state_offset, dtype=torch.float64) if spec.state_offset else None
        self.register_buffer("offset", offset)

    def normalized(self, observations: Tensor) -> Tensor:
        """States for observations (..., S)."""
        states: Tensor = StateNormalizer(self.mean, self.std, self.offset)(observations)
        return states

    def example(self, *shape: int) -> Tensor:
        """Observations (*shape, S): in double precision where an offset is taken off them."""
        kind = self.mean if self.offset is None else self.offset
        return torch.zeros(*shape, len(self.mean), dtype=kind.dtype)


class MarkovStep(RawStates):
    """What `MarkovPolicy` does as a module of tensors alone."""

    def __init__(self, modules: nn.Module, spec: DatasetSpec, actions: Callable[[Tensor], Tensor]) -> None:
        """Act with a function of normalized states that asks `modules`."""
        super().__init__(spec)
        self.networks, self._actions = modules, actions

    def forward(self, observations: Tensor) -> Tensor:
        """Choose (E, A) actions, or (E,) int64, for raw observations: (E, S), or the last (E, K, S)."""
        return self._actions(self.normalized(observations))

    def as_step(self, *shape: int, **facts: Any) -> PolicyStep:
        """With an example of its input, (2, *shape, S), and what whoever asks it must know."""
        inputs = {"observations": self.example(2, *shape)}
        return PolicyStep(module=self, inputs=inputs, metadata=facts)


class ActionScaler:
    """Maps continuous actions onto [-1, 1], where the networks live, and back."""

    def __init__(self, spec: DatasetSpec, device: torch.device) -> None:
        """Take the bounds of a data set; actions will be on a device."""
        self._range = ActionRange(torch.tensor(spec.action_low), torch.tensor(spec.action_high)).to(device)

    def unit(self, actions: Tensor) -> Tensor:
        """Map actions (..., A) to [-1, 1]; what lies outside the bounds is cut, as the environment does."""
        return self._range.to_unit(actions).clamp_(-1.0, 1.0)

    def from_unit(self, actions: Tensor) -> Tensor:
        """Map actions (..., A) in [-1, 1] to the environment's bounds."""
        return self._range.from_unit(actions.clamp(-1.0, 1.0))

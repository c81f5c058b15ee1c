"""Agents that see one state at a time: from raw observations to actions inside the bounds.

Dimensions: B batch · E episodes rolled out at once · S state_dim · A act_dim.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

import numpy as np
import torch
from torch import Tensor

from chibit.core.errors import InputError
from chibit.data.trajectory import DatasetSpec, StateNormalizer, TrajectoryDataset
from chibit.data.transitions import TransitionBatch


class MarkovPolicy:
    """Acts on the current observation alone."""

    def __init__(
        self,
        spec: DatasetSpec,
        device: torch.device,
        actions: Callable[[Tensor], Tensor],
        *,
        epsilon: float = 0.0,
    ) -> None:
        """Act with a function of normalised states.

        Args:
            spec: of the data that the function was learned from.
            device: where the function computes.
            actions: maps (E, S) float32 to (E, A) within the environment's bounds, or to (E,) int64.
            epsilon: probability of a random action instead, where actions are discrete.
        """
        self._num_actions, self._epsilon = spec.num_actions, epsilon
        self._generators: list[np.random.Generator] = []
        self._normalizer = StateNormalizer.from_spec(spec)
        self._device = device
        self._actions = actions

    def reset(self, num_envs: int) -> None:
        """Nothing is remembered but dice: each episode has its own."""
        self._generators = [np.random.default_rng((0, e)) for e in range(num_envs)] if self._epsilon else []

    @torch.no_grad()
    def act(self, observations: np.ndarray) -> np.ndarray:
        """Choose actions (E, A) float32 or (E,) int64 for raw observations (E, S)."""
        # A finished episode may show anything; its action must be finite all the same.
        states = np.nan_to_num(self._normalizer(observations))
        actions = self._actions(torch.from_numpy(states).to(self._device)).cpu().numpy()
        for e, generator in enumerate(self._generators):
            if generator.random() < self._epsilon:
                actions[e] = generator.integers(self._num_actions or 0)
        return actions

    def observe(self, rewards: np.ndarray, dones: np.ndarray) -> None:
        """Nothing is remembered."""


class ActionScaler:
    """Maps continuous actions onto [-1, 1], where the networks live, and back."""

    def __init__(self, agent: str, spec: DatasetSpec, device: torch.device) -> None:
        """Take the bounds of a data set.

        Args:
            agent: key of the agent, for messages.
            spec: the data set's description.
            device: where actions will be.

        Raises:
            InputError: if actions are discrete, or a bound is missing.
        """
        if spec.num_actions is not None:
            raise InputError(
                f"agent {agent}: the actions of {spec.name} are discrete, expected continuous ones; "
                "use qr_dqn, rem, discrete_cql or discrete_bc"
            )
        low, high = (
            torch.tensor(bound, dtype=torch.float32) for bound in (spec.action_low, spec.action_high)
        )
        if not (torch.isfinite(low) & torch.isfinite(high) & (low < high)).all():
            raise InputError(
                f"agent {agent}: the action bounds of {spec.name} are {spec.action_low} and "
                f"{spec.action_high}, expected finite ones, the lower below the upper"
            )
        self._center = ((low + high) / 2).to(device)
        self._half_range = ((high - low) / 2).to(device)
        self._device = device

    def to_unit(self, batch: TransitionBatch) -> TransitionBatch:
        """Bring a batch to the device, its actions to [-1, 1]; the batch itself stays as it is."""
        batch = on_device(batch, self._device)
        return replace(batch, actions=self.unit(batch.actions))

    def unit(self, actions: Tensor) -> Tensor:
        """Map actions (..., A) to [-1, 1]; what lies outside the bounds is cut, as the environment does."""
        return ((actions - self._center) / self._half_range).clamp_(-1.0, 1.0)

    def from_unit(self, actions: Tensor) -> Tensor:
        """Map actions (..., A) in [-1, 1] to the environment's bounds."""
        return self._center + self._half_range * actions.clamp(-1.0, 1.0)


def check_actions(dataset: TrajectoryDataset) -> None:
    """Refuse continuous actions outside the bounds that the data themselves state.

    Bounds of a known environment are exact: it cuts what lies outside, and so does the agent. Without an
    environment there are the bounds in a data set's own description, and data that contradict it are not
    to be trusted; where there is no description, the bounds are the range of the actions, at least -1 to 1.

    Raises:
        InputError: naming the action's dimension, its range and the bounds.
    """
    spec = dataset.spec
    if spec.env_id is not None:
        return
    lowest, highest = dataset.actions.min(axis=0), dataset.actions.max(axis=0)
    low, high = np.asarray(spec.action_low, np.float32), np.asarray(spec.action_high, np.float32)
    outside = np.flatnonzero((lowest < low) | (highest > high))
    if len(outside):
        i = int(outside[0])
        raise InputError(
            f"{spec.name}: action dimension {i} spans {lowest[i]:g} to {highest[i]:g}, expected {low[i]:g} "
            f"to {high[i]:g}; scale the actions, or name the environment that the data come from"
        )


def on_device(batch: TransitionBatch, device: torch.device) -> TransitionBatch:
    """A batch on a device; the same object on the CPU."""
    if device.type == "cpu":
        return batch
    return TransitionBatch(
        **{field.name: getattr(batch, field.name).to(device, non_blocking=True) for field in fields(batch)}
    )


def return_range_scale(dataset: TrajectoryDataset) -> float:
    """Factor that makes the returns of the data span 1000, the time limit of the locomotion tasks.

    The rule of Kostrikov et al. (2021). Where all returns are equal (rewards all zero, say) it is 1.
    """
    spread = float(dataset.episode_returns.max() - dataset.episode_returns.min())
    return 1000.0 / spread if spread > 0 else 1.0

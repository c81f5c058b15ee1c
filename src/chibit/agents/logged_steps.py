"""All steps of a data set at hand, and their TD(lambda) returns by a value function.

Dimensions: N steps · E episodes · S state_dim.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from chibit.agents.reward_units import RewardUnits
from chibit.data.dataset import TrajectoryDataset
from chibit.data.normalizer import StateNormalizer
from chibit.losses.value import lambda_returns

ROWS_PER_BLOCK = 65_536
"""Steps of the data set that are valued at once."""


@dataclass(frozen=True)
class LoggedSteps:
    """What the returns of the whole data set are computed from."""

    states: Tensor
    """(N, S) normalized."""
    rewards: Tensor
    """(N,)."""
    episode_starts: Tensor
    """(E + 1,) int64, on the CPU: what decides how much is computed."""
    last_rows: Tensor
    """(E,) int64 row of the last step of each episode."""
    final_states: Tensor
    """(E, S) normalized state after the last step of each episode; the last state where the data lack it."""
    has_terminated: Tensor
    """(E,) bool; True where the environment ended the episode, so that no value follows."""

    @classmethod
    def of(cls, dataset: TrajectoryDataset, device: torch.device, units: RewardUnits) -> LoggedSteps:
        """Take the columns of a data set to a device, rewards in their units."""
        normalizer = StateNormalizer.from_spec(dataset.spec)
        states = normalizer(dataset.observations)
        final = dataset.final_observations
        final_states = states[dataset.episode_starts[1:] - 1] if final is None else normalizer(final)
        columns = (
            states,
            units(np.array(dataset.rewards)),
            dataset.episode_starts[1:] - 1,
            final_states,
            np.array(dataset.episode_ends[:, 0]),
        )
        states, rewards, *others = (torch.from_numpy(column).to(device) for column in columns)
        return cls(states, rewards, torch.from_numpy(np.array(dataset.episode_starts)), *others)

    def returns(
        self, value: Callable[[Tensor], Tensor], scale: float, discount: float, trace_decay: float
    ) -> tuple[Tensor, Tensor]:
        """TD(lambda) returns (N,), and the values (N,) of the states.

        Args:
            value: maps normalized states (B, S) to values (B,).
            scale: unit of those values.
            discount: of rewards, for each step.
            trace_decay: lambda.
        """
        values, final_values = (
            torch.cat([value(block) for block in torch.split(states, ROWS_PER_BLOCK)]) * scale
            for states in (self.states, self.final_states)
        )
        next_values = values.roll(-1)
        next_values[self.last_rows] = final_values.masked_fill(self.has_terminated, 0.0)
        return lambda_returns(self.rewards, next_values, self.episode_starts, discount, trace_decay), values

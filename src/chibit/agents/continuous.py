"""Baselines with continuous actions: networks live in [-1, 1], data and environments in their own bounds.

Dimensions: B batch · S state_dim · A act_dim.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from chibit.agents.base import Sampler
from chibit.agents.markov import ActionScaler
from chibit.agents.off_policy import OffPolicyAgent
from chibit.agents.rewards import RewardConfig
from chibit.core.fields import Count, Fraction
from chibit.core.runtime import Runtime
from chibit.data.bounds import check_within
from chibit.data.dataset import DatasetSpec, TrajectoryDataset
from chibit.models.actors import GaussianActor, TanhGaussianActor


@dataclass(frozen=True, kw_only=True)
class ActorCriticConfig(RewardConfig):
    """What the configs of agents with critics share."""

    batch_size: Count = 256
    """Transitions in a batch."""
    discount: Fraction = 0.99
    """Discount of rewards, for each step."""
    tau: Fraction = 0.005
    """Share of the way that target networks move when they do."""


class ContinuousAgent(OffPolicyAgent):
    """An `OffPolicyAgent` whose `act` and `losses` deal with actions in [-1, 1].

    Attributes:
        scaler: between those and the environment's.
    """

    takes_discrete = False
    takes_pictures = False

    def __init__(self, config: Any, spec: DatasetSpec, runtime: Runtime) -> None:
        """Build networks and optimizers for a data set."""
        self.scaler = ActionScaler(spec, runtime.torch_device)  # here, so that no step waits for it
        super().__init__(config, spec, runtime)

    def sampler(self, dataset: TrajectoryDataset, generator: np.random.Generator) -> Sampler[Any]:
        """Draw transitions uniformly, rewards in their units.

        Raises:
            InputError: if actions lie outside assumed bounds.
        """
        check_actions(dataset)
        return super().sampler(dataset, generator)

    def to_unit(self, batch: Any) -> Any:
        """A batch with its actions in [-1, 1]."""
        return replace(batch, actions=self.scaler.unit(batch.actions))

    def in_env(self, actions: Tensor) -> Tensor:
        """Actions (B, A) within the environment's bounds."""
        return self.scaler.from_unit(actions)

    def error_of(self, states: Tensor, actions: Tensor) -> float:
        """Mean squared error in the environment's units."""
        return F.mse_loss(self.env_actions(states), actions).item()

    @torch.no_grad()
    def action_errors(self, batch: Any) -> np.ndarray:
        """See `Agent.action_errors`."""
        states, actions = self.inputs(batch.to(self.runtime.torch_device))
        errors: np.ndarray = (self.env_actions(states) - actions).square().mean(0).cpu().numpy()
        return errors


class StochasticAgent(ContinuousAgent):
    """Its `actor` gives a distribution in each state, of which the policy plays the mode."""

    actor: TanhGaussianActor | GaussianActor

    def act(self, states: Tensor) -> Tensor:
        """Tanh of the mean, or the mean."""
        actions: Tensor = self.actor(states).mode()
        return actions


def check_actions(dataset: TrajectoryDataset) -> None:
    """Refuse continuous actions outside the bounds that the data themselves state.

    Bounds of a known environment are exact: it cuts what lies outside, and so does the agent. Without an
    environment there are the bounds in a data set's own description, and data that contradict it are not
    to be trusted; where there is no description, the bounds are the range of the actions.

    Raises:
        InputError: naming the action's dimension, its range and the bounds.
    """
    spec = dataset.spec
    if spec.env_id is not None:
        return
    remedy = "scale the actions, or name the environment that the data come from"
    check_within(spec, dataset.actions.min(axis=0), dataset.actions.max(axis=0), remedy)

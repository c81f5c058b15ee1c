"""Return-weighted cloning, as an example of an agent of one's own.

In the folder of this file:

    chibit train --agent my_agent:ReturnWeighted --data hopper-medium
    chibit evaluate RUN --agent my_agent:ReturnWeighted
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from chibit.agents import BaselineConfig, ContinuousAgent, Loss, Optimizers, adam
from chibit.core.fields import Count, Positive, Widths
from chibit.data.dataset import TrajectoryDataset
from chibit.data.samplers.transitions import TransitionBatch
from chibit.models.actors import DeterministicActor


@dataclass(frozen=True, kw_only=True)
class ReturnWeightedConfig(BaselineConfig):
    """Hyper-parameters."""

    agent: ClassVar[str] = "return_weighted"
    reads_rewards: ClassVar[bool] = False  # of a batch

    temperature: Positive = 1.0
    """Weights are exp(return-to-go / this), in standard deviations of the data's."""
    hidden_sizes: Widths = (256, 256)
    """Widths of the actor's hidden layers."""
    learning_rate: Positive = 3e-4
    """Adam's step size."""
    batch_size: Count = 256
    """Transitions in a batch."""


class ReturnWeighted(ContinuousAgent, config=ReturnWeightedConfig):
    """Clones each action with a weight that rises with the return that followed it."""

    config: ReturnWeightedConfig

    def build(self) -> Optimizers:
        """An actor, and Adam for its loss."""
        self.actor = DeterministicActor(self.spec.state_dim, self.spec.act_dim, self.config.hidden_sizes)
        return {"actor": adam(self.actor, self.config.learning_rate)}

    def prepare(self, dataset: TrajectoryDataset) -> TrajectoryDataset:
        """Compute the weight of every step, mean 1."""
        returns = torch.from_numpy(np.array(dataset.returns_to_go)).to(self.runtime.torch_device)
        scores = (returns - returns.mean()) / (returns.std(correction=0) + 1e-6)
        self._weights = (scores / self.config.temperature).softmax(dim=0) * len(scores)
        return dataset

    def losses(self, batch: TransitionBatch) -> dict[str, Loss]:
        """Weighted squared error of the actions in [-1, 1]."""
        weights = self._weights[batch.rows]
        errors = (self.actor(batch.states) - batch.actions).square().mean(dim=1)
        return {"actor": ((weights * errors).mean(), {"weight": weights.mean()})}

    def act(self, states: Tensor) -> Tensor:
        """The actor's actions."""
        actions: Tensor = self.actor(states)
        return actions

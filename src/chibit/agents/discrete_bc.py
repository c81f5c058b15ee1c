"""Behavior cloning of discrete actions, on all of the data or on its best part (%BC).

Dimensions: B batch · A num_actions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from chibit.agents.discrete import DiscreteAgent, DiscreteConfig
from chibit.agents.off_policy import Loss, Optimizers, adam
from chibit.core.fields import Count, Positive, Share
from chibit.data.dataset import TrajectoryDataset
from chibit.data.samplers.transitions import TransitionBatch
from chibit.models.actors import CategoricalActor


@dataclass(frozen=True, kw_only=True)
class DiscreteBCConfig(DiscreteConfig):
    """Hyper-parameters. Defaults: those of continuous cloning."""

    agent: ClassVar[str] = "discrete_bc"
    reads_rewards: ClassVar[bool] = False

    top_fraction: Share = 1.0
    """Share of the data to clone, whole episodes from the best return down; 0.1 is 10%BC."""
    learning_rate: Positive = 3e-4
    """Adam's step size."""
    batch_size: Count = 256
    """Transitions in a batch."""


class DiscreteBC(DiscreteAgent, config=DiscreteBCConfig):
    """A network with one logit for each action."""

    needs_next: ClassVar[bool] = False
    config: DiscreteBCConfig

    def build(self) -> Optimizers:
        """The network."""
        self.actor = CategoricalActor(self.encoder(), self.num_actions)
        return {"actor": adam(self.actor, self.config.learning_rate)}

    def prepare(self, dataset: TrajectoryDataset) -> TrajectoryDataset:
        """Take the chosen share of the data."""
        fraction = self.config.top_fraction
        return dataset.top_fraction(fraction) if fraction < 1.0 else dataset

    def losses(self, batch: TransitionBatch) -> dict[str, Loss]:
        """Of the network."""
        return {"actor": self.actor_loss(batch)}

    def actor_loss(self, batch: TransitionBatch) -> Loss:
        """Mean negative log-likelihood of the data's actions, in nats."""
        logits = self.actor(batch.states)
        is_right = (logits.detach().argmax(dim=1) == batch.actions).float()
        return F.cross_entropy(logits, batch.actions), {"accuracy": is_right.mean()}

    def act(self, states: Tensor) -> Tensor:
        """The action with the largest logit."""
        logits: Tensor = self.actor(states)
        return logits.argmax(dim=1)

    def error_of(self, states: Tensor, actions: Tensor) -> float:
        """Cross-entropy in nats."""
        return F.cross_entropy(self.actor(states), actions).item()

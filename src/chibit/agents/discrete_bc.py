"""Behavior cloning of discrete actions, on all of the data or on its best part (%BC).

Dimensions: B batch · A num_actions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from chibit.agents.cloning import CloningAgent, CloningConfig
from chibit.agents.discrete import DiscreteAgent, DiscreteConfig
from chibit.agents.off_policy import Loss, Optimizers, adam
from chibit.core.fields import Count, Positive
from chibit.data.samplers.transitions import TransitionBatch
from chibit.models.actors import CategoricalActor


@dataclass(frozen=True, kw_only=True)
class DiscreteBCConfig(CloningConfig, DiscreteConfig):
    """Hyper-parameters. Defaults: those of continuous cloning."""

    agent: ClassVar[str] = "discrete_bc"

    learning_rate: Positive = 3e-4
    """Adam's step size."""
    batch_size: Count = 256
    """Transitions in a batch."""


class DiscreteBC(CloningAgent, DiscreteAgent, config=DiscreteBCConfig):
    """A network with one logit for each action."""

    action_error_name = "action_error"
    config: DiscreteBCConfig

    def build(self) -> Optimizers:
        """The network."""
        self.actor = CategoricalActor(self.encoder(), self.num_actions)
        return {"actor": adam(self.actor, self.config.learning_rate)}

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

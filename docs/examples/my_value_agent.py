"""Cloning of what a critic finds better than the policy (Wang et al., 2020): one's own agent with values.

In the folder of this file:

    chibit train --agent my_value_agent:Filtered --data hopper-medium
    chibit evaluate RUN --agent my_value_agent:Filtered
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from chibit.agents import ContinuousAgent, Loss, Optimizers, RewardConfig, adam
from chibit.core.fields import Count, Fraction, Positive, Widths
from chibit.data.samplers.transitions import TransitionBatch
from chibit.losses.value import td_loss, td_target
from chibit.models.actors import DeterministicActor
from chibit.models.critics import Critics, frozen_copy


@dataclass(frozen=True, kw_only=True)
class FilteredConfig(RewardConfig):
    """Hyper-parameters; `reward_scale` is inherited."""

    agent: ClassVar[str] = "filtered"

    discount: Fraction = 0.99
    """Discount of rewards, for each step."""
    tau: Fraction = 0.005
    """Share of the way that the target critics move in an update."""
    hidden_sizes: Widths = (256, 256)
    """Widths of the hidden layers of all networks."""
    learning_rate: Positive = 3e-4
    """Adam's step size for all networks."""
    batch_size: Count = 256
    """Transitions in a batch."""


class Filtered(ContinuousAgent, config=FilteredConfig):
    """Clones the actions that its critics find better than its own."""

    config: FilteredConfig

    def build(self) -> Optimizers:
        """Actor, twin critics and their targets."""
        sizes, state_dim, act_dim = self.config.hidden_sizes, self.spec.state_dim, self.spec.act_dim
        self.actor = DeterministicActor(state_dim, act_dim, sizes)
        self.critics = Critics(state_dim, act_dim, sizes)
        self.target_critics = frozen_copy(self.critics)
        parts = {"critic": self.critics, "actor": self.actor}
        return {name: adam(part, self.config.learning_rate) for name, part in parts.items()}

    def losses(self, batch: TransitionBatch) -> dict[str, Loss]:
        """Of the critics, whose rewards have the size 1 whatever the data's unit, and of the actor."""
        actions = self.actor(batch.states)
        with torch.no_grad():
            next_values = self.target_critics(batch.next_states, self.actor(batch.next_states)).amin(dim=0)
            target = td_target(batch.rewards, batch.terminations, next_values, self.config.discount)
            is_better = self.critics(batch.states, batch.actions)[0] > self.critics(batch.states, actions)[0]
        values = self.critics(batch.states, batch.actions)
        errors = (actions - batch.actions).square().mean(dim=1)
        return {
            "critic": (td_loss(values, target), {"value": values.mean()}),
            "actor": ((is_better * errors).mean(), {"better": is_better.float().mean()}),
        }

    def updated(self, losses: Mapping[str, Loss]) -> None:
        """Move the target critics."""
        self.follow(self.target_critics, self.critics, self.config.tau)

    def act(self, states: Tensor) -> Tensor:
        """The actor's actions."""
        actions: Tensor = self.actor(states)
        return actions

"""Implicit Q-learning (Kostrikov et al., 2021): expectile values, and a policy by weighted cloning.

Dimensions: B batch · S state_dim · A act_dim · E critics.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from chibit.agents.continuous import ActorCriticConfig, StochasticAgent
from chibit.agents.off_policy import Loss, Optimizers, adam
from chibit.agents.rewards import RangeRewardConfig
from chibit.core.fields import Fraction, Natural, NonNegative, Positive, Widths
from chibit.core.schedules import cosine_decay
from chibit.data.samplers.transitions import TransitionBatch
from chibit.losses.value import (
    expectile_loss,
    exponential_weights,
    td_loss,
    td_target,
    weighted_likelihood_loss,
)
from chibit.models.actors import GaussianActor
from chibit.models.critics import Critics, StateValue, frozen_copy


@dataclass(frozen=True, kw_only=True)
class IQLConfig(RangeRewardConfig, ActorCriticConfig):
    """Hyper-parameters. Defaults: the locomotion settings of Kostrikov et al. (2021), Appendix B."""

    agent: ClassVar[str] = "iql"
    seconds_a_step: ClassVar[float] = 0.008

    expectile: Fraction = 0.7
    """Expectile of V over the data's actions; toward 1 it approaches the best of them."""
    inverse_temperature: NonNegative = 3.0
    """The policy's weights are exp(this · advantage); 0 is behavior cloning."""
    max_weight: NonNegative = 100.0
    """Upper bound of those weights."""
    hidden_sizes: Widths = (256, 256)
    """Widths of the hidden layers of all networks."""
    learning_rate: Positive = 3e-4
    """Adam's step size for all networks."""
    schedules: ClassVar[Mapping[str, int | None]] = {"actor_decay_steps": None}
    actor_decay_steps: Natural | None = None
    """Steps over which the actor's learning rate falls to 0 along half a cosine; None is all of the run, as
    the authors' 1,000,000 are; 0 keeps it constant."""


class IQL(StochasticAgent, config=IQLConfig):
    """Twin critics, a state value and a Gaussian actor."""

    config: IQLConfig

    def build(self) -> Optimizers:
        """Actor, critics, value and target critics."""
        sizes, state_dim, act_dim = self.config.hidden_sizes, self.spec.state_dim, self.spec.act_dim
        self.actor = GaussianActor(state_dim, act_dim, sizes, tanh_mean=True)
        self.critics = Critics(state_dim, act_dim, sizes)
        self.value = StateValue(state_dim, sizes)
        self.target_critics = frozen_copy(self.critics)
        parts = {"value": self.value, "critic": self.critics, "actor": self.actor}
        return {name: adam(part, self.config.learning_rate) for name, part in parts.items()}

    def learning_rates(self) -> dict[str, float]:
        """The actor's decay."""
        if not self.config.actor_decay_steps:
            return {}
        decay = cosine_decay(self.step, self.config.actor_decay_steps, 0)
        return {"actor": self.config.learning_rate * decay}

    def losses(self, batch: TransitionBatch) -> dict[str, Loss]:
        """Of value, critics and actor."""
        advantages = self.advantages(batch)
        return {
            "value": self.value_loss(advantages),
            "critic": self.critic_loss(batch),
            "actor": self.actor_loss(batch, advantages),
        }

    def value_loss(self, advantages: Tensor) -> Loss:
        """Expectile regression of V(s) toward the target critics' Q(s, a)."""
        return expectile_loss(advantages, self.config.expectile), {"advantage": advantages.detach().mean()}

    def critic_loss(self, batch: TransitionBatch) -> Loss:
        """Squared error to r + discount V(s'): no action outside the data is ever valued."""
        with torch.no_grad():
            next_values = self.value(batch.next_states)
            target = td_target(batch.rewards, batch.terminations, next_values, self.config.discount)
        values = self.critics(batch.states, batch.actions)
        return td_loss(values, target), {"value": values.detach().mean()}

    def actor_loss(self, batch: TransitionBatch, advantages: Tensor) -> Loss:
        """Likelihood of the data's actions, weighted by exp(advantage)."""
        weights = exponential_weights(advantages, self.config.inverse_temperature, self.config.max_weight)
        log_probs = self.actor(batch.states).log_prob(batch.actions)
        return weighted_likelihood_loss(log_probs, weights), {"weight": weights.mean()}

    def advantages(self, batch: TransitionBatch) -> Tensor:
        """Smaller target value of the data's actions minus V(s), (B,), with the gradient of V."""
        with torch.no_grad():
            values: Tensor = self.target_critics(batch.states, batch.actions).amin(dim=0)
        expected: Tensor = self.value(batch.states)
        return values - expected

    def updated(self, losses: Mapping[str, Loss]) -> None:
        """Move the target critics."""
        self.follow(self.target_critics, self.critics, self.config.tau)

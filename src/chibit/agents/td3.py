"""What TD3+BC and ReBRAC share: TD3's twin critics, delayed deterministic actor and smoothed target actions.

Dimensions: B batch · S state_dim · A act_dim · E critics.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from chibit.agents.continuous import ActorCriticConfig, ContinuousAgent
from chibit.agents.off_policy import Loss, Optimizers, adam
from chibit.core.fields import Count, Needs, NonNegative, Positive, Widths
from chibit.data.samplers.transitions import TransitionBatch
from chibit.losses.value import td_loss, td_target
from chibit.models.actors import DeterministicActor
from chibit.models.critics import Critics, frozen_copy


@dataclass(frozen=True, kw_only=True)
class TD3Config(ActorCriticConfig):
    """Hyper-parameters of TD3 (Fujimoto et al., 2018)."""

    hidden_sizes: Widths = (256, 256)
    """Widths of the hidden layers of actor and critics."""
    learning_rate: Positive = 3e-4
    """Adam's step size for actor and critics."""
    policy_noise: NonNegative = 0.2
    """Standard deviation of the noise on target actions, in units of half the action range."""
    noise_clip: Annotated[NonNegative, Needs("policy_noise", lambda config: config.policy_noise > 0)] = 0.5
    """That noise is cut to ± this."""
    actor_every: Count = 2
    """Updates of the critics for each one of the actor and the targets."""


class TD3(ContinuousAgent):
    """Twin critics and a deterministic actor, whose loss each method has its own."""

    layer_norm: ClassVar[bool] = False
    """Whether the critics' hidden layers are normalized."""
    config: TD3Config

    def build(self) -> Optimizers:
        """Actor, critics and their targets."""
        config, spec = self.config, self.spec
        self.actor = DeterministicActor(spec.state_dim, spec.act_dim, config.hidden_sizes)
        self.critics = Critics(spec.state_dim, spec.act_dim, config.hidden_sizes, layer_norm=self.layer_norm)
        self.target_actor, self.target_critics = frozen_copy(self.actor), frozen_copy(self.critics)
        rate = config.learning_rate
        return {"critic": adam(self.critics, rate), "actor": adam(self.actor, rate)}

    def losses(self, batch: TransitionBatch) -> dict[str, Loss]:
        """Of the critics and, every `actor_every` updates, of the actor."""
        losses = {"critic": self.critic_loss(batch)}
        if self.step % self.config.actor_every == 0:
            losses["actor"] = self.actor_loss(batch)
        return losses

    def critic_loss(self, batch: TransitionBatch) -> Loss:
        """Squared error to the smaller target value of a smoothed target action, less its penalty."""
        with torch.no_grad():
            noise = torch.randn_like(batch.actions).mul_(self.config.policy_noise)
            noise.clamp_(-self.config.noise_clip, self.config.noise_clip)
            next_actions = (self.target_actor(batch.next_states) + noise).clamp_(-1.0, 1.0)
            next_values = self.target_critics(batch.next_states, next_actions).amin(dim=0)
            next_values -= self.penalty(batch, next_actions)
            target = td_target(batch.rewards, batch.terminations, next_values, self.config.discount)
        values = self.critics(batch.states, batch.actions)
        return td_loss(values, target), {"value": values.detach().mean()}

    def penalty(self, batch: TransitionBatch, next_actions: Tensor) -> Tensor | float:
        """What is taken off the value (B,) of the next states, for next actions (B, A)."""
        return 0.0

    @abstractmethod
    def actor_loss(self, batch: TransitionBatch) -> Loss:
        """What the actor descends."""

    def updated(self, losses: Mapping[str, Loss]) -> None:
        """Move the targets with the actor."""
        if "actor" in losses:
            self.follow(self.target_actor, self.actor, self.config.tau)
            self.follow(self.target_critics, self.critics, self.config.tau)

    def act(self, states: Tensor) -> Tensor:
        """The actor's actions."""
        actions: Tensor = self.actor(states)
        return actions

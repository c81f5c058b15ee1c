"""Conservative Q-learning (Kumar et al., 2020) on soft actor-critic: low values for actions outside the data.

Dimensions: B batch · S state_dim · A act_dim · E critics · M actions sampled for each state.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from chibit.agents.continuous import ActorCriticConfig, StochasticAgent
from chibit.agents.critic_pretraining import pretrain_critics
from chibit.agents.off_policy import Loss, Optimizers, adam
from chibit.agents.rewards import RangeRewardConfig
from chibit.core.fields import Count, Needs, NonNegative, Positive, Widths
from chibit.data.samplers.transitions import TransitionBatch
from chibit.losses.value import conservative_gap, entropy_temperature_loss, td_loss, td_target
from chibit.models.actors import TanhGaussian, TanhGaussianActor
from chibit.models.critics import Critics, frozen_copy, polyak_update


@dataclass(frozen=True, kw_only=True)
class CQLConfig(RangeRewardConfig, ActorCriticConfig):
    """Hyper-parameters. Defaults: the authors' code for locomotion, without its 40,000 steps of cloning."""

    agent: ClassVar[str] = "cql"

    conservative_weight: NonNegative = 10.0
    """Weight of the gap between sampled and logged actions; the authors use 5 or 10."""
    num_sampled_actions: Count = 10
    """Actions for each state from the uniform law, from the policy in it, and from the policy in s'."""
    hidden_sizes: Widths = (256, 256, 256)
    """Widths of the hidden layers of actor and critics."""
    actor_learning_rate: Positive = 1e-4
    """Adam's step size for actor and temperature."""
    critic_learning_rate: Positive = 3e-4
    """Adam's step size for the critics."""
    scale_rewards: bool = False
    """Multiply rewards by 1000 / (best return - worst return); CORL does so for hopper-medium."""
    pretraining: Literal["none", "markov", "iid"] = "none"
    """Synthetic transitions whose next state the critics first learn to predict (Wang et al., 2024), unless
    they start from those of another run."""
    pretraining_steps: Annotated[Count, Needs("pretraining", lambda c: c.pretraining != "none")] = 100_000
    """Gradient steps of that, before the first update and not counted as updates."""

    @property
    def rows_per_transition(self) -> int:
        """Actions from three sources."""
        return 3 * self.num_sampled_actions


@dataclass(frozen=True)
class ConservativeBatch:
    """What the critics' loss needs beside the networks; constants."""

    states: Tensor  # (B, S)
    actions: Tensor  # (B, M + 1, A) sampled actions, then the data's
    log_densities: Tensor  # (B, M) of the sampled actions
    target: Tensor  # (B,) one-step target


class CQL(StochasticAgent, config=CQLConfig):
    """Twin critics, a tanh-Gaussian actor and its entropy temperature."""

    config: CQLConfig

    def build(self) -> Optimizers:
        """Actor, critics, target critics and temperature."""
        config, sizes = self.config, (self.spec.state_dim, self.spec.act_dim, self.config.hidden_sizes)
        self.actor = TanhGaussianActor(*sizes, log_std_range=(-20.0, 2.0))
        self.critics = Critics(*sizes)
        self.target_critics = frozen_copy(self.critics)
        self.temperature = nn.ParameterDict({"log": nn.Parameter(torch.zeros(()))})
        return {
            "critic": adam(self.critics, config.critic_learning_rate),
            "actor": adam(self.actor, config.actor_learning_rate),
            "temperature": adam(self.temperature, config.actor_learning_rate),
        }

    def before_first_update(self, loaded: Collection[str] = (), *, progress: bool = False) -> None:
        """Pre-train the critics if asked to, unless they have learned something already."""
        if self.config.pretraining == "none" or any(name.startswith("critics.") for name in loaded):
            return
        pretrain_critics(
            self.critics,
            kind=self.config.pretraining,
            num_steps=self.config.pretraining_steps,
            state_dim=self.spec.state_dim,
            act_dim=self.spec.act_dim,
            progress=progress,
        )
        polyak_update(self.target_critics, self.critics, 1.0)

    def losses(self, batch: TransitionBatch) -> dict[str, Loss]:
        """Of actor, temperature and critics."""
        current = self.actor(batch.states)
        actions, log_probs = (x[:, 0] for x in current.sample(1))
        return {
            "actor": self.actor_loss(batch.states, actions, log_probs),
            "temperature": self.temperature_loss(log_probs),
            "critic": self.critic_loss(self.conservative_batch(batch, current)),
        }

    def critic_loss(self, batch: ConservativeBatch) -> Loss:
        """Squared error to the target, and the gap of sampled to logged actions, in one stacked call."""
        values = self.critics(batch.states, batch.actions)  # (E, B, M + 1)
        data_values = values[..., -1]
        gap = conservative_gap(values[..., :-1], batch.log_densities, data_values).sum()
        loss = td_loss(data_values, batch.target) + self.config.conservative_weight * gap
        return loss, {"value": data_values.detach().mean(), "conservative_gap": gap.detach()}

    def actor_loss(self, states: Tensor, actions: Tensor, log_probs: Tensor) -> Loss:
        """Soft value of the policy's own actions: temperature · log pi - the smaller Q."""
        values = self.critics(states, actions).amin(dim=0)
        temperature = self.temperature["log"].detach().exp()
        return (temperature * log_probs - values).mean(), {"entropy": -log_probs.detach().mean()}

    def temperature_loss(self, log_probs: Tensor) -> Loss:
        """Hold the policy's entropy at -A."""
        log = self.temperature["log"]
        loss = entropy_temperature_loss(log, log_probs, -float(self.spec.act_dim))
        return loss, {"temperature": log.detach().exp()}

    @torch.no_grad()
    def conservative_batch(self, batch: TransitionBatch, current: TanhGaussian) -> ConservativeBatch:
        """Draw uniform actions, and the policy's in s (`current`) and in s'; the target has no entropy."""
        num_samples = self.config.num_sampled_actions
        uniform = torch.rand_like(batch.actions[:, None].expand(-1, num_samples, -1)).mul_(2.0).sub_(1.0)
        actions, log_probs = current.sample(num_samples)
        following = self.actor(batch.next_states)
        next_actions, next_log_probs = following.sample(num_samples + 1)  # the last one is for the target
        next_values = self.target_critics(batch.next_states, next_actions[:, -1]).amin(dim=0)
        uniform_log_probs = torch.full_like(log_probs, -math.log(2.0) * self.spec.act_dim)
        return ConservativeBatch(
            states=batch.states,
            actions=torch.cat([uniform, actions, next_actions[:, :-1], batch.actions[:, None]], dim=1),
            log_densities=torch.cat([uniform_log_probs, log_probs, next_log_probs[:, :-1]], dim=1),
            target=td_target(batch.rewards, batch.terminations, next_values, self.config.discount),
        )

    def updated(self, losses: Mapping[str, Loss]) -> None:
        """Move the target critics."""
        self.follow(self.target_critics, self.critics, self.config.tau)

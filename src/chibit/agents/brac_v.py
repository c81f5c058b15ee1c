"""BRAC-v (Wu et al., 2019): soft actor-critic held near a fitted behavior policy, in the value as well.

Training has two phases: `behavior_steps` updates fit the behavior policy by maximum likelihood, the
actor then starts from it, unless it is another run's, and all later updates train actor and critics.

Dimensions: B batch · S state_dim · A act_dim · E critics · M actions sampled for each state.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from chibit.agents.base import AgentState
from chibit.agents.continuous import ActorCriticConfig, StochasticAgent
from chibit.agents.off_policy import Loss, Optimizers, adam
from chibit.core.fields import Count, NonNegative, Positive, Widths
from chibit.data.samplers.transitions import TransitionBatch
from chibit.losses.value import sampled_divergence, td_loss, td_target
from chibit.models.actors import TanhGaussian, TanhGaussianActor
from chibit.models.critics import Critics, frozen_copy


@dataclass(frozen=True, kw_only=True)
class BRACVConfig(ActorCriticConfig):
    """Hyper-parameters. Defaults: BRAC-v in D4RL (Fu et al., 2020), but for `behavior_steps`."""

    agent: ClassVar[str] = "brac_v"

    schedules: ClassVar[Mapping[str, int | None]] = {"behavior_steps": 10_000}
    behavior_steps: Count | None = None
    """Updates that fit the behavior policy, at the start; None is 10,000, or a tenth of a run that is shorter
    than 100,000. D4RL took 1,000,000."""
    divergence_weight: NonNegative = 1.0
    """Weight of KL(policy || behavior) in the actor's loss and in the value; 0.1 in the authors' example."""
    num_divergence_samples: Count = 4
    """Actions of each state from which the divergence is estimated."""
    actor_hidden_sizes: Widths = (200, 200)
    """Widths of the hidden layers of actor and behavior policy."""
    critic_hidden_sizes: Widths = (300, 300)
    """Widths of the hidden layers of the critics."""
    behavior_learning_rate: Positive = 5e-4
    """Adam's step size for the behavior policy."""
    actor_learning_rate: Positive = 3e-5
    """Adam's step size for the actor."""
    critic_learning_rate: Positive = 1e-3
    """Adam's step size for the critics."""

    @property
    def rows_per_transition(self) -> int:
        """Actions that the divergence is estimated from."""
        return self.num_divergence_samples


class BRACV(StochasticAgent, config=BRACVConfig):
    """Twin critics, a tanh-Gaussian actor and a behavior policy of the same form."""

    config: BRACVConfig
    _keeps_actor = False

    def build(self) -> Optimizers:
        """Actor, behavior policy, critics and target critics."""
        config, spec = self.config, self.spec
        self.actor, self.behavior = (
            TanhGaussianActor(
                spec.state_dim, spec.act_dim, config.actor_hidden_sizes, log_std_range=(-5.0, 0.0), bend=True
            )
            for _ in range(2)
        )
        self.critics = Critics(spec.state_dim, spec.act_dim, config.critic_hidden_sizes)
        self.target_critics = frozen_copy(self.critics)
        return {
            "behavior": adam(self.behavior, config.behavior_learning_rate),
            "critic": adam(self.critics, config.critic_learning_rate),
            "actor": adam(self.actor, config.actor_learning_rate),
        }

    def before_first_update(self, loaded: Collection[str] = (), *, progress: bool = False) -> None:
        """Keep an actor that is another run's, all of it: it does not start from the behavior policy."""
        self._keeps_actor = {f"actor.{name}" for name in self.actor.state_dict()} <= set(loaded)

    def losses(self, batch: TransitionBatch) -> dict[str, Loss]:
        """Of the behavior policy while it is being fitted, then of critics and actor."""
        if self.step < (self.config.behavior_steps or 0):
            return {"behavior": self.behavior_loss(batch)}
        return {"critic": self.critic_loss(batch), "actor": self.actor_loss(batch)}

    def behavior_loss(self, batch: TransitionBatch) -> Loss:
        """Negative log-likelihood of the data's actions."""
        return -self.behavior(batch.states).log_prob(batch.actions).mean(), {}

    def critic_loss(self, batch: TransitionBatch) -> Loss:
        """Squared error to r + discount (the smaller target value of s' - weight · divergence in s')."""
        with torch.no_grad():
            following = self.actor(batch.next_states)
            next_actions, divergence = self._divergence(batch.next_states, following)
            next_values = self.target_critics(batch.next_states, next_actions).amin(dim=0)
            next_values -= self.config.divergence_weight * divergence
            target = td_target(batch.rewards, batch.terminations, next_values, self.config.discount)
        values = self.critics(batch.states, batch.actions)
        return td_loss(values, target), {"value": values.detach().mean()}

    def actor_loss(self, batch: TransitionBatch) -> Loss:
        """Weight · divergence - the smaller value of the policy's own action."""
        actions, divergence = self._divergence(batch.states, self.actor(batch.states))
        values = self.critics(batch.states, actions).amin(dim=0)
        loss = (self.config.divergence_weight * divergence - values).mean()
        return loss, {"divergence": divergence.detach().mean()}

    def _divergence(self, states: Tensor, policy: TanhGaussian) -> tuple[Tensor, Tensor]:
        """One action for each state (B, A), and the divergence (B,); gradients flow through both."""
        raw, _ = policy.sample_raw(self.config.num_divergence_samples)
        behavior = self.behavior(states)
        # Before tanh, whose slope is in both densities. Actions cut to where atanh is finite are no samples
        # of a policy beyond the cut: its estimate has no lower bound then, and the value rises with it.
        divergence = sampled_divergence(policy.raw_log_prob(raw), behavior.raw_log_prob(raw))
        return torch.tanh(raw[:, 0]), divergence

    def updated(self, losses: Mapping[str, Loss]) -> None:
        """Let the actor start from the behavior policy; then move the target critics."""
        if "behavior" not in losses:
            self.follow(self.target_critics, self.critics, self.config.tau)
        elif not self._keeps_actor:
            self.follow(self.actor, self.behavior, 1.0)

    def state_dict(self) -> AgentState:
        """See `Agent`; and where the actor starts from."""
        state = super().state_dict()
        state.training["keeps_actor"] = self._keeps_actor
        return state

    def load_state_dict(self, state: AgentState) -> None:
        """See `Agent`."""
        super().load_state_dict(state)
        self._keeps_actor = state.training.get("keeps_actor", False)  # not in those of earlier versions

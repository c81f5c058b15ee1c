"""Implicit Q-learning (Kostrikov et al., 2021): expectile values, and a policy by weighted cloning.

Dimensions: B batch · S state_dim · A act_dim · E critics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from chibit.agents.base import Agent, AgentState, Policy, Sampler
from chibit.agents.learner import BaselineConfig, Learner, Loss, adam
from chibit.agents.markov import ActionScaler, MarkovPolicy, check_actions, return_range_scale
from chibit.core.fields import Count, Fraction, Natural, NonNegative, Positive, Widths
from chibit.core.runtime import Runtime
from chibit.core.schedules import cosine_decay
from chibit.data.trajectory import DatasetSpec, TrajectoryDataset
from chibit.data.transitions import TransitionBatch, TransitionSampler
from chibit.losses.value import (
    expectile_loss,
    exponential_weights,
    td_loss,
    td_target,
    weighted_likelihood_loss,
)
from chibit.models.policies import GaussianActor
from chibit.models.value_functions import Critics, StateValue, frozen_copy, polyak_update


@dataclass(frozen=True, kw_only=True)
class IQLConfig(BaselineConfig):
    """Hyper-parameters. Defaults: the locomotion settings of Kostrikov et al. (2021), Appendix B."""

    agent: ClassVar[str] = "iql"

    expectile: Fraction = 0.7
    """Expectile of V over the data's actions; towards 1 it approaches the best of them."""
    inverse_temperature: NonNegative = 3.0
    """The policy's weights are exp(this · advantage); 0 is behaviour cloning."""
    max_weight: NonNegative = 100.0
    """Upper bound of those weights."""
    scale_rewards: bool = True
    """Multiply rewards by 1000 / (best return - worst return)."""
    hidden_sizes: Widths = (256, 256)
    """Widths of the hidden layers of all networks."""
    learning_rate: Positive = 3e-4
    """Adam's step size for all networks."""
    actor_decay_steps: Natural = 1_000_000
    """Steps over which the actor's learning rate falls to 0 along half a cosine; 0 keeps it constant."""
    batch_size: Count = 256
    """Transitions in a batch."""
    discount: Fraction = 0.99
    """Discount of rewards, for each step."""
    tau: Fraction = 0.005
    """Share of the way that target critics move at each update."""


class IQL(Agent):
    """Twin critics, a state value and a Gaussian actor."""

    batch_type: ClassVar[type] = TransitionBatch

    def __init__(self, config: IQLConfig, spec: DatasetSpec, runtime: Runtime) -> None:
        """Build networks and optimizers for a data set.

        Raises:
            InputError: if its actions are discrete or unbounded.
        """
        self.config, self.spec, self.runtime = config, spec, runtime
        self.scaler = ActionScaler(config.agent, spec, runtime.torch_device)
        self.actor = GaussianActor(spec.state_dim, spec.act_dim, config.hidden_sizes, tanh_mean=True)
        self.critics = Critics(spec.state_dim, spec.act_dim, config.hidden_sizes)
        self.value = StateValue(spec.state_dim, config.hidden_sizes)
        self.target_critics = frozen_copy(self.critics)
        self.learner = Learner(
            {
                "actor": self.actor,
                "critics": self.critics,
                "value": self.value,
                "target_critics": self.target_critics,
            },
            {
                "value": adam(self.value, config.learning_rate),
                "critic": adam(self.critics, config.learning_rate),
                "actor": adam(self.actor, config.learning_rate),
            },
            runtime.torch_device,
        )

    def sampler(self, dataset: TrajectoryDataset, generator: np.random.Generator) -> Sampler[TransitionBatch]:
        """Draw transitions uniformly, rewards scaled by the range of the data's returns.

        Raises:
            InputError: if actions lie outside assumed bounds.
        """
        check_actions(dataset)
        scale = return_range_scale(dataset) if self.config.scale_rewards else 1.0
        return TransitionSampler(
            dataset,
            batch_size=self.config.batch_size,
            generator=generator,
            reward_transform=lambda rewards: rewards * scale,
        )

    def value_loss(self, advantages: Tensor) -> Loss:
        """Expectile regression of V(s) towards the target critics' Q(s, a)."""
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

    def update(self, batch: TransitionBatch) -> dict[str, float]:
        """Take one step of value, critics and actor."""
        batch = self.scaler.to_unit(batch)
        if self.config.actor_decay_steps:
            decay = cosine_decay(self.learner.step, self.config.actor_decay_steps, 0)
            self.learner.set_learning_rate("actor", self.config.learning_rate * decay)
        with self.runtime.autocast():
            advantages = self.advantages(batch)
            losses = {
                "value": self.value_loss(advantages),
                "critic": self.critic_loss(batch),
                "actor": self.actor_loss(batch, advantages),
            }
        metrics = self.learner.descend(batch.rows, losses)
        polyak_update(self.target_critics, self.critics, self.config.tau)
        return metrics

    def policy(self, target_returns: Sequence[float] | None = None) -> Policy:
        """Act with the mean of the actor."""
        return MarkovPolicy(
            self.spec,
            self.runtime.torch_device,
            lambda states: self.scaler.from_unit(self.actor(states).mode()),
        )

    def modules(self) -> nn.Module:
        """Actor, critics, value and target critics."""
        return self.learner.networks

    def state_dict(self) -> AgentState:
        """Snapshot for a checkpoint."""
        return self.learner.state_dict()

    def load_state_dict(self, state: AgentState) -> None:
        """Take over a snapshot."""
        self.learner.load_state_dict(state)

"""Advantage-weighted regression (Peng et al., 2019): cloning by exp(advantage), values by TD(lambda).

A round has two parts, as in the original: first the value function learns TD(lambda) returns, then the actor
learns with the weights that the new value function gives. Returns and weights are computed for the whole data
set at the start of each part, with a copy of the value function from that moment.

Dimensions: B batch · N steps of the data set · S state_dim · A act_dim.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar

import torch
from annotated_types import Interval
from torch import Tensor

from chibit.agents.base import AgentState
from chibit.agents.continuous import StochasticAgent
from chibit.agents.logged_steps import LoggedSteps
from chibit.agents.off_policy import Loss, Optimizers
from chibit.agents.rewards import RewardConfig
from chibit.core.fields import BelowOne, Count, Fraction, NonNegative, Positive, Widths
from chibit.data.dataset import TrajectoryDataset
from chibit.data.samplers.transitions import TransitionBatch
from chibit.losses.value import bound_penalty, exponential_weights, weighted_likelihood_loss
from chibit.models.actors import GaussianActor
from chibit.models.critics import StateValue, frozen_copy


@dataclass(frozen=True, kw_only=True)
class AWRConfig(RewardConfig):
    """Hyper-parameters. Defaults: Peng et al. (2019), with the action spread of their locomotion tasks."""

    agent: ClassVar[str] = "awr"
    seconds_a_step: ClassVar[float] = 0.002

    temperature: Annotated[float, Interval(ge=1e-6)] = 1.0
    """The weights are exp(normalized advantage / this)."""
    max_weight: NonNegative = 20.0
    """Upper bound of those weights."""
    trace_decay: Fraction = 0.95
    """Lambda of the TD(lambda) returns."""
    action_std: Annotated[float, Interval(ge=1e-6)] = 0.4
    """Fixed standard deviation of the policy, in units of half the action range."""
    bound_weight: NonNegative = 10.0
    """Weight of the squared excess of the policy's mean over the bounds; their code halves the square."""
    schedules: ClassVar[Mapping[str, int | None]] = {"refresh_every": 1_000}
    refresh_every: Count | None = None
    """Updates of the actor in a round; None is 1,000, or a tenth of a run that is shorter than 10,000."""
    value_every: Count = 2
    """Updates of the actor in a round for each one of the value function before it (1000 and 500)."""
    hidden_sizes: Widths = (128, 64)
    """Widths of the hidden layers of actor and value function."""
    actor_learning_rate: Positive = 5e-5
    """Step size of SGD for the actor."""
    value_learning_rate: Positive = 1e-2
    """Step size of SGD for the value function."""
    momentum: Fraction = 0.9
    """Momentum of both."""
    batch_size: Count = 256
    """Transitions in a batch."""
    discount: BelowOne = 0.99
    """Discount of rewards, for each step; below 1, since values are scaled by 1 - discount."""


class AWR(StochasticAgent, config=AWRConfig):
    """A Gaussian actor of fixed spread and a state value."""

    config: AWRConfig
    _logged: LoggedSteps
    _round: tuple[Tensor, Tensor] | None = None

    def build(self) -> Optimizers:
        """Actor, value, and its copy from the start of the round."""
        config, spec = self.config, self.spec
        sizes, std = config.hidden_sizes, config.action_std
        self.actor = GaussianActor(spec.state_dim, spec.act_dim, sizes, tanh_mean=False, fixed_std=std)
        self.value = StateValue(spec.state_dim, sizes)
        self.round_value = frozen_copy(self.value)
        fused = self.runtime.torch_device.type != "cpu"  # it can leave a step out; it sums in another order
        sgd = partial(torch.optim.SGD, momentum=config.momentum, fused=fused)
        return {
            "value": sgd(self.value.parameters(), lr=config.value_learning_rate),
            "actor": sgd(self.actor.parameters(), lr=config.actor_learning_rate),
        }

    def prepare(self, dataset: TrajectoryDataset) -> TrajectoryDataset:
        """Keep the data at hand for the returns."""
        self._logged = LoggedSteps.of(dataset, self.runtime.torch_device, self.config.reward_units(dataset))
        return dataset

    def value_loss(self, states: Tensor, returns: Tensor) -> Loss:
        """Half the squared error to the TD(lambda) returns (B,), in units of 1 / (1 - discount)."""
        scale = 1.0 - self.config.discount
        return 0.5 * (self.value(states) - scale * returns).square().mean(), {"value": returns.mean()}

    def actor_loss(self, states: Tensor, actions: Tensor, weights: Tensor) -> Loss:
        """Weighted likelihood of the data's actions, and the excess of the mean over the bounds."""
        policy = self.actor(states)
        loss = weighted_likelihood_loss(policy.log_prob(actions), weights)
        return loss + self.config.bound_weight * bound_penalty(policy.mean), {"weight": weights.mean()}

    def update(self, batch: TransitionBatch) -> Mapping[str, float | Tensor]:
        """Take one step: of the value function in the first part of a round, of the actor in the second."""
        if self._round is None:  # also after a resume: `round_value` is part of a checkpoint
            self._round = self._returns_and_weights()
        return super().update(batch)

    def updated(self, losses: Mapping[str, Loss]) -> None:
        """Begin the next part of the round where this one ends."""
        place, value_steps = self._place()
        if place in (0, value_steps):
            self.follow(self.round_value, self.value, 1.0)
            self._round = None

    def losses(self, batch: TransitionBatch) -> dict[str, Loss]:
        """Of the value function or of the actor."""
        assert self._round is not None
        returns, weights = (column[batch.rows] for column in self._round)
        place, value_steps = self._place()
        if place < value_steps:
            return {"value": self.value_loss(batch.states, returns)}
        return {"actor": self.actor_loss(batch.states, batch.actions, weights)}

    def _place(self) -> tuple[int, int]:
        """Updates done of this round, and those of its first part."""
        actor_steps = self.config.refresh_every or 1
        value_steps = max(1, actor_steps // self.config.value_every)
        return self.step % (value_steps + actor_steps), value_steps

    @torch.no_grad()
    def _returns_and_weights(self) -> tuple[Tensor, Tensor]:
        """TD(lambda) returns (N,) of all steps by `round_value`, and their weights (N,)."""
        config = self.config
        scale = 1.0 / (1.0 - config.discount)
        returns, values = self._logged.returns(self.round_value, scale, config.discount, config.trace_decay)
        gaps = returns - values
        advantages = (gaps - gaps.mean()) / (gaps.std(correction=0) + 1e-5)
        return returns, exponential_weights(advantages, 1.0 / config.temperature, config.max_weight)

    def load_state_dict(self, state: AgentState) -> None:
        """Take over a snapshot; the round's returns and weights are computed anew."""
        super().load_state_dict(state)
        self._round = None
        if state.training:
            self.updated({})  # version 0.1.0 did so only in the update that followed

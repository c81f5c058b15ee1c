"""Baselines with discrete actions: of vectors or of images, and those that value every action.

Dimensions: B batch · S state_dim · A num_actions · H heads.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from chibit.agents.off_policy import BaselineConfig, Loss, OffPolicyAgent, Optimizers, adam
from chibit.agents.reward_units import RewardUnits, is_the_papers
from chibit.agents.rewards import RewardConfig
from chibit.core.fields import PICTURES, VECTORS, Count, Fraction, Positive, Widths
from chibit.data.dataset import TrajectoryDataset
from chibit.data.samplers.transitions import TransitionBatch
from chibit.losses.quantile import greedy_heads
from chibit.losses.value import td_target
from chibit.models.convolution import ConvolutionalEncoder
from chibit.models.critics import HeadedCritic, frozen_copy
from chibit.models.mlp import Encoder, VectorEncoder

IMAGE_FEATURES = 512
"""Width of the hidden layer behind the convolutions."""


@dataclass(frozen=True, kw_only=True)
class DiscreteConfig(BaselineConfig):
    """What the configs of agents with discrete actions share."""

    hidden_sizes: Annotated[Widths, VECTORS] = (256, 256)
    """Widths of the hidden layers where observations are vectors."""
    standardize_pictures: Annotated[bool, PICTURES] = False
    """Give each picture mean 0 and standard deviation 1; without, pixels are divided by 255."""


class DiscreteAgent(OffPolicyAgent):
    """An `OffPolicyAgent` whose `act` gives the numbers (B,) of actions."""

    config: DiscreteConfig

    takes_discrete = True
    action_error_name: ClassVar[str] = "action_mismatch"

    @property
    def num_actions(self) -> int:
        """How many there are."""
        assert self.spec.num_actions is not None
        return self.spec.num_actions

    def error_of(self, states: Tensor, actions: Tensor) -> float:
        """Share of states in which the policy's action is not the data's."""
        return (self.act(states) != actions).float().mean().item()

    def encoder(self) -> Encoder:
        """What turns observations into features: hidden layers for vectors, convolutions for images.

        Behind the convolutions there is one hidden layer of 512, as in Mnih et al. (2015).
        """
        spec, config = self.spec, self.config
        if not spec.image_shape:
            return VectorEncoder(spec.state_dim, config.hidden_sizes)
        return ConvolutionalEncoder(
            spec.image_shape, IMAGE_FEATURES, final=nn.ReLU, standardize=config.standardize_pictures
        )


@dataclass(frozen=True, kw_only=True)
class ValueConfig(RewardConfig, DiscreteConfig):
    """Hyper-parameters of the offline Atari agents of Agarwal et al. (2020)."""

    learning_rate: Positive = 5e-5
    """Adam's step size."""
    adam_eps: Positive = 3.125e-4
    """Adam's epsilon (0.01 / 32)."""
    batch_size: Count = 32
    """Transitions in a batch."""
    discount: Fraction = 0.99
    """Discount of rewards, for each step."""
    schedules: ClassVar[Mapping[str, int | None]] = {"target_every": 2_000}
    target_every: Count | None = None
    """Updates between two copies into the target network; None is 2,000, or a tenth of a run that is shorter
    than 20,000."""
    reward_clip: Literal["auto"] | Positive | None = "auto"
    """Rewards are cut to ± this; None keeps them; auto is 1 in Atari's games, and None elsewhere."""
    evaluation_epsilon: Fraction = 0.0
    """Probability of a random action when acting, so that no game hangs; Agarwal et al. have 0.001."""

    def reward_units(self, dataset: TrajectoryDataset) -> RewardUnits:
        """Cut, as they are, or as for other agents."""
        units, limit = super().reward_units(dataset), self.reward_clip
        if limit == "auto":
            limit = 1.0 if is_the_papers(dataset.spec.env_id) else None
        if limit is None:
            return units
        why = units.why if self.reward_clip == "auto" else "as given"
        return RewardUnits(self.reward_scale or 1.0, limit=limit, why=why)

    def as_recorded(self, return_scale: float | None, *, has_unit_bounds: bool) -> RewardConfig:
        """In Atari's games rewards are cut."""
        is_left = return_scale is not None and self.reward_clip == "auto"
        config = replace(self, reward_clip=1.0) if is_left else self
        return super(ValueConfig, config).as_recorded(return_scale, has_unit_bounds=has_unit_bounds)


class ValueAgent(DiscreteAgent):
    """Acts greedily by the mean over the heads of one network that values every action."""

    config: ValueConfig

    def build(self) -> Optimizers:
        """The network and its target."""
        self.critic = HeadedCritic(self.encoder(), self.num_actions, self.config.heads)
        self.target_critic = frozen_copy(self.critic)
        return {"critic": adam(self.critic, self.config.learning_rate, self.config.adam_eps)}

    def losses(self, batch: TransitionBatch) -> dict[str, Loss]:
        """Of the network."""
        return {"critic": self.critic_loss(batch)}

    @abstractmethod
    def critic_loss(self, batch: TransitionBatch) -> Loss:
        """What the network descends."""

    def greedy_targets(self, batch: TransitionBatch) -> Tensor:
        """One-step targets (B, H) by the heads of the target network's greedy action in s'."""
        with torch.no_grad():
            following = greedy_heads(self.target_critic(batch.next_states))  # (B, H)
            rewards, terminations = batch.rewards[:, None], batch.terminations[:, None]
            return td_target(rewards, terminations, following, self.config.discount)

    def updated(self, losses: Mapping[str, Loss]) -> None:
        """Every `target_every` updates the target network becomes equal to the other."""
        if self.step % (self.config.target_every or 1) == 0:
            self.follow(self.target_critic, self.critic, 1.0)

    def act(self, states: Tensor) -> Tensor:
        """The action with the largest mean."""
        values: Tensor = self.critic(states)
        return values.mean(dim=-1).argmax(dim=-1)

    @property
    def acting_epsilon(self) -> float:
        """As configured, so that no game hangs."""
        return self.config.evaluation_epsilon

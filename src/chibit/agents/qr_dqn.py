"""Quantile-regression DQN (Dabney et al., 2018) on logged data, as in Agarwal et al. (2020).

Dimensions: B batch · A num_actions · H quantiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from chibit.agents.base import Agent, AgentState, Policy, Sampler
from chibit.agents.discrete import clipped_reward_sampler, greedy_policy, make_encoder, require_discrete
from chibit.agents.learner import BaselineConfig, Learner, Loss, adam
from chibit.agents.markov import on_device
from chibit.core.fields import Count, Fraction, Positive, Widths
from chibit.core.runtime import Runtime
from chibit.data.trajectory import DatasetSpec, TrajectoryDataset
from chibit.data.transitions import TransitionBatch
from chibit.losses.quantile import greedy_heads, heads_of_actions, quantile_huber_loss
from chibit.losses.value import td_target
from chibit.models.value_functions import HeadedCritic, frozen_copy, polyak_update


@dataclass(frozen=True, kw_only=True)
class QRDQNConfig(BaselineConfig):
    """Hyper-parameters. Defaults: the offline Atari agent of Agarwal et al. (2020)."""

    agent: ClassVar[str] = "qr_dqn"

    num_quantiles: Count = 200
    """Quantiles of the return for each action."""
    hidden_sizes: Widths = (256, 256)
    """Widths of the hidden layers where observations are vectors."""
    standardize_pictures: bool = False
    """Give each picture mean 0 and standard deviation 1; without, pixels are divided by 255."""
    learning_rate: Positive = 5e-5
    """Adam's step size."""
    adam_eps: Positive = 3.125e-4
    """Adam's epsilon (0.01 / 32)."""
    batch_size: Count = 32
    """Transitions in a batch."""
    discount: Fraction = 0.99
    """Discount of rewards, for each step."""
    target_every: Count = 2_000
    """Updates between two copies into the target network."""
    reward_clip: Positive | None = 1.0
    """Rewards are cut to ± this; None keeps them."""
    evaluation_epsilon: Fraction = 0.0
    """Probability of a random action when acting; Agarwal et al. have 0.001."""

    @property
    def heads(self) -> int:
        """Quantiles of each action."""
        return self.num_quantiles


class QRDQN(Agent):
    """One network with H quantiles for each action."""

    batch_type: ClassVar[type] = TransitionBatch

    def __init__(self, config: QRDQNConfig, spec: DatasetSpec, runtime: Runtime) -> None:
        """Build networks and optimizer for a data set.

        Raises:
            InputError: if its actions are continuous.
        """
        self.config, self.spec, self.runtime = config, spec, runtime
        num_actions = require_discrete(config.agent, spec)
        self.critic = HeadedCritic(
            make_encoder(spec, config.hidden_sizes, config.standardize_pictures),
            num_actions,
            config.num_quantiles,
        )
        self.target_critic = frozen_copy(self.critic)
        self.learner = Learner(
            {"critic": self.critic, "target_critic": self.target_critic},
            {"critic": adam(self.critic, config.learning_rate, config.adam_eps)},
            runtime.torch_device,
        )

    def sampler(self, dataset: TrajectoryDataset, generator: np.random.Generator) -> Sampler[TransitionBatch]:
        """Draw transitions uniformly, rewards cut."""
        return clipped_reward_sampler(dataset, generator, self.config.batch_size, self.config.reward_clip)

    def critic_loss(self, batch: TransitionBatch) -> Loss:
        """Quantile regression towards the target network's greedy action in s'."""
        with torch.no_grad():
            next_quantiles = greedy_heads(self.target_critic(batch.next_states))  # (B, H)
            rewards, terminations = batch.rewards[:, None], batch.terminations[:, None]
            targets = td_target(rewards, terminations, next_quantiles, self.config.discount)
        quantiles = heads_of_actions(self.critic(batch.states), batch.actions)
        return quantile_huber_loss(quantiles, targets), {"value": quantiles.detach().mean()}

    def update(self, batch: TransitionBatch) -> dict[str, float]:
        """Take one step; every `target_every` updates the target network becomes equal to the other."""
        batch = on_device(batch, self.runtime.torch_device)
        with self.runtime.autocast():
            losses = {"critic": self.critic_loss(batch)}
        metrics = self.learner.descend(batch.rows, losses)
        if self.learner.step % self.config.target_every == 0:
            polyak_update(self.target_critic, self.critic, 1.0)
        return metrics

    def policy(self, target_returns: Sequence[float] | None = None) -> Policy:
        """Act greedily by the mean over the quantiles."""
        return greedy_policy(
            self.spec, self.runtime.torch_device, self.critic, self.config.evaluation_epsilon
        )

    def modules(self) -> nn.Module:
        """The network and its target."""
        return self.learner.networks

    def state_dict(self) -> AgentState:
        """Snapshot for a checkpoint."""
        return self.learner.state_dict()

    def load_state_dict(self, state: AgentState) -> None:
        """Take over a snapshot."""
        self.learner.load_state_dict(state)

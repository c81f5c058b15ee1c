"""TD3+BC (Fujimoto & Gu, 2021): TD3 whose actor also imitates the data.

Dimensions: B batch · S state_dim · A act_dim · E critics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from chibit.agents.base import Agent, AgentState, Policy, Sampler
from chibit.agents.learner import BaselineConfig, Learner, Loss, adam
from chibit.agents.markov import ActionScaler, MarkovPolicy, check_actions
from chibit.core.fields import Count, Fraction, NonNegative, Positive, Widths
from chibit.core.runtime import Runtime
from chibit.data.trajectory import DatasetSpec, TrajectoryDataset
from chibit.data.transitions import TransitionBatch, TransitionSampler
from chibit.losses.value import behavior_cloned_value_loss, td_loss, td_target
from chibit.models.policies import DeterministicActor
from chibit.models.value_functions import Critics, frozen_copy, polyak_update


@dataclass(frozen=True, kw_only=True)
class TD3BCConfig(BaselineConfig):
    """Hyper-parameters. Defaults: Table 3 of Fujimoto & Gu (2021)."""

    agent: ClassVar[str] = "td3_bc"

    alpha: NonNegative = 2.5
    """Weight of the normalised value in the actor's loss; 0 is behaviour cloning."""
    hidden_sizes: Widths = (256, 256)
    """Widths of the hidden layers of actor and critics."""
    learning_rate: Positive = 3e-4
    """Adam's step size for actor and critics."""
    batch_size: Count = 256
    """Transitions in a batch."""
    discount: Fraction = 0.99
    """Discount of rewards, for each step."""
    tau: Fraction = 0.005
    """Share of the way that target networks move at each update of the actor."""
    policy_noise: NonNegative = 0.2
    """Standard deviation of the noise on target actions, in units of half the action range."""
    noise_clip: NonNegative = 0.5
    """That noise is cut to ± this."""
    actor_every: Count = 2
    """Updates of the critics for each one of the actor and the targets."""


class TD3BC(Agent):
    """Twin critics and a deterministic actor."""

    batch_type: ClassVar[type] = TransitionBatch

    def __init__(self, config: TD3BCConfig, spec: DatasetSpec, runtime: Runtime) -> None:
        """Build networks and optimizers for a data set.

        Raises:
            InputError: if its actions are discrete or unbounded.
        """
        self.config, self.spec, self.runtime = config, spec, runtime
        self.scaler = ActionScaler(config.agent, spec, runtime.torch_device)
        self.actor = DeterministicActor(spec.state_dim, spec.act_dim, config.hidden_sizes)
        self.critics = Critics(spec.state_dim, spec.act_dim, config.hidden_sizes)
        self.target_actor, self.target_critics = frozen_copy(self.actor), frozen_copy(self.critics)
        self.learner = Learner(
            {
                "actor": self.actor,
                "critics": self.critics,
                "target_actor": self.target_actor,
                "target_critics": self.target_critics,
            },
            {
                "critic": adam(self.critics, config.learning_rate),
                "actor": adam(self.actor, config.learning_rate),
            },
            runtime.torch_device,
        )

    def sampler(self, dataset: TrajectoryDataset, generator: np.random.Generator) -> Sampler[TransitionBatch]:
        """Draw transitions uniformly.

        Raises:
            InputError: if actions lie outside assumed bounds.
        """
        check_actions(dataset)
        return TransitionSampler(dataset, batch_size=self.config.batch_size, generator=generator)

    def critic_loss(self, batch: TransitionBatch) -> Loss:
        """Squared error to the smaller target value of a smoothed target action."""
        with torch.no_grad():
            noise = torch.randn_like(batch.actions).mul_(self.config.policy_noise)
            noise.clamp_(-self.config.noise_clip, self.config.noise_clip)
            next_actions = (self.target_actor(batch.next_states) + noise).clamp_(-1.0, 1.0)
            next_values = self.target_critics(batch.next_states, next_actions).amin(dim=0)
            target = td_target(batch.rewards, batch.terminations, next_values, self.config.discount)
        values = self.critics(batch.states, batch.actions)
        return td_loss(values, target), {"value": values.detach().mean()}

    def actor_loss(self, batch: TransitionBatch) -> Loss:
        """Normalised value of the first critic, and the distance to the data's actions."""
        actions: Tensor = self.actor(batch.states)
        cloning_error = F.mse_loss(actions, batch.actions)
        values = self.critics(batch.states, actions, num_critics=1)[0]
        loss = behavior_cloned_value_loss(values, cloning_error, self.config.alpha)
        return loss, {"cloning_error": cloning_error.detach()}

    def update(self, batch: TransitionBatch) -> dict[str, float]:
        """Take one step of the critics and, every `actor_every` updates, of actor and targets."""
        batch = self.scaler.to_unit(batch)
        is_actor_turn = self.learner.step % self.config.actor_every == 0
        with self.runtime.autocast():
            losses = {"critic": self.critic_loss(batch)}
            if is_actor_turn:
                losses["actor"] = self.actor_loss(batch)
        metrics = self.learner.descend(batch.rows, losses)
        if is_actor_turn:
            polyak_update(self.target_actor, self.actor, self.config.tau)
            polyak_update(self.target_critics, self.critics, self.config.tau)
        return metrics

    def policy(self, target_returns: Sequence[float] | None = None) -> Policy:
        """Act with the actor, without noise."""
        return MarkovPolicy(
            self.spec, self.runtime.torch_device, lambda states: self.scaler.from_unit(self.actor(states))
        )

    def modules(self) -> nn.Module:
        """Actor, critics and their targets."""
        return self.learner.networks

    def state_dict(self) -> AgentState:
        """Snapshot for a checkpoint."""
        return self.learner.state_dict()

    def load_state_dict(self, state: AgentState) -> None:
        """Take over a snapshot."""
        self.learner.load_state_dict(state)

"""ReBRAC (Tarasov et al., 2023): TD3 with the distance to the data's actions in actor and critics.

Dimensions: B batch · N steps of the data set · S state_dim · A act_dim · E critics.
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
from chibit.agents.markov import ActionScaler, MarkovPolicy, check_actions
from chibit.core.fields import Count, Fraction, NonNegative, Positive, Widths
from chibit.core.runtime import Runtime
from chibit.data.trajectory import DatasetSpec, TrajectoryDataset
from chibit.data.transitions import TransitionBatch, TransitionSampler
from chibit.losses.value import scaled_value, squared_distance, td_loss, td_target
from chibit.models.policies import DeterministicActor
from chibit.models.value_functions import Critics, frozen_copy, polyak_update


@dataclass(frozen=True, kw_only=True)
class ReBRACConfig(BaselineConfig):
    """Hyper-parameters. Defaults: CORL's for locomotion; recipe `rebrac_tuned` has each data set's."""

    agent: ClassVar[str] = "rebrac"

    actor_penalty: NonNegative = 0.01
    """Weight of the squared distance to the data's actions in the actor's loss."""
    critic_penalty: NonNegative = 0.01
    """Weight of the squared distance to the data's next actions in the target value."""
    hidden_sizes: Widths = (256, 256, 256)
    """Widths of the hidden layers; those of the critics are layer-normalised."""
    learning_rate: Positive = 1e-3
    """Adam's step size for actor and critics."""
    batch_size: Count = 1024
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


class ReBRAC(Agent):
    """Twin layer-normalised critics and a deterministic actor."""

    batch_type: ClassVar[type] = TransitionBatch

    def __init__(self, config: ReBRACConfig, spec: DatasetSpec, runtime: Runtime) -> None:
        """Build networks and optimizers for a data set.

        Raises:
            InputError: if its actions are discrete or unbounded.
        """
        self.config, self.spec, self.runtime = config, spec, runtime
        self.scaler = ActionScaler(config.agent, spec, runtime.torch_device)
        self.actor = DeterministicActor(spec.state_dim, spec.act_dim, config.hidden_sizes)
        self.critics = Critics(spec.state_dim, spec.act_dim, config.hidden_sizes, layer_norm=True)
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
        self._logged_actions: Tensor | None = None
        self._is_last: Tensor | None = None

    def sampler(self, dataset: TrajectoryDataset, generator: np.random.Generator) -> Sampler[TransitionBatch]:
        """Draw transitions uniformly, and keep the data's actions at hand for the penalty on next ones.

        Raises:
            InputError: if actions lie outside assumed bounds.
        """
        check_actions(dataset)
        device = self.runtime.torch_device
        self._logged_actions = self.scaler.unit(torch.from_numpy(np.array(dataset.actions)).to(device))
        self._is_last = torch.zeros(dataset.num_steps, dtype=torch.bool, device=device)
        self._is_last[torch.from_numpy(dataset.episode_starts[1:] - 1)] = True
        return TransitionSampler(dataset, batch_size=self.config.batch_size, generator=generator)

    def next_distance(self, rows: Tensor, next_actions: Tensor) -> Tensor:
        """Squared distance (B,) to the action that the data took next; 0 where an episode has ended."""
        assert self._logged_actions is not None and self._is_last is not None, "call sampler before update"
        rows = rows.to(next_actions.device)
        logged = self._logged_actions[(rows + 1).clamp(max=len(self._logged_actions) - 1)]
        return squared_distance(next_actions, logged).masked_fill(self._is_last[rows], 0.0)

    def critic_loss(self, batch: TransitionBatch) -> Loss:
        """Squared error to the smaller target value of a smoothed target action, less its penalty."""
        with torch.no_grad():
            noise = torch.randn_like(batch.actions).mul_(self.config.policy_noise)
            noise.clamp_(-self.config.noise_clip, self.config.noise_clip)
            next_actions = (self.target_actor(batch.next_states) + noise).clamp_(-1.0, 1.0)
            next_values = self.target_critics(batch.next_states, next_actions).amin(dim=0)
            next_values -= self.config.critic_penalty * self.next_distance(batch.rows, next_actions)
            target = td_target(batch.rewards, batch.terminations, next_values, self.config.discount)
        values = self.critics(batch.states, batch.actions)
        return td_loss(values, target), {"value": values.detach().mean()}

    def actor_loss(self, batch: TransitionBatch) -> Loss:
        """Distance to the data's actions, and the normalised smaller value."""
        actions: Tensor = self.actor(batch.states)
        distance = squared_distance(actions, batch.actions).mean()
        values = self.critics(batch.states, actions).amin(dim=0)
        return self.config.actor_penalty * distance - scaled_value(values, 1.0), {
            "distance": distance.detach()
        }

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

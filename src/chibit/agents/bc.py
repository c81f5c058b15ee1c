"""Behaviour cloning: on single states, on the best part of the data (%BC), or on several states stacked.

The stacked form is the cloning baseline of Chen et al. (2021): an MLP on K states predicts the last action.

Dimensions: B batch · E episodes rolled out at once · K states stacked · S state_dim · A act_dim.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from chibit.agents.base import Agent, AgentState, Policy, Sampler
from chibit.agents.learner import BaselineConfig, Learner, Loss
from chibit.agents.markov import ActionScaler, MarkovPolicy, check_actions
from chibit.core.fields import BelowOne, Count, Natural, NonNegative, Positive, Share, Widths
from chibit.core.runtime import Runtime
from chibit.core.schedules import warmup
from chibit.data.trajectory import DatasetSpec, TrajectoryDataset
from chibit.data.transitions import TransitionBatch, TransitionSampler
from chibit.data.windows import SequenceBatch, WindowSampler
from chibit.models.policies import DeterministicActor


@dataclass(frozen=True, kw_only=True)
class BCConfig(BaselineConfig):
    """Hyper-parameters. Defaults: the any-percent BC of CORL (Tarasov et al., 2022)."""

    agent: ClassVar[str] = "bc"

    top_fraction: Share = 1.0
    """Share of the data to clone, whole episodes from the best return down; 0.1 is 10%BC."""
    context_length: Count = 1
    """States K that the policy sees; 20 in Chen et al. (2021)."""
    hidden_sizes: Widths = (256, 256)
    """Widths of the hidden layers."""
    dropout: BelowOne = 0.0
    """Probability of dropping a hidden unit in training."""
    learning_rate: Positive = 3e-4
    """AdamW's step size."""
    weight_decay: NonNegative = 0.0
    """AdamW's decay."""
    warmup_steps: Natural = 0
    """Steps over which the learning rate rises linearly; 0 is none."""
    batch_size: Count = 256
    """Transitions, or windows, in a batch."""

    @property
    def states_seen(self) -> int:
        """States in an input."""
        return self.context_length


def chen_bc() -> BCConfig:
    """Settings of Chen et al. (2021): their MLP, and the optimizer of their Decision Transformer."""
    return BCConfig(
        context_length=20,
        hidden_sizes=(128, 128, 128),
        dropout=0.1,
        learning_rate=1e-4,
        weight_decay=1e-4,
        warmup_steps=10_000,
        batch_size=64,
    )


class BC(Agent):
    """A deterministic actor with tanh."""

    batch_type: ClassVar[type] = TransitionBatch
    """SequenceBatch instead where the config stacks several states."""

    def __init__(self, config: BCConfig, spec: DatasetSpec, runtime: Runtime) -> None:
        """Build network and optimizer for a data set.

        Raises:
            InputError: if its actions are discrete or unbounded.
        """
        self.config, self.spec, self.runtime = config, spec, runtime
        self.scaler = ActionScaler(config.agent, spec, runtime.torch_device)
        width = config.context_length * spec.state_dim
        self.actor = DeterministicActor(width, spec.act_dim, config.hidden_sizes, dropout=config.dropout)
        optimizer = torch.optim.AdamW(
            self.actor.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self.learner = Learner({"actor": self.actor}, {"actor": optimizer}, runtime.torch_device)

    def sampler(
        self, dataset: TrajectoryDataset, generator: np.random.Generator
    ) -> Sampler[TransitionBatch] | Sampler[SequenceBatch]:
        """Draw single steps, or windows, of the chosen share of the data.

        Raises:
            InputError: if actions lie outside assumed bounds.
        """
        check_actions(dataset)
        config = self.config
        if config.top_fraction < 1.0:
            dataset = dataset.top_fraction(config.top_fraction)
        if config.context_length == 1:
            return TransitionSampler(dataset, batch_size=config.batch_size, generator=generator)
        return WindowSampler(
            dataset,
            context_length=config.context_length,
            batch_size=config.batch_size,
            generator=generator,
        )

    def actor_loss(self, states: Tensor, actions: Tensor) -> Loss:
        """Mean squared error of the actions (B, A) predicted from states (B, K S)."""
        return F.mse_loss(self.actor(states), actions), {}

    def update(self, batch: TransitionBatch | SequenceBatch) -> dict[str, float]:
        """Take one step."""
        states, actions = (
            last_steps(batch) if isinstance(batch, SequenceBatch) else (batch.states, batch.actions)
        )
        device = self.runtime.torch_device
        states, actions = states.to(device), self.scaler.unit(actions.to(device))
        rate = self.config.learning_rate * warmup(self.learner.step, self.config.warmup_steps)
        self.learner.set_learning_rate("actor", rate)
        self.actor.train()
        with self.runtime.autocast():
            losses = {"actor": self.actor_loss(states, actions)}
        return self.learner.descend(batch.rows, losses)

    def policy(self, target_returns: Sequence[float] | None = None) -> Policy:
        """Act with the actor."""

        def actions(states: Tensor) -> Tensor:
            self.actor.eval()
            return self.scaler.from_unit(self.actor(states))

        if self.config.context_length == 1:
            return MarkovPolicy(self.spec, self.runtime.torch_device, actions)
        return StackedPolicy(self.spec, self.runtime.torch_device, actions, self.config.context_length)

    def modules(self) -> nn.Module:
        """The actor."""
        return self.learner.networks

    def state_dict(self) -> AgentState:
        """Snapshot for a checkpoint."""
        return self.learner.state_dict()

    def load_state_dict(self, state: AgentState) -> None:
        """Take over a snapshot."""
        self.learner.load_state_dict(state)


def last_steps(batch: SequenceBatch) -> tuple[Tensor, Tensor]:
    """The last action of each window, and all its states before it.

    Args:
        batch: windows, real steps first.

    Returns:
        (B, K S) states, newest last and zeros before the first, and (B, A) actions.
    """
    num_windows, context_length, _ = batch.states.shape
    lengths = batch.attention_mask.sum(dim=1)  # (B,)
    steps = torch.arange(context_length) - (
        context_length - lengths[:, None]
    )  # (B, K); negative: before the window
    windows = torch.arange(num_windows)
    states = batch.states[windows[:, None], steps.clamp(min=0)] * (steps >= 0)[..., None]
    return states.flatten(1), batch.actions[windows, lengths - 1]


class StackedPolicy:
    """Acts on the last K observations; those before an episode's first are zeros, as in training."""

    def __init__(
        self,
        spec: DatasetSpec,
        device: torch.device,
        actions: Callable[[Tensor], Tensor],
        context_length: int,
    ) -> None:
        """Act with a function of (E, K S) normalised states."""
        self._markov = MarkovPolicy(spec, device, lambda states: actions(self._remember(states)))
        self._shape = (context_length, spec.state_dim)
        self._history = torch.zeros(0, *self._shape, device=device)

    def reset(self, num_envs: int) -> None:
        """Forget everything and begin `num_envs` episodes."""
        self._history = self._history.new_zeros(num_envs, *self._shape)

    def act(self, observations: np.ndarray) -> np.ndarray:
        """Choose actions (E, A) float32 for raw observations (E, S)."""
        return self._markov.act(observations)

    def observe(self, rewards: np.ndarray, dones: np.ndarray) -> None:
        """Rewards are not used."""

    def _remember(self, states: Tensor) -> Tensor:
        self._history = torch.cat([self._history[:, 1:], states[:, None]], dim=1)
        return self._history.flatten(1)

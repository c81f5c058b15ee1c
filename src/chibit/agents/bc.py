"""Behavior cloning: on single states, on the best part of the data (%BC), or on several states stacked.

The stacked form is the cloning baseline of Chen et al. (2021): an MLP on K states predicts the last action.

Dimensions: B batch · E episodes rolled out at once · K states stacked · S state_dim · A act_dim.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from chibit.agents.base import Policy, PolicyStep, Sampler, share_of
from chibit.agents.cloning import CloningAgent, CloningConfig
from chibit.agents.continuous import ContinuousAgent, check_actions
from chibit.agents.markov import MarkovStep
from chibit.agents.off_policy import Loss, Optimizers
from chibit.agents.stacked import StackedPolicy, StackedStates, last_steps
from chibit.core.fields import BelowOne, Count, Natural, Needs, NonNegative, Positive, Since, Widths
from chibit.core.schedules import warmup
from chibit.data.dataset import TrajectoryDataset
from chibit.data.samplers.transitions import TransitionBatch
from chibit.data.samplers.windows import SequenceBatch, WindowAnchor, WindowSampler
from chibit.models.actors import DeterministicActor


@dataclass(frozen=True, kw_only=True)
class BCConfig(CloningConfig):
    """Hyper-parameters. Defaults: the any-percent BC of CORL (Tarasov et al., 2022)."""

    agent: ClassVar[str] = "bc"
    seconds_a_step: ClassVar[float] = 0.002

    context_length: Count = 1
    """States K that the policy sees; 20 in Chen et al. (2021)."""
    window_anchor: Annotated[WindowAnchor, Since("first")] = "last"
    """Which end of a training window is drawn: last, so that every step is a target as often as any other, or
    first (Chen et al.), where the first K - 1 steps of longer episodes never are; the same for one state."""
    hidden_sizes: Widths = (256, 256)
    """Widths of the hidden layers."""
    dropout: BelowOne = 0.0
    """Probability of dropping a hidden unit in training."""
    learning_rate: Positive = 3e-4
    """AdamW's step size."""
    weight_decay: NonNegative = 0.0
    """AdamW's decay."""
    schedules: ClassVar[Mapping[str, int | None]] = {"warmup_steps": 0}
    filled_in: ClassVar[tuple[str, ...]] = ("warmup_share",)
    warmup_steps: Natural | None = 0
    """Steps over which the learning rate rises linearly; 0 is none, None `warmup_share` of the run."""
    warmup_share: Annotated[
        BelowOne, Since(0.0), Needs("warmup_steps None", lambda config: config.warmup_steps is None)
    ] = 0.0
    """That share."""
    batch_size: Count = 256
    """Transitions, or windows, in a batch."""

    @property
    def states_seen(self) -> int:
        """States in an input."""
        return self.context_length

    @property
    def active_schedules(self) -> tuple[str, ...]:
        """The warm-up, where there is one."""
        return ("warmup_steps",) if self.warmup_steps != 0 else ()

    def for_steps(self, num_steps: int) -> BCConfig:
        """Fill in the warm-up."""
        steps = share_of(num_steps, self.warmup_share) if self.warmup_steps is None else self.warmup_steps
        return replace(self, warmup_steps=steps, warmup_share=0.0)

    def as_recorded(self, return_scale: float | None, *, has_unit_bounds: bool) -> BCConfig:
        """Single states have no windows, whose end could be chosen."""
        return self if self.context_length > 1 else replace(self, window_anchor="first")


class BC(CloningAgent, ContinuousAgent, config=BCConfig):
    """A deterministic actor with tanh."""

    config: BCConfig

    def build(self) -> Optimizers:
        """The actor."""
        config, spec = self.config, self.spec
        width = config.context_length * spec.state_dim
        self.actor = DeterministicActor(width, spec.act_dim, config.hidden_sizes, dropout=config.dropout)
        rate, decay = config.learning_rate, config.weight_decay
        return {"actor": torch.optim.AdamW(self.actor.parameters(), rate, weight_decay=decay, fused=True)}

    def sampler(self, dataset: TrajectoryDataset, generator: np.random.Generator) -> Sampler[Any]:
        """Draw single steps, or windows."""
        if self.config.context_length == 1:
            return super().sampler(dataset, generator)
        check_actions(dataset)
        return WindowSampler(
            dataset,
            context_length=self.config.context_length,
            batch_size=self.config.batch_size,
            generator=generator,
            anchor=self.config.window_anchor,
        )

    def inputs(self, batch: TransitionBatch | SequenceBatch) -> tuple[Tensor, Tensor]:
        """States (B, K S), and the actions (B, A) that follow them."""
        return last_steps(batch) if isinstance(batch, SequenceBatch) else (batch.states, batch.actions)

    def to_unit(self, batch: TransitionBatch | SequenceBatch) -> StackedStates:
        """Those, with the actions in [-1, 1]."""
        states, actions = self.inputs(batch)
        return StackedStates(states, self.scaler.unit(actions), batch.rows)

    def losses(self, batch: StackedStates) -> dict[str, Loss]:
        """Of the actor, with dropout."""
        return {"actor": self.actor_loss(batch.states, batch.actions)}

    def actor_loss(self, states: Tensor, actions: Tensor) -> Loss:
        """Mean squared error of the actions (B, A) predicted from states (B, K S)."""
        return F.mse_loss(self.actor(states), actions), {}

    def learning_rates(self) -> dict[str, float]:
        """The warm-up."""
        return {"actor": self.config.learning_rate * warmup(self.step, self.config.warmup_steps or 0)}

    def act(self, states: Tensor) -> Tensor:
        """The actor's actions in states (B, K S)."""
        actions: Tensor = self.actor(states)
        return actions

    def policy(self, target_returns: Sequence[float] | None = None) -> Policy:
        """Act with the actor."""
        length = self.config.context_length
        if length == 1:
            return super().policy(target_returns)
        return StackedPolicy(self.spec, self.runtime.torch_device, self.env_actions, length)

    def policy_step(self) -> PolicyStep:
        """From raw observations, (E, S) or the last (E, K, S), to actions."""
        length = self.config.context_length
        if length == 1:
            return super().policy_step()
        step = MarkovStep(self.networks, self.spec, lambda states: self.env_actions(states.flatten(1)))
        return step.as_step(length, observations_length=length)

"""Behaviour cloning of discrete actions, on all of the data or on its best part (%BC).

Dimensions: B batch · A num_actions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch.nn.functional as F
from torch import nn

from chibit.agents.base import Agent, AgentState, Policy, Sampler
from chibit.agents.discrete import make_encoder, require_discrete
from chibit.agents.learner import BaselineConfig, Learner, Loss, adam
from chibit.agents.markov import MarkovPolicy, on_device
from chibit.core.fields import Count, Positive, Share, Widths
from chibit.core.runtime import Runtime
from chibit.data.trajectory import DatasetSpec, TrajectoryDataset
from chibit.data.transitions import TransitionBatch, TransitionSampler
from chibit.models.policies import CategoricalActor


@dataclass(frozen=True, kw_only=True)
class DiscreteBCConfig(BaselineConfig):
    """Hyper-parameters. Defaults: those of continuous cloning."""

    agent: ClassVar[str] = "discrete_bc"

    top_fraction: Share = 1.0
    """Share of the data to clone, whole episodes from the best return down; 0.1 is 10%BC."""
    hidden_sizes: Widths = (256, 256)
    """Widths of the hidden layers where observations are vectors."""
    standardize_pictures: bool = False
    """Give each picture mean 0 and standard deviation 1; without, pixels are divided by 255."""
    learning_rate: Positive = 3e-4
    """Adam's step size."""
    batch_size: Count = 256
    """Transitions in a batch."""


class DiscreteBC(Agent):
    """A network with one logit for each action."""

    batch_type: ClassVar[type] = TransitionBatch

    def __init__(self, config: DiscreteBCConfig, spec: DatasetSpec, runtime: Runtime) -> None:
        """Build network and optimizer for a data set.

        Raises:
            InputError: if its actions are continuous.
        """
        self.config, self.spec, self.runtime = config, spec, runtime
        num_actions = require_discrete(config.agent, spec)
        self.actor = CategoricalActor(
            make_encoder(spec, config.hidden_sizes, config.standardize_pictures), num_actions
        )
        self.learner = Learner(
            {"actor": self.actor}, {"actor": adam(self.actor, config.learning_rate)}, runtime.torch_device
        )

    def sampler(self, dataset: TrajectoryDataset, generator: np.random.Generator) -> Sampler[TransitionBatch]:
        """Draw transitions of the chosen share of the data uniformly."""
        if self.config.top_fraction < 1.0:
            dataset = dataset.top_fraction(self.config.top_fraction)
        return TransitionSampler(dataset, batch_size=self.config.batch_size, generator=generator)

    def actor_loss(self, batch: TransitionBatch) -> Loss:
        """Mean negative log-likelihood of the data's actions, in nats."""
        logits = self.actor(batch.states)
        is_right = (logits.detach().argmax(dim=1) == batch.actions).float()
        return F.cross_entropy(logits, batch.actions), {"accuracy": is_right.mean()}

    def update(self, batch: TransitionBatch) -> dict[str, float]:
        """Take one step."""
        batch = on_device(batch, self.runtime.torch_device)
        with self.runtime.autocast():
            losses = {"actor": self.actor_loss(batch)}
        return self.learner.descend(batch.rows, losses)

    def policy(self, target_returns: Sequence[float] | None = None) -> Policy:
        """Act by the largest logit."""
        return MarkovPolicy(
            self.spec, self.runtime.torch_device, lambda states: self.actor(states).argmax(dim=1)
        )

    def modules(self) -> nn.Module:
        """The network."""
        return self.learner.networks

    def state_dict(self) -> AgentState:
        """Snapshot for a checkpoint."""
        return self.learner.state_dict()

    def load_state_dict(self, state: AgentState) -> None:
        """Take over a snapshot."""
        self.learner.load_state_dict(state)

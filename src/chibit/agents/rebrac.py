"""ReBRAC (Tarasov et al., 2023): TD3 with the distance to the data's actions in actor and critics.

Dimensions: B batch · N steps of the data set · A act_dim.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from chibit.agents.off_policy import Loss
from chibit.agents.td3 import TD3, TD3Config
from chibit.core.fields import Count, NonNegative, Positive, Widths
from chibit.data.dataset import TrajectoryDataset
from chibit.data.samplers.transitions import TransitionBatch
from chibit.losses.value import scaled_value, squared_distance


@dataclass(frozen=True, kw_only=True)
class ReBRACConfig(TD3Config):
    """Hyper-parameters. Defaults: CORL's for locomotion; recipe `rebrac_tuned` has each data set's."""

    agent: ClassVar[str] = "rebrac"

    actor_penalty: NonNegative = 0.01
    """Weight of the squared distance to the data's actions in the actor's loss."""
    critic_penalty: NonNegative = 0.01
    """Weight of the squared distance to the data's next actions in the target value."""
    hidden_sizes: Widths = (256, 256, 256)
    """Widths of the hidden layers; those of the critics are layer-normalized."""
    learning_rate: Positive = 1e-3
    """Adam's step size for actor and critics."""
    batch_size: Count = 1024
    """Transitions in a batch."""


class ReBRAC(TD3, config=ReBRACConfig):
    """Twin layer-normalized critics and a deterministic actor."""

    layer_norm = True
    config: ReBRACConfig

    def prepare(self, dataset: TrajectoryDataset) -> TrajectoryDataset:
        """Keep the data's actions at hand for the penalty on next ones."""
        device = self.runtime.torch_device
        self._logged_actions = self.scaler.unit(torch.from_numpy(np.array(dataset.actions)).to(device))
        self._is_last = torch.zeros(dataset.num_steps, dtype=torch.bool, device=device)
        self._is_last[torch.from_numpy(dataset.episode_starts[1:] - 1)] = True
        return dataset

    def next_distance(self, rows: Tensor, next_actions: Tensor) -> Tensor:
        """Squared distance (B,) to the action that the data took next; 0 where an episode has ended."""
        logged = self._logged_actions[(rows + 1).clamp(max=len(self._logged_actions) - 1)]
        return squared_distance(next_actions, logged).masked_fill(self._is_last[rows], 0.0)

    def penalty(self, batch: TransitionBatch, next_actions: Tensor) -> Tensor:
        """Distance (B,) of next actions to the data's."""
        return self.config.critic_penalty * self.next_distance(batch.rows, next_actions)

    def actor_loss(self, batch: TransitionBatch) -> Loss:
        """Distance to the data's actions, and the normalized smaller value."""
        actions: Tensor = self.actor(batch.states)
        distance = squared_distance(actions, batch.actions).mean()
        values = self.critics(batch.states, actions).amin(dim=0)
        loss = self.config.actor_penalty * distance - scaled_value(values, 1.0)
        return loss, {"distance": distance.detach()}

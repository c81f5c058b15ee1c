"""TD3+BC (Fujimoto & Gu, 2021): TD3 whose actor also imitates the data.

Dimensions: B batch · A act_dim.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from chibit.agents.off_policy import Loss
from chibit.agents.td3 import TD3, TD3Config
from chibit.core.fields import NonNegative
from chibit.data.samplers.transitions import TransitionBatch
from chibit.losses.value import behavior_cloned_value_loss


@dataclass(frozen=True, kw_only=True)
class TD3BCConfig(TD3Config):
    """Hyper-parameters. Defaults: Table 3 of Fujimoto & Gu (2021)."""

    agent: ClassVar[str] = "td3_bc"
    seconds_a_step: ClassVar[float] = 0.006

    alpha: NonNegative = 2.5
    """Weight of the normalized value in the actor's loss; 0 is behavior cloning."""


class TD3BC(TD3, config=TD3BCConfig):
    """Twin critics and a deterministic actor."""

    config: TD3BCConfig

    def actor_loss(self, batch: TransitionBatch) -> Loss:
        """Normalized value of the first critic, and the distance to the data's actions."""
        actions: Tensor = self.actor(batch.states)
        cloning_error = F.mse_loss(actions, batch.actions)
        values = self.critics(batch.states, actions, num_critics=1)[0]
        loss = behavior_cloned_value_loss(values, cloning_error, self.config.alpha)
        return loss, {"cloning_error": cloning_error.detach()}

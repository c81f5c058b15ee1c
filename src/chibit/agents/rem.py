"""Random ensemble mixture (Agarwal et al., 2020): Q-learning on random convex combinations of many heads.

Dimensions: B batch · A num_actions · H heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F

from chibit.agents.discrete import ValueAgent, ValueConfig
from chibit.agents.off_policy import Loss
from chibit.core.fields import Count
from chibit.data.samplers.transitions import TransitionBatch
from chibit.losses.quantile import heads_of_actions
from chibit.losses.value import td_target


@dataclass(frozen=True, kw_only=True)
class REMConfig(ValueConfig):
    """Hyper-parameters. Defaults: the offline Atari agent of Agarwal et al. (2020)."""

    agent: ClassVar[str] = "rem"

    num_heads: Count = 200
    """Estimates of the value of each action."""

    @property
    def heads(self) -> int:
        """Estimates of each action."""
        return self.num_heads


class REM(ValueAgent, config=REMConfig):
    """One network with H heads for each action."""

    def critic_loss(self, batch: TransitionBatch) -> Loss:
        """Huber's loss of one random mixture of heads to the same mixture of the target network: Eq. 3."""
        uniform = torch.rand(self.config.heads, device=batch.states.device)
        weights = uniform / uniform.sum()  # (H,)
        with torch.no_grad():
            next_values = (self.target_critic(batch.next_states) @ weights).amax(dim=1)  # (B,)
            target = td_target(batch.rewards, batch.terminations, next_values, self.config.discount)
        heads = heads_of_actions(self.critic(batch.states), batch.actions)
        return F.huber_loss(heads @ weights, target), {"value": heads.detach().mean()}

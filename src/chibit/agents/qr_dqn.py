"""Quantile-regression DQN (Dabney et al., 2018) on logged data, as in Agarwal et al. (2020).

Dimensions: B batch · A num_actions · H quantiles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from chibit.agents.discrete import ValueAgent, ValueConfig
from chibit.agents.off_policy import Loss
from chibit.core.fields import Count
from chibit.data.samplers.transitions import TransitionBatch
from chibit.losses.quantile import heads_of_actions, quantile_huber_loss


@dataclass(frozen=True, kw_only=True)
class QRDQNConfig(ValueConfig):
    """Hyper-parameters. Defaults: the offline Atari agent of Agarwal et al. (2020)."""

    agent: ClassVar[str] = "qr_dqn"

    num_quantiles: Count = 200
    """Quantiles of the return for each action."""

    @property
    def heads(self) -> int:
        """Quantiles of each action."""
        return self.num_quantiles


class QRDQN(ValueAgent, config=QRDQNConfig):
    """One network with H quantiles for each action."""

    def critic_loss(self, batch: TransitionBatch) -> Loss:
        """Quantile regression toward the target network's greedy action in s'."""
        targets = self.greedy_targets(batch)
        quantiles = heads_of_actions(self.critic(batch.states), batch.actions)
        return quantile_huber_loss(quantiles, targets), {"value": quantiles.detach().mean()}

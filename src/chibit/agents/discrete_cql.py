"""Conservative Q-learning for discrete actions (Kumar et al., 2020) on top of quantile-regression DQN.

Dimensions: B batch · A num_actions · H quantiles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from chibit.agents.discrete import ValueAgent
from chibit.agents.off_policy import Loss
from chibit.agents.qr_dqn import QRDQNConfig
from chibit.core.fields import NonNegative
from chibit.data.samplers.transitions import TransitionBatch
from chibit.losses.quantile import discrete_conservative_gap, heads_of_actions, quantile_huber_loss


@dataclass(frozen=True, kw_only=True)
class DiscreteCQLConfig(QRDQNConfig):
    """Hyper-parameters. Defaults: the authors' for 1 % of the Atari data, on Agarwal et al.'s (2020)."""

    agent: ClassVar[str] = "discrete_cql"

    conservative_weight: NonNegative = 4.0
    """Weight of the gap between the soft maximum and the taken action; 4 for 1 % of the data, 1 for 10 %."""


class DiscreteCQL(ValueAgent, config=DiscreteCQLConfig):
    """One network with H quantiles for each action."""

    config: DiscreteCQLConfig

    def critic_loss(self, batch: TransitionBatch) -> Loss:
        """Quantile regression toward the greedy action in s', and the gap of the mean values."""
        targets = self.greedy_targets(batch)
        quantiles = self.critic(batch.states)  # (B, A, H)
        taken = heads_of_actions(quantiles, batch.actions)
        gap = discrete_conservative_gap(quantiles.mean(dim=-1), batch.actions)
        loss = quantile_huber_loss(taken, targets) + self.config.conservative_weight * gap
        return loss, {"value": taken.detach().mean(), "conservative_gap": gap.detach()}

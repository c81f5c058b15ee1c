"""What conservative Q-learning values beside the data's actions: uniform ones and the policy's own.

Dimensions: B batch · M actions sampled for each state · S state_dim · A act_dim.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from chibit.data.samplers.transitions import TransitionBatch
from chibit.models.actors import TanhGaussian


@dataclass(frozen=True)
class ConservativeBatch:
    """All that the critics' loss needs; constants."""

    states: Tensor
    """(B, S)."""
    actions: Tensor
    """(B, M + 1, A) sampled actions, then the data's."""
    log_densities: Tensor
    """(B, M) of the sampled actions."""
    target: Tensor
    """(B,) one-step target."""

    @classmethod
    def draw(
        cls,
        batch: TransitionBatch,
        current: TanhGaussian,
        following: TanhGaussian,
        num_samples: int,
        target: Callable[[Tensor], Tensor],
    ) -> ConservativeBatch:
        """Draw actions from the uniform law, from the policy in s, and from the policy in s'.

        Args:
            batch: with actions in [-1, 1].
            current: the policy in its states.
            following: the policy in its next states.
            num_samples: actions from each of the three.
            target: gives the one-step target (B,) for next actions (B, A), one more draw of `following`.
        """
        uniform = torch.rand_like(batch.actions[:, None].expand(-1, num_samples, -1)).mul_(2.0).sub_(1.0)
        current_actions, current_log_probs = current.sample(num_samples)
        next_actions, next_log_probs = following.sample(num_samples + 1)  # the last one is for the target
        uniform_log_probs = torch.full_like(current_log_probs, -math.log(2.0) * batch.actions.shape[1])
        return cls(
            states=batch.states,
            actions=torch.cat(
                [uniform, current_actions, next_actions[:, :-1], batch.actions[:, None]], dim=1
            ),
            log_densities=torch.cat([uniform_log_probs, current_log_probs, next_log_probs[:, :-1]], dim=1),
            target=target(next_actions[:, -1]),
        )

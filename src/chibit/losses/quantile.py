"""Losses of value-based agents with discrete actions and several value heads: QR-DQN, REM and discrete CQL.

Targets are constants: callers compute them without gradients.

Dimensions: B batch · A num_actions · H heads (quantiles, or members of an ensemble) · T heads of the target.
"""

from __future__ import annotations

import torch
from torch import Tensor


def heads_of_actions(values: Tensor, actions: Tensor) -> Tensor:
    """Pick the heads of one action for each state.

    Args:
        values: (B, A, H).
        actions: (B,) int64, in [0, A).

    Returns:
        (B, H).
    """
    return values[torch.arange(len(actions), device=actions.device), actions]


def greedy_heads(values: Tensor) -> Tensor:
    """Pick the heads of the action whose mean over the heads is largest.

    Args:
        values: (B, A, H).

    Returns:
        (B, H).
    """
    return heads_of_actions(values, values.mean(dim=-1).argmax(dim=-1))


def quantile_huber_loss(quantiles: Tensor, targets: Tensor) -> Tensor:
    """Quantile regression with Huber's loss at threshold 1: Eq. 10 of Dabney et al. (2018).

    The heads are the quantiles at (h + 1/2) / H. The loss of a pair, |tau_h - 1(target < quantile)| ·
    Huber(target - quantile), is summed over the heads and averaged over the target's heads and the batch.

    Args:
        quantiles: (B, H).
        targets: (B, T) constant.

    Returns:
        Scalar, at least 0.
    """
    num_heads = quantiles.shape[1]
    levels = (torch.arange(num_heads, device=quantiles.device) + 0.5) / num_heads  # (H,)
    errors = targets[:, :, None] - quantiles[:, None, :]  # (B, T, H)
    sizes = errors.abs()
    capped = sizes.clamp(max=1.0)
    huber = capped * (sizes - 0.5 * capped)  # ½ e² up to 1, |e| - ½ beyond
    return (torch.where(errors < 0, 1.0 - levels, levels) * huber).sum(dim=2).mean()


def discrete_conservative_gap(values: Tensor, actions: Tensor) -> Tensor:
    """How much the soft maximum over all actions exceeds the taken one: Eq. 4 of Kumar et al. (2020).

    Args:
        values: (B, A) Q(s, .).
        actions: (B,) int64, in [0, A).

    Returns:
        Scalar, mean over the batch, at least 0.
    """
    taken = values.gather(1, actions[:, None]).squeeze(1)
    return (torch.logsumexp(values, dim=1) - taken).mean()

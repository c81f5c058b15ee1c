"""Losses of sequence models: over the real steps of a batch of windows, padding excluded from sum and count.

Dimensions: B batch · K context in timesteps · A act_dim or num_actions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def action_mse(predictions: Tensor, actions: Tensor, attention_mask: Tensor) -> Tensor:
    """Mean squared error over the action dimensions of all real steps: L_MSE of Eq. 9 of Reid et al. (2022).

    Args:
        predictions: (B, K, A).
        actions: (B, K, A), finite everywhere.
        attention_mask: (B, K) bool, True = real; at least one is.

    Returns:
        Scalar, at least 0.
    """
    errors = (predictions - actions).square().mean(dim=-1)  # (B, K)
    return _mean_over_real(errors, attention_mask)


def action_cross_entropy(logits: Tensor, actions: Tensor, attention_mask: Tensor) -> Tensor:
    """Mean negative log-likelihood of the actions of all real steps, in nats.

    Args:
        logits: (B, K, A).
        actions: (B, K) int64, in [0, A) everywhere.
        attention_mask: (B, K) bool, True = real; at least one is.

    Returns:
        Scalar, at least 0.
    """
    errors = F.cross_entropy(logits.transpose(1, 2), actions, reduction="none")  # (B, K)
    return _mean_over_real(errors, attention_mask)


def return_expectile(
    predictions: Tensor, returns: Tensor, attention_mask: Tensor, expectile: float
) -> Tensor:
    """Mean asymmetric squared error of predicted returns-to-go: Eq. 6 of Zhuang et al. (2024).

    Args:
        predictions: (B, K).
        returns: (B, K), finite everywhere.
        attention_mask: (B, K) bool, True = real; at least one is.
        expectile: in (0, 1); toward 1 the best prediction approaches the highest return.

    Returns:
        Scalar, at least 0.
    """
    errors = returns - predictions
    weights = torch.where(errors < 0, 1.0 - expectile, expectile)
    return _mean_over_real(weights * errors.square(), attention_mask)


def _mean_over_real(errors: Tensor, attention_mask: Tensor) -> Tensor:
    return (errors * attention_mask).sum() / attention_mask.sum()

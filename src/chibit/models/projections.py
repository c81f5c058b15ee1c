"""Projections between numbers and the backbone's width: L_r, L_s, L_a, and the head for actions.

Dimensions: I input size · D backbone width · A act_dim or num_actions.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

Projections = Literal["linear", "residual_mlp"]


class ResidualMLP(nn.Module):
    """A linear map and, added to it, a two-layer GELU MLP of the same width (Shi et al., 2024)."""

    def __init__(self, in_features: int, width: int) -> None:
        """Map vectors of `in_features` to `width`."""
        super().__init__()
        self.linear = nn.Linear(in_features, width)
        self.expand = nn.Linear(width, width)
        self.contract = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., I) to (..., D)."""
        linear: Tensor = self.linear(x)
        residual: Tensor = self.contract(F.gelu(self.expand(linear)))
        return linear + residual


def make_projection(kind: Projections, in_features: int, width: int) -> nn.Module:
    """Build an input projection.

    Args:
        kind: `linear` (Reid et al., 2022) or `residual_mlp` (Shi et al., 2024).
        in_features: size I of the vectors it takes.
        width: D.
    """
    return nn.Linear(in_features, width) if kind == "linear" else ResidualMLP(in_features, width)


def make_action_head(kind: Projections, width: int, out_features: int) -> nn.Module:
    """Build a head from hidden states to unbounded actions or logits: linear, or a two-layer GELU MLP.

    Args:
        kind: as for the input projections.
        width: D.
        out_features: A.
    """
    if kind == "linear":
        return nn.Linear(width, out_features)
    return nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, out_features))


class ActionRange(nn.Module):
    """Between actions and units of half their range, in which it lies between -1 and 1."""

    center: Tensor
    half_range: Tensor

    def __init__(self, low: Tensor, high: Tensor, *, is_saved: bool = True) -> None:
        """Take the bounds (A,), both finite; weights hold them where they are saved."""
        super().__init__()
        self.register_buffer("center", (low + high) / 2, persistent=is_saved)
        self.register_buffer("half_range", (high - low) / 2, persistent=is_saved)

    def to_unit(self, actions: Tensor) -> Tensor:
        """Map actions (..., A) to units; the bounds become -1 and 1."""
        return (actions - self.center) / self.half_range

    def from_unit(self, units: Tensor) -> Tensor:
        """Map (..., A) back."""
        return self.center + self.half_range * units

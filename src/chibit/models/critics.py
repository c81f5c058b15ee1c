"""Networks that value: critics of continuous actions, state values, and several heads of discrete ones.

Dimensions: B batch · E critics · M actions of a state · S state_dim · A act_dim or num_actions · H heads.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from chibit.models.mlp import Encoder, StackedMLP

ModuleT = TypeVar("ModuleT", bound=nn.Module)


class Critics(nn.Module):
    """E independent estimates of Q(s, a), computed together."""

    def __init__(
        self,
        state_dim: int,
        act_dim: int,
        hidden_sizes: Sequence[int],
        *,
        num_critics: int = 2,
        layer_norm: bool = False,
    ) -> None:
        """Build the critics.

        Args:
            state_dim: S.
            act_dim: A.
            hidden_sizes: widths of the hidden layers.
            num_critics: E.
            layer_norm: normalize after each hidden layer (ReBRAC).
        """
        super().__init__()
        self.mlp = StackedMLP(num_critics, state_dim + act_dim, hidden_sizes, 1, layer_norm=layer_norm)

    def forward(self, states: Tensor, actions: Tensor, *, num_critics: int | None = None) -> Tensor:
        """Value actions in states.

        Args:
            states: (B, S).
            actions: (B, A), or (B, M, A) for several actions of each state in one call.
            num_critics: ask only the first ones; None is all.

        Returns:
            (E, B) or (E, B, M) float32.
        """
        if actions.dim() == 3:
            states = states[:, None].expand(-1, actions.shape[1], -1)
        inputs = torch.cat([states, actions], dim=-1).flatten(0, -2)
        values: Tensor = self.mlp(inputs, num_critics).float()
        return values.view(-1, *actions.shape[:-1])


class StateValue(nn.Module):
    """An estimate of V(s)."""

    def __init__(self, state_dim: int, hidden_sizes: Sequence[int]) -> None:
        """Map a state to one number through hidden layers of the given widths."""
        super().__init__()
        self.mlp = StackedMLP(1, state_dim, hidden_sizes, 1)

    def forward(self, states: Tensor) -> Tensor:
        """Map states (B, S) to values (B,) float32."""
        values: Tensor = self.mlp(states).float()
        return values[0, :, 0]


class HeadedCritic(nn.Module):
    """H estimates of Q(s, a) for every discrete action: quantiles of the return, or an ensemble."""

    def __init__(self, encoder: Encoder, num_actions: int, num_heads: int) -> None:
        """Put a linear layer behind an encoder."""
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.width, num_actions * num_heads)
        self.num_heads = num_heads

    def forward(self, states: Tensor) -> Tensor:
        """Map states (B, ...) to values (B, A, H) float32."""
        values: Tensor = self.head(self.encoder(states)).float()
        return values.unflatten(-1, (-1, self.num_heads))


def frozen_copy(module: ModuleT) -> ModuleT:
    """Copy a network for use as a target: equal now, and without gradients."""
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def polyak_update(target: nn.Module, source: nn.Module, tau: float | Tensor) -> None:
    """Move a target network toward its source: target += tau (source - target), in place.

    Args:
        target: what `frozen_copy` gave.
        source: the learning network.
        tau: in [0, 1], a number or a scalar on the networks' device; 1 copies.
    """
    targets: list[Tensor] = list(target.parameters())
    sources: list[Tensor] = list(source.parameters())
    if isinstance(tau, Tensor):
        torch._foreach_lerp_(targets, sources, [tau] * len(targets))
    else:
        torch._foreach_lerp_(targets, sources, tau)

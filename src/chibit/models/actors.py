"""Networks that act: deterministic, Gaussian and tanh-Gaussian actors, and logits over discrete actions.

Continuous actors live in [-1, 1] for every action dimension; agents map that onto the environment's bounds.

Dimensions: B batch · S state_dim · A act_dim or num_actions · M sampled actions of a state.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from chibit.models.mlp import MLP, Encoder

LOG_SQRT_TWO_PI = 0.5 * math.log(2.0 * math.pi)
LOG_TWO = math.log(2.0)
_LOG_STD_RANGE = (-5.0, 2.0)
"""IQL's, of a standard deviation that does not depend on the state."""


class DeterministicActor(nn.Module):
    """An MLP and tanh: the actor of BC, TD3+BC and ReBRAC."""

    def __init__(
        self, in_features: int, act_dim: int, hidden_sizes: Sequence[int], *, dropout: float = 0.0
    ) -> None:
        """Map vectors of `in_features` (a state, or several stacked) to A numbers in [-1, 1]."""
        super().__init__()
        self.mlp = MLP(in_features, hidden_sizes, act_dim, dropout=dropout)

    def forward(self, states: Tensor) -> Tensor:
        """Map (B, S) to actions (B, A) in [-1, 1]."""
        return torch.tanh(self.mlp(states).float())


@dataclass(frozen=True)
class Gaussian:
    """A diagonal Gaussian for each state."""

    mean: Tensor
    """(B, A)."""
    log_std: Tensor
    """(A,) or (B, A)."""

    def log_prob(self, actions: Tensor) -> Tensor:
        """Log-density (B,) of actions (B, A)."""
        return _normal_log_prob((actions - self.mean) * torch.exp(-self.log_std), self.log_std)

    def mode(self) -> Tensor:
        """The most likely actions (B, A), cut to [-1, 1]."""
        return self.mean.clamp(-1.0, 1.0)


@dataclass(frozen=True)
class TanhGaussian:
    """The tanh of a diagonal Gaussian for each state."""

    mean: Tensor
    """(B, A) before tanh."""
    log_std: Tensor
    """(B, A) before tanh."""

    def sample(self, num_samples: int) -> tuple[Tensor, Tensor]:
        """Draw actions through which gradients flow.

        Args:
            num_samples: M.

        Returns:
            Actions (B, M, A) in [-1, 1] and their log-densities (B, M).
        """
        raw, noise = self.sample_raw(num_samples)
        return torch.tanh(raw), _normal_log_prob(noise, self.log_std[:, None]) - _log_tanh_slope(raw)

    def sample_raw(self, num_samples: int) -> tuple[Tensor, Tensor]:
        """Draw (B, M, A) before tanh, through which gradients flow, and the standard noise in it."""
        noise = torch.randn(len(self.mean), num_samples, self.mean.shape[1], device=self.mean.device)
        return self.mean[:, None] + self.log_std[:, None].exp() * noise, noise

    def raw_log_prob(self, raw: Tensor) -> Tensor:
        """Log-density of the Gaussian at (B, A) or (B, M, A), before tanh: (B,) or (B, M)."""
        mean, log_std = (p if raw.dim() == 2 else p[:, None] for p in (self.mean, self.log_std))
        return _normal_log_prob((raw - mean) * torch.exp(-log_std), log_std)

    def log_prob(self, actions: Tensor, margin: float = 1e-3) -> Tensor:
        """Log-density of given actions.

        Args:
            actions: (B, A) or (B, M, A) in [-1, 1].
            margin: actions are first cut to ±(1 - margin), where the density is finite (Wu et al., 2019).

        Returns:
            (B,) or (B, M).
        """
        raw = torch.atanh(actions.clamp(-1.0 + margin, 1.0 - margin))
        return self.raw_log_prob(raw) - _log_tanh_slope(raw)

    def mode(self) -> Tensor:
        """Tanh of the mean (B, A): what is played at evaluation."""
        return torch.tanh(self.mean)


def _normal_log_prob(standardized: Tensor, log_std: Tensor) -> Tensor:
    return (-0.5 * standardized.square() - log_std - LOG_SQRT_TWO_PI).sum(dim=-1)


def _log_tanh_slope(raw: Tensor) -> Tensor:
    # log(1 - tanh²(u)) = 2 (log 2 - u - softplus(-2u)), finite for every u
    return (2.0 * (LOG_TWO - raw - F.softplus(-2.0 * raw))).sum(dim=-1)


class TanhGaussianActor(nn.Module):
    """An MLP that gives mean and log standard deviation of a tanh-Gaussian: the actor of CQL and BRAC."""

    def __init__(
        self,
        state_dim: int,
        act_dim: int,
        hidden_sizes: Sequence[int],
        *,
        log_std_range: tuple[float, float],
        bend: bool = False,
    ) -> None:
        """Build the network.

        Args:
            state_dim: S.
            act_dim: A.
            hidden_sizes: widths of the hidden layers.
            log_std_range: smallest and largest log standard deviation.
            bend: keep to that range with tanh (BRAC) instead of cutting (CQL).
        """
        super().__init__()
        self.mlp = MLP(state_dim, hidden_sizes, 2 * act_dim)
        self.log_std_range = log_std_range
        self.bend = bend

    def forward(self, states: Tensor) -> TanhGaussian:
        """Give the distribution of actions in states (B, S)."""
        mean, log_std = self.mlp(states).float().chunk(2, dim=-1)
        low, high = self.log_std_range
        if self.bend:
            return TanhGaussian(mean, low + 0.5 * (high - low) * (torch.tanh(log_std) + 1.0))
        return TanhGaussian(mean, log_std.clamp(low, high))


class GaussianActor(nn.Module):
    """An MLP that gives the mean of a Gaussian whose spread is one number for each action dimension."""

    log_std: Tensor

    def __init__(
        self,
        state_dim: int,
        act_dim: int,
        hidden_sizes: Sequence[int],
        *,
        tanh_mean: bool,
        fixed_std: float | None = None,
    ) -> None:
        """Build the network.

        Args:
            state_dim: S.
            act_dim: A.
            hidden_sizes: widths of the hidden layers.
            tanh_mean: bound the mean to [-1, 1] (IQL), or leave it free (AWR).
            fixed_std: standard deviation that is not learned (AWR); None learns it from 1 (IQL).
        """
        super().__init__()
        self.mlp = MLP(state_dim, hidden_sizes, act_dim)
        self.tanh_mean = tanh_mean
        if fixed_std is None:
            self.log_std = nn.Parameter(torch.zeros(act_dim))
        else:
            self.register_buffer("log_std", torch.full((act_dim,), math.log(fixed_std)))

    def forward(self, states: Tensor) -> Gaussian:
        """Give the distribution of actions in states (B, S)."""
        mean = self.mlp(states).float()
        is_learned = isinstance(self.log_std, nn.Parameter)
        log_std = self.log_std.clamp(*_LOG_STD_RANGE) if is_learned else self.log_std
        return Gaussian(torch.tanh(mean) if self.tanh_mean else mean, log_std)


class CategoricalActor(nn.Module):
    """Logits over discrete actions on top of an encoder."""

    def __init__(self, encoder: Encoder, num_actions: int) -> None:
        """Put a linear layer behind an encoder."""
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.width, num_actions)

    def forward(self, states: Tensor) -> Tensor:
        """Map states (B, ...) to logits (B, A)."""
        logits: Tensor = self.head(self.encoder(states)).float()
        return logits

"""Cloning from several states at once: what the loss takes, and a policy that remembers.

Dimensions: B batch · E episodes rolled out at once · K states stacked · S state_dim · A act_dim.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from chibit.agents.markov import MarkovPolicy
from chibit.core.acting import EpisodePolicy, Seeds
from chibit.data.dataset import DatasetSpec
from chibit.data.samplers.windows import SequenceBatch


@dataclass(frozen=True)
class StackedStates:
    """What the loss takes."""

    states: Tensor
    """(B, K S)."""
    actions: Tensor
    """(B, A) in [-1, 1]."""
    rows: Tensor
    """(B,)."""


def last_steps(batch: SequenceBatch) -> tuple[Tensor, Tensor]:
    """The last action of each window, and all its states before it.

    Args:
        batch: windows, real steps first.

    Returns:
        (B, K S) states, newest last and zeros before the first, and (B, A) actions.
    """
    num_windows, context_length, _ = batch.states.shape
    lengths = batch.attention_mask.sum(dim=1)  # (B,)
    device = lengths.device
    # (B, K); negative: before the window
    steps = torch.arange(context_length, device=device) - (context_length - lengths[:, None])
    windows = torch.arange(num_windows, device=device)
    states = batch.states[windows[:, None], steps.clamp(min=0)] * (steps >= 0)[..., None]
    return states.flatten(1), batch.actions[windows, lengths - 1]


class StackedPolicy(EpisodePolicy):
    """Acts on the last K observations; those before an episode's first are zeros, as in training."""

    def __init__(
        self,
        spec: DatasetSpec,
        device: torch.device,
        actions: Callable[[Tensor], Tensor],
        context_length: int,
    ) -> None:
        """Act with a function of (E, K S) normalized states."""
        self._markov = MarkovPolicy(spec, device, lambda states: actions(self._remember(states)))
        self.dtype = self._markov.dtype
        self._shape = (context_length, spec.state_dim)
        self._history = self._seen = torch.zeros(0, *self._shape, device=device)

    def reset(
        self,
        num_envs: int,
        *,
        seed: Seeds = None,
        envs: Sequence[int] | np.ndarray | None = None,
        target_return: Any = None,
    ) -> None:
        """Forget what was seen."""
        if envs is None:
            self._history = self._seen = self._history.new_zeros(num_envs, *self._shape)
        else:
            begun = torch.zeros(len(self._history), dtype=torch.bool)
            begun[torch.as_tensor(envs)] = True
            mask = begun.to(self._history.device)[:, None, None]
            self._history, self._seen = (
                self._history.masked_fill(mask, 0.0),
                self._seen.masked_fill(mask, 0.0),
            )

    def act(self, observations: np.ndarray) -> np.ndarray:
        """Choose actions (E, A) float32 for raw observations (E, S)."""
        return self._markov.act(observations)

    def observe(self, rewards: np.ndarray, dones: np.ndarray, actions: np.ndarray | None = None) -> None:
        """Go on; neither rewards nor actions are used."""
        self._history = self._seen

    def _remember(self, states: Tensor) -> Tensor:
        self._seen = torch.cat([self._history[:, 1:], states[:, None]], dim=1)
        return self._seen.flatten(1)

"""Cloning from several states at once: what the loss takes, and a policy that remembers.

Dimensions: B batch · E episodes rolled out at once · K states stacked · S state_dim · A act_dim.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from chibit.agents.markov import MarkovPolicy
from chibit.core.state_policies import RecentPolicy
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


class StackedPolicy(RecentPolicy):
    """Acts on the last K observations; those before an episode's first are zeros, as in training."""

    def __init__(
        self,
        spec: DatasetSpec,
        device: torch.device,
        actions: Callable[[Tensor], Tensor],
        context_length: int,
    ) -> None:
        """Act with a function of (E, K S) normalized states."""
        self._markov = MarkovPolicy(spec, device, lambda states: actions(states.flatten(1)))
        # The mean of observations is what zeros are once they are normalized.
        mean = np.add(spec.state_mean, spec.state_offset or 0.0)
        super().__init__(context_length, mean.astype(self._markov.dtype))

    def _choose(self, observations: np.ndarray) -> np.ndarray:
        return self._markov.act(observations)

"""Acting with the models of several runs at once, in episodes of each.

Dimensions: R runs · E episodes · L of them that still run · K context in timesteps · S state_dim · A act_dim.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from chibit.core.acting import StackPolicy, TrajectoryPolicy, Window
from chibit.data.normalizer import StateNormalizer


class StackedSequencePolicy(TrajectoryPolicy, StackPolicy):
    """Shows each run's model its own episodes, those of all runs in one batch."""

    def __init__(self, predict: Callable[[Sequence[Tensor]], Tensor], agents: Sequence[Any]) -> None:
        """Ask models of one shape.

        Args:
            predict: see `SequenceStack.predict`.
            agents: R agents, for their data's descriptions.
        """
        first, specs = agents[0], [agent.spec for agent in agents]
        super().__init__(
            (0.0,),  # what is asked for is said at each reset
            context_length=first.config.context_length,
            width=first.spec.state_dim,
            act_dim=first.spec.act_dim if first.spec.num_actions is None else None,
            reward_mode=first.config.reward_mode,
        )
        self._predict, self._device, self._number = predict, first.runtime.torch_device, len(agents)
        self._normalizers = [StateNormalizer.from_spec(spec) for spec in specs]
        self.dtype = np.result_type(*(spec.observation_dtype for spec in specs)).type
        self._low = np.array([spec.action_low for spec in specs], np.float32)  # (R, A)
        self._high = np.array([spec.action_high for spec in specs], np.float32)
        self._runs = self._live = np.zeros(0, np.int64)

    def seat(self, runs: np.ndarray) -> None:
        """See `StackPolicy`."""
        self._runs = runs

    def act(self, observations: np.ndarray) -> np.ndarray:
        """Choose an action for each episode, see `TrajectoryPolicy.act`."""
        self._live = np.flatnonzero(self._is_live)
        return super().act(observations)

    def _encode(self, observations: np.ndarray) -> np.ndarray:
        runs, states = self._runs[self._live], np.empty(observations.shape, np.float32)
        for run in np.unique(runs):
            own = runs == run
            states[own] = self._normalizers[run](observations[own])
        return states

    def _ask(self, window: Window) -> np.ndarray:
        """(L', A) actions, or (L', N) logits: runs with fewer episodes than others are filled up."""
        runs = self._runs[self._live[window.places]]
        counts, order = np.bincount(runs, minlength=self._number), np.argsort(runs, kind="stable")
        seats = np.empty_like(order)
        seats[order] = np.arange(len(runs)) - (np.cumsum(counts) - counts)[runs[order]]
        inputs = []
        for rows in window.shown:
            laid = np.zeros((self._number, counts.max(), *rows.shape[1:]), rows.dtype)
            laid[runs, seats] = rows
            inputs.append(torch.from_numpy(laid).to(self._device))
        answer = self._predict(inputs).cpu().numpy()[runs, seats]
        return answer if self._act_dim is None else answer.clip(self._low[runs], self._high[runs])

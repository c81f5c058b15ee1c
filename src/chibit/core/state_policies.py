"""Policies that act on what they see now, or saw last. Imports numpy alone.

Dimensions: E episodes · K observations · S state_dim · A act_dim.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from chibit.core.acting import Dice, EpisodePolicy, Seeds


class MemorylessPolicy(EpisodePolicy):
    """Acts on the current observation alone; nothing is remembered but dice."""

    def __init__(self, num_actions: int | None, epsilon: float) -> None:
        """Begin with no episode.

        Args:
            num_actions: number of discrete actions; None where they are continuous.
            epsilon: probability of a random action, where actions are discrete.
        """
        self._num_actions, self._epsilon, self._dice = num_actions, epsilon, Dice()

    @abstractmethod
    def _choose(self, observations: np.ndarray) -> np.ndarray:
        """Choose actions (E, A) float32 or (E,) int64 for raw observations (E, S)."""

    def reset(
        self,
        num_envs: int,
        *,
        seed: Seeds = None,
        envs: Sequence[int] | np.ndarray | None = None,
        target_return: Any = None,
    ) -> None:
        """Give each episode dice of its own."""
        if self._epsilon:
            self._dice.begin(num_envs, envs, seed)

    def act(self, observations: np.ndarray) -> np.ndarray:
        """Choose actions, and now and then a random one."""
        actions = self._choose(observations)
        if self._epsilon and not self.greedy:
            self._dice.stray(actions, self._epsilon, self._num_actions or 0)
        return actions

    def observe(self, rewards: np.ndarray, dones: np.ndarray, actions: np.ndarray | None = None) -> None:
        """Nothing is remembered."""


class RecentPolicy(EpisodePolicy):
    """Acts on the last K observations."""

    def __init__(self, context_length: int, before: np.ndarray) -> None:
        """Begin with no episode.

        Args:
            context_length: K.
            before: (S,) what stands for the observations before an episode's first, in the policy's dtype.
        """
        self._before = np.tile(before, (context_length, 1))
        self.dtype = before.dtype.type
        self._history = self._seen = np.zeros((0, *self._before.shape), before.dtype)

    @abstractmethod
    def _choose(self, observations: np.ndarray) -> np.ndarray:
        """Choose actions (E, A) for the last raw observations (E, K, S), the newest last."""

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
            self._history = self._seen = np.tile(self._before, (num_envs, 1, 1))
        else:
            self._history[envs] = self._seen[envs] = self._before

    def act(self, observations: np.ndarray) -> np.ndarray:
        """Choose actions (E, A) for raw observations (E, S) and those before."""
        self._seen = np.concatenate([self._history[:, 1:], observations[:, None]], axis=1)
        return self._choose(self._seen)

    def observe(self, rewards: np.ndarray, dones: np.ndarray, actions: np.ndarray | None = None) -> None:
        """Go on; neither rewards nor actions are used."""
        self._history = self._seen

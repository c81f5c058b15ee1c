"""Environments whose best policy and returns are known, and data sets of random play in them.

Importing this module registers them with Gymnasium under `toys/`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

import chibit
from chibit.data.dataset import TrajectoryDataset

LENGTH = 10


class IdentityEnv(gym.Env):
    """The best action is what is seen: a number in [-1, 1], or the index of the 1 where actions are discrete.

    A step brings 1 - |a - o| (1 or 0 where they are discrete), so the best return is the number of steps.
    """

    def __init__(self, num_actions: int | None = None, length: int = LENGTH) -> None:
        self._num_actions, self._length = num_actions, length
        size = num_actions or 1
        self.observation_space = gym.spaces.Box(-1.0, 1.0, (size,), np.float64)
        box = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.action_space = gym.spaces.Discrete(num_actions) if num_actions else box

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self._step = 0
        return self._look(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        if self._num_actions:
            reward = float(self._seen[int(action)] == 1.0)
        else:
            reward = 1.0 - abs(float(np.asarray(action).reshape(())) - float(self._seen[0]))
        self._step += 1
        return self._look(), reward, self._step == self._length, False, {}

    def _look(self) -> np.ndarray:
        if self._num_actions:
            self._seen = np.eye(self._num_actions)[self.np_random.integers(self._num_actions)]
        else:
            self._seen = self.np_random.uniform(-1.0, 1.0, 1)
        return self._seen


class TargetReturnEnv(gym.Env):
    """The return is the sum of the actions, each in [-1, 1]; what is seen is the share of time left."""

    def __init__(self, length: int = LENGTH) -> None:
        self._length = length
        self.observation_space = gym.spaces.Box(0.0, 1.0, (1,), np.float64)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self._step = 0
        return self._look(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        self._step += 1
        reward = float(np.clip(action, -1.0, 1.0).reshape(()))
        return self._look(), reward, self._step == self._length, False, {}

    def _look(self) -> np.ndarray:
        return np.array([1.0 - self._step / self._length])


class CountdownEnv(gym.Env):
    """Brings 1 a step and ends after a fixed number of them, in a termination or in a truncation."""

    def __init__(self, length: int = LENGTH, *, truncates: bool = False) -> None:
        self._length, self._truncates = length, truncates
        self.observation_space = gym.spaces.Box(0.0, np.inf, (1,), np.float64)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self._left = self._length
        return np.array([float(self._left)]), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        self._left -= 1
        over = self._left == 0
        return np.array([float(self._left)]), 1.0, over and not self._truncates, over and self._truncates, {}


for _name, _class in (
    ("Identity", IdentityEnv),
    ("TargetReturn", TargetReturnEnv),
    ("Countdown", CountdownEnv),
):
    gym.register(f"toys/{_name}-v0", entry_point=_class)


def play_toy(
    env: gym.Env,
    num_episodes: int,
    cache: Path,
    *,
    seed: int = 0,
    choose: Callable[[np.random.Generator, int], Any] | None = None,
) -> TrajectoryDataset:
    """Make a data set of random play.

    Args:
        env: a toy.
        num_episodes: how many.
        cache: folder for its store.
        seed: of environment and actions.
        choose: gives an action from a generator and the episode's number; None draws from the action space.
    """
    generator = np.random.default_rng(seed)
    env.action_space.seed(seed)
    columns: dict[str, list] = {
        name: []
        for name in ("observations", "actions", "rewards", "terminations", "truncations", "next_observations")
    }
    for episode in range(num_episodes):
        observation, _ = env.reset(seed=seed + episode)
        done = False
        while not done:
            action = env.action_space.sample() if choose is None else choose(generator, episode)
            following, reward, terminated, truncated, _ = env.step(action)
            row = (observation, action, reward, terminated, truncated, following)
            for values, value in zip(columns.values(), row, strict=True):
                values.append(value)
            observation, done = following, terminated or truncated
    return chibit.from_arrays(**{name: np.array(values) for name, values in columns.items()}, cache=cache)

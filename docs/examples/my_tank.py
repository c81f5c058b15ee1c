"""A water tank, as an example of an environment of one's own, and of a score that means something in it.

In the folder of this file:

    export CHIBIT_PLUGINS=my_tank
    chibit train --data log.npz --env-id Tank-v0
    chibit evaluate RUN
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from chibit import register_env


class Tank(gym.Env[np.ndarray, np.ndarray]):
    """Hold the level at one half while the tank leaks; the reward of a step is 1 at best."""

    observation_space = gym.spaces.Box(0.0, 1.0, (1,), np.float32)
    action_space = gym.spaces.Box(0.0, 0.2, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin at any level."""
        super().reset(seed=seed)
        self.level = self.np_random.uniform()
        return np.array([self.level], np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Let water in."""
        self.level = float(np.clip(0.9 * self.level + action[0], 0.0, 1.0))
        return np.array([self.level], np.float32), 1.0 - 2.0 * abs(self.level - 0.5), False, False, {}


register_env(
    "Tank-v0",
    Tank,
    max_episode_steps=20,
    score_reference=(5.0, 20.0),  # returns of random play and of a level held at one half
    target_returns=(20.0, 15.0),
)

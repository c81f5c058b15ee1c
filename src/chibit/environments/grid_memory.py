"""MiniGrid's memory task: an object is behind the start, and at the hall's fork is the same one and another.

The rooms and the rules are MiniGrid's (Chevalier-Boisvert et al. 2023), which has to be installed. Rewards
are 1 or 0, and observations are vectors, as those of the other memory tasks. What must be remembered is to be
compared: which arm is right depends on the object and on which of the two lies where. Gymnasium builds other
sizes too, once this module is imported: ``gymnasium.make("chibit/MiniGridMemory-v0", size=11)``.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete

from chibit.core.errors import InputError, needing
from chibit.environments.kinds import GridMemoryEnvironment
from chibit.environments.registry import ENVIRONMENTS

LEFT, RIGHT, FORWARD = range(3)
_SYMBOLS = np.array([0, 1, 2, 5, 6])
"""MiniGrid's numbers of all that there is here: not seen, empty, wall, key, ball."""
_NUM_DIRECTIONS, _VIEW = 4, 7
_NUM_OBSERVATIONS = _NUM_DIRECTIONS + _VIEW * _VIEW * len(_SYMBOLS)
_SMALLEST = 7


class GridMemory(gym.Env[np.ndarray, np.int64]):
    """Look at the object behind the start, walk through the hall, and turn to where the same one lies.

    Observations (249,) float32: the direction one-hot (right, down, left, up), then of each of 7 x 7 cells
    before the agent, column by column, what is in it, one-hot (not seen, empty, wall, key, ball). Actions: 0
    left, 1 right, 2 forward; MiniGrid's 3 to 6 (pick up, drop, toggle, done) change nothing here. The cell
    beside the same object gives 1, that beside the other one 0; both end the episode. MiniGrid cuts it
    after `5 * size**2` steps.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 5}
    observation_space = Box(0.0, 1.0, (_NUM_OBSERVATIONS,), np.float32)
    action_space = Discrete(7)

    def __init__(self, size: int = 13, render_mode: str | None = None) -> None:
        """Build the rooms.

        Args:
            size: cells along an edge, odd, at least 7: the hall ends in column `size - 3`.
            render_mode: rgb_array for pictures.

        Raises:
            InputError: without the extra, or for another size.
        """
        if size < _SMALLEST or size % 2 == 0:
            raise InputError(f"size: got {size}, expected an odd number from {_SMALLEST}")
        with needing("minigrid", "MiniGrid's memory task"):
            from minigrid.envs.memory import MemoryEnv
        self.size, self.render_mode = size, render_mode
        self.rooms: Any = MemoryEnv(size=size, render_mode=render_mode)

    @property
    def cue(self) -> tuple[int, int]:
        """Column and row of the object behind the start."""
        return 1, self.size // 2 - 1

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Draw the objects, and where in the hall the episode starts."""
        super().reset(seed=seed)
        seen, _ = self.rooms.reset(seed=int(self.np_random.integers(2**31)))
        return _vector(seen), {}

    def step(self, action: np.int64 | int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Turn or walk."""
        seen, reward, terminated, truncated, _ = self.rooms.step(int(action))
        is_right = bool(terminated and reward > 0)
        return _vector(seen), float(is_right), terminated, truncated, {"success": is_right}

    def render(self) -> Any:
        """The rooms from above, with what the agent sees of them brighter, (H, W, 3) uint8."""
        return self.rooms.render()


def _vector(seen: dict[str, Any]) -> np.ndarray:
    direction = np.arange(_NUM_DIRECTIONS) == seen["direction"]
    cells = seen["image"][..., :1] == _SYMBOLS
    return np.concatenate([direction, cells.ravel()]).astype(np.float32)


def _register() -> None:
    gym.register("chibit/MiniGridMemory-v0", entry_point=f"{__name__}:GridMemory")
    for env_id, row in ENVIRONMENTS.so_far.items():
        if isinstance(row, GridMemoryEnvironment):
            row.register(env_id, f"{__name__}:GridMemory")


_register()

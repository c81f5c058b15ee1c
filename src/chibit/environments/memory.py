"""Tasks that cannot be solved without memory: a T-maze, and a key whose color opens a door later.

A cue is seen in the first steps alone, and what follows does not depend on it: whoever has forgotten it is
right by chance. Gymnasium builds them with other settings too, once this module is imported:
``gymnasium.make("chibit/TMaze-v0", length=30, jitter=False)``.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete

from chibit.core.errors import InputError
from chibit.environments.kinds import MemoryEnvironment
from chibit.environments.registry import ENVIRONMENTS

FORWARD, UP, DOWN, BACK = range(4)
NUM_COLORS = 4
_KEY_STEPS = 2
_METADATA = {"render_modes": ["rgb_array"], "render_fps": 5}
_COLORS = np.array([[214, 69, 65], [65, 131, 215], [38, 166, 91], [244, 179, 80]], np.uint8)
_PAPER, _WALKWAY, _INK, _MARK = (np.full(3, value, np.uint8) for value in (255, 225, 60, 160))
_CELL, _WIDTH = 32, 480


class TMaze(gym.Env[np.ndarray, np.int64]):
    """A corridor, and at its end a junction; the cue of the first step says which arm has the reward.

    After the T-maze of Bakker (2002) and Ni et al. (2023). Observations (4,) float32: the cue (1 up, -1 down;
    0 after the first step), the place from 0 to 1, whether this is the junction, and a number drawn anew each
    step. Actions: 0 forward, 1 up, 2 down, 3 back; up and down do nothing within the corridor. Taking the
    cued arm gives 1, the other 0; both end the episode. It is cut after `2 * length` steps.
    """

    metadata = _METADATA
    observation_space = Box(-1.0, 1.0, (4,), np.float32)
    action_space = Discrete(4)

    def __init__(self, length: int = 15, jitter: bool = True, render_mode: str | None = None) -> None:
        """Lay out the corridor.

        Args:
            length: steps from the start to the junction, at least 1.
            jitter: draw the length of each episode from the last third up to `length`, so that the number of
                steps does not tell where the junction is.
            render_mode: rgb_array for pictures.

        Raises:
            InputError: for a length below 1.
        """
        if length < 1:
            raise InputError(f"length: got {length}, expected at least 1")
        self.length, self._jitter, self.render_mode = length, jitter, render_mode
        self.cue, self.place, self.junction, self._time, self._arm = 0, 0, length, 0, 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Draw the cue, and the place of the junction."""
        super().reset(seed=seed)
        self.cue = 1 if self.np_random.integers(2) else -1
        shorter = self.np_random.integers(self.length // 3) if self._jitter and self.length >= 3 else 0
        self.junction = self.length - int(shorter)
        self.place = self._time = self._arm = 0
        return self._observation(), {}

    def step(self, action: np.int64 | int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Walk, or take an arm."""
        is_over = self.place == self.junction and action in (UP, DOWN)
        self._arm = (1 if action == UP else -1) if is_over else 0
        is_right = is_over and self._arm == self.cue
        self.place = min(max(self.place + {FORWARD: 1, BACK: -1}.get(int(action), 0), 0), self.junction)
        self._time += 1
        is_cut = not is_over and self._time >= 2 * self.length
        info = {"success": is_right} if is_over or is_cut else {}
        return self._observation(), float(is_right), is_over, is_cut, info

    def _observation(self) -> np.ndarray:
        cue = self.cue if self._time == 0 else 0
        at_junction = self.place == self.junction
        noise = self.np_random.uniform(-1.0, 1.0)
        return np.array([cue, self.place / self.length, at_junction, noise], np.float32)

    def render(self) -> np.ndarray:
        """The corridor from the left, its arms, the cue if it is seen, who walks: (96, 480, 3) uint8."""
        picture = np.full((3 * _CELL, _WIDTH, 3), _PAPER)
        scale = (_WIDTH - _CELL) / max(self.length, 1)
        end = round(self.junction * scale)
        picture[_CELL : 2 * _CELL, : end + _CELL] = _WALKWAY
        picture[:, end : end + _CELL] = _WALKWAY
        if self._time == 0:
            side = 0 if self.cue == 1 else 2 * _CELL
            picture[side + 8 : side + _CELL - 8, 8 : _CELL - 8] = _MARK
        row, column = (1 - self._arm) * _CELL, round(self.place * scale)
        picture[row + 6 : row + _CELL - 6, column + 6 : column + _CELL - 6] = _INK
        return picture


class KeyToDoor(gym.Env[np.ndarray, np.int64]):
    """A key of one of four colors is shown, nothing happens for a while, then a door asks for its color.

    After the delayed-credit task of Mesnard et al. (2021), in vectors. Observations (8,) float32: the key's
    color one-hot (in the first two steps), the phase one-hot (key, delay, door), and a number drawn anew each
    step of the delay. Actions: 0 to 3, which count at the door alone: the key's color gives 1, another 0.
    Episodes have `delay + 3` steps.
    """

    metadata = _METADATA
    observation_space = Box(-1.0, 1.0, (NUM_COLORS + 4,), np.float32)
    action_space = Discrete(NUM_COLORS)

    def __init__(self, delay: int = 20, render_mode: str | None = None) -> None:
        """Set the delay in steps, at least 0.

        Raises:
            InputError: for a negative delay.
        """
        if delay < 0:
            raise InputError(f"delay: got {delay}, expected at least 0")
        self.delay, self.render_mode = delay, render_mode
        self.color, self._time, self._answer = 0, 0, 0

    @property
    def is_at_door(self) -> bool:
        """Whether the next action counts."""
        return self._time == _KEY_STEPS + self.delay

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Draw the color."""
        super().reset(seed=seed)
        self.color, self._time, self._answer = int(self.np_random.integers(NUM_COLORS)), 0, 0
        return self._observation(), {}

    def step(self, action: np.int64 | int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Wait, or open the door."""
        is_over = self.is_at_door
        self._answer = int(action)
        is_right = is_over and self._answer == self.color
        self._time += 1
        return self._observation(), float(is_right), is_over, False, {"success": is_right} if is_over else {}

    def _observation(self) -> np.ndarray:
        observation = np.zeros(NUM_COLORS + 4, np.float32)
        if self._time < _KEY_STEPS:
            observation[[self.color, NUM_COLORS]] = 1.0
        elif self._time < _KEY_STEPS + self.delay:
            observation[NUM_COLORS + 1] = 1.0
            observation[-1] = self.np_random.uniform(-1.0, 1.0)
        else:
            observation[NUM_COLORS + 2] = 1.0
        return observation

    def render(self) -> np.ndarray:
        """A bar that fills with time, the key if it is seen, the answer: (96, 480, 3) uint8."""
        picture = np.full((3 * _CELL, _WIDTH, 3), _PAPER)
        steps = _KEY_STEPS + self.delay + 1
        picture[_CELL : 2 * _CELL] = _WALKWAY
        picture[_CELL : 2 * _CELL, : round(_WIDTH * min(self._time, steps) / steps)] = _MARK
        if self._time < _KEY_STEPS:
            picture[6 : _CELL - 6, 6 : _CELL - 6] = _COLORS[self.color]
        if self._time == steps:
            picture[2 * _CELL + 6 : 3 * _CELL - 6, _WIDTH - _CELL + 6 : _WIDTH - 6] = _COLORS[self._answer]
        return picture


def _register() -> None:
    """Give Gymnasium the ids: those of the registry, and two whose settings are the caller's."""
    for task in (TMaze, KeyToDoor):
        gym.register(f"chibit/{task.__name__}-v0", entry_point=f"{__name__}:{task.__name__}")
    for env_id, row in ENVIRONMENTS.so_far.items():
        if type(row) is MemoryEnvironment:
            row.register(env_id, f"{__name__}:{row.task}")


_register()

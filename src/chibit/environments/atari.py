"""Atari games as Mnih et al. (2015) and Chen et al. (2021) play them, on ALE itself.

A step repeats its action for four frames and shows the larger of the last two screens at each pixel, gray,
84x84. An observation stacks the last four of these pictures, black ones before the first. An episode is a
whole game, however many lives it has; it starts after up to 30 frames without action and is cut after 108,000
frames. Rewards are the game's own.

Dimensions: C pictures in a stack · H height · W width.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

from chibit.core.errors import InputError, needing
from chibit.environments.kinds import AtariEnvironment
from chibit.environments.registry import ENVIRONMENTS

if TYPE_CHECKING:
    from ale_py import ALEInterface

FRAME_SKIP = 4
"""Frames for which an action is repeated."""
IMAGE_SHAPE = (4, 84, 84)
"""C, H and W of an observation."""
MAX_EPISODE_STEPS = 108_000 // FRAME_SKIP
"""Steps after which a game is cut: half an hour of play."""
MAX_NOOPS = 30
"""Most frames without action at the start, so that games differ."""
STICKY_ACTIONS = 0.25
"""Probability of repeating the last action in a frame, where actions are sticky (Machado et al., 2018)."""


def atari_env_id(game: str, *, sticky: bool = False) -> str:
    """Id of a game's environment, without and with sticky actions."""
    return f"ALE/{game}-v5" if sticky else f"{game}NoFrameskip-v4"


def sticky_env_id(env_id: str | None) -> str:
    """Id of the same game with sticky actions.

    Raises:
        InputError: if it is that of no game.
    """
    row = ENVIRONMENTS.get(env_id or "")
    if not isinstance(row, AtariEnvironment):
        raise InputError(f"sticky actions: {env_id or 'no environment'} is not an Atari game; leave them out")
    return atari_env_id(row.name, sticky=True)


def has_sticky_actions(env_id: str) -> bool:
    """Whether the id of a game stands for sticky actions."""
    return env_id.startswith("ALE/")


class AtariEnv(gym.Env[np.ndarray, np.int64]):
    """One game. Actions are numbers of the game's minimal action set."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 60 // FRAME_SKIP}

    def __init__(
        self, env_id: str, *, max_episode_steps: int | None = None, render_mode: str | None = None
    ) -> None:
        """Load a game.

        Args:
            env_id: of a game in the registry.
            max_episode_steps: steps after which a game is cut; None is `MAX_EPISODE_STEPS`.
            render_mode: None or rgb_array.

        Raises:
            InputError: if ALE is not installed.
        """
        self.game, self.render_mode = ENVIRONMENTS[env_id].name, render_mode
        self._limit = MAX_EPISODE_STEPS if max_episode_steps is None else max_episode_steps
        self._is_sticky = has_sticky_actions(env_id)
        self._ale = _make_ale(STICKY_ACTIONS if self._is_sticky else 0.0)
        self._load(seed=0)
        self.actions = self._ale.getMinimalActionSet()
        self.num_actions = len(self.actions)
        self.action_space = gym.spaces.Discrete(self.num_actions)
        self.observation_space = gym.spaces.Box(0, 255, IMAGE_SHAPE, np.uint8)
        height, width = self._ale.getScreenDims()
        self._screens = np.zeros((2, height, width), np.uint8)
        self._rows, self._columns = (
            _area_weights(height, IMAGE_SHAPE[1]),
            _area_weights(width, IMAGE_SHAPE[2]).T,
        )
        self._stack = np.zeros(IMAGE_SHAPE, np.uint8)
        self._steps = 0

    @property
    def action_meanings(self) -> tuple[str, ...]:
        """What each action presses, such as NOOP and FIRE."""
        return tuple(action.name for action in self.actions)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start a game; the seed decides its first frames and, where actions are sticky, which of them stick.

        Returns:
            (C, H, W) uint8 and the number of lives.
        """
        super().reset(seed=seed)
        if seed is not None and self._is_sticky:
            # ALE takes a seed only when a game is loaded, a tenth of a second; nothing else in it is random.
            self._load(seed=int(self.np_random.integers(2**31)))
        self._ale.reset_game()
        for _ in range(int(self.np_random.integers(MAX_NOOPS + 1))):
            self._ale.act(self.actions[0])
            if self._ale.game_over():
                self._ale.reset_game()
        self._screens[:] = self._ale.getScreenGrayscale()
        self._stack[:] = 0
        self._stack[-1] = self._picture()
        self._steps = 0
        return self._stack.copy(), {"lives": self._ale.lives()}

    def step(self, action: np.int64 | int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Repeat an action for four frames.

        Returns:
            Observation (C, H, W) uint8, raw reward, whether the game is over, whether it was cut, and the
            number of lives.
        """
        pressed, reward, over = self.actions[int(action)], 0.0, False
        for frame in range(FRAME_SKIP):
            reward += self._ale.act(pressed)
            over = self._ale.game_over()
            if over or frame >= FRAME_SKIP - 2:
                self._ale.getScreenGrayscale(self._screens[frame % 2])
            if over:
                break
        self._steps += 1
        self._stack[:-1] = self._stack[1:]
        self._stack[-1] = self._picture()
        cut = self._steps >= self._limit and not over
        return self._stack.copy(), reward, over, cut, {"lives": self._ale.lives()}

    def render(self) -> np.ndarray:
        """The screen in color, (210, 160, 3) uint8."""
        return np.asarray(self._ale.getScreenRGB())

    def _load(self, seed: int) -> None:
        from ale_py import roms

        self._ale.setInt("random_seed", seed)  # takes effect when a game is loaded
        path = roms.get_rom_path(self.game.lower())
        assert path is not None
        self._ale.loadROM(path)

    def _picture(self) -> np.ndarray:
        largest = np.maximum(self._screens[0], self._screens[1]).astype(np.float32)
        return np.rint(self._rows @ (largest @ self._columns)).astype(np.uint8)


def physics(env_id: str) -> dict[str, Any]:
    """Version of ALE, frames of a step, and the probability of a sticky action."""
    import ale_py

    sticky = STICKY_ACTIONS if has_sticky_actions(env_id) else 0.0
    return {"ale": str(ale_py.__version__), "frame_skip": FRAME_SKIP, "sticky_actions": sticky}


def _make_ale(sticky: float) -> ALEInterface:
    with needing("atari", "an Atari game"):
        from ale_py import ALEInterface, LoggerMode
    ALEInterface.setLoggerMode(LoggerMode.Error)
    ale = ALEInterface()
    ale.setFloat("repeat_action_probability", sticky)
    return ale


@lru_cache(maxsize=8)
def _area_weights(size: int, target: int) -> np.ndarray:
    """(target, size) float32: each row averages the part of a line that falls on one new pixel."""
    edges = np.linspace(0.0, size, target + 1)
    pixels = np.arange(size)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return (np.clip(overlap, 0.0, None) * target / size).astype(np.float32)

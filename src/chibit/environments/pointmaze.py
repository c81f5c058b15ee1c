"""A ball in a maze that must reach one cell: data of short ways, and starts that lie further off.

The maze and its ball are Gymnasium-Robotics' PointMaze; the task is ours. The goal is always the same cell,
an end of the maze's longest way. An episode starts in a cell from which the way is longer than half of that,
so that whoever has seen short ways alone must put them together, which Fu et al. (2020) call stitching.
Gymnasium builds other forms once this module is imported:
``gymnasium.make("chibit/PointMaze-v0", maze="Large", start="any")``, whose episodes are cut as those of the
large maze unless ``max_episode_steps`` says otherwise.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box
from gymnasium_robotics.envs.maze import maps
from gymnasium_robotics.envs.maze.point_maze import PointMazeEnv

from chibit.core.errors import InputError
from chibit.environments.kinds import MazeTask, private_temporary_files
from chibit.environments.registry import ENVIRONMENTS

Cell: TypeAlias = tuple[int, int]
"""Row and column."""

MAPS = {"UMaze": maps.U_MAZE, "Medium": maps.MEDIUM_MAZE, "Large": maps.LARGE_MAZE}
GOAL_RADIUS = 0.45
"""The library's; a cell is 1 wide."""
PHYSICS_STEPS = 5
"""Steps of the simulation, of 10 ms each, in which an action is held."""
_WALL = 1


def cell_distances(maze: Sequence[Sequence[Any]], start: Cell) -> dict[Cell, int]:
    """Steps from cell to cell on the shortest way to `start`, of every cell from which there is one."""
    found = {start: 0}
    queue = deque([start])
    while queue:
        cell = queue.popleft()
        for row, column in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            beside = (cell[0] + row, cell[1] + column)
            if beside not in found and maze[beside[0]][beside[1]] != _WALL:
                found[beside] = found[cell] + 1
                queue.append(beside)
    return found


def free_cells(maze: Sequence[Sequence[Any]]) -> list[Cell]:
    """Cells without a wall, row by row."""
    return [(i, j) for i, row in enumerate(maze) for j, cell in enumerate(row) if cell != _WALL]


def longest_way(maze: Sequence[Sequence[Any]]) -> tuple[Cell, int]:
    """The end of the longest of all shortest ways, the last one row by row, and its length in cells."""
    ends = {cell: max(cell_distances(maze, cell).values()) for cell in free_cells(maze)}
    longest = max(ends.values())
    return [cell for cell, length in ends.items() if length == longest][-1], longest


class PointMaze(gym.Env[np.ndarray, np.ndarray]):
    """Reach the goal's cell.

    Observations (4,) float64: place x, y and velocity x, y. Actions (2,) float32 in [-1, 1]: a force, held
    for five steps of the simulation. Reward 1 within 0.45 of the goal's center, which ends the episode, else
    0.
    """

    metadata = PointMazeEnv.metadata | {"render_fps": 20}

    def __init__(
        self,
        maze: Literal["UMaze", "Medium", "Large"] = "Medium",
        start: Literal["far", "any"] = "far",
        render_mode: str | None = None,
    ) -> None:
        """Build the maze.

        Args:
            maze: a map of Gymnasium-Robotics.
            start: cells in which episodes start: those further from the goal than half of the longest way, or
                all others than the goal's.
            render_mode: rgb_array for pictures.

        Raises:
            InputError: for another maze or start.
        """
        for name, value, known in (("maze", maze, tuple(MAPS)), ("start", start, ("far", "any"))):
            if value not in known:
                raise InputError(f"{name}: got {value!r}, expected {', '.join(known)}")
        self.map, self.render_mode = MAPS[maze], render_mode
        with private_temporary_files():
            self._inner = PointMazeEnv(maze_map=self.map, render_mode=render_mode)
        self.goal_cell, self.longest = longest_way(self.map)
        least = self.longest // 2 if start == "far" else 0
        self.starts = [
            cell for cell, steps in sorted(cell_distances(self.map, self.goal_cell).items()) if steps > least
        ]
        self.observation_space = Box(-np.inf, np.inf, (4,), np.float64)
        self.action_space = Box(-1.0, 1.0, (2,), np.float32)

    def center(self, cell: Cell) -> np.ndarray:
        """The place of a cell, (2,)."""
        place: np.ndarray = self._inner.maze.cell_rowcol_to_xy(np.array(cell))
        return place

    def cell(self, place: np.ndarray) -> Cell:
        """The cell of a place (2,)."""
        row, column = self._inner.maze.cell_xy_to_rowcol(place)
        return int(row), int(column)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Put the ball into a cell: one that is drawn, or that of ``options={"cell": (1, 1)}``."""
        super().reset(seed=seed)
        cell = (options or {}).get("cell") or self.starts[int(self.np_random.integers(len(self.starts)))]
        cells = {"reset_cell": np.array(cell), "goal_cell": np.array(self.goal_cell)}
        observation, _ = self._inner.reset(seed=int(self.np_random.integers(2**31)), options=cells)
        self._inner.goal = self.center(self.goal_cell)  # the library draws a place in the cell
        self._inner.update_target_site_pos()
        return observation["observation"], {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Hold a force."""
        for _ in range(PHYSICS_STEPS):
            observation, reward, _, _, info = self._inner.step(action)
            if info["success"]:
                break
        return observation["observation"], float(reward), info["success"], False, {"success": info["success"]}

    def render(self) -> Any:
        """A picture of the maze from above."""
        return self._inner.render()

    def close(self) -> None:
        """Let go of the simulation."""
        self._inner.close()


def _register() -> None:
    rows = {env_id: row for env_id, row in ENVIRONMENTS.so_far.items() if isinstance(row, MazeTask)}
    longest = max(row.max_episode_steps for row in rows.values())
    gym.register("chibit/PointMaze-v0", entry_point=f"{__name__}:PointMaze", max_episode_steps=longest)
    for env_id, row in rows.items():
        row.register(env_id, f"{__name__}:PointMaze")


_register()

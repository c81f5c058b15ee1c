"""A planner that plays the mazes: from a cell to another one, on the shortest way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gymnasium as gym
import numpy as np

from chibit.data.collect.behavior.rollout import Episode

if TYPE_CHECKING:
    from chibit.environments.pointmaze import Cell, PointMaze

NOISE = 0.5
"""Standard deviation of what is added to each force, as in D4RL's mazes (Fu et al., 2020)."""
_PULL, _BRAKE = 10.0, 1.0
_NEAR = 0.3
"""Distance from a cell's center at which the next one is headed for."""
_MOST_STEPS = 300


class Planner:
    """Rolls the ball to a cell."""

    def __init__(self, env: PointMaze, target: Cell) -> None:
        """Plan the way to `target` from every cell."""
        from chibit.environments.pointmaze import cell_distances

        self._env, self._target = env, target
        self._steps = cell_distances(env.map, target)
        self._heading: Cell | None = None

    def act(self, observation: np.ndarray) -> np.ndarray:
        """The force (2,) for an observation (4,), within [-1, 1]."""
        place, velocity = observation[:2], observation[2:]
        if self._heading is None or self._is_near(place, self._heading):
            self._heading = self._next(self._env.cell(place) if self._heading is None else self._heading)
        aim = self._env.center(self._heading)
        force: np.ndarray = np.clip(_PULL * (aim - place) - _BRAKE * velocity, -1.0, 1.0)
        return force

    def _is_near(self, place: np.ndarray, cell: Cell) -> bool:
        return float(np.linalg.norm(self._env.center(cell) - place)) < _NEAR

    def _next(self, cell: Cell) -> Cell:
        """The cell beside that is nearest to the target; the target itself once there."""
        beside = [(cell[0] + i, cell[1] + j) for i, j in ((1, 0), (-1, 0), (0, 1), (0, -1))]
        return min((self._steps.get(other, np.inf), other) for other in (cell, *beside))[1]


def play_maze(env: gym.Env, seed: np.random.SeedSequence, level: str, index: int) -> Episode:
    """Play one episode between two cells; near data have none whose way is longer than half of the longest.

    It ends at the goal, where it is rewarded and terminated, or at the other cell, where it is truncated.
    """
    from chibit.environments.pointmaze import GOAL_RADIUS, PointMaze, cell_distances, free_cells

    assert isinstance(env, PointMaze)
    generator = np.random.default_rng(seed)
    reset_seed = int(seed.generate_state(1)[0])
    most = env.longest // 2 if level == "near" else env.longest
    cells = free_cells(env.map)
    starts = [cell for cell in cells if cell != env.goal_cell]  # where an episode would be over at once
    start = starts[int(generator.integers(len(starts)))]
    steps = cell_distances(env.map, start)
    targets = [cell for cell in cells if 0 < steps.get(cell, 0) <= most]
    target = targets[int(generator.integers(len(targets)))]
    planner, center = Planner(env, target), env.center(target)
    observations, actions, rewards = [env.reset(seed=reset_seed, options={"cell": start})[0]], [], []
    terminated = truncated = False
    while not (terminated or truncated):
        noise = generator.normal(scale=NOISE, size=2)
        actions.append(np.clip(planner.act(observations[-1]) + noise, -1.0, 1.0).astype(np.float32))
        observation, reward, terminated, _, _ = env.step(actions[-1])
        observations.append(observation)
        rewards.append(reward)
        is_there = float(np.linalg.norm(observation[:2] - center)) <= GOAL_RADIUS
        truncated = not terminated and (is_there or len(actions) >= _MOST_STEPS)
    return Episode(
        reset_seed, np.stack(observations), np.stack(actions), np.array(rewards), terminated, truncated
    )

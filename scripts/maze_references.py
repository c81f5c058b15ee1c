"""Measure the returns of a planner and of random actions in Gymnasium-Robotics' PointMaze.

They are the references of its scores in `chibit.environments.registry`: 0 is random, 100 the planner. They
are not D4RL's, whose mazes have another radius and other goals.

Command: python scripts/maze_references.py --num-episodes 100
"""

from __future__ import annotations

import argparse
from types import SimpleNamespace

import numpy as np

from chibit.data.collect.pointmaze import Planner
from chibit.environments.make import make_env


def play(name: str, num_episodes: int, *, is_planned: bool) -> np.ndarray:
    """Returns (N,) of the environment as it is registered: the goal stays, and the time limit ends it."""
    env = make_env(f"PointMaze_{name}-v3")
    maze = env.unwrapped.maze  # type: ignore[attr-defined]
    view = SimpleNamespace(
        map=maze.maze_map,
        center=lambda cell: maze.cell_rowcol_to_xy(np.array(cell)),
        cell=lambda place: tuple(int(number) for number in maze.cell_xy_to_rowcol(place)),
    )
    returns = np.zeros(num_episodes)
    for episode in range(num_episodes):
        observation, _ = env.reset(seed=episode)
        generator = np.random.default_rng(episode)
        goal = observation[:2]
        planner = Planner(view, view.cell(goal))  # type: ignore[arg-type]
        is_over = False
        while not is_over:
            force = planner.act(observation[2:]) if is_planned else generator.uniform(-1.0, 1.0, 2)
            if is_planned and view.cell(observation[2:4]) == view.cell(goal):
                force = np.clip(10.0 * (goal - observation[2:4]) - observation[4:], -1.0, 1.0)
            observation, reward, terminated, truncated, _ = env.step(force.astype(np.float32))
            returns[episode] += float(reward)
            is_over = terminated or truncated
    env.close()
    return returns


def main() -> None:
    """Print a line for each maze."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-episodes", type=int, default=100)
    arguments = parser.parse_args()
    for name in ("UMaze", "Medium", "Large"):
        random, planned = (play(name, arguments.num_episodes, is_planned=way) for way in (False, True))
        print(f"PointMaze_{name}-v3: random {random.mean():.2f}, planner {planned.mean():.2f}", flush=True)


if __name__ == "__main__":
    main()

"""A script that plays MiniGrid's memory task: it looks at the cue first, and knows the right arm."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gymnasium as gym
import numpy as np

from chibit.data.collect.behavior.rollout import Episode

if TYPE_CHECKING:
    from chibit.environments.grid_memory import GridMemory

_EAST, _SOUTH, _WEST, _NORTH = range(4)


def play_grid_memory(env: gym.Env, seed: np.random.SeedSequence, level: str, index: int) -> Episode:
    """Play one episode; in mixed data those of odd number guess the arm."""
    from chibit.environments.grid_memory import GridMemory

    assert isinstance(env, GridMemory)
    reset_seed = int(seed.generate_state(1)[0])
    observations, actions, rewards = [env.reset(seed=reset_seed)[0]], [], []
    is_north = env.rooms.success_pos[1] < env.size // 2
    if level == "mixed" and index % 2 == 1:
        is_north = np.random.default_rng(seed).random() < 0.5
    terminated = truncated = has_looked = False
    while not (terminated or truncated):
        has_looked = has_looked or bool(env.rooms.agent_sees(*env.cue))
        actions.append(_act(env, has_looked, is_north))
        observation, reward, terminated, truncated, _ = env.step(actions[-1])
        observations.append(observation)
        rewards.append(reward)
    return Episode(
        reset_seed, np.stack(observations), np.array(actions), np.array(rewards), terminated, truncated
    )


def _act(env: GridMemory, has_looked: bool, is_north: bool) -> int:
    """Towards the cue until it is seen, then to the fork, then to the arm."""
    from chibit.environments.grid_memory import FORWARD, LEFT, RIGHT

    is_at_fork = env.rooms.agent_pos[0] == env.rooms.success_pos[0]
    arm = _NORTH if is_north else _SOUTH
    wanted = (arm if is_at_fork else _EAST) if has_looked else _WEST
    turn = (wanted - env.rooms.agent_dir) % 4
    # Half turns lead past north, on whose side the cue lies.
    return FORWARD if turn == 0 else RIGHT if turn == 1 else LEFT

"""A script that plays the memory tasks: it knows the cue."""

from __future__ import annotations

import gymnasium as gym
import numpy as np

from chibit.data.collect.behavior.rollout import Episode
from chibit.environments.memory import DOWN, FORWARD, NUM_COLORS, UP, KeyToDoor, TMaze


def play_memory(env: gym.Env, seed: np.random.SeedSequence, level: str, index: int) -> Episode:
    """Play one episode; in mixed data those of odd number guess."""
    assert isinstance(env, (TMaze, KeyToDoor))
    reset_seed = int(seed.generate_state(1)[0])
    guess = np.random.default_rng(seed) if level == "mixed" and index % 2 == 1 else None
    observations, actions, rewards = [env.reset(seed=reset_seed)[0]], [], []
    terminated = truncated = False
    while not (terminated or truncated):
        actions.append(_act(env, guess))
        observation, reward, terminated, truncated, _ = env.step(actions[-1])
        observations.append(observation)
        rewards.append(reward)
    return Episode(
        reset_seed, np.stack(observations), np.array(actions), np.array(rewards), terminated, truncated
    )


def _act(env: TMaze | KeyToDoor, guess: np.random.Generator | None) -> int:
    """The right action, or a guess where it counts."""
    if isinstance(env, TMaze):
        if env.place < env.junction:
            return FORWARD
        is_up = env.cue == 1 if guess is None else guess.random() < 0.5
        return UP if is_up else DOWN
    if not env.is_at_door:
        return 0
    return env.color if guess is None else int(guess.integers(NUM_COLORS))

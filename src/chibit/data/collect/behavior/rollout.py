"""Episodes of a behavior policy, a fixed number of environments in lockstep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from chibit.data.collect.behavior.ladder import BehaviorPolicy

BLOCK_EPISODES = 8
"""Episodes that are stepped side by side. Fixed: data must not depend on how the work is divided."""

_COLLECTION = 1


@dataclass(frozen=True)
class Episode:
    """One whole episode."""

    reset_seed: int | None
    observations: Any  # (T + 1, S) float64, the last one after the last action; a dictionary of such parts
    actions: np.ndarray  # (T, A) float32, or (T,) int64
    rewards: np.ndarray  # (T,) float64
    terminated: bool
    truncated: bool


def collection_seed(seed: int, index: int) -> np.random.SeedSequence:
    """Of an episode of collected data: drawn apart from those of evaluations, see `episode_seeds`."""
    return np.random.SeedSequence((seed, index), spawn_key=(_COLLECTION,))


def roll_out_block(
    policy: BehaviorPolicy, envs: Sequence[gym.Env], seeds: Sequence[np.random.SeedSequence]
) -> list[Episode]:
    """Roll out one episode in each environment.

    The policy is always given all rows, those of finished episodes too: a matrix product over fewer rows may
    round differently, and an episode must not depend on when its neighbors end.

    Args:
        policy: Acts in all environments at once.
        envs: E environments with a time limit.
        seeds: E seed sequences; each decides its episode's start and action noise.
    """
    limit = _time_limit(envs[0])
    noise = np.stack([policy.draw_noise(np.random.default_rng(seed), limit) for seed in seeds], axis=1)
    reset_seeds = [int(seed.generate_state(1)[0]) for seed in seeds]
    starts = [env.reset(seed=seed)[0] for env, seed in zip(envs, reset_seeds, strict=True)]

    observations = np.empty((len(envs), limit + 1, len(starts[0])))
    observations[:, 0] = starts
    actions = np.empty((len(envs), limit, policy.act_dim), np.float32)
    rewards = np.empty((len(envs), limit))
    lengths = [0] * len(envs)
    ends = [(False, False)] * len(envs)

    current = observations[:, 0].copy()
    live = list(range(len(envs)))
    for step in range(limit):
        actions[:, step] = chosen = policy.act(current, noise[step])
        for e in live:
            current[e], rewards[e, step], terminated, truncated, _ = envs[e].step(chosen[e])
            if terminated or truncated:
                ends[e], lengths[e] = (bool(terminated), bool(truncated)), step + 1
        observations[:, step + 1] = current
        live = [e for e in live if not lengths[e]]
        if not live:
            break
    return [
        Episode(seed, observations[e, : n + 1], actions[e, :n], rewards[e, :n], *ends[e])
        for e, (seed, n) in enumerate(zip(reset_seeds, lengths, strict=True))
    ]


def _time_limit(env: gym.Env) -> int:
    assert env.spec is not None and env.spec.max_episode_steps is not None
    return env.spec.max_episode_steps

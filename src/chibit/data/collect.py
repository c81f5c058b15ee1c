"""Collect D4RL-style data sets from the shipped behaviour policies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import gymnasium as gym
import numpy as np

from chibit.behaviour import BehaviourPolicy

BLOCK_EPISODES = 8
"""Episodes that one process steps side by side. Fixed: the data must not depend on who collects them."""


@dataclass(frozen=True)
class Episode:
    """One episode as Minari keeps it."""

    seed: int
    observations: np.ndarray  # (T + 1, S) float64
    actions: np.ndarray  # (T, A) float32
    rewards: np.ndarray  # (T,) float64
    terminated: bool
    truncated: bool


def roll_out_block(
    policy: BehaviourPolicy, envs: Sequence[gym.Env], seeds: Sequence[np.random.SeedSequence]
) -> list[Episode]:
    """Roll out one episode in each environment, in lockstep.

    The policy always sees all rows, those of finished episodes too: a matrix product over fewer rows may round
    differently, and an episode must not depend on when its neighbours end.

    Args:
        policy: Acts on all environments at once.
        envs: E environments with a time limit.
        seeds: E seed sequences; each gives its episode's reset seed and action noise.
    """
    limit = envs[0].spec.max_episode_steps
    num_envs, act_dim = len(envs), policy.act_dim
    reset_seeds = [int(s.generate_state(1)[0]) for s in seeds]
    noise = np.stack([policy.draw_noise(np.random.default_rng(s), limit) for s in seeds], axis=1)
    current = np.stack([env.reset(seed=seed)[0] for env, seed in zip(envs, reset_seeds, strict=True)])
    observations = np.empty((num_envs, limit + 1, current.shape[1]))
    actions = np.empty((num_envs, limit, act_dim), np.float32)
    rewards = np.empty((num_envs, limit))
    observations[:, 0] = current
    lengths = np.zeros(num_envs, int)
    ends = np.zeros((num_envs, 2), bool)
    live = list(range(num_envs))
    step = 0
    while live:
        chosen = policy.act(current, noise[step])
        actions[:, step] = chosen
        for e in live:
            current[e], rewards[e, step], ends[e, 0], ends[e, 1], _ = envs[e].step(chosen[e])
            observations[e, step + 1] = current[e]
        step += 1
        for e in live:
            if ends[e].any():
                lengths[e] = step
        live = [e for e in live if not ends[e].any()]
    return [
        Episode(
            reset_seeds[e],
            observations[e, : n + 1].copy(),
            actions[e, :n].copy(),
            rewards[e, :n].copy(),
            bool(ends[e, 0]),
            bool(ends[e, 1]),
        )
        for e, n in enumerate(lengths)
    ]

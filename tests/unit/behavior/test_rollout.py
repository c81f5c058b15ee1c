"""Lockstep episodes: whole, reproducible, and true to the environment."""

from __future__ import annotations

import numpy as np

from chibit.data.collect.behavior import BehaviorPolicy, PolicyRecord
from chibit.data.collect.behavior.ladder import random_policy
from chibit.data.collect.behavior.rollout import Episode, roll_out_block
from chibit.environments.make import make_env


def noisy_policy(state_dim: int, act_dim: int) -> BehaviorPolicy:
    weight = np.random.default_rng(5).normal(size=(act_dim, state_dim)).astype(np.float32) * 0.1
    layers = [(weight, np.zeros(act_dim, np.float32))]
    record = PolicyRecord(name="linear", algorithm="ppo", train_steps=0)
    return BehaviorPolicy(record, layers, np.full(act_dim, -1.0, np.float32))


def seeds(count: int, start: int = 0) -> list[np.random.SeedSequence]:
    return [np.random.SeedSequence(9, spawn_key=(start + i,)) for i in range(count)]


def assert_equal(first: list[Episode], second: list[Episode]) -> None:
    assert [e.reset_seed for e in first] == [e.reset_seed for e in second]
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.observations, b.observations)
        np.testing.assert_array_equal(a.actions, b.actions)
        np.testing.assert_array_equal(a.rewards, b.rewards)


def test_recorded_actions_replay_to_the_recorded_episode() -> None:
    envs = [make_env("Hopper-v5", d4rl_physics=True) for _ in range(3)]
    for episode in roll_out_block(noisy_policy(11, 3), envs, seeds(3)):
        env = make_env("Hopper-v5", d4rl_physics=True)
        observation, _ = env.reset(seed=episode.reset_seed)
        np.testing.assert_array_equal(observation, episode.observations[0])
        ends = []
        for t, action in enumerate(episode.actions):
            observation, reward, terminated, truncated, _ = env.step(action)
            np.testing.assert_array_equal(observation, episode.observations[t + 1])
            assert reward == episode.rewards[t]
            ends.append((terminated, truncated))
        assert not any(any(end) for end in ends[:-1])
        assert ends[-1] == (episode.terminated, episode.truncated) == (True, False)


def test_episodes_have_their_own_lengths() -> None:
    envs = [make_env("Hopper-v5") for _ in range(4)]
    episodes = roll_out_block(random_policy(3), envs, seeds(4))
    lengths = [len(e.rewards) for e in episodes]
    assert len(set(lengths)) > 1
    assert [len(e.observations) for e in episodes] == [n + 1 for n in lengths]
    assert [len(e.actions) for e in episodes] == lengths


def test_time_limit_truncates() -> None:
    envs = [make_env("HalfCheetah-v5", max_episode_steps=12) for _ in range(2)]
    for episode in roll_out_block(random_policy(6), envs, seeds(2)):
        assert len(episode.rewards) == 12
        assert (episode.terminated, episode.truncated) == (False, True)


def test_used_environments_give_the_same_episodes_as_new_ones() -> None:
    envs = [make_env("Walker2d-v5") for _ in range(2)]
    policy = noisy_policy(17, 6)
    first = roll_out_block(policy, envs, seeds(2))
    roll_out_block(policy, envs, seeds(2, start=50))
    assert_equal(first, roll_out_block(policy, envs, seeds(2)))


def test_an_episode_does_not_depend_on_its_neighbors() -> None:
    envs = [make_env("Hopper-v5") for _ in range(3)]
    policy = noisy_policy(11, 3)
    here = roll_out_block(policy, envs, seeds(3))
    there = roll_out_block(policy, envs, [seeds(1)[0], *seeds(2, start=70)])
    assert_equal(here[:1], there[:1])

"""Real agents in real environments: the same actions as one episode at a time, inside the bounds."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch

from chibit.agents import AGENTS, make_agent
from chibit.core.runtime import Runtime
from chibit.data.dataset import DatasetSpec
from chibit.evaluation.pool import EnvironmentPool
from chibit.evaluation.rollout import evaluate
from chibit.models.gpt import GPTShape


def make_spec(env_id: str) -> DatasetSpec:
    with EnvironmentPool(env_id) as pool:
        env = pool.take(1)[0]
        (state_dim,), space = env.observation_space.shape, env.action_space
    is_discrete = isinstance(space, gym.spaces.Discrete)
    return DatasetSpec(
        name="toy", state_dim=state_dim, act_dim=0 if is_discrete else space.shape[0],
        num_actions=int(space.n) if is_discrete else None, env_id=env_id, d4rl_physics=False,
        max_episode_steps=gym.spec(env_id).max_episode_steps, score_reference=None,
        state_mean=(0.1,) * state_dim, state_std=(1.5,) * state_dim,
        action_low=() if is_discrete else tuple(space.low.tolist()),
        action_high=() if is_discrete else tuple(space.high.tolist()), default_target_returns=(200.0, 100.0),
    )  # fmt: skip


def make_dt(spec: DatasetSpec):
    torch.manual_seed(0)
    config = AGENTS["dt"].config(context_length=5, gpt=GPTShape(n_layer=2, n_embd=32))
    agent = make_agent(config, spec, Runtime())
    with torch.no_grad():
        agent.model.action_head.weight.mul_(5)  # so that actions depend on what is seen
    return agent


class Recording:
    """Remembers what another policy saw, did and was told."""

    def __init__(self, policy) -> None:
        self.policy, self.steps, self.actions = policy, [], []

    def reset(self, num_envs: int) -> None:
        self.policy.reset(num_envs)

    def act(self, observations: np.ndarray) -> np.ndarray:
        self.seen = observations.copy()
        self.actions.append(self.policy.act(observations))
        return self.actions[-1]

    def observe(self, rewards: np.ndarray, dones: np.ndarray) -> None:
        self.steps.append((self.seen, rewards.copy()))
        self.policy.observe(rewards, dones)


@pytest.mark.parametrize("env_id", ["Hopper-v5", "Walker2d-v5", "HalfCheetah-v5"])
def test_each_action_is_the_one_that_is_chosen_for_the_episode_alone(env_id):
    """Along the episodes that lockstep played: the robots themselves would blow up a difference of 1e-7."""
    spec = make_spec(env_id)
    agent, targets, num_episodes = make_dt(spec), [200.0, 100.0], 2
    together = Recording(agent.policy(targets))
    results = evaluate(
        together, env_id, target_returns=targets, num_episodes=num_episodes, seed=4, max_episode_steps=30
    )
    assert results[0].episode_returns != results[1].episode_returns
    for t, target in enumerate(targets):
        for i, length in enumerate(results[t].episode_lengths):
            alone, e = agent.policy([target]), t * num_episodes + i
            alone.reset(1)
            for step in range(length):
                seen, rewards = together.steps[step]
                action = alone.act(seen[e : e + 1])[0]
                np.testing.assert_allclose(action, together.actions[step][e], rtol=0, atol=1e-5)
                alone.observe(rewards[e : e + 1], np.zeros(1, bool))


def test_pendulums_bounds_are_reached_and_kept():
    spec = make_spec("Pendulum-v1")
    policy = Recording(make_dt(spec).policy([200.0]))
    (result,) = evaluate(policy, "Pendulum-v1", target_returns=[200.0], num_episodes=2, seed=0)
    actions = np.stack(policy.actions)
    assert result.episode_lengths == (200, 200)
    assert 0.5 < np.abs(actions).max() <= 2.0


def test_cartpole_gets_integers_and_ends_when_the_pole_falls():
    spec = make_spec("CartPole-v1")
    policy = Recording(make_dt(spec).policy([200.0, 100.0]))
    results = evaluate(policy, "CartPole-v1", target_returns=[200.0, 100.0], num_episodes=3, seed=0)
    assert policy.actions[0].dtype == np.int64 and policy.actions[0].shape == (6,)
    assert all(8 <= length < 500 for result in results for length in result.episode_lengths)
    assert [r.failed_episodes for r in results] == [(), ()]

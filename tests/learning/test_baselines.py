"""Every baseline learns: the identity, and in a real task more than its data's policy did."""

from functools import cache

import gymnasium as gym
import numpy as np
import pytest
import torch

import chibit
from baseline_toys import CONTINUOUS, DISCRETE, NUM_ACTIONS, identity_data, scratch
from chibit.agents import AGENTS, make_agent
from chibit.core.runtime import Runtime
from toys import LENGTH, IdentityEnv

ALL = CONTINUOUS + DISCRETE
HIDDEN = (64, 64)
QUICK = {
    "bc": {"learning_rate": 1e-3},
    "td3_bc": {"learning_rate": 1e-3},
    "cql": {"actor_learning_rate": 1e-3, "critic_learning_rate": 1e-3, "conservative_weight": 1.0},
    "brac_v": {
        "actor_hidden_sizes": HIDDEN,
        "critic_hidden_sizes": HIDDEN,
        "behavior_steps": 200,
        "divergence_weight": 0.1,
        "actor_learning_rate": 1e-3,
    },
    "awr": {"actor_learning_rate": 5e-3, "refresh_every": 100, "temperature": 0.3},
    "iql": {"learning_rate": 1e-3, "scale_rewards": False, "inverse_temperature": 10.0},
    "rebrac": {"batch_size": 256},
    "discrete_bc": {"learning_rate": 1e-3},
    "discrete_cql": {"learning_rate": 1e-3, "target_every": 50, "num_quantiles": 16},
    "qr_dqn": {"learning_rate": 1e-3, "target_every": 50, "num_quantiles": 16},
    "rem": {"learning_rate": 1e-3, "target_every": 50, "num_heads": 16},
}
"""Settings that learn within hundreds of steps what the defaults learn within many thousands."""


def learn(name, dataset, num_steps, **changes):
    torch.manual_seed(0)
    settings = {"batch_size": 128, **QUICK[name], **changes}
    if name != "brac_v":
        settings.setdefault("hidden_sizes", HIDDEN)
    agent = make_agent(AGENTS[name].config(**settings), dataset.spec, Runtime())
    sampler = agent.sampler(agent.prepare(dataset), np.random.default_rng(0))
    for _ in range(num_steps):
        agent.update(sampler.sample())
    return agent.policy(None)


def mean_return(policy, env, num_episodes):
    returns = []
    for seed in range(num_episodes):
        policy.reset(1)
        observation, _ = env.reset(seed=1000 + seed)
        total, done = 0.0, False
        while not done:
            (action,) = policy.act(np.asarray(observation)[None])
            observation, reward, terminated, truncated, _ = env.step(action)
            done = terminated or truncated
            policy.observe(np.array([reward]), np.array([done]))
            total += float(reward)
        returns.append(total)
    return float(np.mean(returns))


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_solves_the_identity(name):
    dataset = identity_data(name in DISCRETE)
    assert dataset.episode_returns.mean() < 0.75 * LENGTH
    policy = (
        learn(name, dataset, 600, discount=0.5) if "bc" not in name.split("_") else learn(name, dataset, 600)
    )
    env = IdentityEnv(NUM_ACTIONS if name in DISCRETE else None)
    assert mean_return(policy, env, 20) > 0.9 * LENGTH


def swing_up(seen, draw):
    """Pumps energy into the pendulum and catches it, with three quarters of the torque and much noise."""
    cosine, sine, speed = seen
    angle, energy = np.arctan2(sine, cosine), speed**2 / 6 + 5 * (cosine - 1)
    torque = -(10 * angle + 2 * speed) if abs(angle) < 0.6 else -2 * np.sign(speed) * np.sign(energy)
    noisy = np.clip(torque, -1.5, 1.5) + 1.5 * draw.standard_normal()
    return np.clip([noisy], -2.0, 2.0).astype(np.float32)


def balance(seen, draw):
    """Pushes the cart under the falling pole, but moves at random two thirds of the time."""
    position, velocity, angle, spin = seen
    if draw.random() < 0.7:
        return int(draw.integers(2))
    return int(angle + 0.3 * spin + 0.05 * position + 0.1 * velocity > 0)


@cache
def logged_play(env_id, behavior, num_episodes):
    """Real episodes under a behavior policy."""
    env, draw = gym.make(env_id), np.random.default_rng(0)
    rows = []
    for episode in range(num_episodes):
        seen, _ = env.reset(seed=episode)
        done = False
        while not done:
            action = behavior(seen, draw)
            following, reward, terminated, truncated, _ = env.step(action)
            rows.append((seen, action, reward, terminated, truncated, following))
            seen, done = following, terminated or truncated
    names = ("observations", "actions", "rewards", "terminations", "truncations", "next_observations")
    columns = {name: np.array(values) for name, values in zip(names, zip(*rows, strict=True), strict=True)}
    return chibit.from_arrays(**columns, env_id=env_id, cache=scratch())


REAL_TASK = {
    "cql": {"conservative_weight": 5.0},
    "brac_v": {
        "behavior_steps": 2000,
        "behavior_learning_rate": 2e-3,
        "divergence_weight": 1.0,
        "actor_learning_rate": 1e-4,
    },
    "awr": {"refresh_every": 500, "temperature": 1.0},
    "iql": {"inverse_temperature": 1.0},
    "rebrac": {"actor_penalty": 0.3},
    **dict.fromkeys(("qr_dqn", "rem", "discrete_cql"), {"target_every": 200}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_improves_on_the_behavior_policy_in_a_real_task(name):
    is_discrete = name in DISCRETE
    arguments = ("CartPole-v1", balance, 300) if is_discrete else ("Pendulum-v1", swing_up, 60)
    dataset = logged_play(*arguments)
    policy = learn(name, dataset, 3000, **REAL_TASK.get(name, {}))
    env = gym.make(arguments[0])
    standard_error = dataset.episode_returns.std() / dataset.num_episodes**0.5
    assert mean_return(policy, env, 20) > dataset.episode_returns.mean() + 2 * standard_error

"""A line whose values are known: s' = clip(s + 0.2 a, -1, 1), r = s, and no end but a time limit."""

import numpy as np

import chibit
from chibit.judging.fitting import FitConfig
from chibit.judging.judge import JudgeConfig
from chibit.judging.world import WorldConfig

DISCOUNT, LENGTH = 0.95, 40
QUICK = FitConfig(
    world=WorldConfig(hidden_sizes=(64, 64), num_steps=500, learning_rate=3e-3), clone_steps=200
)
SETTINGS = JudgeConfig(fit=QUICK, discount=DISCOUNT)


def step(states, actions):
    return np.clip(states + 0.2 * actions, -1.0, 1.0)


def columns(num_episodes=60, length=LENGTH, *, seed=0, choose=None, reward=lambda states: states[:, 0]):
    """Arrays of a log; `choose` maps states (E, 1) to actions, by default at random."""
    generator = np.random.default_rng(seed)
    states = generator.uniform(-1, 1, (num_episodes, 1))
    rows = []
    for _ in range(length):
        actions = generator.uniform(-1, 1, (num_episodes, 1)) if choose is None else choose(states)
        following = step(states, actions)
        rows.append((states, actions, reward(states), following))
        states = following
    observations, actions, rewards, following = (np.stack(parts, 1) for parts in zip(*rows, strict=True))
    ends = np.zeros((num_episodes, length), bool)
    ends[:, -1] = True
    return {
        "observations": observations.reshape(-1, 1),
        "actions": actions.reshape(-1, 1),
        "rewards": rewards.reshape(-1),
        "terminations": np.zeros(ends.size, bool),
        "truncations": ends.reshape(-1),
        "next_observations": following.reshape(-1, 1),
    }


def make_log(cache, num_episodes=60, length=LENGTH, *, seed=0, **changes):
    """A data set of it; `changes` replace columns, and None leaves one out."""
    arrays = columns(num_episodes, length, seed=seed) | changes
    return chibit.from_arrays(**arrays, name="line", cache=cache)


def true_value(choose, starts, horizon=LENGTH, discount=DISCOUNT):
    """(E,) discounted returns of a policy from (E, 1) starts."""
    states, values = starts, np.zeros(len(starts))
    for t in range(horizon):
        values += discount**t * states[:, 0]
        states = step(states, choose(states))
    return values


class Acts:
    """A policy that is a function of what is seen."""

    def __init__(self, choose):
        self.choose = choose

    def reset(self, num_envs):
        self.observed = []

    def act(self, observations):
        return self.choose(observations).astype(np.float32)

    def observe(self, rewards, dones, actions=None):
        self.observed.append((np.array(rewards), np.array(dones)))


def up(states):
    return np.ones_like(states)


def down(states):
    return -np.ones_like(states)


def home(states):
    return np.clip(-3.0 * states, -1.0, 1.0)

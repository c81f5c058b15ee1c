"""Small policies of each form of memory, that tests share."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from baseline_toys import DISCRETE, identity_data, small_agent
from chibit.policy.policy import Policy
from sequence_toys import make_small, scratch
from toys import IdentityEnv, play_toy

KINDS = ["dt", "bc", "stacked", "td3_bc", "discrete dt", "qr_dqn"]


def make(kind: str, *, greedy: bool = False, target_return: float | None = None, **settings) -> Policy:
    """A policy of each form of memory, with a context of four where it has one, of fixed weights."""
    torch.manual_seed(0)
    if kind in ("dt", "discrete dt"):
        data = (
            play_toy(IdentityEnv(num_actions=3), 5, scratch())
            if kind == "discrete dt"
            else identity_data(False)
        )
        agent, _ = make_small(data, **settings)
    elif kind == "stacked":
        agent, _ = small_agent("bc", identity_data(False), context_length=3, **settings)
    else:
        agent, _ = small_agent(kind, identity_data(kind in DISCRETE), **settings)
    spec = dataclasses.replace(agent.spec, max_episode_steps=30)
    return Policy(agent, spec, greedy=greedy, target_return=target_return)


def episode(policy: Policy, steps: int, seed: int = 0):
    """Made-up observations, rewards, and actions that somebody else took."""
    rng = np.random.default_rng(seed)
    spec = policy.spec
    seen = rng.uniform(-1, 1, (steps, spec.state_dim)).astype(np.float32)
    number = spec.num_actions
    taken = rng.integers(number, size=steps) if number else rng.uniform(-1, 1, (steps, spec.act_dim))
    return seen, taken, rng.normal(size=steps)


def play(policy: Policy, steps: int, **options) -> np.ndarray:
    seen, _, rewards = episode(policy, steps)
    policy.reset(**options)
    actions = []
    for step in range(steps):
        actions.append(policy.act(seen[step]))
        policy.observe(rewards[step], step == steps - 1)
    return np.array(actions)

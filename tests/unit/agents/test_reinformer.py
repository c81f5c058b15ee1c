"""Reinformer: what its tokens see, what its expectile finds, and how its policy asks."""

import numpy as np
import pytest
import torch

from chibit.agents import make_agent
from chibit.agents.reinformer import ReinformerConfig
from chibit.core.errors import InputError
from chibit.core.runtime import Runtime
from chibit.data.load import from_arrays
from chibit.models.gpt import GPTShape

SMALL = {"gpt": GPTShape(n_layer=1, n_embd=16), "dropout": 0.0, "context_length": 4}


def coin_data(cache, episodes=60, steps=3):
    """The state says nothing, the action decides the return: 1 after +0.5, 0 after -0.5, as often."""
    rng = np.random.default_rng(0)
    signs = np.repeat(np.arange(episodes) % 2 * 2 - 1, steps).astype(np.float32)
    ends = np.tile(np.arange(steps) == steps - 1, episodes)
    return from_arrays(
        rng.normal(size=(episodes * steps, 2)).astype(np.float32),
        0.5 * signs[:, None],
        ((signs > 0) & ends).astype(np.float64),
        ends,
        np.zeros_like(ends),
        action_low=-1.0,
        action_high=1.0,
        cache=cache,
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return coin_data(tmp_path_factory.mktemp("coin"))


def make(data, **changes):
    torch.manual_seed(0)
    return make_agent(ReinformerConfig(**SMALL, **changes), data.spec, Runtime())


def test_a_return_is_predicted_from_its_state_and_an_action_from_its_return(data):
    agent = make(data)
    batch = next_batch(agent, data)
    agent.modules().eval()

    def outputs(**changes):
        parts = {name: getattr(batch, name).clone() for name in ("returns_to_go", "states", "actions")}
        for name, step in changes.items():
            parts[name][:, step] += 1.0
        tokens = agent.model.embed(*parts.values(), batch.timesteps)
        return agent.model.decode_both(tokens, batch.timesteps)

    actions, returns = outputs()
    at = 1
    for name, action_from, return_from in (("states", at, at), ("returns_to_go", at, at + 1)):
        changed_actions, changed_returns = outputs(**{name: at})
        assert torch.equal(changed_actions[:, :action_from], actions[:, :action_from])
        assert not torch.equal(changed_actions[:, action_from], actions[:, action_from])
        assert torch.equal(changed_returns[:, :return_from], returns[:, :return_from])
        assert not torch.equal(changed_returns[:, return_from], returns[:, return_from])


def next_batch(agent, data):
    return agent.sampler(data, np.random.default_rng(0)).sample()


def train(data, steps=150, **changes):
    agent = make(data, learning_rate=3e-3, batch_size=32, warmup_steps=1, **changes)
    sampler = agent.sampler(data, np.random.default_rng(0))
    for _ in range(steps):
        agent.update(sampler.sample())
    return agent


@pytest.mark.parametrize(("expectile", "low", "high"), [(0.5, 0.3, 0.7), (0.99, 0.85, 1.1)])
def test_its_policy_asks_for_the_expectile_and_does_what_brought_it(data, expectile, low, high):
    agent = train(data, return_expectile=expectile)
    policy = agent.policy(None)
    policy.reset(8)
    seen = np.random.default_rng(3).normal(size=(8, 2)).astype(np.float32)
    actions = policy.act(seen)
    asked = policy._history._returns_to_go[:, 0]
    assert low < asked.mean() < high
    if expectile > 0.9:
        assert actions.mean() > 0.35  # the action of the episodes that were rewarded is 0.5


def test_what_was_asked_for_stays_in_the_history(data):
    policy = make(data).policy((5.0,))
    policy.reset(2)
    first = np.zeros((2, 2), np.float32)
    policy.act(first)
    asked = policy._history._returns_to_go[:, 0].copy()
    policy.observe(np.ones(2), np.zeros(2, bool))
    policy.act(first + 1)
    np.testing.assert_array_equal(policy._history._returns_to_go[:, 0], asked)
    assert asked.std() == 0 and not np.allclose(asked, 5.0)


def test_it_needs_return_tokens_and_has_no_graph(data):
    with pytest.raises(InputError, match="reinformer predicts returns; use dt"):
        ReinformerConfig(return_tokens=False)
    with pytest.raises(InputError, match="only dt has a graph"):
        make(data).policy_step()
    assert not make(data).is_return_conditioned

"""Every agent on a device that is not the CPU: nothing is mixed, and what comes out is what the CPU gives."""

import numpy as np
import pytest
import torch

from baseline_toys import CONTINUOUS, DISCRETE, identity_data, small_config
from chibit.agents import make_agent
from chibit.core.runtime import Runtime
from pretend_device import PretendTensor, pretend_device

DEVICE = Runtime(device="pretend:0")


def train(config, dataset, runtime, num_updates=5):
    """An agent after a few updates; parameters are drawn from the same numbers on every device."""
    torch.manual_seed(0)
    agent = make_agent(config, dataset.spec, runtime)
    sampler = agent.sampler(agent.prepare(dataset), np.random.default_rng(0))
    return agent, [agent.update(sampler.sample()) for _ in range(num_updates)]


@pytest.mark.parametrize("name", (*CONTINUOUS, *DISCRETE))
def test_baselines_train_and_act_there_as_on_the_cpu(name):
    dataset = identity_data(name in DISCRETE)
    config = small_config(name)
    observations = dataset.observations[:4]
    expected, expected_metrics = train(config, dataset, Runtime())
    acting = expected.policy(None)
    acting.reset(4)
    with pretend_device():
        agent, metrics = train(config, dataset, DEVICE)
        assert all(isinstance(weight.data, PretendTensor) for weight in agent.modules().parameters())
        policy = agent.policy(None)
        policy.reset(4)
        actions = policy.act(observations)
    for seen, wanted in zip(metrics, expected_metrics, strict=True):
        assert seen == pytest.approx(wanted, rel=1e-4, abs=1e-6)
    np.testing.assert_allclose(actions, acting.act(observations), rtol=1e-4, atol=1e-5)


def test_the_device_refuses_a_mixture_and_sees_waits_and_copies():
    with pretend_device() as seen:
        there = torch.ones(3, device="pretend")
        assert (there * 2).sum().item() == 6
        assert [kind.split()[0] for kind in seen.syncs] == ["item"]
        seen.clear()
        with pytest.raises(RuntimeError, match="tensors of two devices"):
            there + torch.ones(3)
        with pytest.raises(RuntimeError, match="generator of the CPU"):
            torch.rand(3, device="pretend", generator=torch.Generator())
        torch.rand(3, device="pretend", generator=torch.Generator("pretend"))
        assert not seen.syncs and not seen.copies
        torch.ones(3).to("pretend")
        assert sum(seen.copies.values()) == 1
        there.cpu(), there[there > 0]
        assert sorted(kind.split()[0] for kind in seen.syncs) == ["boolean", "to"]

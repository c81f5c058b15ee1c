"""Every agent on a device that is not the CPU: nothing mixed, nothing waited for, the CPU's numbers."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import sequence_toys
from baseline_toys import CONTINUOUS, DISCRETE, identity_data, small_config
from chibit.agents import AGENTS, guard, make_agent
from chibit.core.errors import DivergenceError
from chibit.core.runtime import Runtime, read_scalars
from pretend_device import PretendTensor, pretend_device

DEVICE = Runtime(device="pretend:0")
ALL = ("dt", *CONTINUOUS, *DISCRETE)
STEPS = 7
"""So many that every agent goes through all of its phases."""


def make(name, runtime, **settings):
    """A small agent and its sampler; parameters are drawn from the same numbers on every device."""
    dataset = sequence_toys.target_return_data() if name == "dt" else identity_data(name in DISCRETE)
    config = AGENTS["dt"].config(**sequence_toys.SMALL) if name == "dt" else small_config(name)
    torch.manual_seed(0)
    agent = make_agent(replace(config, **settings), dataset.spec, runtime)
    return agent, agent.sampler(agent.prepare(dataset), np.random.default_rng(0))


def run(agent, sampler, num_updates=STEPS):
    """What some updates give; names and numbers."""
    metrics = [agent.update(sampler.sample()) for _ in range(num_updates)]
    return [dict(zip(each, read_scalars(each.values()), strict=True)) for each in metrics]


def snapshot(agent):
    """Copies of all tensors of a checkpoint, on the host."""
    state = agent.state_dict()
    leaves = torch.utils._pytree.tree_leaves((dict(state.tensors), state.training))
    return [leaf.cpu().clone() for leaf in leaves if isinstance(leaf, torch.Tensor)]


def spoilt(batch):
    """A batch with a state that is not a number."""
    states = batch.states.clone()
    states[3, 0] = torch.nan
    return replace(batch, states=states)


@pytest.mark.parametrize("name", ALL)
def test_training_and_acting_give_what_the_cpu_gives(name):
    settings = {"dropout": 0.0} if name == "dt" else {}
    expected, sampler = make(name, Runtime(), **settings)
    expected_metrics = run(expected, sampler)
    observations = sampler.dataset.observations[:4]
    targets = (1.0,) if name == "dt" else None
    acting = expected.policy(targets)
    acting.reset(4)
    with pretend_device():
        agent, sampler = make(name, DEVICE, **settings)
        metrics = run(agent, sampler)
        assert all(isinstance(weight.data, PretendTensor) for weight in agent.modules().parameters())
        policy = agent.policy(targets)
        policy.reset(4)
        actions = policy.act(observations)
    for seen, wanted in zip(metrics, expected_metrics, strict=True):
        assert seen == pytest.approx(wanted, rel=1e-4, abs=1e-6)
    np.testing.assert_allclose(actions, acting.act(observations), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_no_step_waits_for_the_device(name):
    with pretend_device() as seen:
        agent, sampler = make(name, DEVICE)
        batches = [sampler.sample() for _ in range(STEPS)]
        seen.clear()
        metrics = [agent.update(batch) for batch in batches]
        assert seen.syncs == {}
        assert all(np.isfinite(read_scalars(metrics[-1].values())))
        assert sum(seen.syncs.values()) == 1


@pytest.mark.parametrize("name", ALL)
def test_from_a_bad_step_on_nothing_changes_until_it_is_told_of(name):
    """The fifth step is the last of a round of AWR, after which its copies would move."""
    with pretend_device() as seen:
        agent, sampler = make(name, DEVICE)
        run(agent, sampler, 5)
        before, first, second = snapshot(agent), spoilt(sampler.sample()), spoilt(sampler.sample())
        good = sampler.sample()
        seen.clear()
        for batch in (first, good, second, good):
            agent.update(batch)
        assert seen.syncs == {}
        with pytest.raises(DivergenceError, match="is nan at step 5, expected a finite number") as caught:
            agent.check()
        assert caught.value.rows == tuple(first.rows.tolist())
        assert agent.step == caught.value.step == 5
        assert all(map(torch.equal, before, snapshot(agent)))
        agent.update(good)
        agent.check()
        assert not all(map(torch.equal, before, snapshot(agent)))


def test_bad_steps_are_told_of_at_the_latest_after_a_thousand(monkeypatch):
    monkeypatch.setattr(guard, "MOST_UNREAD", 5)
    with pretend_device():
        agent, sampler = make("bc", DEVICE)
        agent.update(spoilt(sampler.sample()))
        for _ in range(3):
            agent.update(sampler.sample())
        with pytest.raises(DivergenceError, match="is nan at step 0"):
            agent.update(sampler.sample())
        assert agent.step == 0


def test_an_optimizer_that_cannot_leave_a_step_out_has_the_host_wait():
    parameter = torch.nn.Parameter(torch.ones(2))
    values = {"loss": torch.tensor(torch.nan)}
    with pretend_device():
        plain = guard.StepGuard(DEVICE.torch_device, [torch.optim.RMSprop([parameter])])
        with pytest.raises(DivergenceError, match="loss is nan at step 4"):
            plain.admit(4, torch.arange(2), **values)


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

"""The held-out action error of every baseline, against what its policy does."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from baseline_toys import CONTINUOUS, DISCRETE, identity_data, small_agent
from chibit.agents import make_agent
from chibit.agents.dt.config import DecisionTransformerConfig
from chibit.core.runtime import Runtime
from chibit.data.normalizer import StateNormalizer
from chibit.models.gpt import GPTShape
from chibit.training.held_out import HELD_OUT_ROWS, HeldOut, HeldOutError

VARIANTS = [*((name, {}) for name in CONTINUOUS + DISCRETE), ("bc", {"top_fraction": 0.2, "dropout": 0.5})]


@pytest.mark.parametrize(("name", "changes"), VARIANTS)
def test_it_is_that_of_the_policy_on_rows_that_arms_share(name, changes):
    data = identity_data(name in DISCRETE)
    agent, sampler = small_agent(name, **changes)
    agent.update(sampler.sample())
    before, draws = sampler.state_dict(), torch.get_rng_state()
    metrics = HeldOut(agent, data, data, seed=3)()
    key = f"held_out/{agent.action_error_name}"
    error = metrics[key]
    assert error == HeldOutError(agent, data, seed=3)()
    assert sampler.state_dict() == before and torch.equal(torch.get_rng_state(), draws)
    again = agent.sampler(data, np.random.Generator(np.random.PCG64(np.random.SeedSequence([3, 2]))))
    rows = np.concatenate([again.sample().rows for _ in range(HELD_OUT_ROWS // 16)])
    assert len(rows) == HELD_OUT_ROWS
    policy = agent.policy(None)
    policy.reset(HELD_OUT_ROWS)
    played, logged = policy.act(np.asarray(data.observations)[rows]), np.asarray(data.actions)[rows]
    if name in CONTINUOUS:
        assert key == "held_out/action_error"
        assert error == pytest.approx(np.square(played - logged).mean(), rel=1e-5)
    elif name == "discrete_bc":
        assert key == "held_out/action_error"
        states = torch.from_numpy(StateNormalizer.from_spec(data.spec)(np.asarray(data.observations)[rows]))
        expected = F.cross_entropy(agent.actor(states), torch.from_numpy(logged))
        assert error == pytest.approx(expected.item(), rel=1e-5)
    else:
        assert key == "held_out/action_mismatch"
        assert error == pytest.approx((played != logged).mean())


def test_stacked_states_are_judged_by_their_last_action():
    agent, _ = small_agent("bc", context_length=3)
    agent.actor.mlp.layers[-1].weight.data.zero_()
    agent.actor.mlp.layers[-1].bias.data.fill_(100.0)
    data = identity_data(False)
    held_out = HeldOutError(agent, data, seed=0)
    last = torch.cat([batch.rows + batch.attention_mask.sum(1) - 1 for batch in held_out.batches])
    assert len(last) == HELD_OUT_ROWS
    assert held_out() == pytest.approx(np.square(1.0 - np.asarray(data.actions)[last]).mean(), rel=1e-5)


@pytest.mark.parametrize("name", ["bc", "dt", "iql", "discrete_bc", "rem"])
def test_dimensions_best_episodes_and_those_trained_on_are_measured_too(name):
    data = identity_data(name in DISCRETE)
    if name == "dt":
        config = DecisionTransformerConfig(
            gpt=GPTShape(n_layer=1, n_embd=16), context_length=4, batch_size=16
        )
        agent = make_agent(config, data.spec, Runtime())
    else:
        agent, _ = small_agent(name)
    train, held_out = data.held_out_split(0.2, 0)
    metrics = HeldOut(agent, train, held_out, seed=0)()
    kind = agent.action_error_name
    best = HeldOutError(agent, held_out.top_fraction(0.1), 0, use=3)()
    assert metrics[f"held_out/best_tenth_{kind}"] == best
    assert metrics[f"train/{kind}"] == HeldOutError(agent, train, 0, use=4)()
    dimensions = {key for key in metrics if "dimension" in key}
    if name in DISCRETE:
        assert not dimensions
        return
    assert dimensions == {"held_out/dimension_0"}
    # One dimension: its error is all of the error, in units of the spread.
    expected = np.sqrt(metrics["held_out/action_error"]) / train.actions.std()
    assert metrics["held_out/dimension_0"] == pytest.approx(expected, rel=1e-4)


def test_an_error_that_leaves_that_of_the_data_is_said_once():
    agent, _ = small_agent("bc")
    data = identity_data(False)
    held_out = HeldOut(agent, data, data, seed=0)

    def said(error, trained=0.10):
        return held_out.warning({"held_out/action_error": error, "train/action_error": trained})

    assert said(0.13) is None  # other episodes are other episodes
    assert said(0.162) is None
    assert "0.163, on those trained on 0.1" in said(0.163)
    assert said(0.163) is None
    held_out = HeldOut(agent, data, data, seed=0)
    assert said(0.199) is None and said(0.201)  # that far apart they may begin, and no further
    held_out = HeldOut(agent, data, data, seed=0)
    assert said(0.08) is None and said(0.125) is None
    before, held_out = held_out.state_dict(), HeldOut(agent, data, data, seed=0)
    held_out.load_state_dict(before)  # a resumed run knows where its errors began, and what it has said
    assert said(0.126)
    before, held_out = held_out.state_dict(), HeldOut(agent, data, data, seed=0)
    held_out.load_state_dict(before)
    assert said(0.126) is None

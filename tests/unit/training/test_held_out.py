"""The held-out action error of every baseline, against what its policy does."""

import numpy as np
import pytest
import torch

from baseline_toys import CONTINUOUS, DISCRETE, identity_data, small_agent
from chibit.training.offline import HELD_OUT_ROWS, HeldOutError

VARIANTS = [*((name, {}) for name in CONTINUOUS + DISCRETE), ("bc", {"top_fraction": 0.2, "dropout": 0.5})]


@pytest.mark.parametrize(("name", "changes"), VARIANTS)
def test_it_is_that_of_the_policy_on_rows_that_arms_share(name, changes):
    data = identity_data(name in DISCRETE)
    agent, sampler = small_agent(name, **changes)
    agent.update(sampler.sample())
    before, draws = sampler.state_dict(), torch.get_rng_state()
    [(key, error)] = HeldOutError(agent, data, seed=3)().items()
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
        assert 0 < error < 3
    else:
        assert key == "held_out/action_mismatch"
        assert error == pytest.approx((played != logged).mean())


def test_stacked_states_are_judged_by_their_last_action():
    agent, _ = small_agent("bc", context_length=3)
    agent.actor.mlp.layers[-1].weight.data.zero_()
    agent.actor.mlp.layers[-1].bias.data.fill_(100.0)
    data = identity_data(False)
    [error] = HeldOutError(agent, data, seed=0)().values()
    assert 0.5 < error < np.square(1.0 - np.asarray(data.actions)).max() + 1e-6

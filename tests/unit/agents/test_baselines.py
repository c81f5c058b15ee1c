"""What every baseline must do, whatever it optimizes."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from baseline_toys import CONTINUOUS, DISCRETE, NUM_ACTIONS, identity_data, small_agent, small_config
from chibit.agents import AGENTS, AgentState, make_agent
from chibit.core.config import from_json, to_json
from chibit.core.errors import DivergenceError
from chibit.core.runtime import Runtime

ALL = CONTINUOUS + DISCRETE
VARIANTS = [
    *((name, {}) for name in ALL),
    ("bc", {"context_length": 3, "dropout": 0.1, "warmup_steps": 4}),
    ("bc", {"top_fraction": 0.3}),
    ("discrete_bc", {"top_fraction": 0.3}),
    ("cql", {"pretraining": "markov", "pretraining_steps": 2}),
]
PHASES = {"brac_v": 8, "awr": 4}
"""Updates after which every part has been trained; two for the others."""


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def train(agent, sampler, num_steps):
    return [agent.update(sampler.sample()) for _ in range(num_steps)]


def tensors(agent):
    return {name: tensor.clone() for name, tensor in agent.modules().state_dict().items()}


@pytest.mark.parametrize(("name", "changes"), VARIANTS)
def test_every_trainable_parameter_moves_and_belongs_to_one_optimizer(name, changes):
    agent, sampler = small_agent(name, **changes)
    before = {key: p.detach().clone() for key, p in agent.modules().named_parameters()}
    metrics = train(agent, sampler, PHASES.get(name, 2))
    for key, parameter in agent.modules().named_parameters():
        if parameter.requires_grad:
            assert not torch.equal(parameter, before[key]), f"{key} did not move"
    owned = [id(p) for o in agent.optimizers.values() for group in o.param_groups for p in group["params"]]
    trainable = [id(p) for p in agent.modules().parameters() if p.requires_grad]
    assert sorted(owned) == sorted(trainable)
    for line in metrics:
        assert "train/loss" in line
        assert all(key.startswith("train/") and np.isfinite(value) for key, value in line.items())


@pytest.mark.parametrize("name", ["td3_bc", "cql", "brac_v", "iql", "rebrac"])
def test_targets_follow_slowly_and_take_no_gradient(name):
    agent, sampler = small_agent(name, tau=0.25)
    train(agent, sampler, 6)
    targets = {key: p for key, p in agent.modules().named_parameters() if key.startswith("target_")}
    assert targets
    before = {key: p.clone() for key, p in targets.items()}
    while True:  # up to the next update that moves the targets
        agent.update(sampler.sample())
        sources = dict(agent.modules().named_parameters())
        if any(not torch.equal(p, before[key]) for key, p in targets.items()):
            break
    for key, target in targets.items():
        assert not target.requires_grad
        expected = before[key] + 0.25 * (sources[key.removeprefix("target_")] - before[key])
        torch.testing.assert_close(target, expected)


@pytest.mark.parametrize("name", ["qr_dqn", "rem", "discrete_cql"])
def test_hard_targets_are_copied_on_schedule_only(name):
    agent, sampler = small_agent(name, target_every=4)
    start = agent.target_critic.head.weight.clone()
    train(agent, sampler, 3)
    assert torch.equal(agent.target_critic.head.weight, start)
    train(agent, sampler, 1)
    assert torch.equal(agent.target_critic.head.weight, agent.critic.head.weight)


@pytest.mark.parametrize(("name", "changes"), VARIANTS)
def test_update_leaves_the_batch_as_it_was(name, changes):
    agent, sampler = small_agent(name, **changes)
    for _ in range(PHASES.get(name, 2)):
        batch = sampler.sample()
        copies = {field.name: getattr(batch, field.name).clone() for field in dataclasses.fields(batch)}
        agent.update(batch)
        for key, copy in copies.items():
            assert torch.equal(getattr(batch, key), copy), key


@pytest.mark.parametrize(("name", "changes"), VARIANTS)
def test_a_loaded_agent_acts_equally(name, changes):
    agent, sampler = small_agent(name, **changes)
    train(agent, sampler, PHASES.get(name, 2))
    torch.manual_seed(1)
    other, _ = small_agent(name, **changes)
    other.load_state_dict(AgentState(tensors=tensors(agent)))  # as a policy is loaded: without its training
    observations = np.random.default_rng(1).uniform(-1, 1, (5, agent.spec.state_dim)).astype(np.float32)
    ours, loaded = agent.policy(None), other.policy(None)
    ours.reset(5)
    loaded.reset(5)
    for _ in range(4):
        actions = ours.act(observations)
        assert np.array_equal(actions, loaded.act(observations))
        ours.observe(np.zeros(5), np.zeros(5, bool))
        loaded.observe(np.zeros(5), np.zeros(5, bool))


@pytest.mark.parametrize(("name", "changes"), VARIANTS)
def test_config_survives_json(name, changes):
    config = small_config(name, **changes)
    assert from_json(AGENTS[name].config, json.loads(json.dumps(to_json(config)))) == config
    assert config.agent == name


@pytest.mark.parametrize(("name", "changes"), VARIANTS)
def test_resumed_training_equals_the_uninterrupted_one_to_the_bit(name, changes):
    agent, sampler = small_agent(name, **changes)
    train(agent, sampler, 5)
    state = agent.state_dict()
    saved = AgentState(tensors=tensors(agent), training=roundtrip(state.training))
    saved_sampler, saved_rng = sampler.state_dict(), torch.get_rng_state()
    expected_metrics = train(agent, sampler, 6)

    torch.manual_seed(123)
    resumed, resumed_sampler = small_agent(name, **changes)
    resumed.load_state_dict(saved)
    resumed_sampler.load_state_dict(saved_sampler)
    torch.set_rng_state(saved_rng)
    assert train(resumed, resumed_sampler, 6) == expected_metrics
    for key, tensor in resumed.modules().state_dict().items():
        assert torch.equal(tensor, agent.modules().state_dict()[key]), key


def roundtrip(training):
    """Through torch's own file format, weights only, as a checkpoint is."""
    import io

    buffer = io.BytesIO()
    torch.save(training, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


@pytest.mark.parametrize("name", ALL)
def test_two_runs_of_one_seed_are_equal(name):
    runs = []
    for _ in range(2):
        torch.manual_seed(5)
        agent, sampler = small_agent(name)
        runs.append((train(agent, sampler, 5), tensors(agent)))
    assert runs[0][0] == runs[1][0]
    assert all(torch.equal(tensor, runs[1][1][key]) for key, tensor in runs[0][1].items())


@pytest.mark.parametrize("name", ALL)
def test_a_diverging_update_changes_nothing_and_names_its_rows(name):
    agent, sampler = small_agent(name)
    train(agent, sampler, PHASES.get(name, 2))
    batch = sampler.sample()
    batch.states[3, 0] = torch.nan
    before, step = tensors(agent), agent.step
    with pytest.raises(DivergenceError, match="is nan at step") as caught:
        agent.update(batch)
    assert caught.value.exit_code == 5
    assert caught.value.rows == tuple(batch.rows.tolist())
    assert agent.step == step
    assert all(torch.equal(tensor, before[key]) for key, tensor in tensors(agent).items())


@pytest.mark.parametrize("name", ALL)
def test_actions_are_finite_and_in_range_whatever_is_seen(name):
    agent, _ = small_agent(name)
    policy = agent.policy(None)
    policy.reset(4)
    seen = np.array([[0.0], [1e6], [-1e6], [np.nan]]).repeat(agent.spec.state_dim, axis=1)
    actions = policy.act(seen)
    if name in DISCRETE:
        assert actions.dtype == np.int64
        assert actions.shape == (4,)
        assert ((actions >= 0) & (actions < NUM_ACTIONS)).all()
    else:
        assert actions.dtype == np.float32
        assert actions.shape == (4, 1)
        assert (np.abs(actions) <= 1.0).all()


@pytest.mark.parametrize("name", ALL)
def test_bfloat16_trains_otherwise_with_full_precision_parameters(name):
    """The same seeds and batches: what moves the weights apart is the rounding of the forward pass."""
    dataset = identity_data(name in DISCRETE)
    moved = []
    for precision in ("fp32", "fp32", "bf16"):
        torch.manual_seed(0)
        agent = make_agent(small_config(name), dataset.spec, Runtime(precision=precision))
        sampler = agent.sampler(agent.prepare(dataset), np.random.default_rng(0))
        for metrics in train(agent, sampler, PHASES.get(name, 2)):
            assert all(np.isfinite(value) for value in metrics.values())
        assert all(p.dtype == torch.float32 for p in agent.modules().parameters())
        moved.append(torch.cat([p.detach().flatten() for p in agent.modules().parameters()]))
    exact, again, rounded = moved
    assert torch.equal(exact, again)
    assert not torch.equal(exact, rounded)


@pytest.mark.parametrize("name", ALL)
def test_defaults_build_and_name_their_key(name):
    config = AGENTS[name].config()
    assert config.agent == name
    assert config.batch_size > 0


@pytest.mark.parametrize("name", ALL)
def test_a_sampler_of_other_data_leaves_the_agent_as_it_is(name):
    losses = []
    for draws_others in (False, True):
        torch.manual_seed(0)
        agent, sampler = small_agent(name)
        if draws_others:
            agent.sampler(identity_data(name in DISCRETE, 7), np.random.default_rng(1)).sample()
        losses.append(train(agent, sampler, 6))
    assert losses[0] == losses[1]

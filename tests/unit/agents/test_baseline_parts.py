"""What is particular to one baseline, checked by hand."""

import copy
import dataclasses
import math
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest
import torch

from baseline_toys import identity_data, small_agent, small_config
from chibit.agents import make_agent
from chibit.agents.continuous import check_actions
from chibit.agents.critic_pretraining import NUM_STATES, pretrain_critics, synthetic_transitions
from chibit.agents.guard import _begin_momentum
from chibit.agents.off_policy import adam
from chibit.agents.stacked import last_steps
from chibit.core.config import to_json
from chibit.core.errors import DivergenceError, InputError
from chibit.core.runtime import Runtime
from chibit.data.load import from_arrays
from chibit.data.samplers.windows import SequenceBatch
from chibit.models.actors import TanhGaussian
from chibit.models.critics import Critics


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def critic_loss(agent, batch):
    torch.manual_seed(0)
    if agent.config.agent == "cql":
        batch = agent.conservative_batch(batch, agent.actor(batch.states))
    return agent.critic_loss(batch)[0].item()


@pytest.mark.parametrize(
    "name", ["td3_bc", "cql", "brac_v", "iql", "rebrac", "qr_dqn", "rem", "discrete_cql"]
)
def test_truncation_bootstraps_and_termination_does_not(name):
    agent, sampler = small_agent(name)
    batch = sampler.sample()
    elsewhere = torch.randn_like(batch.next_states)
    for has_ended in (0.0, 1.0):
        ends = torch.full_like(batch.terminations, has_ended)
        here = dataclasses.replace(batch, terminations=ends)
        there = dataclasses.replace(batch, terminations=ends, next_states=elsewhere)
        if name == "cql":  # s' also gives actions to hold down; what matters here is the target
            current = agent.actor(batch.states)
            targets = []
            for each in (here, there):
                torch.manual_seed(0)
                targets.append(agent.conservative_batch(each, current).target)
            assert torch.equal(*targets) == bool(has_ended)
        else:
            assert (critic_loss(agent, here) == critic_loss(agent, there)) == bool(has_ended)


def explicit_returns(agent, dataset, value):
    """TD(lambda) returns, one step after the other from the back."""
    discount, trace_decay = agent.config.discount, agent.config.trace_decay
    expected = np.zeros(dataset.num_steps)
    for episode in range(dataset.num_episodes):
        trajectory = dataset.trajectory(episode)
        start = dataset.episode_starts[episode]
        last = trajectory.observations[-1:] if trajectory.final_observation is None else None
        final = trajectory.final_observation[None] if last is None else last
        states = np.concatenate([trajectory.observations, final])
        values = value(states)
        if trajectory.terminations[-1]:
            values[-1] = 0.0
        after = values[-1]
        for t in reversed(range(len(trajectory.rewards))):
            mixed = (1 - trace_decay) * values[t + 1] + trace_decay * after
            after = trajectory.rewards[t] + discount * mixed
            expected[start + t] = after
    return expected


@pytest.mark.parametrize("has_final", [True, False])
@pytest.mark.parametrize("terminates", [True, False])
def test_awr_returns_of_the_whole_data_set(has_final, terminates):
    dataset = identity_data(False, 8)
    ends = np.tile([terminates, not terminates], (8, 1))
    final = np.random.default_rng(0).standard_normal((8, 1)).astype(np.float32) if has_final else None
    dataset = dataclasses.replace(dataset, episode_ends=ends, final_observations=final)
    agent, sampler = small_agent("awr", dataset, reward_scale=1.0)
    agent.update(sampler.sample())
    mean, std = (np.asarray(x, np.float32) for x in (dataset.spec.state_mean, dataset.spec.state_std))

    def value(observations):
        states = torch.from_numpy(((observations - mean) / std).astype(np.float32))
        return agent.round_value(states).numpy() / (1 - agent.config.discount)

    returns, weights = agent._round
    expected = explicit_returns(agent, dataset, value)
    np.testing.assert_allclose(returns.numpy(), expected, rtol=1e-3, atol=1e-3)
    advantages = expected - value(np.asarray(dataset.observations))
    normalized = (advantages - advantages.mean()) / (advantages.std() + 1e-5)
    np.testing.assert_allclose(weights.numpy(), np.minimum(np.exp(normalized), 20), rtol=1e-2, atol=1e-3)


def test_awr_trains_the_value_first_and_weighs_actions_by_the_new_one():
    agent, sampler = small_agent("awr", refresh_every=4, value_every=2)

    def weights_of(network):
        return torch.cat([p.detach().flatten() for p in network.parameters()]).clone()

    moved, used = [], []
    for step in range(12):  # two rounds of two updates of the value and four of the actor
        before = {name: weights_of(agent.networks[name]) for name in ("actor", "value")}
        agent.update(sampler.sample())
        after = {name: weights_of(agent.networks[name]) for name in ("actor", "value")}
        moved.append([name for name in before if not torch.equal(before[name], after[name])])
        used.append(weights_of(agent.round_value))
        if step % 6 == 2:  # the first update of the actor in a round: the value as its own updates left it
            assert torch.equal(used[-1], before["value"])
    assert moved == 2 * (2 * [["value"]] + 4 * [["actor"]])
    changes = [not torch.equal(now, then) for now, then in zip(used[1:], used[:-1], strict=True)]
    assert changes == [True, False, False, False, False, False, True, False, False, False, False]


@pytest.mark.parametrize("steps", [0, 1, 2, 6])
def test_awr_is_left_as_it_was_where_it_diverges_at_any_place_of_a_round(steps):
    agent, sampler = small_agent("awr", refresh_every=4, value_every=2)
    for _ in range(steps):
        agent.update(sampler.sample())
    batch = sampler.sample()
    good, batch.states[3, 0] = batch.states.clone(), torch.nan
    before = {name: tensor.clone() for name, tensor in agent.state_dict().tensors.items()}
    with pytest.raises(DivergenceError):
        agent.update(batch)
    after = agent.state_dict()
    assert after.training["step"] == steps
    assert all(torch.equal(tensor, after.tensors[name]) for name, tensor in before.items())
    batch.states[:] = good
    agent.update(batch)


def test_awr_goes_on_from_a_part_that_version_0_1_had_not_begun():
    """It copied the value function in the update that began a part, not in the one that ended the other."""
    agent, sampler = small_agent("awr", refresh_every=4, value_every=2)
    for _ in range(2):
        agent.update(sampler.sample())
    state = copy.deepcopy(agent.state_dict())
    for name in state.tensors:
        if name.startswith("round_value."):
            state.tensors[name].zero_()
    batch = sampler.sample()
    agent.update(batch)
    other, _ = small_agent("awr", refresh_every=4, value_every=2)
    other.load_state_dict(state)
    other.update(batch)
    assert all(
        torch.equal(one, two)
        for one, two in zip(
            agent.state_dict().tensors.values(), other.state_dict().tensors.values(), strict=True
        )
    )


def test_rebrac_penalizes_the_distance_to_the_next_logged_action():
    dataset = identity_data(False)
    agent, sampler = small_agent("rebrac", dataset)
    sampler.sample()
    end = int(dataset.episode_starts[1]) - 1
    rows = torch.tensor([0, 4, end, dataset.num_steps - 1])
    distance = agent.next_distance(rows, torch.full((4, 1), 0.25))
    logged = np.asarray(dataset.actions)[[1, 5], 0]
    assert distance[:2].tolist() == pytest.approx(((logged - 0.25) ** 2).tolist())
    assert distance[2:].tolist() == [0.0, 0.0]


def test_brac_fits_the_behavior_first_and_starts_the_actor_from_it():
    agent, sampler = small_agent("brac_v", behavior_steps=3)
    critic = agent.critics.mlp.weights[0].clone()
    for _ in range(3):
        assert "train/critic_loss" not in agent.update(sampler.sample())
    assert torch.equal(agent.critics.mlp.weights[0], critic)
    for ours, theirs in zip(agent.actor.parameters(), agent.behavior.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    behavior = [p.clone() for p in agent.behavior.parameters()]
    assert agent.update(sampler.sample())["train/divergence"] == 0.0  # of equal policies, sample by sample
    for _ in range(3):
        agent.update(sampler.sample())
    assert all(torch.equal(p, q) for p, q in zip(agent.behavior.parameters(), behavior, strict=True))
    assert not torch.equal(agent.actor.mlp.layers[0].weight, agent.behavior.mlp.layers[0].weight)


@pytest.mark.parametrize("mean", [0.5, 3.0, 20.0])
def test_brac_divergence_is_that_of_the_gaussians_wherever_the_policy_lies(mean):
    """KL of diagonal Gaussians in closed form; tanh leaves it as it is, also beyond where atanh is finite."""
    agent, _ = small_agent("brac_v", num_divergence_samples=20_000)
    states = torch.zeros(1, agent.spec.state_dim)
    behavior = TanhGaussian(torch.full((1, 1), 2.5), torch.full((1, 1), -0.5))
    policy = TanhGaussian(torch.full((1, 1), mean), torch.full((1, 1), -2.0))
    variance = math.exp(-4.0)
    expected = -0.5 + 2.0 + (variance + (mean - 2.5) ** 2) / (2 * math.exp(-1.0)) - 0.5
    torch.manual_seed(0)
    with patch.object(agent, "behavior", new=lambda _: behavior):
        actions, divergence = agent._divergence(states, policy)
    assert divergence.item() == pytest.approx(expected, rel=0.02)
    assert divergence.item() > 0 and actions.shape == (1, 1)


def test_cql_values_all_actions_in_one_call():
    agent, sampler = small_agent("cql")
    batch = agent.to_unit(sampler.sample())
    conservative = agent.conservative_batch(batch, agent.actor(batch.states))
    assert conservative.actions.shape == (16, 3 * 3 + 1, 1)
    assert torch.equal(conservative.actions[:, -1], batch.actions)
    assert torch.allclose(conservative.log_densities[:, :3], torch.tensor(0.5).log())
    expected = agent.actor(batch.states).log_prob(conservative.actions[:, 3:6], margin=1e-6)
    torch.testing.assert_close(conservative.log_densities[:, 3:6], expected, atol=1e-2, rtol=1e-2)
    expected = agent.actor(batch.next_states).log_prob(conservative.actions[:, 6:9], margin=1e-6)
    torch.testing.assert_close(conservative.log_densities[:, 6:9], expected, atol=1e-2, rtol=1e-2)
    with patch.object(agent.critics.mlp, "forward", wraps=agent.critics.mlp.forward) as calls:
        agent.critic_loss(conservative)
    assert calls.call_count == 1


@pytest.mark.parametrize("kind", ["markov", "iid"])
def test_synthetic_transitions_have_the_stated_structure(kind):
    data = synthetic_transitions(kind, 3, 2, num_episodes=40)
    assert data.state_vectors.shape == (NUM_STATES, 3)
    assert data.action_vectors.abs().max() <= 1.0
    assert len(data.states) == len(data.actions) == len(data.next_states) == 40_000
    if (
        kind == "markov"
    ):  # rows are ordered by time, then by episode: what follows is the next row of the same
        assert torch.equal(data.states[40:], data.next_states[:-40])
    counts = torch.bincount(data.states * NUM_STATES + data.actions, minlength=NUM_STATES**2)
    expected = len(data.states) / NUM_STATES**2
    # Draws that are independent and uniform give a statistic near 1; a policy with preferences a larger one.
    statistic = ((counts - expected) ** 2 / expected).mean().item()
    assert (statistic > 1.2) == (kind == "markov")


def test_pretraining_changes_the_hidden_layers_and_learns_to_predict():
    critics = Critics(3, 2, (32, 32))
    before = [p.clone() for p in critics.parameters()]
    short = pretrain_critics(critics, kind="markov", num_steps=1, state_dim=3, act_dim=2)
    torch.manual_seed(0)
    long = pretrain_critics(critics, kind="markov", num_steps=300, state_dim=3, act_dim=2)
    assert long < short
    weights, biases = critics.mlp.weights, critics.mlp.biases
    changed = [not torch.equal(p, q) for p, q in zip([*weights, *biases], before, strict=True)]
    assert changed == [True, True, False] * 2


@pytest.mark.parametrize(
    ("kind", "loaded", "expected"),
    [("iid", (), 1), ("none", (), 0), ("iid", ("critics.mlp.weights.1",), 0), ("iid", ("actor.x",), 1)],
)
def test_critics_are_pretrained_before_the_first_update_unless_they_are_loaded(kind, loaded, expected):
    agent, sampler = small_agent("cql", pretraining=kind, pretraining_steps=2)
    with patch("chibit.agents.cql.pretrain_critics", wraps=pretrain_critics) as calls:
        agent.before_first_update(loaded)
        for _ in range(3):
            agent.update(sampler.sample())
    assert calls.call_count == expected
    assert all(call.kwargs["kind"] == "iid" for call in calls.call_args_list)


@pytest.mark.parametrize(
    ("name", "settings", "factors", "constant"),
    [
        ("bc", {"warmup_steps": 4}, {0: 0.25, 1: 0.5, 3: 1.0, 9: 1.0}, ()),
        ("iql", {"actor_decay_steps": 4}, {0: 1.0, 1: 0.8536, 2: 0.5, 4: 0.0}, ("critics", "value")),
        ("iql", {"actor_decay_steps": 0}, {0: 1.0, 9: 1.0}, ("critics", "value")),
    ],
)
def test_learning_rates_move_the_weights_by_their_schedules(name, settings, factors, constant):
    """Adam's first step moves each weight by the rate, whatever its gradient, unless that is about 0."""
    for step, factor in factors.items():
        agent, sampler = small_agent(name, learning_rate=1e-3, **settings)
        agent.step = step
        networks = {"actor": factor} | dict.fromkeys(constant, 1.0)
        before = {part: copy.deepcopy(agent.networks[part]) for part in networks}
        agent.update(sampler.sample())
        for part, expected in networks.items():
            pairs = zip(before[part].parameters(), agent.networks[part].parameters(), strict=True)
            largest = max((new - old).abs().max().item() for old, new in pairs)
            assert largest == pytest.approx(1e-3 * expected, rel=1e-2, abs=1e-9)


@pytest.mark.parametrize("name", ["td3_bc", "rebrac"])
def test_actors_and_targets_move_at_their_own_steps_only(name):
    agent, sampler = small_agent(name, actor_every=3)
    moved = []
    for _ in range(7):
        before = copy.deepcopy(agent.modules().state_dict())
        agent.update(sampler.sample())
        after = agent.modules().state_dict()
        moved.append(
            {key.partition(".")[0] for key, tensor in after.items() if not torch.equal(tensor, before[key])}
        )
    everything = {key.partition(".")[0] for key in agent.modules().state_dict()}
    assert moved == [everything, {"critics"}, {"critics"}] * 2 + [everything]


@pytest.mark.parametrize("name", ["iql", "cql"])
def test_rewards_are_scaled_to_a_return_range_of_1000_where_asked_for(name):
    dataset = identity_data(False)
    spread = dataset.episode_returns.max() - dataset.episode_returns.min()
    for returns, factor in (((0.25, 0.75), 2000.0), ((-3.0, -3.0), 1.0), ((1e6, 1e6 + 1e-3), 1.0)):
        units = small_config(name, scale_rewards=True).reward_units(
            SimpleNamespace(episode_returns=np.array(returns), spec=dataset.spec)
        )
        assert units(np.ones(1)) == factor
    for scale_rewards, scale in ((True, 1000.0 / spread), (False, 2.0)):
        _, sampler = small_agent(name, scale_rewards=scale_rewards, reward_scale=2.0)
        batch = sampler.sample()
        np.testing.assert_allclose(batch.rewards, np.asarray(dataset.rewards)[batch.rows] * scale, rtol=1e-5)


def test_rewards_of_games_are_cut_those_of_other_logs_never_unless_asked_for():
    dataset = identity_data(True)
    wide = dataclasses.replace(dataset, records=dataset.records * np.float32(1.0))
    wide.records[:, -1] = np.where(np.arange(wide.num_steps) % 2, 7.0, -5.0)
    game = dataclasses.replace(wide, spec=dataclasses.replace(wide.spec, env_id="BreakoutNoFrameskip-v4"))

    def seen(data, **settings):
        return set(small_agent("qr_dqn", data, **settings)[1].sample().rewards.tolist())

    assert seen(game) == seen(wide, reward_clip=1.0) == {1.0, -1.0}
    assert seen(game, reward_clip=None) == seen(wide, reward_scale=1.0) == {7.0, -5.0}
    assert sorted(seen(wide)) == pytest.approx([-1.0, 1.0])  # all episodes are equally long
    (choice,) = small_config("qr_dqn", reward_clip=1.0).chosen(wide)
    assert (choice.value, choice.why) == ("cut to ±1", "as given")  # and no mean is taken off
    (choice,) = small_config("qr_dqn").chosen(game)
    assert (choice.value, choice.why) == ("cut to ±1", "usual in BreakoutNoFrameskip-v4")


def test_last_steps_puts_the_newest_state_last_and_zeros_before_the_first():
    states = torch.arange(1.0, 7.0).view(2, 3, 1)
    mask = torch.tensor([[True, True, True], [True, False, False]])
    states[1, 1:] = 0
    batch = SequenceBatch(
        returns_to_go=torch.zeros(2, 3),
        states=states,
        actions=states * 10,
        timesteps=torch.zeros(2, 3, dtype=torch.int64),
        attention_mask=mask,
        rows=torch.zeros(2, dtype=torch.int64),
    )
    stacked, actions = last_steps(batch)
    assert stacked.tolist() == [[1, 2, 3], [0, 0, 4]]
    assert actions.tolist() == [[30], [40]]


def test_stacked_policy_sees_what_training_saw():
    agent, sampler = small_agent("bc", context_length=3)
    dataset = sampler.dataset
    policy = agent.policy(None)
    policy.reset(1)
    for t in range(4):  # rows 0, 1, 2, ... of the first episode
        acted = policy.act(np.asarray(dataset.observations)[t : t + 1])
        policy.observe(np.zeros(1), np.zeros(1, bool))
        states, _ = last_steps(sampler.windows(np.array([t])))
        agent.actor.eval()
        np.testing.assert_allclose(acted, agent.actor(states).detach().numpy(), atol=1e-6)
    policy.reset(1)
    assert (policy._history == np.float32(dataset.spec.state_mean)).all()


def test_stacked_cloning_learns_every_step_once():
    agent, sampler = small_agent("bc", context_length=3)
    rows = np.arange(sampler.dataset.num_steps)
    _, actions = last_steps(sampler.windows(rows))
    np.testing.assert_array_equal(actions, sampler.dataset.actions)
    chen, others = small_agent("bc", context_length=3, window_anchor="first")
    _, actions = last_steps(others.windows(rows))
    assert not np.array_equal(actions, sampler.dataset.actions)
    assert "window_anchor" not in to_json(chen.config)  # as runs of before are named and read


def test_one_state_has_no_window_whose_end_could_be_chosen():
    config = small_config("bc")
    assert "window_anchor" not in to_json(config.as_recorded(None, has_unit_bounds=False))
    stacked = small_config("bc", context_length=2).as_recorded(None, has_unit_bounds=False)
    assert to_json(stacked)["window_anchor"] == "last"


@pytest.mark.parametrize(("name", "clones"), [("bc", True), ("discrete_bc", True), ("td3_bc", False)])
def test_cloning_learns_steps_whose_next_observation_is_unknown(name, clones, tmp_path):
    actions = np.arange(6) % 2 if name == "discrete_bc" else np.linspace(-1, 1, 6)[:, None]
    cut = np.arange(6) == 5
    log = from_arrays(np.arange(6.0)[:, None], actions, np.ones(6), ~cut, cut, cache=tmp_path)
    agent, sampler = small_agent(name, log, batch_size=256)
    assert (5 in sampler.sample().rows.tolist()) == clones
    agent.update(sampler.sample())


def test_percent_cloning_draws_the_best_episodes_only():
    dataset = identity_data(False)
    _, sampler = small_agent("bc", dataset, top_fraction=0.1, batch_size=256)
    best = np.sort(dataset.episode_returns)[-40:]
    drawn = np.concatenate([sampler.sample().actions.numpy() for _ in range(4)])
    top = dataset.top_fraction(0.1)
    assert np.isin(drawn, top.actions).all()
    assert top.episode_returns.min() == best.min()


METRICS = {
    "td3_bc": {"critic": ["value"], "actor": ["cloning_error"]},
    "iql": {"value": ["advantage"], "critic": ["value"], "actor": ["weight"]},
}


@pytest.mark.parametrize("name", METRICS)
def test_what_is_logged_of_each_loss(name):
    agent, sampler = small_agent(name)
    metrics = agent.update(sampler.sample())
    parts = METRICS[name]
    names = {f"train/{metric}" for more in parts.values() for metric in more}
    names |= {f"train/{part}_{what}" for part in parts for what in ("loss", "grad_norm")}
    assert metrics.keys() == {"train/loss", *names}
    assert metrics["train/loss"] == pytest.approx(sum(metrics[f"train/{part}_loss"] for part in parts))
    assert all(metrics[f"train/{part}_grad_norm"] > 0 for part in parts)


@pytest.mark.parametrize("name", ["td3_bc", "iql", "qr_dqn"])
def test_the_step_for_a_graph_acts_as_the_policy(name):
    agent, _ = small_agent(name)
    step, policy = agent.policy_step(), agent.policy(None)
    observations = torch.randn(5, agent.spec.state_dim)
    policy.reset(5)
    with torch.no_grad():
        given = step.module(observations).numpy()
    np.testing.assert_allclose(given, policy.act(observations.numpy()), rtol=1e-5, atol=1e-6)
    assert step.module.networks is agent.networks
    assert step.inputs["observations"].shape == (2, agent.spec.state_dim)
    assert step.metadata == {"epsilon": agent.acting_epsilon}


def test_actions_are_drawn_as_often_as_configured():
    agent, _ = small_agent("qr_dqn", evaluation_epsilon=1.0)
    policy = agent.policy(None)
    policy.reset(200)
    acted = policy.act(np.zeros((200, agent.spec.state_dim)))
    assert set(acted.tolist()) == set(range(agent.spec.num_actions))


def test_losses_see_raw_rewards_and_actions_as_shares_of_the_bounds():
    dataset = identity_data(False)
    wide = dataclasses.replace(
        dataset, spec=dataclasses.replace(dataset.spec, action_low=(-4.0,), action_high=(8.0,))
    )
    agent, sampler = small_agent("td3_bc", wide, reward_scale=1.0)
    batch, seen = sampler.sample(), []
    np.testing.assert_array_equal(batch.rewards, np.asarray(dataset.rewards)[batch.rows])
    losses = agent.losses
    with patch.object(agent, "losses", lambda batch: seen.append(batch.actions) or losses(batch)):
        agent.update(batch)
    logged = np.asarray(dataset.actions)[batch.rows]
    np.testing.assert_allclose(seen[0], (logged + 4) / 6 - 1, rtol=1e-5, atol=1e-6)


def test_td3_smooths_target_actions_within_the_bounds():
    """With noise far beyond them every one is at a bound, and what it adds is cut first."""
    agent, sampler = small_agent("td3_bc", policy_noise=1e3, noise_clip=5.0)
    asked = []
    with patch.object(agent, "penalty", lambda batch, actions: asked.append(actions) or 0.0):
        agent.critic_loss(sampler.sample())
    assert set(asked[0].flatten().tolist()) == {-1.0, 1.0}
    agent, sampler = small_agent("td3_bc", policy_noise=1e3, noise_clip=0.01)
    batch = sampler.sample()
    with patch.object(agent, "penalty", lambda batch, actions: asked.append(actions) or 0.0):
        agent.critic_loss(batch)
    moved = (asked[1] - agent.target_actor(batch.next_states)).abs()
    torch.testing.assert_close(moved, torch.full_like(moved, 0.01), rtol=0, atol=1e-6)


def test_iql_values_an_action_by_the_smaller_critic_of_each_row():
    agent, sampler = small_agent("iql")
    batch = agent.to_unit(sampler.sample())
    values = agent.target_critics(batch.states, batch.actions)
    expected = torch.minimum(values[0], values[1]) - agent.value(batch.states)
    assert torch.equal(agent.advantages(batch), expected)
    assert (agent.actor(1e4 * torch.randn(8, 1)).mean.abs() <= 1).all()


def test_memory_of_networks_by_hand():
    """16 bytes for each weight (its gradient and Adam's two moments too), 4 for each number of a batch."""
    spec = dataclasses.replace(
        identity_data(False).spec,
        state_dim=5,
        act_dim=2,
        state_mean=(0.0,) * 5,
        state_std=(1.0,) * 5,
        action_low=(-1.0,) * 2,
        action_high=(1.0,) * 2,
    )
    config = small_config("td3_bc", hidden_sizes=(10, 20), batch_size=3)
    expected = 16 * (7 * 10 + 10 * 20 + 20 * 2) + 4 * 3 * (7 + 10 + 20 + 2)
    assert config.num_bytes(spec) == expected
    two = small_config("brac_v", actor_hidden_sizes=(10,), critic_hidden_sizes=(20,), batch_size=3)
    rows = 3 * two.rows_per_transition
    actor = 16 * (7 * 10 + 10 * 2) + 4 * rows * (7 + 10 + 2)
    critic = 16 * (7 * 20 + 20 * 2) + 4 * rows * (7 + 20 + 2)
    assert two.rows_per_transition > 1 and two.num_bytes(spec) == actor + critic
    discrete = dataclasses.replace(spec, act_dim=0, num_actions=4, action_low=(), action_high=())
    heads = small_config("qr_dqn", hidden_sizes=(10,), num_quantiles=6, batch_size=3)
    assert heads.num_bytes(discrete) == 16 * (5 * 10 + 10 * 24) + 4 * 3 * (5 + 10 + 24)
    stacked = small_config("bc", hidden_sizes=(10,), context_length=4, batch_size=3)
    assert stacked.num_bytes(spec) == 16 * (22 * 10 + 10 * 2) + 4 * 3 * (22 + 10 + 2)


def test_actions_outside_the_bounds_that_data_state_for_themselves_are_refused():
    actions = np.array([[0.0, 5.0], [1.0, 9.0], [-1.0, 7.0]], np.float32)

    def data(low, high, env_id=None):
        spec = SimpleNamespace(name="mine", env_id=env_id, action_low=low, action_high=high)
        return SimpleNamespace(spec=spec, actions=actions)

    check_actions(data((-1.0, 5.0), (1.0, 9.0)))
    check_actions(data((-0.5, -1.0), (0.5, 1.0), env_id="Hopper-v4"))  # which cuts what lies outside
    for low, high, i, span in (
        ((-1.0, 5.5), (1.0, 9.0), 1, "5 to 9, expected 5.5 to 9"),
        ((-1.0, 5.0), (1.0, 8.5), 1, "5 to 9, expected 5 to 8.5"),
        ((-0.5, 5.0), (1.0, 9.0), 0, "-1 to 1, expected -0.5 to 1"),
        ((-0.5, 6.0), (0.5, 8.0), 0, "-1 to 1, expected -0.5 to 0.5"),
    ):
        with pytest.raises(InputError) as caught:
            check_actions(data(low, high))
        assert str(caught.value) == (
            f"mine: action dimension {i} spans {span}; scale the actions, or name the environment that the "
            "data come from"
        )


@pytest.mark.parametrize("name", ["td3_bc", "iql"])
def test_the_action_error_is_in_the_environments_units(name):
    dataset = identity_data(False)
    wide = dataclasses.replace(
        dataset, spec=dataclasses.replace(dataset.spec, action_low=(-4.0,), action_high=(8.0,))
    )
    agent, sampler = small_agent(name, wide)
    batch = sampler.sample()
    with torch.no_grad():
        played = (agent.act(batch.states) + 1) * 6 - 4
    expected = (played - batch.actions).square().mean().item()
    assert agent.action_error(batch) == pytest.approx(expected, rel=1e-5)


def test_divergence_names_the_loss_or_the_gradient_and_the_step():
    agent, sampler = small_agent("td3_bc")
    for _ in range(2):
        agent.update(sampler.sample())
    batch = sampler.sample()
    broken = dataclasses.replace(batch, rewards=torch.full_like(batch.rewards, torch.inf))
    with pytest.raises(DivergenceError, match="^critic loss is inf at step 2, expected a finite number"):
        agent.update(broken)
    for parameter in agent.actor.parameters():
        parameter.register_hook(lambda gradient: gradient * math.inf)
    before = {name: tensor.clone() for name, tensor in agent.state_dict().tensors.items()}
    with pytest.raises(DivergenceError, match="^norm of the actor gradient is (inf|nan) at step 2, expected"):
        agent.update(batch)
    assert all(torch.equal(tensor, before[name]) for name, tensor in agent.state_dict().tensors.items())


def test_methods_of_continuous_actions_say_which_one_refuses_discrete_ones():
    with pytest.raises(InputError, match="^agent td3_bc: the actions of .* are discrete"):
        make_agent(small_config("td3_bc"), identity_data(True).spec, Runtime())


def test_adam_steps_by_the_rate_and_the_constant_that_are_given():
    layer = torch.nn.Linear(2, 1)
    before = layer.weight.detach().clone()
    optimizer = adam(layer, 0.25, eps=0.5)
    layer.weight.grad = torch.tensor([[1.0, -0.5]])
    optimizer.step()
    moved = before - layer.weight.detach()
    torch.testing.assert_close(moved, torch.tensor([[0.25 / 1.5, -0.25 / 2]]))


@pytest.mark.parametrize("dampening", [0.0, 0.5])
def test_momentum_that_begins_at_zero_takes_the_same_steps(dampening):
    """With dampening, whose first step would differ, it stays unset."""
    start, gradients = torch.randn(5), torch.randn(3, 5)
    ends = []
    for begins in (False, True):
        parameter = torch.nn.Parameter(start.clone())
        optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9, dampening=dampening)
        if begins:
            _begin_momentum(optimizer)
            assert bool(optimizer.state) == (dampening == 0.0)
        for gradient in gradients:
            parameter.grad = gradient.clone()
            optimizer.step()
        ends.append(parameter.detach())
    assert torch.equal(*ends)

"""Returns of any size and sign: a policy tells them apart, and asks for what the data have."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import baseline_toys
from chibit.agents import AGENTS, make_agent
from chibit.core.runtime import Runtime
from chibit.data.dataset import TrajectoryDataset
from chibit.data.load import from_arrays
from chibit.data.readers.origin import default_return_units, default_target_returns, settled_bounds
from chibit.data.statistics import best_and_high
from chibit.data.store import MANIFEST, _manifest_hash, open_store
from chibit.models.gpt import GPTShape
from chibit.training.run_config import RunConfig, from_record, run_path, to_record

SCALES = (1e-2, 1.0, 1e2, -2.0)
UNITS = [*((scale, 0.0, 0.0) for scale in SCALES), (0.1, -3.0, 300.0)]


def log_of(scale: float, cache, *, every_step: float = 0.0, every_episode: float = 0.0) -> TrajectoryDataset:
    """Actions near 0.5 in episodes that end with a reward, near -0.5 in those that end without.

    What every step and every episode earns in any case makes no difference between them.
    """
    rng = np.random.default_rng(0)
    good = np.repeat(np.arange(100) % 2 == 0, 10)
    last = np.arange(1000) % 10 == 9
    actions = np.where(good, 0.5, -0.5)[:, None] + 0.05 * rng.standard_normal((1000, 1))
    rewards = scale * (last & good) + every_step + every_episode * last
    return from_arrays(rng.standard_normal((1000, 2)), actions, rewards, last, cache=cache)


def first_actions(dataset: TrajectoryDataset, targets: tuple[float, ...], steps: int = 80) -> np.ndarray:
    torch.manual_seed(0)
    config = AGENTS["dt"].config(
        gpt=GPTShape(n_layer=1, n_head=1, n_embd=32), context_length=3, batch_size=32, learning_rate=3e-3,
        warmup_steps=0, dropout=0.0,
    )  # fmt: skip
    agent = make_agent(config, dataset.spec, Runtime())
    sampler = agent.sampler(dataset, np.random.default_rng(0))
    for _ in range(steps):
        agent.update(sampler.sample())
    policy = agent.policy(targets)
    policy.reset(len(targets))
    return policy.act(np.zeros((len(targets), 2)))[:, 0]


def test_returns_of_any_size_and_sign_are_told_apart_and_alike(tmp_path):
    acted = []
    for scale, every_step, every_episode in UNITS:
        dataset = log_of(scale, tmp_path, every_step=every_step, every_episode=every_episode)
        low = 10 * every_step + every_episode
        acted.append(first_actions(dataset, (low + scale, low)))
    for good, bad in acted:
        assert good > 0.35 and bad < -0.35
    for (scale, *_), other in zip(UNITS, acted, strict=True):
        if scale > 0:
            np.testing.assert_allclose(other, acted[0], atol=0.03)


def test_episodes_of_any_length_give_units_too(tmp_path):
    rng, ends = np.random.default_rng(0), np.zeros(300, bool)
    ends[[0, 1, 5, 40, 41, 120, 299]] = True
    for every in (slice(None), slice(0, 2)):  # the second is episodes of one step alone
        found = ends[every]
        states = rng.standard_normal((len(found), 2))
        spec = from_arrays(states, states[:, :1], np.ones(len(found)), found, cache=tmp_path).spec
        assert spec.return_scale > 0 and np.isfinite(spec.return_baseline).all()


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("size", [1e-3, 1.0, 10.0, 1e4])
@pytest.mark.parametrize("offset", [0.0, 3.0])
def test_targets_are_returns_that_good_episodes_have(sign, size, offset):
    returns = size * (sign * np.random.default_rng(0).gamma(2.0, size=200) + offset)
    best, high = default_target_returns(None, returns.astype(np.float32))
    assert best == returns.astype(np.float32).max()
    assert 0.05 <= np.mean(returns > high) <= 0.15 and returns.min() < high < best


def test_few_or_equal_returns_give_targets_too():
    assert best_and_high(np.float32([3.0])) == best_and_high(np.float32([3.0, 3.0])) == (3.0,)
    assert best_and_high(np.float32([-7.0, -2.0])) == (-2.0, -7.0)


def test_returns_are_centered_and_scaled_by_the_data_but_for_the_papers_environments():
    starts = np.array([0, 3, 6])
    to_go = np.float32([-40.0, -30.0, -20.0, -44.0, -34.0, -24.0])  # a line, and 2 to either side of it
    scale, (first, more) = default_return_units(None, to_go, starts)
    assert (scale, first, more) == pytest.approx((2.0, -42.0, 10.0))
    assert default_return_units("CartPole-v1", to_go, starts)[0] == scale
    small = default_return_units(None, 1e-4 * to_go, starts)
    assert (small[0], *small[1]) == pytest.approx((2e-4, -42e-4, 10e-4))
    assert default_return_units("Walker2d-v5", to_go, starts) == (1000.0, (0.0, 0.0))
    assert default_return_units("BreakoutNoFrameskip-v4", to_go, starts) == (1.0, (0.0, 0.0))
    assert default_return_units(None, np.zeros(6, np.float32), starts) == (1.0, (0.0, 0.0))
    assert default_return_units(None, np.full(6, 7.0, np.float32), starts) == (7.0, (0.0, 0.0))


def test_a_given_scale_takes_nothing_off_and_sparse_returns_do_not_fall(tmp_path):
    spec = replace(log_of(1.0, tmp_path).spec, return_scale=4.0, return_baseline=(5.0, -0.5))
    shape = GPTShape(n_layer=1, n_embd=8)
    for settings, expected in (
        ({}, (4.0, (5.0, -0.5))),
        ({"return_scale": 2.0}, (2.0, (0.0, 0.0))),
        ({"reward_mode": "sparse"}, (4.0, (5.0, 0.0))),
        ({"return_baseline": (1.0, 0.0)}, (4.0, (1.0, 0.0))),
    ):
        config = make_agent(AGENTS["dt"].config(gpt=shape, **settings), spec, Runtime()).config
        assert (config.return_scale, config.return_baseline) == expected


def test_a_store_of_an_earlier_version_gets_its_scale_where_it_is_opened(tmp_path):
    dataset = log_of(1.0, tmp_path)
    path = dataset.folder / MANIFEST
    manifest = json.loads(path.read_text())
    del manifest["spec"]["return_scale"], manifest["manifest_sha256"]
    path.write_text(json.dumps({**manifest, "manifest_sha256": _manifest_hash(manifest)}))
    assert open_store(dataset.folder).spec == dataset.spec


def test_a_policy_acts_with_the_scale_that_it_was_trained_with(tmp_path):
    dataset = log_of(1.0, tmp_path)
    agent = make_agent(AGENTS["dt"].config(gpt=GPTShape(n_layer=1, n_embd=8)), dataset.spec, Runtime())
    assert agent.acting_config.return_scale == dataset.spec.return_scale != 1000.0
    other = make_agent(agent.acting_config, replace(dataset.spec, return_scale=50.0), Runtime())
    assert other.acting_config == agent.acting_config


def test_runs_on_the_papers_data_are_named_as_before_and_others_follow_their_data(tmp_path):
    def agent(**settings):
        return AGENTS["dt"].config(**settings)

    for data, scale in (("hopper-medium", 1000.0), ("walker2d-expert-v2", 1000.0), ("Pong", 1.0)):
        given, own = (RunConfig(data=data, agent=a) for a in (agent(return_scale=scale), agent()))
        assert to_record(own) == to_record(given)
        assert run_path(own, tmp_path, "s") == run_path(given, tmp_path, "s")
    record = to_record(RunConfig(data="mine.npz", agent=agent()))
    assert record["agent"]["return_scale"] is None
    assert (
        from_record({**record, "agent": {**record["agent"], "return_scale": 1000.0}}).agent.return_scale
        == 1000
    )
    named = RunConfig(data="mine.npz", env_id="Hopper-v4", agent=agent())
    assert to_record(named)["agent"]["return_scale"] == 1000.0


@pytest.mark.parametrize("agent_name", ["bc", "td3_bc"])
@pytest.mark.parametrize(("low", "high"), [(0.0, 1e-3), (-1.0, 1.0), (0.0, 100.0), (-1e4, 0.0)])
def test_actions_of_any_size_are_cloned_alike_and_within_the_log(agent_name, low, high, tmp_path):
    rng = np.random.default_rng(0)
    states = rng.standard_normal((1000, 2))
    unit = np.tanh(0.7 * states[:, :1])
    actions = low + (high - low) * (unit + 1) / 2
    ends = np.arange(1000) % 10 == 9
    dataset = from_arrays(states, actions, np.zeros(1000), ends, cache=tmp_path)
    torch.manual_seed(0)
    agent = make_agent(
        AGENTS[agent_name].config(hidden_sizes=(32, 32), learning_rate=3e-3), dataset.spec, Runtime()
    )
    sampler = agent.sampler(agent.prepare(dataset), np.random.default_rng(0))
    for _ in range(150):
        agent.update(sampler.sample())
    policy = agent.policy(None)
    policy.reset(1000)
    acted = policy.act(states)
    assert actions.min() - 1e-6 * abs(
        high - low
    ) <= acted.min() and acted.max() <= actions.max() + 1e-6 * abs(high - low)
    if agent_name == "bc":  # the other looks at rewards too
        assert np.sqrt(np.mean((acted - actions) ** 2)) < 0.15 * actions.std()


@pytest.mark.parametrize("value", [0.0, 1e-3, -5.0, 1e4])
def test_bounds_leave_room_around_an_action_that_never_changes(value):
    (low,), (high,) = settled_bounds(None, ([value], [value]))
    assert np.float32(low) < np.float32(value) < np.float32(high)
    assert high - low <= max(0.01 * abs(value), 0.01)
    (low,), (high,) = settled_bounds(([-np.inf], [-1.0]), ([2.0], [3.0]))
    assert low < high == -1.0


VALUED = ("td3_bc", "iql", "cql", "rebrac", "awr", "brac_v", "discrete_cql", "qr_dqn", "rem")


def rewarded(
    is_discrete: bool, cache, *, scale: float = 1.0, offset: float = 0.0, low: float = -1.0, high: float = 1,
    ends: str = "equal",
) -> tuple[TrajectoryDataset, np.ndarray]:  # fmt: skip
    """Steps whose reward says how near an action was to what a state asks for, and the states."""
    rng = np.random.default_rng(0)
    states = rng.standard_normal((500, 2))
    unit = np.clip(0.4 * rng.standard_normal((500, 1)), -1, 1)
    actions = np.searchsorted([-0.2, 0.2], unit[:, 0]) if is_discrete else low + (high - low) * (unit + 1) / 2
    rewards = -((unit[:, 0] - np.tanh(states[:, 0])) ** 2)
    rows = np.arange(500)
    over = np.isin(rows % 25, (9, 24)) if ends == "unequal" else rows % 10 == 9
    columns = (np.zeros(500, bool), over) if ends == "cut" else (over, None)
    return from_arrays(states, actions, scale * rewards + offset, *columns, cache=cache), states


def acted(agent_name: str, dataset: TrajectoryDataset, states: np.ndarray, **settings) -> np.ndarray:
    """What is done after a few steps, or what each action is thought to be worth."""
    torch.manual_seed(0)
    config = AGENTS[agent_name].config(**baseline_toys.SMALL[agent_name], batch_size=32, **settings)
    agent = make_agent(config, dataset.spec, Runtime())
    sampler = agent.sampler(agent.prepare(dataset), np.random.default_rng(0))
    for _ in range(25):
        agent.update(sampler.sample())
    if dataset.is_discrete:
        return agent.critic(torch.from_numpy(states.astype(np.float32))).detach().numpy().ravel()
    policy = agent.policy(None)
    policy.reset(len(states))
    return policy.act(states)


@pytest.mark.parametrize("agent_name", ["bc", *VALUED])
def test_the_same_is_learned_whatever_the_units_of_rewards_and_actions(agent_name, tmp_path):
    is_discrete = agent_name in baseline_toys.DISCRETE
    first = acted(agent_name, *rewarded(is_discrete, tmp_path))
    for scale, offset, low, high in (
        (1e-3, 0.0, 0.0, 1e-3),
        (1e5, 0.0, -1e4, 0.0),
        (10.0, 700.0, -1e4, 1e4),
        (1.0, -700.0, 5.0, 5.1),
    ):
        given = {"scale": scale, "offset": offset, "low": low, "high": high}
        found = acted(agent_name, *rewarded(is_discrete, tmp_path, **given))
        found = found if is_discrete else (found - low) / (high - low) * 2 - 1
        np.testing.assert_allclose(found, first, atol=2e-3, err_msg=str(given))


@pytest.mark.parametrize("agent_name", ["td3_bc", "qr_dqn"])
def test_the_mean_of_rewards_counts_where_episodes_terminate_after_unequal_steps_and_nowhere_else(
    agent_name, tmp_path
):
    is_discrete = agent_name in baseline_toys.DISCRETE
    config = AGENTS[agent_name].config()

    def units(**given):
        return config.reward_units(rewarded(is_discrete, tmp_path, **given)[0])

    for ends in ("equal", "cut"):
        found = units(ends=ends, offset=50.0)
        assert found.offset == pytest.approx(units(ends=ends).offset + 50, rel=1e-5)
        assert found.scale == pytest.approx(units(ends=ends).scale, rel=1e-3)
        assert units(ends=ends, scale=1e-20).scale == pytest.approx(1e20 * units(ends=ends).scale, rel=1e-3)
    kept = units(ends="unequal", offset=50.0)
    assert kept.offset == 0 and kept.scale == pytest.approx(1 / 49, rel=0.02)
    assert (
        "a wage of each step" in kept.why and "a price of each step" in units(ends="unequal", offset=-9.0).why
    )
    constant, states = rewarded(is_discrete, tmp_path, scale=0.0, offset=3.0)
    assert (
        np.isfinite(acted(agent_name, constant, states)).all() and config.reward_units(constant).offset == 3
    )


def test_rewards_are_as_they_are_in_the_papers_environments_and_where_that_is_asked_for(tmp_path):
    dataset, _ = rewarded(False, tmp_path, scale=5.0)

    def units(agent_name, env_id=None, **settings):
        named = replace(dataset, spec=replace(dataset.spec, env_id=env_id))
        return AGENTS[agent_name].config(**settings).reward_units(named)

    raw = np.float32([-3.0, 8.0])
    for agent_name in ("td3_bc", "cql", "awr"):
        assert (units(agent_name, "Hopper-v4")(raw) == raw).all()
        assert (units(agent_name, reward_scale=1.0)(raw) == raw).all()
        # An environment to evaluate in does not change what is learned.
        assert units(agent_name, "Pendulum-v1").scale == units(agent_name).scale != 1.0
    assert units("iql", "Hopper-v4") == units("iql", scale_rewards=True) != units("iql")
    assert units("iql", "Hopper-v4", reward_scale=2.0).scale == 2.0
    assert units("td3_bc", "Hopper-v4").choice == ("rewards", "as they are", "usual in Hopper-v4")


UNEQUAL = (2, 6, 4)
COMMON = "their mean, which every step earns in any case, and spread"
SIZE = "over their root mean square"
WAGE, PRICE = (
    f"{SIZE}; their mean of {mean} of each step, since episodes terminate after unequal numbers of them: "
    "take it off the data if it is not meant so"
    for mean in ("0.500 is a wage", "-2.00 is a price")
)
RANGE = {"scale_rewards": True}


@pytest.mark.parametrize(
    ("agent_name", "settings", "rewards", "lengths", "units", "made", "why"),
    [
        ("td3_bc", {}, [3.0] * 12, (4, 4, 4), (1, 3), "less 3.00", "all are equal"),
        ("td3_bc", {}, [3.0, 7.0] * 6, (4, 4, 4), (0.5, 5), "less 5.00, times 0.500", COMMON),
        ("td3_bc", {}, [4.0, -4.0] * 6, UNEQUAL, (0.25, 0), "times 0.250", SIZE),
        ("td3_bc", {}, [0.0] * 12, UNEQUAL, (1, 0), "as they are", SIZE),
        ("td3_bc", {}, [0.5] * 12, UNEQUAL, (2, 0), "times 2.00", WAGE),
        ("td3_bc", {}, [-2.0] * 12, UNEQUAL, (0.5, 0), "times 0.500", PRICE),
        ("td3_bc", {"reward_scale": 2.0}, [3.0] * 12, UNEQUAL, (2, 0), "times 2.00", "as given"),
        ("iql", RANGE, [2.0, 0.0] * 6, UNEQUAL, (250, 0), "times 250", "returns span 1,000"),
        ("iql", RANGE, [2.0] * 12, (4, 4, 4), (1, 0), "as they are", "all returns are equal"),
    ],
)  # fmt: skip
def test_what_is_made_of_rewards_is_what_the_table_says(
    agent_name, settings, rewards, lengths, units, made, why, tmp_path
):
    ends = np.isin(np.arange(12), np.cumsum(lengths) - 1)
    dataset = from_arrays(np.arange(12.0)[:, None], np.arange(12.0)[:, None], rewards, ends, cache=tmp_path)
    config = AGENTS[agent_name].config(**settings)
    scale, offset = units
    np.testing.assert_allclose(
        config.reward_units(dataset)(dataset.rewards), scale * (np.array(rewards) - offset), rtol=1e-6
    )
    assert list(config.chosen(dataset)) == [("rewards", made, why)]


def test_units_of_rewards_on_the_papers_data_are_recorded_as_before():
    def record(agent_name, data, **settings):
        return to_record(RunConfig(data=data, agent=AGENTS[agent_name].config(**settings)))["agent"]

    assert "reward_scale" not in record("td3_bc", "hopper-medium")
    assert record("td3_bc", "mine.npz")["reward_scale"] is None
    iql = record("iql", "hopper-medium")
    assert iql["scale_rewards"] is True and "reward_scale" not in iql
    assert record("iql", "mine.npz")["scale_rewards"] is None
    assert record("qr_dqn", "Pong") == record("qr_dqn", "Pong", reward_clip=1.0, reward_scale=1.0)
    assert record("qr_dqn", "mine.npz")["reward_clip"] == "auto"
    kept = from_record(
        {
            "agent_name": "iql",
            "data": "mine.npz",
            "agent": {"scale_rewards": True, "actor_decay_steps": 1_000_000},
        }
    ).agent
    assert (kept.scale_rewards, kept.reward_scale, kept.actor_decay_steps) == (True, 1.0, 1_000_000)

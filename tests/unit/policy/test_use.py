"""What a policy does for whoever acts with it: begins, refuses and goes on, replays, and draws actions."""

from __future__ import annotations

import dataclasses
import logging

import gymnasium as gym
import numpy as np
import pytest
from torch import nn

import chibit
from baseline_toys import identity_data, small_agent
from chibit.core.errors import InputError
from chibit.data.spec import ObservationPart
from chibit.environments.registry import ENVIRONMENTS
from chibit.evaluation.rollout import evaluate, rollout
from chibit.policy.policy import Policy
from policy_toys import KINDS, episode, make, play
from toys import CountdownEnv, IdentityEnv


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_refused_changes_nothing(kind):
    """NaN in every place, a wrong shape, out of turn: then the right value, and all is well."""
    policy, other = make(kind), make(kind)
    seen, taken, rewards = episode(policy, 9)
    policy.reset(seed=3)
    other.reset(seed=3)
    bad = np.nan if policy.spec.num_actions is None else 7
    for step in range(9):
        for wrong in (np.nan, np.inf, 1e300):
            spoilt = seen[step].astype(np.float64)
            spoilt[0] = wrong
            with pytest.raises(InputError, match="observation of environment 0 is .* in dimension 0"):
                policy.act(spoilt)
        for refused in (
            lambda: policy.observe(0.0, False),
            lambda: policy.act("now"),
            lambda: policy.act([[1.0], [1.0, 2.0]]),
            lambda: policy.act(np.zeros(99)),
            lambda: policy.act(np.ma.masked_equal(np.zeros(3), 0)),
        ):
            with pytest.raises(InputError, match="^(act|observe): "):
                refused()
        action = policy.act(seen[step])
        np.testing.assert_allclose(action, other.act(seen[step]), atol=1e-6)
        for arguments, said in (
            ((np.nan, False), "reward of environment 0 is nan"),
            ((1e300, False), "reward of environment 0 is 1e"),
            ((0.0, np.nan), "done of environment 0 is nan"),
            ((0.0, 2), "done of environment 0 is 2"),
            (("much", False), "rewards have type"),
            ((0.0, False, np.full_like(taken[step], bad)), "action of environment 0 is"),
            (([0.0, 0.0], False), "rewards have shape"),
        ):
            with pytest.raises(InputError, match=said) as refusal:
                policy.observe(*arguments)
            assert "\n" not in str(refusal.value)
        with pytest.raises(InputError, match="tell the policy"):
            policy.act(seen[step])
        for one in (policy, other):
            one.observe(rewards[step], False, taken[step])


@pytest.mark.parametrize("kind", KINDS)
def test_before_the_start_after_the_end_and_at_the_time_limit(kind):
    policy = make(kind)
    seen, _, _ = episode(policy, 1)
    with pytest.raises(InputError, match="^act: call reset first$"):
        policy.act(seen[0])
    with pytest.raises(InputError, match="^observe: call reset first$"):
        policy.observe(0.0, False)
    play(policy, 2)
    with pytest.raises(InputError, match="^act: the episode is over; call reset$"):
        policy.act(seen[0])
    with pytest.raises(InputError, match="^observe: there is no action"):
        policy.observe(0.0, False)
    policy.reset(2)
    policy.act(np.concatenate([seen, seen]))
    policy.observe(np.zeros(2), [True, False])
    policy.act(np.stack([np.full_like(seen[0], np.nan), seen[0]]))  # the first is over: it may show anything
    policy.observe([np.nan, 0.0], [True, True])
    with pytest.raises(InputError, match="every episode is over"):
        policy.act(np.concatenate([seen, seen]))
    policy.max_episode_steps = 3
    policy.reset()
    for _ in range(3):
        policy.act(seen[0])
        policy.observe(0.0, False)
    with pytest.raises(InputError, match="environment 0 is at the time limit of 3 steps"):
        policy.act(seen[0])
    policy.max_episode_steps = 4
    policy.act(seen[0])


@pytest.mark.parametrize("kind", KINDS)
def test_one_environment_of_a_batch_begins_anew(kind):
    """What the others do stays as it was, and it does what a policy alone does."""
    batch, alone = make(kind), [make(kind) for _ in range(3)]
    rng = np.random.default_rng(0)
    seen = rng.uniform(-1, 1, (20, 3, batch.spec.state_dim)).astype(np.float32)
    rewards = rng.normal(size=(20, 3))
    batch.reset(3, seed=[0, 1, 2])
    for e in range(3):
        alone[e].reset(seed=[e])
    for step in range(20):
        if step in (5, 7):
            batch.reset(envs=[1], seed=[step])
            alone[1].reset(seed=[step])
        actions = batch.act(seen[step])
        if step == 9:  # between an action and what came of it: that action is forgotten
            batch.reset(envs=[2], seed=[50])
            alone[2].reset(seed=[50])
        else:
            np.testing.assert_allclose(actions[2], alone[2].act(seen[step, 2]), atol=1e-5)
            alone[2].observe(rewards[step, 2], False)
        for e in range(2):
            np.testing.assert_allclose(actions[e], alone[e].act(seen[step, e]), atol=1e-5)
            alone[e].observe(rewards[step, e], False)
        batch.observe(rewards[step], np.zeros(3, bool))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"envs": [3]}, "envs: got .3., expected different numbers from 0 to 2"),
        ({"envs": [1, 1]}, "envs"),
        ({"envs": []}, "envs"),
        ({"envs": [0.5]}, "envs"),
        ({"envs": [1], "num_envs": 2}, "num_envs is 2, expected 3"),
        ({"num_envs": 0}, "num_envs is 0"),
        ({"envs": [1, 2], "target_return": [1.0, np.nan]}, "target_return of environment 2 is nan"),
        ({"num_envs": 3, "target_return": [1.0, 2.0]}, r"target_return has shape \(2,\)"),
        ({"target_return": 1e300}, "target_return of environment 0 is 1e"),
        ({"target_return": "best"}, "target_return have type"),
        ({"seed": [1, 2]}, "seed: got 2"),
        ({"seed": 1.5}, "seed is 1.5, expected whole numbers from 0"),
        ({"seed": -1}, "seed is -1, expected whole numbers from 0"),
        ({"num_envs": 1.5}, "num_envs is 1.5, expected a whole number"),
    ],
)
def test_a_reset_that_makes_no_sense_is_refused_and_changes_nothing(options, said):
    policy, other = make("dt"), make("dt")
    seen = np.full((3, policy.spec.state_dim), 0.3, np.float32)
    for one in (policy, other):
        one.reset(3)
        one.act(seen)
        one.observe(np.ones(3), np.zeros(3, bool))
    with pytest.raises(InputError, match=said):
        policy.reset(**options)
    assert np.array_equal(policy.act(seen), other.act(seen))


def test_what_is_asked_for_can_be_said_at_each_reset_and_for_each_environment():
    policy = make("dt", target_return=8.0)
    asked = {target: play(make("dt", target_return=target), 3) for target in (8.0, -8.0)}
    assert np.abs(asked[8.0] - asked[-8.0]).max() > 1e-5
    assert np.array_equal(play(policy, 3), asked[8.0])
    assert np.array_equal(play(policy, 3, target_return=-8.0), asked[-8.0])
    assert policy.target_return == 8.0 and np.array_equal(play(policy, 3), asked[8.0])
    policy.target_return = -8.0
    assert np.array_equal(play(policy, 3), asked[-8.0])
    policy.reset(2, target_return=[8.0, -8.0])
    seen, _, _ = episode(policy, 3)
    both = policy.act(np.stack([seen[0], seen[0]]))
    np.testing.assert_allclose(both, [asked[8.0][0], asked[-8.0][0]], atol=1e-6)
    with pytest.raises(InputError, match="an episode is running; use reset"):
        policy.target_return = 3.0
    for value in (np.nan, "high", None, [1.0, 2.0]):
        with pytest.raises(InputError, match="target_return"):
            make("dt").target_return = value
    for refused in (lambda p: p.reset(target_return=1.0), lambda p: setattr(p, "target_return", 1.0)):
        with pytest.raises(InputError, match="takes none"):
            refused(make("bc"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_history_is_replayed_in_one_call_and_then_goes_on(kind):
    policy, stepped = make(kind), make(kind)
    seen, taken, rewards = episode(policy, 12)
    stepped.reset(seed=4)
    expected = []
    for step in range(12):
        expected.append(stepped.act(seen[step]))
        stepped.observe(rewards[step], False, action=taken[step])
    chosen = policy.replay(seen, taken, rewards, seed=4)
    assert np.array_equal(chosen, np.array(expected)) and chosen.dtype == expected[0].dtype
    assert np.array_equal(policy.act(seen[0]), stepped.act(seen[0]))
    with pytest.raises(InputError, match="columns have .11, 12. steps"):
        policy.replay(seen, taken[:11], rewards)
    spoilt = rewards.copy()
    spoilt[5] = np.nan
    with pytest.raises(InputError, match="replay: step 5: observe: the reward"):
        policy.replay(seen, taken, spoilt)


def test_a_history_of_single_numbers_is_one_of_vectors():
    spec = dataclasses.replace(
        identity_data(False).spec, act_dim=2, action_low=(-1.0, -1.0), action_high=(1.0, 1.0)
    )
    policy = Policy(small_agent("bc", dataclasses.replace(identity_data(False), spec=spec))[0], spec)
    seen = np.linspace(-1, 1, 5, dtype=np.float32)
    chosen = policy.replay(seen, np.zeros((5, 2)), np.zeros(5))
    assert chosen.shape == (5, 2)
    assert np.array_equal(chosen, policy.replay(seen[:, None], np.zeros((5, 2)), np.zeros(5)))


def uneven(**options) -> Policy:
    """A discrete sequence policy with known probabilities."""
    policy = make("discrete dt", **options)
    head = policy.agent.model.action_head
    nn.init.zeros_(head.weight)
    head.bias.data = head.bias.data.new_tensor([0.6, 0.3, 0.1]).log()
    return policy


def test_actions_are_drawn_anew_in_each_episode_as_often_as_the_model_says():
    policy = uneven()
    first = [int(play(policy, 1)[0]) for _ in range(300)]
    np.testing.assert_allclose(np.bincount(first, minlength=3) / 300, [0.6, 0.3, 0.1], atol=0.08)
    again = uneven()
    assert [
        int(play(again, 1)[0]) for _ in range(300)
    ] == first  # a policy that was just loaded does the same
    long = play(policy, 25, seed=1)
    assert np.array_equal(play(policy, 25, seed=1), long) and np.array_equal(play(uneven(), 25, seed=1), long)
    assert not np.array_equal(play(policy, 25, seed=2), long)
    assert len(set(long.tolist())) > 1
    assert not play(uneven(greedy=True), 25).any()
    assert policy.agent.draws_actions and not make("qr_dqn").agent.draws_actions


def test_a_refusal_draws_nothing_for_an_episode_of_another_age():
    refused, usual = uneven(), uneven()
    for policy in (refused, usual):
        policy.reset(2, seed=3)
        policy.act(np.eye(3)[:2])
        policy.observe([0.0, 0.0], [False, False])
        policy.reset(envs=[0], seed=[7])
    ask = refused._acting._ask
    refused._acting._ask = lambda window: ask(window) * (np.nan if window.states.shape[1] > 1 else 1.0)
    with pytest.raises(InputError, match="answer in environment 1 is not finite"):
        refused.act(np.eye(3)[:2])
    refused._acting._ask = ask
    for _ in range(20):
        assert np.array_equal(refused.act(np.eye(3)[:2]), usual.act(np.eye(3)[:2]))
        for policy in (refused, usual):
            policy.observe([0.0, 0.0], [False, False])


@pytest.fixture
def registry(monkeypatch):
    """Environments that a test registers are forgotten after it."""
    monkeypatch.setattr(ENVIRONMENTS, "_entries", dict(ENVIRONMENTS._all()))
    known = set(gym.registry)
    yield
    for name in set(gym.registry) - known:
        del gym.registry[name]


def test_an_evaluation_is_decided_by_its_seed(registry):
    gym.register("toys/Three-v0", lambda: IdentityEnv(num_actions=3))
    policy = uneven()

    def returns(seed, number=4):
        kept = evaluate(
            policy, "toys/Three-v0", target_returns=[policy.target_return], num_episodes=number, seed=seed
        )
        return kept[0].episode_returns

    chibit.register_env("toys/Three-v0", max_episode_steps=10)
    first = returns(0)
    assert returns(0) == first and returns(0, number=2) == first[:2]
    assert len({returns(seed) for seed in range(4)}) > 1


def test_an_environment_may_last_longer_than_the_log(monkeypatch, caplog):
    """In an evaluation its limit counts, or the caller's; where there is none, and by hand, the log's."""
    monkeypatch.setattr(logging.getLogger("chibit"), "propagate", True)  # the command line turns it off
    policy, asked = make("bc"), {"target_returns": [None], "num_episodes": 1, "seed": 0}
    policy.max_episode_steps = 4
    for env, given, length in (
        (lambda: gym.wrappers.TimeLimit(CountdownEnv(), 50), None, 10),
        (CountdownEnv, 50, 10),
        (CountdownEnv, None, 4),
    ):
        (episode,) = evaluate(policy, env, max_episode_steps=given, **asked)
        assert episode.episode_lengths == (length,) and policy.max_episode_steps == 4
    assert "has no limit of steps: episodes are cut after 4, as those of the policy's data" in caplog.text
    with pytest.raises(InputError, match="time limit of 4 steps"):
        play(policy, 10)


def test_an_evaluation_asks_for_each_of_its_targets(registry):
    policy = make("dt", target_return=3.0)
    gym.register("toys/One-v0", IdentityEnv)
    chibit.register_env("toys/One-v0", max_episode_steps=10)
    together, one, other = (
        evaluate(policy, "toys/One-v0", target_returns=targets, num_episodes=2, seed=0)
        for targets in ([50.0, -50.0], [50.0], [-50.0])
    )
    with pytest.raises(InputError, match="takes none"):
        evaluate(make("bc"), "toys/One-v0", target_returns=[50.0], num_episodes=1, seed=0)
    for found, expected in zip(together, (*one, *other), strict=True):
        np.testing.assert_allclose(found.episode_returns, expected.episode_returns, atol=1e-5)
    assert abs(one[0].mean_return - other[0].mean_return) > 1e-4


class _Far(gym.Env):
    """Observations that single precision cannot tell apart; the reward is the action."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float64)
    action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = 5
        return self._look(), {}

    def step(self, action):
        self.left -= 1
        return self._look(), float(action[0]), self.left == 0, False, {}

    def _look(self):
        return 52.0 + 1e-6 * self.np_random.normal(size=1)


@pytest.mark.parametrize("kind", ["dt", "bc", "stacked"])
def test_an_environment_far_from_zero_is_seen_as_sharply_as_by_hand(kind):
    agent = make(kind).agent
    agent.spec = dataclasses.replace(
        agent.spec, state_mean=(0.0,), state_std=(1e-6,), state_offset=(52.0,), max_episode_steps=30
    )
    policy = Policy(agent, agent.spec)
    (episode,) = rollout(policy, [_Far()], [3])
    env, total, over = _Far(), 0.0, False
    seen, _ = env.reset(seed=3)
    policy.reset(seed=[3])
    while not over:
        action = policy.act(seen)
        seen, reward, over, _, _ = env.step(action)
        policy.observe(reward, over)
        total += reward
    assert episode.raw_return == pytest.approx(total, abs=1e-6)


SPACE = gym.spaces.Dict(
    {
        "speed": gym.spaces.Box(-1, 1, (2, 2), np.float32),
        "gear": gym.spaces.Discrete(3, start=1),
        "inner": gym.spaces.Dict(
            {"valves": gym.spaces.MultiDiscrete([2, 3]), "open": gym.spaces.MultiBinary(2)}
        ),
    }
)
PARTS = (
    ObservationPart(path=("gear",), counts=(3,), starts=(1,)),
    ObservationPart(path=("inner", "open"), shape=(2,)),
    ObservationPart(path=("inner", "valves"), shape=(2,), counts=(2, 3), starts=(0, 0)),
    ObservationPart(path=("speed",), shape=(2, 2)),
)


def of_parts(parts: tuple[ObservationPart, ...]) -> Policy:
    width = sum(part.width for part in parts)
    spec = dataclasses.replace(
        identity_data(False).spec, state_dim=width, state_mean=(0.1,) * width, state_std=(0.7,) * width,
        observation_parts=parts,
    )  # fmt: skip
    data = dataclasses.replace(identity_data(False), spec=spec)
    return Policy(small_agent("bc", data)[0], spec)


def test_dictionaries_are_taken_as_the_environment_gives_them():
    policy = of_parts(PARTS)
    SPACE.seed(0)
    seen = [SPACE.sample() for _ in range(4)]
    flat = np.stack([gym.spaces.flatten(SPACE, one) for one in seen]).astype(np.float32)
    policy.reset(4)
    expected = policy.act(flat)
    together = {
        "speed": np.stack([one["speed"] for one in seen]),
        "gear": np.array([one["gear"] for one in seen]),
        "inner": {key: np.stack([one["inner"][key] for one in seen]) for key in ("valves", "open")},
        "unknown": np.zeros(4),  # more than the data had is left alone
    }
    policy.reset(4)
    assert np.array_equal(policy.act(together), expected)
    for one, action in zip(seen, expected, strict=True):
        policy.reset()
        np.testing.assert_allclose(policy.act(one), action, atol=1e-6)
    history = policy.replay(together, np.zeros((4, 1)), np.zeros(4))
    np.testing.assert_allclose(history, expected, atol=1e-6)
    for change, said in (
        ({"gear": 4}, "observation/gear of environment 0 is 4, expected a whole number from 1 to 3"),
        ({"gear": np.nan}, "observation/gear of environment 0 is nan"),
        ({"speed": np.zeros(4)}, r"observation/speed has shape \(4,\), expected \(2, 2\)"),
        ({"inner": {"open": [0, 1]}}, "no part 'inner/valves'"),
        ({"speed": np.full((2, 2), np.nan)}, "environment 0 is nan in dimension 10"),
    ):
        policy.reset()
        with pytest.raises(InputError, match=said):
            policy.act({**seen[0], **change})
    policy.reset(2)
    for change in ({"gear": 2}, {"speed": np.zeros((2, 2))}):  # one of one environment, others of two
        with pytest.raises(InputError, match=r"has shape \(.*\), expected \(2"):
            policy.act({**_first(together, 2), **change})
    with pytest.raises(InputError, match="the data had vectors"):
        plain = make("bc")
        plain.reset()
        plain.act(seen[0])


def _first(seen: dict, number: int) -> dict:
    """The first ones of several environments."""
    return {k: _first(v, number) if isinstance(v, dict) else v[:number] for k, v in seen.items()}


def test_tuples_are_taken_as_the_environment_gives_them():
    space = gym.spaces.Tuple((gym.spaces.Discrete(3), gym.spaces.Box(-1, 1, (2,))))
    space.seed(0)
    parts = ObservationPart(path=("0",), counts=(3,), starts=(0,)), ObservationPart(path=("1",), shape=(2,))
    policy = of_parts(parts)
    for _ in range(3):
        one = space.sample()
        policy.reset()
        action = policy.act(one)
        policy.reset()
        np.testing.assert_allclose(policy.act(gym.spaces.flatten(space, one)), action, atol=1e-6)
    history = policy.replay((np.array([1, 2]), np.zeros((2, 2))), np.zeros((2, 1)), np.zeros(2))
    assert history.shape == (2, 1)


def test_a_whole_number_is_an_observation_where_the_data_had_numbers():
    policy = of_parts((ObservationPart(counts=(4,), starts=(2,)),))
    policy.reset(4)
    expected = policy.act(np.eye(4, dtype=np.float32))
    policy.reset(4)
    assert np.array_equal(policy.act(np.arange(2, 6)), expected)
    policy.reset()
    np.testing.assert_allclose(policy.act(5), expected[3], atol=1e-6)
    policy.observe(0.0, False)
    with pytest.raises(InputError, match="observation of environment 0 is 6, expected a whole number from 2"):
        policy.act(6)

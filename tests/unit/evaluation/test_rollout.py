"""Lockstep evaluation: the same episodes as one at a time, nothing counted twice, faults contained."""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
import time

import gymnasium as gym
import mujoco
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete

from chibit.core.acting import EpisodePolicy, StackPolicy
from chibit.core.config import to_json
from chibit.core.errors import InputError
from chibit.environments.make import make_env, physics_record
from chibit.evaluation import pool as pool_module
from chibit.evaluation.pool import EnvironmentPool, most_steps
from chibit.evaluation.rollout import Played, episode_seeds, evaluate, evaluate_all, rollout
from chibit.evaluation.stage import on_stage


class FixedActions:
    """Plays action t of a fixed list at step t, in every episode."""

    def __init__(self, actions: np.ndarray) -> None:
        self.actions = actions
        self.observed: list[tuple[np.ndarray, np.ndarray]] = []
        self.seen: list[np.ndarray] = []

    def reset(self, num_envs: int) -> None:
        self.num_envs, self.t = num_envs, 0

    def act(self, observations: np.ndarray) -> np.ndarray:
        self.seen.append(observations.copy())
        return np.repeat(self.actions[self.t % len(self.actions)][None], self.num_envs, axis=0)

    def observe(self, rewards: np.ndarray, dones: np.ndarray) -> None:
        self.observed.append((rewards.copy(), dones.copy()))
        self.t += 1


class Countdown(gym.Env):
    """Lasts `length` steps, reward 1 each; a step past its end is an error."""

    observation_space = Box(-np.inf, np.inf, (2,))
    action_space = Box(-1, 1, (1,))

    def __init__(self, length: int) -> None:
        self.length = length

    def reset(self, *, seed=None, options=None):
        self.left = self.length
        return np.array([self.left, 0.0]), {}

    def step(self, action):
        assert self.left > 0, "stepped after its end"
        self.left -= 1
        return self.observation(), 1.0, self.left == 0, False, {}

    def observation(self) -> np.ndarray:
        return np.array([self.left, 0.0])


class Broken(Countdown):
    """Goes wrong at its third step in one of several ways."""

    def __init__(self, how: str) -> None:
        super().__init__(5)
        self.how = how

    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        if self.left == 2:
            if self.how == "raises":
                raise RuntimeError("simulation lost\nsecond line\nthird")
            if self.how == "observation":
                observation = np.array([np.nan, 0.0])
            if self.how == "overflow":
                observation = np.array([1e300, 0.0])
            if self.how == "shape":
                observation = np.zeros(3)
            if self.how == "reward":
                reward = float("inf")
            if self.how == "huge reward":
                reward = 1e300
        return observation, reward, terminated, truncated, info


ZERO = np.zeros((1, 1), np.float32)


class Keeping(FixedActions):
    """Keeps what it is given, as it is given."""

    def act(self, observations: np.ndarray) -> np.ndarray:
        actions = super().act(observations)
        self.seen[-1] = observations
        return actions

    def observe(self, rewards: np.ndarray, dones: np.ndarray) -> None:
        super().observe(rewards, dones)
        self.observed[-1] = rewards, dones


def test_what_a_policy_keeps_is_not_written_over():
    policy = Keeping(ZERO)
    rollout(policy, [Countdown(2), Countdown(3)], [0, 1])
    assert [seen[:, 0].tolist() for seen in policy.seen] == [[2, 3], [1, 2], [0, 1]]
    dones = [done.tolist() for _, done in policy.observed]
    assert dones == [[False, False], [True, False], [True, True]]


def test_a_game_has_a_limit_of_its_own():
    with EnvironmentPool("PongNoFrameskip-v4") as pool:
        assert pool.spaces.max_episode_steps == 27_000


def test_a_grid_has_a_limit_of_its_own(caplog):
    pytest.importorskip("minigrid")
    (found,) = evaluate(FixedActions(np.array([6])), "MiniGrid-Empty-5x5-v0", num_episodes=1)
    assert found.episode_lengths == (100,) and not caplog.records


@pytest.mark.parametrize("env_id", ["Hopper-v5", "Walker2d-v4", "HalfCheetah-v5"])
def test_lockstep_episodes_are_bit_identical_to_episodes_played_alone(env_id):
    with EnvironmentPool(env_id, max_episode_steps=60) as pool:
        shape = pool.take(1)[0].action_space.shape
        actions = np.random.default_rng(0).uniform(-0.8, 0.8, (60, *shape)).astype(np.float32)
        results = evaluate(
            FixedActions(actions), env_id, target_returns=[3600.0, 1800.0], num_episodes=3, seed=7,
            max_episode_steps=60, environments=pool,
        )  # fmt: skip
    for result in results:
        for i, seed in enumerate(result.env_seeds):
            env = make_env(env_id)
            env.reset(seed=seed)
            total, length, over = 0.0, 0, False
            while not over and length < 60:
                _, reward, terminated, truncated, _ = env.step(actions[length])
                total, length, over = total + float(reward), length + 1, terminated or truncated
            env.close()
            assert result.episode_returns[i] == total
            assert result.episode_lengths[i] == length
    assert results[0].episode_returns == results[1].episode_returns
    assert len(set(results[0].episode_returns)) == 3


def test_each_episode_is_counted_once_and_never_stepped_past_its_end():
    policy = FixedActions(ZERO)
    episodes = rollout(policy, [Countdown(n) for n in (3, 1, 7, 2)], [10, 11, 12, 13])
    assert [e.raw_return for e in episodes] == [3.0, 1.0, 7.0, 2.0]
    assert [e.length for e in episodes] == [3, 1, 7, 2]
    discounted = [sum(0.99**t for t in range(n)) for n in (3, 1, 7, 2)]
    assert [e.discounted_return for e in episodes] == pytest.approx(discounted)
    assert [e.seed for e in episodes] == [10, 11, 12, 13]
    assert len(policy.observed) == 7
    assert [dones.tolist() for _, dones in policy.observed[:3]] == [
        [False, True, False, False],
        [False, True, False, True],
        [True, True, False, True],
    ]


def test_policy_sees_the_observation_of_its_own_episode():
    policy = FixedActions(ZERO)
    rollout(policy, [Countdown(2), Countdown(3)], [0, 0])
    assert [seen[:, 0].tolist() for seen in policy.seen] == [[2.0, 3.0], [1.0, 2.0], [0.0, 1.0]]
    assert policy.seen[0].dtype == np.float32


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("raises", "RuntimeError: simulation lost"),
        ("observation", "not finite"),
        ("overflow", "not finite"),
        ("reward", "not finite"),
        ("huge reward", "not finite"),
        ("shape", "an observation of shape (3,)"),
    ],
)
def test_a_broken_environment_ends_its_episode_only(how, said):
    policy = FixedActions(ZERO)
    broken, whole = rollout(policy, [Broken(how), Countdown(5)], [0, 0])
    assert said in broken.fault and "\n" not in broken.fault
    assert (broken.raw_return, broken.length) == (2.0, 2)
    assert (whole.raw_return, whole.length, whole.fault) == (5.0, 5, None)
    assert len(policy.seen) == 5  # it did not wait while the other one broke
    assert all(np.isfinite(seen).all() for seen in policy.seen)
    assert policy.observed[2][1].tolist() == [True, False]


class Giving(Countdown):
    """Gives at its second step something in place of a part of it."""

    def __init__(self, changes) -> None:
        super().__init__(3)
        self.changes = changes

    def step(self, action):
        step = dict(zip(("observation", "reward", "over", "cut", "info"), super().step(action), strict=True))
        if self.left == 1:
            step |= self.changes
        return tuple(value for value in step.values() if value is not Ellipsis)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"reward": None}, "the environment gave reward None, expected a number"),
        ({"reward": np.ones(2)}, "the environment gave reward array([1., 1.]), expected a number"),
        ({"over": np.ones(2)}, "the environment gave terminated array([1., 1.]), expected a number"),
        ({"info": None}, "the environment gave an info of type NoneType, expected a dictionary"),
        (
            {"info": {"success": np.ones(2)}},
            "the environment gave success array([1., 1.]), expected a number",
        ),
        ({"observation": ["x", "y"]}, "the environment gave an observation of type <U1, expected numbers"),
        ({"cut": ...}, "expected 5, got 4); a step gives observation, reward, terminated, truncated, info"),
    ],
)
def test_what_is_no_step_ends_its_episode_only(changes, said):
    odd, whole = rollout(FixedActions(ZERO), [Giving(changes), Countdown(5)], [0, 0])
    assert said in odd.fault and (odd.length, whole.length, whole.fault) == (1, 5, None)


class Raising(Countdown):
    """Raises an error at its second step."""

    def __init__(self, error: Exception) -> None:
        super().__init__(3)
        self.error = error

    def step(self, action):
        if self.left == 2:
            raise self.error
        return super().step(action)


@pytest.mark.parametrize(
    "kind",
    [mujoco.FatalError, mujoco.UnexpectedError, gym.error.ResetNeeded, OverflowError, IndexError, ValueError],
)
def test_errors_of_simulations_end_their_episode(kind):
    (episode,) = rollout(FixedActions(ZERO), [Raising(kind("lost\nmore\nlines"))], [4])
    assert (episode.seed, episode.length, episode.raw_return) == (4, 1, 1.0)
    assert episode.fault == f"the environment raised {kind.__name__}: lost"


@pytest.mark.parametrize("kind", [ValueError, ConnectionResetError, TimeoutError, AssertionError])
def test_environments_break_down_without_mujoco_too(monkeypatch, kind):
    monkeypatch.delitem(sys.modules, "mujoco")
    (episode,) = rollout(FixedActions(ZERO), [Raising(kind("lost"))], [4])
    assert episode.fault == f"the environment raised {kind.__name__}: lost"


class WrongSpace(Countdown):
    observation_space = Box(-1, 1, (3,))


class BeginsWith(Countdown):
    def __init__(self, value: float) -> None:
        super().__init__(3)
        self.value = value

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.array([0.0, self.value]), {}


class NoInfo(Countdown):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)[0], None


class NoReset(Countdown):
    def reset(self, *, seed=None, options=None):
        raise RuntimeError("no license\nmore")


def test_an_environment_that_cannot_begin_is_refused_in_one_line():
    with pytest.raises(InputError, match=r"^WrongSpace: reset gave .* shape \(2,\), its .* says \(3,\)"):
        rollout(FixedActions(ZERO), [WrongSpace(3)], [0])
    for value in (np.nan, np.inf, 1e300):
        with pytest.raises(InputError, match="^BeginsWith: reset gave an observation that is not finite"):
            rollout(FixedActions(ZERO), [Countdown(3), BeginsWith(value)], [0, 0])
    with pytest.raises(InputError, match="^NoInfo: reset gave an info of type NoneType, expected a dict"):
        rollout(FixedActions(ZERO), [NoInfo(3)], [0])
    broken = NoReset(3)
    for name in ("NoReset", "Mine-v0"):
        with pytest.raises(InputError, match=rf"^{name}: .* cannot be reset \(RuntimeError: no license\)$"):
            rollout(FixedActions(ZERO), [broken], [0])
        broken.spec = gym.envs.registration.EnvSpec("Mine-v0")


def test_errors_in_programs_are_raised():
    with pytest.raises(TypeError, match="wrong call"):
        rollout(FixedActions(ZERO), [Raising(TypeError("wrong call"))], [0])


def test_an_action_that_is_not_finite_fails_the_episode():
    policy = FixedActions(np.array([[0.0], [np.nan]], np.float32))
    (episode,) = rollout(policy, [Countdown(5)], [0])
    assert episode.length == 1
    assert episode.fault == "the policy's action is not finite"


def test_mujoco_resetting_itself_is_noticed(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # MuJoCo writes its log there

    class Unstable(gym.Wrapper):
        def step(self, action):
            self.count = getattr(self, "count", 0) + 1
            if self.count == 3:
                self.unwrapped.data.qvel[0] = 1e15
            return super().step(action)

    environments = [make_env("HalfCheetah-v5", max_episode_steps=6) for _ in range(2)]
    environments[0] = Unstable(environments[0])
    unstable, stable = rollout(FixedActions(np.zeros((1, 6), np.float32)), environments, [1, 1])
    assert unstable.fault == "the simulation became unstable"
    assert stable.fault is None


def test_an_environment_may_have_data_of_its_own():
    env = Countdown(2)
    env.data = np.zeros(3)  # as MuJoCo's have, by name
    assert rollout(FixedActions(ZERO), [env], [0])[0].fault is None


def test_failed_episodes_are_said_kept_and_not_scored(monkeypatch, caplog):
    monkeypatch.setattr(logging.getLogger("chibit"), "propagate", True)  # the command line turns it off
    made = iter([Countdown(4), Broken("observation"), Countdown(6)])
    monkeypatch.setattr("chibit.evaluation.pool.make_env", lambda *args, **kwargs: next(made))
    with EnvironmentPool("Hopper-v5") as pool, caplog.at_level(logging.WARNING):
        (result,) = evaluate(
            FixedActions(ZERO), "Hopper-v5", target_returns=[None], num_episodes=3, seed=0,
            score_reference=(0.0, 10.0), environments=pool,
        )  # fmt: skip
        assert len(pool._environments) == 2
    assert result.failed_episodes == (1,)
    assert result.episode_returns == (4.0, 2.0, 6.0)
    assert result.mean_return == 5.0
    assert result.normalized_score == 50.0
    [line] = [record.getMessage() for record in caplog.records]
    assert line == (
        f"Hopper-v5: episode 1 (seed {result.env_seeds[1]}, target None) failed after 2 steps and is not "
        "counted: the environment gave a value that is not finite"
    )


def test_when_every_episode_fails_there_is_no_score(monkeypatch):
    monkeypatch.setattr("chibit.evaluation.pool.make_env", lambda *args, **kwargs: Broken("raises"))
    (result,) = evaluate(
        FixedActions(ZERO), "Hopper-v5", target_returns=[None], num_episodes=2, seed=0,
        score_reference=(0.0, 10.0),
    )  # fmt: skip
    assert result.mean_return is None and result.normalized_score is None
    assert result.failed_episodes == (0, 1)


def test_seeds_depend_on_the_seed_and_the_index_only():
    assert episode_seeds(3, 4) == episode_seeds(3, 9)[:4]
    assert len({*episode_seeds(0, 100), *episode_seeds(1, 100)}) == 200
    with pytest.raises(InputError, match="seed is -1"):
        episode_seeds(-1, 2)


def test_waves_play_the_same_episodes(monkeypatch):
    def play():
        policy = FixedActions(np.linspace(-1, 1, 60, dtype=np.float32).reshape(20, 3))
        progress: list[tuple[int, int]] = []
        results = evaluate(
            policy, "Hopper-v5", target_returns=[2.0, 1.0], num_episodes=5, seed=1, max_episode_steps=20,
            progress=lambda steps, running: progress.append((steps, running)),
        )  # fmt: skip
        assert progress[-1] == (sum(sum(r.episode_lengths) for r in results), 0)
        assert progress == sorted(progress, key=lambda item: item[0])
        return [dataclasses.replace(result, seconds=0.0) for result in results]

    whole = play()
    monkeypatch.setattr(pool_module, "MAX_LOCKSTEP", 4)
    assert play() == whole


@pytest.mark.parametrize("at_once", [256, 4])
def test_progress_is_told_as_often_as_is_foreseen(monkeypatch, at_once):
    monkeypatch.setattr(pool_module, "MAX_LOCKSTEP", at_once)
    told = []
    evaluate(
        FixedActions(np.zeros((20, 1), np.float32)), "Pendulum-v1", target_returns=[2.0, 1.0], num_episodes=5,
        max_episode_steps=20, progress=lambda steps, running: told.append(steps),
    )  # fmt: skip
    assert len(told) == most_steps(5, 2, 20) == 20 * (1 if at_once == 256 else 3)


def test_reused_environments_give_the_same_episodes_and_are_closed():
    actions = np.random.default_rng(1).uniform(-1, 1, (50, 6)).astype(np.float32)
    with EnvironmentPool("Walker2d-v5", max_episode_steps=50) as pool:
        runs = [
            evaluate(
                FixedActions(actions), "Walker2d-v5", target_returns=[None], num_episodes=2, seed=5,
                max_episode_steps=50, environments=pool,
            )[0].episode_returns
            for _ in range(3)
        ]  # fmt: skip
        built = pool.take(2)
    assert runs[0] == runs[1] == runs[2]
    assert pool._environments == [] and len(built) == 2


def test_a_pool_of_another_kind_is_refused():
    with EnvironmentPool("CartPole-v1") as pool, pytest.raises(InputError, match="same kind"):
        evaluate(
            FixedActions(np.zeros(1, np.int64)), "CartPole-v1", target_returns=[None], num_episodes=1, seed=0,
            max_episode_steps=9, environments=pool,
        )  # fmt: skip


def test_cartpole_takes_integer_actions_and_scores():
    policy = FixedActions(np.array([0, 1], np.int64))
    (result,) = evaluate(
        policy, "CartPole-v1", target_returns=[None], num_episodes=4, seed=0, score_reference=(0.0, 500.0)
    )
    assert result.normalized_score == pytest.approx(np.mean(result.episode_returns) / 5)
    assert result.episode_lengths == tuple(int(r) for r in result.episode_returns)
    assert json.loads(json.dumps(to_json(result)))["env_seeds"] == list(result.env_seeds)


def test_pendulum_runs_to_its_own_limit():
    (result,) = evaluate(FixedActions(ZERO), "Pendulum-v1", target_returns=[None], num_episodes=2, seed=0)
    assert result.episode_lengths == (200, 200)
    assert result.normalized_score is None
    assert result.seconds > 0


def test_contact_margin_reaches_the_environments():
    with EnvironmentPool("Hopper-v4") as after, EnvironmentPool("Hopper-v4", d4rl_physics=True) as before:
        margins = [pool.take(1)[0].unwrapped.model.geom_margin.max() for pool in (after, before)]
    adds_margins = physics_record("Hopper-v4", False)["contact_margin"] == "sum"  # since MuJoCo 3.5
    assert margins[1] == margins[0] / (2 if adds_margins else 1)


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        (
            {"observation_shape": (17,), "act_dim": 3, "num_actions": None},
            "have 17 values, those of Hopper-v5 have 11",
        ),
        (
            {"observation_shape": (11,), "act_dim": 6, "num_actions": None},
            "have 6 values, those of Hopper-v5 have 3",
        ),
        (
            {"observation_shape": (11,), "act_dim": 0, "num_actions": 4},
            "those of Hopper-v5 quantities, 3 a step, to be saved as floats",
        ),
    ],
)
def test_sizes_unlike_the_environments_are_refused(sizes, said):
    with EnvironmentPool("Hopper-v5") as pool:
        pool.check_sizes(observation_shape=(11,), act_dim=3, num_actions=None)
        with pytest.raises(InputError, match=said):
            pool.check_sizes(**sizes)


def test_quantities_for_choices_are_refused_with_how_to_save_them():
    expected = "those of CartPole-v1 choices, to be saved as integers 0 to 1;"
    with EnvironmentPool("CartPole-v1") as pool, pytest.raises(InputError, match=expected):
        pool.check_sizes(observation_shape=(4,), act_dim=1, num_actions=None)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ({"env": "Hoper-v5"}, "did you mean"),
        ({"num_episodes": 0}, "num_episodes: got 0, expected 1 to"),
        ({"target_returns": []}, "expected one or more"),
        ({"target_returns": [np.nan]}, r"target_returns\[0\]: got nan, expected a finite number"),
        ({"max_episode_steps": 0}, "max_episode_steps: got 0, expected at least 1"),
        ({"max_episode_steps": 2.5}, "max_episode_steps: got 2.5, expected int"),
        ({"num_episodes": 2.5}, "num_episodes: got 2.5, expected int"),
        ({"seed": 1.5}, "seed: got 1.5, expected int"),
        ({"seed": -1}, "seed: got -1, expected at least 0"),
        ({"score_reference": (0.0, np.inf)}, r"score_reference\[1\]: got inf, expected a finite number"),
        ({"target_returns": [None, 3600.0]}, "some are None"),
        ({"score_reference": (3.0, 3.0)}, "expected each value once"),
        ({"policy": FixedActions(np.zeros((1, 2), np.float32))}, r"shape \(1, 2\), .* takes \(1, 3\)"),
    ],
)
def test_bad_calls_are_refused_in_one_line(call, said):
    policy = FixedActions(np.zeros((1, 3), np.float32))
    given = {"policy": policy, "env": "Hopper-v5", "target_returns": [None], "num_episodes": 1, "seed": 0}
    with pytest.raises(InputError, match=said) as refusal:
        evaluate(**{**given, **call})
    assert "\n" not in str(refusal.value)


def test_spaces_that_no_policy_can_use_are_refused(monkeypatch):
    env, closed = Countdown(1), []
    env.close = lambda: closed.append(True)
    monkeypatch.setattr("chibit.evaluation.pool.make_env", lambda *args, **kwargs: env)
    env.observation_space = Dict({"x": Discrete(2)})
    with pytest.raises(InputError, match="expected a Box"):
        EnvironmentPool("Hopper-v5")
    env.observation_space, env.action_space = Box(-1, 1, (2,)), Dict({"x": Discrete(2)})
    with pytest.raises(InputError, match="expected a vector or integers"):
        EnvironmentPool("Hopper-v5")
    assert closed == [True, True]


def test_what_is_asked_for_each_target_is_in_what_comes_back(monkeypatch, caplog):
    monkeypatch.setattr(logging.getLogger("chibit"), "propagate", True)  # the command line turns it off
    built, told = [], []

    def make(env_id, **kind):
        built.append((env_id, kind))
        return Broken("raises") if len(built) == 4 else Countdown(3)

    monkeypatch.setattr(pool_module, "make_env", make)
    started = time.perf_counter()
    with caplog.at_level(logging.WARNING, "chibit"):
        first, second = evaluate(
            FixedActions(ZERO), "Hopper-v4", target_returns=[1.5, -2.5], num_episodes=2, seed=3,
            d4rl_physics=True, max_episode_steps=9, progress=lambda *counts: told.append(counts),
        )  # fmt: skip
    passed = time.perf_counter() - started
    assert {env_id for env_id, _ in built} == {"Hopper-v4"}
    assert all(kind == {"d4rl_physics": True, "max_episode_steps": 9} for _, kind in built)
    assert (first.target_return, second.target_return) == (1.5, -2.5)
    assert (first.failed_episodes, second.failed_episodes) == ((), (1,))
    assert 0 < first.seconds == second.seconds < passed
    assert told == [(4, 4), (8, 4), (11, 0)]
    [warning] = caplog.messages
    assert warning == (
        f"Hopper-v4: episode 1 (seed {second.env_seeds[1]}, target -2.5) failed after 2 steps and is not "
        "counted: the environment raised RuntimeError: simulation lost"
    )


def test_one_episode_for_each_target_is_the_least_that_is_played_at_once(monkeypatch):
    monkeypatch.setattr(pool_module, "make_env", lambda *_, **__: Countdown(1))
    monkeypatch.setattr(pool_module, "MAX_LOCKSTEP", 1)
    policy = FixedActions(ZERO)
    evaluate(policy, "Pendulum-v1", target_returns=[1.0, 2.0], num_episodes=2, seed=0)
    assert [len(seen) for seen in policy.seen] == [2, 2]


def test_pictures_stay_bytes():
    class Pictures(Countdown):
        observation_space = Box(0, 255, (1, 36, 36), np.uint8)

        def reset(self, *, seed=None, options=None):
            super().reset()
            return self.observation(), {}

        def observation(self):
            return np.full((1, 36, 36), self.left, np.uint8)

    policy = FixedActions(ZERO)
    rollout(policy, [Pictures(2)], [0])
    assert {seen.dtype for seen in policy.seen} == {np.dtype(np.uint8)}


def test_actions_of_another_shape_are_refused_with_what_to_do():
    with pytest.raises(InputError) as caught:
        rollout(FixedActions(np.zeros((1, 2), np.float32)), [Countdown(2)], [0])
    assert str(caught.value) == (
        "the policy gives actions of shape (1, 2), the environment takes (1, 1); evaluate in the environment "
        "that the data comes from"
    )


@pytest.mark.parametrize(("given", "is_said"), [(200.0, True), (-1.5, True), (1.0005, False), (0.0, False)])
def test_first_actions_beyond_the_environments_bounds_are_said(monkeypatch, caplog, given, is_said):
    monkeypatch.setattr(logging.getLogger("chibit"), "propagate", True)  # the command line turns it off
    rollout(FixedActions(np.full((1, 1), given, np.float32)), [Countdown(2)], [0])
    said = [record.getMessage() for record in caplog.records]
    assert said == is_said * [
        f"the policy's first actions are {given:g} to {given:g}, the environment takes -1 to 1; evaluate in "
        "the one that the data come from"
    ]


def test_progress_is_told_in_a_pool_too(monkeypatch):
    monkeypatch.setattr(pool_module, "make_env", lambda *_, **__: Countdown(2))
    told = []
    with EnvironmentPool("x") as pool:
        evaluate(
            FixedActions(ZERO), "x", target_returns=[None], num_episodes=1, seed=0, environments=pool,
            progress=lambda *counts: told.append(counts),
        )  # fmt: skip
    assert told == [(1, 1), (2, 0)]


class Rising(Countdown):
    """Rewards 1, 2, 3 and so on."""

    def step(self, action):
        observation, _, *ends = super().step(action)
        return observation, float(self.length - self.left), *ends


def test_returns_are_also_discounted_by_a_hundredth_a_step():
    (episode,) = rollout(FixedActions(np.zeros((1, 1))), [Rising(4)], [0])
    assert episode.raw_return == 10.0
    assert episode.discounted_return == pytest.approx(1 + 0.99 * 2 + 0.99**2 * 3 + 0.99**3 * 4)


class Solvable(Countdown):
    """Says at each step whether it is solved, or says nothing."""

    def __init__(self, says=(False, True), key="success") -> None:
        super().__init__(len(says))
        self.says, self.key = says, key

    def step(self, action):
        said = self.says[len(self.says) - self.left]
        observation, reward, terminated, truncated, _ = super().step(action)
        return observation, reward, terminated, truncated, {} if said is None else {self.key: said}


@pytest.mark.parametrize("key", ["success", "is_success"])
def test_an_episode_is_a_success_where_any_step_says_so(key):
    said = [(None, True, False), (False, False, None), (None, None, None), (np.True_, False, False)]
    envs = [Solvable(says, key) for says in said]
    found = [episode.success for episode in rollout(FixedActions(ZERO), envs, [0, 1, 2, 3])]
    assert found == [True, False, None, True]


def test_the_first_word_on_success_counts():
    class Both(Solvable):
        def step(self, action):
            *outcome, info = super().step(action)
            return *outcome, info | {"is_success": True}

    assert rollout(FixedActions(ZERO), [Both((False, False))], [0])[0].success is False


def test_an_evaluation_says_how_often_it_was_solved():
    (found,) = evaluate(FixedActions(ZERO), lambda: Solvable(), num_episodes=3)
    assert found.successes == (True, True, True) and found.summary.success_rate == 1.0
    assert found.discounted_returns == pytest.approx([1 + 0.99] * 3)
    (found,) = evaluate(FixedActions(ZERO), lambda: Solvable((None, None)), num_episodes=3)
    assert found.successes == () and found.summary.success_rate is None
    (found,) = evaluate(FixedActions(ZERO), lambda: Solvable((False, None)), num_episodes=2)
    assert found.successes == (False, False) and found.summary.success_rate == 0.0


class Told(EpisodePolicy):
    """Remembers how its episodes began, and of what precision its observations were."""

    dtype = np.float64

    def __init__(self) -> None:
        self.begun: list[tuple] = []

    def reset(self, num_envs, *, seed=None, envs=None, target_return=None):
        asked = None if target_return is None else np.asarray(target_return).tolist()
        self.begun.append((num_envs, list(seed), asked, self.max_episode_steps))

    def act(self, observations):
        self.seen = observations.dtype
        return np.zeros((len(observations), 1), np.float32)

    def observe(self, rewards, dones, actions=None):
        pass


def test_a_policy_is_told_what_to_ask_for_and_the_seed_of_each_episode():
    policy = Told()
    policy.max_episode_steps = 1  # left to the environment while it is played
    evaluate(policy, lambda: Solvable(), target_returns=[5.0, 7.0], num_episodes=2, seed=4)
    seeds = episode_seeds(4, 2)
    assert policy.begun == [(4, seeds + seeds, [5.0, 5.0, 7.0, 7.0], sys.maxsize)]
    assert policy.seen == np.float64 and policy.max_episode_steps == 1
    evaluate(policy, lambda: Solvable(), num_episodes=1, seed=4)
    assert policy.begun[1] == (1, seeds[:1], None, sys.maxsize)


def test_episodes_in_environments_of_ones_own_are_asked_for_returns_too():
    policy, told = Told(), []
    environments = [Countdown(2), Countdown(1)]
    asked = np.array([5.0, 7.0])
    rollout(policy, environments, [3, 4], target_returns=asked, progress=lambda *counts: told.append(counts))
    assert policy.begun == [(2, [3, 4], [5.0, 7.0], sys.maxsize)]
    assert told == [(2, 1), (3, 0)]


class Speaking(Countdown):
    """Says what to do, or nothing."""

    def __init__(self, mission) -> None:
        super().__init__(1)
        self.mission = mission

    def reset(self, *, seed=None, options=None):
        return super().reset()[0], {} if self.mission is None else {"mission": self.mission}


class Reading(Told):
    """Remembers what it was told to do."""

    reads_missions = True

    def instruct(self, missions, envs=None):
        self.missions = missions


def test_policies_that_read_are_told_what_each_episode_is_for():
    policy = Reading()
    rollout(policy, [Speaking("go left"), Speaking("")], [0, 0])
    assert policy.missions == ["go left", ""]
    with pytest.raises(InputError) as caught:
        rollout(policy, [Speaking("go left"), Speaking(None)], [0, 0])
    assert str(caught.value) == (
        "the environment says in no words what to do; evaluate agents that read in one that does"
    )
    rollout(Told(), [Speaking("go left")], [0])  # one that does not read is told nothing


class Seated(Told, StackPolicy):
    """Remembers of which run each episode was."""

    def seat(self, runs):
        self.runs = runs.tolist()


class Elsewhere:
    """In place of processes: remembers how many environments of each pool were asked for."""

    num_processes = 2

    def __init__(self) -> None:
        self.wanted: list[list[int]] = []

    def on_stage(self, wanted):
        self.wanted.append([number for _, number in wanted])
        return on_stage(wanted)


def test_runs_of_a_stack_play_their_own_episodes_where_the_crew_is(monkeypatch):
    monkeypatch.setattr(pool_module, "make_env", lambda *_, **__: Countdown(2))
    monkeypatch.setattr(pool_module, "MAX_LOCKSTEP", 3)
    policy, crew = Seated(), Elsewhere()
    started = time.perf_counter()
    with EnvironmentPool("a") as first, EnvironmentPool("b") as second:
        parts = [Played(first, [5.0, 6.0], 3, 1, None, place=4), Played(second, [7.0], 3, 2, None, place=0)]
        found = evaluate_all(policy, parts, crew=crew)
    passed = time.perf_counter() - started
    assert crew.wanted == [[4, 2], [2, 1]]  # six at once: three in each of two processes
    assert policy.runs == [4, 4, 0]
    (seeds, others), asked = (episode_seeds(1, 3), episode_seeds(2, 3)), [5.0, 5.0, 6.0, 6.0, 7.0, 7.0]
    assert policy.begun[0] == (6, [*seeds[:2], *seeds[:2], *others[:2]], asked, sys.maxsize)
    assert [[one.target_return for one in part] for part in found] == [[5.0, 6.0], [7.0]]
    assert found[0][0].env_seeds == found[0][1].env_seeds == tuple(seeds)
    assert found[1][0].env_seeds == tuple(others)
    assert 0 < 2 * found[0][0].seconds < passed and found[0][0].seconds == found[1][0].seconds


def test_ten_episodes_from_seed_zero_are_usual():
    (found,) = evaluate(FixedActions(ZERO), lambda: Solvable())
    assert found.env_seeds == tuple(episode_seeds(0, 10))

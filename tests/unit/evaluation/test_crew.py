"""Environments in other processes: the episodes that are played in this one, faults and refusals included."""

import contextlib
import os
import signal

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box

from chibit.core.errors import InputError, ResourceError
from chibit.environments.own import take_env
from chibit.evaluation.crew import Crew, _Player
from chibit.evaluation.pool import EnvironmentPool, Kind
from chibit.evaluation.rollout import Played, evaluate_all


class Lame(gym.Env):
    """Ends after as many steps as its seed says; some break, some cannot begin, some speak of success."""

    observation_space = Box(-np.inf, np.inf, (2,))
    action_space = Box(-1, 1, (1,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left, self.breaks = 3 + seed % 5, seed % 3 == 0
        if seed % 1000 == 999:
            raise RuntimeError("will not begin")
        return np.array([self.left, seed % 7]), {}

    def step(self, action):
        self.left -= 1
        if self.breaks and self.left == 1:
            raise RuntimeError(f"broke in process {os.getpid()}")
        info = {} if self.breaks else {"success": self.left == 2}
        return np.array([self.left, action[0]]), float(action[0]), self.left == 0, False, info


class Echo:
    """Acts by what it sees."""

    def reset(self, num_envs):
        self.num_envs = num_envs

    def act(self, observations):
        return np.sin(observations.sum(axis=1, keepdims=True)).astype(np.float32)

    def observe(self, rewards, dones):
        pass


@pytest.fixture(scope="module")
def crew():
    with Crew(2) as crew:
        yield crew


@pytest.fixture(scope="module")
def lame():
    return take_env(Lame)


def without_seconds(evaluations):
    return [[{**vars(one), "seconds": None} for one in part] for part in evaluations]


def test_a_crew_plays_the_episodes_of_one_process_whatever_breaks(crew, lame, caplog):
    with EnvironmentPool(lame) as pool, EnvironmentPool(lame, max_episode_steps=4) as shorter:
        parts = [Played(pool, (None, None), 7, 3, None), Played(shorter, (None,), 7, 4, (0.0, 1.0))]
        here = evaluate_all(Echo(), parts)
        for _ in range(2):  # the second time without the environments that broke
            there = evaluate_all(Echo(), parts, crew=crew)
            assert without_seconds(there) == without_seconds(here)
    assert {index for part in here for one in part for index in one.failed_episodes}
    assert any(any(one.successes) and not all(one.successes) for part in here for one in part)
    own = {line.rpartition(" ")[2] for line in caplog.text.splitlines() if "broke in process" in line}
    assert len(own) == 3 and str(os.getpid()) in own


def test_more_processes_than_episodes_leave_some_idle(crew, lame):
    with EnvironmentPool(lame) as pool:
        parts = [Played(pool, (None,), 1, 3, None)]
        assert without_seconds(evaluate_all(Echo(), parts, crew=crew)) == without_seconds(
            evaluate_all(Echo(), parts)
        )


def test_a_machine_of_many_cores_starts_no_more_processes_than_it_plays_episodes(lame, monkeypatch):
    started = []

    def start(self, number):
        started.append(number)
        self._members += [(None, None)] * number

    monkeypatch.setattr(Crew, "_start", start)
    many = Crew(200)
    with EnvironmentPool(lame) as pool:
        for episodes in (1, 3, 2):
            with many.on_stage([(pool, episodes)]) as stage:
                assert len(stage._members) == episodes
    assert started == [1, 2]


def test_simulations_are_those_of_one_process_to_the_bit(crew):
    class Shaky(Echo):
        def act(self, observations):
            return np.sin(100 * observations[:, :3]).astype(np.float32)

    with EnvironmentPool("Hopper-v5", max_episode_steps=40) as pool:
        parts = [Played(pool, (None,), 3, 5, None)]
        (here,), (there,) = evaluate_all(Shaky(), parts), evaluate_all(Shaky(), parts, crew=crew)
    assert here[0].episode_returns == there[0].episode_returns
    assert len(set(here[0].episode_returns)) == 3


def test_what_a_process_refuses_is_refused_and_the_crew_goes_on(crew, lame, monkeypatch):
    with EnvironmentPool(lame) as pool:
        part = Played(pool, (None,), 4, 0, None)
        monkeypatch.setattr("chibit.evaluation.rollout.episode_seeds", lambda *_: [1, 2, 1999, 4])
        with pytest.raises(InputError, match="cannot be reset .RuntimeError: will not begin"):
            evaluate_all(Echo(), [part], crew=crew)
        monkeypatch.setattr("chibit.evaluation.rollout.episode_seeds", lambda *_: [1, 2, 4, 5])
        assert evaluate_all(Echo(), [part], crew=crew)[0][0].failed_episodes == ()


class Strange(Exception):
    """Cannot be made again from what it keeps."""

    def __init__(self, one, other):
        super().__init__("strange")


class Odd(Lame):
    """Raises in its first step what nobody foresees, where its seed says so."""

    def step(self, action):
        if self.np_random_seed == 7:
            raise Strange(1, 2)
        return super().step(action)


def test_what_nobody_foresaw_is_told_and_the_crew_goes_on(monkeypatch):
    with EnvironmentPool(take_env(Odd)) as pool, Crew(2) as crew:
        part = Played(pool, (None,), 4, 0, None)
        monkeypatch.setattr("chibit.evaluation.rollout.episode_seeds", lambda *_: [1, 2, 7, 4])
        with pytest.raises(RuntimeError, match="an environment raised Strange: strange"):
            evaluate_all(Echo(), [part], crew=crew)
        monkeypatch.setattr("chibit.evaluation.rollout.episode_seeds", lambda *_: [1, 2, 4, 5])
        assert evaluate_all(Echo(), [part], crew=crew)[0][0].failed_episodes == ()


def test_a_process_that_was_killed_is_said(lame):
    with Crew(2) as crew, EnvironmentPool(lame) as pool:
        part = Played(pool, (None,), 4, 0, None)
        evaluate_all(Echo(), [part], crew=crew)
        process, _ = crew._members[1]
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        with pytest.raises(ResourceError, match="was killed"):
            evaluate_all(Echo(), [part], crew=crew)
        again = evaluate_all(Echo(), [part], crew=crew)  # by new processes
        assert without_seconds(again) == without_seconds(evaluate_all(Echo(), [part]))


def test_an_environment_that_failed_and_cannot_be_replaced_is_refused_once(lame, monkeypatch):
    kinds, dtype, refused = [Kind(lame, False, None)], np.dtype(np.float32), []

    def make(*args, **kwargs):
        if refused:
            raise refused.pop()
        return Lame()

    monkeypatch.setattr("chibit.evaluation.pool.make_env", make)
    with contextlib.ExitStack() as held:
        player = _Player(held)
        player.begin(kinds, [3], dtype)
        for _ in range(6):  # of that seed it breaks
            if player.step(np.zeros((1, 1)), np.array([0])).faults:
                break
        refused.append(InputError("no license is free"))
        with pytest.raises(InputError, match="no license"):
            player.begin(kinds, [4], dtype)
        seen, _ = player.begin(kinds, [4], dtype)
    assert seen.tolist() == [[7.0, 4.0]]

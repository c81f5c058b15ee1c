import gymnasium as gym
import numpy as np
import pytest

from chibit.core.errors import InputError
from chibit.environments.kinds import MemoryEnvironment
from chibit.environments.make import make_env
from chibit.environments.memory import BACK, DOWN, FORWARD, UP, KeyToDoor, TMaze
from chibit.environments.registry import ENVIRONMENTS, TASKS

MEMORY_IDS = [row.ids[0] for row in TASKS.values() if isinstance(row, MemoryEnvironment)]


def walk(env, actions, seed):
    """Observations, rewards and ends of a fixed list of actions."""
    seen = [env.reset(seed=seed)[0]]
    rewards, ends = [], []
    for action in actions:
        observation, reward, terminated, truncated, info = env.step(action)
        seen.append(observation)
        rewards.append(reward)
        ends.append((terminated, truncated, info))
        if terminated or truncated:
            break
    return np.stack(seen), rewards, ends


def seeds_with_both_cues(env, cue):
    by_cue = {}
    for seed in range(50):
        env.reset(seed=seed)
        by_cue.setdefault(cue(env), seed)
    return by_cue


def test_the_cue_is_in_the_first_observation_alone():
    env = TMaze(length=6, jitter=False)
    by_cue = seeds_with_both_cues(env, lambda env: env.cue)
    assert set(by_cue) == {1, -1}
    for cue, seed in by_cue.items():
        seen, _, _ = walk(env, [FORWARD] * 6, seed)
        assert seen[0, 0] == cue
        assert not seen[1:, 0].any()
        np.testing.assert_allclose(seen[:, 1], np.arange(7) / 6, rtol=1e-6)
        assert seen[:, 2].tolist() == [0] * 6 + [1]


@pytest.mark.parametrize("make", [lambda: TMaze(length=9), lambda: KeyToDoor(delay=4)])
def test_what_follows_the_cue_does_not_depend_on_it(make):
    """With the cue changed by hand after the reset, every later observation is the same to the bit."""
    env = make()
    for seed in range(10):
        seen = []
        for other in (False, True):
            env.reset(seed=seed)
            if isinstance(env, TMaze):
                env.cue *= -1 if other else 1
            else:
                env.color = (env.color + other) % 4
            late = [env.step(0)[0] for _ in range(4)]
            seen.append(np.stack(late[1:]))  # the key is shown in the first two steps
        np.testing.assert_array_equal(*seen)


def test_the_cued_arm_is_rewarded_and_either_ends_the_episode():
    env = TMaze(length=4, jitter=False)
    for cue, seed in seeds_with_both_cues(env, lambda env: env.cue).items():
        for arm in (UP, DOWN):
            _, rewards, ends = walk(env, [FORWARD] * 4 + [arm], seed)
            right = (arm == UP) == (cue == 1)
            assert rewards == [0, 0, 0, 0, float(right)]
            assert ends[-1] == (True, False, {"success": right})


def test_arms_do_nothing_within_the_corridor_and_the_walk_is_cut():
    env = TMaze(length=3, jitter=False)
    seen, rewards, ends = walk(env, [UP, BACK, FORWARD, DOWN, BACK, FORWARD, FORWARD], 0)
    np.testing.assert_allclose(seen[:, 1], np.array([0, 0, 0, 1, 1, 0, 1]) / 3, rtol=1e-6)
    assert len(rewards) == 6 and not any(rewards)
    assert ends[-1] == (False, True, {"success": False})


def test_jitter_draws_the_last_third_of_the_length():
    env = TMaze(length=15)
    junctions = set()
    for seed in range(200):
        env.reset(seed=seed)
        junctions.add(env.junction)
    assert junctions == {11, 12, 13, 14, 15}


def test_the_door_asks_for_the_color_after_the_delay():
    env = KeyToDoor(delay=5)
    for color, seed in seeds_with_both_cues(env, lambda env: env.color).items():
        seen, rewards, ends = walk(env, [0] * 7 + [color], seed)
        assert seen[:2, :4].argmax(1).tolist() == [color, color]
        assert not seen[2:, :4].any()
        assert seen[:-1, 4:7].argmax(1).tolist() == [0, 0, 1, 1, 1, 1, 1, 2]
        assert rewards == [0] * 7 + [1]
        assert ends[-1] == (True, False, {"success": True})
        _, rewards, ends = walk(env, [color] * 7 + [(color + 1) % 4], seed)
        assert sum(rewards) == 0 and ends[-1][2] == {"success": False}


@pytest.mark.parametrize("env_id", MEMORY_IDS)
def test_every_id_can_be_built_with_its_own_size_and_limit(env_id):
    row = ENVIRONMENTS[env_id]
    assert isinstance(row, MemoryEnvironment)
    env = make_env(env_id)
    name, size = row.setting
    assert getattr(env.unwrapped, name) == size
    assert env.spec.max_episode_steps == row.time_limit(env_id)
    assert env.observation_space.contains(env.reset(seed=0)[0])


def test_other_settings_by_gymnasium():
    env = gym.make("chibit/TMaze-v0", length=7, jitter=False)
    assert (env.unwrapped.length, env.unwrapped.junction) == (7, 7)
    assert gym.make("chibit/KeyToDoor-v0", delay=0).unwrapped.delay == 0


@pytest.mark.parametrize(("make", "setting"), [(TMaze, {"length": 0}), (KeyToDoor, {"delay": -1})])
def test_sizes_out_of_range_are_refused(make, setting):
    with pytest.raises(InputError, match=f"{next(iter(setting))}: got {next(iter(setting.values()))}"):
        make(**setting)


@pytest.mark.parametrize("env_id", ["chibit/TMaze15-v0", "chibit/KeyToDoor20-v0"])
def test_pictures_show_the_cue_and_then_do_not(env_id):
    env = make_env(env_id, render_mode="rgb_array")
    pictures = {}
    for seed in range(20):
        env.reset(seed=seed)
        cue = env.unwrapped.cue if "TMaze" in env_id else env.unwrapped.color
        first = env.render()
        env.step(0), env.step(0)
        pictures[cue] = (first, env.render())
    firsts, later = zip(*pictures.values(), strict=True)
    assert all(picture.shape == (96, 480, 3) and picture.dtype == np.uint8 for picture in firsts)
    assert len({picture.tobytes() for picture in firsts}) == len(pictures)
    if "KeyToDoor" in env_id:
        assert len({picture.tobytes() for picture in later}) == 1

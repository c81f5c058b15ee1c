import ale_py
import numpy as np
import pytest

import chibit.environments.atari
from chibit.core.errors import InputError
from chibit.environments.atari import (
    MAX_EPISODE_STEPS,
    AtariEnv,
    atari_env_id,
    has_sticky_actions,
)
from chibit.environments.kinds import AtariEnvironment
from chibit.environments.make import make_env, physics_record
from chibit.environments.registry import ENVIRONMENTS, GAMES


def trace(env, seed, actions):
    env.reset(seed=seed)
    return np.stack([env.step(action)[0][-1] for action in actions])


@pytest.fixture
def _no_noops(monkeypatch):
    monkeypatch.setattr(chibit.environments.atari, "MAX_NOOPS", 0)


@pytest.mark.parametrize("game", ["breakout", "qbert"])
@pytest.mark.usefixtures("_no_noops")
def test_pictures_and_rewards_are_those_of_ales_own_vector_environment(game):
    theirs = ale_py.AtariVectorEnv(
        game,
        num_envs=1,
        noop_max=0,
        use_fire_reset=False,
        reward_clipping=False,
        repeat_action_probability=0.0,
    )
    ours = make_env(atari_env_id(game.capitalize()))
    expected, _ = theirs.reset(seed=1)
    found, _ = ours.reset(seed=1)
    np.testing.assert_array_equal(found, expected[0])
    for action in np.random.default_rng(0).integers(ours.action_space.n, size=60):
        expected, reward, *_ = theirs.step(np.array([action]))
        found, own_reward, *_ = ours.step(action)
        # The same sums in another order: a value that falls on a half may be rounded the other way.
        difference = np.abs(found.astype(int) - expected[0])
        assert difference.max() <= 1 and (difference > 0).mean() < 1e-3
        assert own_reward == reward[0]
    theirs.close()


def test_an_observation_is_the_last_four_pictures_and_black_before_the_first():
    env = AtariEnv("BreakoutNoFrameskip-v4")
    first, _ = env.reset(seed=0)
    assert first.shape == (4, 84, 84) and first.dtype == np.uint8
    assert not first[:3].any() and first[3].any()
    seen = [first[3]]
    for action in (1, 2, 3, 2):
        observation = env.step(action)[0]
        seen.append(observation[3])
    np.testing.assert_array_equal(observation, np.stack(seen[-4:]))
    assert not env.reset(seed=0)[0][:3].any(), "nothing of the game before is left"


def test_a_seed_decides_the_start_and_another_gives_another():
    env = AtariEnv("PongNoFrameskip-v4")
    actions = [2, 3] * 10
    same = trace(env, 7, actions)
    np.testing.assert_array_equal(same, trace(AtariEnv("PongNoFrameskip-v4"), 7, actions))
    assert any((same != trace(env, seed, actions)).any() for seed in range(3))


@pytest.mark.usefixtures("_no_noops")
def test_only_sticky_actions_make_the_same_actions_end_differently():
    actions = [1, 2, 3] * 12
    plain, sticky = AtariEnv("BreakoutNoFrameskip-v4"), AtariEnv("ALE/Breakout-v5")
    np.testing.assert_array_equal(trace(plain, 0, actions), trace(plain, 1, actions))
    assert (trace(sticky, 0, actions) != trace(sticky, 1, actions)).any()
    np.testing.assert_array_equal(trace(sticky, 5, actions), trace(sticky, 5, actions))


def test_a_game_goes_on_when_a_life_is_lost_and_is_cut_at_the_limit():
    env = AtariEnv("BreakoutNoFrameskip-v4")
    _, info = env.reset(seed=0)
    lives, steps, terminated = info["lives"], 0, False
    while info["lives"] == lives:
        _, _, terminated, truncated, info = env.step(1)
        steps += 1
    assert not terminated and not truncated
    cut = make_env("BreakoutNoFrameskip-v4", max_episode_steps=3)
    cut.reset(seed=0)
    assert [cut.step(0)[2:4] for _ in range(3)] == [(False, False), (False, False), (False, True)]
    assert MAX_EPISODE_STEPS * 4 == 108_000


def test_ids_actions_and_the_record_of_the_physics():
    sizes = {game: AtariEnv(f"{game}NoFrameskip-v4").action_space.n for game in GAMES}
    assert sizes == {"Breakout": 4, "Qbert": 6, "Pong": 6, "Seaquest": 18}
    assert {row.name for row in ENVIRONMENTS.values() if isinstance(row, AtariEnvironment)} == set(GAMES)
    assert not has_sticky_actions("QbertNoFrameskip-v4") and has_sticky_actions("ALE/Qbert-v5")
    record = physics_record("ALE/Pong-v5", False)
    assert record["sticky_actions"] == 0.25 and record["frame_skip"] == 4 and record["ale"]
    with pytest.raises(InputError, match="cannot be built|can be built"):
        make_env("ALE/Enduro-v5")


def test_rewards_are_the_games_own():
    env = AtariEnv("QbertNoFrameskip-v4")
    env.reset(seed=0)
    generator = np.random.default_rng(0)
    rewards = {env.step(int(generator.integers(6)))[1] for _ in range(80)}
    assert 25.0 in rewards


def test_a_missing_ale_is_refused_by_the_name_of_its_extra(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "ale_py", None)
    with pytest.raises(InputError, match=r"chibit\[atari\]"):
        AtariEnv("PongNoFrameskip-v4")

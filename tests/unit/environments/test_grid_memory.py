import gymnasium as gym
import numpy as np
import pytest

from chibit.core.errors import InputError
from chibit.data.collect.grid_memory import play_grid_memory
from chibit.data.collect.scripted import collect_scripted
from chibit.data.load import load_dataset
from chibit.environments.kinds import GridMemoryEnvironment
from chibit.environments.make import make_env
from chibit.environments.registry import ENVIRONMENTS, TASKS

pytest.importorskip("minigrid")
IDS = [row.ids[0] for row in TASKS.values() if isinstance(row, GridMemoryEnvironment)]
NOT_SEEN, EMPTY, WALL, KEY, BALL = range(5)


def cells(observation):
    """(7, 7) numbers of what is seen, column by column; the agent is at column 3, row 6."""
    one_hot = observation[4:].reshape(7, 7, 5)
    assert (one_hot.sum(-1) == 1).all()
    return one_hot.argmax(-1)


def play(env, number, level="expert", index=0):
    return play_grid_memory(env.unwrapped, np.random.SeedSequence((0, number)), level, index)


@pytest.mark.parametrize("env_id", IDS)
def test_the_expert_is_always_right_and_well_within_the_limit(env_id):
    env = make_env(env_id)
    assert env.spec.max_episode_steps == ENVIRONMENTS[env_id].time_limit(env_id) == 4 * env.unwrapped.size
    assert env.observation_space.contains(env.reset(seed=0)[0])
    episodes = [play(env, number) for number in range(60)]
    assert all(episode.rewards.sum() == 1 and episode.terminated for episode in episodes)
    assert max(len(episode.rewards) for episode in episodes) <= env.spec.max_episode_steps / 3


def test_who_guesses_the_arm_is_right_half_the_time():
    env = make_env("chibit/MiniGridMemoryS7-v0")
    guesses = [play(env, number, "mixed", 1).rewards.sum() for number in range(400)]
    assert abs(np.mean(guesses) - 0.5) < 0.1  # four standard deviations
    assert all(play(env, number, "mixed", 0).rewards.sum() == 1 for number in range(20))


def test_the_last_turn_is_the_cue_seen_before_and_what_lies_where():
    """The answer is among the observations: the arm on whose side the cue's like lies."""
    env = make_env("chibit/MiniGridMemoryS13-v0")
    turns = set()
    for number in range(40):
        episode = play(env, number)
        rooms = env.unwrapped.rooms
        # To the left nothing but the cue is seen; it may be seen upwards already, or beside the start.
        order = [2, 3, 0]
        before = [seen for seen in episode.observations[:-2] if seen[:4].argmax() in order]
        looking = sorted(before, key=lambda seen: order.index(seen[:4].argmax()))
        cue = next(thing for seen in looking for thing in (KEY, BALL) if (cells(seen) == thing).any())
        assert cue == {"key": KEY, "ball": BALL}[rooms.grid.get(*env.unwrapped.cue).type]
        north = rooms.grid.get(rooms.success_pos[0], rooms.size // 2 - 2).type
        is_north = {"key": KEY, "ball": BALL}[north] == cue
        directions = [int(observation[:4].argmax()) for observation in episode.observations]
        assert directions[-1] == (3 if is_north else 1)
        turns.add(is_north)
    assert turns == {True, False}


def test_directions_and_cells_by_hand():
    env = make_env("chibit/MiniGridMemoryS7-v0").unwrapped
    observation, _ = env.reset(seed=3)
    assert observation[:4].tolist() == [1, 0, 0, 0]  # to the right
    after, reward, terminated, truncated, info = env.step(0)
    assert after[:4].tolist() == [0, 0, 0, 1]  # up
    assert (reward, terminated, truncated, info) == (0.0, False, False, {"success": False})
    view, grid = cells(after), env.rooms.grid
    column, row = env.rooms.agent_pos
    kinds = {None: EMPTY, "wall": WALL, "key": KEY, "ball": BALL}
    for across in range(7):
        for ahead in range(7):
            place = (column + across - 3, row + ahead - 6)
            if view[across, ahead] != NOT_SEEN and place != (column, row):
                thing = grid.get(*place)
                assert view[across, ahead] == kinds[thing and thing.type]
    for action in (3, 4, 5, 6):
        np.testing.assert_array_equal(env.step(action)[0], after)


def test_the_wrong_arm_ends_without_reward():
    env = make_env("chibit/MiniGridMemoryS7-v0")
    played = [play(env, number, "mixed", 1) for number in range(20)]
    wrong = [episode for episode in played if episode.rewards.sum() == 0]
    assert wrong and all(episode.terminated for episode in wrong)


def test_the_seed_decides_the_episode():
    env = make_env("chibit/MiniGridMemoryS13-v0")
    first, again, other = (env.reset(seed=seed)[0] for seed in (1, 1, 5))
    np.testing.assert_array_equal(first, again)
    follows = [env.reset()[0] for _ in range(20)]
    assert any(not np.array_equal(first, observation) for observation in [other, *follows])


def test_who_turns_forever_is_cut():
    env = gym.make("chibit/MiniGridMemory-v0", size=7)
    env.reset(seed=0)
    ends = [env.step(0)[2:4] for _ in range(5 * 7**2)]
    assert ends[-1] == (False, True) and set(ends[:-1]) == {(False, False)}


@pytest.mark.parametrize("size", [8, 5, -1])
def test_sizes_without_a_hall_are_refused(size):
    from chibit.environments.grid_memory import GridMemory

    with pytest.raises(InputError, match=f"size: got {size}, expected an odd number from 7"):
        GridMemory(size)


def test_a_set_is_collected_and_read(tmp_path):
    folder = collect_scripted("minigrid-memory-s7", num_steps=300, out=tmp_path, progress=False)
    assert folder == tmp_path / "chibit" / "minigrid-memory-s7" / "expert-v0"
    data = load_dataset(folder, cache=tmp_path / "home", progress=False)
    assert set(data.episode_returns.tolist()) == {1.0} and data.terminations.sum() == data.num_episodes
    assert (data.spec.env_id, data.spec.max_episode_steps) == ("chibit/MiniGridMemoryS7-v0", 28)
    assert data.observations.shape[1] == 249 and not data.notes
    assert set(np.unique(data.actions)) == {0, 1, 2}


def test_pictures(tmp_path):
    env = make_env("chibit/MiniGridMemoryS13-v0", render_mode="rgb_array")
    env.reset(seed=0)
    before = env.render()
    env.step(0)
    assert before.dtype == np.uint8 and before.ndim == 3
    assert not np.array_equal(before, env.render())

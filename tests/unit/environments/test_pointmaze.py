import tempfile
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from chibit.core.errors import InputError
from chibit.environments.make import make_env

pytest.importorskip("gymnasium_robotics")

from chibit.data.collect.pointmaze import Planner
from chibit.data.collect.scripted import collect_scripted
from chibit.data.load import load_dataset
from chibit.environments.pointmaze import GOAL_RADIUS, cell_distances, free_cells, longest_way

CORRIDOR = [
    [1, 1, 1, 1, 1],
    [1, 0, 0, 0, 1],
    [1, 1, 1, 0, 1],
    [1, 0, 1, 1, 1],
    [1, 1, 1, 1, 1],
]


def test_ways_by_hand():
    assert free_cells(CORRIDOR) == [(1, 1), (1, 2), (1, 3), (2, 3), (3, 1)]
    reached = {(2, 3): 0, (1, 3): 1, (1, 2): 2, (1, 1): 3}  # there is no way from (3, 1)
    assert cell_distances(CORRIDOR, (2, 3)) == reached
    assert longest_way(CORRIDOR) == ((2, 3), 3)


def test_an_episode_starts_far_from_the_one_goal_and_ends_there():
    env = make_env("chibit/PointMazeUMaze-v0")
    task = env.unwrapped
    far = {cell for cell, steps in cell_distances(task.map, task.goal_cell).items() if steps > 3}
    assert (task.goal_cell, task.longest) == ((3, 1), 6) and set(task.starts) == far
    seen = set()
    for seed in range(6):
        observation, _ = env.reset(seed=seed)
        seen.add(task.cell(observation[:2]))
        again, _ = env.reset(seed=seed)
        np.testing.assert_array_equal(observation, again)
        planner, over = Planner(task, task.goal_cell), False
        while not over:
            observation, reward, over, truncated, info = env.step(planner.act(observation).astype(np.float32))
            assert not truncated and reward == info["success"] == over
        assert np.linalg.norm(observation[:2] - task.center(task.goal_cell)) <= GOAL_RADIUS
    assert seen <= far and len(seen) > 1


@pytest.mark.parametrize(("flags", "said"), [({"maze": "medium"}, "maze: got"), ({"start": "near"}, "start")])
def test_another_maze_or_start_is_refused(flags, said):
    with pytest.raises(InputError, match=said):
        gym.make("chibit/PointMaze-v0", **flags)


def test_an_episode_is_cut_where_the_goal_is_not_reached():
    env = make_env("chibit/PointMazeUMaze-v0")
    env.reset(seed=0)
    ends = [env.step(np.zeros(2, np.float32))[1:] for _ in range(60)]
    assert [(reward, over) for reward, over, _, _ in ends] == [(0.0, False)] * 60
    assert [truncated for _, _, truncated, _ in ends] == [False] * 59 + [True]
    assert ends[-1][3]["success"] is False


def test_no_file_is_left_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for env_id in ("chibit/PointMazeUMaze-v0", "PointMaze_UMaze-v3"):
        make_env(env_id).close()
    assert list(tmp_path.iterdir()) == [] and tempfile.tempdir == str(tmp_path)


@pytest.fixture(scope="module")
def near(tmp_path_factory):
    place = tmp_path_factory.mktemp("near")
    folder = collect_scripted("pointmaze-medium-near", num_steps=3_000, out=place, progress=False)
    return load_dataset(folder, cache=place / "home", progress=False)


def test_near_data_hold_no_way_from_a_far_start_to_the_goal(near):
    task = make_env("chibit/PointMazeMedium-v0").unwrapped
    bounds = np.concatenate([[0], np.cumsum(near.episode_lengths)])
    starts = [task.cell(near.observations[first, :2]) for first in bounds[:-1]]
    is_far = np.array([cell in task.starts for cell in starts])
    assert task.goal_cell not in starts and near.episode_lengths.min() > 1
    assert is_far.sum() > 20 and near.episode_returns[is_far].max() == 0.0
    assert near.episode_returns.max() == 1.0  # some that are near arrive
    ends = near.terminations[bounds[1:] - 1]
    np.testing.assert_array_equal(ends, near.episode_returns == 1.0)
    assert near.spec.env_id == "chibit/PointMazeMedium-v0" and near.spec.score_reference == (0.0, 1.0)
    assert near.spec.state_dim == 4 and near.spec.act_dim == 2
    assert np.abs(near.actions).max() <= 1.0


def test_all_data_hold_whole_ways(tmp_path):
    folder = collect_scripted("pointmaze-umaze-all", num_steps=1_000, out=tmp_path, progress=False)
    data = load_dataset(folder, cache=tmp_path / "home", progress=False)
    task = make_env("chibit/PointMazeUMaze-v0").unwrapped
    first = np.concatenate([[0], np.cumsum(data.episode_lengths)[:-1]])
    far = [task.cell(data.observations[at, :2]) in task.starts for at in first]
    assert data.episode_returns[np.array(far)].max() == 1.0


def test_gymnasium_builds_other_forms():
    task = gym.make("chibit/PointMaze-v0", maze="UMaze", start="any").unwrapped
    assert set(task.starts) == set(free_cells(task.map)) - {task.goal_cell}
    assert (
        gym.spec("chibit/PointMaze-v0").max_episode_steps
        == gym.spec("chibit/PointMazeLarge-v0").max_episode_steps
    )
    assert Path(tempfile.gettempdir()).is_dir()

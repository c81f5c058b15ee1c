"""Which environment data belong to: by metadata, an exact known id or the user's word, not by a free name."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest

from chibit.core.errors import InputError
from chibit.data.environment import spec_in
from chibit.data.load import from_arrays, load_dataset
from chibit.environments.registry import ENVIRONMENTS
from chibit.reporting.published.scores import task_of


def write_npz(path, columns, **more):
    names = {"terminals": "terminations", "timeouts": "truncations"}
    np.savez(path, **{names.get(name, name): column for name, column in columns.items()}, **more)
    return path


def assert_means_nothing(spec):
    assert spec.env_id is None and spec.score_reference is None
    assert not spec.d4rl_physics
    assert task_of(spec.name) == (None, "other")


@pytest.mark.parametrize(
    "name", ["hopper-tank", "hopper_line3", "hopper-medium", "Hopper-v4", "halfcheetah", "pong"]
)
def test_a_free_name_means_nothing(name, home, tmp_path, hopper_columns, pendulum_episodes, to_columns):
    path = write_npz(tmp_path / f"{name}.npz", hopper_columns)
    dataset = load_dataset(path)
    assert dataset.spec.name == name
    assert_means_nothing(dataset.spec)
    assert dataset.spec.max_episode_steps == dataset.episode_lengths.max()
    assert dataset.spec.default_target_returns[0] == dataset.episode_returns.max()
    columns = to_columns(pendulum_episodes)
    swing = from_arrays(
        *(columns[key] for key in ("observations", "actions", "rewards", "terminals", "timeouts")),
        name=name,
        env_id="Pendulum-v1",
    )
    assert swing.spec.score_reference is None


@pytest.mark.parametrize("name", ["hopper-medium-v2", "Breakout", "walker2d-full-replay-v2", "Pong-10pct"])
def test_a_file_of_another_form_does_not_pass_for_a_published_set(name, home, tmp_path, hopper_columns):
    spec = load_dataset(write_npz(tmp_path / f"{name}.npz", hopper_columns)).spec
    assert spec.name == f"{name}.npz"
    assert_means_nothing(spec)


@pytest.mark.parametrize("dataset_id", ["hopper-medium-v2", "Breakout"])
def test_a_minari_set_does_not_pass_for_another_publishers(dataset_id, home, write_minari, hopper_episodes):
    folder = write_minari(hopper_episodes, dataset_id="test/hopper/medium-v2")
    path = folder / "data" / "metadata.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "dataset_id": dataset_id}))
    spec = load_dataset(folder).spec
    assert task_of(spec.name) == (None, "other")
    assert spec.env_id == "Hopper-v5"  # metadata say so


@pytest.mark.parametrize("name", ["hopper-medium-v2", "chibit/hopper/medium-v0", "Pong", "mujoco/x/y-v0"])
def test_arrays_cannot_be_called_like_a_published_set(name, home):
    with pytest.raises(InputError, match=f"^name: '{name}' is that of a published data set"):
        from_arrays(np.zeros((3, 1)), np.zeros((3, 1)), np.zeros(3), [0, 0, 1], name=name)


def test_a_file_with_d4rls_own_name_and_layout_is_d4rls(
    home, write_hdf5, write_pickle, hopper_columns, hopper_episodes
):
    for path in (write_hdf5(hopper_columns), write_pickle(hopper_episodes)):
        spec = load_dataset(path).spec
        assert (spec.name, spec.env_id, spec.d4rl_physics) == ("hopper-medium-v2", "Hopper-v4", True)
        assert spec.score_reference == ENVIRONMENTS["Hopper-v4"].score_reference


def test_an_environment_in_the_file_decides(home, tmp_path, hopper_columns):
    spec = load_dataset(write_npz(tmp_path / "halfcheetah-x.npz", hopper_columns, env_id="Hopper-v5")).spec
    assert spec.score_reference == ENVIRONMENTS["Hopper-v4"].score_reference
    assert spec.default_target_returns == (3600.0, 1800.0)


def test_the_users_word_names_the_environment(home, tmp_path, write_pickle, hopper_episodes):
    path = write_pickle(hopper_episodes, name="expert_data_Hopper.pkl")
    assert load_dataset(path).spec.env_id is None
    dataset = load_dataset(path, env_id="Hopper-v4")
    spec = dataset.spec
    assert (spec.env_id, spec.score_reference, spec.max_episode_steps) == (
        "Hopper-v4",
        ENVIRONMENTS["Hopper-v4"].score_reference,
        1000,
    )
    assert spec.action_low == (-1.0,) * 3 and spec.default_target_returns == (3600.0, 1800.0)
    assert dataset.content_hash == load_dataset(path).content_hash
    assert load_dataset(path).spec.env_id is None  # the kept copy holds what the file says
    assert load_dataset(dataset.folder, env_id="Hopper-v5").spec.env_id == "Hopper-v5"  # a store, too


def test_the_users_word_gives_bounds_and_actions(home, pendulum_episodes, cartpole_episodes, to_columns):
    def dataset(episodes, **options):
        columns = to_columns(episodes)
        names = ("observations", "actions", "rewards", "terminals", "timeouts")
        return from_arrays(*(columns[name] for name in names), **options)

    swing = load_dataset(dataset(pendulum_episodes).folder, env_id="Pendulum-v1").spec
    assert (swing.action_low, swing.action_high, swing.max_episode_steps) == ((-2.0,), (2.0,), 200)
    assert swing.default_target_returns == dataset(pendulum_episodes).spec.default_target_returns
    only_left = [{**episode, "actions": np.zeros_like(episode["actions"])} for episode in cartpole_episodes]
    assert dataset(only_left).spec.num_actions == 1
    assert load_dataset(dataset(only_left).folder, env_id="CartPole-v1").spec.num_actions == 2
    referenced = dataset(pendulum_episodes, score_reference=(-1200.0, -150.0))
    assert spec_in(referenced.spec, "Pendulum-v1").score_reference == (-1200.0, -150.0)


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("Walker2d-v4", "observations have 11 values, those of Walker2d-v4 have 17"),
        ("Hoper-v4", "did you mean"),
        ("InvertedDoublePendulum-v4", "have"),
        ("os:system", "not one that can be built here"),
        ("CartPole-v1", "have 4"),
    ],
)
def test_an_environment_that_does_not_fit_is_refused(env_id, message, home, write_pickle, hopper_episodes):
    path = write_pickle(hopper_episodes, name="mine.pkl")
    with pytest.raises(InputError, match=message):
        load_dataset(path, env_id=env_id)


def test_actions_beyond_the_named_environments_are_refused(home):
    actions = np.array([0, 1, 5, 1])
    dataset = from_arrays(np.zeros((4, 4)), actions, np.zeros(4), [0, 0, 0, 1])
    with pytest.raises(InputError, match="actions up to 5, those of CartPole-v1 are 0 to 1"):
        load_dataset(dataset.folder, env_id="CartPole-v1")


def test_a_list_of_trajectories_is_no_reason_to_run_anything(home, tmp_path):
    """The environment's name in a pickle is not looked at: there is no place for one."""
    episode = {name: np.zeros((2, 1), np.float32) for name in ("observations", "actions")}
    episode |= {"rewards": np.zeros(2, np.float32), "terminals": np.array([False, True])}
    path = tmp_path / "hopper-something.pkl"
    path.write_bytes(pickle.dumps([episode]))
    assert_means_nothing(load_dataset(path).spec)


def test_a_users_word_for_the_environment_decides_on_the_scale(tmp_path, hopper_columns):
    columns = {name: value for name, value in hopper_columns.items() if name != "env_id"}
    np.savez(tmp_path / "x.npz", **columns)
    assert load_dataset(tmp_path / "x.npz", cache=tmp_path).spec.return_scale != 1000.0
    assert load_dataset(tmp_path / "x.npz", env_id="Hopper-v4", cache=tmp_path).spec.return_scale == 1000.0


def test_the_longest_logged_episode_is_no_limit_of_a_grid(home):
    """Demonstrations are short; the environment gives a slower policy time."""
    pytest.importorskip("minigrid")
    env_id, ends = "MiniGrid-Empty-5x5-v0", np.arange(12) % 6 == 5
    dataset = from_arrays(np.zeros((12, 151)), np.full(12, 6), np.zeros(12), ends, env_id=env_id)
    assert dataset.episode_lengths.max() == 6 and dataset.spec.max_episode_steps == 100
    assert spec_in(replace(dataset.spec, env_id=None, max_episode_steps=6), env_id).max_episode_steps == 100

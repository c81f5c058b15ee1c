import contextlib
import json
import shutil

import gymnasium as gym
import h5py
import numpy as np
import pytest
from minari.serialization import serialize_space

from chibit.agents import AGENTS, make_agent
from chibit.core.errors import DamagedFileError, InputError, ResourceError
from chibit.core.runtime import Runtime
from chibit.data.inspect import find_notes
from chibit.data.load import load_dataset
from chibit.environments.make import make_env
from chibit.policy.policy import Policy


def edit_metadata(folder, **changes):
    """Change metadata of a written set; None removes a field."""
    path = folder / "data" / "metadata.json"
    metadata = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in metadata.items() if value is not None}))


def edit_spec(folder, **changes):
    metadata = json.loads((folder / "data" / "metadata.json").read_text())
    spec = json.dumps(json.loads(metadata["env_spec"]) | changes)
    edit_metadata(folder, env_spec=spec, eval_env_spec=None)


def edit_episodes(folder):
    return h5py.File(folder / "data" / "main_data.hdf5", "a")


def test_a_real_set_comes_through_unchanged(write_minari, hopper_episodes, home):
    folder = write_minari(hopper_episodes, requirements=["mujoco==3.2.3"], author="someone")
    dataset = load_dataset("test/hopper/random-v0")
    spec = dataset.spec
    assert (spec.name, spec.env_id, spec.d4rl_physics) == ("test/hopper/random-v0", "Hopper-v5", True)
    assert (spec.state_dim, spec.act_dim, spec.max_episode_steps) == (11, 3, 1000)
    assert spec.default_target_returns == (3600.0, 1800.0)
    assert dataset.num_episodes == len(hopper_episodes)
    for index, episode in enumerate(hopper_episodes):
        trajectory = dataset.trajectory(index)
        assert np.array_equal(trajectory.observations, episode["observations"][:-1].astype(np.float32))
        assert np.array_equal(trajectory.final_observation, episode["observations"][-1].astype(np.float32))
        assert np.array_equal(trajectory.actions, episode["actions"])
        assert np.array_equal(trajectory.rewards, episode["rewards"].astype(np.float32))
        assert np.array_equal(trajectory.terminations, episode["terminations"])
        assert np.array_equal(trajectory.truncations, episode["truncations"])
    for path in (folder, folder / "data", folder / "data" / "main_data.hdf5"):
        assert load_dataset(path).content_hash == dataset.content_hash


def test_discrete_actions(write_minari, cartpole_episodes, home):
    dataset = load_dataset(write_minari(cartpole_episodes, "CartPole-v1", "test/cart/random-v0"))
    assert (dataset.spec.num_actions, dataset.spec.act_dim, dataset.spec.env_id) == (2, 0, "CartPole-v1")
    assert dataset.actions.tolist() == np.concatenate([e["actions"] for e in cartpole_episodes]).tolist()
    assert dataset.episode_ends[:, 0].all()
    assert dataset.spec.max_episode_steps == 500


def test_bounds_and_limit_are_the_environments(write_minari, pendulum_episodes, home):
    dataset = load_dataset(write_minari(pendulum_episodes, "Pendulum-v1", "test/pendulum/random-v0"))
    assert (dataset.spec.action_low, dataset.spec.action_high) == ((-2.0,), (2.0,))
    assert dataset.spec.max_episode_steps == 200
    assert dataset.episode_ends.tolist() == [[False, True]] * 3
    best = float(dataset.episode_returns.max())
    assert best < 0
    assert dataset.spec.default_target_returns == (best, float(np.sort(dataset.episode_returns)[-2]))
    assert dataset.spec.score_reference is None


def test_score_references_come_from_the_metadata_first(write_minari, hopper_episodes, home):
    folder = write_minari(hopper_episodes)
    assert load_dataset(folder).spec.score_reference == (-20.272305, 3234.3)
    edit_metadata(folder, ref_min_score=10.0, ref_max_score=20)
    assert load_dataset(folder).spec.score_reference == (10.0, 20.0)
    edit_metadata(folder, ref_min_score=20.0, ref_max_score=float("nan"))
    assert load_dataset(folder).spec.score_reference == (-20.272305, 3234.3)


@pytest.mark.parametrize(
    ("requirements", "physics", "expected"),
    [
        (["mujoco==3.2.3"], None, True),
        (["gymnasium>=1", "mujoco>=3.1.0,<3.2.0"], None, True),
        (["mujoco<3.5"], None, True),
        (["mujoco==3.5.0"], None, False),
        (["mujoco>=3.1"], None, False),
        (["mujoco==4.0.0"], None, False),
        (None, None, False),
        (["not a requirement!", 3], None, False),
        (["mujoco==4.0.0"], {"d4rl_physics": True}, True),
        (["mujoco==3.2.3"], {"d4rl_physics": False}, False),
        (["mujoco==3.2.3"], {"d4rl_physics": "yes"}, True),
    ],
)
def test_contact_margins_follow_the_record_or_the_required_mujoco(
    write_minari, hopper_episodes, home, requirements, physics, expected
):
    folder = write_minari(hopper_episodes)
    edit_metadata(folder, requirements=requirements, physics=physics)
    assert load_dataset(folder).spec.d4rl_physics is expected


def test_an_environment_outside_the_list_leaves_training_only(write_minari, hopper_episodes, home, tmp_path):
    folder = write_minari(hopper_episodes)
    sentinel = tmp_path / "executed"
    edit_spec(folder, id="Strange-v0", entry_point="os:system", kwargs={"command": f"touch {sentinel}"})
    dataset = load_dataset(folder)
    assert dataset.spec.env_id is None
    assert any("'Strange-v0' is not one that can be built here" in note for note in dataset.notes)
    assert dataset.spec.max_episode_steps == 1000
    assert not sentinel.exists()


def test_an_entry_point_is_never_looked_at(write_minari, hopper_episodes, home, tmp_path):
    folder = write_minari(hopper_episodes)
    sentinel = tmp_path / "executed"
    edit_spec(folder, entry_point="os:system", kwargs={"command": f"touch {sentinel}"})
    assert load_dataset(folder).spec.env_id == "Hopper-v5"
    assert not sentinel.exists()


@pytest.mark.parametrize("env_id", ["os:system", "gymnasium.envs.mujoco:Hopper-v5", ["Hopper-v5"], 7])
def test_ids_that_are_no_plain_names_are_not_used(write_minari, hopper_episodes, home, env_id):
    folder = write_minari(hopper_episodes)
    edit_spec(folder, id=env_id)
    assert load_dataset(folder).spec.env_id is None


def test_options_of_the_environment_are_said(write_minari, hopper_episodes, home):
    folder = write_minari(hopper_episodes)
    edit_spec(folder, kwargs={"ctrl_cost_weight": 0.5, "render_mode": "rgb_array"})
    dataset = load_dataset(folder)
    assert dataset.spec.env_id == "Hopper-v5"
    assert any("with ctrl_cost_weight=0.5: evaluated without" in note for note in dataset.notes)
    assert not any("render_mode" in note for note in dataset.notes)


def test_options_that_change_the_shape_leave_training_only(write_minari, home):
    rng = np.random.default_rng(0)
    episode = {
        "observations": rng.normal(size=(11, 12)),
        "actions": rng.uniform(-1, 1, (10, 3)).astype(np.float32),
        "rewards": rng.normal(size=10),
        "terminations": np.arange(10) == 9,
        "truncations": np.zeros(10, bool),
    }
    spaces = {
        "observation_space": gym.spaces.Box(-np.inf, np.inf, (12,)),
        "action_space": gym.spaces.Box(-1, 1, (3,)),
    }
    folder = write_minari([episode], **spaces)
    with pytest.raises(InputError, match="observations have 12 values, those of Hopper-v5 have 11"):
        load_dataset(folder)
    edit_spec(folder, kwargs={"exclude_current_positions_from_observation": False})
    dataset = load_dataset(folder)
    assert (dataset.spec.env_id, dataset.spec.state_dim) == (None, 12)
    assert any("observations have 12 values" in note for note in dataset.notes)


def test_a_time_limit_in_the_metadata_counts(write_minari, hopper_episodes, home):
    folder = write_minari(hopper_episodes)
    edit_spec(folder, max_episode_steps=25)
    assert load_dataset(folder).spec.max_episode_steps == 25


def test_without_an_environment_the_spaces_give_the_bounds(write_minari, home):
    rng = np.random.default_rng(0)
    episode = {
        "observations": rng.normal(size=(11, 2)).astype(np.float32),
        "actions": rng.uniform(-3, 3, (10, 1)).astype(np.float32),
        "rewards": rng.normal(size=10),
        "terminations": np.arange(10) == 9,
        "truncations": np.zeros(10, bool),
    }
    spaces = {
        "observation_space": gym.spaces.Box(-np.inf, np.inf, (2,)),
        "action_space": gym.spaces.Box(-3, 3, (1,)),
    }
    dataset = load_dataset(write_minari([episode], env_id=None, **spaces))
    assert dataset.spec.env_id is None
    assert (dataset.spec.action_low, dataset.spec.action_high) == ((-3.0,), (3.0,))
    assert dataset.spec.max_episode_steps == 10


def test_a_bound_that_is_not_finite_leaves_the_others_as_declared(write_minari, home):
    actions = np.stack([np.linspace(5, 90, 10), np.linspace(-2, 1, 10)], axis=1).astype(np.float32)
    episode = {
        "observations": np.zeros((11, 2), np.float32),
        "actions": actions,
        "rewards": np.zeros(10),
        "terminations": np.arange(10) == 9,
        "truncations": np.zeros(10, bool),
    }
    low, high = np.float32([0, -np.inf]), np.float32([100, np.inf])
    spaces = {
        "observation_space": gym.spaces.Box(-np.inf, np.inf, (2,)),
        "action_space": gym.spaces.Box(low, high),
    }
    spec = load_dataset(write_minari([episode], env_id=None, **spaces)).spec
    assert (spec.action_low, spec.action_high) == ((0.0, -2.0), (100.0, 1.0))


def test_dictionary_observations_are_flattened_as_gymnasium_does(write_minari, home):
    rng = np.random.default_rng(0)
    space = gym.spaces.Dict(
        {
            "observation": gym.spaces.Box(-np.inf, np.inf, (4,)),
            "desired_goal": gym.spaces.Box(-np.inf, np.inf, (2,)),
            "achieved_goal": gym.spaces.Dict({"x": gym.spaces.Box(-np.inf, np.inf, (1,))}),
        }
    )
    observations = {
        "observation": rng.normal(size=(11, 4)).astype(np.float32),
        "desired_goal": rng.normal(size=(11, 2)).astype(np.float32),
        "achieved_goal": {"x": rng.normal(size=(11, 1)).astype(np.float32)},
    }
    episode = {
        "observations": observations,
        "actions": rng.uniform(-1, 1, (10, 2)).astype(np.float32),
        "rewards": rng.normal(size=10),
        "terminations": np.zeros(10, bool),
        "truncations": np.arange(10) == 9,
    }
    action_space = gym.spaces.Box(-1, 1, (2,))
    folder = write_minari([episode], env_id=None, observation_space=space, action_space=action_space)
    dataset = load_dataset(folder)
    first = {
        "observation": observations["observation"][0],
        "desired_goal": observations["desired_goal"][0],
        "achieved_goal": {"x": observations["achieved_goal"]["x"][0]},
    }
    assert np.array_equal(dataset.observations[0], gym.spaces.flatten(space, first))
    assert dataset.spec.state_dim == 7


def test_the_place_of_a_maze_is_read_once_and_its_policy_acts_on_the_same_columns(write_minari, home):
    """PointMaze's achieved_goal only repeats the first columns of its observation."""
    pytest.importorskip("gymnasium_robotics")
    env = make_env("PointMaze_UMaze-v3")
    width = env.observation_space.shape[0]
    env.close()
    rng = np.random.default_rng(0)
    parts = {"achieved_goal": 2, "desired_goal": 2, "observation": 4}
    space = gym.spaces.Dict({name: gym.spaces.Box(-np.inf, np.inf, (size,)) for name, size in parts.items()})
    observations = {name: rng.normal(size=(11, size)).astype(np.float32) for name, size in parts.items()}
    episode = discrete_episode(observations) | {"actions": rng.uniform(-1, 1, (10, 2)).astype(np.float32)}
    folder = write_minari(
        [episode],
        env_id="PointMaze_UMaze-v3",
        observation_space=space,
        action_space=gym.spaces.Box(-1, 1, (2,)),
    )
    dataset = load_dataset(folder)
    kept = [observations["desired_goal"], observations["observation"]]
    np.testing.assert_array_equal(dataset.observations, np.concatenate(kept, axis=1)[:10])
    assert dataset.spec.state_dim == width == 6
    assert [part.path for part in dataset.spec.observation_parts] == [("desired_goal",), ("observation",)]


def discrete_episode(observations):
    return {
        "observations": observations,
        "actions": np.zeros((10, 1), np.float32),
        "rewards": np.zeros(10),
        "terminations": np.zeros(10, bool),
        "truncations": np.arange(10) == 9,
    }


DISCRETE_SPACES = {
    "one number": gym.spaces.Discrete(4, start=2),
    "several": gym.spaces.MultiDiscrete([3, 2], start=[1, 0]),
    "in rows": gym.spaces.MultiDiscrete([[3, 2], [2, 4]]),
    "among others": gym.spaces.Dict(
        {
            "position": gym.spaces.Box(-1, 1, (2,), np.float32),
            "direction": gym.spaces.Discrete(4),
            "inner": gym.spaces.Dict({"room": gym.spaces.Discrete(3), "flags": gym.spaces.MultiBinary(2)}),
        }
    ),
}


@pytest.mark.parametrize("kind", DISCRETE_SPACES)
def test_discrete_observations_are_one_hot_as_gymnasium_flattens_them(kind, write_minari, home):
    space = DISCRETE_SPACES[kind]
    space.seed(0)
    seen = [space.sample() for _ in range(11)]

    def stacked(values):
        if isinstance(values[0], dict):
            return {key: stacked([value[key] for value in values]) for key in values[0]}
        return np.array(values)

    box = gym.spaces.Box(-1, 1, (1,))
    folder = write_minari(
        [discrete_episode(stacked(seen))], env_id=None, observation_space=space, action_space=box
    )
    dataset = load_dataset(folder, progress=False)
    expected = np.array([gym.spaces.flatten(space, value) for value in seen], np.float32)
    assert np.array_equal(dataset.observations, expected[:-1])
    assert np.array_equal(dataset.final_observations, expected[-1:])
    assert dataset.spec.state_dim == gym.spaces.flatdim(space)
    policy = Policy(make_agent(AGENTS["bc"].config(hidden_sizes=(8,)), dataset.spec, Runtime()), dataset.spec)
    actions = []
    for observation in (seen[3], expected[3]):
        policy.reset()
        actions.append(policy.act(observation))
    assert np.array_equal(*actions)
    parts = [("/".join(part.path), part.width) for part in dataset.spec.observation_parts]
    assert (
        parts
        == {
            "one number": [("", 4)],
            "several": [("", 5)],
            "in rows": [("", 11)],
            "among others": [("direction", 4), ("inner/flags", 2), ("inner/room", 3), ("position", 2)],
        }[kind]
    )


@pytest.mark.parametrize(
    ("space", "values", "message"),
    [
        (gym.spaces.Discrete(4), [4] * 11, "observation 0 is 4, expected a whole number from 0 to 3"),
        (gym.spaces.Discrete(4, start=2), [2] * 7 + [1] * 4, "observation 7 is 1, expected .* from 2 to 5"),
        (gym.spaces.Discrete(5000), [4] * 11, "5,000 values, expected at most 4,096"),
        (gym.spaces.MultiDiscrete([2, 2]), [0] * 11, "has 2 discrete parts"),
        (
            gym.spaces.Dict({"a": gym.spaces.Discrete(2), "b": gym.spaces.Discrete(2)}),
            [0] * 11,
            "have 1 parts",
        ),
    ],
)
def test_discrete_observations_that_do_not_fit_are_refused(space, values, message, write_minari, home):
    box = gym.spaces.Box(-1, 1, (1,))
    episode = discrete_episode(np.array(values))
    folder = write_minari(
        [episode], env_id=None, observation_space=gym.spaces.Discrete(9000), action_space=box
    )
    edit_metadata(folder, observation_space=serialize_space(space))
    with pytest.raises(InputError, match=message) as caught:
        load_dataset(folder, progress=False)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "space",
    [
        {"type": "Discrete"},
        {"type": "Discrete", "n": 0},
        {"type": "Discrete", "n": "4"},
        {"type": "Discrete", "n": 10**400},
        {"type": "MultiDiscrete", "nvec": 3},
        {"type": "MultiDiscrete", "nvec": [3, [2]]},
        {"type": "MultiDiscrete", "nvec": [3], "start": [0, 0]},
        {"type": "Dict", "subspaces": {"a": {"type": "Discrete", "n": True}}},
    ],
)
def test_a_discrete_space_that_makes_no_sense_is_refused(space, write_minari, hopper_episodes, home):
    folder = write_minari(hopper_episodes)
    edit_metadata(folder, observation_space=json.dumps(space))
    with pytest.raises(DamagedFileError, match="discrete observation space"):
        load_dataset(folder, progress=False)


def test_plain_observations_have_no_parts(write_minari, hopper_episodes, home):
    assert load_dataset(write_minari(hopper_episodes), progress=False).spec.observation_parts == ()


def test_episodes_without_steps_are_left_out_and_said(write_minari, hopper_episodes, home):
    folder = write_minari(hopper_episodes)
    with edit_episodes(folder) as file:
        for name in ("actions", "rewards", "terminations", "truncations"):
            values = file["episode_2"][name][:0]
            del file["episode_2"][name]
            file["episode_2"][name] = values
    edit_metadata(folder, total_steps=None)
    dataset = load_dataset(folder)
    assert dataset.num_episodes == len(hopper_episodes) - 1
    assert "left out 1 of 8 episodes: they have no steps" in dataset.notes


def test_an_episode_without_a_mark_at_its_end_counts_as_truncated(write_minari, hopper_episodes, home):
    folder = write_minari(hopper_episodes)
    with edit_episodes(folder) as file:
        for name in ("terminations", "truncations"):
            file["episode_3"][name][-1] = False
    dataset = load_dataset(folder)
    assert dataset.num_episodes == len(hopper_episodes)
    assert dataset.episode_ends[3].tolist() == [False, True]
    assert "1 of 8 episodes have no mark at their end: taken as truncated" in dataset.notes


def test_an_episode_that_ends_and_goes_on_is_cut(write_minari, hopper_episodes, home):
    folder = write_minari(hopper_episodes)
    with edit_episodes(folder) as file:
        file["episode_0"]["terminations"][4] = True
    dataset = load_dataset(folder)
    assert dataset.num_episodes == len(hopper_episodes) + 1
    assert dataset.episode_lengths[0] == 5
    expected = hopper_episodes[0]["observations"][5].astype(np.float32)
    assert np.array_equal(dataset.final_observations[0], expected)
    assert np.array_equal(dataset.observations[5], expected)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("rewards", lambda x: x[:-1], "episode_1: columns differ in length"),
        ("observations", lambda x: x[:-1], "one observation more"),
        ("actions", lambda x: x[:, :2], "differ in shape from earlier"),
        ("observations", lambda x: x[:, None], "vectors, or pictures"),
        ("terminations", lambda x: x * 0.5 + 0.5, "expected 0 or 1"),
    ],
)
def test_episodes_that_do_not_fit_are_refused(write_minari, hopper_episodes, home, name, change, message):
    folder = write_minari(hopper_episodes)
    with edit_episodes(folder) as file:
        values = change(file["episode_1"][name][:])
        del file["episode_1"][name]
        file["episode_1"][name] = values
    with pytest.raises(InputError, match=message):
        load_dataset(folder)


def test_a_value_that_is_not_finite_is_refused_with_its_place(write_minari, hopper_episodes, home):
    folder = write_minari(hopper_episodes)
    with edit_episodes(folder) as file:
        file["episode_1"]["observations"][3, 7] = np.nan
    with pytest.raises(InputError, match=r"observations, column 7 of row \d+ \(episode 1, step 3\) is nan"):
        load_dataset(folder)


@pytest.mark.parametrize("missing", ["rewards", "observations", "truncations"])
def test_a_missing_column_is_named(write_minari, hopper_episodes, home, missing):
    folder = write_minari(hopper_episodes)
    with edit_episodes(folder) as file:
        del file["episode_0"][missing]
    with pytest.raises(InputError, match=f"no episode_0/{missing}; found actions"):
        load_dataset(folder)


def test_an_incomplete_set_is_noticed(write_minari, hopper_episodes, home):
    folder = write_minari(hopper_episodes)
    edit_metadata(folder, total_steps=10**6)
    with pytest.raises(DamagedFileError, match=r"total_steps is \d+, metadata.json says 1000000"):
        load_dataset(folder)
    with edit_episodes(folder) as file:
        del file["episode_7"]
    with pytest.raises(DamagedFileError, match=r"total_episodes is 7, metadata.json says 8"):
        load_dataset(folder)
    with edit_episodes(folder) as file:
        del file["episode_3"]
    with pytest.raises(DamagedFileError, match="episode_3 is missing"):
        load_dataset(folder)


def test_links_between_files_are_not_followed(write_minari, hopper_episodes, home, tmp_path):
    folder = write_minari(hopper_episodes)
    shutil.copy(folder / "data" / "main_data.hdf5", tmp_path / "other.hdf5")
    with edit_episodes(folder) as file:
        del file["episode_1"]
        file["episode_1"] = h5py.ExternalLink(str(tmp_path / "other.hdf5"), "/episode_1")
    with pytest.raises(DamagedFileError, match="/episode_1: external link"):
        load_dataset(folder)


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "{" * 100_000])
def test_damaged_metadata_are_refused(write_minari, hopper_episodes, home, content):
    folder = write_minari(hopper_episodes)
    (folder / "data" / "metadata.json").write_text(content)
    with pytest.raises(DamagedFileError, match=r"metadata\.json"):
        load_dataset(folder)


@pytest.mark.parametrize("field", ["env_spec", "observation_space", "action_space"])
@pytest.mark.parametrize("text", ["x", "[]", "3"])
def test_a_field_of_metadata_that_is_no_object_is_refused_by_name(
    write_minari, hopper_episodes, home, field, text
):
    folder = write_minari(hopper_episodes)
    edit_metadata(folder, eval_env_spec=None, **{field: text})  # which goes before the other
    with pytest.raises(DamagedFileError, match=rf"metadata\.json: .*{field}"):
        load_dataset(folder)


def test_a_missing_main_file_is_refused(write_minari, hopper_episodes, home):
    folder = write_minari(hopper_episodes)
    (folder / "data" / "main_data.hdf5").unlink()
    with pytest.raises(InputError, match=r"main_data\.hdf5: no such file"):
        load_dataset(folder)


@pytest.mark.parametrize("name", ["../../escape-v0", "a\nb-v0", "x" * 4000, "a#b"])
def test_names_in_metadata_cannot_become_paths(write_minari, hopper_episodes, home, name):
    folder = write_minari(hopper_episodes)
    edit_metadata(folder, dataset_id=name)
    with pytest.raises(InputError, match="data set name .* is not allowed"):
        load_dataset(folder)


@pytest.mark.parametrize(("low", "high"), [([-1], [1, 1, 1]), ([-1, -1], [1, 1])])
def test_bounds_of_another_size_are_refused(write_minari, hopper_episodes, home, low, high):
    folder = write_minari(hopper_episodes)
    edit_metadata(folder, action_space=json.dumps({"type": "Box", "low": low, "high": high}))
    with pytest.raises(
        DamagedFileError, match=r"metadata\.json: action_space has bounds for .* actions have 3"
    ):
        load_dataset(folder)


def steps(observations, actions=None, num_steps=10):
    """An episode of ten steps."""
    return {
        "observations": observations,
        "actions": np.zeros((num_steps, 1), np.float32) if actions is None else actions,
        "rewards": np.arange(num_steps, dtype=float),
        "terminations": np.zeros(num_steps, bool),
        "truncations": np.arange(num_steps) == num_steps - 1,
    }


BOX = gym.spaces.Box(-1, 1, (1,))


def test_actions_that_begin_elsewhere_are_counted_from_zero(write_minari, home):
    actions = np.arange(10) % 3 + 5
    space = gym.spaces.Discrete(3, start=5)
    episode = steps(np.zeros((11, 2), np.float32), actions)
    spaces = {"observation_space": gym.spaces.Box(-1, 1, (2,)), "action_space": space}
    dataset = load_dataset(write_minari([episode], env_id=None, **spaces), progress=False)
    assert (dataset.spec.num_actions, dataset.actions.tolist()) == (3, (actions - 5).tolist())
    assert any("actions begin at 5 in the source and at 0 here" in note for note in dataset.notes)


@pytest.mark.parametrize(
    ("space", "how"),
    [
        (
            gym.spaces.Tuple([BOX, gym.spaces.Discrete(2)]),
            "Tuple space.*put the parts of an action side by side",
        ),
        (gym.spaces.Dict({"grip": BOX}), "Dict space, expected a vector or numbers from 0; put the parts"),
        (gym.spaces.MultiDiscrete([2, 3]), "MultiDiscrete space.*number the combinations from 0"),
        (gym.spaces.MultiBinary(3), "MultiBinary space.*or give them as floats"),
    ],
)
def test_actions_of_parts_are_refused_with_what_to_do(space, how, write_minari, home):
    folder = write_minari(
        [steps(np.zeros((11, 2), np.float32))],
        env_id=None,
        observation_space=gym.spaces.Box(-1, 1, (2,)),
        action_space=BOX,
    )
    edit_metadata(folder, action_space=serialize_space(space))
    with pytest.raises(InputError, match=how) as caught:
        load_dataset(folder, progress=False)
    assert "\n" not in str(caught.value)


def test_arrays_and_tuples_are_flattened_as_gymnasium_does(write_minari, home):
    space = gym.spaces.Tuple(
        [
            gym.spaces.Box(-1, 1, (2, 3), np.float32),
            gym.spaces.Discrete(3),
            gym.spaces.Dict(
                {"grid": gym.spaces.Box(0, 255, (4, 4, 3), np.uint8), "on": gym.spaces.MultiBinary(2)}
            ),
        ]
    )
    space.seed(0)
    seen = [space.sample() for _ in range(11)]
    arrays, numbers, rest = zip(*seen, strict=True)
    observations = (
        np.array(arrays),
        np.array(numbers),
        {key: np.array([each[key] for each in rest]) for key in ("grid", "on")},
    )
    action_space = gym.spaces.Box(-2, 3, (1, 2), np.float32)
    episode = steps(observations, np.ones((10, 1, 2), np.float32))
    for data_format in ("hdf5", "arrow"):
        folder = write_minari(
            [episode],
            env_id=None,
            dataset_id=f"test/{data_format}-v0",
            observation_space=space,
            action_space=action_space,
            data_format=data_format,
        )
        dataset = load_dataset(folder, progress=False)
        expected = np.array([gym.spaces.flatten(space, value) for value in seen], np.float32)
        assert np.array_equal(dataset.observations, expected[:-1])
        assert (dataset.spec.act_dim, dataset.spec.action_high) == (2, (3.0, 3.0))
        assert any("observations are 0 (6), 1 (3), 2/grid (48), 2/on (2), side" in n for n in dataset.notes)


def pictures(num, *shape):
    """Smooth ones, which JPEG changes little."""
    waves = np.sin(np.arange(num)[:, None, None] / 3 + np.arange(40)[:, None] / 9 + np.arange(44) / 7)
    gray = (127 + 120 * waves).astype(np.uint8)
    return np.repeat(gray[..., None], 3, axis=3) if shape else gray


@pytest.mark.parametrize("data_format", ["hdf5", "arrow"])
@pytest.mark.parametrize("jpeg", [True, False])
@pytest.mark.parametrize("colors", [(), (3,)])
def test_pictures_become_frames(write_minari, home, data_format, jpeg, colors):
    seen = pictures(11, *colors)
    folder = write_minari(
        [steps(seen, np.arange(10) % 2), steps(seen[::-1].copy(), np.arange(10) % 2)],
        env_id=None,
        observation_space=gym.spaces.Box(0, 255, (40, 44, *colors), np.uint8),
        action_space=gym.spaces.Discrete(2),
        data_format=data_format,
        jpeg_encoding=jpeg,
    )
    dataset = load_dataset(folder, progress=False)
    assert dataset.spec.image_shape == (1, 40, 44)
    expected = pictures(11)[:-1].astype(int)
    difference = np.abs(dataset.frames[:10].astype(int) - expected).max()
    assert difference <= (12 if jpeg else 0)
    assert np.abs(dataset.frames[10].astype(int) - pictures(11)[-1]).max() <= 12
    assert any("gray" in note for note in dataset.notes)


def test_pictures_of_another_size_leave_training_only(write_minari, home):
    """As Minari's sets of Atari, whose screens are 210 x 160."""
    folder = write_minari(
        [steps(pictures(11, 3), np.arange(10) % 2)],
        env_id=None,
        observation_space=gym.spaces.Box(0, 255, (40, 44, 3), np.uint8),
        action_space=gym.spaces.Discrete(2),
    )
    edit_metadata(folder, eval_env_spec=json.dumps({"id": "CartPole-v1"}))
    dataset = load_dataset(folder, progress=False)
    assert dataset.spec.env_id is None
    said = "observations are pictures of shape (1, 40, 44), those of CartPole-v1 have 4 values"
    assert any(said in note for note in dataset.notes)


def test_numbers_that_were_stored_as_pictures_are_refused(write_minari, home):
    """As Minari 0.5.3 did with every array of bytes."""
    space = gym.spaces.Box(0, 255, (5,), np.uint8)
    folder = write_minari(
        [steps(np.zeros((11, 5), np.uint8))], env_id=None, observation_space=space, action_space=BOX
    )
    with edit_episodes(folder) as file:
        del file["episode_0/observations"]
        data = [np.arange(20 + i, dtype=np.uint8) for i in range(11)]
        file["episode_0"].create_dataset("observations", (11,), h5py.vlen_dtype(np.uint8))[:] = data
    with pytest.raises(InputError, match=r"shape \(5,\) are stored as text or JPEG, which changes numbers"):
        load_dataset(folder, progress=False)


def test_a_picture_of_another_size_and_no_picture_are_refused(write_minari, home):
    folder = write_minari(
        [steps(pictures(11))],
        env_id=None,
        observation_space=gym.spaces.Box(0, 255, (40, 44), np.uint8),
        action_space=BOX,
    )
    edit_metadata(folder, observation_space=serialize_space(gym.spaces.Box(0, 255, (80, 44), np.uint8)))
    with pytest.raises(DamagedFileError, match="a picture of 40 x 44, expected"):
        load_dataset(folder, progress=False)
    with edit_episodes(folder) as file:
        del file["episode_0/observations"]
        file["episode_0/observations"] = np.zeros((11, 30), np.uint8)
    with pytest.raises(DamagedFileError, match="damaged JPEG file"):
        load_dataset(folder, progress=False)


@pytest.mark.parametrize("data_format", ["hdf5", "arrow"])
def test_missions_are_kept_beside_the_episodes(write_minari, home, data_format):
    """As in Minari's sets of MiniGrid: a grid, a direction and a text that every step repeats."""
    space = gym.spaces.Dict(
        {
            "direction": gym.spaces.Discrete(4),
            "image": gym.spaces.Box(0, 255, (7, 7, 3), np.uint8),
            "mission": gym.spaces.Text(64),
        }
    )
    rng = np.random.default_rng(0)

    def seen(mission):
        image = rng.integers(0, 10, (11, 7, 7, 3), dtype=np.uint8)
        return {"direction": rng.integers(0, 4, 11), "image": image, "mission": [mission] * 11}

    missions = ["go to the red ball", "pick up the key", "go to the red box"]
    folder = write_minari(
        [steps(seen(mission), rng.integers(0, 7, 10)) for mission in missions],
        env_id=None,
        observation_space=space,
        action_space=gym.spaces.Discrete(7),
        data_format=data_format,
    )
    dataset = load_dataset(folder, progress=False)
    assert dataset.missions.tolist() == missions
    assert dataset.spec.state_dim == 4 + 147
    assert load_dataset(dataset.folder).missions.tolist() == missions
    [note] = [note for note in find_notes(dataset) if "what an episode is for" in note]
    assert "3 texts" in note and "'go to the red ball'" in note and "other agents are refused" in note
    assert dataset.random_fraction(0.34, 0).missions.shape == (1,)
    with edit_episodes(folder) if data_format == "hdf5" else contextlib.nullcontext() as file:
        if file is None:
            return
        file["episode_1/observations/mission"][4] = "do nothing"
    changed = load_dataset(folder, progress=False)
    assert changed.missions.tolist() == missions
    assert "the text changes within 1 episodes: its first is kept" in changed.notes
    with edit_episodes(folder) as file:
        del file["episode_1/observations/mission"]
        text = {"data": np.full(11, b"pick up"), "chunks": (11,), "compression": "gzip"}
        file.create_dataset("episode_1/observations/mission", **text).id.write_direct_chunk((0,), b"broken")
    rest = load_dataset(folder, skip_damaged=True, progress=False)
    assert rest.missions.tolist() == [missions[0], missions[2]] and rest.num_steps == 20


def test_another_format_is_read_by_minari_or_refused(write_minari, hopper_episodes, home):
    folder = write_minari(hopper_episodes)
    edit_metadata(folder, data_format="zarr")
    with pytest.raises(InputError, match="data format 'zarr'; expected hdf5, arrow or parquet"):
        load_dataset(folder)
    # Without both spaces Minari itself would build the environment, from the file's entry point.
    edit_metadata(folder, data_format="arrow", observation_space=None)
    with pytest.raises(DamagedFileError, match="no observation_space"):
        load_dataset(folder)


@pytest.mark.parametrize("data_format", ["arrow", "parquet"])
def test_arrow_sets_are_those_of_hdf5(write_minari, hopper_episodes, home, data_format):
    pytest.importorskip("pyarrow", reason="needs minari[arrow]")
    name = f"test/hopper/{data_format}-v0"
    arrow = load_dataset(write_minari(hopper_episodes, dataset_id=name, data_format=data_format))
    assert arrow.content_hash == load_dataset(write_minari(hopper_episodes)).content_hash


@pytest.mark.parametrize("data_format", ["arrow", "parquet"])
def test_damaged_episodes_of_arrow_sets_are_left_out_where_asked(
    write_minari, hopper_episodes, home, data_format
):
    pytest.importorskip("pyarrow", reason="needs minari[arrow]")
    episodes = [dict(episode) for episode in hopper_episodes]
    episodes[2]["rewards"] = np.full_like(episodes[2]["rewards"], np.nan)
    folder = write_minari(episodes, data_format=data_format)
    [file] = (path for path in (folder / "data" / "1").iterdir() if path.suffix == f".{data_format}")
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(DamagedFileError, match="damaged Arrow files"):
        load_dataset(folder, progress=False)
    dataset = load_dataset(folder, skip_damaged=True, progress=False)
    lengths = [len(episode["rewards"]) for episode in episodes]
    assert dataset.episode_lengths.tolist() == [n for i, n in enumerate(lengths) if i not in (1, 2)]
    assert f"left out 1 of {len(lengths)} episodes: damaged" in dataset.notes


def test_an_unknown_remote_set_is_refused_within_seconds(home, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ResourceError, match=r"mujoco/hopper/medium-v0: not in .* `minari download"):
        load_dataset("mujoco/hopper/medium-v0", progress=False)
    with pytest.raises(InputError, match="unknown data set 'mujoco/hopper/medium-v0'"):
        load_dataset("mujoco/hopper/medium-v0", download=False)


def test_damaged_episodes_are_left_out_and_counted_where_asked(write_minari, hopper_episodes, home):
    folder = write_minari(hopper_episodes)
    with edit_episodes(folder) as file:
        rewards = file["episode_0/rewards"][:-1]
        del file["episode_0/rewards"], file["episode_2/actions"]
        file["episode_0/rewards"] = rewards
    with pytest.raises(InputError, match="episode_0: columns differ in length"):
        load_dataset(folder, progress=False)
    dataset = load_dataset(folder, skip_damaged=True, progress=False)
    lengths = [len(episode["rewards"]) for episode in hopper_episodes]
    assert dataset.episode_lengths.tolist() == [n for i, n in enumerate(lengths) if i not in (0, 2)]
    assert f"left out 2 of {len(lengths)} episodes: damaged" in dataset.notes
    with pytest.raises(InputError, match="leave --columns, --episode-length and --continuous-actions out"):
        load_dataset(folder, episode_length=3, progress=False)

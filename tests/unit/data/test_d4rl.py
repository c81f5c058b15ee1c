import threading
from collections import Counter
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler

import numpy as np
import pytest

from chibit.core.errors import InputError, ResourceError
from chibit.data.fetch import download
from chibit.data.load import load_dataset
from chibit.data.readers import d4rl
from chibit.data.readers.d4rl import find_id, find_or_download, read_d4rl
from chibit.environments.d4rl import D4RL_SETS


def test_all_published_ids_are_known():
    domains = Counter(known.environment for known in D4RL_SETS.values())
    assert {name: domains[name] for name in ("hopper", "antmaze", "maze2d", "door", "kitchen")} == {
        "hopper": 6, "antmaze": 12, "maze2d": 8, "door": 6, "kitchen": 3,
    }  # fmt: skip
    assert {"hopper-medium-v2", "ant-full-replay-v2", "antmaze-large-play-v2", "pen-human-v1"} <= set(
        D4RL_SETS
    )
    assert len({known.stem for known in D4RL_SETS.values()}) == len(D4RL_SETS)


@pytest.mark.parametrize(
    ("dataset_id", "num_columns", "num_actions", "steps"),
    [("pen-human-v1", 45, 24, 100), ("pen-expert-v0", 45, 24, 100), ("door-human-v1", 39, 28, 200)],
)
def test_hands_are_played_for_as_long_as_d4rls_scores_mean(
    dataset_id, num_columns, num_actions, steps, write_hdf5, home
):
    """d4rl/hand_manipulation_suite: 100 steps of pen, although its demonstrations have 200."""
    pytest.importorskip("gymnasium_robotics")
    columns = maze(400, num_columns, num_actions, timeouts=np.arange(400) % 200 == 199)
    del columns["infos/goal"]
    dataset = load_dataset(write_hdf5(columns, f"{dataset_id}.hdf5"), progress=False)
    assert dataset.episode_lengths.tolist() == [200, 200] and dataset.spec.env_id is not None
    assert dataset.spec.max_episode_steps == steps


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("hopper_medium_replay-v2", "hopper-medium-replay-v2"),
        ("hopper-medium-v2", "hopper-medium-v2"),
        ("hopper-medium-v0", None),
        ("antmaze-umaze-v2", "antmaze-umaze-v2"),
        ("Ant_maze_u-maze_noisy_multistart_False_multigoal_False_sparse_fixed", "antmaze-umaze-v2"),
        ("maze2d-large-sparse-v1", "maze2d-large-v1"),
        ("kitchen_microwave_kettle_light_slider-v0", "kitchen-partial-v0"),
        ("mydata", None),
    ],
)
def test_ids_are_found_in_file_names(name, found):
    assert find_id(name) == found


def test_a_file_becomes_the_data_set_of_its_name(write_hdf5, hopper_columns, hopper_episodes, home):
    dataset = load_dataset(write_hdf5(hopper_columns, compression="gzip"))
    spec = dataset.spec
    assert (spec.name, spec.env_id, spec.d4rl_physics) == ("hopper-medium-v2", "Hopper-v4", True)
    assert (spec.state_dim, spec.act_dim, spec.num_actions, spec.max_episode_steps) == (11, 3, None, 1000)
    assert spec.score_reference == (-20.272305, 3234.3)
    assert spec.default_target_returns == (3600.0, 1800.0)
    assert (spec.action_low, spec.action_high) == ((-1.0,) * 3, (1.0,) * 3)
    assert dataset.num_episodes == len(hopper_episodes)
    for index, episode in enumerate(hopper_episodes):
        trajectory = dataset.trajectory(index)
        assert np.array_equal(trajectory.observations, episode["observations"][:-1].astype(np.float32))
        assert np.array_equal(trajectory.final_observation, episode["observations"][-1].astype(np.float32))
        assert np.array_equal(trajectory.actions, episode["actions"])
        assert trajectory.terminations[-1] == episode["terminations"][-1]
        assert trajectory.truncations[-1] == episode["truncations"][-1]


def test_the_tail_is_dropped_and_said(write_hdf5, hopper_columns, home):
    hopper_columns["timeouts"][-1] = hopper_columns["terminals"][-1] = False
    dataset = load_dataset(write_hdf5(hopper_columns))
    assert dataset.num_steps < len(hopper_columns["rewards"])
    assert any("an episode without an end" in note for note in dataset.notes)


def test_without_timeouts_the_registered_limit_cuts(write_hdf5, home):
    num_steps = 2500
    rng = np.random.default_rng(0)
    columns = {
        "observations": rng.normal(size=(num_steps, 17)),
        "actions": rng.uniform(-1, 1, (num_steps, 6)),
        "rewards": rng.normal(size=num_steps),
        "terminals": np.arange(num_steps) == 1299,
    }
    dataset = load_dataset(write_hdf5(columns, "halfcheetah_expert-v2.hdf5"))
    assert dataset.episode_lengths.tolist() == [1000, 300, 1000]
    assert dataset.episode_ends.tolist() == [[False, True], [True, False], [False, True]]
    assert any("limit of 1000 steps" in note for note in dataset.notes)
    assert dataset.final_observations is None


def test_an_episode_may_be_longer_than_the_limit(write_hdf5, home):
    rng = np.random.default_rng(0)
    columns = {
        "observations": rng.normal(size=(1500, 17)),
        "actions": rng.uniform(-1, 1, (1500, 6)),
        "rewards": rng.normal(size=1500),
        "terminals": np.zeros(1500, bool),
        "timeouts": np.arange(1500) == 1499,
    }
    dataset = load_dataset(write_hdf5(columns, "walker2d-expert-v2.hdf5"))
    assert dataset.episode_lengths.tolist() == [1500]
    assert dataset.timesteps[-1] == 1499


def test_contact_forces_of_the_ant_are_left_out(write_hdf5, home):
    rng = np.random.default_rng(0)
    columns = {
        "observations": rng.normal(size=(30, 111)),
        "next_observations": rng.normal(size=(30, 111)),
        "actions": rng.uniform(-1, 1, (30, 8)),
        "rewards": rng.normal(size=30),
        "terminals": np.arange(30) == 29,
        "timeouts": np.zeros(30, bool),
    }
    dataset = load_dataset(write_hdf5(columns, "ant_medium-v2.hdf5"))
    assert (dataset.spec.state_dim, dataset.spec.env_id) == (27, "Ant-v4")
    assert np.array_equal(dataset.observations, columns["observations"][:, :27].astype(np.float32))
    assert any("27 of 111" in note for note in dataset.notes)


def test_a_file_of_another_name_has_no_environment(write_hdf5, hopper_columns, home):
    dataset = load_dataset(write_hdf5(hopper_columns, "mine.hdf5"))
    assert (dataset.spec.name, dataset.spec.env_id) == ("mine", None)
    assert dataset.spec.max_episode_steps == dataset.episode_lengths.max()
    best = float(dataset.episode_returns.max())
    assert dataset.spec.default_target_returns == (best, float(np.sort(dataset.episode_returns)[-2]))
    assert any("no environment" in note for note in dataset.notes)


@pytest.mark.parametrize(
    ("column", "width", "message"),
    [
        ("observations", 12, "observations have 12 values, those of Hopper-v4 have 11"),
        ("actions", 2, "actions have 2 values, those of Hopper-v4 have 3"),
    ],
)
def test_sizes_unlike_the_environment_are_refused(write_hdf5, hopper_columns, home, column, width, message):
    del hopper_columns["next_observations"]
    hopper_columns[column] = np.zeros((len(hopper_columns["rewards"]), width), np.float32)
    with pytest.raises(InputError, match=message):
        load_dataset(write_hdf5(hopper_columns))
    assert not (home / "stores").exists() or not list((home / "stores").iterdir())


def test_integer_actions_are_refused_for_hopper(write_hdf5, hopper_columns, home):
    hopper_columns["actions"] = np.zeros(len(hopper_columns["rewards"]), int)
    with pytest.raises(InputError, match="those of Hopper-v4 quantities, 3 a step, to be saved as floats"):
        load_dataset(write_hdf5(hopper_columns))


@pytest.mark.parametrize("missing", ["observations", "actions", "rewards", "terminals"])
def test_missing_columns_are_named(write_hdf5, hopper_columns, missing):
    del hopper_columns[missing]
    named = missing.replace("terminals", "terminations")
    with pytest.raises(InputError, match=f"no {named}; found "), read_d4rl(write_hdf5(hopper_columns)):
        pass


def test_columns_of_unequal_length_are_refused(write_hdf5, hopper_columns):
    hopper_columns["rewards"] = hopper_columns["rewards"][:-1]
    with pytest.raises(InputError, match="columns differ in length"), read_d4rl(write_hdf5(hopper_columns)):
        pass


@pytest.mark.parametrize("name", ["hopper_medium-v2.hdf5", "hopper-medium-v2.hdf5"])
@pytest.mark.parametrize("place", ["given", "d4rl"])
def test_an_id_is_found_in_the_data_folder_and_in_that_of_d4rl(
    write_hdf5, hopper_columns, home, tmp_path, name, place
):
    folder = tmp_path / place  # D4RL_DATASET_DIR is tmp_path / "d4rl"
    folder.mkdir()
    write_hdf5(hopper_columns).rename(folder / name)
    dataset = load_dataset("hopper-medium-v2", data_folder=tmp_path / "given", download=False)
    assert dataset.spec.name == "hopper-medium-v2"
    assert dataset.provenance == {"kind": "d4rl", "path": str(folder / name)}


def test_without_network_the_message_says_what_to_fetch_and_where_to_put_it(home, tmp_path):
    with pytest.raises(InputError, match=r"put http://.*/gym_mujoco_v2/hopper_medium-v2\.hdf5 there"):
        load_dataset("hopper-medium-v2", data_folder=tmp_path, download=False)
    closed = "http://127.0.0.1:9"
    with pytest.raises(ResourceError, match=r"hopper_medium-v2\.hdf5: cannot be fetched .* put it into"):
        find_or_download("hopper-medium-v2", tmp_path, allow_download=True, progress=False, url=closed)


def test_a_missing_id_is_fetched_and_kept(write_hdf5, hopper_columns, home, monkeypatch):
    source = write_hdf5(hopper_columns)
    asked = []

    def fetch(url, target, *, progress):
        asked.append(url)
        target.parent.mkdir(parents=True)
        target.write_bytes(source.read_bytes())
        return target

    assert download is d4rl.download
    monkeypatch.setattr(d4rl, "download", fetch)
    first = load_dataset("hopper-medium-v2", progress=False)
    second = load_dataset("hopper-medium-v2", progress=False)
    assert asked == [f"{d4rl.URL}/gym_mujoco_v2/hopper_medium-v2.hdf5"]
    assert first.folder == second.folder
    assert first.content_hash == second.content_hash


def maze(num_steps, width, actions, **columns):
    """A walk in the layout of D4RL's mazes."""
    rng = np.random.default_rng(0)
    none = np.zeros(num_steps, bool)
    return {
        "observations": rng.normal(size=(num_steps, width)).astype(np.float32),
        "actions": rng.uniform(-1, 1, (num_steps, actions)).astype(np.float32),
        "rewards": np.zeros(num_steps, np.float32),
        "terminals": none,
        "timeouts": none,
        "infos/goal": np.zeros((num_steps, 2), np.float32),
        **columns,
    }


def test_a_goal_that_stays_flagged_ends_one_episode_and_is_said(write_hdf5, home):
    flags = np.zeros(100, bool)
    flags[30:40] = flags[80:90] = True
    ends = np.isin(np.arange(100), [59, 99])
    columns = maze(100, 29, 8, terminals=flags, timeouts=ends, rewards=flags.astype(np.float32))
    path = write_hdf5(columns, "antmaze-umaze-v2.hdf5")
    dataset = load_dataset(path, progress=False)
    assert dataset.episode_lengths.tolist() == [31, 20, 21, 10]
    assert dataset.episode_returns.tolist() == [1, 0, 1, 0]
    assert any(
        "left out 18 steps: the goal of the episode before is still flagged" in n for n in dataset.notes
    )
    assert dataset.spec.score_reference == (0.0, 1.0)
    assert dataset.spec.env_id is None
    assert any("no environment of today" in note for note in dataset.notes)
    others = load_dataset(write_hdf5(columns, "mine.hdf5"), progress=False)
    assert others.episode_lengths.tolist() == [31, *[1] * 9, 20, 21, *[1] * 9, 10]


def test_a_walk_without_ends_is_cut_where_the_goal_changes(write_hdf5, home):
    goal = np.repeat([[1, 1], [2, 5], [1, 1], [3, 3]], 10, axis=0).astype(np.float32)
    path = write_hdf5(maze(40, 4, 2, **{"infos/goal": goal}), "maze2d-umaze-sparse-v1.hdf5")
    dataset = load_dataset(path, progress=False)
    assert (dataset.spec.name, dataset.episode_starts.tolist()) == ("maze2d-umaze-v1", [0, 10, 20, 30])
    assert dataset.spec.score_reference == (23.85, 161.86)
    assert any("cut 3 times where the goal changes" in note for note in dataset.notes)
    assert load_dataset(path, episode_length=8, progress=False).episode_lengths.tolist() == [8] * 5


@pytest.mark.parametrize("goal", [np.arange(6.0), np.float32(1), np.arange(3.0), np.bytes_(b"north")])
def test_goals_of_other_files_change_nothing(write_hdf5, home, goal):
    """Where a column tells episodes apart, or what has the name is no column of goals."""
    episode = np.repeat([0, 1], 3)
    columns = maze(6, 2, 1, **{"infos/goal": goal}, episode=episode)
    assert load_dataset(write_hdf5(columns, "log.h5"), progress=False).episode_lengths.tolist() == [3, 3]
    if goal.shape != (6,):
        del columns["episode"]
        with pytest.raises(InputError, match="none of 6 steps ends an episode"):
            load_dataset(write_hdf5(columns, "flat.h5"), progress=False)


def test_columns_of_hdf5_may_have_any_name(write_hdf5, hopper_columns, home):
    names = {"observations": "seen", "actions": "done_there", "terminals": "over"}
    columns = {names.get(name, name): column for name, column in hopper_columns.items()}
    path = write_hdf5(columns, "log.h5")
    mapping = ["observations=seen", "actions=done_there", "terminations=over"]
    dataset = load_dataset(path, columns=mapping, progress=False)
    assert dataset.content_hash == load_dataset(write_hdf5(hopper_columns), progress=False).content_hash
    with pytest.raises(InputError, match="no column 'sen' for observations; found .*mean 'seen'"):
        load_dataset(path, columns=["observations=sen"], progress=False)


def test_every_domain_is_fetched_by_id_from_a_server(write_hdf5, tmp_path, home, monkeypatch):
    """From the path below the server's that D4RL itself names."""
    kitchen = maze(20, 60, 9, terminals=np.arange(20) % 10 == 9)
    del kitchen["infos/goal"], kitchen["timeouts"]
    door = maze(20, 39, 28, timeouts=np.arange(20) % 10 == 9)
    files = {
        "antmaze-medium-play-v2": maze(20, 29, 8, timeouts=np.arange(20) % 10 == 9),
        "maze2d-open-dense-v0": maze(20, 4, 2, timeouts=np.arange(20) % 10 == 9),
        "door-human-v1": door,
        "kitchen-mixed-v0": kitchen,
    }
    served = tmp_path / "served"
    for dataset_id, columns in files.items():
        target = served / D4RL_SETS[dataset_id].file
        target.parent.mkdir(parents=True, exist_ok=True)
        write_hdf5(columns, "x.hdf5").rename(target)
    quiet = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    with HTTPServer(("127.0.0.1", 0), partial(quiet, directory=served)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(d4rl.find_or_download, "__kwdefaults__", {"url": url})
        found = {dataset_id: load_dataset(dataset_id, progress=False) for dataset_id in files}
        with pytest.raises(ResourceError, match=r"pen-human-v1\.hdf5: cannot be fetched \(File not found"):
            load_dataset("pen-human-v1", progress=False)
        server.shutdown()
    assert {name: dataset.spec.name for name, dataset in found.items()} == {name: name for name in files}
    assert [dataset.num_episodes for dataset in found.values()] == [2] * 4
    assert found["door-human-v1"].spec.score_reference == (-56.512833, 2880.5693087298737)
    assert found["kitchen-mixed-v0"].spec.score_reference == (0.0, 4.0)


def test_an_unknown_maze_is_not_taken_for_an_ant(home):
    with pytest.raises(
        InputError, match="unknown data set 'antmaze-umaze-v1'; did you mean 'antmaze-umaze-v"
    ):
        load_dataset("antmaze-umaze-v1", progress=False)
    with pytest.raises(InputError, match=r"put http://.*sparse_fixed\.hdf5 there"):
        load_dataset("antmaze-umaze-v2", download=False, progress=False)

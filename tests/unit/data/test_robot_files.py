"""HDF5 files of other libraries: d3rlpy's dumps and robomimic's demonstrations."""

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from chibit.core.errors import DamagedFileError, InputError
from chibit.data.load import load_dataset
from log_files import write_demos

DUMP = Path(__file__).parent / "files" / "d3rlpy_2_8_1.h5"
"""Written by d3rlpy 2.8.1 itself: `MDPDataset(...).dump(file)`, two episodes of 5 and 7 steps."""


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("CHIBIT_HOME", str(tmp_path / "home"))


def load(path, **options):
    return load_dataset(path, progress=False, **options)


def test_a_dump_of_d3rlpy_is_read():
    dataset = load(DUMP)
    assert dataset.episode_starts.tolist() == [0, 5, 12]
    assert dataset.episode_ends.tolist() == [[True, False], [False, True]]
    assert (dataset.spec.state_dim, dataset.spec.act_dim) == (3, 2)
    rng = np.random.default_rng(0)
    assert np.array_equal(dataset.observations, rng.normal(size=(12, 3)).astype(np.float32))
    assert np.array_equal(dataset.actions, rng.uniform(-1, 1, (12, 2)).astype(np.float32))


def test_a_dump_with_discrete_actions_and_the_flat_version_are_read(tmp_path):
    actions = np.array([[0], [2], [1], [1]])
    with h5py.File(tmp_path / "two.h5", "w") as file:
        file["columns"] = ["observations", "actions", "rewards", "terminated"]
        file["num_episodes"], file["version"] = 1, "2.1"
        file["observations_0"], file["actions_0"] = np.ones((4, 2), np.float32), actions
        file["rewards_0"], file["terminated_0"] = np.ones((4, 1), np.float32), True
    dataset = load(tmp_path / "two.h5")
    assert dataset.actions.tolist() == [0, 2, 1, 1]
    with h5py.File(tmp_path / "one.h5", "w") as file:
        file["observations"], file["actions"] = np.ones((4, 2), np.float32), actions
        file["rewards"], file["terminals"] = np.ones(4, np.float32), np.array([0, 1, 0, 0], np.float32)
        file["episode_terminals"] = np.array([0, 1, 0, 1], np.float32)
        file["discrete_action"] = True
    dataset = load(tmp_path / "one.h5")
    assert dataset.episode_ends.tolist() == [[True, False], [False, True]]
    assert dataset.spec.num_actions == 3


def test_a_dump_that_lacks_an_episode_or_has_tuples_is_refused(tmp_path):
    path = tmp_path / "dump.h5"
    path.write_bytes(DUMP.read_bytes())
    with pytest.raises(InputError, match="a dump of d3rlpy says what its columns are"):
        load(path, columns=["actions=a"])
    with pytest.raises(InputError, match=r"dump\.h5: has no part 'train'"):
        load(f"{path}:train")
    with h5py.File(path, "a") as file:
        del file["rewards_0"]
    with pytest.raises(DamagedFileError, match="episodes are missing"):
        load(path)
    with h5py.File(path, "a") as file:
        file["rewards_0"], file["observations_0_0"] = np.ones(5), np.ones((5, 3))
    with pytest.raises(InputError, match="observations are tuples"):
        load(path)


def test_demonstrations_are_read_an_episode_a_group(tmp_path):
    path = write_demos(tmp_path / "lift.hdf5")
    dataset = load(path)
    assert dataset.episode_starts.tolist() == [0, 6, 10, 15]
    assert dataset.episode_ends.tolist() == [[True, False], [False, True], [True, False]]
    assert dataset.episode_returns.tolist() == [2, 2, 2]
    assert (dataset.spec.state_dim, dataset.spec.act_dim) == (13, 7)
    assert dataset.observations[6, 0] == 10
    with h5py.File(path) as file:
        last = file["data/demo_0/next_obs/robot0_eef_pos"][-1].astype(np.float32)
        assert np.array_equal(dataset.final_observations[0, 10:], last)
    notes = "\n".join(dataset.notes)
    assert "observations are object, robot0_eef_pos, side by side" in notes
    assert "left out pictures: agentview_image" in notes
    assert "filter keys are train (2), valid (1), as in lift.hdf5:train" in notes


@pytest.mark.parametrize(
    "more", [{"data": np.zeros(3)}, {"data": "made in May"}, {"data/notes": np.zeros(3)}]
)
def test_a_flat_file_with_a_member_of_that_name_is_read_as_such(tmp_path, more):
    columns = {
        "obs": np.ones((6, 2)),
        "act": np.ones((6, 1)),
        "reward": np.ones(6),
        "done": np.arange(6) == 5,
    }
    with h5py.File(tmp_path / "log.h5", "w") as file:
        for name, column in {**columns, **more}.items():
            file[name] = column
    assert load(tmp_path / "log.h5").episode_lengths.tolist() == [6]


def test_keys_and_filter_keys_are_chosen(tmp_path):
    path = write_demos(tmp_path / "lift.hdf5")
    dataset = load(path, columns=["observations=robot0_eef_pos"])
    assert dataset.spec.state_dim == 3
    assert load(path, columns=["observations=states"]).spec.state_dim == 32
    train, valid = load(f"{path}:train"), load(f"{path}:valid")
    assert (train.spec.name, train.episode_lengths.tolist()) == ("lift-train", [6, 5])
    assert (valid.spec.name, valid.episode_lengths.tolist()) == ("lift-valid", [4])
    with pytest.raises(InputError, match=r"no filter key 'test'; found train \(2\), valid \(1\)"):
        load(f"{path}:test")
    with pytest.raises(InputError, match="data/demo_0: no column 'objekt' for observations;.*mean 'object'"):
        load(path, columns=["observations=objekt"])


def test_a_picture_is_chosen_where_there_are_no_numbers(tmp_path):
    path = write_demos(tmp_path / "lift.hdf5", mask=False)
    with h5py.File(path, "a") as file:
        for demo in file["data"].values():
            for group in ("obs", "next_obs"):
                del demo[f"{group}/object"], demo[f"{group}/robot0_eef_pos"]
    with pytest.raises(
        InputError, match="pictures alone; choose one: --columns observations=agentview_image"
    ):
        load(path)
    dataset = load(path, columns=["observations=agentview_image"])
    assert (dataset.spec.image_shape, dataset.frames.shape) == ((1, 84, 84), (15, 84, 84))


def test_demonstrations_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"demo_0: no obs; found actions, .*dataset_states_to_obs"):
        load(write_demos(tmp_path / "raw.hdf5", obs=False))
    path = write_demos(tmp_path / "odd.hdf5")
    with h5py.File(path, "a") as file:
        del file["data/demo_1/actions"]
        file["data/demo_1/actions"] = np.zeros((4, 6))
    with pytest.raises(InputError, match=r"demo_1: actions of a step have shape \(6,\), before \(7,\)"):
        load(path)
    with h5py.File(path, "a") as file:
        del file["data/demo_1"]
    with pytest.raises(DamagedFileError, match="mask/valid names 'demo_1', which is missing"):
        load(f"{path}:valid")
    with h5py.File(path, "w") as file:
        file.create_group("data")
    with pytest.raises(InputError, match="no demonstrations"):
        load(path)


def test_demonstrations_may_lack_rewards_and_ends(tmp_path):
    path = write_demos(tmp_path / "raw.hdf5", obs=False)
    with h5py.File(path, "a") as file:
        for demo in file["data"].values():
            del demo["rewards"], demo["dones"]
    dataset = load(path, columns=["observations=states"])
    assert not dataset.rewards.any()
    assert dataset.episode_ends.tolist() == [[False, True]] * 3
    assert {"no rewards recorded: all are 0", "no ends recorded: episodes were cut"} <= set(dataset.notes)


def test_episodes_without_steps_are_counted_and_damaged_ones_left_out_where_asked(tmp_path):
    path = write_demos(tmp_path / "odd.hdf5", lengths=(6, 4, 0, 5, 3), mask=False)
    assert "left out 1 of 5 episodes: they have no steps" in load(path).notes
    with h5py.File(path, "a") as file:  # a writer that was killed, and one that lost a row
        del file["data/demo_4/obs/object"], file["data/demo_1/actions"]
        file["data/demo_1/actions"] = np.zeros((3, 7))
    with pytest.raises(InputError, match="demo_1: columns differ in length"):
        load(path)
    dataset = load(path, skip_damaged=True)
    assert dataset.episode_lengths.tolist() == [6, 5]
    assert dataset.observations[6, 0] == 30
    assert "left out 2 of 5 episodes: damaged" in dataset.notes


def test_damaged_episodes_of_a_dump_are_left_out_where_asked(tmp_path):
    path = tmp_path / "dump.h5"
    shutil.copy(DUMP, path)
    with h5py.File(path, "a") as file:
        del file["actions_0"]
    with pytest.raises(InputError, match="no actions_0; found"):
        load(path)
    dataset = load(path, skip_damaged=True)
    assert dataset.episode_lengths.tolist() == [7]
    assert "left out 1 of 2 episodes: damaged" in dataset.notes


def test_a_flat_file_names_episodes_by_text(tmp_path):
    columns = {"s": np.arange(8.0).reshape(4, 2), "u": np.ones((4, 1)), "r": np.ones(4)}
    names = ["observations=s", "actions=u", "rewards=r", "episode=run"]
    for number, runs in enumerate((np.array([b"z", b"z", b"a", b"b"]), ["z", "z", "a", "b"])):
        with h5py.File(tmp_path / f"{number}.h5", "w") as file:
            for name, column in columns.items():
                file[name] = column
            file.create_dataset("run", data=runs)
        assert load(tmp_path / f"{number}.h5", columns=names).episode_lengths.tolist() == [2, 1, 1]

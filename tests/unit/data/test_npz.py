import io
import pickle
import zipfile

import h5py
import numpy as np
import pytest
import torch

from chibit.core.errors import DamagedFileError, InputError, ResourceError, UserError
from chibit.data.load import from_arrays, load_dataset
from chibit.data.readers.d4rl import read_d4rl
from chibit.data.readers.npz import read_npz


def read(path):
    with read_npz(path) as (recording, origin):
        return recording, origin


@pytest.fixture
def path(tmp_path):
    return tmp_path / "mine.npz"


def save(path, columns, **extra):
    np.savez_compressed(path, **columns, **extra)
    return path


def test_a_file_becomes_a_data_set(path, hopper_columns, home):
    dataset = load_dataset(save(path, hopper_columns, env_id="Hopper-v5"))
    assert (dataset.spec.name, dataset.spec.env_id, dataset.spec.d4rl_physics) == ("mine", "Hopper-v5", False)
    for name in ("observations", "actions", "rewards"):
        assert np.array_equal(getattr(dataset, name), hopper_columns[name])
    assert dataset.final_observations is not None


@pytest.mark.parametrize("shape", [(), (1,)])
def test_an_environment_is_named_by_a_text_or_an_array_of_one(path, hopper_columns, home, shape):
    dataset = load_dataset(save(path, hopper_columns, env_id=np.full(shape, "Hopper-v5")))
    assert dataset.spec.env_id == "Hopper-v5"


def test_an_environment_outside_the_list_leaves_training_only(path, hopper_columns, home):
    dataset = load_dataset(save(path, hopper_columns, env_id="os:system"))
    assert dataset.spec.env_id is None
    assert any("'os:system' is not one that can be built here" in note for note in dataset.notes)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (np.array([{}], object), DamagedFileError),
        (np.array(["x"]), InputError),
        (np.zeros(3, complex), InputError),
        (np.zeros(3, "M8[s]"), InputError),
        (np.zeros(2, [("a", "f4")]), InputError),
    ],
)
def test_anything_but_numbers_is_refused(path, hopper_columns, value, kind):
    with pytest.raises(kind, match="rewards has type .*; expected plain numbers"):
        read(save(path, hopper_columns | {"rewards": value}))


def test_a_long_environment_name_is_refused(path, hopper_columns):
    with pytest.raises(InputError, match="env_id has type"):
        read(save(path, hopper_columns, env_id="x" * 10_000))


def test_no_pickle_under_another_name_is_run(path, tmp_path):
    class Attack:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    for content in (pickle.dumps(Attack()), zipped({"rewards.npy": pickle.dumps(Attack())})):
        path.write_bytes(content)
        with pytest.raises(DamagedFileError, match=r"damaged \.npz file"):
            read(path)
    array = io.BytesIO()
    np.save(array, np.array([Attack()], object), allow_pickle=True)
    path.write_bytes(zipped({"rewards.npy": array.getvalue()}))
    with pytest.raises(DamagedFileError, match="expected plain numbers"):
        read(path)
    assert not (tmp_path / "executed").exists()


def zipped(members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def header(shape):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return file.getvalue()


def test_declared_sizes_are_checked_first(path, hopper_columns, monkeypatch):
    path.write_bytes(zipped({"rewards.npy": header((10**12,))}))
    with pytest.raises(DamagedFileError, match="rewards declares 4000000000000 bytes and holds"):
        read(path)
    bomb = zipped({"rewards.npy": header((10**7,)) + bytes(4 * 10**7)})
    assert len(bomb) < 100_000
    path.write_bytes(bomb)
    monkeypatch.setattr("chibit.data.readers.size_limits.memory_budget", lambda: 1 << 25)
    with pytest.raises(ResourceError, match="holds 40.0 MB, more than half of this machine's memory"):
        read(path)
    monkeypatch.setattr("chibit.data.readers.size_limits.memory_budget", lambda: 100)
    with pytest.raises(ResourceError, match="memory"):
        read(save(path, hopper_columns))


def test_data_that_pack_well_are_no_bomb(path, tmp_path, monkeypatch):
    """Pictures of tiles, of which a few thousand pass the size below which it does not matter."""
    monkeypatch.setattr("chibit.data.readers.size_limits.SMALL", 1 << 20)
    tiles = np.zeros((200, 84, 84, 3), np.uint8)
    tiles[np.arange(200), :12, :12] = np.arange(200)[:, None, None, None] % 3 + 1
    columns = {"observations": tiles, "actions": np.zeros(200, np.int64), "rewards": np.ones(200)}
    columns["terminations"] = np.arange(200) % 10 == 9
    np.savez_compressed(path, **columns)
    assert tiles.nbytes > 400 * path.stat().st_size
    assert read(path)[0].image_shape == (1, 84, 84)
    with h5py.File(tmp_path / "tiles.hdf5", "w") as file:
        for name, column in columns.items():
            file.create_dataset(name, data=column, compression="gzip", chunks=(100, *column.shape[1:]))
    assert tiles.nbytes > 100 * (tmp_path / "tiles.hdf5").stat().st_size
    with read_d4rl(tmp_path / "tiles.hdf5") as (recording, _):
        assert recording.image_shape == (1, 84, 84)


def test_a_file_cut_or_changed_anywhere_is_refused_or_read(path, hopper_columns):
    content = save(path, hopper_columns).read_bytes()
    for end in range(0, len(content) - 1, len(content) // 40):
        path.write_bytes(content[:end])
        with pytest.raises(DamagedFileError):
            read(path)
    for position in range(0, len(content), len(content) // 300):
        changed = bytearray(content)
        changed[position] ^= 0xFF
        path.write_bytes(changed)
        try:
            read(path)
        except UserError as error:
            assert "\n" not in str(error)


def test_missing_files_and_columns(path, hopper_columns):
    with pytest.raises(InputError, match=r"mine\.npz: no such file"):
        read(path)
    del hopper_columns["rewards"]
    with pytest.raises(InputError, match="no rewards; found actions, next_observations"):
        read(save(path, hopper_columns))


def test_arrays_in_memory(hopper_columns, home):
    renamed = {"terminals": "terminations", "timeouts": "truncations"}
    columns = {renamed.get(name, name): column for name, column in hopper_columns.items()}
    dataset = from_arrays(**columns, name="mine", env_id="Hopper-v5", score_reference=(0.0, 50.0))
    assert dataset.spec.score_reference == (0.0, 50.0)
    assert load_dataset(dataset.folder).content_hash == dataset.content_hash
    again = from_arrays(**columns, name="mine", env_id="Hopper-v5", score_reference=(0.0, 50.0))
    assert again.folder == dataset.folder
    assert from_arrays(**columns, name="mine").folder != dataset.folder
    assert from_arrays(**columns, name="mine").spec.score_reference is None


def test_lists_are_arrays(tmp_path):
    dataset = from_arrays([[0, 1], [2, 3]], [0, 2], [1, 2], [False, True], cache=tmp_path)
    assert (dataset.spec.num_actions, dataset.spec.state_dim, dataset.num_episodes) == (3, 2, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"env_id": "Hopper-v99"}, "environment 'Hopper-v99'"),
        ({"name": "../x"}, "data set name"),
        ({"rewards": ["a", "b"]}, "rewards have type <U1, expected numbers"),
        ({"rewards": [[1], [2, 3]]}, "rewards have rows of different lengths"),
        ({"rewards": None}, "rewards have type object, expected numbers"),
        ({"rewards": torch.ones(2, requires_grad=True)}, "rewards cannot be read as an array"),
        ({"rewards": torch.ones(2, dtype=torch.bfloat16)}, "rewards cannot be read as an array"),
        ({"rewards": np.ma.array([1.0, 2.0], mask=[False, True])}, r"rewards are masked at \[1\]"),
        (
            {"observations": np.ma.masked_equal([[0.0, 1], [2, 3]], 2.0)},
            r"observations are masked at \[1, 0\]",
        ),
        ({"rewards": [1, 2, 3]}, "columns differ in length"),
        ({"env_id": "Pendulum-v1"}, "observations have 2 values, those of Pendulum-v1 have 3"),
        ({"rewards": [1, float("inf")]}, r"rewards of row 1 \(episode 0, step 1\) is inf"),
    ],
)
def test_bad_arrays_are_refused(tmp_path, changes, message):
    columns = {
        "observations": [[0.0, 1], [2, 3]],
        "actions": [[0.0], [1]],
        "rewards": [1.0, 2],
        "terminations": [False, True],
    }
    with pytest.raises(InputError, match=message):
        from_arrays(**(columns | changes), cache=tmp_path)


def test_without_an_environment_bounds_are_what_the_data_reach(tmp_path):
    actions = [[-3.0, 0.5], [1.0, -0.5]]
    dataset = from_arrays([[0.0], [1.0]], actions, [0, 0], [0, 1], cache=tmp_path)
    assert dataset.spec.action_low == (-3.0, -0.5)
    assert dataset.spec.action_high == (1.0, 0.5)
    assert not any("beyond" in note for note in dataset.notes)


@pytest.mark.parametrize(("largest", "said"), [(2.0, False), (2.5, True)])
def test_actions_beyond_the_environments_bounds_are_said(tmp_path, largest, said):
    columns = ([[0.0, 0, 0], [1.0, 0, 0]], [[-2.0], [largest]], [0, 0], [0, 1])
    dataset = from_arrays(*columns, env_id="Pendulum-v1", cache=tmp_path)
    assert (dataset.spec.action_low, dataset.spec.action_high) == ((-2.0,), (2.0,))
    assert ("actions reach from -2 to 2.5, beyond their bounds" in dataset.notes) is said


def test_columns_under_other_names_are_listed(tmp_path):
    path = tmp_path / "other.npz"
    np.savez(path, obs=np.zeros((3, 2)), act=np.zeros((3, 1)), reward=np.zeros(3))
    with pytest.raises(InputError, match="no terminations; found act, obs, reward"), read_npz(path):
        pass


@pytest.mark.parametrize("kind", ["S", "U"])
def test_episodes_are_named_by_text(path, kind):
    columns = {"obs": np.ones((4, 1)), "act": np.ones(4) * 0.5, "rew": np.ones(4)}
    np.savez(path, **columns, episode=np.array(["b", "b", "a", "c"]).astype(kind))
    assert read(path)[0].episode_starts.tolist() == [0, 2, 3, 4]


def test_rewards_in_half_precision_are_read_and_an_infinite_one_is_named(tmp_path, home, recwarn):
    columns = {"observations": np.ones((4, 2)), "actions": np.ones((4, 1)), "terminations": [0, 1, 0, 1]}
    rewards = np.array([0.5, 1, 2, 3], np.float16)
    assert from_arrays(**columns, rewards=rewards).episode_returns.tolist() == [1.5, 5]
    rewards[2] = np.inf
    with pytest.raises(InputError, match=r"arrays: rewards of row 2 \(episode 1, step 0\) is inf"):
        from_arrays(**columns, rewards=rewards)
    assert not recwarn

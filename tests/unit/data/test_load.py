import multiprocessing
import os
import time
from pathlib import Path
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest

from chibit.core.errors import DamagedFileError, InputError
from chibit.core.temporary import TEMPORARY_PREFIX, temporary_folder
from chibit.data.collect.mujoco import collect
from chibit.data.load import is_here, list_datasets, load_dataset
from chibit.data.store import open_store
from chibit.environments import registry
from chibit.environments.d4rl import D4RL_SETS
from chibit.environments.registry import LANGUAGE_TASKS, TASKS


@pytest.fixture
def path(write_hdf5, hopper_columns, home):
    return write_hdf5(hopper_columns)


def stores(home):
    return sorted((home / "stores").iterdir())


def test_a_source_is_converted_once(path, home, capsys):
    first = load_dataset(path)
    assert "converting" in capsys.readouterr().err
    again = load_dataset(str(path))
    assert capsys.readouterr().err == ""
    assert again.folder == first.folder
    assert stores(home) == [first.folder]
    assert load_dataset(first.folder).content_hash == first.content_hash


def test_a_source_is_converted_again_once_its_environment_is_known(home, tmp_path, monkeypatch):
    monkeypatch.setattr(registry.ENVIRONMENTS, "_entries", dict(registry.ENVIRONMENTS))
    data = tmp_path / "log.npz"
    columns = {"observations": np.zeros((8, 3)), "actions": np.zeros((8, 1)), "rewards": np.ones(8)}
    columns |= {"terminations": np.arange(8) % 4 == 3}
    np.savez(data, env_id="Crane-v0", **columns)
    first = load_dataset(data, progress=False)
    assert first.spec.env_id is None and load_dataset(data, progress=False).spec.env_id is None
    registry.register_env("Crane-v0", lambda: gymnasium.make("Pendulum-v1"), max_episode_steps=50)
    again = load_dataset(data, progress=False)
    assert (again.spec.env_id, again.spec.max_episode_steps) == ("Crane-v0", 50)
    assert again.content_hash == first.content_hash and stores(home) == [first.folder, again.folder]


def test_a_changed_source_is_converted_again(path, home):
    first = load_dataset(path, progress=False)
    os.utime(path, ns=(1, 1))
    second = load_dataset(path, progress=False)
    assert second.folder != first.folder
    assert second.content_hash == first.content_hash


@pytest.mark.parametrize("how", ["written over", "put in its place", "hidden by the file system"])
def test_a_replaced_source_of_equal_size_and_time_is_converted_again(how, home, tmp_path, monkeypatch):
    """As `cp -p` and `rsync -t` leave it."""
    old, new = tmp_path / "data.npz", tmp_path / "new.npz"
    columns = {"observations": np.arange(40.0)[:, None], "actions": np.zeros((40, 1))}
    columns |= {"terminations": np.arange(40) % 10 == 9}
    np.savez(old, **columns, rewards=np.zeros(40))
    np.savez(new, **columns, rewards=np.ones(40))
    os.utime(old, ns=(5, 5))
    assert old.stat().st_size == new.stat().st_size
    if how == "hidden by the file system":
        real = Path.stat

        def stat(path, **options):
            found = real(path, **options)
            return SimpleNamespace(
                **{name: getattr(found, name) for name in dir(found) if name.startswith("st_")}
                | {"st_ctime_ns": 0, "st_ino": 0}
            )

        monkeypatch.setattr(Path, "stat", stat)
    assert load_dataset(old, progress=False).episode_returns.tolist() == [0] * 4
    if how == "put in its place":
        new.replace(old)
    else:
        old.write_bytes(new.read_bytes())
    os.utime(old, ns=(5, 5))
    assert load_dataset(old, progress=False).episode_returns.tolist() == [10] * 4


def test_whether_data_are_here_is_told_without_making_them(home, path, monkeypatch):
    monkeypatch.setattr("chibit.data.collect.mujoco.collect", None)
    assert is_here(path)
    assert not is_here("hopper-medium")
    assert not is_here("hopper-medium-v2")
    assert not is_here("nothing.npz")
    with pytest.raises(InputError, match="chibit data collect hopper-medium"):
        load_dataset("hopper-medium", download=False)


def test_a_damaged_copy_is_made_again_but_a_named_store_is_refused(path, home):
    dataset = load_dataset(path, progress=False)
    records = dataset.folder / "records.npy"
    records.write_bytes(records.read_bytes()[:-1])
    with pytest.raises(DamagedFileError, match=r"records\.npy"):
        load_dataset(dataset.folder)
    again = load_dataset(path, progress=False)
    assert again.content_hash == dataset.content_hash
    open_store(again.folder, verify="hash")


def test_a_failed_conversion_leaves_nothing(write_hdf5, hopper_columns, home):
    hopper_columns["rewards"][7] = np.nan
    with pytest.raises(InputError, match="rewards of row 7"):
        load_dataset(write_hdf5(hopper_columns), progress=False)
    assert stores(home) == []


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("hopper-medum-v2", "did you mean 'hopper-medium-v2'"),
        ("hopper-medium-v3", "did you mean 'hopper-medium-v2'"),
        ("breakout-medim", "did you mean 'breakout-medium'"),
        ("chibit/hopper/mediu-v0", "did you mean 'chibit/hopper/medium-v0'"),
        ("walker-expert", "'walker2d-expert'"),
        ("chibit/hopper/mediun-v0", "unknown data set"),
        ("something", "unknown data set 'something'"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(home, name, hint):
    with pytest.raises(InputError, match=hint):
        load_dataset(name, progress=False)


def test_local_minari_ids_are_among_the_nearest(write_minari, hopper_episodes, home):
    write_minari(hopper_episodes)
    with pytest.raises(InputError, match="'test/hopper/random-v0'"):
        load_dataset("test/hoper/random-v0", download=False)


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd", "a\x00b", "a#b", "a\nb", "x" * 4096, "", " ", "a//b", "~nobody/x.npz", "../x"],
)
def test_hostile_names_are_refused_in_one_line(home, name):
    with pytest.raises(InputError) as caught:
        load_dataset(name, progress=False)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.hdf5", r"none\.hdf5': no such file or folder"),
        ("./none", "no such file or folder"),
        (Path("none"), "no such file or folder"),
    ],
)
def test_missing_files(home, name, message):
    with pytest.raises(InputError, match=message):
        load_dataset(name)


def test_files_and_folders_of_another_kind(home, tmp_path):
    (tmp_path / "x.txt").write_text("1,2")
    with pytest.raises(InputError, match=r"x\.txt: unknown kind of file; expected .*\.hdf5 or"):
        load_dataset(tmp_path / "x.txt")
    (tmp_path / "rlds").mkdir()
    (tmp_path / "rlds" / "pen-train.tfrecord-00000-of-00001").write_text("")
    (tmp_path / "pen" / "1.0.0").mkdir(parents=True)
    (tmp_path / "pen" / "1.0.0" / "dataset_info.json").write_text("{}")
    for name in ("rlds", "pen"):
        with pytest.raises(InputError, match=rf"{name}: RLDS data, .*numpy\.savez them"):
            load_dataset(tmp_path / name)
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="neither a Minari data set"):
        load_dataset(tmp_path / "folder")


def test_own_levels_are_collected_where_they_are_missing(home, tmp_path):
    collect("hopper-random", num_steps=300, progress=False)
    by_name = load_dataset("hopper-random", progress=False)
    by_id = load_dataset("chibit/hopper/random-v0", progress=False)
    assert by_name.content_hash == by_id.content_hash
    spec = by_name.spec
    assert (spec.name, spec.env_id, spec.d4rl_physics) == ("chibit/hopper/random-v0", "Hopper-v5", True)
    assert spec.score_reference == (-20.272305, 3234.3)
    assert by_name.num_steps >= 300


def test_collecting_is_asked_for_when_a_level_is_missing(home, monkeypatch, write_minari, hopper_episodes):
    asked = []

    def fake(dataset, **options):
        asked.append((dataset, options["progress"]))
        return write_minari(hopper_episodes, dataset_id="chibit/hopper/medium-v0")

    monkeypatch.setattr("chibit.data.collect.mujoco.collect", fake)
    assert load_dataset("hopper-medium", progress=False).spec.name == "chibit/hopper/medium-v0"
    load_dataset("hopper-medium", progress=False)
    assert asked == [("chibit/hopper/medium-v0", False)]


def test_a_minari_set_is_found_in_the_data_folder(write_minari, hopper_episodes, home, tmp_path, monkeypatch):
    write_minari(hopper_episodes)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "empty"))
    dataset = load_dataset("test/hopper/random-v0", data_folder=tmp_path / "minari", progress=False)
    assert dataset.spec.name == "test/hopper/random-v0"


def test_the_list_says_what_is_here(write_minari, hopper_episodes, home, path, tmp_path):
    write_minari(hopper_episodes)
    write_minari(hopper_episodes, dataset_id="chibit/hopper/medium-v0")
    write_minari(hopper_episodes, dataset_id="chibit/tmaze-15/expert-v0")
    (tmp_path / "files").mkdir()
    path.rename(tmp_path / "files" / "hopper_medium-v2.hdf5")
    lines = dict(line.split(None, 1) for line in list_datasets(data_folder=tmp_path / "files"))
    assert lines["hopper-medium"] == "Hopper-v5; here"
    assert lines["walker2d-medium-replay"] == "Walker2d-v5; collected when first used"
    assert lines["hopper-medium-v2"] == "D4RL; here"
    assert lines["ant-random-v2"] == "D4RL; downloaded when first used"
    assert lines["test/hopper/random-v0"] == "Minari; here"
    assert lines["Breakout"] == "1 % of DQN-replay; downloaded when first used"
    assert lines["tmaze-15-expert"] == "chibit/TMaze15-v0; here"
    assert "chibit/tmaze-15/expert-v0" not in lines
    assert lines["tmaze-50-mixed"] == "chibit/TMaze50-v0; collected when first used"
    ours = sum(len(row.scripted_levels) for row in TASKS.values())
    assert len(lines) == 15 + ours + len(LANGUAGE_TASKS) + len(D4RL_SETS) + 1 + 4


def load_at(moment, path, home):
    time.sleep(max(0.0, moment - time.time()))
    return load_dataset(path, cache=home, progress=False).content_hash


def test_processes_that_load_the_same_source_share_one_store(path, home):
    context = multiprocessing.get_context("fork")
    with context.Pool(3) as pool:
        jobs = [pool.apply_async(load_at, (time.time() + 0.5, path, home)) for _ in range(6)]
        assert len({job.get(60) for job in jobs}) == 1
    assert len(stores(home)) == 1


def test_an_unwritable_home_is_said(path, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file is a file and in the way of this folder"):
        load_dataset(path, cache=tmp_path / "file", progress=False)


def test_leftovers_of_killed_conversions_are_swept_and_those_of_living_ones_are_not(path, home):
    stores = home / "stores"
    stores.mkdir(parents=True)
    dead = stores / f"{TEMPORARY_PREFIX}dead"
    dead.mkdir()
    (dead / "records.npy").write_text("x")
    with temporary_folder(stores) as living:
        load_dataset(path, progress=False)
        assert living.exists()
    assert not dead.exists()

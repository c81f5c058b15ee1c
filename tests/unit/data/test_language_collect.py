import json

import gymnasium as gym
import h5py
import minari
import numpy as np
import pytest

from chibit.core.errors import DamagedFileError, InputError
from chibit.data.collect.language import collect_language
from chibit.data.convert import convert
from chibit.data.load import list_datasets, load_dataset
from chibit.environments.instructions import is_held_out

pytest.importorskip("minigrid")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    out = tmp_path_factory.mktemp("language")
    return collect_language("babyai-gotolocals8n4", num_episodes=12, out=out, progress=False)


def test_grids_are_bytes_and_missions_a_table_on_disk(store):
    data = load_dataset(store)
    assert (data.num_episodes, data.spec.num_actions, data.spec.state_dim) == (12, 7, 151)
    seen, table = np.load(store / "observations.npy"), np.load(store / "missions.npy")
    assert seen.dtype == np.uint8 and seen.shape == (data.num_steps, 151)
    np.testing.assert_array_equal(data.observations, seen)
    assert np.load(store / "records.npy").shape == (data.num_steps, 3)
    assert len(set(table)) == len(table) == len(set(data.missions))
    ids = np.load(store / "mission_ids.npy")
    assert ids.dtype == np.int32 and table[ids].tolist() == data.missions.tolist()
    assert data.episode_returns.tolist() == [1.0] * 12  # `done` was said at the target
    assert data.terminations.sum() == 12 and (data.actions[data.terminations] == 6).all()
    assert not any(map(is_held_out, data.missions))
    assert len(set(data.provenance["reset_seeds"])) == 12 and data.provenance["physics"]["done_required"]


def test_every_episode_is_the_one_of_its_reset_seed(store):
    from chibit.environments.language import LanguageTask

    data, env = load_dataset(store), LanguageTask("GoToLocalS8N4")
    for index in (0, 7):
        observation, _ = env.reset(options={"reset_seed": data.provenance["reset_seeds"][index]})
        episode = data.trajectory(index)
        assert env.mission == data.missions[index]
        for step, action in enumerate(episode.actions):
            np.testing.assert_array_equal(episode.observations[step][4:], observation["image"].ravel())
            observation, reward, over, _, _ = env.step(action)
        assert reward == 1.0 and over
        np.testing.assert_array_equal(episode.final_observation[4:], observation["image"].ravel())


def test_parts_keep_their_missions(store):
    data = load_dataset(store)
    train, rest = data.held_out_split(0.25, 0)
    assert sorted([*train.missions, *rest.missions]) == sorted(data.missions)
    assert train.observations.dtype == np.float32


def test_written_as_minaris_own_babyai_sets_and_read_again(store, tmp_path, monkeypatch):
    """The layout of minigrid/BabyAI-*: direction, image as bytes, and the mission at every step."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    data, out = load_dataset(store), tmp_path / "mine" / "gotolocal-v0"
    assert convert(store, out, "minari", progress=False) == ()
    again = load_dataset(out, cache=tmp_path / "home", progress=False)
    for name in ("records", "final_observations", "episode_starts", "missions"):
        np.testing.assert_array_equal(getattr(again, name), getattr(data, name))
    assert (
        again.spec.env_id == data.spec.env_id and again.spec.observation_parts == data.spec.observation_parts
    )
    with h5py.File(out / "data" / "main_data.hdf5") as file:
        group = file["episode_0/observations"]
        steps = len(file["episode_0/actions"]) + 1
        assert group["image"].dtype == np.uint8 and group["image"].shape == (steps, 7, 7, 3)
        assert group["direction"].shape == (steps,)
        assert set(group["mission"].asstr()[:]) == {data.missions[0]}
    minaris = minari.load_dataset("mine/gotolocal-v0")
    assert isinstance(minaris.observation_space["mission"], gym.spaces.Text)
    assert minaris[3].observations["mission"][0] == data.missions[3]


@pytest.mark.parametrize("broken", ["ids", "grids", "table"])
def test_a_store_whose_parts_do_not_fit_is_damaged(store, tmp_path, broken):
    import shutil

    from chibit.data import store as stores

    folder = tmp_path / "store"
    shutil.copytree(store, folder)
    name, array = {
        "ids": ("mission_ids", np.full(12, 99, np.int32)),
        "grids": ("observations", np.zeros((3, 151), np.uint8)),
        "table": ("missions", np.array([["a"]])),
    }[broken]
    np.save(folder / f"{name}.npy", array)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").unlink()
    from chibit.core.config import from_json
    from chibit.data.spec import DatasetSpec

    stores._write_manifest(folder, from_json(DatasetSpec, manifest["spec"], ""), (), {})
    with pytest.raises(DamagedFileError, match="not a valid manifest"):
        load_dataset(folder)


def test_names_levels_and_what_is_there(tmp_path, monkeypatch):
    monkeypatch.setenv("CHIBIT_HOME", str(tmp_path))
    with pytest.raises(InputError, match="chibit data collect babyai-gotoobj makes it"):
        load_dataset("babyai-gotoobj", download=False)
    folder = collect_language("babyai-gotoobj", num_steps=20, progress=False)
    assert collect_language("babyai-gotoobj", num_steps=20, progress=False) == folder
    assert load_dataset("babyai-gotoobj", progress=False).num_steps >= 20
    with pytest.raises(InputError, match="exists with other settings"):
        collect_language("babyai-gotoobj", num_episodes=20, progress=False)
    with pytest.raises(InputError, match="babyai-gotomars': unknown level"):
        collect_language("babyai-gotomars", progress=False)
    with pytest.raises(InputError, match="num_episodes: got it beside num_steps"):
        collect_language("babyai-gotodoor", num_steps=2, num_episodes=3, progress=False)
    for sizes in ({"num_steps": 0}, {"num_episodes": 0}, {"num_episodes": -1}, {"seed": -1}):
        with pytest.raises(InputError, match=f"{next(iter(sizes))}: got {sum(sizes.values())}, expected"):
            collect_language("babyai-gotodoor", progress=False, **sizes)
    assert any(line.startswith("babyai-mixedlocal") for line in list_datasets())
    other = collect_language("babyai-gotoobj", num_steps=20, seed=1, out=tmp_path / "b", progress=False)
    assert load_dataset(other).content_hash != load_dataset(folder).content_hash


def test_a_level_of_held_out_pairs_alone_leaves_nothing_to_train_on(tmp_path, monkeypatch):
    monkeypatch.setattr("chibit.data.collect.language.is_held_out", lambda mission: True)
    with pytest.raises(InputError, match="level GoToDoor: 100 instructions are of held-out pairs"):
        collect_language("babyai-gotodoor", num_episodes=2, out=tmp_path, progress=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("data_format", ["hdf5", "arrow"])
def test_grids_that_were_stored_as_jpeg_are_refused(tmp_path, monkeypatch, data_format):
    """Minari 0.5.3 takes every grid of bytes for a picture, and JPEG changes symbols."""
    pytest.importorskip("pyarrow")
    from minari.data_collector import EpisodeBuffer
    from minari.dataset._storages import arrow_storage

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    is_grid = lambda space: getattr(space, "shape", None) == (7, 7, 3)  # noqa: E731
    parts = {"image": gym.spaces.Box(0, 255, (7, 7, 3), np.uint8), "mission": gym.spaces.Text(32)}
    grid = np.random.default_rng(0).integers(0, 10, (6, 7, 7, 3), dtype=np.uint8)
    ends = np.arange(5) == 4
    buffer = EpisodeBuffer(
        observations={"image": grid, "mission": ["go to it"] * 6},
        actions=np.arange(5) % 3,
        rewards=np.ones(5),
        terminations=ends,
        truncations=ends & False,
        infos={},
    )
    with monkeypatch.context() as patched:
        patched.setattr(arrow_storage, "is_image_space", is_grid)
        minari.create_dataset_from_buffers(
            "test/grid-v0",
            [buffer],
            env=None,
            observation_space=gym.spaces.Dict(parts),
            action_space=gym.spaces.Discrete(3),
            data_format=data_format,
        )
    folder = tmp_path / "test" / "grid-v0"
    if data_format == "hdf5":
        with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
            del file["episode_0/observations/image"]
            file["episode_0/observations/image"] = np.zeros((6, 300), np.uint8)
    with pytest.raises(InputError, match="JPEG, which changes numbers"):
        load_dataset(folder, cache=tmp_path / "home", progress=False)

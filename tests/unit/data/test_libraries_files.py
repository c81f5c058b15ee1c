"""Data sets as other projects lay them out: OGBench, NeoRL and LeRobot."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from chibit.core.errors import DamagedFileError, InputError
from chibit.data.load import load_dataset
from chibit.data.mix import mix
from log_files import LENGTHS, neorl, write_lerobot, write_ogbench


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("CHIBIT_HOME", str(tmp_path / "home"))


def load(path, **options):
    return load_dataset(path, progress=False, **options)


def test_walks_of_ogbench_end_in_what_was_seen_last(tmp_path):
    path = tmp_path / "pointmaze-medium-navigate-v0.npz"
    columns = write_ogbench(path)
    write_ogbench(path.with_name("pointmaze-medium-navigate-v0-val.npz"), walks=1)
    dataset = load(path)
    assert dataset.episode_starts.tolist() == [0, 5, 10, 15]
    assert dataset.episode_ends.tolist() == [[False, True]] * 3
    assert np.array_equal(dataset.observations[5:10], columns["observations"][6:11])
    assert np.array_equal(dataset.final_observations, columns["observations"][5::6])
    assert np.array_equal(dataset.actions[:5], columns["actions"][:5])
    assert not dataset.rewards.any()
    notes = "\n".join(dataset.notes)
    assert "no rewards recorded, as the data are without a task" in notes
    assert "pointmaze-medium-navigate-v0-val.npz lies beside it: --validation-data" in notes
    assert not any("lies beside" in n for n in load(tmp_path / "pointmaze-medium-navigate-v0-val.npz").notes)


def test_a_file_with_rewards_or_named_columns_is_no_walk_of_ogbench(tmp_path):
    write_ogbench(tmp_path / "a.npz", rewards=np.ones(18))
    assert load(tmp_path / "a.npz").num_steps == 18
    write_ogbench(tmp_path / "b.npz", gain=np.ones(18))
    assert load(tmp_path / "b.npz", columns=["rewards=gain"]).episode_returns.tolist() == [6, 6, 6]
    np.savez(
        tmp_path / "mine.npz", observations=np.ones((4, 1)), actions=np.ones((4, 1)), terminals=[0, 0, 0, 1]
    )
    with pytest.raises(InputError, match="no rewards; found actions, observations, terminals"):
        load(tmp_path / "mine.npz")
    write_ogbench(tmp_path / "short.npz", actions=np.ones((5, 2)))
    with pytest.raises(InputError, match="columns differ in length .*actions 5"):
        load(tmp_path / "short.npz")


def test_neorl_says_where_trajectories_begin(tmp_path):
    np.savez(tmp_path / "one.npz", **neorl(index=np.array([0, 5, 12])))
    dataset = load(tmp_path / "one.npz")
    assert dataset.episode_starts.tolist() == [0, 5, 12, 20]
    assert dataset.episode_ends.tolist() == [[True, False], [False, True], [False, True]]
    for index in ([1, 5], [0, 5, 5], [0, 50], [0.5, 3]):
        np.savez(tmp_path / "odd.npz", **neorl(index=np.array(index)))
        with pytest.raises(InputError, match="index: expected the rows in which trajectories begin"):
            load(tmp_path / "odd.npz")


def test_pairs_of_neorl_2_are_said(tmp_path):
    cut = np.isin(np.arange(20), [11, 19])[:, None].astype(np.float32)
    for name in ("Pipeline-train.npz", "Pipeline-val.npz"):
        np.savez(tmp_path / name, **neorl(truncated=cut))
    dataset = load(tmp_path / "Pipeline-train.npz")
    assert dataset.episode_starts.tolist() == [0, 5, 12, 20]
    assert any("Pipeline-val.npz lies beside it: --validation-data" in note for note in dataset.notes)
    assert dataset.final_observations is not None


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_lerobot_data_are_read_with_their_tasks(tmp_path, version):
    dataset = load(write_lerobot(tmp_path / "pusht", version))
    assert dataset.spec.name == "pusht"
    assert dataset.episode_lengths.tolist() == list(LENGTHS)
    assert dataset.episode_ends.tolist() == [[True, False]] * 3
    assert (dataset.spec.state_dim, dataset.spec.act_dim) == (5, 2)
    assert dataset.episode_returns.tolist() == [5.0, 10.5, 7.5]
    assert dataset.missions.tolist() == ["Push the T", "Lift it", "Push the T"]
    notes = "\n".join(dataset.notes)
    assert "observations are observation.state, observation.environment_state, side by side" in notes
    assert "left out pictures: observation.images.top" in notes
    alone = load(tmp_path / "pusht", columns=["observations=observation.state"])
    assert np.array_equal(alone.observations, dataset.observations[:, :2])
    test = load(f"{tmp_path / 'pusht'}:test")
    assert (test.spec.name, test.episode_lengths.tolist(), test.missions.tolist()) == (
        "pusht-test", [6], ["Push the T"],
    )  # fmt: skip
    part, rest = dataset.held_out_split(0.34, 0)
    assert sorted([*part.missions, *rest.missions]) == sorted(dataset.missions)


def test_lerobot_episodes_that_are_cut_keep_their_tasks(tmp_path):
    dataset = load(write_lerobot(tmp_path / "pusht", "v3.0"), episode_length=3)
    per_episode = ["Push the T", "Lift it", "Push the T"]
    texts = [text for text, length in zip(per_episode, LENGTHS, strict=True) for _ in range(-(-length // 3))]
    assert dataset.missions.tolist() == texts


def test_texts_and_damaged_episodes_of_lerobot_are_left_out(tmp_path):
    root = write_lerobot(tmp_path / "pusht", "v2.1")
    text = {"dtype": "string", "shape": [1], "names": None}
    info = json.loads((root / "meta/info.json").read_text())
    info["features"]["observation.language"] = text
    (root / "meta/info.json").write_text(json.dumps(info))
    (root / "data/chunk-000/episode_000001.parquet").write_bytes(b"PAR1")
    dataset = load(root, skip_damaged=True)
    assert dataset.missions.tolist() == ["Push the T", "Push the T"]
    assert {"left out texts: observation.language", "left out 1 of 3 files: damaged"} <= set(dataset.notes)
    (root / "data/chunk-000/episode_000001.parquet").unlink()
    dataset = load(root, skip_damaged=True)
    assert dataset.num_episodes == 2
    assert "11 rows are here, info.json says 18" in dataset.notes


def test_texts_stay_with_their_episodes_where_data_sets_are_mixed(tmp_path):
    datasets = [load(write_lerobot(tmp_path / name, "v3.0")) for name in ("a", "b")]
    assert mix(datasets).missions.tolist() == [text for dataset in datasets for text in dataset.missions]
    other = [datasets[0], replace(datasets[1], missions=None)]
    assert mix(other).missions is None


def test_lerobot_data_of_a_real_robot_have_no_rewards(tmp_path):
    dataset = load(write_lerobot(tmp_path / "so100", "v3.0", rewards=False))
    assert not dataset.rewards.any()
    assert dataset.episode_ends.tolist() == [[False, True]] * 3
    assert {"no rewards recorded: all are 0", "no ends recorded: episodes were cut"} <= set(dataset.notes)


def test_lerobot_data_that_are_incomplete_or_old_are_refused(tmp_path):
    root = write_lerobot(tmp_path / "a", "v3.0", total_frames=19)
    with pytest.raises(DamagedFileError, match="18 rows, info.json says 19"):
        load(root)
    with pytest.raises(InputError, match="no split 'valid'; found test, train"):
        load(f"{write_lerobot(tmp_path / 'b', 'v3.0')}:valid")
    with pytest.raises(InputError, match=r"version 'v1.6', expected 2 or 3"):
        load(write_lerobot(tmp_path / "c", "v1.6"))
    with pytest.raises(
        InputError, match="no column 'observation.stat' for observations.*mean 'observation.state'"
    ):
        load(tmp_path / "b", columns=["observations=observation.stat"])
    shutil.rmtree(tmp_path / "b" / "data")
    with pytest.raises(InputError, match=r"no data/chunk-000/\*\.parquet"):
        load(tmp_path / "b")
    (tmp_path / "b" / "meta" / "info.json").write_text("[]")
    with pytest.raises(DamagedFileError, match=r"info\.json: no features"):
        load(tmp_path / "b")


def test_pictures_in_columns_become_frames(tmp_path):
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (20, 40, 48), dtype=np.uint8)
    color = np.repeat(frames[..., None], 3, axis=3)
    stacks = np.stack([np.concatenate([np.zeros_like(frames[:1]), frames[:-1]]), frames], axis=1)
    stacks[10, 0] = 0
    log = {"action": rng.integers(0, 3, 20), "reward": np.ones(20), "done": np.arange(20) % 10 == 9}
    for observations, depth, note in (
        (frames, 1, "gray pictures of 40 x 48"),
        (color, 1, "in color, 40 x 48, are read as gray"),
        (np.moveaxis(color, 3, 1), 1, "are read as gray"),
        (stacks, 2, "stacks of 2 pictures are kept picture by picture"),
        (np.moveaxis(stacks, 1, 3), 2, "stacks of 2"),
    ):
        np.savez(tmp_path / "log.npz", obs=observations, **log)
        dataset = load(tmp_path / "log.npz")
        assert dataset.spec.image_shape == (depth, 40, 48)
        assert np.array_equal(dataset.frames, frames)
        assert any(note in each for each in dataset.notes)
        assert dataset.num_episodes == 2
    stacks[15, 0] = 0
    np.savez(tmp_path / "log.npz", obs=stacks, **log)
    with pytest.raises(InputError, match="observation 15 of 2 pictures does not go on from the one before"):
        load(tmp_path / "log.npz")
    np.savez(tmp_path / "log.npz", obs=frames[:, :7, :7], **log)
    with pytest.raises(InputError, match="observations have shape"):
        load(tmp_path / "log.npz")


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_lerobot_data_are_read_from_the_hubs_cache_where_files_are_links(tmp_path, version):
    repository = tmp_path / "datasets--lerobot--pusht"
    snapshot = write_lerobot(repository / "snapshots" / "0123abc", version)
    (repository / "blobs").mkdir()
    for number, file in enumerate(sorted(each for each in snapshot.rglob("*") if each.is_file())):
        blob = file.rename(repository / "blobs" / str(number))
        file.symlink_to(Path("../" * (len(file.relative_to(repository).parts) - 1)) / "blobs" / blob.name)
    dataset = load(snapshot)
    assert dataset.num_episodes == len(LENGTHS) and dataset.missions is not None
    named = ["observations=observation.state", "rewards=next.reward"]
    tables = load(snapshot / "data" / "chunk-000", columns=named)
    assert tables.num_steps == dataset.num_steps  # a folder in it, too
    (snapshot / "meta" / "info.json").unlink()
    other = write_lerobot(tmp_path / "other", version)
    (snapshot / "meta" / "info.json").symlink_to(other / "meta" / "info.json")
    with pytest.raises(InputError, match=r"info\.json: leads out of"):
        load(snapshot)

"""Data sets as other projects lay them out: OGBench, NeoRL and LeRobot."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from chibit.core.errors import DamagedFileError, InputError
from chibit.data.load import load_dataset


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("CHIBIT_HOME", str(tmp_path / "home"))


def load(path, **options):
    return load_dataset(path, progress=False, **options)


def write_ogbench(path, walks=3, steps=5, **more):
    """Of each walk one row more than steps, as `ogbench.load_dataset` expects."""
    rng = np.random.default_rng(0)
    rows = walks * (steps + 1)
    columns = {
        "observations": rng.normal(size=(rows, 4)).astype(np.float32),
        "actions": rng.uniform(-1, 1, (rows, 2)).astype(np.float32),
        "terminals": (np.arange(rows) % (steps + 1) == steps).astype(np.float32),
        "qpos": rng.normal(size=(rows, 2)),
        "qvel": rng.normal(size=(rows, 2)),
        **more,
    }
    np.savez_compressed(path, **columns)
    return columns


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


def neorl(steps=20, **more):
    rng = np.random.default_rng(0)
    return {
        "obs": rng.normal(size=(steps, 3)).astype(np.float32),
        "next_obs": rng.normal(size=(steps, 3)).astype(np.float32),
        "action": rng.uniform(-1, 1, (steps, 2)).astype(np.float32),
        "reward": rng.normal(size=(steps, 1)).astype(np.float32),
        "done": np.isin(np.arange(steps), [4])[:, None].astype(np.float32),
        **more,
    }


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


LENGTHS = (5, 7, 6)


def write_lerobot(root, version, rewards=True, **changes):
    """In the layout of version 2 (a file an episode) or 3 (one file), with a video that is not there."""

    def feature(dtype, *shape):
        return {"dtype": dtype, "shape": list(shape), "names": None}

    rng = np.random.default_rng(0)
    tables, first = [], 0
    for episode, length in enumerate(LENGTHS):
        vectors = {
            name: pa.FixedSizeListArray.from_arrays(
                pa.array(rng.normal(size=length * width).astype(np.float32)), width
            )
            for name, width in (("observation.state", 2), ("observation.environment_state", 3), ("action", 2))
        }
        steps = np.arange(length)
        numbers = {"episode_index": np.full(length, episode), "frame_index": steps, "index": first + steps}
        numbers |= {"timestamp": steps / 10, "task_index": np.full(length, episode % 2)}
        if rewards:
            numbers |= {"next.reward": steps / 2, "next.done": steps == length - 1}
        tables.append(pa.table({**vectors, **numbers}))
        first += length
    (root / "meta").mkdir(parents=True)
    data = root / "data" / "chunk-000"
    data.mkdir(parents=True)
    tasks = ["Push the T", "Lift it"]
    if version == "v2.1":
        for episode, table in enumerate(tables):
            pq.write_table(table, data / f"episode_{episode:06d}.parquet")
        lines = [json.dumps({"task_index": number, "task": task}) for number, task in enumerate(tasks)]
        (root / "meta" / "tasks.jsonl").write_text("\n".join(lines))
    else:
        pq.write_table(pa.concat_tables(tables), data / "file-000.parquet")
        pq.write_table(
            pa.table({"task_index": [0, 1], "__index_level_0__": tasks}), root / "meta" / "tasks.parquet"
        )
    features = {
        "observation.images.top": feature("video", 480, 640, 3),
        "observation.state": feature("float32", 2),
        "observation.environment_state": feature("float32", 3),
        "action": feature("float32", 2),
        **{name: feature("int64", 1) for name in ("episode_index", "frame_index", "index", "task_index")},
        "timestamp": feature("float32", 1),
    }
    if rewards:
        features |= {"next.reward": feature("float32", 1), "next.done": feature("bool", 1)}
    info = {"codebase_version": version, "total_episodes": 3, "total_frames": sum(LENGTHS), "fps": 10}
    info |= {"splits": {"train": "0:2", "test": "2:3"}, "features": features, **changes}
    (root / "meta" / "info.json").write_text(json.dumps(info))
    return root


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

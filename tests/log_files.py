"""Files of logs as other projects lay them out, written by their documentation."""

import json

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


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


def write_demos(path, lengths=(6, 4, 5), mask=True, obs=True):
    """As robomimic's documentation lays files out."""
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["total"] = sum(lengths)
        data.attrs["env_args"] = json.dumps({"env_name": "Lift", "type": 1, "env_kwargs": {}})
        for number, length in enumerate(lengths):
            demo = data.create_group(f"demo_{number}")
            demo.attrs["num_samples"] = length
            demo["states"] = rng.normal(size=(length, 32))
            demo["actions"] = rng.uniform(-1, 1, (length, 7))
            demo["rewards"] = (np.arange(length) >= length - 2).astype(float)
            demo["dones"] = (np.arange(length) >= length - 2).astype(int) * (number != 1)
            for group in ("obs", "next_obs") if obs else ():
                demo[f"{group}/object"] = np.full((length, 10), 10 * number, float)
                demo[f"{group}/robot0_eef_pos"] = rng.normal(size=(length, 3))
                demo[f"{group}/agentview_image"] = np.zeros((length, 84, 84, 3), np.uint8)
        if mask:
            file["mask/train"] = np.array([b"demo_0", b"demo_2"], "S8")
            file.create_dataset("mask/valid", data=["demo_1"], dtype=h5py.string_dtype())
    return path


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

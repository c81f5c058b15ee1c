"""Time and memory of getting one million steps: conversion of each kind of source, and opening the store.

    python benchmarks/loading.py [--num-steps 1000000] [--episode-length 457]

Targets: conversion of a D4RL file at most 3 s; opening at most 50 ms and 50 MB of private memory. Imports are
not counted. CPU seconds, which include those of child processes, are what other load on the machine disturbs
least.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import h5py
import numpy as np

STATE_DIM, ACT_DIM = 11, 3  # Hopper

MEASURE = """
import json, pathlib, resource, sys, time
def private_kb():
    # Memory of this process alone; pages of mapped files belong to the file cache, which all processes share.
    lines = pathlib.Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))
def cpu_seconds():
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in both)
{imports}
before, wall, cpu = private_kb(), time.perf_counter(), cpu_seconds()
{action}
print(json.dumps({{"wall": time.perf_counter() - wall, "cpu": cpu_seconds() - cpu,
                  "mb": (private_kb() - before) / 1024}}))
"""

CONVERT = (
    "import mujoco, chibit.data.readers.minari, chibit.data.readers.npz, chibit.data.readers.pickles\n"
    "from pathlib import Path\nfrom chibit.data.load import load_dataset",
    "dataset = load_dataset(Path(sys.argv[1]), cache=Path(sys.argv[2]), progress=False)",
)
OPEN = (
    "from pathlib import Path\nfrom chibit.data.store import open_store",
    "dataset = open_store(Path(sys.argv[1]))",
)
OPEN_AND_SAMPLE = (
    "import numpy as np\nfrom pathlib import Path\nfrom chibit.data.store import open_store\n"
    "from chibit.data.samplers.windows import WindowSampler",
    "dataset = open_store(Path(sys.argv[1]))\n"
    "sampler = WindowSampler(dataset, context_length=20, batch_size=64, generator=np.random.default_rng(0))\n"
    "for _ in range(1000): sampler.sample()",
)


def make_columns(num_steps: int, episode_length: int) -> dict[str, np.ndarray]:
    """Columns shaped like hopper-medium-v2: the cost does not depend on the values."""
    rng = np.random.default_rng(0)
    last = np.arange(num_steps) % episode_length == episode_length - 1
    return {
        "observations": rng.normal(size=(num_steps, STATE_DIM)).astype(np.float32),
        "next_observations": rng.normal(size=(num_steps, STATE_DIM)).astype(np.float32),
        "actions": rng.uniform(-1, 1, (num_steps, ACT_DIM)).astype(np.float32),
        "rewards": rng.normal(size=num_steps).astype(np.float32),
        "terminals": last & (np.arange(num_steps) // episode_length % 2 == 0),
        "timeouts": last & (np.arange(num_steps) // episode_length % 2 == 1),
    }


def write_sources(folder: Path, columns: dict[str, np.ndarray]) -> dict[str, Path]:
    """Write the same steps in every form that can be read."""
    sources = {}
    for name, compression in (("D4RL, gzip", "gzip"), ("D4RL, plain", None)):
        sources[name] = folder / f"{name.split()[-1]}" / "hopper_medium-v2.hdf5"
        sources[name].parent.mkdir()
        with h5py.File(sources[name], "w") as file:
            for key, column in columns.items():
                file.create_dataset(key, data=column, compression=compression)
    ends = np.flatnonzero(columns["terminals"] | columns["timeouts"]) + 1
    episodes = list(zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True))
    sources["pickled list"] = folder / "hopper-medium-v2.pkl"
    kept = [name for name in columns if name != "timeouts"]
    lists = [{name: columns[name][start:end] for name in kept} for start, end in episodes]
    sources["pickled list"].write_bytes(pickle.dumps(lists))
    sources["npz"] = folder / "columns.npz"
    np.savez(sources["npz"], **columns)
    sources["Minari"] = folder / "minari" / "hopper"
    write_minari(sources["Minari"] / "data", columns, episodes)
    return sources


def write_minari(folder: Path, columns: dict[str, np.ndarray], episodes: list[tuple[int, int]]) -> None:
    """Write the layout of Minari's HDF5 files."""
    folder.mkdir(parents=True)
    with h5py.File(folder / "main_data.hdf5", "w", track_order=True) as file:
        for index, (start, end) in enumerate(episodes):
            group = file.create_group(f"episode_{index}")
            last = columns["next_observations"][end - 1 : end]
            group["observations"] = np.concatenate([columns["observations"][start:end], last]).astype(
                np.float64
            )
            group["actions"] = columns["actions"][start:end]
            group["rewards"] = columns["rewards"][start:end].astype(np.float64)
            group["terminations"] = columns["terminals"][start:end]
            group["truncations"] = columns["timeouts"][start:end]
    metadata = {
        "dataset_id": "benchmark/hopper-v0",
        "data_format": "hdf5",
        "total_episodes": len(episodes),
        "total_steps": episodes[-1][1],
        "env_spec": json.dumps({"id": "Hopper-v5", "kwargs": {}}),
    }
    (folder / "metadata.json").write_text(json.dumps(metadata))


def measure(program: tuple[str, str], *arguments: object, repeats: int = 3) -> dict[str, float]:
    """Run a piece of code in fresh processes; medians of wall s, CPU s and added private MB."""
    imports, action = program
    code = MEASURE.format(imports=imports, action=action)
    runs = []
    for index in range(repeats):
        given = [str(argument).replace("{run}", str(index)) for argument in arguments]
        result = subprocess.run(
            [sys.executable, "-c", code, *given], capture_output=True, text=True, check=True
        )
        runs.append(json.loads(result.stdout))
    return {key: float(np.median([run[key] for run in runs])) for key in runs[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num-steps", type=int, default=1_000_000)
    parser.add_argument("--episode-length", type=int, default=457, help="hopper-medium's mean")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        begin = time.perf_counter()
        sources = write_sources(folder, make_columns(arguments.num_steps, arguments.episode_length))
        print(
            f"{arguments.num_steps:,} steps of Hopper's shape, written in {time.perf_counter() - begin:.0f} s"
        )
        print(f"{'':<24}{'wall s':>10}{'CPU s':>10}{'private MB':>12}")
        for name, path in sources.items():
            row(f"convert {name}", measure(CONVERT, path, folder / "home{run}" / name.replace(" ", "")))
        store = next((folder / "home0").rglob("manifest.json")).parent
        row("open", measure(OPEN, store, repeats=7), digits=4)
        row("open, sample 1000x64x20", measure(OPEN_AND_SAMPLE, store), digits=4)


def row(name: str, result: dict[str, float], digits: int = 2) -> None:
    print(
        f"{name:<24}{result['wall']:>10.{digits}f}{result['cpu']:>10.{digits}f}{result['mb']:>12.1f}",
        flush=True,
    )


if __name__ == "__main__":
    main()

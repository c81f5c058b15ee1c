"""What Ray adds to a run beyond its start-up: the same small runs in this process and as Ray tasks.

    python benchmarks/ray_overhead.py

One Ray worker, so that runs follow each other as they do in this process; it is warmed by a run that does not
count. Target: at most 2 s a run.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_worker_niceness", "0")  # as the engine has it

import numpy as np
import ray

from chibit.agents import AGENTS
from chibit.sweep import run_all
from chibit.training.run_config import RunConfig

RUNS, ROUNDS = 8, 3


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["CHIBIT_HOME"] = str(folder / "home")
        data = write_data(folder / "log.npz")
        began = time.perf_counter()
        ray.init(num_cpus=1, include_dashboard=False, logging_level="error", log_to_driver=False)
        started = time.perf_counter() - began
        first = seconds("ray", data, folder / "first", 1)
        seconds("process", data, folder / "warm", 1)
        print(f"start-up: {started:.1f} s, first run with its imports: {first:.1f} s")
        added = []
        for turn in range(ROUNDS):
            here = seconds("process", data, folder / f"process{turn}", RUNS)
            there = seconds("ray", data, folder / f"ray{turn}", RUNS)
            added.append((there - here) / RUNS)
            print(f"{RUNS} runs: {here / RUNS:.2f} s a run here, {there / RUNS:.2f} s a run on Ray")
        print(f"Ray adds {statistics.median(added):.2f} s a run (target 2 s)")
        ray.shutdown()


def write_data(path: Path) -> Path:
    """A log of 500 steps without an environment."""
    rng = np.random.default_rng(0)
    ends = np.arange(1, 501) % 50 == 0
    columns = {"observations": rng.normal(size=(500, 4)), "actions": rng.uniform(-1, 1, (500, 2))}
    np.savez(path, rewards=rng.normal(size=500), terminations=ends, **columns)
    return path


def seconds(engine: str, data: Path, root: Path, number: int) -> float:
    agent = AGENTS["bc"].config(hidden_sizes=(8,))
    common = {"data": str(data), "agent": agent, "num_steps": 20, "num_episodes": 0, "device": "cpu"}
    configs = [RunConfig(**common, seed=seed) for seed in range(number)]
    began = time.perf_counter()
    outcomes = run_all(configs, root=root, study="s", engine=engine, progress=False)
    assert {outcome.status for outcome in outcomes} == {"finished"}, outcomes
    return time.perf_counter() - began


if __name__ == "__main__":
    main()

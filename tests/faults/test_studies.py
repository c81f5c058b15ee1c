"""Faults 13 and 14: workers and driver of a study are killed; the results are those of one left alone."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import faults_kills
import pytest

from chibit.agents import AGENTS
from chibit.training.run_config import RunConfig, run_path, to_record

DRIVER = """
import json, sys
from pathlib import Path
from chibit.sweep import run_all
from chibit.training.run_config import from_record

if __name__ == "__main__":
    configs = [from_record(record) for record in json.loads(sys.argv[1])]
    outcomes = run_all(
        configs, root=Path(sys.argv[2]), study="s", engine=sys.argv[3], num_processes=2, progress=False
    )
    sys.exit(any(outcome.status not in ("finished", "skipped") for outcome in outcomes))
"""


def study(data):
    agent = AGENTS["td3_bc"].config(hidden_sizes=(8, 8), batch_size=4)
    fields = {
        "num_steps": 400,
        "evaluate_every": 0,
        "num_episodes": 0,
        "checkpoint_every": 20,
        "device": "cpu",
    }
    return [RunConfig(data=str(data), agent=agent, seed=seed, log_every=50, **fields) for seed in range(3)]


def start(configs, root, engine):
    (root / "driver.py").write_text(DRIVER)
    records = json.dumps([to_record(config) for config in configs])
    command = [sys.executable, str(root / "driver.py"), records, str(root), engine]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, start_new_session=True, **quiet)


def children(pid):
    """Processes below one, from the system's table."""
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True).stdout
    found = [int(line) for line in listed.split()]
    return found + [below for child in found for below in children(child)]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["pool", "ray"])
def test_a_study_whose_workers_and_driver_are_killed_ends_as_one_left_alone(pendulum_file, tmp_path, engine):
    if engine == "ray":
        pytest.importorskip("ray", reason="needs chibit[ray]")
    configs = study(pendulum_file)
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    for folder in (alone, killed):
        folder.mkdir()
    assert start(configs, alone, engine).wait(600) == 0
    generator = random.Random(0)
    paths = [run_path(config, killed, "s") for config in configs]
    kills = {"worker": 0, "driver": 0}
    while not all((path / "result.json").exists() for path in paths):
        driver = start(configs, killed, engine)
        if kills["driver"] == 3:
            assert driver.wait(600) == 0
            break
        deadline = time.monotonic() + 300
        before = sum(map(progress_of, paths))
        while (
            driver.poll() is None
            and sum(map(progress_of, paths)) < before + 2
            and time.monotonic() < deadline
        ):
            time.sleep(0.05)
        workers = children(driver.pid)
        if workers and kills["worker"] < 2:
            os.kill(generator.choice(workers), signal.SIGKILL)
            kills["worker"] += 1
            time.sleep(generator.uniform(0.1, 1.0))
        if driver.poll() is None:
            for pid in (driver.pid, *children(driver.pid)):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            kills["driver"] += 1
        driver.wait(60)
    assert kills["driver"] >= 1
    for config, path in zip(configs, paths, strict=True):
        assert faults_kills.digest(path) == faults_kills.digest(run_path(config, alone, "s"))


def progress_of(path):
    """Checkpoints that a run has made so far; one that is pruned counts by its number."""
    folder = path / "checkpoints"
    steps = [int(entry.name) for entry in folder.iterdir() if entry.name.isdigit()] if folder.is_dir() else []
    return max(steps, default=0) // 20

"""Faults 13 and 14: workers and driver of a study are killed; the results are those of one left alone."""

import contextlib
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
    """Processes below one, each with its command line, from the system's table."""
    listed = subprocess.run(
        ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(pid)], capture_output=True, text=True
    )
    found = {int(line.split()[0]): line for line in listed.stdout.splitlines()}
    for child in list(found):
        found |= children(child)
    return found


def kill(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def progress_of(path):
    """Checkpoints that a run has made so far; one that is pruned counts by its number."""
    folder = path / "checkpoints"
    steps = [int(entry.name) for entry in folder.iterdir() if entry.name.isdigit()] if folder.is_dir() else []
    return max(steps, default=0) // 20


def wait_for_checkpoints(driver, paths, number):
    """Until the runs have made so many more checkpoints, or are done."""
    before, deadline = sum(map(progress_of, paths)), time.monotonic() + 600
    while driver.poll() is None and sum(map(progress_of, paths)) < before + number:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize(("engine", "num_kills"), [("pool", 3), ("ray", 1)])
def test_a_study_whose_workers_and_driver_are_killed_ends_as_one_left_alone(
    pendulum_file, tmp_path, engine, num_kills
):
    """A worker, then the driver with all below it, as often as was asked; then once to the end."""
    if engine == "ray":
        pytest.importorskip("ray", reason="needs chibit[ray]")
    configs, generator = study(pendulum_file), random.Random(0)
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    for folder in (alone, killed):
        folder.mkdir()
    assert start(configs, alone, "process").wait(900) == 0
    paths = [run_path(config, killed, "s") for config in configs]
    dead = {"worker": 0, "driver": 0}
    for _ in range(num_kills):
        driver = start(configs, killed, engine)
        wait_for_checkpoints(driver, paths, 2)
        busy = [pid for pid, line in children(driver.pid).items() if "ray::" in line or "spawn_main" in line]
        if busy:
            kill(generator.choice(busy))
            dead["worker"] += 1
            wait_for_checkpoints(driver, paths, 1)
        if driver.poll() is None:
            below = children(driver.pid)
            for pid in (driver.pid, *below):
                kill(pid)
            dead["driver"] += 1
        driver.wait(60)
    assert dead["worker"] >= 1
    assert dead["driver"] >= 1
    assert start(configs, killed, engine).wait(900) == 0
    for config, path in zip(configs, paths, strict=True):
        assert faults_kills.digest(path) == faults_kills.digest(run_path(config, alone, "s"))

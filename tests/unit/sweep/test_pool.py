"""Runs in processes of their own, as `chibit study` has them."""

import multiprocessing
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from chibit.agents import AGENTS
from chibit.core.checkpoint import checkpoint_steps
from chibit.core.errors import InputError
from chibit.sweep import engines
from chibit.sweep.engines import LocalPool, gpus_to_share
from chibit.sweep.ray_engine import refuse_indices, share_of_gpu
from chibit.sweep.tasks import Outcome, Task
from chibit.training.run_config import RunConfig
from fault_files import steps


def test_a_run_in_a_process_of_the_pool_is_interrupted_and_saves(tmp_path):
    np.savez(tmp_path / "data.npz", **steps())
    config = RunConfig(
        data=str(tmp_path / "data.npz"),
        agent=AGENTS["bc"].config(),
        num_steps=10**6,
        num_episodes=0,
        evaluate_every=0,
        log_every=1,
    )
    pool = LocalPool(1, 0)
    try:
        pool.interrupt()  # an idle process goes on
        pool.submit(Task(config=config, path=tmp_path / "run", study="s"))
        ended = []
        for _ in range(3_000):
            ended = pool.collect(0.1)
            if ended:
                break
            if (tmp_path / "run" / "metrics.jsonl").exists():
                pool.interrupt()
        ((_, outcome),) = ended
        assert outcome.status == "stopped" and outcome.signal_number == signal.SIGINT
        assert checkpoint_steps(tmp_path / "run" / "checkpoints")
    finally:
        for child in multiprocessing.active_children():
            child.kill()
        pool.close()


def test_each_place_has_a_gpu_of_its_own_and_keeps_it_when_its_process_is_killed(tmp_path):
    config = RunConfig(data="nothing", agent=AGENTS["bc"].config())
    pool = LocalPool(3, 0, gpus=["4", "7"])
    try:
        assert [place.gpu for place in pool._free] == ["4", "7", "4"]
        place = pool._free[-1]
        assert place.processes.submit(os.getenv, "CUDA_VISIBLE_DEVICES").result() == "4"
        for child in multiprocessing.active_children():
            child.kill()
        pool.submit(Task(config=config, path=tmp_path / "run", study="s"))
        ((_, ended),) = pool.collect(60.0)
        assert "was killed" in ended.message
        assert [place.gpu for place in pool._free] == ["4", "7", "4"] and pool._free[-1] is not place
    finally:
        pool.close()


def test_a_process_that_was_killed_while_it_had_nothing_to_do_is_replaced(monkeypatch, tmp_path):
    class Killed(ThreadPoolExecutor):
        def submit(self, *_):
            raise BrokenProcessPool("it was killed")

    task = Task(config=RunConfig(data="x", agent=AGENTS["bc"].config()), path=tmp_path / "run", study="s")
    done = Outcome(task.path, "finished")
    monkeypatch.setattr(engines, "_run_in_worker", lambda task: done)
    pool = LocalPool(1, 0, gpus=["4"])
    pool._free = [engines._Place(Killed(1), "4")]
    monkeypatch.setattr(pool, "_place", lambda gpu: engines._Place(ThreadPoolExecutor(1), gpu))
    pool.submit(task)
    assert pool.collect(10.0) == [(task, done)]
    assert [place.gpu for place in pool._free] == ["4"]
    pool.close()


@pytest.mark.parametrize(
    ("devices", "variable", "gpus"),
    [
        (["auto", "cuda"], None, ["0", "1"]),
        (["auto"], "3,GPU-5f", ["3", "GPU-5f"]),
        (["cpu"], None, []),
        (["cuda", "cuda:1"], None, []),
    ],
)
def test_runs_share_the_gpus_that_are_seen_unless_they_name_one(monkeypatch, devices, variable, gpus):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if variable:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    config = RunConfig(data="hopper-medium", agent=AGENTS["bc"].config())
    tasks = [Task(config=replace(config, device=device), path=Path("run"), study="s") for device in devices]
    assert gpus_to_share(tasks) == gpus


def test_ray_keeps_a_share_of_a_gpu_for_runs_that_take_one():
    assert share_of_gpu("cuda", 0.25, has_gpus=False) == share_of_gpu("auto", 0.25, has_gpus=True) == 0.25
    assert share_of_gpu("auto", 0.25, has_gpus=False) == share_of_gpu("cpu", 0.25, has_gpus=True) == 0.0
    refuse_indices(["auto", "cuda", "cpu"])
    with pytest.raises(InputError, match="'cuda:3', but Ray gives each run its GPU; use cuda"):
        refuse_indices(["cuda", "cuda:3"])

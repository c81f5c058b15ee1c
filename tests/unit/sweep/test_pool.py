"""Runs in processes of their own, as `chibit study` has them."""

import multiprocessing
import signal

import numpy as np

from chibit.agents import AGENTS
from chibit.core.checkpoint import checkpoint_steps
from chibit.sweep.engines import LocalPool
from chibit.sweep.tasks import Task
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
        for _ in range(300):
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

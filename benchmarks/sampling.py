"""Speed of drawing windows, beside d3rlpy's sampler and a plain one: one thread, rounds interleaved.

    python benchmarks/sampling.py [--peer-python PATH/TO/VENV/bin/python]

PATH/TO/VENV is an environment with d3rlpy 2.8.1. A batch is 64 windows of 20 steps of Hopper's sizes. The
plain sampler is written here in the manner of the gym code of Chen et al. (2021): a loop over windows, each
with the discounted sum over the rest of its episode. Ratios are medians over rounds of CPU time, which other
load on the machine disturbs least.

Target: at least 6 times as fast as d3rlpy, at most 0.3 ms a batch.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np

STATE_DIM, ACT_DIM, NUM_STEPS, BATCH_SIZE, CONTEXT_LENGTH = 11, 3, 200_000, 64, 20
BATCHES = {"chibit": 500, "plain": 20, "d3rlpy": 50}
"""Batches of each side in a round."""
NUM_ROUNDS = 7


def columns() -> dict[str, np.ndarray]:
    """Random steps in episodes of 300 to 614, 457 in the mean as in hopper-medium."""
    rng = np.random.default_rng(0)
    ends = np.cumsum(rng.integers(300, 615, size=NUM_STEPS // 300)) - 1
    terminals = np.zeros(NUM_STEPS, np.float32)
    terminals[ends[ends < NUM_STEPS - 1]] = 1.0
    terminals[-1] = 1.0
    return {
        "observations": rng.standard_normal((NUM_STEPS, STATE_DIM)).astype(np.float32),
        "actions": rng.uniform(-1.0, 1.0, (NUM_STEPS, ACT_DIM)).astype(np.float32),
        "rewards": rng.standard_normal(NUM_STEPS).astype(np.float32),
        "terminals": terminals,
    }


def chibit_batches() -> Callable[[], object]:
    """Ours, from a store on the disk."""
    from chibit.data.load import from_arrays
    from chibit.data.samplers.windows import WindowSampler

    data = columns()
    with tempfile.TemporaryDirectory() as home:
        dataset = from_arrays(
            data["observations"], data["actions"], data["rewards"], data["terminals"], cache=Path(home)
        )
        # The memory maps stay valid after the folder is gone.
        return WindowSampler(
            dataset,
            context_length=CONTEXT_LENGTH,
            batch_size=BATCH_SIZE,
            generator=np.random.default_rng(0),
        ).sample


def plain_batches() -> Callable[[], object]:
    """A loop over windows, padded on the left, the return-to-go summed anew for each."""
    import torch

    data = columns()
    ends = np.flatnonzero(data["terminals"]) + 1
    starts = np.concatenate([[0], ends[:-1]])
    lengths = ends - starts
    mean, std = data["observations"].mean(axis=0), data["observations"].std(axis=0) + 1e-6
    rng = np.random.default_rng(0)

    def left_padded(rows: np.ndarray) -> np.ndarray:
        padding = np.zeros((CONTEXT_LENGTH - len(rows), *rows.shape[1:]), rows.dtype)
        return np.concatenate([padding, rows])

    def draw() -> list[torch.Tensor]:
        parts: list[list[np.ndarray]] = [[], [], [], [], []]
        for episode in rng.choice(len(lengths), size=BATCH_SIZE, p=lengths / lengths.sum()):
            first = starts[episode] + rng.integers(lengths[episode])
            rows = slice(first, min(first + CONTEXT_LENGTH, ends[episode]))
            rewards = data["rewards"][first : ends[episode]]
            sums = np.zeros_like(rewards)
            total = 0.0
            for t in reversed(range(len(rewards))):
                total = sums[t] = rewards[t] + total
            states = (data["observations"][rows] - mean) / std
            count = len(states)
            timesteps = np.arange(first - starts[episode], first - starts[episode] + count)
            for part, values in zip(
                parts, (sums[:count], states, data["actions"][rows], timesteps, np.ones(count)), strict=True
            ):
                part.append(left_padded(values))
        return [torch.from_numpy(np.stack(part)) for part in parts]

    return draw


def d3rlpy_batches() -> Callable[[], object]:
    """The peer's sampler of trajectories."""
    import d3rlpy

    data = columns()
    buffer = d3rlpy.dataset.MDPDataset(
        observations=data["observations"],
        actions=data["actions"],
        rewards=data["rewards"],
        terminals=data["terminals"],
        action_space=d3rlpy.ActionSpace.CONTINUOUS,
    )
    return lambda: buffer.sample_trajectory_batch(BATCH_SIZE, CONTEXT_LENGTH)


SIDES = {"chibit": chibit_batches, "plain": plain_batches, "d3rlpy": d3rlpy_batches}


def work(side: str) -> None:
    """Draw as many batches as each line of standard input asks for; answer with CPU seconds."""
    draw = SIDES[side]()
    for _ in range(BATCHES[side]):
        draw()
    print("ready", flush=True)
    for line in sys.stdin:
        begin = time.process_time()
        for _ in range(int(line)):
            draw()
        print("seconds", time.process_time() - begin, flush=True)


def start(python: str, side: str) -> subprocess.Popen:
    """Start a worker and wait until it is warm."""
    program = [python, __file__, "--worker", side]
    worker = subprocess.Popen(
        program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    answer(worker, "ready")
    return worker


def answer(worker: subprocess.Popen, word: str) -> str:
    for line in worker.stdout or ():
        if line.startswith(word):
            return line
    raise RuntimeError(f"worker ended with code {worker.wait()}; run it by hand to see why")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer-python", help="interpreter of an environment with d3rlpy 2.8.1")
    parser.add_argument("--worker", choices=SIDES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.worker)
        return
    workers = {side: start(sys.executable, side) for side in ("chibit", "plain")}
    if arguments.peer_python:
        workers["d3rlpy"] = start(arguments.peer_python, "d3rlpy")
    milliseconds: dict[str, list[float]] = {side: [] for side in workers}
    for _ in range(NUM_ROUNDS):
        for side, worker in workers.items():
            assert worker.stdin is not None
            worker.stdin.write(f"{BATCHES[side]}\n")
            worker.stdin.flush()
            milliseconds[side].append(1000 * float(answer(worker, "seconds").split()[1]) / BATCHES[side])
    print(f"{'sampler':<10}{'CPU ms/batch':>14}{'x chibit':>10}")
    for side, times in milliseconds.items():
        ratio = statistics.median(t / ours for t, ours in zip(times, milliseconds["chibit"], strict=True))
        print(f"{side:<10}{statistics.median(times):>14.3f}{ratio:>10.1f}")


if __name__ == "__main__":
    main()

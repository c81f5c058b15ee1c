"""Seconds of a training step against transformers and d3rlpy 2.8.1: one thread, rounds of all sides
interleaved.

    python benchmarks/training_step.py [--peer-python PATH/TO/VENV/bin/python] [--rounds 15]

PATH/TO/VENV is an environment with d3rlpy 2.8.1 and the same torch as here; without it that peer is
left out. All sides take steps on one batch of 64 windows of 20 steps of Hopper's sizes, with Chen et
al.'s model (three blocks of width 128) and dropout 0.1, including loss, clipping, AdamW and warm-up,
without sampling. A ratio is the median over rounds of peer seconds / our seconds, by CPU time, which
other load on the machine disturbs least.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

WORKER = Path(__file__).with_name("training_step_worker.py")
STEPS = 3
GOALS = {"chibit-fp32": 1.4, "chibit-bf16": 2.5}


class Worker:
    """A process that takes steps on request."""

    def __init__(self, python: str, side: str) -> None:
        """Start a side in a python and wait until it is ready."""
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [python, str(WORKER), side],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self.answer("ready")

    def answer(self, word: str) -> list[float]:
        """Numbers of the next line that begins with a word."""
        for line in self.process.stdout:
            if line.startswith(word):
                return [float(number) for number in line.split()[1:]]
        raise RuntimeError(f"worker ended with code {self.process.wait()}; run it by hand to see why")

    def run(self) -> float:
        """CPU milliseconds of a step."""
        self.process.stdin.write(f"{STEPS}\n")
        self.process.stdin.flush()
        return 1e3 * self.answer("seconds")[0] / STEPS

    def stop(self) -> None:
        """Let the process end."""
        self.process.stdin.close()
        self.process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer-python", help="python of an environment with d3rlpy 2.8.1")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    workers = {side: Worker(sys.executable, side) for side in ("chibit-fp32", "chibit-bf16", "transformers")}
    if arguments.peer_python:
        workers["d3rlpy"] = Worker(arguments.peer_python, "d3rlpy")
    times: dict[str, list[float]] = {side: [] for side in workers}
    for _ in range(arguments.rounds):
        for side, worker in workers.items():
            times[side].append(worker.run())
    for worker in workers.values():
        worker.stop()
    print("| | CPU ms/step |\n|---|---|")
    for side, values in times.items():
        print(f"| {side} | {statistics.median(values):.0f} |")
    print("\n| ours | peer | ratio | middle half | goal |\n|---|---|---|---|---|")
    for ours, goal in GOALS.items():
        for peer in list(times)[len(GOALS) :]:
            ratios = sorted(p / o for p, o in zip(times[peer], times[ours], strict=True))
            quarter = len(ratios) // 4
            middle = f"{ratios[quarter]:.2f} to {ratios[-1 - quarter]:.2f}"
            print(f"| {ours} | {peer} | {statistics.median(ratios):.2f} | {middle} | {goal} |")


if __name__ == "__main__":
    main()

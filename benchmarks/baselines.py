"""Speed of the baselines against d3rlpy 2.8.1: one thread, one run, rounds of the two sides interleaved.

    python benchmarks/baselines.py --peer-python PATH/TO/VENV/bin/python

PATH/TO/VENV is an environment with d3rlpy 2.8.1 and the same torch as here. Both sides see the same random
data of Hopper's sizes, have the same networks and batch size, and their own sampling is part of a step. The
ratio is the median over rounds of peer seconds / our seconds, by CPU time, which other load on the machine
disturbs least.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
STEPS = {"bc": 100, "td3_bc": 50, "iql": 40, "cql": 6}
"""Steps of each side in a round: about half a second."""
COMPARISONS = (("bc", "fp32"), ("td3_bc", "fp32"), ("iql", "fp32"), ("cql", "fp32"), ("cql", "bf16"))
"""Agent, and our precision; the peer computes in fp32, the only one it has."""


@dataclass
class Worker:
    """A process that takes steps on request."""

    process: subprocess.Popen

    @classmethod
    def start(cls, python: str, library: str, agent: str, precision: str) -> Worker:
        """Start it and wait until its networks are built."""
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        process = subprocess.Popen(
            [python, str(HERE / "baselines_worker.py"), library, agent, precision],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        worker = cls(process)
        worker.answer("ready")
        return worker

    def answer(self, word: str) -> list[float]:
        """Numbers on the next line that begins with a word."""
        for line in self.process.stdout:
            if line.startswith(word):
                return [float(number) for number in line.split()[1:]]
        raise RuntimeError(f"worker ended with code {self.process.wait()}; run it by hand to see why")

    def run(self, num_steps: int) -> tuple[float, float]:
        """CPU and wall seconds of a step."""
        self.process.stdin.write(f"{num_steps}\n")
        self.process.stdin.flush()
        cpu, wall = self.answer("seconds")
        return cpu / num_steps, wall / num_steps

    def stop(self) -> None:
        """Let it end."""
        self.process.stdin.close()
        self.process.wait()


def compare(agent: str, precision: str, peer_python: str, rounds: int) -> str:
    ours = Worker.start(sys.executable, "chibit", agent, precision)
    peer = Worker.start(peer_python, "d3rlpy", agent, "fp32")
    our_times, peer_times = [], []
    for _ in range(rounds):
        our_times.append(ours.run(STEPS[agent])[0])
        peer_times.append(peer.run(STEPS[agent])[0])
    ours.stop()
    peer.stop()
    ratios = sorted(p / o for p, o in zip(peer_times, our_times, strict=True))
    quarter = len(ratios) // 4
    mine, theirs = 1 / statistics.median(our_times), 1 / statistics.median(peer_times)
    middle_half = f"{ratios[quarter]:.2f} to {ratios[-1 - quarter]:.2f}"
    ratio = statistics.median(ratios)
    return f"| {agent} | {precision} | {mine:.1f} | {theirs:.1f} | {ratio:.2f} | {middle_half} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--peer-python", required=True, help="interpreter of an environment with d3rlpy 2.8.1"
    )
    parser.add_argument("--rounds", type=int, default=21, help="rounds of each comparison")
    parser.add_argument("--agents", nargs="*", default=None, help="only these")
    arguments = parser.parse_args()
    print("| agent | our precision | steps per CPU second | d3rlpy | ratio | middle half |")
    print("|---|---|---|---|---|---|")
    for agent, precision in COMPARISONS:
        if not arguments.agents or agent in arguments.agents:
            print(compare(agent, precision, arguments.peer_python, arguments.rounds), flush=True)


if __name__ == "__main__":
    main()

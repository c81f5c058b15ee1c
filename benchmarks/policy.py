"""The time of one action in one environment: bare models, `Policy`, `OnnxPolicy` and d3rlpy, one thread.

    python benchmarks/policy.py [--peer-python PATH/TO/VENV/bin/python]

PATH/TO/VENV is an environment with d3rlpy 2.8.1; the extra `onnx` has what the graphs need. Sizes are
Hopper's: cloning by a perceptron of 256 x 256, and a Decision Transformer of three layers of 128 that sees 20
steps, all of them filled. `act` is one action of a policy with all its checks, `act, observe` with what
follows it; d3rlpy's is `predict`. The bare model is the network with the bounds of actions, which gets
normalized tensors ready made, in inference mode. Times are CPU time, which other load on the machine disturbs
least; all sides alternate in rounds, and ratios are those of each round.

Target: an action of a policy takes at most 1.5 times its bare model.
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

STATE_DIM, ACT_DIM, CONTEXT_LENGTH = 11, 3, 20
ACTIONS = {"bc": 300, "dt": 30}
"""Actions of each side in a round."""
NUM_ROUNDS = 15
SEEN = np.random.default_rng(0).normal(size=(64, STATE_DIM)).astype(np.float32)


class Side:
    """Something that acts, and is told what came of it."""

    def __init__(self, act: Callable[[int], object], observe: Callable[..., object] | None = None) -> None:
        self.act, self.observe, self.steps = act, observe, 0

    def measure(self, number: int) -> dict[str, float]:
        """Microseconds of CPU time of an action, and of an action with what follows it."""
        acting = following = 0.0
        for step in range(self.steps, self.steps + number):
            begin = time.process_time()
            self.act(step)
            between = time.process_time()
            if self.observe:
                self.observe(1.0, False)
            acting += between - begin
            following += time.process_time() - between
        self.steps += number
        times = {"act": 1e6 * acting / number}
        return times | {"act, observe": 1e6 * (acting + following) / number} if self.observe else times


def chibit_sides(method: str) -> dict[str, Side]:
    """Ours."""
    import torch

    from chibit.agents import AGENTS, make_agent
    from chibit.core.runtime import Runtime
    from chibit.data.spec import DatasetSpec
    from chibit.policy.export import export_with_extras
    from chibit.policy.onnx_policy import OnnxPolicy
    from chibit.policy.policy import Policy

    torch.set_num_threads(1)
    spec = DatasetSpec(
        name="toy", state_dim=STATE_DIM, act_dim=ACT_DIM, num_actions=None, env_id=None, d4rl_physics=False,
        max_episode_steps=1000, score_reference=None, state_mean=(0.1,) * STATE_DIM,
        state_std=(1.1,) * STATE_DIM, action_low=(-1.0,) * ACT_DIM, action_high=(1.0,) * ACT_DIM,
        default_target_returns=(3600.0,),
    )  # fmt: skip
    agent = make_agent(AGENTS[method].config(), spec, Runtime())
    agent.modules().eval()
    state, window = torch.from_numpy(SEEN[:1]), (1, CONTEXT_LENGTH)
    if method == "bc":
        model, inputs, options = agent.env_actions, (state,), {}
    else:
        model, options = agent.model, {"last_only": True}
        inputs = (
            torch.zeros(window), torch.zeros(*window, STATE_DIM), torch.zeros(*window, ACT_DIM),
            torch.arange(CONTEXT_LENGTH)[None],
        )  # fmt: skip

    def bare(step: int) -> object:
        with torch.inference_mode():
            return model(*inputs, **options)

    with tempfile.TemporaryDirectory() as folder:
        export_with_extras(agent, spec, Path(folder), onnx=True)
        policies = {"Policy": Policy(agent, spec), "OnnxPolicy": OnnxPolicy.from_pretrained(folder)}
    sides = {"bare model": Side(bare)}
    for name, policy in policies.items():
        policy.max_episode_steps = 10**9
        policy.reset()
        for step in range(CONTEXT_LENGTH):
            policy.act(SEEN[step])
            policy.observe(1.0, False)
        sides[name] = Side(lambda step, policy=policy: policy.act(SEEN[step % len(SEEN)]), policy.observe)
    return sides


def peer_side(method: str) -> Side:
    """d3rlpy's, with networks of the same sizes."""
    import d3rlpy
    import torch

    torch.set_num_threads(1)
    data = d3rlpy.dataset.MDPDataset(
        observations=np.tile(SEEN, (4, 1)),
        actions=np.random.default_rng(1).uniform(-1, 1, (256, ACT_DIM)).astype(np.float32),
        rewards=np.ones(256, np.float32),
        terminals=(np.arange(1, 257) % 64 == 0).astype(np.float32),
        action_space=d3rlpy.ActionSpace.CONTINUOUS,
    )
    scaler = d3rlpy.preprocessing.StandardObservationScaler(
        mean=np.full(STATE_DIM, 0.1), std=np.full(STATE_DIM, 1.1)
    )
    if method == "bc":
        cloning = d3rlpy.algos.BCConfig(observation_scaler=scaler).create()
        cloning.build_with_dataset(data)
        return Side(lambda step: cloning.predict(SEEN[step % len(SEEN), None]))
    transformer = d3rlpy.algos.DecisionTransformerConfig(
        observation_scaler=scaler,
        context_size=CONTEXT_LENGTH,
        num_heads=1,
        num_layers=3,
        max_timestep=100_000,
    ).create()
    transformer.build_with_dataset(data)
    stateful = transformer.as_stateful_wrapper(target_return=3600.0)
    for step in range(CONTEXT_LENGTH):
        stateful.predict(SEEN[step], 1.0)
    return Side(lambda step: stateful.predict(SEEN[step % len(SEEN)], 1.0))


def work(method: str) -> None:
    """Act as often as each line of standard input asks for; answer with microseconds."""
    side = peer_side(method)
    for line in sys.stdin:
        print("microseconds", side.measure(int(line))["act"], flush=True)


class Peer:
    """d3rlpy in another environment."""

    def __init__(self, python: str, method: str) -> None:
        program = [python, __file__, "--worker", method]
        self.process = subprocess.Popen(
            program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def measure(self, number: int) -> dict[str, float]:
        self.process.stdin.write(f"{number}\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("microseconds"):
                return {"act": float(line.split()[1])}
        raise RuntimeError(f"the worker ended with code {self.process.wait()}; run it by hand to see why")


def compare(method: str, peer_python: str | None) -> dict[tuple[str, str], list[float]]:
    """Microseconds of each side in each round."""
    sides = chibit_sides(method) | ({"d3rlpy": Peer(peer_python, method)} if peer_python else {})
    times: dict[tuple[str, str], list[float]] = {}
    for turn in range(NUM_ROUNDS + 1):
        for name, side in sides.items():
            for what, value in side.measure(ACTIONS[method]).items():
                if turn:  # the first round warms up
                    times.setdefault((name, what), []).append(value)
    if peer_python:
        sides["d3rlpy"].process.stdin.close()
        sides["d3rlpy"].process.wait()
    return times


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer-python", help="interpreter of an environment with d3rlpy 2.8.1")
    parser.add_argument("--worker", choices=ACTIONS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.worker)
        return
    print("| method | side | what | microseconds | times the bare model |\n|---|---|---|---:|---:|")
    for method in ACTIONS:
        times = compare(method, arguments.peer_python)
        for (side, what), values in times.items():
            pairs = zip(values, times["bare model", "act"], strict=True)
            ratios = [value / bare for value, bare in pairs]
            shown = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            microseconds = statistics.median(values)
            print(f"| {method} | {side} | {what} | {microseconds:,.0f} | {shown} |", flush=True)


if __name__ == "__main__":
    main()

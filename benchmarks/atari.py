"""Atari: conversion of DQN-replay shards, assembly of batches, evaluation in lockstep.

Shards are written first, from real Breakout play with random actions, repeated until they are large enough.

    python benchmarks/atari.py conversion    frames a CPU second, peak memory of the process that converts
    python benchmarks/atari.py batches       milliseconds for 128 windows of 30 stacks, and bytes held
    python benchmarks/atari.py evaluation    environment steps a CPU second, against a batch-1 loop that
                                             encodes its whole window anew at each step, as Chen et al.'s does
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from atari_toys import padded_rows, play_games, write_shards
from chibit.data.load import load_dataset
from chibit.data.readers.dqn_replay import convert_replay

ENV_ID = "BreakoutNoFrameskip-v4"


def make_shards(folder: Path, rows: int, buffers: int) -> None:
    columns = padded_rows(play_games(ENV_ID, range(6)))
    repeats = -(-rows // len(columns["terminal"]))
    columns = {kind: np.concatenate([values] * repeats) for kind, values in columns.items()}
    for number in range(buffers):
        write_shards(folder, number, columns)


def convert_once(folder: str, out: str) -> None:
    """In a process of its own, so that its memory is its own."""
    before = time.process_time()
    convert_replay(Path(folder), "Breakout", Path(out), num_steps=10**9, progress=False)
    seconds = time.process_time() - before
    # Not ru_maxrss, which begins with what the parent process had.
    status = Path("/proc/self/status").read_text().splitlines()
    memory = next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024
    print(json.dumps({"seconds": seconds, "memory_mb": memory}))


def conversion(rows: int, buffers: int = 2) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_shards(folder / "logs", rows, buffers)
        command = [sys.executable, __file__, "convert-once", str(folder / "logs"), str(folder / "store")]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        dataset = load_dataset(folder / "store")
        size = sum(path.stat().st_size for path in (folder / "store").iterdir())
        print(f"converted {dataset.num_steps:,} frames in {found['seconds']:.2f} CPU seconds: "
              f"{dataset.num_steps / found['seconds']:,.0f} frames/s a core")  # fmt: skip
        print(f"peak memory of the process {found['memory_mb']:.0f} MB")
        print(f"on disk {size / dataset.num_steps:,.0f} bytes a frame: "
              f"{size / dataset.num_steps * 5e5 / 1e9:.2f} GB for 500,000")  # fmt: skip


def batches(rows: int) -> None:
    from chibit.data.samplers.windows import WindowSampler

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_shards(folder / "logs", rows, 1)
        dataset = load_dataset(convert_replay(folder / "logs", "Breakout", folder / "store", progress=False))
        sampler = WindowSampler(
            dataset, context_length=30, batch_size=128, generator=np.random.default_rng(0)
        )
        sampler.sample()
        times = []
        for _ in range(20):
            before = time.process_time()
            batch = sampler.sample()
            times.append(time.process_time() - before)
        held = batch.states.untyped_storage().nbytes()
        print(f"128 x 30 stacks: median {1000 * np.median(times):.1f} ms CPU; {held / 1e6:.1f} MB held, "
              f"{batch.states.nbytes / 1e6:.1f} MB if the stacks were copied; "
              f"the set has {dataset.frames.nbytes / 1e6:.0f} MB")  # fmt: skip


def evaluation(episodes: int, steps: int, precision: str) -> None:
    from chibit.agents import make_agent
    from chibit.core.runtime import resolve_runtime
    from chibit.data.frame_store import write_frame_store
    from chibit.data.readers.origin import Origin
    from chibit.environments.atari import AtariEnv
    from chibit.evaluation.pool import EnvironmentPool
    from chibit.evaluation.rollout import evaluate
    from chibit.recipes import RECIPES

    runtime = resolve_runtime("cpu", precision)
    with tempfile.TemporaryDirectory() as name:
        games = play_games(ENV_ID, range(2), max_steps=40)
        dataset = load_dataset(
            write_frame_store(Path(name) / "store", games, Origin(name="Breakout", env_id=ENV_ID))
        )
    agent = make_agent(RECIPES["dt_atari"].run(data="x").agent, dataset.spec, runtime)
    options = {"target_returns": [90.0], "seed": 0, "max_episode_steps": steps}
    ratios = []
    with EnvironmentPool(ENV_ID, max_episode_steps=steps) as pool:
        pool.take(episodes)  # built before the clock starts, as the other side's
        env = AtariEnv(ENV_ID, max_episode_steps=steps)
        for _ in range(3):
            before = time.process_time()
            found = evaluate(
                agent.policy([90.0]), ENV_ID, num_episodes=episodes, environments=pool, **options
            )
            lockstep = sum(found[0].episode_lengths) / (time.process_time() - before)
            before = time.process_time()
            single = batch_one_loop(agent.model, env, steps) / (time.process_time() - before)
            ratios.append(lockstep / single)
            print(f"{precision}: lockstep over {episodes} games {lockstep:,.0f} steps/s, batch-1 loop, fp32, "
                  f"{single:,.1f} steps/s: {lockstep / single:.1f}x")  # fmt: skip
    print(f"{precision}: median {np.median(ratios):.1f}x")


def batch_one_loop(model, env, steps: int) -> int:
    """One game, the window of stacks encoded anew at every step."""
    import torch

    left = 90.0
    observation, _ = env.reset(seed=0)
    states, actions, returns, done, step = [], [], [], False, 0
    model.eval()
    while not done:
        states, actions, returns = states[-29:], actions[-29:], returns[-29:]
        states.append(torch.from_numpy(observation))
        actions.append(0)
        returns.append(left)
        first = step + 1 - len(states)
        with torch.inference_mode():
            logits = model(
                torch.tensor([returns]),
                torch.stack(states)[None],
                torch.tensor([actions]),
                torch.arange(first, step + 1)[None],
            )[0, -1]
        actions[-1] = int(torch.multinomial(logits.softmax(-1), 1))
        observation, reward, over, cut, _ = env.step(actions[-1])
        left -= reward
        step += 1
        done = over or cut
    return step


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("conversion", "batches", "evaluation", "convert-once"))
    parser.add_argument("paths", nargs="*")
    parser.add_argument("--rows", type=int, default=20_000, help="rows of a buffer")
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--steps", type=int, default=60, help="steps of an evaluation episode")
    arguments = parser.parse_args()
    if arguments.what == "convert-once":
        convert_once(*arguments.paths)
    elif arguments.what == "conversion":
        conversion(arguments.rows)
    elif arguments.what == "batches":
        batches(arguments.rows)
    else:
        for precision in ("fp32", "bf16"):
            evaluation(arguments.episodes, arguments.steps, precision)


if __name__ == "__main__":
    main()

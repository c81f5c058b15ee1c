"""Pools of policies with known true returns, for `benchmarks/judging.py`: two dozen a data set, good and bad.

Each policy is trained for a short while on four fifths of the episodes, saved, and played in the simulator.
Everything is kept in a folder and made once: a pool that was interrupted goes on where it was.

    python benchmarks/judging_pools.py [--pools hopper-medium-replay ...] [--state build/judging]
"""

from __future__ import annotations

import argparse
import json
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym
import numpy as np

import chibit
from chibit.agents import make_agent
from chibit.agents.awr import AWRConfig
from chibit.agents.base import AgentConfig
from chibit.agents.bc import BCConfig
from chibit.agents.dt.config import DecisionTransformerConfig
from chibit.agents.iql import IQLConfig
from chibit.agents.td3_bc import TD3BCConfig
from chibit.core.files import write_atomic
from chibit.core.runtime import resolve_runtime, seed_torch
from chibit.data.dataset import TrajectoryDataset
from chibit.evaluation.pool import EnvironmentPool
from chibit.evaluation.rollout import evaluate
from chibit.models.gpt import GPTShape

DISCOUNT = 0.99
EPISODES = 24
HOME = Path("build/judging/home")
SHARE, SEED = 0.2, 0
"""Held out of every pool's data, as `chibit.judge` holds out by default."""


@dataclass(frozen=True)
class Pool:
    """A data set on which policies are trained and judged."""

    name: str
    data: Callable[[], TrajectoryDataset]


@dataclass(frozen=True)
class Job:
    """One training run; a policy is kept after each of some steps, for each target and each noise."""

    name: str
    config: AgentConfig
    steps: tuple[int, ...]
    target_shares: tuple[float, ...] = ()
    """Of the log's best return, above its worst."""
    noises: tuple[float, ...] = (0.0,)
    """Of the last policy, in halves of the range of actions."""


def jobs() -> list[Job]:
    dt = DecisionTransformerConfig(
        gpt=GPTShape(n_embd=64, n_layer=2), dropout=0.1, learning_rate=1e-3, warmup_steps=100, batch_size=64,
        context_length=10,
    )  # fmt: skip
    return [
        Job("bc", BCConfig(), (0, 20, 100, 300, 1000, 5000), noises=(0.0, 0.25, 0.6)),
        Job("bc10", BCConfig(top_fraction=0.1), (300, 3000)),
        Job("td3bc", TD3BCConfig(), (1000, 4000)),
        Job("td3bc_greedy", TD3BCConfig(alpha=40.0), (1500, 4000)),
        Job("iql", IQLConfig(), (600, 4000)),
        Job("awr", AWRConfig(), (1500,)),
        Job("dt", dt, (150, 1500), target_shares=(1.0, 0.5, 1 / 6)),
    ]


def pendulum_log(num_episodes: int = 300, seed: int = 0) -> TrajectoryDataset:
    """Swinging up by energy, well and badly: gains and noise differ from episode to episode."""
    env, generator = gym.make("Pendulum-v1"), np.random.default_rng(seed)
    names = ("observations", "actions", "rewards", "terminations", "truncations", "next_observations")
    columns: dict[str, list] = {name: [] for name in names}
    for episode in range(num_episodes):
        seen, _ = env.reset(seed=seed + episode)
        pump, noise = generator.uniform(-0.3, 1.0), generator.choice([0.2, 0.7, 1.5])
        over = False
        while not over:
            cosine, sine, speed = seen
            energy = 0.5 * speed**2 + 15.0 * (cosine - 1.0)
            balance = -(12.0 * sine + 3.0 * speed) if cosine > 0.8 else -pump * speed * np.sign(energy)
            action = np.clip([balance + noise * generator.normal()], -2.0, 2.0).astype(np.float32)
            following, reward, terminated, truncated, _ = env.step(action)
            row = (seen, action, reward, terminated, truncated, following)
            for values, value in zip(columns.values(), row, strict=True):
                values.append(value)
            seen, over = following, terminated or truncated
    arrays = {name: np.array(values) for name, values in columns.items()}
    return chibit.from_arrays(**arrays, name="pendulum-swings", env_id="Pendulum-v1", cache=HOME)


def part(name: str, fraction: float = 0.0, episodes: int = 0) -> Callable[[], TrajectoryDataset]:
    def load() -> TrajectoryDataset:
        whole = chibit.load_dataset(name, progress=False)
        return whole.random_fraction(fraction or episodes / whole.num_episodes, SEED)

    return load


POOLS = {
    pool.name: pool
    for pool in (
        Pool("hopper-medium-replay", part("hopper-medium-replay", 0.25)),
        Pool("hopper-medium", part("hopper-medium", 0.1)),
        Pool("pendulum", pendulum_log),
        Pool("walker2d-medium-replay", part("walker2d-medium-replay", 1 / 3)),
        Pool("hopper-medium-expert-25", part("hopper-medium-expert", episodes=25)),
        Pool("halfcheetah-medium-replay", part("halfcheetah-medium-replay", 0.5)),
        # chibit data collect halfcheetah-medium --num-steps 25000
        Pool("halfcheetah-medium-25", part("halfcheetah-medium", episodes=25)),
    )
}


class Played:
    """A policy with noise, whose discounted returns are counted while it is played."""

    def __init__(self, policy: chibit.Policy, noise: float = 0.0) -> None:
        self.policy, self.noise = policy, noise
        low, high = np.array(policy.spec.action_low), np.array(policy.spec.action_high)
        self.low, self.high = low, high

    def reset(self, num_envs: int) -> None:
        self.policy.reset(num_envs)
        self.discounted, self.live, self.step = np.zeros(num_envs), np.ones(num_envs, bool), 0
        self.generator = np.random.default_rng(5)

    def act(self, observations: np.ndarray) -> np.ndarray:
        actions = self.policy.act(observations)
        if not self.noise:
            return actions
        noise = self.noise * (self.high - self.low) / 2 * self.generator.normal(size=actions.shape)
        return np.clip(actions + noise, self.low, self.high).astype(np.float32)

    def observe(self, rewards: np.ndarray, dones: np.ndarray, actions: np.ndarray | None = None) -> None:
        self.discounted += self.live * DISCOUNT**self.step * np.nan_to_num(rewards)
        self.live &= ~np.asarray(dones, bool)
        self.step += 1
        self.policy.observe(rewards, dones, actions)


def play(policy: Played, environments: EnvironmentPool) -> dict[str, float]:
    """What the simulator says."""
    evaluation = evaluate(
        policy, environments.env_id, target_returns=[None], num_episodes=EPISODES, seed=11,
        d4rl_physics=environments.d4rl_physics, max_episode_steps=environments.max_episode_steps,
        environments=environments,
    )[0]  # fmt: skip
    return {
        "return": float(np.mean(evaluation.episode_returns)),
        "return_std": float(np.std(evaluation.episode_returns)),
        "value": float(policy.discounted.mean()),
        "value_std": float(policy.discounted.std()),
        "length": float(np.mean(evaluation.episode_lengths)),
    }


def train(job: Job, dataset: TrajectoryDataset, folder: Path) -> Iterator[dict]:
    """Policies of a job, each saved and described; without what the simulator says."""
    runtime = resolve_runtime("cpu", "fp32", 1)
    seed_torch(zlib.crc32(job.name.encode()) % 1000)
    agent = make_agent(job.config, dataset.spec, runtime)
    sampler = agent.sampler(agent.prepare(dataset), np.random.default_rng(1))
    returns = dataset.episode_returns
    targets = [returns.min() + share * (returns.max() - returns.min()) for share in job.target_shares]
    done = 0
    for steps in job.steps:
        while done < steps:
            agent.update(sampler.sample())
            done += 1
        for target in targets or [None]:
            label = f"{job.name}@{steps}" + ("" if target is None else f"-for-{target:.0f}")
            target = None if target is None else float(target)
            policy = chibit.Policy(agent, dataset.spec, target_return=target)
            policy.save_pretrained(folder / label)
            for noise in job.noises if steps == job.steps[-1] else (0.0,):
                name = label + (f"-noise-{noise}" if noise else "")
                yield {"name": name, "folder": label, "noise": noise, "target": target, "policy": policy}


def open_part(pool: Pool) -> tuple[TrajectoryDataset, TrajectoryDataset]:
    return pool.data().held_out_split(SHARE, SEED)


def make_pool(pool: Pool, state: Path, chosen: list[Job]) -> list[dict]:
    """Train and play what is not there yet; gives a record of each policy."""
    folder = state / pool.name
    folder.mkdir(parents=True, exist_ok=True)
    records, dataset, environments = [], None, None
    for job in chosen:
        path = folder / f"{job.name}.json"
        if not path.exists():
            if dataset is None:
                dataset, _ = open_part(pool)
                spec = dataset.spec
                environments = EnvironmentPool(
                    spec.env_id, d4rl_physics=spec.d4rl_physics, max_episode_steps=spec.max_episode_steps
                )
            made, started = [], time.process_time()
            for record in train(job, dataset, folder):
                record |= play(Played(record.pop("policy"), record["noise"]), environments)
                made.append(record)
            write_atomic(path, json.dumps(made, indent=1))
            best = max(record["return"] for record in made)
            seconds = time.process_time() - started
            print(f"{pool.name}: {job.name}, best {best:.1f}, {seconds:.0f} s", flush=True)
        records += json.loads(path.read_text())
    if environments is not None:
        environments.close()
    return records


def load_policy(pool: Pool, state: Path, record: dict) -> Played:
    policy = chibit.Policy.from_pretrained(
        state / pool.name / record["folder"], target_return=record["target"]
    )
    return Played(policy, record["noise"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pools", nargs="+", choices=POOLS, default=list(POOLS))
    parser.add_argument("--jobs", nargs="+", choices=[job.name for job in jobs()])
    parser.add_argument("--state", type=Path, default=Path("build/judging"))
    arguments = parser.parse_args()
    chosen = [job for job in jobs() if not arguments.jobs or job.name in arguments.jobs]
    for name in arguments.pools:
        make_pool(POOLS[name], arguments.state, chosen)


if __name__ == "__main__":
    main()

"""One side of the speed comparison of `baselines.py`: builds an agent, then times steps whenever it is asked
to.

Runs in either environment: `chibit` needs this package, `d3rlpy` needs d3rlpy 2.8.1. Reads a number of steps
from each line of standard input, takes that many (sampling included), and prints the CPU and the wall seconds
they took.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import torch
from training_step_worker import serve

STATE_DIM, ACT_DIM, EPISODE_LENGTH, NUM_STEPS, BATCH_SIZE = 11, 3, 500, 100_000, 256


def columns() -> dict[str, np.ndarray]:
    """Random data of Hopper's sizes: episodes of 500 steps, each cut by a time limit."""
    rng = np.random.default_rng(0)
    truncations = np.zeros(NUM_STEPS, np.float32)
    truncations[EPISODE_LENGTH - 1 :: EPISODE_LENGTH] = 1.0
    return {
        "observations": rng.standard_normal((NUM_STEPS, STATE_DIM)).astype(np.float32),
        "actions": rng.uniform(-1.0, 1.0, (NUM_STEPS, ACT_DIM)).astype(np.float32),
        "rewards": rng.standard_normal(NUM_STEPS).astype(np.float32),
        "truncations": truncations,
    }


def chibit_step(agent_name: str, precision: str) -> Callable[[], object]:
    """Build ours at the peer's sizes and give one step of it."""
    from pathlib import Path

    from chibit.agents import AGENTS, make_agent
    from chibit.core.runtime import resolve_runtime
    from chibit.data.dataset import DatasetSpec, TrajectoryDataset, returns_to_go

    data = columns()
    starts = np.arange(0, NUM_STEPS + 1, EPISODE_LENGTH)
    num_episodes = len(starts) - 1
    to_go = returns_to_go(data["rewards"], starts)
    parts = [to_go[:, None], data["observations"], data["actions"], data["rewards"][:, None]]
    spec = DatasetSpec(
        name="random",
        state_dim=STATE_DIM,
        act_dim=ACT_DIM,
        num_actions=None,
        env_id=None,
        d4rl_physics=False,
        max_episode_steps=1000,
        score_reference=None,
        state_mean=(0.0,) * STATE_DIM,
        state_std=(1.0,) * STATE_DIM,
        action_low=(-1.0,) * ACT_DIM,
        action_high=(1.0,) * ACT_DIM,
        default_target_returns=(0.0,),
    )
    dataset = TrajectoryDataset(
        spec=spec,
        folder=Path(),
        content_hash="",
        records=np.concatenate(parts, axis=1),
        episode_starts=starts,
        episode_ends=np.tile([False, True], (num_episodes, 1)),
        final_observations=np.zeros((num_episodes, STATE_DIM), np.float32),
    )
    # d3rlpy's defaults: two hidden layers of 256 everywhere, and weight 5 in CQL.
    settings = {"cql": {"hidden_sizes": (256, 256), "conservative_weight": 5.0}}
    config = AGENTS[agent_name].config(batch_size=BATCH_SIZE, **settings.get(agent_name, {}))
    agent = make_agent(config, spec, resolve_runtime("cpu", precision))
    sampler = agent.sampler(agent.prepare(dataset), np.random.default_rng(0))
    return lambda: agent.update(sampler.sample())


def d3rlpy_step(agent_name: str, precision: str) -> Callable[[], object]:
    """Build d3rlpy's with its defaults and give one step of it."""
    import d3rlpy

    data = columns()
    dataset = d3rlpy.dataset.MDPDataset(
        data["observations"],
        data["actions"],
        data["rewards"],
        np.zeros(NUM_STEPS, np.float32),
        data["truncations"],
    )
    configs = {
        "bc": d3rlpy.algos.BCConfig,
        "td3_bc": d3rlpy.algos.TD3PlusBCConfig,
        "iql": d3rlpy.algos.IQLConfig,
        "cql": d3rlpy.algos.CQLConfig,
    }
    algorithm = configs[agent_name](batch_size=BATCH_SIZE).create(device="cpu:0")
    algorithm.build_with_dataset(dataset)
    return lambda: algorithm.update(dataset.sample_transition_batch(BATCH_SIZE))


def main(library: str, agent_name: str, precision: str) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    serve((chibit_step if library == "chibit" else d3rlpy_step)(agent_name, precision))


if __name__ == "__main__":
    main(*sys.argv[1:])

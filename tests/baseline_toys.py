"""Data and small configs of every baseline, for the tests that treat them alike."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np

from chibit.agents import AGENTS, make_agent
from chibit.core.runtime import Runtime
from chibit.data.dataset import TrajectoryDataset
from toys import IdentityEnv, play_toy

CONTINUOUS = ("bc", "td3_bc", "cql", "brac_v", "awr", "iql", "rebrac")
DISCRETE = ("discrete_bc", "discrete_cql", "qr_dqn", "rem")
NUM_ACTIONS = 3
SMALL: dict[str, dict[str, Any]] = {
    "bc": {"hidden_sizes": (16, 16)},
    "td3_bc": {"hidden_sizes": (16, 16)},
    "cql": {"hidden_sizes": (16, 16), "num_sampled_actions": 3},
    "brac_v": {"actor_hidden_sizes": (16, 16), "critic_hidden_sizes": (16, 16), "behavior_steps": 3},
    "awr": {"hidden_sizes": (16, 16), "refresh_every": 4},
    "iql": {"hidden_sizes": (16, 16)},
    "rebrac": {"hidden_sizes": (16, 16)},
    "discrete_bc": {"hidden_sizes": (16, 16)},
    "discrete_cql": {"hidden_sizes": (16, 16), "num_quantiles": 8, "target_every": 4},
    "qr_dqn": {"hidden_sizes": (16, 16), "num_quantiles": 8, "target_every": 4},
    "rem": {"hidden_sizes": (16, 16), "num_heads": 8, "target_every": 4},
}
"""Settings under which an update takes about a millisecond and every phase is reached within a few."""


@cache
def scratch() -> Path:
    """A folder for what is made once."""
    return Path(mkdtemp(prefix="chibit-baselines-"))


def _noisy_identity(draw: np.random.Generator, seen: np.ndarray) -> np.ndarray:
    return np.clip(seen + 0.5 * draw.standard_normal(1), -1.0, 1.0).astype(np.float32)


def _half_right(draw: np.random.Generator, seen: np.ndarray) -> int:
    return int(seen.argmax()) if draw.random() < 0.5 else int(draw.integers(NUM_ACTIONS))


class _Watched(IdentityEnv):
    """Keeps what was seen last, so that a behavior policy can answer to it."""

    def _look(self) -> np.ndarray:
        self.last_seen = super()._look()
        return self.last_seen


@cache
def identity_data(is_discrete: bool, num_episodes: int = 400) -> TrajectoryDataset:
    """Play of a behavior policy that mostly does what is best, with much noise."""
    env = _Watched(NUM_ACTIONS if is_discrete else None)
    choose = _half_right if is_discrete else _noisy_identity
    return play_toy(env, num_episodes, scratch(), choose=lambda draw, _: choose(draw, env.last_seen))


def small_config(name: str, **changes: Any) -> Any:
    """The small config of an agent."""
    return AGENTS[name].config(**{**SMALL[name], "batch_size": 16, **changes})


def small_agent(name: str, dataset: TrajectoryDataset | None = None, **changes: Any) -> tuple[Any, Any]:
    """A small agent and its sampler over the identity data, or over other data."""
    dataset = dataset or identity_data(name in DISCRETE)
    agent = make_agent(small_config(name, **changes), dataset.spec, Runtime())
    return agent, agent.sampler(agent.prepare(dataset), np.random.default_rng(0))


def with_columns(dataset: TrajectoryDataset, **columns: np.ndarray) -> TrajectoryDataset:
    """A copy of a data set with other rewards or actions."""
    records = np.array(dataset.records)
    if "rewards" in columns:
        records[:, -1] = columns["rewards"]
        records[:, 0] = columns["rewards"]  # the returns-to-go are not what is tested with it
    if "actions" in columns:
        records[:, 1 + dataset.spec.state_dim : -1] = columns["actions"]
    return replace(dataset, records=records)

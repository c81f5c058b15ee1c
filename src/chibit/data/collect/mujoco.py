"""Collect D4RL-style data sets from the shipped behavior policies, written as Minari data sets.

The content depends on the settings and the seed alone: episode k of a stream has its own seed, blocks of
eight consecutive episodes are the unit of work, and blocks are used in order, whoever computed them. (Between
machines whose matrix products round differently, the last digits may differ.)
"""

from __future__ import annotations

import hashlib
import shutil
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from chibit.core.config import as_field, read_json
from chibit.core.errors import InputError, ResourceError, UserError
from chibit.core.fields import Count, Natural, Workers
from chibit.core.files import nearest, user_path
from chibit.core.progress import step_bar
from chibit.data.collect.behavior import BehaviorPolicy, Ladder, load_ladder
from chibit.data.collect.behavior.rollout import BLOCK_EPISODES, Episode, roll_out_block
from chibit.data.collect.behavior.streams import block_runner, in_order
from chibit.data.collect.minari_writer import minari_root, write_minari
from chibit.environments.make import make_env, physics_record
from chibit.environments.registry import ENVIRONMENTS, LEVELS, OWN_IDS
from chibit.environments.scores import normalized_score

_MILLION = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Collectable:
    """A data set that can be made on the spot."""

    name: str
    """Short name: `hopper-medium`."""
    dataset_id: str
    """Minari id: `chibit/hopper/medium-v0`."""
    env_name: str
    """`hopper`, `halfcheetah` or `walker2d`."""
    env_id: str
    """Environment of collection and evaluation."""
    level: str
    """One of `LEVELS`."""
    default_num_steps: int
    """Environment steps of a whole set, as large as D4RL's."""


@dataclass(frozen=True, kw_only=True)
class CollectSettings:
    """All that decides the content of a collected set."""

    dataset_id: str
    """Minari id."""
    num_steps: int
    """Environment steps asked for; the episode that reaches them is the last."""
    seed: int
    """Any integer from 0."""
    policies: str
    """SHA-256 of the behavior policies that act in it."""
    collector: int = 1
    """Version of the procedure; raised when the same settings would give other data."""


@dataclass(frozen=True)
class Phase:
    """A stretch of a data set in which one policy acts."""

    policy: str
    stream: str  # names the random stream; data sets that share a stream share its episodes
    until: int  # the phase ends with the episode that brings the whole set to this many steps


def list_collectable() -> list[Collectable]:
    """List the data sets that `collect` can make."""
    return [
        Collectable(
            name=f"{env_name}-{level}",
            dataset_id=f"chibit/{env_name}/{level}-v0",
            env_name=env_name,
            env_id=env_id,
            level=level,
            default_num_steps=_default_num_steps(env_id, level),
        )
        for env_name, env_id in OWN_IDS.items()
        for level in LEVELS
    ]


def find_collectable(dataset: str) -> Collectable:
    """Find one by its short name or its Minari id.

    Raises:
        InputError: There is none; the message names the nearest.
    """
    known = {key: entry for entry in list_collectable() for key in (entry.name, entry.dataset_id)}
    if dataset not in known:
        hint = nearest(dataset, known) or f"; known are {', '.join(e.name for e in list_collectable())}"
        raise InputError(f"data set {dataset!r} cannot be collected{hint}")
    return known[dataset]


def collect(
    dataset: str,
    *,
    num_steps: int | None = None,
    seed: int = 0,
    num_processes: int = 1,
    out: str | Path | None = None,
    progress: bool = True,
) -> Path:
    """Collect a data set and write it where Minari finds it.

    Args:
        dataset: `hopper-medium`, `chibit/hopper/medium-v0`, and so on: see `list_collectable`.
        num_steps: Environment steps; the episode that reaches them is the last. `None`: as many as D4RL's.
        seed: Decides every episode.
        num_processes: Worker processes; the data do not depend on it.
        out: Root folder of Minari data sets; `None` is Minari's own.
        progress: Show a bar with the time left.

    Returns:
        The folder of the data set. One that was collected with the same settings before is returned as it is.

    Raises:
        InputError: Unknown name, a number out of range, or another data set of that name is there.
        ResourceError: No space, an unwritable folder, or a worker that was killed.
    """
    entry = find_collectable(dataset)
    num_steps = as_field(Count | None, num_steps, "num_steps") or entry.default_num_steps
    seed, num_processes = as_field(Natural, seed, "seed"), as_field(Workers, num_processes, "num_processes")
    ladder = load_ladder(entry.env_name)
    actors = {phase.policy for phase in plan(ladder, entry.level, num_steps)}
    settings = CollectSettings(
        dataset_id=entry.dataset_id,
        num_steps=num_steps,
        seed=seed,
        policies=_digest(policy for policy in ladder.policies if policy.record.name in actors),
    )
    root = minari_root(None if out is None else user_path(out))
    folder = root / entry.dataset_id
    if folder.exists():
        return reuse(folder, settings, folder / "data" / "metadata.json", "chibit")
    state_dim, act_dim = ladder.expert.layers[0][0].shape[1], ladder.expert.act_dim
    require_space(root, num_steps, 1.3 * (8 * state_dim + 4 * act_dim + 8 + 2))
    returns: dict[str, list[float]] = {}

    with step_bar(f"collecting {entry.name}", progress, num_steps) as advance:

        def episodes() -> Iterator[Episode]:
            for phase, episode in _episodes(entry, ladder, settings, num_processes):
                returns.setdefault(phase.policy, []).append(float(episode.rewards.sum()))
                advance(len(episode.rewards))
                yield episode

        return write_minari(
            root,
            entry.dataset_id,
            make_env(entry.env_id),
            episodes(),
            lambda: _metadata(entry, ladder, settings, returns),
        )


def _digest(policies: Iterable[BehaviorPolicy]) -> str:
    """Hash what decides the actions of policies."""
    digest = hashlib.sha256()
    for policy in policies:
        digest.update(f"{policy.record.name} {policy.record.activation} {policy.act_dim};".encode())
        for array in (policy.log_std, *chain.from_iterable(policy.layers)):
            digest.update(np.ascontiguousarray(array, np.float32).tobytes())
    return digest.hexdigest()


def plan(ladder: Ladder, level: str, num_steps: int) -> list[Phase]:
    """Say who acts for how long.

    `medium-expert` is the beginning of the `medium` and of the `expert` set of the same seed, half each.
    `medium-replay` is like the replay buffer of the training run: see `_replay_shares`.
    """
    if level == "medium-replay":
        policies: Sequence[BehaviorPolicy] = ladder.replay
        streams = [f"{level}/{policy.record.name}" for policy in policies]
        shares = _replay_shares(policies)
    else:
        streams = level.split("-")
        rungs = {"random": ladder.random, "medium": ladder.medium, "expert": ladder.expert}
        policies = [rungs[stream] for stream in streams]
        shares = np.full(len(streams), 1 / len(streams))
    ends = np.rint(num_steps * np.cumsum(shares)).astype(int)
    return [Phase(p.record.name, s, int(end)) for p, s, end in zip(policies, streams, ends, strict=True)]


def _replay_shares(policies: Sequence[BehaviorPolicy]) -> np.ndarray:
    """Divide a replay buffer among the random policy and the snapshots of a run.

    Every training step goes to the snapshot nearest in training time; the random policy takes half of what
    falls to the untrained snapshot, as runs often begin with random actions.
    """
    steps = np.array([policy.record.train_steps for policy in policies[1:]])
    edges = np.concatenate([[0], (steps[1:] + steps[:-1]) / 2, steps[-1:]])
    shares = np.diff(edges) / steps[-1]
    return np.concatenate([[shares[0] / 2, shares[0] / 2], shares[1:]])


def _default_num_steps(env_id: str, level: str) -> int:
    if level == "medium-replay":
        return ENVIRONMENTS[env_id].replay_steps or _MILLION
    return 2 * _MILLION if level == "medium-expert" else _MILLION


def reuse(folder: Path, settings: Any, file: Path, key: str) -> Path:
    """Return an existing set of the same settings, which `file` holds under `key`; refuse any other."""
    advice = "delete that folder or choose another one with --out"
    try:
        found = read_json(file)[key]["settings"]
        differing = [
            f"{key} {found.get(key)!r} there, {value!r} asked for"
            for key, value in asdict(settings).items()
            if found.get(key) != value
        ]
    except (UserError, LookupError, TypeError, AttributeError) as error:
        raise InputError(f"{folder}: exists, but is not a set that chibit collected; {advice}") from error
    if differing:
        raise InputError(f"{folder}: exists with other settings ({'; '.join(differing)}); {advice}")
    return folder


def require_space(root: Path, num_steps: int, bytes_per_step: float) -> None:
    """Refuse early where the set will not fit."""
    needed = int(num_steps * bytes_per_step)
    existing = next(folder for folder in (root, *root.absolute().parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise ResourceError(
            f"{root}: {num_steps} steps take about {needed >> 20} MiB, but {free >> 20} MiB are free; "
            "free some space, lower --num-steps or choose another folder with --out"
        )


def _episodes(
    entry: Collectable, ladder: Ladder, settings: CollectSettings, num_processes: int
) -> Iterator[tuple[Phase, Episode]]:
    """Yield the episodes of a data set, in order."""
    total = 0
    with block_runner(num_processes) as submit:
        for phase in plan(ladder, entry.level, settings.num_steps):
            task = partial(_roll_out, entry.env_name, phase.policy, phase.stream, settings.seed)
            wanted = phase.until - total
            with closing(in_order(submit, task, wanted=wanted, num_processes=num_processes)) as stream:
                while total < phase.until:
                    episode = next(stream)
                    total += len(episode.rewards)
                    yield phase, episode


def _roll_out(env_name: str, policy_name: str, stream: str, seed: int, block: int) -> list[Episode]:
    """Compute one block: the episodes block * 8 to block * 8 + 7 of a stream."""
    ladder = load_ladder(env_name)
    policy = next(p for p in ladder.policies if p.record.name == policy_name)
    first = block * BLOCK_EPISODES
    key = zlib.crc32(stream.encode())
    seeds = [np.random.SeedSequence(seed, spawn_key=(key, first + i)) for i in range(BLOCK_EPISODES)]
    return roll_out_block(policy, _block_envs(ladder.env_id), seeds)


@lru_cache(maxsize=1)
def _block_envs(env_id: str) -> tuple[gym.Env, ...]:
    """Build the environments of a block once a process."""
    return tuple(make_env(env_id, d4rl_physics=True) for _ in range(BLOCK_EPISODES))


def _metadata(
    entry: Collectable, ladder: Ladder, settings: CollectSettings, returns: dict[str, list[float]]
) -> dict[str, Any]:
    """Build Minari's own fields and ours: physics, policies with their measured scores, settings."""
    records = {policy.record.name: asdict(policy.record) for policy in ladder.policies}
    everything = np.concatenate([np.array(values) for values in returns.values()])
    reference = ENVIRONMENTS[entry.env_id].score_reference
    assert reference is not None
    return {
        "author": {"chibit"},
        "algorithm_name": "PPO snapshots; the expert distilled from TQC with DAgger",
        "description": (
            f"{entry.env_name} {entry.level}: collected by chibit's own behavior policies in D4RL's manner. "
            "These are not D4RL's data. Contacts have the margin of MuJoCo before 3.5 (see physics)."
        ),
        "ref_min_score": reference[0],
        "ref_max_score": reference[1],
        "physics": physics_record(entry.env_id, True),
        "chibit": {
            "settings": asdict(settings),
            "level": entry.level,
            "mean_return": float(everything.mean()),
            "mean_score": float(normalized_score(everything.mean(), reference)),
            "behaviour_policies": [
                records[name] | {"episodes_here": len(values), "mean_return_here": float(np.mean(values))}
                for name, values in returns.items()
            ],
        },
    }

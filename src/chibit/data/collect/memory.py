"""Collect data of the memory tasks by a script that knows the cue, written as Minari data sets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from chibit.core.errors import InputError
from chibit.data.collect.behavior.rollout import Episode
from chibit.data.collect.minari_writer import minari_root, write_minari
from chibit.data.collect.mujoco import check_numbers, progress_bar, require_space, reuse
from chibit.environments.data_names import read_name
from chibit.environments.make import make_env
from chibit.environments.memory import DOWN, FORWARD, NUM_COLORS, UP, KeyToDoor, TMaze
from chibit.environments.registry import MEMORY_LEVELS, MEMORY_TASKS, find_environment

_EPISODES = 500
"""Of the longest kind, in a whole set."""


@dataclass(frozen=True, kw_only=True)
class MemorySettings:
    """All that decides the content of a collected set."""

    dataset_id: str
    """Minari id."""
    num_steps: int
    """Environment steps asked for; the episode that reaches them is the last."""
    seed: int
    """Any integer from 0."""


def memory_dataset_id(dataset: str) -> str:
    """The Minari id of a set: chibit/tmaze-50/expert-v0, for each of its names.

    Raises:
        InputError: for the name of another set.
    """
    name = read_name(dataset)
    if name is None or name.source != "scripted":
        listed = ", ".join(MEMORY_TASKS)
        raise InputError(f"data set {dataset!r}: expected a task ({listed}), and -expert or -mixed")
    return f"chibit/{name.environment}/{name.level or MEMORY_LEVELS[0]}-v0"


def collect_memory(
    dataset: str,
    *,
    num_steps: int | None = None,
    seed: int = 0,
    out: Path | None = None,
    progress: bool = True,
) -> Path:
    """Let the script act until there are enough steps, and write a Minari data set.

    Args:
        dataset: a task, and who acts: tmaze-50-expert, whose every episode is right, or tmaze-50-mixed, where
            every other one guesses, so that returns are 0 and 1. The bare task is the expert's.
        num_steps: environment steps; the episode that reaches them is the last. None is as many as 500 of the
            longest episodes have.
        seed: decides every episode.
        out: root folder of Minari data sets; None is Minari's own.
        progress: show a bar with rate and time left.

    Returns:
        The folder of the data set. One that was collected with the same settings before is returned as it is.

    Raises:
        InputError: unknown name, a number out of range, or another data set of that name is there.
        ResourceError: no space, or a folder that cannot be written.
    """
    dataset_id = memory_dataset_id(dataset)
    _, task, level = dataset_id.removesuffix("-v0").split("/")
    env = make_env(MEMORY_TASKS[task])
    longest = find_environment(MEMORY_TASKS[task]).time_limit(MEMORY_TASKS[task]) or 1
    settings = MemorySettings(
        dataset_id=dataset_id,
        num_steps=_EPISODES * longest if num_steps is None else num_steps,
        seed=seed,
    )
    check_numbers(num_steps=(settings.num_steps, 1), seed=(seed, 0))
    root = minari_root(out)
    folder = root / dataset_id
    if folder.exists():
        return reuse(folder, settings, folder / "data" / "metadata.json", "chibit")
    require_space(root, settings.num_steps, 64)
    returns: list[float] = []
    with progress_bar(dataset, settings.num_steps, progress) as advance:
        episodes = _episodes(env.unwrapped, settings, level, returns, advance)
        return write_minari(root, dataset_id, env, episodes, lambda: _metadata(settings, level, returns))


def _metadata(settings: MemorySettings, level: str, returns: list[float]) -> dict[str, Any]:
    """Fields beside Minari's own."""
    return {
        "author": {"chibit"},
        "algorithm_name": "a script that knows the cue",
        "description": f"{settings.dataset_id}: collected by a script; see chibit.environments.memory.",
        "chibit": {
            "settings": asdict(settings),
            "level": level,
            "mean_return": float(np.mean(returns)),
        },
    }


def _episodes(
    env: object, settings: MemorySettings, level: str, returns: list[float], advance: Callable[[int], None]
) -> Iterator[Episode]:
    """Yield the episodes of a set, in order; in mixed data those of odd number guess."""
    assert isinstance(env, (TMaze, KeyToDoor))
    total, index = 0, 0
    while total < settings.num_steps:
        seed = np.random.SeedSequence((settings.seed, index))
        episode = _play(env, seed, guesses=level == "mixed" and index % 2 == 1)
        returns.append(float(episode.rewards.sum()))
        advance(len(episode.rewards))
        total, index = total + len(episode.rewards), index + 1
        yield episode


def _play(env: TMaze | KeyToDoor, seed: np.random.SeedSequence, *, guesses: bool) -> Episode:
    """Play one episode."""
    reset_seed = int(seed.generate_state(1)[0])
    generator = np.random.default_rng(seed)
    observations, actions, rewards = [env.reset(seed=reset_seed)[0]], [], []
    terminated = truncated = False
    while not (terminated or truncated):
        actions.append(_act(env, generator if guesses else None))
        observation, reward, terminated, truncated, _ = env.step(actions[-1])
        observations.append(observation)
        rewards.append(reward)
    return Episode(
        reset_seed, np.stack(observations), np.array(actions), np.array(rewards), terminated, truncated
    )


def _act(env: TMaze | KeyToDoor, guess: np.random.Generator | None) -> int:
    """The right action, or a guess where it counts."""
    if isinstance(env, TMaze):
        if env.place < env.junction:
            return FORWARD
        is_up = env.cue == 1 if guess is None else guess.random() < 0.5
        return UP if is_up else DOWN
    if not env.is_at_door:
        return 0
    return env.color if guess is None else int(guess.integers(NUM_COLORS))

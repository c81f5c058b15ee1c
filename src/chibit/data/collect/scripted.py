"""Collect data of this package's own tasks by a script that solves them, written as Minari data sets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np

from chibit.core.config import as_field
from chibit.core.errors import InputError
from chibit.core.fields import Count, Natural
from chibit.core.progress import step_bar
from chibit.data.collect.behavior.rollout import Episode, collection_seed
from chibit.data.collect.grid_memory import play_grid_memory
from chibit.data.collect.memory import play_memory
from chibit.data.collect.minari_writer import minari_root, write_minari
from chibit.data.collect.mujoco import require_space, reuse
from chibit.data.collect.pointmaze import play_maze
from chibit.environments.data_names import read_name
from chibit.environments.kinds import Environment, GridMemoryEnvironment, MazeTask, MemoryEnvironment
from chibit.environments.make import make_env
from chibit.environments.registry import TASKS

Play: TypeAlias = Callable[[gym.Env, np.random.SeedSequence, str, int], Episode]
"""Plays one episode: the environment, the episode's seed, the level, the episode's number."""

_EPISODES = 500
"""Of the longest kind, in a whole set."""
_SCRIPTS: dict[type[Environment], tuple[Play, str]] = {
    MemoryEnvironment: (play_memory, "a script that knows the cue"),
    GridMemoryEnvironment: (play_grid_memory, "a script that looks at the cue and knows the arm"),
    MazeTask: (play_maze, "breadth-first search over cells and a proportional-derivative control"),
}
"""By kind of the task: what plays an episode of it, and a word on that."""


@dataclass(frozen=True, kw_only=True)
class ScriptedSettings:
    """All that decides the content of a collected set."""

    dataset_id: str
    """Minari id."""
    num_steps: int
    """Environment steps asked for; the episode that reaches them is the last."""
    seed: int
    """Any integer from 0."""
    collector: int = 2
    """Version of the procedure; raised when the same settings would give other data."""


def scripted_dataset_id(dataset: str) -> str:
    """The Minari id of a set: chibit/tmaze-50/expert-v0, for each of its names.

    Raises:
        InputError: for the name of another set.
    """
    name = read_name(dataset)
    if name is None or name.source != "scripted":
        known = (f"{task}-{level}" for task, row in TASKS.items() for level in row.scripted_levels)
        raise InputError(f"data set {dataset!r}: expected one of {', '.join(known)}")
    return f"chibit/{name.environment}/{name.level or TASKS[name.environment].scripted_levels[0]}-v0"


def collect_scripted(
    dataset: str,
    *,
    num_steps: int | None = None,
    seed: int = 0,
    out: Path | None = None,
    progress: bool = True,
) -> Path:
    """Let the script act until there are enough steps, and write a Minari data set.

    Args:
        dataset: a task and a level: tmaze-50-expert, whose every episode is right; tmaze-50-mixed, where
            every other one guesses, so that returns are 0 and 1; pointmaze-medium-near, whose ways are short;
            pointmaze-medium-all. The bare task is its first level.
        num_steps: environment steps; the episode that reaches them is the last. None is as many as 500 of the
            longest episodes have.
        seed: decides every episode.
        out: root folder of Minari data sets; None is Minari's own.
        progress: show a bar with the time left.

    Returns:
        The folder of the data set. One that was collected with the same settings before is returned as it is.

    Raises:
        InputError: unknown name, a number out of range, or another data set of that name is there.
        ResourceError: no space, or a folder that cannot be written.
    """
    dataset_id = scripted_dataset_id(dataset)
    _, task, level = dataset_id.removesuffix("-v0").split("/")
    row = TASKS[task]
    env = make_env(row.ids[0])
    longest = row.time_limit(row.ids[0]) or 1
    settings = ScriptedSettings(
        dataset_id=dataset_id,
        num_steps=as_field(Count | None, num_steps, "num_steps") or _EPISODES * longest,
        seed=as_field(Natural, seed, "seed"),
    )
    root = minari_root(out)
    folder = root / dataset_id
    if folder.exists():
        return reuse(folder, settings, folder / "data" / "metadata.json", "chibit")
    require_space(root, settings.num_steps, 64)
    play, script = _SCRIPTS[type(row)]
    returns: list[float] = []
    with step_bar(f"collecting {dataset}", progress, settings.num_steps) as advance:
        episodes = _episodes(play, env, settings, level, returns, advance)
        return write_minari(
            root, dataset_id, env, episodes, lambda: _metadata(settings, level, script, returns)
        )


def _metadata(settings: ScriptedSettings, level: str, script: str, returns: list[float]) -> dict[str, Any]:
    """Fields beside Minari's own."""
    return {
        "author": {"chibit"},
        "algorithm_name": script,
        "description": f"{settings.dataset_id}: collected by a script; see chibit.data.collect.scripted.",
        "chibit": {
            "settings": asdict(settings),
            "level": level,
            "mean_return": float(np.mean(returns)),
        },
    }


def _episodes(
    play: Play,
    env: gym.Env,
    settings: ScriptedSettings,
    level: str,
    returns: list[float],
    advance: Callable[[int], None],
) -> Iterator[Episode]:
    """Yield the episodes of a set, in order."""
    total, index = 0, 0
    while total < settings.num_steps:
        episode = play(env.unwrapped, collection_seed(settings.seed, index), level, index)
        returns.append(float(episode.rewards.sum()))
        advance(len(episode.rewards))
        total, index = total + len(episode.rewards), index + 1
        yield episode

"""Collect BabyAI's levels with the bot that comes with them, written as stores.

Every episode has a reset seed of its own, and is kept where its instruction is not of a held-out pair and the
bot succeeds. Grids are kept as bytes, instructions as a table of the different ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from chibit.core.config import as_field
from chibit.core.errors import InputError
from chibit.core.fields import Count, Natural
from chibit.core.files import nearest
from chibit.core.progress import step_bar
from chibit.data.collect.mujoco import require_space, reuse
from chibit.data.environment import check_environment
from chibit.data.readers.origin import Origin
from chibit.data.readers.recording import Block, Recording
from chibit.data.resolve import language_folder
from chibit.data.spec import ObservationPart
from chibit.data.store import MANIFEST, write_store
from chibit.environments.data_names import read_name
from chibit.environments.instructions import is_held_out
from chibit.environments.kinds import LanguageEnvironment
from chibit.environments.make import make_env, physics_record
from chibit.environments.registry import LANGUAGE_TASKS, find_environment

_EPISODES = 10_000
"""In a whole set."""
_TRIES_AN_EPISODE = 100
_NUM_DIRECTIONS, _NUM_ACTIONS = 4, 7


@dataclass(frozen=True, kw_only=True)
class LanguageSettings:
    """All that decides the content of a collected set."""

    dataset: str
    """Its name."""
    num_steps: int | None
    """Environment steps asked for; the episode that reaches them is the last."""
    num_episodes: int | None
    """Or episodes."""
    seed: int
    """Any integer from 0; each begins a million reset seeds after the one before."""


@dataclass(frozen=True)
class _Played:
    """An episode of T steps."""

    reset_seed: int
    mission: str
    seen: np.ndarray
    """(T + 1, S) uint8: direction one-hot, then the grid."""
    actions: np.ndarray
    """(T,), the last of which is `done`, with success."""


def collect_language(
    dataset: str,
    *,
    num_steps: int | None = None,
    num_episodes: int | None = None,
    seed: int = 0,
    out: Path | None = None,
    progress: bool = True,
) -> Path:
    """Let the bot follow instructions until there is enough, and write a store.

    Args:
        dataset: babyai- and a level: babyai-gotolocals8n4.
        num_steps: environment steps; the episode that reaches them is the last.
        num_episodes: episodes instead; None of both is 10,000.
        seed: decides every episode.
        out: folder that holds such sets; None is where `load_dataset` looks for them.
        progress: show a bar with the time left.

    Returns:
        The store. One that was collected with the same settings before is returned as it is.

    Raises:
        InputError: unknown level, a missing extra, a number out of range, a level that asks for held-out
            pairs alone, or another data set of that name is there.
        ResourceError: no space, or a folder that cannot be written.
    """
    name = read_name(dataset)
    if name is None or name.source != "instructed":
        hint = nearest(dataset, LANGUAGE_TASKS) or f"; expected {', '.join(LANGUAGE_TASKS)}"
        raise InputError(f"data set {dataset!r}: unknown level{hint}")
    num_steps = as_field(Count | None, num_steps, "num_steps")
    num_episodes = as_field(Count | None, num_episodes, "num_episodes")
    seed = as_field(Natural, seed, "seed")
    if num_steps is not None and num_episodes is not None:
        raise InputError("num_episodes: got it beside num_steps, expected one of them")
    if num_steps is None:
        num_episodes = _EPISODES if num_episodes is None else num_episodes
    settings = LanguageSettings(dataset=dataset, num_steps=num_steps, num_episodes=num_episodes, seed=seed)
    folder = (out or language_folder()) / dataset
    if folder.exists():
        return reuse(folder, settings, folder / MANIFEST, "provenance")
    row = find_environment(LANGUAGE_TASKS[dataset])
    assert isinstance(row, LanguageEnvironment)
    most = num_steps or (num_episodes or 1) * row.max_episode_steps
    require_space(folder, most, 160)
    total = num_steps or num_episodes or 0
    unit = "steps" if num_steps else "episodes"
    with step_bar(f"collecting {dataset}", progress, total, unit) as advance:
        episodes = _collect(row, settings, advance)
    return _write(folder, row, settings, episodes)


def _collect(
    row: LanguageEnvironment, settings: LanguageSettings, advance: Callable[[int], None]
) -> list[_Played]:
    from chibit.environments.language import TRAINING_SEEDS, LanguageTask

    env = make_env(row.ids[0]).unwrapped
    assert isinstance(env, LanguageTask)
    kept, steps, seed = list[_Played](), 0, TRAINING_SEEDS * (1 + settings.seed)
    while steps < (settings.num_steps or 0) or len(kept) < (settings.num_episodes or 0):
        played = _play(env, seed)
        seed += 1
        if played is None:
            if not kept and seed % TRAINING_SEEDS == _TRIES_AN_EPISODE:
                raise InputError(
                    f"level {row.level}: {_TRIES_AN_EPISODE} instructions are of held-out pairs, so that no "
                    "episode is left to train on; choose another level"
                )
            continue
        kept.append(played)
        steps += len(played.actions)
        advance(len(played.actions) if settings.num_steps else 1)
    return kept


def _play(env: Any, reset_seed: int) -> _Played | None:
    """Let the bot play an episode; None where it is of a held-out pair, or the bot fails."""
    from minigrid.utils.baby_ai_bot import BabyAIBot

    observation, _ = env.reset(options={"reset_seed": reset_seed})
    if is_held_out(env.mission):
        return None
    bot, seen, actions = BabyAIBot(env.level), [_bytes(observation)], list[int]()
    reward, is_over, is_cut = 0.0, False, False
    action = None
    while not (is_over or is_cut):
        # By itself the bot would drop at once what it was to pick up.
        action = env.level.actions.done if env.is_followed else bot.replan(action)
        observation, reward, is_over, is_cut, _ = env.step(action)
        actions.append(int(action))
        seen.append(_bytes(observation))
    return _Played(reset_seed, env.mission, np.stack(seen), np.array(actions)) if reward > 0 else None


def _bytes(observation: dict[str, Any]) -> np.ndarray:
    """(S,) uint8."""
    direction = np.arange(_NUM_DIRECTIONS) == observation["direction"]
    return np.concatenate([direction.astype(np.uint8), observation["image"].ravel()])


def _write(
    folder: Path, row: LanguageEnvironment, settings: LanguageSettings, episodes: list[_Played]
) -> Path:
    from chibit.environments.language import GRID_SHAPE

    lengths = [len(episode.actions) for episode in episodes]
    last = np.cumsum(lengths) - 1
    rewards = np.zeros(sum(lengths))
    rewards[last] = 1.0
    block = Block(
        observations=np.concatenate([episode.seen[:-1] for episode in episodes]),
        actions=np.concatenate([episode.actions for episode in episodes])[:, None],
        next_observations=np.concatenate([episode.seen[1:] for episode in episodes]),
    )
    recording = Recording(
        rewards=rewards,
        episode_starts=np.array([0, *(last + 1)]),
        episode_ends=np.array([[True, False]] * len(episodes)),
        state_dim=block.observations.shape[1],
        num_action_columns=1,
        is_discrete=True,
        has_next_observations=True,
        blocks=lambda: iter([block]),
        missions=np.array([episode.mission for episode in episodes]),
        has_bytes=True,
        notes=(
            "instructions of the held-out pairs of color and type, and failures of the bot, are left out",
        ),
    )
    origin = Origin(
        name=settings.dataset,
        env_id=row.ids[0],
        num_actions=_NUM_ACTIONS,
        max_episode_steps=row.max_episode_steps,
        observation_parts=(
            ObservationPart(path=("direction",), counts=(_NUM_DIRECTIONS,), starts=(0,)),
            ObservationPart(path=("image",), shape=GRID_SHAPE),
        ),
        provenance={
            "kind": "collected",
            "settings": asdict(settings),
            "physics": physics_record(row.ids[0], False),
            "reset_seeds": [episode.reset_seed for episode in episodes],
        },
    )
    return write_store(folder, recording, check_environment(origin, recording, settings.dataset))

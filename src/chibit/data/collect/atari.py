"""Collect Atari data on the spot: real ALE, an actor from a file, and dice for the weaker levels.

The content depends on the settings, the seed and the actor alone: game k has its own seed, and games are used
in order, whoever finishes first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from chibit.core.config import as_field
from chibit.core.errors import InputError
from chibit.core.fields import Count, Natural
from chibit.core.files import sha256_file
from chibit.core.formatting import format_number
from chibit.core.progress import step_bar
from chibit.data.collect.behavior.atari import Actor, Dice, load_actor, with_dice
from chibit.data.collect.behavior.rollout import collection_seed
from chibit.data.collect.mujoco import require_space, reuse
from chibit.data.frame_store import FrameEpisode, write_frame_store
from chibit.data.readers.origin import Origin
from chibit.data.resolve import atari_folder
from chibit.data.store import MANIFEST
from chibit.environments.atari import IMAGE_SHAPE, MAX_EPISODE_STEPS, AtariEnv, atari_env_id
from chibit.environments.data_names import read_name
from chibit.environments.make import physics_record
from chibit.environments.registry import GAMES

EPSILONS: dict[str, tuple[float, ...]] = {
    "random": (1.0,),
    "medium": (0.3,),
    "expert": (0.05,),
    "medium-expert": (0.3, 0.05),
    "medium-replay": (1.0, 0.7, 0.5, 0.3),
}
"""Probabilities of a random action, each for an equal share of the steps."""
DEFAULT_NUM_STEPS = 500_000
"""As many as the 1 % sample of DQN-replay."""
NUM_GAMES = 4
"""Games played side by side. Fixed: data must not depend on how the work is divided."""


@dataclass(frozen=True, kw_only=True)
class AtariSettings:
    """All that decides the content of a collected set."""

    dataset: str
    """Name: breakout-expert."""
    num_steps: int
    """Environment steps asked for; the game that reaches them is the last."""
    seed: int
    """Any integer from 0."""
    policy: str
    """SHA-256 of the actor's file; empty for random play."""
    sticky_actions: bool
    """Whether actions are sticky."""
    collector: int = 2
    """Version of the procedure; raised when the same settings would give other data."""


def collect_atari(
    dataset: str,
    *,
    policy: Path | None,
    num_steps: int | None = None,
    seed: int = 0,
    sticky_actions: bool = False,
    out: Path | None = None,
    progress: bool = True,
) -> Path:
    """Play until there are enough steps, and write a store.

    Args:
        dataset: a game and a level: breakout-expert, pong-medium-replay; see `EPSILONS`.
        policy: file of the actor, see `chibit.data.collect.behavior.atari`; None for random play only.
        num_steps: environment steps; the game that reaches them is the last. None is `DEFAULT_NUM_STEPS`.
        seed: decides every game.
        sticky_actions: play with sticky actions.
        out: folder that holds such sets; None is where `load_dataset` looks for them.
        progress: show a bar with the time left.

    Returns:
        The store. One that was collected with the same settings before is returned as it is.

    Raises:
        InputError: unknown name, no actor where one is needed, one of another game, a number out of range, or
            another data set of that name is there.
    """
    game, level = _game_and_level(dataset)
    num_steps = as_field(Count | None, num_steps, "num_steps") or DEFAULT_NUM_STEPS
    seed = as_field(Natural, seed, "seed")
    if policy is None and level != "random":
        raise InputError(f"{dataset}: needs the file of an actor; give it with --policy (see docs/data.md)")
    env_id = atari_env_id(game, sticky=sticky_actions)
    envs = [AtariEnv(env_id) for _ in range(NUM_GAMES)]
    num_actions = envs[0].num_actions
    actor = load_actor(policy, num_actions) if policy is not None and level != "random" else None
    settings = AtariSettings(
        dataset=dataset,
        num_steps=num_steps,
        seed=seed,
        policy=sha256_file(policy) if policy is not None and actor is not None else "",
        sticky_actions=sticky_actions,
    )
    folder = (out or atari_folder()) / dataset
    if folder.exists():
        return reuse(folder, settings, folder / MANIFEST, "provenance")
    require_space(folder, num_steps, math.prod(IMAGE_SHAPE[1:]) + 12)
    returns: dict[float, list[float]] = {epsilon: [] for epsilon in EPSILONS[level]}
    with step_bar(f"collecting {dataset}", progress, num_steps) as advance:
        episodes = _play(envs, actor, settings, returns, advance)
        write_frame_store(folder, episodes, _origin(game, settings), notes=_notes(settings, returns))
    return folder


def _origin(game: str, settings: AtariSettings) -> Origin:
    """What is known of a set: evaluated without sticky actions, whatever it was collected with."""
    return Origin(
        name=settings.dataset,
        env_id=atari_env_id(game),
        max_episode_steps=MAX_EPISODE_STEPS,
        provenance={
            "kind": "collected",
            "settings": asdict(settings),
            "physics": physics_record(atari_env_id(game, sticky=settings.sticky_actions), False),
        },
    )


def _game_and_level(dataset: str) -> tuple[str, str]:
    name = read_name(dataset)
    if name is None or name.source != "played":
        raise InputError(f"data set {dataset!r}: expected a game ({', '.join(GAMES)}), a dash and a level")
    return name.environment, name.level


def _play(
    envs: Sequence[AtariEnv],
    actor: Actor | None,
    settings: AtariSettings,
    returns: dict[float, list[float]],
    advance: Callable[[int], None],
) -> Iterator[FrameEpisode]:
    """Yield the games of a set, in order, each share of the steps by another epsilon."""
    total, index = 0, 0
    num_actions = envs[0].num_actions
    for share, epsilon in enumerate(returns, start=1):
        until = settings.num_steps * share // len(returns)
        act = with_dice(actor, epsilon, num_actions)
        while total < until:
            seeds = [collection_seed(settings.seed, index + i) for i in range(len(envs))]
            for episode in _play_games(envs, act, seeds):
                if total < until:
                    returns[epsilon].append(float(episode.rewards.sum()))
                    total += len(episode.rewards)
                    advance(len(episode.rewards))
                    yield episode
            index += len(envs)


def _play_games(
    envs: Sequence[AtariEnv], act: Dice, seeds: Sequence[np.random.SeedSequence]
) -> list[FrameEpisode]:
    """Play one game in each environment, in lockstep.

    The actor is always given all observations, those of finished games too: a matrix product over fewer rows
    may round differently, and a game must not depend on when its neighbors end.
    """
    generators = [np.random.default_rng(seed) for seed in seeds]
    players = [_Player(env, int(seed.generate_state(1)[0])) for env, seed in zip(envs, seeds, strict=True)]
    while any(not player.is_over for player in players):
        actions = act(np.stack([player.observation for player in players]), generators)
        for player, action in zip(players, actions.tolist(), strict=True):
            if not player.is_over:
                player.step(action)
    return [player.episode() for player in players]


class _Player:
    """One game under way, and what was seen, done and won in it."""

    def __init__(self, env: AtariEnv, seed: int) -> None:
        self._env = env
        self._fire = env.action_meanings.index("FIRE") if "FIRE" in env.action_meanings else None
        self.observation, info = env.reset(seed=seed)
        self._lives, self._must_fire = info["lives"], True
        self._frames: list[np.ndarray] = []
        self._actions: list[int] = []
        self._rewards: list[float] = []
        self.is_over = self._terminated = False

    def step(self, action: int) -> None:
        # Actors that were trained with it wait for FIRE to be pressed for them when a life begins.
        if self._must_fire and self._fire is not None:
            action = self._fire
        self._frames.append(self.observation[-1])
        self._actions.append(action)
        self.observation, reward, self._terminated, truncated, info = self._env.step(action)
        self._rewards.append(reward)
        self._must_fire, self._lives = info["lives"] < self._lives, info["lives"]
        self.is_over = self._terminated or truncated

    def episode(self) -> FrameEpisode:
        return FrameEpisode(
            frames=np.stack(self._frames),
            actions=np.array(self._actions),
            rewards=np.array(self._rewards),
            terminated=self._terminated,
        )


def _notes(settings: AtariSettings, returns: dict[float, list[float]]) -> Iterator[str]:
    """Say who played; read after the last game."""
    for epsilon, values in returns.items():
        if values:
            yield (
                f"{len(values)} games with a random action {epsilon:.0%} of the time: "
                f"mean return {format_number(float(np.mean(values)))}"
            )
    if settings.sticky_actions:
        yield "played with sticky actions"

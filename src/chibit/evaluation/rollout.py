"""Evaluation in lockstep: every episode of every target return advances together, one model call a step.

Environments never reset by themselves, so no reward of a next episode can be counted. Each episode has its
own seed, derived from the evaluation's seed and the episode's index alone: targets, arms and methods that are
compared start from the same states. Episodes do not touch each other, so each is the one that would be played
alone.

Dimensions: E episodes played at once · S state_dim · A act_dim.
"""

from __future__ import annotations

import itertools
import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import gymnasium as gym
import numpy as np
from annotated_types import Interval, MinLen

from chibit.agents.base import Policy
from chibit.core.acting import EpisodePolicy, StackPolicy, unlimited
from chibit.core.config import as_field
from chibit.core.errors import InputError
from chibit.core.fields import MAX_EPISODES, Distinct, Natural
from chibit.environments.kinds import ScoreReference
from chibit.environments.own import EnvLike, take_env
from chibit.environments.spaces import is_picture
from chibit.evaluation.crew import Crew
from chibit.evaluation.pool import EnvironmentPool, Kind, episodes_in_wave
from chibit.evaluation.stage import AnyStage, Stage, on_stage
from chibit.evaluation.summary import EvaluationSummary, summarize

log = logging.getLogger(__name__)
_ROUNDING = 1e-3
"""How far an action may be beyond an environment's bounds without a word, for bounds of 1."""

DISCOUNT = 0.99
"""Of discounted returns, per step; what `chibit judge` calls a value."""

Progress = Callable[[int, int], None]
"""Called once a lockstep step with the environment steps done and the number of episodes still running."""


@dataclass(frozen=True, kw_only=True)
class Episode:
    """One episode, whole or cut short by a fault of its environment."""

    seed: int
    """Seed the environment was reset with."""
    raw_return: float
    """Sum of raw rewards, undiscounted; of a failed episode up to the fault."""
    discounted_return: float
    """The same, discounted by `DISCOUNT` a step."""
    length: int
    """Environment steps."""
    fault: str | None
    """None, or what went wrong."""
    success: bool | None = None
    """Whether the environment reported success in any of its steps; None where it never said."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """All episodes that were played for one target return."""

    target_return: float | None
    """Raw return that was asked for; None where the policy takes none."""
    episode_returns: tuple[float, ...]
    """Raw return of every episode, in the order of `env_seeds`; of a failed one up to its fault."""
    episode_lengths: tuple[int, ...]
    """Environment steps of every episode."""
    env_seeds: tuple[int, ...]
    """Seed of every episode; the same for all targets and arms."""
    normalized_score: float | None
    """0 to 100 (random to expert) for the mean return; None without a reference, or if all failed."""
    failed_episodes: tuple[int, ...]
    """Indices of the episodes whose environment failed."""
    seconds: float
    """Wall seconds of the rollout, which all targets of one `evaluate` share."""
    discounted_returns: tuple[float, ...] = ()
    """Raw return of every episode, discounted by 0.99 a step."""
    successes: tuple[bool, ...] = ()
    """Whether the environment reported success in any step of each episode: ``info["success"]`` or
    ``info["is_success"]``; empty where it reports none."""

    @property
    def summary(self) -> EvaluationSummary:
        """What the episodes that did not fail say."""
        return summarize(
            self.episode_returns,
            failed_episodes=self.failed_episodes,
            episode_lengths=self.episode_lengths,
            target_return=self.target_return,
            score=self.normalized_score,
            successes=self.successes,
        )

    @property
    def mean_return(self) -> float | None:
        """Mean raw return of the episodes that did not fail; None if all did."""
        return self.summary.mean_return


def evaluate(
    policy: Policy,
    env: EnvLike,
    *,
    target_returns: Sequence[float | None] = (None,),
    num_episodes: int = 10,
    seed: int = 0,
    d4rl_physics: bool = False,
    max_episode_steps: int | None = None,
    score_reference: tuple[float, float] | None = None,
    environments: EnvironmentPool | None = None,
    progress: Progress | None = None,
) -> list[Evaluation]:
    """Play `num_episodes` episodes for each target return, all at once.

    Args:
        policy: asked for these returns; one that takes no `target_return` in `reset` must have been made for
            them, in this order.
        env: an id (of `chibit.environments.registry.ENVIRONMENTS`, or of anything registered with Gymnasium
            in this process), a class or function that builds one, or an instance; see `take_env`.
        target_returns: raw returns to ask for, in the policy's order; `[None]` for a policy that takes none,
            or has its own.
        num_episodes: episodes for each target.
        seed: episode i starts from a seed that depends on `seed` and i only.
        d4rl_physics: contact margins as before MuJoCo 3.5.
        max_episode_steps: time limit in environment steps; None is the environment's own, and where it has
            none the policy's.
        score_reference: raw returns (random, expert) that mean 0 and 100.
        environments: a pool of the same kind to play in; it stays open. None builds one and closes it.
        progress: told of every lockstep step.

    Returns:
        One evaluation for each target, in order.

    Raises:
        InputError: for an unknown environment, a policy that does not fit it, or numbers out of range.
    """
    if environments is None:
        with _open_pool(policy, Kind(take_env(env), d4rl_physics, max_episode_steps)) as pool:
            played = Played(pool, target_returns, num_episodes, seed, score_reference)
            return evaluate_all(policy, [played], progress)[0]
    given, asked = tuple(environments.kind), (env, d4rl_physics, max_episode_steps)
    if given != asked:
        raise InputError(
            f"environments are {given}, the evaluation is in {asked}; pass a pool of the same kind"
        )
    played = Played(environments, target_returns, num_episodes, seed, score_reference)
    return evaluate_all(policy, [played], progress)[0]


def _open_pool(policy: Policy, kind: Kind) -> EnvironmentPool:
    """A pool with a time limit, if anybody knows one; else it is said: episodes may have no end."""
    pool = EnvironmentPool(*kind)
    if kind.max_episode_steps is not None or pool.spaces.max_episode_steps is not None:
        return pool
    limit = policy.max_episode_steps if isinstance(policy, EpisodePolicy) else sys.maxsize
    if limit == sys.maxsize:
        log.warning(
            "%s: neither environment nor policy has a limit of steps; give max_episode_steps if episodes do "
            "not end by themselves",
            kind.env_id,
        )
        return pool
    pool.close()
    log.warning(
        "%s has no limit of steps: episodes are cut after %d, as those of the policy's data; "
        "max_episode_steps says another",
        kind.env_id,
        limit,
    )
    return EnvironmentPool(*kind._replace(max_episode_steps=limit))


def episode_seeds(seed: int, num_episodes: int) -> list[int]:
    """Seeds of episodes 0 to num_episodes - 1; each depends on `seed` and its own index only."""
    if seed < 0:
        raise InputError(f"seed is {seed}, expected 0 or more")
    return [int(np.random.SeedSequence((seed, i)).generate_state(1)[0]) for i in range(num_episodes)]


def rollout(
    policy: Policy,
    environments: Sequence[gym.Env],
    seeds: Sequence[int],
    *,
    target_returns: np.ndarray | None = None,
    progress: Progress | None = None,
) -> list[Episode]:
    """Play one episode in each environment, in lockstep, until all are over.

    Args:
        policy: acts in all episodes at once; it is reset first.
        environments: E environments with one shape of observations, which do not reset themselves.
        seeds: E seeds for `env.reset`, and for what the policy draws in each episode, if it draws.
        target_returns: (E,) raw returns to ask for, where the policy takes them in `reset`; None is its own.
        progress: told of every lockstep step.

    Returns:
        E episodes. One whose environment raises an error, or gives a number that is not finite, ends there
        with a fault, and the others go on.

    Raises:
        InputError: if the policy's actions do not have the shape that the environments take, or an
            environment does not begin with an observation of its shape, finite in single precision.
    """
    return play(policy, Stage(environments), seeds, target_returns=target_returns, progress=progress)


def play(
    policy: Policy,
    stage: AnyStage,
    seeds: Sequence[int],
    *,
    target_returns: np.ndarray | None = None,
    progress: Progress | None = None,
) -> list[Episode]:
    """As `rollout`, wherever the environments are."""
    number = len(seeds)
    observations = _begin(policy, stage, seeds, target_returns)
    returns, discounted, rewards = np.zeros((3, number))
    lengths, (dones, solved, says) = np.zeros(number, np.int64), np.zeros((3, number), bool)
    faults: list[str | None] = [None] * number
    running, step = np.arange(number), 0
    while len(running):
        actions = policy.act(observations)
        if not step:
            _check_actions(actions, stage.example.action_space, number)
        taken = stage.step(actions, running)
        good = running[taken.is_sound]
        # A policy may keep what it was given.
        observations, rewards, dones = observations.copy(), rewards.copy(), dones.copy()
        observations[good], rewards[good] = taken.observations[taken.is_sound], taken.rewards[taken.is_sound]
        dones[running] = taken.dones
        solved[running] |= taken.successes == 1
        says[running] |= taken.successes >= 0
        returns[good] += rewards[good]
        discounted[good] += DISCOUNT**step * rewards[good]
        lengths[good] += 1
        for place, fault in taken.faults.items():
            faults[running[place]] = fault
        policy.observe(rewards, dones)
        running, step = running[~taken.dones], step + 1
        if progress is not None:
            progress(int(lengths.sum()), len(running))
    return [
        Episode(
            seed=seeds[e],
            raw_return=float(returns[e]),
            discounted_return=float(discounted[e]),
            length=int(lengths[e]),
            fault=faults[e],
            success=bool(solved[e]) if says[e] else None,
        )
        for e in range(number)
    ]


def _begin(
    policy: Policy, stage: AnyStage, seeds: Sequence[int], target_returns: np.ndarray | None
) -> np.ndarray:
    """Reset environments and policy: (E, S) first observations."""
    # float32, and images bytes, as in data sets: a policy must see here what it saw in training.
    is_image = is_picture(stage.example.observation_space)
    dtype = policy.dtype if isinstance(policy, EpisodePolicy) else np.float32
    observations, missions = stage.reset(seeds, np.dtype(np.uint8 if is_image else dtype))
    if isinstance(policy, EpisodePolicy):
        policy.reset(len(seeds), seed=seeds, target_return=target_returns)
        if policy.reads_missions:
            policy.instruct([_said(mission) for mission in missions])
    else:
        policy.reset(len(seeds))
    return observations


def _said(mission: str | None) -> str:
    """What an environment says of an episode; InputError where it says nothing."""
    if mission is None:
        raise InputError(
            "the environment says in no words what to do; evaluate agents that read in one that does"
        )
    return mission


_FIELDS: dict[str, Any] = {
    "target_returns": Annotated[tuple[float | None, ...], MinLen(1)],
    "num_episodes": Annotated[int, Interval(ge=1, le=MAX_EPISODES)],
    "seed": Natural,
    "score_reference": Annotated[ScoreReference, Distinct()] | None,
}
"""Of an evaluation, with their ranges."""


@dataclass(frozen=True)
class Played:
    """An evaluation; its fields are arguments of `evaluate`."""

    environments: EnvironmentPool
    target_returns: Sequence[float | None]
    num_episodes: int
    seed: int
    score_reference: tuple[float, float] | None
    place: int = 0
    """Of its run in the stack that acts, where it is one."""

    def __post_init__(self) -> None:
        for name, kind in _FIELDS.items():
            object.__setattr__(self, name, as_field(kind, getattr(self, name), name))

    @property
    def asked(self) -> list[float]:
        """What is asked for, target by target; nothing of a policy that takes none."""
        return [target for target in self.target_returns if target is not None]


def evaluate_all(
    policy: Policy | StackPolicy,
    parts: Sequence[Played],
    progress: Progress | None = None,
    *,
    crew: Crew | None = None,
) -> list[list[Evaluation]]:
    """Play several evaluations at once, all of as many episodes.

    Args:
        policy: of one part, or of a stack of runs, one for each part.
        parts: what to play; their environments take the same actions.
        progress: told of every lockstep step.
        crew: processes to play in, with environments of the parts' kinds; None plays in this one.

    Returns:
        The evaluations of each part, one for each target. Their seconds are the part's share.
    """
    num_targets, num_episodes = sum(len(part.target_returns) for part in parts), parts[0].num_episodes
    seeds = [episode_seeds(part.seed, num_episodes) for part in parts]
    played: list[list[list[Episode]]] = [[[] for _ in part.target_returns] for part in parts]
    started, done = time.perf_counter(), 0
    in_wave = episodes_in_wave(num_targets, 1 if crew is None else crew.num_processes)
    for first in range(0, num_episodes, in_wave):
        waves = [of_part[first : first + in_wave] for of_part in seeds]
        episodes = _play_wave(policy, parts, waves, _counted_from(done, progress), crew)
        done += sum(episode.length for episode in episodes)
        each = iter(episodes)
        for wave, of_part in zip(waves, played, strict=True):
            for of_target in of_part:
                of_target += itertools.islice(each, len(wave))
    seconds = (time.perf_counter() - started) / len(parts)
    return [
        [
            _summarize(part.environments.env_id, target, of_target, part.score_reference, seconds)
            for target, of_target in zip(part.target_returns, of_part, strict=True)
        ]
        for part, of_part in zip(parts, played, strict=True)
    ]


def _play_wave(
    policy: Policy | StackPolicy,
    parts: Sequence[Played],
    waves: Sequence[Sequence[int]],
    progress: Progress | None,
    crew: Crew | None,
) -> list[Episode]:
    """Play an episode of each seed for each target, part by part and in it target by target."""
    counts = [len(part.target_returns) * len(wave) for part, wave in zip(parts, waves, strict=True)]
    asked = [
        target for part, wave in zip(parts, waves, strict=True) for target in np.repeat(part.asked, len(wave))
    ]
    seeds = [
        seed for part, wave in zip(parts, waves, strict=True) for _ in part.target_returns for seed in wave
    ]
    if isinstance(policy, StackPolicy):
        policy.seat(np.repeat([part.place for part in parts], counts))
    if len(asked) not in (0, sum(counts)):
        raise InputError("target_returns: some are None, expected a number for each, or None alone")
    wanted = [(part.environments, count) for part, count in zip(parts, counts, strict=True)]
    with unlimited(policy), on_stage(wanted) if crew is None else crew.on_stage(wanted) as stage:
        targets = np.array(asked) if asked else None
        return play(policy, stage, seeds, target_returns=targets, progress=progress)


def _counted_from(done: int, progress: Progress | None) -> Progress | None:
    return None if progress is None else lambda steps, running: progress(done + steps, running)


def _summarize(
    env_id: str,
    target_return: float | None,
    episodes: Sequence[Episode],
    score_reference: tuple[float, float] | None,
    seconds: float,
) -> Evaluation:
    for i, episode in enumerate(episodes):
        if episode.fault:
            log.warning(
                "%s: episode %d (seed %d, target %s) failed after %d steps and is not counted: %s",
                env_id, i, episode.seed, target_return, episode.length, episode.fault,
            )  # fmt: skip
    returns = tuple(episode.raw_return for episode in episodes)
    failed = tuple(i for i, episode in enumerate(episodes) if episode.fault)
    summary = summarize(returns, failed_episodes=failed, score_reference=score_reference)
    says = any(episode.success is not None for episode in episodes)
    return Evaluation(
        target_return=target_return,
        episode_returns=returns,
        episode_lengths=tuple(episode.length for episode in episodes),
        env_seeds=tuple(episode.seed for episode in episodes),
        normalized_score=summary.normalized_score,
        failed_episodes=failed,
        seconds=seconds,
        discounted_returns=tuple(episode.discounted_return for episode in episodes),
        successes=tuple(bool(episode.success) for episode in episodes) if says else (),
    )


def _check_actions(actions: np.ndarray, space: gym.Space[Any], number: int) -> None:
    expected = (number, *(space.shape or ()))
    if actions.shape != expected:
        raise InputError(
            f"the policy gives actions of shape {actions.shape}, the environment takes {expected}; "
            "evaluate in the environment that the data comes from"
        )
    if not isinstance(space, gym.spaces.Box):
        return
    slack = [_ROUNDING * np.maximum(1.0, np.abs(bound)) for bound in (space.low, space.high)]
    if (actions < space.low - slack[0]).any() or (actions > space.high + slack[1]).any():
        log.warning(
            "the policy's first actions are %g to %g, the environment takes %g to %g; evaluate in the one "
            "that the data come from",
            actions.min(), actions.max(), space.low.min(), space.high.max(),
        )  # fmt: skip

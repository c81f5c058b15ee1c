"""Environments that take their steps in lockstep, and what can go wrong in them. Imports no torch.

Dimensions: E environments · L of them that still run · S state_dim · A act_dim.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import gymnasium as gym
import numpy as np

from chibit.core.errors import InputError, first_line
from chibit.evaluation.pool import EnvironmentPool

_FIVE = "; a step gives observation, reward, terminated, truncated, info"


@dataclass(frozen=True)
class Taken:
    """A step of L environments, each row by its place among them."""

    observations: np.ndarray
    """(L, S) in the dtype that `reset` was asked for."""
    rewards: np.ndarray
    """(L,) raw."""
    dones: np.ndarray
    """(L,) bool: whether the episode is over."""
    successes: np.ndarray
    """(L,) int8: 1 and 0 where the environment speaks of success, -1 where it does not."""
    faults: dict[int, str]
    """What went wrong, by place; such an episode is over, and its other numbers mean nothing."""

    @property
    def is_sound(self) -> np.ndarray:
        """(L,) bool: whether nothing went wrong."""
        sound = np.ones(len(self.dones), bool)
        sound[list(self.faults)] = False
        return sound


class AnyStage(Protocol):
    """E environments in this process, or in others."""

    @property
    def example(self) -> gym.Env:
        """One whose spaces are those of all."""
        ...

    def reset(self, seeds: Sequence[int], dtype: np.dtype[Any]) -> tuple[np.ndarray, list[str | None]]:
        """Begin an episode in each: (E, S) observations, and its mission where it has one."""
        ...

    def step(self, actions: np.ndarray, running: np.ndarray) -> Taken:
        """Take a step in those of (L,) indices, by their rows of (E, A) actions."""
        ...


class Stage:
    """Environments of this process, with one shape of observations, which do not reset themselves."""

    def __init__(self, environments: Sequence[gym.Env]) -> None:
        self._environments, self.failed = environments, list[gym.Env]()

    @property
    def example(self) -> gym.Env:
        """See `AnyStage`."""
        return self._environments[0]

    def reset(self, seeds: Sequence[int], dtype: np.dtype[Any]) -> tuple[np.ndarray, list[str | None]]:
        """See `AnyStage`; InputError where an environment cannot be reset."""
        shape = self.example.observation_space.shape
        assert shape is not None
        self._shape, self._dtype = shape, dtype
        observations = np.zeros((len(seeds), *shape), dtype)
        missions: list[str | None] = [None] * len(seeds)
        for e, (env, seed) in enumerate(zip(self._environments, seeds, strict=True)):
            try:
                observations[e], info = _reset(env, seed, shape)
            except Exception:
                self.failed.append(env)
                raise
            missions[e] = info.get("mission")
        return observations, missions

    def step(self, actions: np.ndarray, running: np.ndarray) -> Taken:
        """See `AnyStage`."""
        number = len(running)
        observations, rewards = np.zeros((number, *self._shape), self._dtype), np.zeros(number)
        dones, successes = np.ones(number, bool), np.full(number, -1, np.int8)
        faults: dict[int, str] = {}
        for place, e in enumerate(running.tolist()):
            env = self._environments[e]
            try:
                outcome = _step(env, actions[e])
            except Exception:
                self.failed.append(env)
                raise
            if isinstance(outcome, str):
                faults[place] = outcome
                self.failed.append(env)
                continue
            observations[place], rewards[place], dones[place], success = outcome
            if success is not None:
                successes[place] = success
        return Taken(observations, rewards, dones, successes, faults)


@contextlib.contextmanager
def on_stage(wanted: Sequence[tuple[EnvironmentPool, int]]) -> Iterator[Stage]:
    """So many environments of each pool, one pool after the other; those that fail are dropped."""
    taken = [pool.take(count) for pool, count in wanted]
    stage = Stage([env for envs in taken for env in envs])
    try:
        yield stage
    finally:
        for (pool, _), envs in zip(wanted, taken, strict=True):
            pool.drop([env for env in envs if any(env is failed for failed in stage.failed)])


def _reset(env: gym.Env, seed: int, shape: tuple[int, ...]) -> tuple[np.ndarray, dict[str, Any]]:
    """The first observation, of the shape that it should have; InputError where there is none."""
    name = env.spec.id if env.spec is not None else type(env.unwrapped).__name__
    try:
        seen, info = env.reset(seed=seed)
    except _breakdowns() as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise InputError(f"{name}: the environment cannot be reset ({reason})") from error
    observation = np.asarray(seen)
    if observation.shape != shape:
        found = f"an observation of shape {observation.shape}"
        raise InputError(f"{name}: reset gave {found}, its observation_space says {shape}; correct it")
    if not isinstance(info, Mapping):
        raise InputError(f"{name}: reset gave an info of type {type(info).__name__}, expected a dictionary")
    if observation.dtype.kind not in "fiub" or not _are_finite(observation):
        raise InputError(f"{name}: reset gave an observation that is not finite; correct it")
    return observation, info


def _step(env: gym.Env, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool | None] | str:
    """One step: (observation (S,), reward, whether the episode is over, success), or what went wrong."""
    if not np.isfinite(action).all():
        return "the policy's action is not finite"
    try:
        observation, reward, terminated, truncated, info = env.step(action)
    except _breakdowns() as error:
        reason = f"the environment raised {type(error).__name__}: {first_line(error)}"
        return reason + _FIVE if "to unpack (expected 5" in reason else reason
    observation = np.asarray(observation)
    if observation.shape != env.observation_space.shape:
        return f"the environment gave an observation of shape {observation.shape}"
    try:
        reward, over = float(reward), bool(terminated or truncated)
        success = info.get("success", info.get("is_success"))
        success = None if success is None else bool(success)
        is_finite = _are_finite(observation) and _are_finite(np.array(reward))
    except (TypeError, ValueError, AttributeError):
        return f"the environment gave {_misfit(observation, reward, terminated, truncated, info)}"
    if not is_finite:
        return "the environment gave a value that is not finite"
    if over and _simulation_was_reset(env):
        return "the simulation became unstable"
    return observation, reward, over, success


def _misfit(observation: np.ndarray, reward: Any, terminated: Any, truncated: Any, info: Any) -> str:
    """Which part of a step is not what it should be."""
    if not isinstance(info, Mapping):
        return f"an info of type {type(info).__name__}, expected a dictionary"
    named = {"reward": reward, "terminated": terminated, "truncated": truncated}
    for name, value in (named | {key: info[key] for key in ("success", "is_success") if key in info}).items():
        if np.size(value) != 1 or np.asarray(value).dtype.kind not in "fiub":
            return f"{name} {value!r:.60}, expected a number"
    return f"an observation of type {observation.dtype}, expected numbers"


def _are_finite(values: np.ndarray) -> bool:
    """Whether all are finite in single precision, in which policies see them."""
    with np.errstate(over="ignore"):
        return bool(np.isfinite(values.astype(np.float32)).all())


def _breakdowns() -> tuple[type[Exception], ...]:
    """Errors that mean a broken simulation, or one that cannot be reached any more, and not a wrong program.

    MuJoCo's own two derive from nothing narrower than Exception.
    """
    mujoco = sys.modules.get("mujoco")
    errors = (
        ArithmeticError,
        AssertionError,
        LookupError,
        OSError,
        RuntimeError,
        ValueError,
        gym.error.Error,
    )
    return errors if mujoco is None else (*errors, mujoco.FatalError, mujoco.UnexpectedError)


def _simulation_was_reset(env: gym.Env) -> bool:
    """Whether MuJoCo met a state that is not finite: it then silently starts again from the initial pose."""
    mujoco, data = sys.modules.get("mujoco"), getattr(env.unwrapped, "data", None)
    if mujoco is None or not isinstance(data, mujoco.MjData):
        return False
    kinds = mujoco.mjtWarning
    bad = [kinds.mjWARN_BADQPOS, kinds.mjWARN_BADQVEL, kinds.mjWARN_BADQACC]
    return bool(np.asarray(data.warning.number)[[int(kind) for kind in bad]].any())

"""Observations as one vector, as the field has it: `gymnasium.wrappers.FlattenObservation`.

The parts of a dictionary stand side by side in alphabetical order, discrete ones as one-hot vectors: of a
goal environment achieved_goal, desired_goal, observation. Minari data become the same. Text is left out; data
keep it as missions, and `reset` gives it as `info["mission"]`. So are parts that repeat others
(`Environment.repeated_parts`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import gymnasium as gym
from gymnasium.spaces import Box, Dict, Discrete
from gymnasium.utils import RecordConstructorArgs
from gymnasium.wrappers import FilterObservation, FlattenObservation, TransformAction

from chibit.core.errors import InputError
from chibit.environments.spaces import is_picture


def as_vectors(env: gym.Env, repeated_parts: Collection[str] = ()) -> gym.Env:
    """Give an environment whose observations are vectors; one that has such, or pictures, stays as it is.

    Args:
        env: any.
        repeated_parts: keys of a dictionary that are left out.

    Raises:
        InputError: for observations that cannot be flattened.
    """
    space = env.observation_space
    if is_picture(space) or (isinstance(space, Box) and len(space.shape) == 1):
        return env
    if isinstance(space, Dict):
        kept = [name for name, part in space.items() if _is_numeric(part) and name not in repeated_parts]
        if kept and len(kept) < len(space):
            env = FilterObservation(TextAside(env, sorted(space.keys() - set(kept))), kept)
    if not _is_numeric(env.observation_space):
        name = env.spec.id if env.spec is not None else str(env)
        raise InputError(f"{name}: observations are {space}, expected numbers in vectors or dictionaries")
    return FlattenObservation(env)


def from_zero(env: gym.Env) -> gym.Env:
    """Give an environment whose discrete actions begin at 0, as they do in data."""
    space = env.action_space
    if not isinstance(space, Discrete) or space.start == 0:
        return env
    start = space.start
    return TransformAction(env, lambda action: action + start, Discrete(space.n))


class TextAside(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Puts what an episode's first observation says in words into `info["mission"]`."""

    def __init__(self, env: gym.Env, parts: Sequence[str]) -> None:
        """Look for texts in some parts of the observations, which are dictionaries."""
        RecordConstructorArgs.__init__(self, parts=parts)
        gym.Wrapper.__init__(self, env)
        self._parts = parts

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        """Reset, and put the texts aside."""
        seen, info = self.env.reset(**options)
        said = [str(seen[part]) for part in self._parts if isinstance(seen[part], str)]
        return seen, {"mission": " ".join(said), **info} if said else info


class SuccessByReward(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Says `info["success"]` of an environment that rewards nothing else."""

    def __init__(self, env: gym.Env) -> None:
        """Look at the rewards of an environment."""
        RecordConstructorArgs.__init__(self)
        gym.Wrapper.__init__(self, env)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step; an episode is solved once a reward is above 0."""
        seen, reward, terminated, truncated, info = self.env.step(action)
        return seen, reward, terminated, truncated, {"success": float(reward) > 0, **info}


def _is_numeric(space: gym.Space) -> bool:
    """Whether a space becomes a vector of fixed length; text does not."""
    if isinstance(space, gym.spaces.Text):
        return False
    try:
        return gym.spaces.flatdim(space) > 0
    except (NotImplementedError, ValueError):
        return False

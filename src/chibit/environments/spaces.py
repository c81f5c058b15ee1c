"""What data and policies must have in common with an environment: shapes, bounds and time limit."""

from __future__ import annotations

from dataclasses import dataclass

import gymnasium as gym
from gymnasium.spaces import Box, Discrete

from chibit.core.errors import InputError
from chibit.environments.pictures import channel_axis
from chibit.environments.registry import ENVIRONMENTS


def is_picture(space: gym.Space) -> bool:
    """Whether observations are pictures that stay as they are: bytes with three axes."""
    return (
        isinstance(space, Box)
        and len(space.shape) == 3
        and channel_axis(space.shape, space.dtype) is not None
    )


@dataclass(frozen=True)
class Spaces:
    """Shapes of an environment."""

    env_id: str
    observation_shape: tuple[int, ...]
    """Of an observation: one axis, or the three of a stack of pictures."""
    num_actions: int | None
    """Number of discrete actions; None where actions are continuous."""
    bounds: tuple[tuple[float, ...], tuple[float, ...]]
    """Lowest and highest continuous actions."""
    max_episode_steps: int | None
    """Steps after which an episode is cut, by Gymnasium or by the environment itself; None for never."""

    @classmethod
    def of(cls, env_id: str, env: gym.Env) -> Spaces:
        """Look at an environment.

        Raises:
            InputError: for actions that are neither a vector nor integers from 0.
        """
        space, seen = env.action_space, env.observation_space
        shape = seen.shape if is_picture(seen) and seen.shape else (gym.spaces.flatdim(seen),)
        limit = env.spec.max_episode_steps if env.spec is not None else None
        if limit is None and env_id in ENVIRONMENTS:
            limit = ENVIRONMENTS[env_id].time_limit(env_id)
        if isinstance(space, Discrete) and space.start == 0:
            return cls(env_id, shape, int(space.n), ((), ()), limit)
        if isinstance(space, Box) and len(space.shape) == 1:
            bounds = tuple(map(float, space.low)), tuple(map(float, space.high))
            return cls(env_id, shape, None, bounds, limit)
        raise InputError(f"{env_id}: actions are {space}, expected a vector or integers from 0")

    def mismatch(self, observation_shape: tuple[int, ...], act_dim: int, *, is_discrete: bool) -> str | None:
        """Say in what data of these shapes differ; None where they fit."""
        own_dim = len(self.bounds[0])
        if observation_shape != self.observation_shape:
            found, own = _said(observation_shape), _said(self.observation_shape)
            return f"observations {found}, those of {self.env_id} {own}"
        if self.num_actions is not None:
            own = f"those of {self.env_id} choices, to be saved as integers 0 to {self.num_actions - 1}"
            return None if is_discrete else f"actions are quantities (floats), {own}"
        if is_discrete:
            own = f"those of {self.env_id} quantities, {own_dim} a step, to be saved as floats"
            return f"actions are choices (integers in one column), {own}"
        if act_dim != own_dim:
            return f"actions have {act_dim} values, those of {self.env_id} have {own_dim}"
        return None


def _said(shape: tuple[int, ...]) -> str:
    return f"have {shape[0]} values" if len(shape) == 1 else f"are pictures of shape {shape}"

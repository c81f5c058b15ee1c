"""What data and policies must have in common with an environment: sizes, bounds and time limit."""

from __future__ import annotations

from dataclasses import dataclass

import gymnasium as gym
from gymnasium.spaces import Box, Discrete

from chibit.core.errors import InputError


@dataclass(frozen=True)
class Spaces:
    """Sizes of an environment."""

    env_id: str
    state_dim: int
    """Numbers in an observation."""
    num_actions: int | None
    """Number of discrete actions; None where actions are continuous."""
    bounds: tuple[tuple[float, ...], tuple[float, ...]]
    """Lowest and highest continuous actions."""
    max_episode_steps: int | None
    """Gymnasium's time limit, in steps."""

    @classmethod
    def of(cls, env_id: str, env: gym.Env) -> Spaces:
        """Look at an environment.

        Raises:
            InputError: for actions that are neither a vector nor integers from 0.
        """
        space, state_dim = env.action_space, gym.spaces.flatdim(env.observation_space)
        limit = env.spec.max_episode_steps if env.spec is not None else None
        if isinstance(space, Discrete) and space.start == 0:
            return cls(env_id, state_dim, int(space.n), ((), ()), limit)
        if isinstance(space, Box) and len(space.shape) == 1:
            bounds = tuple(map(float, space.low)), tuple(map(float, space.high))
            return cls(env_id, state_dim, None, bounds, limit)
        raise InputError(f"{env_id}: actions are {space}, expected a vector or integers from 0")

    def mismatch(self, state_dim: int, act_dim: int, *, is_discrete: bool) -> str | None:
        """Say in what data of these sizes differ; None where they fit."""
        own_dim = len(self.bounds[0])
        if state_dim != self.state_dim:
            return f"observations have {state_dim} values, those of {self.env_id} have {self.state_dim}"
        if self.num_actions is not None:
            return None if is_discrete else f"actions are not integers, those of {self.env_id} are"
        if is_discrete:
            return f"actions are integers, those of {self.env_id} have {own_dim} values"
        if act_dim != own_dim:
            return f"actions have {act_dim} values, those of {self.env_id} have {own_dim}"
        return None

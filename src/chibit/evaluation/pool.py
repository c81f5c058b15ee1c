"""Environments kept between evaluations, and the check that they fit the data."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import NamedTuple

import gymnasium as gym
from gymnasium.spaces import Box

from chibit.core.errors import InputError
from chibit.environments.make import make_env
from chibit.environments.spaces import Spaces

MAX_LOCKSTEP = 256
"""Most episodes played at once in one process; more run in waves. It bounds memory, and larger batches gain
nothing."""


def episodes_in_wave(num_targets: int, num_processes: int = 1) -> int:
    """Episodes of each target that are played at once."""
    return max(1, MAX_LOCKSTEP * num_processes // num_targets)


def most_steps(num_episodes: int, num_targets: int, time_limit: int) -> int:
    """Lockstep steps of an evaluation where every episode lasts until the time limit."""
    return -(-num_episodes // episodes_in_wave(num_targets)) * time_limit


class Kind(NamedTuple):
    """What a pool is asked for; see `EnvironmentPool`."""

    env_id: str
    d4rl_physics: bool
    max_episode_steps: int | None


class EnvironmentPool(contextlib.AbstractContextManager["EnvironmentPool"]):
    """Environments of one kind, built when first needed and reused by every evaluation of a run.

    Building a MuJoCo environment takes about 10 ms and 1 MB.
    """

    def __init__(self, env_id: str, d4rl_physics: bool = False, max_episode_steps: int | None = None) -> None:
        """Build the first environment, so that what cannot be built is refused here.

        Args:
            env_id: an id from `chibit.environments.registry.ENVIRONMENTS`.
            d4rl_physics: contact margins as before MuJoCo 3.5.
            max_episode_steps: time limit in environment steps; None is the environment's own.
        """
        self.env_id, self.d4rl_physics, self.max_episode_steps = env_id, d4rl_physics, max_episode_steps
        self._environments: list[gym.Env] = []
        with contextlib.ExitStack() as refused:
            refused.callback(self.close)
            first = self.take(1)[0]
            if not isinstance(first.observation_space, Box):
                raise InputError(f"{env_id}: observations are {first.observation_space}, expected a Box")
            self.spaces = Spaces.of(env_id, first)
            refused.pop_all()

    @property
    def kind(self) -> Kind:
        """What another pool of the same kind is made of."""
        return Kind(self.env_id, self.d4rl_physics, self.max_episode_steps)

    def take(self, number: int) -> list[gym.Env]:
        """Return the first `number` environments, building those that are missing."""
        while len(self._environments) < number:
            self._environments.append(
                make_env(
                    self.env_id, d4rl_physics=self.d4rl_physics, max_episode_steps=self.max_episode_steps
                )
            )
        return self._environments[:number]

    def drop(self, failed: Sequence[gym.Env]) -> None:
        """Close and forget environments that failed: what they hold inside cannot be trusted any more."""
        for env in failed:
            self._environments.remove(env)
            env.close()

    def check_sizes(
        self, *, observation_shape: tuple[int, ...], act_dim: int, num_actions: int | None
    ) -> None:
        """Compare the environment's spaces with what a data set or a policy has.

        Args:
            observation_shape: of an observation, without further axes.
            act_dim: numbers in an action; not looked at where actions are discrete.
            num_actions: number of discrete actions, at most as many as the environment has, or None where
                actions are continuous.

        Raises:
            InputError: naming both.
        """
        spaces = self.spaces
        mismatch = spaces.mismatch(observation_shape, act_dim, is_discrete=num_actions is not None)
        if mismatch is None and (num_actions or 0) > (spaces.num_actions or 0):
            mismatch = f"there are {num_actions} actions, those of {self.env_id} are {spaces.num_actions}"
        if mismatch:
            raise InputError(f"{mismatch}; evaluate in the environment that the data comes from")

    def close(self) -> None:
        """Close every environment."""
        for env in self._environments:
            env.close()
        self._environments = []

    def __exit__(self, *ended: object) -> None:
        self.close()

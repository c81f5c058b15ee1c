"""The environment that a data set names: its sizes must be those of the data; bounds and limit are its."""

from __future__ import annotations

from dataclasses import replace

import gymnasium as gym
import numpy as np

from chibit.core.errors import InputError
from chibit.data.origin import Origin
from chibit.data.recording import Recording
from chibit.envs import make_env


def check_environment(origin: Origin, recording: Recording, where: str) -> Origin:
    """Complete an origin from its environment, where it has one.

    Args:
        origin: what the source says.
        recording: its steps.
        where: the file or data set, for messages.

    Returns:
        The origin with action bounds, number of actions and time limit.

    Raises:
        InputError: if observations or actions are not those of the environment.
    """
    if origin.env_id is None:
        return origin
    env = make_env(origin.env_id)
    try:
        state_dim = gym.spaces.flatdim(env.observation_space)
        action_space = env.action_space
        limit = env.spec.max_episode_steps if env.spec is not None else None
    finally:
        env.close()
    remedy = "correct the data, or the environment that they name"
    if recording.state_dim != state_dim:
        found = recording.state_dim
        raise InputError(
            f"{where}: observations have {found} values, those of {origin.env_id} have {state_dim}; {remedy}"
        )
    limit = origin.max_episode_steps if limit is None else limit
    if isinstance(action_space, gym.spaces.Discrete):
        if not recording.is_discrete:
            raise InputError(f"{where}: actions are not integers, those of {origin.env_id} are; {remedy}")
        return replace(origin, num_actions=int(action_space.n), max_episode_steps=limit)
    assert isinstance(action_space, gym.spaces.Box)
    act_dim = gym.spaces.flatdim(action_space)
    if recording.is_discrete or recording.num_action_columns != act_dim:
        kind = "are integers" if recording.is_discrete else f"have {recording.num_action_columns} values"
        raise InputError(f"{where}: actions {kind}, those of {origin.env_id} have {act_dim} values; {remedy}")
    bounds = (_bounds(action_space.low), _bounds(action_space.high))
    return replace(origin, action_bounds=bounds, max_episode_steps=limit)


def _bounds(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(value) for value in values)

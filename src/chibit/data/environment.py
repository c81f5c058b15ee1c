"""The environment that a data set names: its sizes must be those of the data; bounds and limit are its."""

from __future__ import annotations

from dataclasses import replace

import gymnasium as gym
import numpy as np

from chibit.core.errors import InputError
from chibit.data.origin import Origin
from chibit.data.recording import Recording
from chibit.envs import ALLOWED, make_env


def choose_environment(env_id: object) -> tuple[str | None, tuple[str, ...]]:
    """Take the environment that a file names, if it is on the allow-list.

    Args:
        env_id: whatever the file holds as an id, or None.

    Returns:
        The id or None, and a note that gives the reason for None.
    """
    if env_id is None:
        return None, ("the data name no environment: no evaluation",)
    if not isinstance(env_id, str) or env_id not in ALLOWED:
        return None, (f"environment {str(env_id)[:80]!r} is not one that can be built here: no evaluation",)
    return env_id, ()


def check_environment(origin: Origin, recording: Recording, where: str) -> Origin:
    """Complete an origin from its environment, where it has one.

    Args:
        origin: what the source says.
        recording: its steps.
        where: the file or data set, for messages.

    Returns:
        The origin with action bounds, number of actions and time limit. Data of another shape that were
        recorded with options or wrappers, which are not applied here, lose their environment: they can be
        trained on, not evaluated.

    Raises:
        InputError: if observations or actions are not those of the environment.
    """
    if origin.env_id is None:
        return origin
    env = make_env(origin.env_id)
    try:
        mismatch = _mismatch(origin.env_id, env, recording)
        action_space = env.action_space
        limit = origin.max_episode_steps or (env.spec.max_episode_steps if env.spec is not None else None)
    finally:
        env.close()
    if mismatch and origin.env_options:
        return replace(origin, env_id=None, notes=(*origin.notes, f"{mismatch}: no evaluation"))
    if mismatch:
        raise InputError(f"{where}: {mismatch}; correct the data, or the environment that they name")
    if isinstance(action_space, gym.spaces.Discrete):
        return replace(origin, num_actions=int(action_space.n), max_episode_steps=limit)
    assert isinstance(action_space, gym.spaces.Box)
    bounds = (_bounds(action_space.low), _bounds(action_space.high))
    return replace(origin, action_bounds=bounds, max_episode_steps=limit)


def _mismatch(env_id: str, env: gym.Env, recording: Recording) -> str | None:
    """Say in what the data differ from the environment."""
    state_dim = gym.spaces.flatdim(env.observation_space)
    if recording.observation_size != state_dim:
        return f"observations have {recording.observation_size} values, those of {env_id} have {state_dim}"
    if isinstance(env.action_space, gym.spaces.Discrete):
        return None if recording.is_discrete else f"actions are not integers, those of {env_id} are"
    act_dim = gym.spaces.flatdim(env.action_space)
    if recording.is_discrete:
        return f"actions are integers, those of {env_id} have {act_dim} values"
    if recording.num_action_columns != act_dim:
        return f"actions have {recording.num_action_columns} values, those of {env_id} have {act_dim}"
    return None


def _bounds(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(value) for value in values)

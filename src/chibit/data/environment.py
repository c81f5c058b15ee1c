"""The environment that a data set names: its sizes must be those of the data; bounds and limit are its."""

from __future__ import annotations

from dataclasses import replace

import gymnasium as gym
import numpy as np

from chibit.core.errors import InputError
from chibit.data.dataset import DatasetSpec, TrajectoryDataset
from chibit.data.readers.origin import Origin, beyond_bounds, usual_target_returns
from chibit.data.readers.recording import Recording
from chibit.environments.make import make_env
from chibit.environments.registry import ENVIRONMENTS
from chibit.environments.scores import score_reference


def choose_environment(env_id: object) -> tuple[str | None, tuple[str, ...]]:
    """Take the environment that a file names, if it is on the allow-list.

    Args:
        env_id: whatever the file holds as an id, or None.

    Returns:
        The id or None, and a note where an id was given that is not on the list.
    """
    if env_id is None:
        return None, ()
    if not isinstance(env_id, str) or env_id not in ENVIRONMENTS:
        return None, (f"environment {str(env_id)[:80]!r} is not one that can be built here",)
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
        sizes = recording.observation_size, recording.num_action_columns, recording.is_discrete
        mismatch = _mismatch(origin.env_id, env, *sizes)
        action_space = env.action_space
        limit = origin.max_episode_steps or (env.spec.max_episode_steps if env.spec is not None else None)
    finally:
        env.close()
    if mismatch and origin.env_options:
        return replace(origin, env_id=None, notes=(*origin.notes, mismatch))
    if mismatch:
        raise InputError(f"{where}: {mismatch}; correct the data, or the environment that they name")
    if isinstance(action_space, gym.spaces.Discrete):
        return replace(origin, num_actions=int(action_space.n), max_episode_steps=limit)
    assert isinstance(action_space, gym.spaces.Box)
    bounds = (_bounds(action_space.low), _bounds(action_space.high))
    return replace(origin, action_bounds=bounds, max_episode_steps=limit)


def evaluate_in(dataset: TrajectoryDataset, env_id: str) -> TrajectoryDataset:
    """Take a user's word for the environment of a data set; raises as `spec_in` does."""
    spec = spec_in(dataset.spec, env_id)
    if spec.num_actions is not None:
        return replace(dataset, spec=spec)
    reached = dataset.actions.min(axis=0), dataset.actions.max(axis=0)
    return replace(dataset, spec=spec, notes=(*dataset.notes, *beyond_bounds(spec, reached)))


def spec_in(spec: DatasetSpec, env_id: str) -> DatasetSpec:
    """Describe data as those of an environment that a user names.

    Args:
        spec: of the data, which name another environment or none.
        env_id: one of `chibit.environments.registry.ENVIRONMENTS`.

    Returns:
        The description with the environment's bounds, number of actions, time limit, score reference and
        usual target returns. A score reference that was given for data without an environment stays.

    Raises:
        InputError: if the environment is not on the list, or has other observations or actions.
    """
    if spec.env_id == env_id:
        return spec
    env = make_env(env_id)
    try:
        mismatch = _mismatch(env_id, env, spec.state_dim, spec.act_dim, spec.num_actions is not None)
        action_space = env.action_space
        limit = env.spec.max_episode_steps if env.spec is not None else None
    finally:
        env.close()
    if mismatch:
        raise InputError(f"{spec.name}: {mismatch}; name the environment that the data are from")
    own_reference = spec.score_reference if spec.env_id is None else None
    spec = replace(
        spec,
        env_id=env_id,
        max_episode_steps=limit or spec.max_episode_steps,
        score_reference=own_reference or score_reference(env_id),
        default_target_returns=usual_target_returns(env_id) or spec.default_target_returns,
    )
    if isinstance(action_space, gym.spaces.Discrete):
        num_actions = int(action_space.n)
        if spec.num_actions is not None and spec.num_actions > num_actions:
            raise InputError(
                f"{spec.name}: has actions up to {spec.num_actions - 1}, those of {env_id} are 0 to "
                f"{num_actions - 1}; name the environment that the data are from"
            )
        return replace(spec, num_actions=num_actions)
    assert isinstance(action_space, gym.spaces.Box)
    return replace(spec, action_low=_bounds(action_space.low), action_high=_bounds(action_space.high))


def _mismatch(
    env_id: str, env: gym.Env, observation_size: int, num_action_columns: int, is_discrete: bool
) -> str | None:
    """Say in what data differ from the environment."""
    state_dim = gym.spaces.flatdim(env.observation_space)
    if observation_size != state_dim:
        return f"observations have {observation_size} values, those of {env_id} have {state_dim}"
    if isinstance(env.action_space, gym.spaces.Discrete):
        return None if is_discrete else f"actions are not integers, those of {env_id} are"
    act_dim = gym.spaces.flatdim(env.action_space)
    if is_discrete:
        return f"actions are integers, those of {env_id} have {act_dim} values"
    if num_action_columns != act_dim:
        return f"actions have {num_action_columns} values, those of {env_id} have {act_dim}"
    return None


def _bounds(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(value) for value in values)

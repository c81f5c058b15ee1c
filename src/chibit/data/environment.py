"""The environment that a data set names: its shapes must be those of the data; bounds and limit are its."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import FlattenObservation
from numpy.typing import ArrayLike

from chibit.core.errors import InputError
from chibit.core.formatting import listed
from chibit.data.bounds import bound_actions, bounded_as
from chibit.data.dataset import DatasetSpec, TrajectoryDataset
from chibit.data.readers.origin import (
    FACTS,
    Origin,
    narrower,
    settled_bounds,
    usual_return_scale,
    usual_target_returns,
)
from chibit.data.readers.recording import Recording
from chibit.data.spec import ObservationPart
from chibit.data.statistics import best_and_high
from chibit.environments.kinds import LibraryEnvironment, OwnEnvironment
from chibit.environments.make import make_env
from chibit.environments.registry import ENVIRONMENTS, why_unknown
from chibit.environments.scores import score_reference
from chibit.environments.spaces import Spaces

_MOST = 3
"""Dimensions of actions that a note lists."""
_ROUNDING = 0.01
"""Of a range, by which bounds differ that mean the same: actions are often cut a little before them."""


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
        return None, (why_unknown(str(env_id)),)
    return env_id, ()


def check_environment(origin: Origin, recording: Recording, where: str) -> Origin:
    """Complete an origin from its environment, where it has one.

    Args:
        origin: what the source says.
        recording: its steps.
        where: the file or data set, for messages.

    Returns:
        The origin with action bounds, number of actions and time limit. Data of another shape that were
        recorded with options or wrappers, which are not applied here, or that are pictures of another form,
        lose their environment: they can be trained on, not evaluated.

    Raises:
        InputError: if observations or actions are not those of the environment.
    """
    if origin.env_id is None:
        return origin
    row = ENVIRONMENTS.get(origin.env_id)
    try:
        facts, parts = _look_at(origin.env_id)
    except InputError as error:
        if not isinstance(row, LibraryEnvironment):
            raise
        unbuilt = origin.provenance | {FACTS: {"id": origin.env_id, "facts": ""}}
        notes = (*origin.notes, str(error))  # of another version of it
        return replace(origin, env_id=None, provenance=unbuilt, notes=notes)
    if isinstance(row, OwnEnvironment):
        then = {"id": origin.env_id, "facts": _digits(facts, parts)}
        origin = replace(origin, provenance=origin.provenance | {FACTS: then})
    shape = recording.image_shape or (recording.state_dim,)
    mismatch = facts.mismatch(shape, recording.num_action_columns, is_discrete=recording.is_discrete)
    if mismatch and (origin.env_options or recording.image_shape):
        return replace(origin, env_id=None, notes=(*origin.notes, mismatch))
    if mismatch:
        raise InputError(f"{where}: {mismatch}; correct the data, or the environment that they name")
    origin = replace(origin, observation_parts=origin.observation_parts or parts)
    limit = origin.max_episode_steps or facts.max_episode_steps
    if facts.num_actions is not None:
        return replace(origin, num_actions=facts.num_actions, max_episode_steps=limit)
    bounds = narrower(origin.action_bounds, facts.bounds)
    return replace(origin, action_bounds=bounds, max_episode_steps=limit)


def evaluate_in(
    dataset: TrajectoryDataset, env_id: str, low: ArrayLike | None = None, high: ArrayLike | None = None
) -> TrajectoryDataset:
    """Take a user's word for the environment of a data set, and for the bounds of its actions if given.

    What an environment of the same id says is taken anew where it has changed. Raises as `spec_in` and
    `bound_actions` do.
    """
    is_other = dataset.spec.env_id == env_id and has_changed(dataset)
    spec = spec_in(_without_environment(dataset) if is_other else dataset.spec, env_id)
    if spec.num_actions is not None:
        return bound_actions(replace(dataset, spec=spec), low, high)
    placed = bounded_as(dataset, spec)
    if low is None and high is None:
        placed = replace(placed, notes=(*placed.notes, *_given_up(dataset, spec)))
    return bound_actions(placed, low, high)


def has_changed(dataset: TrajectoryDataset) -> bool:
    """Whether the environment that data name says something else than when they were converted."""
    then = dataset.provenance.get(FACTS)
    if not isinstance(then, dict):
        return False
    try:
        return _digits(*_look_at(str(then.get("id")))) != then.get("facts")
    except InputError:  # it cannot be built here and now
        return False


def _digits(facts: Spaces, parts: tuple[ObservationPart, ...]) -> str:
    """Digits that change with what an environment and its row say."""
    row = ENVIRONMENTS[facts.env_id]
    said = repr((facts, parts, row.score_reference, row.target_returns))
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def _without_environment(dataset: TrajectoryDataset) -> DatasetSpec:
    """Describe data by what is in them alone."""
    spec, actions = dataset.spec, dataset.actions
    spec = replace(
        spec,
        env_id=None,
        score_reference=None,
        observation_parts=(),
        max_episode_steps=int(dataset.episode_lengths.max()),
        default_target_returns=best_and_high(dataset.episode_returns),
    )
    if dataset.is_discrete:
        return replace(spec, num_actions=int(actions.max()) + 1)
    low, high = settled_bounds(None, (actions.min(axis=0), actions.max(axis=0)))
    return replace(spec, action_low=low, action_high=high)


def _given_up(dataset: TrajectoryDataset, spec: DatasetSpec) -> tuple[str, ...]:
    """Note bounds of the data's own that are narrower than those which take their place.

    Their own are those that they declare, and those at which actions were cut: several are at the very end.
    What they happen to reach is none.
    """
    actions, own = dataset.actions, np.array([dataset.spec.action_low, dataset.spec.action_high])
    ends = np.array([actions.min(axis=0), actions.max(axis=0)])
    is_declared = ~np.isclose(own, settled_bounds(None, (ends[0], ends[1])), rtol=1e-6, atol=0.0)
    is_cut = np.array([(actions == end).sum(axis=0) > 1 for end in ends]) & (ends[0] < ends[1])
    taken = np.array([spec.action_low, spec.action_high])
    is_left = np.abs(taken - own) > _ROUNDING * (own[1] - own[0])
    is_left &= ((taken < own)[0], (taken > own)[1]) & (is_declared | is_cut)
    dimensions = np.flatnonzero(is_left.any(axis=0))
    if not len(dimensions):
        return ()
    shown = (
        f"{i} {own[0, i]:g} to {own[1, i]:g}, there {taken[0, i]:g} to {taken[1, i]:g}" for i in dimensions
    )
    return (
        f"policies may leave the data's own bounds of actions, as {spec.env_id} has wider ones (dimension "
        f"{listed(shown, _MOST, '; ')}); --action-low and --action-high say others",
    )


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
    facts, parts = _look_at(env_id)
    mismatch = facts.mismatch(spec.observation_shape, spec.act_dim, is_discrete=spec.num_actions is not None)
    if mismatch:
        remedy = "name the environment that the data are from"
        if spec.image_shape:
            remedy += f", wrapped so that it shows gray pictures, uint8 of {spec.image_shape}"
        raise InputError(f"{spec.name}: {mismatch}; {remedy}")
    own_reference = spec.score_reference if spec.env_id is None else None
    scale = usual_return_scale(env_id)
    spec = replace(
        spec,
        env_id=env_id,
        observation_parts=spec.observation_parts or parts,
        max_episode_steps=facts.max_episode_steps or spec.max_episode_steps,
        score_reference=own_reference or score_reference(env_id),
        default_target_returns=usual_target_returns(env_id) or spec.default_target_returns,
        return_scale=scale or spec.return_scale,
        return_baseline=spec.return_baseline if scale is None else (0.0, 0.0),
    )
    if facts.num_actions is None:
        low, high = settled_bounds(facts.bounds, (spec.action_low, spec.action_high))
        return replace(spec, action_low=low, action_high=high)
    if spec.num_actions is not None and spec.num_actions > facts.num_actions:
        raise InputError(
            f"{spec.name}: has actions up to {spec.num_actions - 1}, those of {env_id} are 0 to "
            f"{facts.num_actions - 1}; name the environment that the data are from"
        )
    return replace(spec, num_actions=facts.num_actions)


def played_in(spec: DatasetSpec, env_id: str) -> DatasetSpec:
    """Describe what an agent has learned from, as played in an environment that a user names.

    As `spec_in`, and raises as that; but the actions and the units of returns that the agent has learned in
    stay: in those of the environment its networks would mean something else.
    """
    kept = ("num_actions", "action_low", "action_high", "return_scale", "return_baseline")
    return replace(spec_in(spec, env_id), **{name: getattr(spec, name) for name in kept})


def _look_at(env_id: str) -> tuple[Spaces, tuple[ObservationPart, ...]]:
    """Sizes of an environment, and what its observations are before they become vectors."""
    with contextlib.closing(make_env(env_id)) as env:
        flat = env
        while isinstance(flat, gym.Wrapper) and not isinstance(flat, FlattenObservation):
            flat = flat.env
        space = flat.env.observation_space if isinstance(flat, FlattenObservation) else None
        return Spaces.of(env_id, env), () if space is None else tuple(_parts(space))


def _parts(space: gym.Space[Any], path: tuple[str, ...] = ()) -> Iterator[ObservationPart]:
    """Parts of an observation in the order in which `gymnasium.spaces.flatten` puts them side by side."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        named = space.items() if isinstance(space, spaces.Dict) else enumerate(space)
        for key, part in named:
            yield from _parts(part, (*path, str(key)))
    elif isinstance(space, spaces.Discrete):
        yield ObservationPart(path=path, shape=(), counts=(int(space.n),), starts=(int(space.start),))
    elif isinstance(space, spaces.MultiDiscrete):
        counts, starts = (tuple(map(int, numbers.ravel())) for numbers in (space.nvec, space.start))
        yield ObservationPart(path=path, shape=space.nvec.shape, counts=counts, starts=starts)
    elif space.shape is not None and not isinstance(space, spaces.Text):
        yield ObservationPart(path=path, shape=space.shape)

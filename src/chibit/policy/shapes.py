"""What observations and actions of a policy look like, and what of them is refused. Imports numpy alone.

Dimensions: E episodes acted in at once · S state_dim · A act_dim.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from chibit.core.acting import are_moderate
from chibit.core.errors import InputError
from chibit.core.numbers import as_numbers


@dataclass(frozen=True, eq=False)
class Shapes:
    """What acting needs of a data set's description."""

    observation_shape: tuple[int, ...]
    """(S,), or (C, H, W) of images."""
    action_shape: tuple[int, ...]
    """(A,), or () where actions are discrete."""
    num_actions: int | None
    """Number of discrete actions."""
    max_episode_steps: int
    """Time limit."""
    dtype: type[np.floating]
    """In which observations are told apart: double precision where an offset is taken off them."""
    mean: np.ndarray
    """(S,) of observations; empty for images."""
    std: np.ndarray
    """(S,) their spread."""
    parts: Sequence[Mapping[str, Any]]
    """`DatasetSpec.observation_parts`, as JSON."""

    @classmethod
    def of(cls, spec: Mapping[str, Any]) -> Shapes:
        """Read a `DatasetSpec` as JSON."""
        return cls(
            tuple(spec.get("image_shape", ())) or (spec["state_dim"],),
            (spec["act_dim"],) if spec["num_actions"] is None else (),
            spec["num_actions"],
            spec["max_episode_steps"],
            np.float64 if spec.get("state_offset") else np.float32,
            np.add(spec["state_mean"], spec.get("state_offset") or 0.0),
            np.asarray(spec["state_std"], np.float64),
            spec.get("observation_parts", ()),
        )

    def observations(self, observations: Any, is_running: np.ndarray) -> tuple[np.ndarray, bool]:
        """(E, S) with zeros for episodes that are over, and whether they came without the first axis."""
        number = len(is_running)
        given = self._as_vectors(observations, is_running)
        is_single = given.ndim == len(self.observation_shape)
        array = given[None] if is_single else given
        if array.shape != (number, *self.observation_shape):
            expected = (number, *self.observation_shape)
            raise InputError(f"act: observations have shape {given.shape}, expected {expected}")
        if not len(self.mean):
            if array.dtype != np.uint8:
                raise InputError(f"act: pictures are {array.dtype}, expected uint8")
            return array, is_single
        if are_moderate(array):
            return array, is_single
        with np.errstate(over="ignore", invalid="ignore"):
            # What leaves single precision only when it is normalized is refused too.
            is_sound = np.isfinite(((array - self.mean) / self.std).astype(np.float32))
        if not is_sound.all():
            array = _without_unsound(array, is_sound, is_running)
        return array, is_single

    def _as_vectors(self, observations: Any, is_running: np.ndarray) -> np.ndarray:
        """(E, S) or (S,), of what the environment gives, in the order and the form of the data."""
        number = len(is_running)
        parts = self.parts
        is_nested = isinstance(observations, Mapping) or (
            isinstance(observations, tuple) and any(part["path"] for part in parts)
        )
        if not is_nested:
            given = as_numbers("act: observations", observations)
            whole = parts[0] if len(parts) == 1 and not parts[0]["path"] else None
            if whole is None or given.shape not in _forms(whole, number):
                return given
        if not parts:
            raise InputError("act: observations are dictionaries, the data had vectors; flatten them alike")
        leaves = [
            (part, as_numbers(f"act: {_name(part)}", _leaf(observations, part["path"]))) for part in parts
        ]
        is_single = all(leaf.shape == tuple(part["shape"]) for part, leaf in leaves)
        for part, leaf in leaves:
            fitting = _forms(part, number) if is_single or number == 1 else _forms(part, number)[1:]
            if leaf.shape not in fitting:
                expected = " or ".join(map(str, fitting))
                raise InputError(f"act: {_name(part)} has shape {leaf.shape}, expected {expected}")
        columns = [
            _encoded(part, leaf.reshape(1 if is_single else number, -1), is_running) for part, leaf in leaves
        ]
        vectors = np.concatenate(columns, axis=1)
        return vectors[0] if is_single else vectors

    def actions(self, actions: Any, waiting: np.ndarray) -> np.ndarray:
        """(E, A) or (E,) actions that were taken."""
        expected, done = (len(waiting), *self.action_shape), as_numbers("observe: actions", actions)
        if done.ndim == len(self.action_shape):
            done = done[None]
        if done.shape != expected:
            raise InputError(f"observe: actions have shape {done.shape}, expected {expected}")
        rows = done.reshape(len(done), -1)
        require_finite("observe: the action", np.where(waiting, np.abs(rows).max(axis=1, initial=0), 0.0))
        if self.num_actions is not None:
            wrong = waiting & ((done != np.floor(done)) | (done < 0) | (done >= self.num_actions))
            if wrong.any():
                e, last = first(wrong), self.num_actions - 1
                raise InputError(
                    f"observe: the action of environment {e} is {done[e]}, expected a whole number from 0 to "
                    f"{last}"
                )
        return done


def _without_unsound(observations: np.ndarray, is_sound: np.ndarray, is_running: np.ndarray) -> np.ndarray:
    """Observations (E, S) with zeros where an episode is over, in which anything may stand."""
    wrong = ~is_sound & is_running[:, None]
    if wrong.any():
        e, column = np.argwhere(wrong)[0]
        raise InputError(
            f"act: the observation of environment {e} is {observations[e, column]} in dimension {column}, "
            "expected a finite number; mend it and call act again"
        )
    return np.where(is_running[:, None], observations, 0)


def _encoded(part: Mapping[str, Any], values: np.ndarray, is_running: np.ndarray) -> np.ndarray:
    """Numbers as they are, integers as one-hot vectors."""
    if not part["counts"]:
        return values
    counts, starts = np.array(part["counts"]), np.array(part["starts"])
    values = np.where(is_running[: len(values), None], values, starts)
    numbers = values - starts
    wrong = (numbers < 0) | (numbers >= counts) | (numbers != np.floor(numbers))
    if wrong.any():
        e, column = np.argwhere(wrong)[0]
        low, high = starts[column], starts[column] + counts[column] - 1
        raise InputError(
            f"act: {_name(part)} of environment {e} is {values[e, column]}, expected a whole number from "
            f"{low} to {high}"
        )
    encoded = np.zeros((len(values), int(counts.sum())), np.float32)
    offsets = np.cumsum(counts) - counts
    np.put_along_axis(encoded, (numbers + offsets).astype(np.int64), 1.0, axis=1)
    return encoded


def require_finite(what: str, values: np.ndarray, envs: Sequence[int] | np.ndarray | None = None) -> None:
    """Refuse (E,) values of environments that are not finite, or not in single precision."""
    if are_moderate(values):
        return
    with np.errstate(over="ignore"):
        is_finite = np.isfinite(values.astype(np.float32))
    if not is_finite.all():
        place = first(~is_finite)
        e = place if envs is None else envs[place]
        raise InputError(f"{what} of environment {e} is {values[place]}, expected a finite number")


def read_target(target_return: Any) -> float:
    """A raw return to ask for; InputError where it is no finite number."""
    try:
        target = float(target_return)
    except (TypeError, ValueError, OverflowError):
        target = math.nan
    if not math.isfinite(target) or isinstance(target_return, str | bytes):
        raise InputError(f"target_return is {target_return!r}, expected a finite number")
    return target


def _forms(part: Mapping[str, Any], number: int) -> tuple[tuple[int, ...], ...]:
    """Shapes in which a part may come: that of one environment, or of all."""
    natural = tuple(part["shape"])
    return natural, (number, *natural)


def first(wrong: np.ndarray) -> int:
    """Where (E,) is True first."""
    return int(np.flatnonzero(wrong)[0])


def _name(part: Mapping[str, Any]) -> str:
    return "/".join(["observation", *part["path"]])


def _leaf(observations: Any, path: Sequence[str]) -> Any:
    """What is at the end of keys."""
    for depth, key in enumerate(path):
        if isinstance(observations, tuple):
            observations = {str(place): part for place, part in enumerate(observations)}
        if not isinstance(observations, Mapping) or key not in observations:
            raise InputError(
                f"act: observation has no part {'/'.join(path[: depth + 1])!r}, which the data had"
            )
        observations = observations[key]
    return observations

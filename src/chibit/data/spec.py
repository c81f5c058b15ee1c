"""What depends on the data and not on the method, as it travels with every model.

Dimensions: S state_dim · A act_dim.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Interval, MinLen

from chibit.core.config import Checked
from chibit.core.errors import InputError
from chibit.core.fields import Count, Distinct, Natural, Positive
from chibit.core.formatting import listed

MAX_ACTIONS = 1 << 16
"""Discrete actions of a data set. A model has an output for each; beyond this, a number is no choice."""


@dataclass(frozen=True, kw_only=True)
class ObservationPart(Checked):
    """A part of an observation that is no plain vector, as the environment gives it."""

    path: tuple[str, ...] = ()
    """Keys that lead to it in nested dictionaries; empty where it is the whole observation."""
    shape: tuple[Natural, ...] = ()
    """Of what is there: numbers in any order of axes, or integers where it is discrete."""
    counts: tuple[Count, ...] = ()
    """Values that each integer may have, which become one-hot vectors; empty where it is no integers."""
    starts: tuple[int, ...] = ()
    """The least value of each."""

    def __post_init__(self) -> None:
        super().__post_init__()
        expected = math.prod(self.shape) if self.counts else 0
        if not len(self.counts) == len(self.starts) == expected:
            raise InputError(
                f"observation part {'/'.join(self.path) or 'observation'}: {len(self.counts)} counts and "
                f"{len(self.starts)} starts for shape {self.shape}, expected {expected} of each"
            )

    @property
    def width(self) -> int:
        """Numbers that it becomes."""
        return sum(self.counts) if self.counts else math.prod(self.shape)


@dataclass(frozen=True, kw_only=True)
class DatasetSpec(Checked):
    """What depends on the data and not on the method: plain JSON values that travel with every model."""

    name: str
    """As its source spells it: hopper-medium-v2, mujoco/hopper/medium-v0, or the file's name."""
    state_dim: Count
    """Numbers in an observation."""
    act_dim: Natural
    """Width of an action; 0 where actions are discrete."""
    num_actions: Annotated[int, Interval(ge=1, le=MAX_ACTIONS)] | None
    """Number of discrete actions; None where actions are continuous."""
    env_id: str | None
    """Environment it is evaluated in, one of `chibit.environments.registry.ENVIRONMENTS`; None for none."""
    d4rl_physics: bool
    """Evaluate with the contact margins that MuJoCo had before 3.5 (they matter in Hopper and Ant)."""
    max_episode_steps: Count
    """Time limit of an episode, in environment steps."""
    score_reference: Annotated[tuple[float, float], Distinct()] | None
    """Raw returns that count as normalized scores of 0 and of 100."""
    state_mean: tuple[float, ...]
    """Mean of each observation dimension over all kept steps, less `state_offset`; empty for images, which
    stay as they are."""
    state_std: tuple[Positive, ...]
    """What observations are divided by (`chibit.data.statistics.spread`): the population standard deviation
    and a little more; 1 for a dimension that never changes. Empty for images."""
    action_low: tuple[float, ...]
    """Lower bounds of actions; see `chibit.data.readers.origin.settled_bounds`. Empty where discrete."""
    action_high: tuple[float, ...]
    """Upper bounds of actions."""
    default_target_returns: Annotated[tuple[float, ...], MinLen(1)]
    """Raw returns to ask for; see `chibit.data.readers.origin.default_target_returns`."""
    return_scale: Positive | None = None
    """What returns are divided by; see `chibit.data.readers.origin.default_return_units`. None in what an
    earlier version wrote."""
    return_baseline: tuple[float, float] = (0.0, 0.0)
    """What is taken off returns-to-go first: at the first step of an episode, and more at each later one."""
    state_offset: tuple[float, ...] = ()
    """What is taken off observations in double precision, where some vary too little beside their size for
    single precision (degrees of latitude); empty where none do."""
    image_shape: tuple[Count, ...] = ()
    """(C, H, W) where an observation is a stack of C pictures, uint8; empty where it is a vector."""
    observation_parts: tuple[ObservationPart, ...] = ()
    """What an observation was before it became a vector, part by part in the order in which they stand in it;
    empty where it is a plain one or nothing is known."""
    observation_names: tuple[str, ...] = ()
    """What the source calls each number of an observation; empty where it has no names."""
    action_names: tuple[str, ...] = ()
    """The same of an action; one where actions are discrete."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.num_actions is None) == (self.act_dim == 0):
            raise InputError(
                f"act_dim: got {self.act_dim} beside num_actions {self.num_actions}, expected one"
            )
        if self.image_shape and math.prod(self.image_shape) != self.state_dim:
            raise InputError(f"image_shape: got {self.image_shape}, expected {self.state_dim} numbers in all")
        widths = sum(part.width for part in self.observation_parts)
        if self.observation_parts and widths != self.state_dim:
            raise InputError(f"observation_parts: got {widths} numbers, expected {self.state_dim}")
        lengths = {"state": self.num_state_columns, "action": self.act_dim}
        names = (
            ("observation", self.observation_names, self.state_dim),
            ("action", self.action_names, self.act_dim),
        )
        for what, given, expected in names:
            if len(given) not in (0, expected or 1):
                raise InputError(f"{what}_names: got {len(given)}, expected {expected or 1} or none")
        for name in ("state_mean", "state_std", "action_low", "action_high"):
            found, expected = len(getattr(self, name)), lengths[name.partition("_")[0]]
            if found != expected:
                raise InputError(f"{name}: got {found} numbers, expected {expected}")
        if len(self.state_offset) not in (0, self.num_state_columns):
            found, expected = len(self.state_offset), self.num_state_columns
            raise InputError(f"state_offset: got {found} numbers, expected {expected} or none")
        for column, (low, high) in enumerate(zip(self.action_low, self.action_high, strict=True)):
            if not low < high:
                raise InputError(
                    f"{self.name}: action_low is {low} in dimension {column}, expected less than its high, "
                    f"{high}"
                )

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """Shape of one observation."""
        return self.image_shape or (self.state_dim,)

    @property
    def observation_dtype(self) -> type[np.floating]:
        """In which observations are told apart: double precision where an offset is taken off them."""
        return np.float64 if self.state_offset else np.float32

    def require_fits(self, other: DatasetSpec, where: str) -> None:
        """Refuse data whose observations or actions are not as large as those of others, or in another order.

        Raises:
            InputError: with the sizes or the order of both.
        """
        sizes = [
            {"observation_shape": s.observation_shape, "act_dim": s.act_dim, "num_actions": s.num_actions}
            for s in (self, other)
        ]
        if sizes[0] != sizes[1]:
            mine, theirs = (", ".join(f"{name} {n}" for name, n in each.items() if n) for each in sizes)
            raise InputError(
                f"{where}: {self.name} has {mine}, {other.name} has {theirs}; give data of the same sizes"
            )
        self.require_order_of(other, where)

    def require_order_of(self, other: DatasetSpec, where: str) -> None:
        """Refuse data of which a column stands elsewhere than that of the same name in others.

        Columns without a name, or with one that the others do not have, are taken as they stand.

        Raises:
            InputError: with the order of both, and how to give it.
        """
        for what, own, others in (
            ("observations", self.observation_names, other.observation_names),
            ("actions", self.action_names, other.action_names),
        ):
            if any(name in others and others[i : i + 1] != (name,) for i, name in enumerate(own)):
                order = f"--columns {what}={listed(others, separator=',')}"
                raise InputError(
                    f"{where}: the {what} of {self.name} are {listed(own)}, those of {other.name} "
                    f"{listed(others)}; give both in one order ({order})"
                )

    @property
    def symbol_grid(self) -> slice | None:
        """Columns of a state that are a grid of symbols, (H, W, 3) as MiniGrid has it; None without one."""
        first = 0
        for part in self.observation_parts:
            if len(part.shape) == 3 and part.shape[-1] == 3 and not part.counts:
                return slice(first, first + part.width)
            first += part.width
        return None

    @property
    def num_state_columns(self) -> int:
        """Columns of a record that hold the observation: none where it is an image."""
        return 0 if self.image_shape else self.state_dim

"""Bounds of actions by a user's word: given in Python, by a flag, or beside the data.

Dimensions: A act_dim.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from chibit.core.arrays import open_npz
from chibit.core.errors import InputError
from chibit.data.dataset import DatasetSpec, TrajectoryDataset
from chibit.data.readers.columns import ACTION_HIGH, ACTION_LOW, read_beside
from chibit.data.readers.origin import beyond_bounds

_MAX_BYTES = 1 << 16


def bound_actions(
    dataset: TrajectoryDataset, low: ArrayLike | None, high: ArrayLike | None
) -> TrajectoryDataset:
    """Take a user's word for the bounds of actions; it goes before the environment's and the data's.

    Args:
        dataset: with continuous actions.
        low: (A,) or one number for all; -inf where there is no bound, None for none at all.
        high: the same, with inf.

    Raises:
        InputError: for bounds of another shape or order, or actions that lie outside.
    """
    spec = dataset.spec
    if low is None and high is None:
        return dataset
    if spec.num_actions is not None:
        raise InputError(f"{ACTION_LOW}: the actions of {spec.name} are choices; leave bounds out")
    given = read_bounds(low, high, spec.act_dim, spec.name)
    ends = np.where(np.isfinite(given), given, [spec.action_low, spec.action_high])
    spec = replace(spec, action_low=tuple(ends[0].tolist()), action_high=tuple(ends[1].tolist()))
    check_within(spec, *_reached(dataset), "give wider bounds, or cut the actions")
    return bounded_as(dataset, spec)


def bounded_as(dataset: TrajectoryDataset, spec: DatasetSpec) -> TrajectoryDataset:
    """Describe continuous actions by other bounds, and say of these alone where actions lie beyond them."""
    reached = _reached(dataset)
    before = beyond_bounds(dataset.spec, reached)
    kept = [note for note in dataset.notes if note not in before]
    return replace(dataset, spec=spec, notes=(*kept, *beyond_bounds(spec, reached)))


def _reached(dataset: TrajectoryDataset) -> tuple[np.ndarray, np.ndarray]:
    """(A,) lowest and highest actions."""
    return dataset.actions.min(axis=0), dataset.actions.max(axis=0)


def declared_bounds(
    low: ArrayLike | None, high: ArrayLike | None, actions: np.ndarray, where: str
) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """What a store is told of given bounds, for (N, A) or (N,) actions; None without any, or of choices."""
    if (low is None and high is None) or actions.dtype.kind != "f" or actions.ndim > 2:
        return None
    bounds = read_bounds(low, high, 1 if actions.ndim == 1 else actions.shape[1], where)
    return tuple(bounds[0].tolist()), tuple(bounds[1].tolist())


def read_bounds(low: ArrayLike | None, high: ArrayLike | None, act_dim: int, where: str) -> np.ndarray:
    """(2, A) lowest and highest actions, infinite where no bound is given; raises as `bound_actions`."""
    bounds = np.array([[-np.inf] * act_dim, [np.inf] * act_dim])
    for row, name, values in ((0, ACTION_LOW, low), (1, ACTION_HIGH, high)):
        if values is None:
            continue
        try:
            is_masked = np.ma.is_masked(values)
            found = np.asarray(values, np.float64)
        except (TypeError, ValueError, OverflowError) as error:
            raise InputError(f"{where}: {name} holds something else than numbers ({error})") from error
        if found.shape not in ((), (1,), (act_dim,)):
            raise InputError(f"{where}: {name} has shape {found.shape}, expected ({act_dim},) or one number")
        if is_masked or np.isnan(found).any():
            what = "masked values" if is_masked else "NaN"
            raise InputError(f"{where}: {name} holds {what}; give a number, or an infinite one for no bound")
        bounds[row] = found
    with np.errstate(over="ignore"):
        single = bounds.astype(np.float32)  # which actions have
    wrong = np.flatnonzero(~(single[0] < single[1]))
    if len(wrong):
        i = int(wrong[0])
        raise InputError(
            f"{where}: {ACTION_LOW} of dimension {i} is {bounds[0, i]:g}, expected less than its "
            f"{ACTION_HIGH}, {bounds[1, i]:g}"
        )
    return bounds


def bounds_beside(path: Path) -> tuple[ArrayLike | None, ArrayLike | None]:
    """`action_low` and `action_high` of the TOML file beside data; None where it has none."""
    beside = read_beside(path)
    return beside.get(ACTION_LOW), beside.get(ACTION_HIGH)


def bounds_in_npz(path: Path, act_dim: int) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Bounds in the entries `action_low` and `action_high` of a file, infinite where there is none."""
    with open_npz(path) as archive:
        names = [name for name in (ACTION_LOW, ACTION_HIGH) if name in archive.names]
        for name in names:
            shape, dtype = archive.declared(name)
            if dtype.kind not in "fiu" or np.prod(shape, dtype=float) * dtype.itemsize > _MAX_BYTES:
                raise InputError(
                    f"{path}: {name} has type {dtype} and shape {shape}, expected ({act_dim},) numbers"
                )
        found = {name: archive.read(name) for name in names}
    if not found or not act_dim:
        return None
    low, high = read_bounds(found.get(ACTION_LOW), found.get(ACTION_HIGH), act_dim, str(path))
    return tuple(low.tolist()), tuple(high.tolist())


def check_within(spec: DatasetSpec, lowest: np.ndarray, highest: np.ndarray, remedy: str) -> None:
    """Refuse actions, (A,) lowest and highest, outside their bounds.

    Raises:
        InputError: naming the action's dimension, its range and the bounds.
    """
    low, high = np.asarray(spec.action_low, np.float32), np.asarray(spec.action_high, np.float32)
    outside = np.flatnonzero((lowest < low) | (highest > high))
    if len(outside):
        i = int(outside[0])
        raise InputError(
            f"{spec.name}: action dimension {i} spans {lowest[i]:g} to {highest[i]:g}, expected {low[i]:g} "
            f"to {high[i]:g}; {remedy}"
        )

"""What is decided for a data set that nobody decided otherwise: what, its value, and why."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import NamedTuple

import numpy as np

from chibit.core.formatting import format_number, format_setting
from chibit.data.dataset import TrajectoryDataset
from chibit.data.ranges import named
from chibit.data.readers.origin import settled_bounds, usual_return_scale, usual_target_returns
from chibit.data.statistics import RunningMoments, best_and_high, is_constant

WIDTH = 80
_MOST = 10


class Choice(NamedTuple):
    """A line of the table of what was chosen."""

    what: str
    """What was chosen."""
    value: str
    """The value."""
    why: str
    """Where it comes from."""

    @property
    def text(self) -> str:
        """Value and reason."""
        return f"{self.value} ({self.why})" if self.why else self.value


def choices(dataset: TrajectoryDataset, *, has_targets: bool = True) -> tuple[Choice, ...]:
    """What the data or their environment decide.

    Args:
        dataset: the data.
        has_targets: whether they are for a method that is asked for returns.
    """
    return (
        *(_returns(dataset) if has_targets else ()),
        *(() if dataset.is_discrete else _action_bounds(dataset)),
        *_states(dataset),
    )


def table_lines(rows: Iterable[Choice]) -> list[str]:
    """The table as lines of text, for a terminal or a log."""
    found = list(rows)
    indent = 2 + max(len(row.what) for row in found) + 2
    return [
        line
        for row in found
        for line in textwrap.wrap(
            row.text,
            WIDTH,
            initial_indent=f"  {row.what}".ljust(indent),
            subsequent_indent=" " * indent,
            break_on_hyphens=False,
        )
    ]


def _returns(dataset: TrajectoryDataset) -> Iterator[Choice]:
    spec = dataset.spec
    why = "as the data are described"
    if spec.default_target_returns == usual_target_returns(spec.env_id):
        why = f"usual in {spec.env_id}"
    elif spec.default_target_returns == best_and_high(dataset.episode_returns):
        why = "the best return of the data, and that at 90 % of their episodes"
    elif spec.default_target_returns == dataset.reach.returns:
        why = "the best return of all the data, and that at 90 % of their episodes"
    yield Choice("target returns", ", ".join(map(format_setting, spec.default_target_returns)), why)
    if spec.return_scale is not None:
        is_usual = spec.return_scale == usual_return_scale(spec.env_id)
        why = f"the paper's for {spec.env_id}" if is_usual else "root mean square of the returns-to-go"
        first, more = spec.return_baseline
        if (first, more) != (0.0, 0.0):
            sign = "-" if more < 0 else "+"
            why += f" around {format_number(first)} {sign} {format_number(abs(more))} a step, taken off first"
        yield Choice("return scale", format_number(spec.return_scale), why)


def _action_bounds(dataset: TrajectoryDataset) -> Iterator[Choice]:
    """A line for each run of dimensions that have the same bounds."""
    spec = dataset.spec
    lowest, highest = dataset.reach.lowest, dataset.reach.highest  # of all: a part keeps their bounds
    around = settled_bounds(None, (lowest, highest))  # of an action that never changes
    found = []
    for i, (low, high) in enumerate(zip(spec.action_low, spec.action_high, strict=True)):
        is_reached = np.float32(low) == lowest[i], np.float32(high) == highest[i]
        why = "declared"
        if any(is_reached):
            reached = (
                "what the data reach" if spec.env_id is None else f"of {spec.env_id}, reached by the data"
            )
            why = reached if all(is_reached) else "one declared, one what the data reach"
        elif np.allclose((low, high), (around[0][i], around[1][i]), rtol=1e-6, atol=0.0):
            why = "around the one value of the data"
        found.append((f"{format_setting(low)} to {format_setting(high)}", why, i))
    groups = [(value, [row[2] for row in rows]) for value, rows in groupby(found, lambda row: row[:2])]
    for (bounds, why), dimensions in groups[:_MOST]:
        first, last = dimensions[0], dimensions[-1]
        name = "" if spec.act_dim == 1 else f" {first}" if first == last else f" {first} to {last}"
        yield Choice(f"action{name}", bounds, why)
    if len(groups) > _MOST:
        yield Choice(
            "more actions", f"{spec.act_dim - groups[_MOST][1][0]}", "see spec.action_low, action_high"
        )


def _states(dataset: TrajectoryDataset) -> Iterator[Choice]:
    spec = dataset.spec
    if spec.image_shape:
        return
    constant, offset = constant_dimensions(dataset), tuple(np.flatnonzero(spec.state_offset).tolist())
    number = f"{spec.num_state_columns:,}, less their mean, in units of their spread"
    yield Choice("observations", number, "of the data")
    if constant:
        yield Choice(
            "constant ones",
            named(dataset, "observation", constant),
            "never change, but for rounding: not scaled",
        )
    if offset:
        yield Choice(
            "with an offset", named(dataset, "observation", offset), "kept as differences from their mean"
        )


def constant_dimensions(dataset: TrajectoryDataset) -> tuple[int, ...]:
    """Find the observation dimensions that are not scaled, because they never change but for rounding."""
    if dataset.frames is not None:
        return ()
    return constant_columns(dataset.centered_observations)


def tiny_dimensions(dataset: TrajectoryDataset) -> tuple[int, ...]:
    """Those of `constant_dimensions` that are near 0, and not only within the rounding of their size."""
    constant = constant_dimensions(dataset)
    if not constant:
        return ()
    moments = RunningMoments.of(dataset.centered_observations[:, list(constant)])
    never = is_constant(moments.mean, moments.std, least=0.0)
    return tuple(i for i, is_none in zip(constant, never, strict=True) if not is_none)


def constant_columns(*parts: np.ndarray) -> tuple[int, ...]:
    """Find the columns of (N, columns) float32 rows in parts that never change but for rounding."""
    moments = RunningMoments.of(*parts)
    return tuple(np.flatnonzero(is_constant(moments.mean, moments.std)).tolist())

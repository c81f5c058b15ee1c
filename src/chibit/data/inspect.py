"""What a data set holds, in numbers and as a page of text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from chibit.core.bins import bin_range
from chibit.core.errors import DamagedFileError
from chibit.core.formatting import count, format_number, listed
from chibit.data.choices import (
    Choice,
    choices,
    constant_columns,
    constant_dimensions,
    table_lines,
    tiny_dimensions,
)
from chibit.data.copies import first_copies
from chibit.data.dataset import DatasetSpec, TrajectoryDataset
from chibit.data.ranges import MOST_DIMENSIONS, Dimension, dimensions, far_out, named
from chibit.data.readers.origin import UNKNOWN
from chibit.data.statistics import LEAST_REWARD, is_constant
from chibit.environments.scores import normalized_score

NUM_BINS = 20
_BAR_WIDTH = 40
_MANY_ACTIONS = 256
_MOST_SHOWN = 20
_BLOCK_ROWS = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Smallest, mean, standard deviation and largest of some numbers."""

    min: float
    mean: float
    std: float
    max: float


@dataclass(frozen=True, kw_only=True)
class DatasetSummary:
    """What `describe` finds."""

    spec: DatasetSpec
    """Dimensions, environment, score reference, targets."""
    folder: Path
    """The store."""
    content_hash: str
    """SHA-256 over the data."""
    num_steps: int
    """Steps in all."""
    num_episodes: int
    """Episodes in all."""
    num_terminated: int
    """Episodes that the environment ended."""
    num_truncated: int
    """Episodes that were cut and did not terminate."""
    has_final_observations: bool
    """Whether the observation after the last action of an episode is known."""
    lengths: Spread
    """Steps of an episode."""
    returns: Spread
    """Undiscounted return of an episode, raw."""
    histogram_counts: tuple[int, ...]
    """Episodes by return, in `NUM_BINS` bins of equal width."""
    histogram_edges: tuple[float, ...]
    """Bounds of the bins, one more than bins."""
    rewards: Spread
    """Reward of a step."""
    actions: Spread | None
    """Action values; None where actions are discrete."""
    action_counts: tuple[int, ...] | None
    """How often each discrete action occurs; None where actions are continuous."""
    dimensions: tuple[Dimension, ...]
    """What `chibit.data.ranges.dimensions` gives."""
    constant_dimensions: tuple[int, ...]
    """Observation dimensions that never change, but for rounding; they are not scaled."""
    choices: tuple[Choice, ...]
    """What `choices` gives."""
    notes: tuple[str, ...]
    """What `find_notes` gives."""


def describe(dataset: TrajectoryDataset) -> DatasetSummary:
    """Look through a data set."""
    returns = dataset.episode_returns.astype(np.float64)
    ends = bin_range(float(returns.min()), float(returns.max()))
    counts, edges = np.histogram(returns, bins=NUM_BINS, range=ends)
    terminated, truncated = dataset.episode_ends.T
    return DatasetSummary(
        spec=dataset.spec,
        folder=dataset.folder,
        content_hash=dataset.content_hash,
        num_steps=dataset.num_steps,
        num_episodes=dataset.num_episodes,
        num_terminated=int(terminated.sum()),
        num_truncated=int((truncated & ~terminated).sum()),
        has_final_observations=dataset.final_observations is not None,
        lengths=_spread(dataset.episode_lengths),
        returns=_spread(returns),
        histogram_counts=tuple(counts.tolist()),
        histogram_edges=tuple(edges.tolist()),
        rewards=_spread(dataset.rewards),
        actions=None if dataset.is_discrete else _spread(dataset.actions),
        action_counts=(tuple(_count_actions(dataset).tolist()) if dataset.is_discrete else None),
        dimensions=dimensions(dataset),
        constant_dimensions=constant_dimensions(dataset),
        choices=choices(dataset),
        notes=find_notes(dataset),
    )


def find_notes(dataset: TrajectoryDataset) -> tuple[str, ...]:
    """Say what a reader of a log of training should know of its data, one sentence each.

    Returns:
        How episodes end; what was decided or left out while the source was read; and what is unusual in
        returns, episodes, observations, actions and the environment.
    """
    notes = (
        *dataset.notes,
        *_return_notes(dataset),
        *_episode_notes(dataset),
        *_observation_notes(dataset),
        *far_out(dataset),
        *_mission_notes(dataset),
        *(_discrete_action_notes(dataset) if dataset.is_discrete else _action_notes(dataset)),
        *_environment_notes(dataset),
    )
    return (_ends(dataset), *dict.fromkeys(notes))


def _ends(dataset: TrajectoryDataset) -> str:
    terminated, truncated = dataset.episode_ends.T
    both = int((terminated & truncated).sum())
    counts = f"{int(terminated.sum()):,} terminated, {int((truncated & ~terminated).sum()):,} truncated"
    also = f" ({both:,} are marked as both: taken as terminated)" if both else ""
    return f"{count(dataset.num_episodes, 'episode')} of {count(dataset.num_steps, 'step')}: {counts}{also}"


def _return_notes(dataset: TrajectoryDataset) -> Iterator[str]:
    returns = dataset.episode_returns.astype(np.float64)
    if len(returns) == 1:
        yield "a single episode: there is none better or worse to learn from"
    elif is_constant(returns.mean(), returns.std(), least=LEAST_REWARD):
        shown = format_number(float(returns.mean()))
        clone = "discrete_bc" if dataset.is_discrete else "bc"
        nearly = ""
        if returns.std():
            nearly = " to a part in a million, which single precision rounds (take an offset off the rewards)"
        yield (
            f"all episodes have the return {shown}{nearly}: a target return cannot tell good from bad; "
            f"cloning (--agent {clone}) asks for none"
        )


def _episode_notes(dataset: TrajectoryDataset) -> Iterator[str]:
    lengths, limit = dataset.episode_lengths, dataset.spec.max_episode_steps
    num_short = int((lengths == 1).sum())
    if num_short:
        yield (
            f"{num_short:,} of {count(len(lengths), 'episode')} have one step (a flag that stays set "
            "ends an episode at every step)"
        )
    copies = first_copies(dataset.records, dataset.episode_starts, dataset.frames)
    num_copies = len(lengths) - len(np.unique(copies))
    if num_copies:
        yield f"{num_copies:,} of {count(len(lengths), 'episode')} are copies of others"
    repeats = _count_repeats(dataset)
    if repeats:
        yield (
            f"{repeats:,} of {count(dataset.num_steps, 'step')} repeat the step before them (observation, "
            "action and reward): where a logger wrote rows twice, remove them, for each counts as a step"
        )
    if lengths.max() > limit:
        num_long = int((lengths > limit).sum())
        yield (
            f"{count(num_long, 'episode')} last longer than the limit of {limit:,} steps (up to "
            f"{int(lengths.max()):,}): sequence models see every later step at timestep {limit - 1:,}"
        )
    num_cut = int((~dataset.episode_ends[:, 0]).sum())
    if dataset.final_observations is None and num_cut:
        yield (
            f"what follows the last step of {count(num_cut, 'truncated episode')} is not known: agents that "
            "learn values leave these steps out"
        )


def _count_repeats(dataset: TrajectoryDataset) -> int:
    """Steps of a log that are as the one before in their episode; an environment's may well be."""
    if dataset.spec.env_id is not None or dataset.frames is not None:
        return 0
    is_repeat, rows = np.zeros(dataset.num_steps, bool), dataset.records[:, 1:]
    for first in range(1, len(rows), _BLOCK_ROWS):
        last = min(first + _BLOCK_ROWS, len(rows))
        is_repeat[first:last] = (rows[first:last] == rows[first - 1 : last - 1]).all(axis=1)
    is_repeat[dataset.episode_starts[:-1]] = False
    return int(is_repeat.sum())


def _observation_notes(dataset: TrajectoryDataset) -> Iterator[str]:
    constant, tiny = constant_dimensions(dataset), tiny_dimensions(dataset)
    if never := tuple(i for i in constant if i not in tiny):
        yield f"{_that(dataset, 'observation', never, 'never change')}, but for rounding: not scaled"
    if tiny:
        yield (
            f"{_that(dataset, 'observation', tiny, 'vary')} by less than 1e-12, which is taken for rounding: "
            "not scaled; give observations in other units where they mean something"
        )
    offset = np.flatnonzero(dataset.spec.state_offset)
    if len(offset):
        yield (
            f"{_that(dataset, 'observation', tuple(offset.tolist()), 'vary')} by less than 1e-4 of the size: "
            "kept as differences from the mean; give a policy observations in double precision"
        )
    if dataset.spec.num_state_columns == 1:
        values = dataset.observations
        if (values == np.round(values)).all():
            low, high = int(values.min()), int(values.max())
            yield (
                f"observations are one whole number, {low:,} to {high:,}: taken as a quantity; "
                "give one-hot vectors where it is a category"
            )


def _mission_notes(dataset: TrajectoryDataset) -> Iterator[str]:
    if dataset.missions is not None:
        distinct = np.unique(dataset.missions)
        number, example = count(len(distinct), "text"), str(distinct[0])[:60]
        yield (
            f"{number} of what an episode is for, as {example!r}: kept beside the episodes for agent text; "
            "other agents are refused data whose texts differ"
        )


def _action_notes(dataset: TrajectoryDataset) -> Iterator[str]:
    constant = constant_columns(dataset.actions)
    if constant:
        yield f"{_that(dataset, 'action', constant, 'never change')}, but for rounding"
    spread = np.ptp(dataset.actions, axis=0).astype(np.float64)
    room = np.subtract(dataset.spec.action_high, dataset.spec.action_low)
    unused = tuple(i for i in np.flatnonzero(spread < 0.01 * room).tolist() if i not in constant)
    if unused:
        yield (
            f"{_that(dataset, 'action', unused, 'use')} less than 1 % of the bounds, in units of which "
            "actions are learned; give narrower ones by --action-low and --action-high"
        )
    if not constant and dataset.spec.act_dim == 1 and (dataset.actions == np.round(dataset.actions)).all():
        low, high = int(dataset.actions.min()), int(dataset.actions.max())
        yield (
            f"actions are whole numbers, {low:,} to {high:,}, given as continuous: taken as a quantity; "
            "where they are choices give integers, without --continuous-actions"
        )


def _count_actions(dataset: TrajectoryDataset) -> np.ndarray:
    """How often each discrete action occurs."""
    actions, number = dataset.actions, dataset.spec.num_actions or 0
    if len(actions) and not 0 <= actions.min() <= actions.max() < number:
        raise DamagedFileError(
            f"{dataset.folder}: actions from {actions.min()} to {actions.max()}, expected 0 to {number - 1}; "
            "remove the folder and convert the data again"
        )
    return np.bincount(actions, minlength=number)


def _discrete_action_notes(dataset: TrajectoryDataset) -> Iterator[str]:
    num_actions = dataset.spec.num_actions or 0
    counts = _count_actions(dataset)
    missing = np.flatnonzero(counts == 0)
    if len(missing) == num_actions - 1:
        yield f"every step has action {int(counts.argmax()):,}: there is no other choice to learn from"
    if len(missing):
        yield (
            f"{len(missing):,} of {num_actions:,} actions never occur ({listed(missing.tolist())}); the "
            f"largest is {int(dataset.actions.max()):,}{_renumbered(dataset)}"
        )
    if num_actions > _MANY_ACTIONS:
        yield (
            f"actions are whole numbers, taken as {num_actions:,} different choices; say "
            "--continuous-actions (give floats) where they are a quantity"
        )


def _renumbered(dataset: TrajectoryDataset) -> str:
    """What to do about choices that no step of a log makes."""
    number = dataset.spec.num_actions or 0
    if dataset.spec.env_id is not None or number > _MANY_ACTIONS:
        return ""
    values = np.unique(dataset.actions).tolist()
    pairs = listed((f"{value:,} to {i}" for i, value in enumerate(values)), 3)
    return (
        f": a policy has an output for each of the {number:,}; number those that occur "
        f"from 0 ({pairs}), or say --continuous-actions (give floats) where they are a quantity"
    )


def _environment_notes(dataset: TrajectoryDataset) -> Iterator[str]:
    if dataset.spec.env_id is None:
        remedy = "" if UNKNOWN in dataset.provenance else "; --env-id names one"  # else a note says why
        yield f"no environment: trained on and not evaluated{remedy}"
    elif dataset.spec.score_reference is None:
        yield f"no score reference for {dataset.spec.env_id}: raw returns only"


def _that(dataset: TrajectoryDataset, what: str, numbers: tuple[int, ...], verb: str) -> str:
    """``2 action dimensions (0 valve, 3) vary``."""
    if len(numbers) == 1:
        verb = {"vary": "varies"}.get(verb, f"{verb}s")
    return f"{count(len(numbers), f'{what} dimension')} ({named(dataset, what, numbers)}) {verb}"


def render_summary(summary: DatasetSummary) -> Group:
    """Lay a summary out for a rich console. Names from files are shown as they are, never as markup."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(overflow="fold")
    for label, value in _rows(summary):
        table.add_row(Text(label, style="bold"), Text(value))
    parts: list[RenderableType] = [
        table,
        *_ranges(summary.dimensions),
        Text("\nchosen for training", style="bold"),
        Text("\n".join(table_lines(summary.choices))),
        Text("\nreturns of episodes", style="bold"),
        Text(_histogram(summary)),
    ]
    if summary.notes:
        parts += [Text("\nnotes", style="bold"), Text("\n".join(f"- {note}" for note in summary.notes))]
    return Group(*parts)


def _rows(summary: DatasetSummary) -> list[tuple[str, str]]:
    spec = summary.spec
    actions = f"{spec.num_actions} discrete" if spec.num_actions is not None else f"{spec.act_dim}"
    environment = spec.env_id or "none: training only"
    if spec.env_id and spec.d4rl_physics:
        environment += ", contact margins as in MuJoCo before 3.5"
    final = "known" if summary.has_final_observations else "not known"
    rows = [
        ("name", spec.name),
        ("store", f"{summary.folder} ({summary.content_hash[:12]})"),
        ("steps", f"{summary.num_steps:,}"),
        (
            "episodes",
            f"{summary.num_episodes:,}: {summary.num_terminated:,} terminated, {summary.num_truncated:,} "
            f"truncated; last observations {final}",
        ),
        ("lengths", _show(summary.lengths)),
        ("returns", _show(summary.returns)),
        ("rewards of a step", _show(summary.rewards)),
        ("observations", _observations(spec) + _constants(summary.constant_dimensions)),
        ("actions", actions + (f"; {_show(summary.actions)}" if summary.actions else "")),
        ("environment", f"{environment}; at most {spec.max_episode_steps:,} steps"),
        ("score reference", _reference(summary)),
    ]
    if summary.action_counts is not None:
        rows.insert(9, ("action counts", _show_counts(summary.action_counts)))
    return rows


def _ranges(found: tuple[Dimension, ...]) -> list[RenderableType]:
    """A table of the first dimensions of each kind."""
    if not found:
        return []
    table = Table(box=None, padding=(0, 2, 0, 0))
    has_names = any(one.name for one in found)
    for title in ("dimension", *(("name",) if has_names else ()), "min", "mean", "max"):
        table.add_column(
            title, overflow="fold", justify="left" if title in ("dimension", "name") else "right"
        )
    for what in ("observation", "action"):
        rows = [one for one in found if one.what == what]
        for one in rows[:_MOST_SHOWN]:
            ends = map(format_number, (one.min, one.mean, one.max))
            table.add_row(*map(Text, (f"{what} {one.index}", *((one.name,) if has_names else ()), *ends)))
        if len(rows) > _MOST_SHOWN:
            limit = "" if len(rows) < MOST_DIMENSIONS else f" (the first {MOST_DIMENSIONS:,})"
            table.add_row(Text(f"{what} ..."), Text(f"see --json{limit}"))
    return [Text("\nranges", style="bold"), table]


def _histogram(summary: DatasetSummary) -> str:
    """Draw a bar for each bin; a bin with any episode shows at least a sliver."""
    most = max(summary.histogram_counts)
    edges = [format_number(edge, like=summary.histogram_edges) for edge in summary.histogram_edges]
    lines = []
    for i, number in enumerate(summary.histogram_counts):
        bar = "█" * round(_BAR_WIDTH * number / most) or ("▏" if number else "")
        lines.append(f"{edges[i]:>12}  {bar} {number or ''}".rstrip())
    lines.append(f"{edges[-1]:>12}")
    return "\n".join(lines)


def _reference(summary: DatasetSummary) -> str:
    reference = summary.spec.score_reference
    if reference is None:
        return "none: raw returns only"
    mean, best = (normalized_score(value, reference) for value in (summary.returns.mean, summary.returns.max))
    low, high = map(format_number, reference)
    scores = [format_number(float(value), decimals=1) for value in (mean, best)]
    return "0 at {}, 100 at {}; these data: mean {}, best {}".format(low, high, *scores)


def _observations(spec: DatasetSpec) -> str:
    if not spec.image_shape:
        return f"{spec.state_dim}"
    depth, height, width = spec.image_shape
    stack = "a picture" if depth == 1 else f"the last {depth} pictures"
    return f"{stack} of {height} x {width}"


def _constants(dimensions: tuple[int, ...]) -> str:
    if not dimensions:
        return ""
    verb = "changes" if len(dimensions) == 1 else "change"
    return f"; {len(dimensions)} never {verb} ({listed(dimensions)})"


def _show_counts(counts: tuple[int, ...]) -> str:
    """How often each action occurs, of the first that do."""
    found = [f"{action}: {number:,}" for action, number in enumerate(counts) if number]
    more = f", and {len(found) - _MOST_SHOWN:,} more" if len(found) > _MOST_SHOWN else ""
    return ", ".join(found[:_MOST_SHOWN]) + more


def _show(spread: Spread) -> str:
    values = (spread.min, spread.mean, spread.std, spread.max)
    low, mean, std, high = map(format_number, values)
    return f"{low} to {high}, mean {mean}, std {std}"


def _spread(values: np.ndarray) -> Spread:
    return Spread(
        min=float(values.min()),
        mean=float(values.mean(dtype=np.float64)),
        std=float(values.std(dtype=np.float64)),
        max=float(values.max()),
    )

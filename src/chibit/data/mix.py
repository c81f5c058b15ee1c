"""Several data sets as one: of the same sizes, with shares of what is drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from chibit.core.config import as_field
from chibit.core.errors import InputError
from chibit.core.fields import Positive
from chibit.core.files import MAX_NAME_LENGTH
from chibit.data.dataset import TrajectoryDataset
from chibit.data.load import from_arrays
from chibit.data.mixture import Mixture

_BOUNDS = ("action_low", "action_high")


def mix(
    datasets: Sequence[TrajectoryDataset], weights: Sequence[float] = (), *, cache: str | Path | None = None
) -> TrajectoryDataset:
    """Put data sets behind one another; statistics, bounds and targets are those of all their steps.

    Args:
        datasets: of the same sizes, of vectors. Of different environments the mixture has none, and the score
            reference is that of a set without one; else it is the first's, as the contact margins always are.
            The time limit is the longest.
        weights: how often a drawn step is of each, relative to the others; empty draws all steps as often.
        cache: where the store of the mixture is kept; see `home_folder`.

    Raises:
        InputError: for pictures, sizes or environments that differ, or weights that are not a positive one
            for each.
    """
    first = datasets[0]
    check_weights(len(datasets), weights)
    for other in datasets[1:]:
        other.spec.require_fits(first.spec, "data")
    if first.spec.image_shape:
        raise InputError(f"data: {first.spec.name} holds pictures, which are not mixed; train on one")
    env_ids = list(dict.fromkeys(d.spec.env_id for d in datasets))
    references = [d.spec.score_reference for d in datasets if len(env_ids) == 1 or d.spec.env_id is None]
    has_finals = all(d.final_observations is not None for d in datasets)
    columns = {
        name: np.concatenate([getattr(d, name) for d in datasets])
        for name in ("observations", "actions", "rewards", "terminations", "truncations")
    }
    mixed = from_arrays(
        **columns,
        next_observations=np.concatenate([_next(d) for d in datasets]) if has_finals else None,
        name="+".join(_plain(d.spec.name) for d in datasets)[:MAX_NAME_LENGTH],
        env_id=env_ids[0] if len(env_ids) == 1 else None,
        d4rl_physics=first.spec.d4rl_physics,
        score_reference=next(iter(references), None),
        cache=cache,
    )
    spec = replace(  # what data declare, and arrays do not
        mixed.spec,
        num_actions=first.spec.num_actions,
        max_episode_steps=max(d.spec.max_episode_steps for d in datasets),
        observation_names=first.spec.observation_names,
        action_names=first.spec.action_names,
    )
    if len({d.spec.observation_parts for d in datasets}) == 1:
        spec = replace(spec, observation_parts=first.spec.observation_parts)
    if first.spec.act_dim:  # which actions may lie beyond, as in each by itself: nobody has given them here
        low, high = (np.array([getattr(d.spec, name) for d in datasets]) for name in _BOUNDS)
        spec = replace(spec, action_low=tuple(low.min(0).tolist()), action_high=tuple(high.max(0).tolist()))
    sources = np.repeat(np.arange(len(datasets)), [d.num_episodes for d in datasets])
    parts = tuple(
        {"name": d.spec.name, "hash": d.content_hash, "episodes": d.num_episodes, "steps": d.num_steps}
        for d in datasets
    )
    mixture = Mixture(sources, parts, tuple(map(float, weights)))
    notes = (*mixed.notes, *_notes(datasets, weights, env_ids))
    return replace(mixed, spec=spec, mixture=mixture, missions=_missions(datasets), notes=notes)


def _notes(
    datasets: Sequence[TrajectoryDataset], weights: Sequence[float], env_ids: Sequence[str | None]
) -> Iterator[str]:
    """What was said of each, what is mixed, and what of it is one's alone."""
    for dataset in datasets:
        yield from dataset.notes
    shares = [f", weight {weight:g}" for weight in weights] or [""] * len(datasets)
    described = [
        f"{d.spec.name} ({d.num_steps:,} steps{share})" for d, share in zip(datasets, shares, strict=True)
    ]
    yield f"mixed of {' and '.join(described)}"
    if len(env_ids) > 1:
        yield f"of {' and '.join(map(str, env_ids))}: not evaluated; name an environment for all"
    if len({d.spec.d4rl_physics for d in datasets}) > 1:
        yield f"of different contact margins in MuJoCo: evaluated with those of {datasets[0].spec.name}"


def check_weights(number: int, weights: Sequence[float]) -> None:
    """Refuse weights that are not positive, or not one for each data set."""
    if as_field(tuple[Positive, ...], weights, "data_weights") and len(weights) != number:
        raise InputError(f"data_weights: got {len(weights)}, expected one for each of {number} data sets")


def _plain(name: str) -> str:
    """A name of the characters that the name of a data set may have."""
    text = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in name)
    return text.lstrip("._-") or "data"


def _missions(datasets: Sequence[TrajectoryDataset]) -> np.ndarray | None:
    """Texts of all episodes, where all data sets have them."""
    missions = [d.missions for d in datasets if d.missions is not None]
    return np.concatenate(missions) if len(missions) == len(datasets) else None


def _next(dataset: TrajectoryDataset) -> np.ndarray:
    """(N, S) what was seen after each action."""
    following = np.concatenate([dataset.observations[1:], dataset.observations[-1:]])
    following[dataset.episode_starts[1:] - 1] = dataset.final_observations
    return following

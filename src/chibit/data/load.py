"""Data sets by name or path: converted once whatever the source, kept as a store, and opened from there."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from chibit.core.config import as_field
from chibit.core.errors import DamagedFileError, InputError, UserError
from chibit.core.fields import Count, refusal
from chibit.core.files import check_name
from chibit.core.fingerprint import fingerprint
from chibit.core.numbers import as_numbers
from chibit.core.plugins import address_of
from chibit.core.temporary import remove
from chibit.data.bounds import bound_actions, bounds_beside, declared_bounds
from chibit.data.dataset import TrajectoryDataset
from chibit.data.readers.base import ColumnFormat, code_of, reading_with, suffix_of
from chibit.data.readers.columns import EPISODE, TIME, Reading, mapping_beside, parse_columns
from chibit.data.readers.damage import without_damaged
from chibit.data.readers.origin import FACTS, UNKNOWN, Origin
from chibit.data.readers.recording import Recording, last_rows, record_columns
from chibit.data.resolve import (
    Found,
    Places,
    atari_folder,
    find_source,
    home_folder,
    language_folder,
    local_minari_ids,
    make_places,
    readable_suffixes,
)
from chibit.data.store import SCHEMA, open_store, write_store
from chibit.environments.d4rl import D4RL_SETS
from chibit.environments.data_names import is_published_name
from chibit.environments.registry import ENVIRONMENTS, GAMES, LANGUAGE_TASKS, TASKS

_log = logging.getLogger("chibit")
_CONVERTER = 10
"""Raised when the same steps would become another store."""
_READERS = 3
"""Raised when the same file would give other steps, or none."""
_COLLECTED = "collected when first used"
READING = ("columns", "episode_length", "skip_damaged", "continuous_actions")
"""What `load_dataset` is told of how a source is read, and"""
BOUNDS = ("action_low", "action_high")
"""of how far its actions may go; fields of runs and flags have these names too."""


def load_dataset(
    name_or_path: str | Path,
    *,
    env_id: str | None = None,
    columns: Sequence[str] | Mapping[str, str | Sequence[str]] = (),
    episode_length: int | None = None,
    skip_damaged: bool = False,
    continuous_actions: bool = False,
    action_low: ArrayLike | None = None,
    action_high: ArrayLike | None = None,
    data_folder: str | Path | None = None,
    cache: str | Path | None = None,
    download: bool = True,
    progress: bool = True,
) -> TrajectoryDataset:
    """Open a data set, after converting it if that was not done before.

    Args:
        name_or_path: a D4RL id (hopper-medium-v2), an own level (hopper-medium, chibit/hopper/medium-v0;
            collected if it is not there), a Minari id (mujoco/hopper/medium-v0), or the path of an .hdf5,
            .pkl or .npz file, of a Minari folder or of a store.
        env_id: environment that the data are evaluated in, by the caller's word: one of
            `chibit.environments.registry.ENVIRONMENTS`. None takes what the data name.
        columns: which columns of a file are which, where they have other names than usual:
            ``{"observations": ["obs", "temp"], "actions": "valve"}`` or ``["observations=obs,temp", ...]``.
            Without it `columns.toml` in a folder, or `log.toml` beside `log.csv`, is taken where it is there.
        episode_length: steps after which what has no end is cut.
        skip_damaged: leave out episodes with a value that is not finite, and damaged files of a folder of
            tables, which a note counts, in place of a refusal.
        continuous_actions: take whole numbers as actions for quantities, in place of choices.
        action_low: lowest actions, one number for each dimension or one for all; -inf where there is no
            bound. None takes those of the file beside the data, of the environment, of the data's own
            description, or what the data reach, in this order.
        action_high: the same of the highest.
        data_folder: where D4RL files and Minari data sets are looked for first, and files downloaded to.
        cache: where stores are kept; see `home_folder`.
        download: whether data that are not here may be downloaded or collected.
        progress: show what takes long on standard error.

    Returns:
        The data set, read-only, its arrays memory-mapped.

    Raises:
        InputError: for an unknown name, a missing file, or data that do not fit together or with their
            environment.
        DamagedFileError: for a file that is damaged or not to be trusted.
        ResourceError: for a full disk, too little memory, or a server that cannot be reached.
    """
    reading = read_reading(columns, episode_length, skip_damaged, continuous_actions)
    places = make_places(data_folder, cache, download, progress)
    source = find_source(name_or_path, places)
    dataset = _open(name_or_path, source, places, reading)
    beside = bounds_beside(source.given)
    low = beside[0] if action_low is None else action_low
    high = beside[1] if action_high is None else action_high
    if env_id is None:
        return bound_actions(dataset, low, high)
    from chibit.data.environment import evaluate_in

    return evaluate_in(dataset, env_id, low, high)


def given_dataset(data: TrajectoryDataset | str | Path, what: str) -> TrajectoryDataset:
    """Open data by name or path where they are not open; `what` they are called. InputError for all else."""
    if isinstance(data, str | Path):
        return load_dataset(data, progress=False)
    if not isinstance(data, TrajectoryDataset):
        raise refusal(what, data, "a data set, a name or a path")
    return data


def _open(name_or_path: str | Path, source: Found, places: Places, reading: Reading) -> TrajectoryDataset:
    if source.format is None:
        reading.refuse_said(f"{source.path}: a store has")
        return _known_here(open_store(source.path, verify="hash"))
    reading = complete(reading, source)
    folder = places.home / "stores" / f"{_readable(name_or_path)}-{_source_hash(source, reading)}"
    kept, folder = _open_kept(folder)
    if kept is not None:
        _log.debug("%s was converted before: %s", source.path, folder)
        return kept
    if places.progress:
        print(f"converting {source.path} to {folder}", file=sys.stderr)
    with open_recording(source, reading) as (recording, origin):
        return _keep(folder, recording, origin, str(source.path))


def read_reading(
    columns: Sequence[str] | Mapping[str, str | Sequence[str]],
    episode_length: int | None,
    skip_damaged: bool,
    continuous_actions: bool = False,
) -> Reading:
    """Check what a user says of a source; arguments as of `load_dataset`."""
    return Reading(
        parse_columns(columns),
        as_field(Count | None, episode_length, "episode_length"),
        as_field(bool, skip_damaged, "skip_damaged"),
        as_field(bool, continuous_actions, "continuous_actions"),
    )


def complete(reading: Reading, source: Found) -> Reading:
    """What a user says of a source, with its part and what lies beside it."""
    columns = reading.columns
    if isinstance(source.format, ColumnFormat) and not columns:
        columns = mapping_beside(source.given)
    if TIME in columns and not (isinstance(source.format, ColumnFormat) and source.format.has_time):
        raise InputError(f"columns: {source.given}: {TIME} is for tables and .npz files; leave it out")
    return replace(reading, part=source.part, columns=columns)


@contextlib.contextmanager
def open_recording(source: Found, reading: Reading) -> Iterator[tuple[Recording, Origin]]:
    """The steps of a source that is no store, as its format reads them."""
    assert source.format is not None
    with (
        reading_with(source.format, source.path),
        source.format.read_as(source.path, reading) as (recording, origin),
    ):
        yield without_damaged(recording, str(source.path)) if reading.skip_damaged else recording, origin


def is_here(name_or_path: str | Path, *, data_folder: Path | None = None, cache: Path | None = None) -> bool:
    """Whether `load_dataset` would find a data set without downloading or collecting it."""
    try:
        find_source(name_or_path, make_places(data_folder, cache, download=False, progress=False))
    except UserError:
        return False
    return True


def from_arrays(
    observations: ArrayLike,
    actions: ArrayLike,
    rewards: ArrayLike,
    terminations: ArrayLike | None = None,
    truncations: ArrayLike | None = None,
    *,
    episode: ArrayLike | None = None,
    next_observations: ArrayLike | None = None,
    name: str = "arrays",
    env_id: str | None = None,
    d4rl_physics: bool = False,
    score_reference: tuple[float, float] | None = None,
    action_low: ArrayLike | None = None,
    action_high: ArrayLike | None = None,
    cache: str | Path | None = None,
) -> TrajectoryDataset:
    """Make a data set of arrays: the steps of all episodes, end to end.

    Args:
        observations: (N, S) numbers.
        actions: (N, A) floats, or (N,) integers from 0 where actions are discrete.
        rewards: (N,) numbers.
        terminations: (N,) bool, True where the environment ended an episode; None if it is not known.
        truncations: (N,) bool, True where an episode was cut; None if none was.
        episode: (N,) names, numbers or dates: an episode ends where they change, cut unless it is terminated.
        next_observations: (N, S) what was seen after each action, if it is known.
        name: letters, digits and . _ + -, for tables alone; that of a published data set is refused.
        env_id: the environment it is evaluated in, one of `chibit.environments.registry.ENVIRONMENTS`.
        d4rl_physics: evaluate with the contact margins that MuJoCo had before 3.5.
        score_reference: raw returns that count as 0 and as 100; None takes the environment's, if published.
        action_low: lowest actions, as for `load_dataset`.
        action_high: highest actions.
        cache: where stores are kept; see `home_folder`.

    Returns:
        The data set, opened from a store in the cache; its `folder` can be given to `load_dataset` later.

    Raises:
        InputError: if arrays do not fit together or with the environment, are not finite, or never end.
    """
    check_name(name, "data set")
    if is_published_name(name):
        raise InputError(f"name: {name!r} is that of a published data set; choose another")
    if terminations is truncations is episode is None:
        raise InputError(f"{name}: no terminations, truncations or episode; say where episodes end")
    given = {"observations": observations, "actions": actions, "rewards": rewards}
    known = {"terminations": terminations, "truncations": truncations, "next_observations": next_observations}
    columns = {n: as_numbers(n, c) for n, c in (given | known).items() if n in given or c is not None}
    if episode is not None:
        columns[EPISODE] = _numbered(episode, name)
    reference = as_field(tuple[float, float] | None, score_reference, "score_reference")
    env_id = as_field(str | None, env_id, "env_id")
    origin = Origin(name=name, env_id=env_id, d4rl_physics=d4rl_physics, score_reference=reference)
    bounds = declared_bounds(action_low, action_high, columns["actions"], name)
    origin = replace(origin, provenance={"kind": "arrays"}, action_bounds=bounds)
    folder = home_folder(cache) / "stores" / f"{_readable(name)}-{_content_hash(origin, columns)}"
    kept, folder = _open_kept(folder)
    dataset = kept or _keep(folder, record_columns(columns, where=name), origin, name)
    return bound_actions(dataset, action_low, action_high)


def _numbered(episode: ArrayLike, where: str) -> np.ndarray:
    """(N,) numbers of episodes from 0, of whatever names they have."""
    names = np.asarray(episode)
    if names.dtype.kind not in "fiubUSM":
        raise InputError(f"{EPISODE} has type {names.dtype}, expected numbers or text (astype(str))")
    if (names != names).any():  # neither a number nor a date
        raise InputError(f"{EPISODE}: step {int((names != names).argmax()):,} has none; fill it in")
    is_last = last_rows(names, where)
    return np.cumsum(is_last) - is_last


def list_datasets(*, data_folder: Path | None = None, cache: Path | None = None) -> list[str]:
    """List the names that `load_dataset` knows, one line each: what it is and where it comes from."""
    from chibit.data.collect.mujoco import list_collectable
    from chibit.data.collect.scripted import scripted_dataset_id
    from chibit.data.readers.d4rl import find_file

    here = local_minari_ids(data_folder)
    own = [(entry.name, entry.dataset_id, entry.env_id) for entry in list_collectable()]
    scripted = ((f"{task}-{level}", row) for task, row in TASKS.items() for level in row.scripted_levels)
    own += [(name, scripted_dataset_id(name), row.ids[0]) for name, row in scripted]
    lines = [
        _line(name, f"{env_id}; {'here' if dataset_id in here else _COLLECTED}")
        for name, dataset_id, env_id in own
    ]
    for name, env_id in LANGUAGE_TASKS.items():
        state = "here" if (language_folder(cache) / name).is_dir() else _COLLECTED
        lines.append(_line(name, f"{env_id}; {state}"))
    folder = data_folder or home_folder(cache) / "d4rl"
    for dataset_id in D4RL_SETS:
        is_here = find_file(dataset_id, folder) is not None
        lines.append(_line(dataset_id, "D4RL; " + ("here" if is_here else "downloaded when first used")))
    for game in GAMES:
        state = "here" if (atari_folder(cache) / game).is_dir() else "downloaded when first used"
        lines.append(_line(game, f"1 % of DQN-replay; {state}"))
    lines += [_line(path.name, "collected; here") for path in sorted(atari_folder(cache).glob("*-*"))]
    collected = {dataset_id for _, dataset_id, _ in own}
    lines += [_line(dataset_id, "Minari; here") for dataset_id in here if dataset_id not in collected]
    return lines


def _open_kept(folder: Path) -> tuple[TrajectoryDataset | None, Path]:
    """Open a store that was made before, or say where to make it; a damaged one, only a copy, is dropped.

    Data whose environment is known to some commands alone, or has changed, become two stores: what it knows
    of bounds, time limit and targets is in them. Whichever was made first is `folder`, and the other is
    beside it.
    """
    for place in (folder, folder.with_name(f"{folder.name}-2")):
        if not place.exists():
            return None, place
        with contextlib.suppress(DamagedFileError, InputError):
            kept = open_store(place, verify="hash")
            then_unknown = str(kept.provenance.get(UNKNOWN, ""))
            is_other = then_unknown in ENVIRONMENTS or not _is_known(kept.spec.env_id)
            if not is_other and not _has_changed(kept):
                return kept, place
            continue
        break
    remove(place)
    return None, place


def _is_known(env_id: str | None) -> bool:
    return env_id is None or env_id in ENVIRONMENTS


def _has_changed(dataset: TrajectoryDataset) -> bool:
    if FACTS not in dataset.provenance:
        return False
    from chibit.data.environment import has_changed

    return has_changed(dataset)


def _known_here(dataset: TrajectoryDataset) -> TrajectoryDataset:
    """A store of others, with its environment as that is by now; without one that is not known here."""
    named = dataset.spec.env_id
    if named is None or (named in ENVIRONMENTS and not _has_changed(dataset)):
        return dataset
    from chibit.data.environment import choose_environment, evaluate_in

    if named in ENVIRONMENTS:
        return evaluate_in(dataset, named)
    env_id, notes = choose_environment(named)
    return replace(
        dataset,
        spec=replace(dataset.spec, env_id=env_id),
        notes=(*dataset.notes, *notes),
        provenance={**dataset.provenance, UNKNOWN: named},
    )


def _keep(folder: Path, recording: Recording, origin: Origin, where: str) -> TrajectoryDataset:
    from chibit.data.environment import check_environment

    if origin.env_id is None and origin.named_environment is not None:
        origin = replace(origin, provenance={**origin.provenance, UNKNOWN: origin.named_environment})
    return open_store(write_store(folder, recording, check_environment(origin, recording, where)))


def _source_hash(source: Found, reading: Reading) -> str:
    """Eight digits that change with a source, and with how it is converted."""
    key: list[Any] = [fingerprint(source.path), SCHEMA, _CONVERTER, _READERS, asdict(reading)]
    if source.format is not None and address_of(type(source.format)):
        key += [source.format.key, code_of(source.format)]
    return hashlib.sha256(json.dumps(key).encode()).hexdigest()[:8]


def _readable(name_or_path: str | Path) -> str:
    """Turn a name into a folder's name; what tells data sets apart is the hash behind it."""
    path = Path(name_or_path)
    is_file = suffix_of(path) in readable_suffixes()
    text = path.stem if is_file else path.name if path.exists() else str(name_or_path)
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-.")[-60:] or "data"


def _content_hash(origin: Origin, columns: Mapping[str, np.ndarray]) -> str:
    """Eight digits that change with arrays or with what is said of them."""
    digest = hashlib.sha256(repr((origin, SCHEMA, _CONVERTER)).encode())
    for name, column in columns.items():
        digest.update(f"{name} {column.dtype} {column.shape}".encode())
        digest.update(np.ascontiguousarray(column).data)
    return digest.hexdigest()[:8]


def _line(name: str, what: str) -> str:
    return f"{name:<32}{what}"

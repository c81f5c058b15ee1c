"""Minari data sets (Younis et al., 2024): found here or downloaded, and what their metadata say.

Metadata come from strangers. An environment is named by an id that must be on the allow-list; the
`entry_point` that the metadata give for it is never looked at.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement

from chibit.core.config import read_json
from chibit.core.errors import DamagedFileError, InputError
from chibit.core.files import check_name
from chibit.data.environment import choose_environment
from chibit.data.readers.columns import Reading
from chibit.data.readers.hdf5 import open_hdf5
from chibit.data.readers.minari_episodes import (
    ArrayEpisode,
    hdf5_episodes,
    record_episodes,
)
from chibit.data.readers.minari_spaces import Numbers, Part, described, observation_parts
from chibit.data.readers.origin import Origin
from chibit.data.readers.recording import Recording, without_following
from chibit.data.readers.sandbox import ApartFormat
from chibit.environments.data_names import is_published_name
from chibit.environments.kinds import MujocoEnvironment
from chibit.environments.registry import ENVIRONMENTS

_MAIN_FILE, _METADATA = "main_data.hdf5", "metadata.json"
_LARGEST = 1e30  # of scores and bounds; far beyond any real one, and within single precision
_HARMLESS_OPTIONS = {"render_mode", "width", "height", "camera_id", "camera_name", "default_camera_config"}
_LATER_MUJOCO = [
    f"{major}.{minor}.{patch}" for major in (3, 4, 5) for minor in range(30) for patch in range(6)
][30:]
"""Versions from 3.5.0 on, in which touching geoms add their contact margins."""


class Minari(ApartFormat, key="minari"):
    """Minari's folders."""

    expected = "a Minari folder"

    def claim(self, path: Path) -> Path | None:
        """The folder that holds the files: the path, its `data`, or that of the main file."""
        if path.name == _MAIN_FILE:
            path = path.absolute().parent
        return next((place for place in (path / "data", path) if (place / _METADATA).is_file()), None)

    def read_here(self, path: Path) -> AbstractContextManager[tuple[Recording, Origin]]:
        """As `read_minari`."""
        return read_minari(path)

    def read_here_as(self, path: Path, reading: Reading) -> AbstractContextManager[tuple[Recording, Origin]]:
        """As `read_minari`, without damaged episodes where that is asked for."""
        return read_minari(path, skip_damaged=reading.skip_damaged)


@contextlib.contextmanager
def read_minari(folder: Path, *, skip_damaged: bool = False) -> Iterator[tuple[Recording, Origin]]:
    """Read a data set from its folder.

    Args:
        folder: as `Minari.claim` gave it.
        skip_damaged: leave out episodes whose columns do not fit together.

    Raises:
        InputError: if its steps do not fit together, or its form is not one that can be read here.
    """
    metadata = read_json(folder / _METADATA)
    if not isinstance(metadata, dict):
        raise DamagedFileError(
            f"{folder / _METADATA}: expected an object; copy or download the data set again"
        )
    origin = read_origin(metadata, folder)
    if metadata.get("data_format", "hdf5") != "hdf5":
        recording = _record_other_format(folder, metadata, skip_damaged=skip_damaged)
        _check_bounds(origin, recording, folder)
        yield recording, _with_parts(origin, recording, metadata, folder)
        return
    path = folder / _MAIN_FILE
    with open_hdf5(path) as file:
        count, open_episode = hdf5_episodes(file, path)
        _check_total(metadata, "total_episodes", count, path)
        recording = record_episodes(
            count, open_episode, path, *_spaces(metadata, folder), skip_damaged=skip_damaged
        )
        if not skip_damaged:
            _check_total(metadata, "total_steps", len(recording.rewards), path)
        _check_bounds(origin, recording, folder)
        if metadata.get("final_observations") is False:  # written here of data that do not hold them
            recording = without_following(recording)
        yield recording, _with_parts(origin, recording, metadata, folder)


def read_origin(metadata: dict[str, Any], folder: Path) -> Origin:
    """Take from metadata what can be trusted.

    Raises:
        InputError: for an action space that is no vector and no number, or a name that no path may hold.
        DamagedFileError: if a field does not have the form that Minari gives it.
    """
    fallback = folder.parent.name if folder.name == "data" else folder.name
    name = check_name(str(metadata.get("dataset_id", fallback)), "data set")
    if "/" not in name and is_published_name(name):
        name = f"minari/{name}"  # D4RL's and Atari's ids are no Minari ids
    env_spec = _env_spec(metadata, folder)
    env_id, env_options, notes = _environment(env_spec)
    d4rl_physics, physics_notes = _physics(metadata, env_id)
    num_actions, action_bounds = _action_space(_json_field(metadata, "action_space", folder), folder)
    limit = env_spec.get("max_episode_steps")
    return Origin(
        name=name,
        env_id=env_id,
        named_environment=None if env_spec.get("id") is None else str(env_spec["id"]),
        env_options=env_options,
        d4rl_physics=d4rl_physics,
        score_reference=_score_reference(metadata),
        num_actions=num_actions,
        action_bounds=action_bounds,
        max_episode_steps=limit if type(limit) is int and limit > 0 else None,
        notes=(*notes, *physics_notes, *_action_notes(_json_field(metadata, "action_space", folder))),
        provenance={
            "kind": "minari",
            "path": str(folder.absolute()),
            **{
                key: metadata[key] for key in ("minari_version", "requirements", "physics") if key in metadata
            },
        },
    )


def _environment(env_spec: dict[str, Any]) -> tuple[str | None, str, tuple[str, ...]]:
    """Give the environment's id if it is allowed, the options it was made with, and notes."""
    env_id, notes = choose_environment(env_spec.get("id"))
    if env_id is None:
        return None, "", notes
    options, usual = env_spec.get("kwargs"), ENVIRONMENTS[env_id].options(env_id)
    kept = {
        key: value
        for key, value in (options if isinstance(options, dict) else {}).items()
        if key not in _HARMLESS_OPTIONS and usual.get(key) != value
    }
    wrappers = env_spec.get("additional_wrappers")
    parts = [f"{key}={value!r}"[:80] for key, value in kept.items()]
    if isinstance(wrappers, list):
        parts += [str(w.get("name", "wrapper"))[:80] for w in wrappers if isinstance(w, dict)]
    if not parts:
        return env_id, "", ()
    listed = ", ".join(parts)
    return env_id, listed, (f"recorded in {env_id} with {listed}: evaluated without",)


def _physics(metadata: dict[str, Any], env_id: str | None) -> tuple[bool, tuple[str, ...]]:
    """Decide on contact margins: by the data's own record, else by the MuJoCo that they require."""
    if not isinstance(ENVIRONMENTS.get(env_id or ""), MujocoEnvironment):
        return False, ()
    record = metadata.get("physics")
    if isinstance(record, dict) and isinstance(record.get("d4rl_physics"), bool):
        return record["d4rl_physics"], ()
    requirement = _mujoco_requirement(metadata.get("requirements"))
    if requirement is None:
        return False, ()
    if any(requirement.specifier.filter(_LATER_MUJOCO)):
        return False, (
            f"{requirement} does not tell MuJoCo before 3.5 from later: contact margins as in later",
        )
    return True, (f"{requirement}: contact margins as in MuJoCo before 3.5",)


def _mujoco_requirement(requirements: Any) -> Requirement | None:
    for text in requirements if isinstance(requirements, list) else []:
        with contextlib.suppress(InvalidRequirement, TypeError):
            requirement = Requirement(text)
            if requirement.name.lower() == "mujoco":
                return requirement
    return None


def _action_space(
    space: dict[str, Any], folder: Path
) -> tuple[int | None, tuple[tuple[float | None, ...], tuple[float | None, ...]] | None]:
    """Read the number of actions, or their bounds; None is one that is not finite.

    Raises:
        InputError: for actions that are neither a vector nor one number.
    """
    kind = space.get("type", "Box")
    if kind == "Discrete":
        number = space.get("n")
        return (number, None) if type(number) is int and number > 0 else (None, None)
    if kind != "Box":
        how = "put the parts of an action side by side as one vector"
        if kind in ("MultiDiscrete", "MultiBinary"):
            how = "number the combinations from 0, or give them as floats"
        raise InputError(
            f"{folder}: actions are of a {str(kind)[:20]} space, expected a vector or numbers from 0; "
            f"{how}, and write the data again with that action_space"
        )
    low, high = (_flat(space.get(name)) for name in ("low", "high"))
    return None, (low, high) if low and high else None


def _action_notes(space: dict[str, Any]) -> tuple[str, ...]:
    start = space.get("start", 0) if space.get("type") == "Discrete" else 0
    return (f"actions begin at {start} in the source and at 0 here: a policy's need {start} added",) * (
        start != 0
    )


def _flat(bound: Any) -> tuple[float | None, ...]:
    """A bound of a Box, which may be nested lists, as a row."""
    if isinstance(bound, list):
        return tuple(number for part in bound for number in _flat(part))
    return (float(bound) if _is_finite(bound) else None,) if bound is not None else ()


def _spaces(metadata: dict[str, Any], folder: Path) -> tuple[tuple[Part, ...], int]:
    """Parts of an observation, and the number of the first discrete action."""
    actions = _json_field(metadata, "action_space", folder)
    start = actions.get("start", 0) if actions.get("type") == "Discrete" else 0
    if type(start) is not int or abs(start) > _LARGEST:
        raise DamagedFileError(
            f"{folder / _METADATA}: actions begin at {str(start)[:40]}; copy or download the data set again"
        )
    env_id = _environment(_env_spec(metadata, folder))[0]
    repeated = ENVIRONMENTS[env_id].repeated_parts if env_id is not None else ()
    space = _json_field(metadata, "observation_space", folder)
    return observation_parts(space, str(folder), repeated), start


def _env_spec(metadata: dict[str, Any], folder: Path) -> dict[str, Any]:
    return _json_field(metadata, "eval_env_spec", folder) or _json_field(metadata, "env_spec", folder)


def _with_parts(origin: Origin, recording: Recording, metadata: dict[str, Any], folder: Path) -> Origin:
    """Say what observations were before they became vectors, where they were anything else."""
    parts = described(_spaces(metadata, folder)[0])
    is_whole = sum(part.width for part in parts) == recording.observation_size
    return replace(origin, observation_parts=parts) if is_whole else origin


def _score_reference(metadata: dict[str, Any]) -> tuple[float, float] | None:
    low, high = metadata.get("ref_min_score"), metadata.get("ref_max_score")
    if _is_finite(low) and _is_finite(high) and float(high) > float(low):  # type: ignore[arg-type]
        return float(low), float(high)  # type: ignore[arg-type]
    return None


def _is_finite(value: Any) -> bool:
    return type(value) in (int, float) and -_LARGEST < value < _LARGEST  # NaN is not between them


def _json_field(metadata: dict[str, Any], key: str, folder: Path) -> dict[str, Any]:
    """Decode an object that metadata hold as text; {} where there is none."""
    text = metadata.get(key)
    if text is None:
        return {}
    try:
        value = json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise DamagedFileError(f"{folder / _METADATA}: {key} is not JSON ({error})") from error
    if not isinstance(value, dict):
        raise DamagedFileError(f"{folder / _METADATA}: {key} is not an object")
    return value


def _check_total(metadata: dict[str, Any], key: str, found: int, path: Path) -> None:
    if key in metadata and metadata[key] != found:
        raise DamagedFileError(
            f"{path}: {key} is {found}, metadata.json says {metadata[key]!r}; copy or download the set again"
        )


def _check_bounds(origin: Origin, recording: Recording, folder: Path) -> None:
    sizes = {len(bound) for bound in origin.action_bounds or ()}
    if not sizes <= {recording.num_action_columns}:
        listed = " and ".join(map(str, sorted(sizes)))
        raise DamagedFileError(
            f"{folder / _METADATA}: action_space has bounds for {listed} numbers, "
            f"actions have {recording.num_action_columns}; copy or download the data set again"
        )


def _record_other_format(folder: Path, metadata: dict[str, Any], *, skip_damaged: bool) -> Recording:
    """Read Arrow or Parquet with Minari's own reader; one by one to leave damaged ones out."""
    for space in ("observation_space", "action_space"):
        # Without them Minari would build the environment from the file's entry point: code of a stranger.
        if not _json_field(metadata, space, folder):
            raise DamagedFileError(f"{folder / _METADATA}: no {space}; copy or download the data set again")
    data_format, count = metadata["data_format"], metadata.get("total_episodes")
    if data_format not in ("arrow", "parquet") or not isinstance(count, int):
        raise InputError(f"{folder}: data format {str(data_format)[:80]!r}; expected hdf5, arrow or parquet")
    from minari.dataset.minari_storage import MinariStorage

    with _arrow_errors(folder, metadata):
        storage = MinariStorage.read(folder)
    episodes: dict[int, ArrayEpisode] = {}

    def open_episode(index: int) -> ArrayEpisode:
        if index not in episodes:
            wanted = [index] if skip_damaged else range(count)
            with _arrow_errors(folder, metadata):
                found = zip(wanted, storage.get_episodes(wanted), strict=True)
                episodes.update({number: ArrayEpisode(episode, str(folder)) for number, episode in found})
        return episodes[index]

    return record_episodes(count, open_episode, folder, *_spaces(metadata, folder), skip_damaged=skip_damaged)


@contextlib.contextmanager
def _arrow_errors(folder: Path, metadata: dict[str, Any]) -> Iterator[None]:
    """What Minari's reader raises, in our words."""
    try:
        yield
    except ImportError as error:
        raise InputError(f"{folder}: Arrow files need an extra: pip install 'minari[arrow]'") from error
    except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
        if isinstance(error, InputError):
            raise
        grids = [part for part in _spaces(metadata, folder)[0] if isinstance(part, Numbers) and part.is_grid]
        if grids and metadata.get("jpeg_encoding", True):  # earlier versions of Minari do that to them
            raise grids[0].as_jpeg(str(folder)) from error
        raise DamagedFileError(
            f"{folder}: damaged Arrow files ({error}); copy or download them again"
        ) from error

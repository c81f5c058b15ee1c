"""The store: a folder of flat arrays that opens as memory maps, with a manifest that says what they are.

    records.npy             (N, W) float32: return-to-go, observation less its offset, action, reward of each
                            step
    episode_starts.npy      (E + 1,) int64 first row of each episode, then N
    episode_ends.npy        (E, 2) bool: terminated, truncated
    final_observations.npy  (E, S) float32, or float64 with an offset, where the source holds them
    frames.npy              (N, H, W) uint8 newest picture of each observation, where these are stacks of
                            pictures; the records then hold no observations
    observations.npy        (N, S) uint8, where all of them are bytes; the records then hold none, and get
                            them when the store is opened
    missions.npy            (E,) texts of what episodes are for, where the source says it
    mission_ids.npy         (E,) int32, beside observations.npy: then missions.npy is a table of the different
                            texts, and this the row of each episode
    manifest.json           schema, files with shapes and SHA-256, description, notes, provenance, its own
    SHA-256

A store is written once, whole or not at all, and never changed. Any number of processes share the pages of
one copy.
"""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from chibit.core.arrays import map_array, write_rows
from chibit.core.config import from_json, read_json, to_json
from chibit.core.errors import DamagedFileError, InputError, one_line
from chibit.core.files import atomic_folder, check_regular, create, open_regular, sha256_file, write_atomic
from chibit.core.fingerprint import file_state
from chibit.core.memory import check_fits
from chibit.core.temporary import remove
from chibit.data.dataset import DatasetSpec, TrajectoryDataset, returns_to_go
from chibit.data.readers.columns import NAMES
from chibit.data.readers.origin import Origin, beyond_bounds, default_return_units, make_spec
from chibit.data.readers.recording import MOST, Block, Recording
from chibit.data.spec import MAX_ACTIONS
from chibit.data.statistics import Contradictions, Narrowing, RunningMoments

SCHEMA = 1
MANIFEST = "manifest.json"
RECORDS, STARTS, ENDS, FINAL = "records", "episode_starts", "episode_ends", "final_observations"
FRAMES, MISSIONS, MISSION_IDS, OBSERVATIONS = "frames", "missions", "mission_ids", "observations"
_REMEDY = "remove the folder and convert the data again"
_LONGEST_NAME = 100
"""Characters of a column's name that are kept."""


def write_store(folder: Path, recording: Recording, origin: Origin) -> Path:
    """Convert a recording, one block at a time.

    Args:
        folder: where the store is to be; if another process finishes the same store first, its copy stays.
        recording: the steps.
        origin: what is known of them.

    Returns:
        `folder`.

    Raises:
        InputError: if a value is NaN or infinite (the message says where), or an action is no valid number.
    """
    with atomic_folder(folder) as temporary:
        fill_store(temporary, recording, origin)
    return folder


def fill_store(folder: Path, recording: Recording, origin: Origin) -> None:
    """Write a store's files and manifest into a folder that is not yet under its final name.

    Args:
        folder: it holds the frames already, where there are any.
        recording: the steps.
        origin: what is known of them.
    """
    writer = _write_records(folder, recording, origin)
    if (offset := writer.narrowing.offsets()) is not None:
        writer = _write_records(folder, recording, origin, offset)
    if recording.frames is not None:
        with create(folder / f"{FRAMES}.npy") as file:
            shape = (len(recording.rewards), *recording.image_shape[1:])
            write_rows(file, np.dtype(np.uint8), shape, recording.frames())
    arrays = {STARTS: recording.episode_starts, ENDS: recording.episode_ends}
    if recording.missions is not None and recording.has_bytes:
        arrays[MISSIONS], places = np.unique(recording.missions, return_inverse=True)
        arrays[MISSION_IDS] = places.astype(np.int32)
    elif recording.missions is not None:  # as earlier versions have it, so that these data stay the same
        arrays[MISSIONS] = recording.missions
    if writer.final_observations is not None:
        final = writer.final_observations
        arrays[FINAL] = final.astype(np.uint8) if recording.has_bytes else final
    for name, array in arrays.items():
        with create(folder / f"{name}.npy") as file:
            np.save(file, array)
    spec = make_spec(
        origin,
        recording,
        state_mean=writer.moments.mean,
        state_std=writer.moments.std,
        state_offset=writer.offset,
        returns_to_go=writer.returns_to_go,
        action_range=writer.action_range,
        num_actions=_count_actions(origin, recording, writer.action_range),
    )
    said = (*origin.notes, *recording.notes)
    notes = (*said, *writer.contradictions.notes(), *beyond_bounds(spec, writer.action_range))
    _write_manifest(folder, spec, notes, origin.provenance)


def copy_store(dataset: TrajectoryDataset, folder: Path) -> None:
    """Copy the store of a whole data set, with the description that the data set has by now."""
    with atomic_folder(folder) as temporary:
        for path in sorted(dataset.folder.glob("*.npy")):
            with open_regular(path, inside=dataset.folder) as source, create(temporary / path.name) as file:
                shutil.copyfileobj(source, file, 1 << 22)
        _write_manifest(temporary, dataset.spec, dataset.notes, dataset.provenance)


def _write_manifest(
    folder: Path, spec: DatasetSpec, notes: Sequence[str], provenance: Mapping[str, Any]
) -> None:
    files = {
        path.stem: {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
        for path in sorted(folder.glob("*.npy"))
    }
    manifest = {
        "schema": SCHEMA,
        "files": files,
        "content_hash": _content_hash(files),
        "spec": to_json(spec),
        "notes": list(notes),
        "provenance": dict(provenance),
    }
    manifest["manifest_sha256"] = _manifest_hash(manifest)
    write_atomic(folder / MANIFEST, json.dumps(manifest, indent=1))


def open_store(folder: Path, verify: Literal["size", "hash"] = "size") -> TrajectoryDataset:
    """Open a store read-only.

    Args:
        folder: as `write_store` gave it.
        verify: `size` checks the manifest, every file's size and shape and the order of episodes; `hash`
            reads the files and checks every byte as well (once for an unchanged file in one process).

    Raises:
        InputError: if the folder is not a store.
    """
    manifest = _read_manifest(folder)
    try:
        spec = _named(from_json(DatasetSpec, manifest["spec"], "spec"), manifest["provenance"])
        files: dict[str, dict[str, Any]] = manifest["files"]
        if _content_hash(files) != manifest["content_hash"]:
            raise InputError("content_hash is not that of its files")
        arrays = {name: _open_array(folder, name, files[name], verify) for name in (RECORDS, STARTS, ENDS)}
        for name in (FINAL, FRAMES, MISSIONS, MISSION_IDS, OBSERVATIONS):
            arrays[name] = _open_array(folder, name, files[name], verify) if name in files else None
        _unpack(arrays, spec)
        dataset = TrajectoryDataset(
            spec=spec,
            folder=folder,
            content_hash=manifest["content_hash"],
            records=arrays[RECORDS],
            episode_starts=np.array(arrays[STARTS]),
            episode_ends=np.array(arrays[ENDS]),
            final_observations=arrays[FINAL],
            frames=arrays[FRAMES],
            missions=arrays[MISSIONS],
            notes=_read_notes(manifest["notes"]),
            provenance=manifest["provenance"],
        )
    except (InputError, KeyError, TypeError) as error:
        raise DamagedFileError(f"{folder / MANIFEST}: not a valid manifest ({error}); {_REMEDY}") from error
    _check_layout(dataset)
    if spec.return_scale is None:  # a store of an earlier version
        scale, line = default_return_units(spec.env_id, dataset.returns_to_go, dataset.episode_starts)
        dataset = replace(dataset, spec=replace(spec, return_scale=scale, return_baseline=line))
    return dataset


def _named(spec: DatasetSpec, provenance: Mapping[str, Any]) -> DatasetSpec:
    """A description with the names that the source has for its columns."""
    observations, actions = (
        tuple(one_line(name)[:_LONGEST_NAME] for name in provenance.get(NAMES, {}).get(what, ()))
        for what in ("observations", "actions")
    )
    return replace(spec, observation_names=observations, action_names=actions)


def _unpack(arrays: dict[str, Any], spec: DatasetSpec) -> None:
    """Put bytes into the records, and a text beside each episode.

    Raises:
        InputError: if their shapes do not fit together.
    """
    records, seen, ids = arrays[RECORDS], arrays[OBSERVATIONS], arrays[MISSION_IDS]
    if seen is not None:
        if seen.dtype != np.uint8 or seen.shape != (len(records), spec.state_dim) or records.ndim != 2:
            raise InputError(f"{OBSERVATIONS} are {seen.dtype} {seen.shape}")
        check_fits(4 * seen.size, f"{spec.name}, which is kept as bytes,", "take fewer episodes")
        arrays[RECORDS] = np.concatenate([records[:, :1], seen.astype(np.float32), records[:, 1:]], axis=1)
        if arrays[FINAL] is not None:
            arrays[FINAL] = arrays[FINAL].astype(np.float32)
    if ids is not None:
        table = arrays[MISSIONS]
        if table is None or table.ndim != 1 or ids.ndim != 1 or ids.dtype != np.int32:
            raise InputError(f"{MISSION_IDS} name no texts")
        if ids.size and not 0 <= ids.min() <= ids.max() < len(table):
            raise InputError(f"{MISSION_IDS} name text {ids.max()} of {len(table)}")
        arrays[MISSIONS] = table[ids]


def _read_notes(notes: Any) -> tuple[str, ...]:
    if not (isinstance(notes, list) and all(isinstance(note, str) for note in notes)):
        raise InputError("notes are no list of sentences")
    return tuple(notes)


def _write_records(
    folder: Path, recording: Recording, origin: Origin, offset: np.ndarray | None = None
) -> _RecordWriter:
    writer = _RecordWriter(recording, origin, offset)
    remove(folder / f"{RECORDS}.npy")
    with create(folder / f"{RECORDS}.npy") as file:
        writer.write(file)
    if recording.has_bytes:
        _write_bytes(folder, recording)
    return writer


def _write_bytes(folder: Path, recording: Recording) -> None:
    with create(folder / f"{OBSERVATIONS}.npy") as file:
        shape = (len(recording.rewards), recording.state_dim)
        rows = (np.ascontiguousarray(block.observations) for block in recording.blocks())
        write_rows(file, np.dtype(np.uint8), shape, rows)


class _RecordWriter:
    """Writes the rows of a recording, and gathers on the way what needs every one of them."""

    def __init__(self, recording: Recording, origin: Origin, offset: np.ndarray | None) -> None:
        self.offset = offset
        self.narrowing = Narrowing(recording.state_dim)
        self._recording = recording
        self._name = origin.name
        self._num_actions = (origin.num_actions or MAX_ACTIONS) if recording.is_discrete else None
        starts = recording.episode_starts
        self._check_finite(recording.rewards[:, None], 0, "rewards")
        self.returns_to_go = returns_to_go(recording.rewards, starts)
        self._check_finite(self.returns_to_go[:, None], 0, "the sum of rewards")
        self.moments = RunningMoments(recording.state_dim)
        self.contradictions = Contradictions()
        num_columns = recording.num_action_columns
        self.action_range = np.full(num_columns, np.inf), np.full(num_columns, -np.inf)
        self.final_observations: np.ndarray | None = None
        if recording.has_next_observations:
            self.final_observations = np.empty(
                (len(starts) - 1, recording.state_dim), np.float32 if offset is None else np.float64
            )

    def write(self, file: IO[bytes]) -> None:
        """Write all rows as one .npy array."""
        recording = self._recording
        num_steps = int(recording.episode_starts[-1])
        width = 2 + recording.state_dim + recording.num_action_columns
        kept = np.ones(width, bool)
        if recording.has_bytes:
            kept[1 : 1 + recording.state_dim] = False
        rows = (rows[:, kept] for rows in self._rows(width)) if recording.has_bytes else self._rows(width)
        write_rows(file, np.dtype(np.float32), (num_steps, int(kept.sum())), rows)

    def _rows(self, width: int) -> Iterator[np.ndarray]:
        recording = self._recording
        row = 0
        for block in recording.blocks():
            rows = np.empty((len(block.observations), width), np.float32)
            with np.errstate(over="ignore"):  # too large for float32 becomes infinite, which is refused below
                self._fill(rows, block, row)
            yield rows
            row += len(rows)

    def _fill(self, rows: np.ndarray, block: Block, first: int) -> None:
        last = first + len(rows)
        state_dim = self._recording.state_dim
        rows[:, 0] = self.returns_to_go[first:last]
        seen = block.observations
        rows[:, 1 : 1 + state_dim] = seen if self.offset is None else seen - self.offset
        rows[:, 1 + state_dim : -1] = block.actions
        rows[:, -1] = self._recording.rewards[first:last]
        self._check_finite(rows[:, 1 : 1 + state_dim], first, "observations")
        self._check_finite(rows[:, 1 + state_dim : -1], first, "actions")
        self._check_finite(rows[:, -1:], first, "rewards")
        if self._num_actions is not None:
            self._check_actions(block.actions[:, 0], first, self._num_actions)
        self.moments.add(rows[:, 1 : 1 + state_dim])
        self.narrowing.add(seen, rows[:, 1 : 1 + state_dim])
        low, high = self.action_range
        np.minimum(low, block.actions.min(axis=0), out=low)
        np.maximum(high, block.actions.max(axis=0), out=high)
        if block.next_observations is not None and self.final_observations is not None:
            starts = self._recording.episode_starts
            goes_on = ~np.isin(np.arange(first, last), starts, assume_unique=True)
            self.contradictions.add(seen, block.next_observations, goes_on)
            episodes = slice(*np.searchsorted(starts[1:] - 1, [first, last]).tolist())
            final = block.next_observations[starts[1:][episodes] - 1 - first]
            final = final.astype(self.final_observations.dtype)
            if not np.isfinite(final).all():
                row = int(starts[1:][episodes][~np.isfinite(final).all(axis=1)][0]) - 1
                raise InputError(
                    f"{self._name}: the observation after {self._place(row)} is not finite; repair it, leave "
                    "next_observations out, or leave that episode out"
                )
            self.final_observations[episodes] = final

    def _check_finite(self, values: np.ndarray, first: int, column: str) -> None:
        is_finite = np.abs(values) <= MOST  # and neither NaN
        if is_finite.all():
            return
        row, dimension = np.argwhere(~is_finite)[0].tolist()
        where = f", column {dimension}" if values.shape[1] > 1 else ""
        raise InputError(
            f"{self._name}: {column}{where} of {self._place(first + row)} is {values[row, dimension]}; "
            "expected finite numbers below 1.7e38; repair the data, give them in other "
            "units, or leave that episode out"
        )

    def _check_actions(self, actions: np.ndarray, first: int, num_actions: int) -> None:
        wrong = np.flatnonzero((actions < 0) | (actions >= num_actions))
        if len(wrong):
            raise InputError(
                f"{self._name}: the action of {self._place(first + int(wrong[0]))} is {actions[wrong[0]]}, "
                f"expected 0 to {num_actions - 1}; renumber actions, or say --continuous-actions (give "
                "floats) where they are a quantity"
            )

    def _place(self, row: int) -> str:
        episode = int(np.searchsorted(self._recording.episode_starts, row, side="right")) - 1
        return f"row {row} (episode {episode}, step {row - int(self._recording.episode_starts[episode])})"


def _count_actions(
    origin: Origin, recording: Recording, action_range: tuple[np.ndarray, np.ndarray]
) -> int | None:
    if not recording.is_discrete:
        return None
    count = origin.num_actions or int(action_range[1][0]) + 1
    if count > MAX_ACTIONS:
        raise InputError(f"{origin.name}: declares {count:,} actions, expected at most {MAX_ACTIONS:,}")
    return count


def _read_manifest(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    path = folder / MANIFEST
    manifest = read_json(path, inside=folder)
    if not isinstance(manifest, dict) or "schema" not in manifest:
        raise InputError(f"{path}: not the manifest of a store")
    if manifest["schema"] != SCHEMA:
        raise DamagedFileError(
            f"{path}: written in form {manifest['schema']}, this version reads {SCHEMA}; {_REMEDY}"
        )
    if manifest.get("manifest_sha256") != _manifest_hash(manifest):
        raise DamagedFileError(f"{path}: changed since it was written; {_REMEDY}")
    return manifest


def _open_array(folder: Path, name: str, expected: Mapping[str, Any], verify: str) -> Any:
    path = folder / f"{name}.npy"
    check_regular(path, inside=folder, kind=DamagedFileError, remedy=_REMEDY)
    status = path.stat()
    if status.st_size != expected["bytes"]:
        raise DamagedFileError(f"{path}: {status.st_size} bytes, expected {expected['bytes']}; {_REMEDY}")
    if verify == "hash" and _file_hash(path, file_state(status)) != expected["sha256"]:
        raise DamagedFileError(f"{path}: content differs from its SHA-256; {_REMEDY}")
    return map_array(path, inside=folder)


def _check_layout(dataset: TrajectoryDataset) -> None:
    """Check all that indexing relies on."""
    spec, starts = dataset.spec, dataset.episode_starts
    num_episodes = len(starts) - 1
    width = 2 + spec.num_state_columns + (1 if dataset.is_discrete else spec.act_dim)
    expected = {
        RECORDS: (dataset.records, (len(dataset.records), width), np.float32),
        STARTS: (starts, (num_episodes + 1,), np.int64),
        ENDS: (dataset.episode_ends, (num_episodes, 2), np.bool_),
    }
    if dataset.final_observations is not None:
        expected[FINAL] = (
            dataset.final_observations,
            (num_episodes, spec.state_dim),
            spec.observation_dtype,
        )
    if dataset.frames is not None or spec.image_shape:
        frames = np.empty(0) if dataset.frames is None else dataset.frames
        expected[FRAMES] = (frames, (len(dataset.records), *spec.image_shape[1:]), np.uint8)
    if dataset.missions is not None:
        kind: Any = dataset.missions.dtype if dataset.missions.dtype.kind == "U" else np.str_
        expected[MISSIONS] = (dataset.missions, (num_episodes,), kind)
    for name, (array, shape, dtype) in expected.items():
        if array.shape != shape or array.dtype != dtype:
            found, wanted = f"{array.dtype} {array.shape}", f"{np.dtype(dtype)} {shape}"
            raise DamagedFileError(f"{dataset.folder / name}.npy: {found}, expected {wanted}; {_REMEDY}")
    in_order = num_episodes > 0 and starts[0] == 0 and starts[-1] == len(dataset.records)
    if not in_order or (np.diff(starts) <= 0).any() or len(spec.state_mean) != spec.num_state_columns:
        raise DamagedFileError(f"{dataset.folder / STARTS}.npy: episodes are not in order; {_REMEDY}")


def _content_hash(files: Mapping[str, Mapping[str, Any]]) -> str:
    return hashlib.sha256(
        json.dumps({name: files[name]["sha256"] for name in sorted(files)}).encode()
    ).hexdigest()


def _manifest_hash(manifest: Mapping[str, Any]) -> str:
    content = {key: value for key, value in manifest.items() if key != "manifest_sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@functools.lru_cache(maxsize=256)
def _file_hash(path: Path, state: tuple[int, ...]) -> str:
    """Hash a file once for each of its states."""
    return sha256_file(path)

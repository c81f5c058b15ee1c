"""D4RL's locomotion data, version 2 (Fu et al., 2020): flat HDF5 files, by id or by path."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from chibit.core.errors import InputError
from chibit.data.fetch import download
from chibit.data.readers.columns import find_columns, join
from chibit.data.readers.hdf5 import check_budget, open_hdf5
from chibit.data.readers.origin import Origin, file_name
from chibit.data.readers.recording import Recording, record_columns
from chibit.data.readers.sandbox import ApartFormat
from chibit.environments.registry import D4RL_IDS, D4RL_LEVELS, ENVIRONMENTS, Environment

URL = "http://rail.eecs.berkeley.edu/datasets/offline_rl/gym_mujoco_v2"
IDS = tuple(f"{env}-{level}-v2" for env in D4RL_IDS for level in D4RL_LEVELS)
TIME_LIMIT = 1000
"""Steps after which all four environments cut an episode."""


def find_id(name: str) -> str | None:
    """Find the id that a name means: `hopper-medium-replay-v2`, or the file's `hopper_medium_replay-v2`."""
    candidate = name.replace("_", "-")
    return candidate if candidate in IDS else None


def find_file(dataset_id: str, folder: Path) -> Path | None:
    """Find the file of a data set in `folder`, or in D4RL's own: $D4RL_DATASET_DIR, else ~/.d4rl/datasets."""
    own = os.environ.get("D4RL_DATASET_DIR")
    places = (folder, Path(own) if own else Path.home() / ".d4rl" / "datasets")
    candidates = (place / name for place in places for name in _file_names(dataset_id))
    return next((path for path in candidates if path.is_file()), None)


def find_or_download(
    dataset_id: str, folder: Path, *, allow_download: bool, progress: bool, url: str = URL
) -> Path:
    """Find the file of a data set, or fetch it from its public location.

    Args:
        dataset_id: one of `IDS`.
        folder: where files are kept, and downloaded to.
        allow_download: whether the network may be used.
        progress: show a bar.
        url: where the files are.

    Raises:
        InputError: if it is not here and may not be downloaded.
    """
    found = find_file(dataset_id, folder)
    if found is not None:
        return found
    file_name = _file_names(dataset_id)[0]
    if not allow_download:
        raise InputError(f"{dataset_id}: not in {folder}; put {url}/{file_name} there")
    return download(f"{url}/{file_name}", folder / file_name, progress=progress)


class D4rl(ApartFormat, key="d4rl"):
    """D4RL's HDF5 files."""

    suffixes = (".hdf5", ".h5")
    expected = ".hdf5 or .h5 (D4RL's layout)"

    def claim(self, path: Path) -> Path | None:
        """Any but Minari's, which have a name of their own."""
        return None if path.name == "main_data.hdf5" else super().claim(path)

    def read_here(self, path: Path) -> AbstractContextManager[tuple[Recording, Origin]]:
        """As `read_d4rl`."""
        return read_d4rl(path)


@contextlib.contextmanager
def read_d4rl(path: Path) -> Iterator[tuple[Recording, Origin]]:
    """Read a file in D4RL's layout; its name says which data set it is.

    Raises:
        InputError: if columns are missing or do not fit together.
    """
    dataset_id = find_id(path.stem)
    with open_hdf5(path) as file:
        found = {
            ours: [file.column(name) for name in theirs]
            for ours, theirs in find_columns(file.names(), str(path)).items()
        }
        check_budget(path, [column for parts in found.values() for column in parts])
        columns = {ours: join(parts, f"{path}: {ours}") for ours, parts in found.items()}
        recording = record_columns(
            columns,
            where=str(path),
            time_limit=TIME_LIMIT if dataset_id else None,
            num_state_columns=state_columns(dataset_id),
        )
        yield recording, make_origin(path, dataset_id, columns["observations"].shape[-1], kind="d4rl")


def state_columns(dataset_id: str | None) -> int | None:
    """How many observation columns to keep; None for all."""
    return _environment(dataset_id).num_state_columns if dataset_id else None


def make_origin(path: Path, dataset_id: str | None, num_columns: int, *, kind: str) -> Origin:
    """Say what a D4RL id tells of a file.

    Args:
        path: the file.
        dataset_id: one of `IDS`, or None: then the file's name is all that is known.
        num_columns: width of its observations.
        kind: of the source, for the provenance.
    """
    provenance = {"kind": kind, "path": str(path.absolute())}
    if dataset_id is None:
        note = f"{path.stem!r} is no D4RL id, and the file names no environment"
        return Origin(name=file_name(path), notes=(note,), provenance=provenance)
    kept = state_columns(dataset_id)
    notes: tuple[str, ...] = ()
    if kept is not None and num_columns > kept:
        notes = (f"kept the first {kept} of {num_columns} observations: Ant-v4 shows no contact forces",)
    env_id = _environment(dataset_id).d4rl_id
    return Origin(name=dataset_id, env_id=env_id, d4rl_physics=True, notes=notes, provenance=provenance)


def _environment(dataset_id: str) -> Environment:
    return ENVIRONMENTS[D4RL_IDS[dataset_id.partition("-")[0]]]


def _file_names(dataset_id: str) -> tuple[str, str]:
    """Give the names that a data set's file may have: D4RL's own first."""
    return dataset_id.removesuffix("-v2").replace("-", "_") + "-v2.hdf5", f"{dataset_id}.hdf5"

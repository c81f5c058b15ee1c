"""Write a Minari data set, whole or not at all.

Minari's own storage makes the folder and its metadata. The episodes are written here, in its HDF5 layout
but as contiguous arrays: Minari's growable ones cost 16 KB an episode beside the data, which is 700 MB
for a million steps of a policy that falls after twenty.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import numpy as np
from minari import __version__ as minari_version
from minari.dataset.minari_storage import MinariStorage

from chibit.core.files import atomic_folder, user_path, write_atomic
from chibit.core.temporary import sweep_unlocked
from chibit.data.collect.behavior.rollout import Episode
from chibit.data.spec import ObservationPart
from chibit.environments.registry import ENVIRONMENTS

_FILES = ("main_data.hdf5", "metadata.json")


def minari_root(out: Path | None = None) -> Path:
    """Return the folder of Minari data sets: `out`, else $MINARI_DATASETS_PATH, else `~/.minari/datasets`."""
    if out is not None:
        return out
    return user_path(os.environ.get("MINARI_DATASETS_PATH") or "~/.minari/datasets")


def write_minari(
    root: Path,
    dataset_id: str,
    env: gym.Env,
    episodes: Iterable[Episode],
    metadata: Callable[[], dict[str, Any]],
) -> Path:
    """Write episodes as they come, then the metadata, then give the folder its name.

    Args:
        root: Folder of Minari data sets.
        dataset_id: `namespace/name-v0`; the folder below `root`.
        env: Gives the spaces, and the specification from which Minari recovers the environment.
        episodes: Consumed once.
        metadata: Called after the last episode; fields beside those of Minari.

    Returns:
        The folder of the data set.
    """
    assert env.spec is not None
    folder = root / dataset_id
    sweep_unlocked(folder, ("data", *(f"data/{name}" for name in _FILES)))
    # The registered specification: without the switches of how this process built it.
    spec = gym.spec(env.spec.id)
    _write(
        folder,
        (env.observation_space, env.action_space),
        spec,
        episodes,
        lambda: metadata() | {"dataset_id": dataset_id},
    )
    _write_namespaces(root, dataset_id)
    return folder


@dataclass(frozen=True, kw_only=True)
class Spaces:
    """What observations and actions of a data set are, for Minari's metadata."""

    observation_shape: tuple[int, ...]
    is_picture: bool
    num_actions: int | None
    action_bounds: tuple[Sequence[float], Sequence[float]]
    missions: np.ndarray | None
    """Texts of what episodes are for; None for none."""
    parts: Sequence[ObservationPart] = ()
    """Parts of a dictionary, of bytes, that observations were; empty for vectors and pictures."""

    def spaces(self) -> tuple[gym.Space[Any], gym.Space[Any]]:
        """Gymnasium's spaces; texts are a part `mission` beside `observation`."""
        seen: gym.Space[Any]
        if self.is_picture:
            seen = gym.spaces.Box(0, 255, self.observation_shape, np.uint8)
        else:
            seen = gym.spaces.Box(-np.inf, np.inf, self.observation_shape, np.float64)
        if self.missions is not None:
            length = max(1, max(map(len, self.missions)))
            letters = frozenset("".join(self.missions)) or frozenset(" ")
            text = gym.spaces.Text(length, min_length=0, charset=letters)
            rest = {part.path[0]: _space(part) for part in self.parts} or {"observation": seen}
            seen = gym.spaces.Dict({"mission": text, **rest})
        if self.num_actions is not None:
            return seen, gym.spaces.Discrete(self.num_actions)
        low, high = (np.array(bound, np.float64) for bound in self.action_bounds)
        return seen, gym.spaces.Box(low, high, dtype=np.float64)


def _space(part: ObservationPart) -> gym.Space[Any]:
    if part.counts:
        return gym.spaces.Discrete(part.counts[0], start=part.starts[0])
    return gym.spaces.Box(0, 255, part.shape, np.uint8)


def split_parts(observations: np.ndarray, parts: Sequence[ObservationPart]) -> dict[str, np.ndarray]:
    """Vectors (T, S) as the dictionaries of bytes and whole numbers that they were."""
    found, first = {}, 0
    for part in parts:
        columns = observations[:, first : first + part.width]
        if part.counts:
            found[part.path[0]] = columns.argmax(axis=1) + part.starts[0]
        else:
            found[part.path[0]] = columns.reshape(-1, *part.shape).astype(np.uint8)
        first += part.width
    return found


def write_folder(
    folder: Path,
    spaces: Spaces,
    env_id: str | None,
    episodes: Iterable[Episode],
    metadata: Callable[[], dict[str, Any]],
) -> Path:
    """Write episodes as a Minari data set of any kind; arguments otherwise as of `write_minari`.

    Args:
        folder: of the data set; it must not be there.
        spaces: of observations and actions.
        env_id: the environment of evaluation; None for none, as it is where Gymnasium cannot describe it.
        episodes: Consumed once.
        metadata: Called after the last episode.

    Returns:
        `folder`.
    """
    spec = None
    with contextlib.suppress(gym.error.Error, ValueError, TypeError):
        if env_id and env_id in ENVIRONMENTS:
            ENVIRONMENTS[env_id].make_known()
        spec = gym.spec(env_id) if env_id else None
        if spec is not None:
            spec.to_json()  # not where it is made by a function of the user's
    _write(folder, spaces.spaces(), spec, episodes, metadata)
    return folder


def _write(
    folder: Path,
    spaces: tuple[gym.Space[Any], gym.Space[Any]],
    spec: Any,
    episodes: Iterable[Episode],
    metadata: Callable[[], dict[str, Any]],
) -> None:
    with atomic_folder(folder) as temporary:
        data = temporary.absolute() / "data"  # Minari cannot measure the size of a relative folder
        storage = MinariStorage.new(data, *spaces, spec, jpeg_encoding=False)
        counts = _write_episodes(data / "main_data.hdf5", episodes)
        own = {
            "minari_version": minari_version,
            "num_episodes_average_score": 100,
            "dataset_size": storage.get_size(),
        }
        if spec is not None:
            own["eval_env_spec"] = spec.to_json()
        storage.update_metadata(metadata() | counts | own)


class _LatchedFile(io.FileIO):
    """A file that keeps its first error for `check` and drops what is written after it.

    HDF5 writes late, at closing too, where it cannot report a full disk but by tracebacks on standard error.
    """

    error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write all of `data`, or keep the error."""
        view = memoryview(data).cast("B")
        done = 0
        try:
            while self.error is None and done < len(view):
                done += super().write(view[done:])
        except OSError as error:
            self.error = error
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        """Set the size, or keep the error."""
        try:
            return super().truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size or 0

    def check(self) -> None:
        """Raise the error that was kept."""
        if self.error is not None:
            raise self.error


def _write_episodes(path: Path, episodes: Iterable[Episode]) -> dict[str, int]:
    """Write the groups `episode_0`, `episode_1` and so on; return Minari's two counts."""
    steps = count = 0
    with (
        _LatchedFile(path, "w+") as sink,
        h5py.File(sink, "w", track_order=True, libver="latest") as file,
    ):
        for episode in episodes:
            sink.check()
            length = len(episode.rewards)
            ends = np.zeros((2, length), bool)
            ends[:, -1] = episode.terminated, episode.truncated
            group = file.create_group(f"episode_{count}")
            group.attrs["id"] = count
            if episode.reset_seed is not None:
                group.attrs["seed"] = episode.reset_seed
            group.attrs["total_steps"] = length
            _write_observations(group, episode.observations)
            group.create_dataset("actions", data=episode.actions)
            group.create_dataset("rewards", data=episode.rewards)
            group.create_dataset("terminations", data=ends[0])
            group.create_dataset("truncations", data=ends[1])
            steps, count = steps + length, count + 1
        file.close()
        sink.check()
    return {"total_steps": steps, "total_episodes": count}


def _write_observations(group: h5py.Group, observations: Any) -> None:
    if not isinstance(observations, dict):
        group.create_dataset("observations", data=observations)
        return
    for name, part in observations.items():
        kind = h5py.string_dtype() if isinstance(part, list) else None
        group.create_dataset(f"observations/{name}", data=part, dtype=kind)


def _write_namespaces(root: Path, dataset_id: str) -> None:
    """Mark the folders above a data set as namespaces, as Minari's own writer does."""
    parts = dataset_id.split("/")[:-1]
    for depth in range(1, len(parts) + 1):
        path = root.joinpath(*parts[:depth], "namespace_metadata.json")
        if not path.exists():
            write_atomic(path, "{}")

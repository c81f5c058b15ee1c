"""From a name or a path to the files it means and the reader that knows them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from chibit.core.errors import InputError
from chibit.core.files import check_name, nearest
from chibit.core.home import home_folder as home_folder
from chibit.core.temporary import remove
from chibit.data.readers.origin import Origin
from chibit.data.readers.recording import Recording
from chibit.data.store import MANIFEST
from chibit.environments.atari import GAMES

Reader = Callable[[Path], AbstractContextManager[tuple[Recording, Origin]]]

SUFFIXES = (".hdf5", ".h5", ".pkl", ".pickle", ".npz")
_FORMATS = ".hdf5 or .h5 (D4RL's layout), .pkl (list of trajectories), .npz, a Minari folder or a store"
_OWN_NAME = re.compile(r"(chibit/\w+/|\w+-)(random|expert|medium(-replay|-expert)?)(-v0)?")
_ATARI_NAME = re.compile(rf"({'|'.join(GAMES).lower()})-(random|expert|medium(-replay|-expert)?)")
_REPLAY_NAME = re.compile(rf"({'|'.join(GAMES)})(?:-(\d+(?:\.\d+)?)pct)?")
_REMOTE_MINARI_ID = re.compile(r".+/.+-v\d+")
_MAX_DEPTH = 4  # of namespaces above a Minari data set


@dataclass(frozen=True)
class Source:
    """A data set in a form that some reader knows."""

    path: Path
    """A file or folder."""
    reader: Reader | None
    """Opens it; None where it is a store already."""


def find_source(
    name_or_path: str | Path, data_folder: Path | None, home: Path, download: bool, progress: bool
) -> Source:
    """Find out what is meant, and fetch or collect it if it is not here.

    Arguments are those of `load_dataset`. A known name goes before a path of the same spelling.

    Raises:
        InputError: for an unknown name, a missing file, or one of an unknown kind.
        ResourceError: if it is not here and cannot be fetched.
    """
    if isinstance(name_or_path, str):
        from chibit.data.readers import d4rl, sandbox

        if name_or_path in d4rl.IDS:
            folder = data_folder or home / "d4rl"
            path = d4rl.find_or_download(name_or_path, folder, allow_download=download, progress=progress)
            return Source(path, sandbox.read_d4rl_apart)
        found = (
            _find_atari(name_or_path, home)
            or _find_replay(name_or_path, data_folder, home, download, progress)
            or _find_own(name_or_path, data_folder, download, progress)
        )
        if found is not None:
            return found
    path = Path(os.path.expanduser(name_or_path))
    shown = repr(str(name_or_path)[:300])
    try:
        exists = bool(str(name_or_path).strip()) and path.exists()
    except OSError as error:
        raise InputError(f"{shown}: cannot read ({error.strerror})") from error
    if exists:
        return _by_path(path)
    if isinstance(name_or_path, Path) or path.suffix in SUFFIXES or name_or_path.startswith((".", "/", "~")):
        raise InputError(f"{shown}: no such file or folder")
    return _find_minari(name_or_path, data_folder, download, progress)


def check_known(name: str) -> None:
    """Refuse what `find_source` would not find, without fetching or collecting anything.

    Raises:
        InputError: for a name that is neither known nor on a server's pattern, and no file or folder.
    """
    from chibit.data.collect.mujoco import list_collectable
    from chibit.data.readers import d4rl

    own = {known for entry in list_collectable() for known in (entry.name, entry.dataset_id)}
    patterns = (_ATARI_NAME, _REPLAY_NAME, _REMOTE_MINARI_ID)
    if name not in d4rl.IDS and name not in own and not any(p.fullmatch(name) for p in patterns):
        find_source(name, None, home_folder(), download=False, progress=False)


def _find_atari(name: str, home: Path) -> Source | None:
    """Find Atari data that were collected here; None if the name is none of theirs."""
    if not is_atari_level(name):
        return None
    folder = atari_folder(home) / name
    if not (folder / MANIFEST).is_file():
        raise InputError(f"{name}: not here yet; chibit data collect {name} --policy FILE makes it")
    return Source(folder, None)


def _find_replay(
    name: str, data_folder: Path | None, home: Path, download: bool, progress: bool
) -> Source | None:
    """Find a sample of a game's DQN-replay data, and fetch and convert it if need be."""
    match = _REPLAY_NAME.fullmatch(name)
    if match is None:
        return None
    from chibit.data.readers import dqn_replay

    folder, place = atari_folder(home) / name, data_folder or home / "dqn_replay"
    is_kept = (folder / MANIFEST).is_file()
    if is_kept and not dqn_replay.is_of_shards(folder, dqn_replay.shards_folder(match[1], place)):
        remove(folder)  # it is only a copy
        is_kept = False
    if not is_kept:
        shards = dqn_replay.find_or_download(match[1], place, allow_download=download, progress=progress)
        num_steps = round(float(match[2] or 1) / 100 * dqn_replay.TOTAL_STEPS)
        dqn_replay.convert_replay(shards, match[1], folder, num_steps=num_steps, progress=progress)
    return Source(folder, None)


def is_atari_level(name: str) -> bool:
    """Whether a name is that of Atari data that can be collected: breakout-expert."""
    return _ATARI_NAME.fullmatch(name) is not None


def atari_folder(cache: Path | None = None) -> Path:
    """Folder of Atari data that were collected here, in a cache; None is the usual one."""
    return home_folder(cache) / "atari"


def _find_own(name: str, data_folder: Path | None, download: bool, progress: bool) -> Source | None:
    """Find one of our own levels, and collect it if need be; None if the name is none."""
    if not _OWN_NAME.fullmatch(name):
        return None
    from chibit.data.collect.mujoco import collect, list_collectable

    entry = next((e for e in list_collectable() if name in (e.name, e.dataset_id)), None)
    if entry is None:
        return None
    folder = _minari_folder(entry.dataset_id, data_folder)
    if folder is None:
        if not download:
            raise InputError(f"{name}: not here yet; chibit data collect {name} makes it")
        # In this process: workers would run the caller's script anew where it has no main guard.
        folder = collect(entry.dataset_id, progress=progress)
    return _by_path(folder)


def _find_minari(name: str, data_folder: Path | None, download: bool, progress: bool) -> Source:
    check_name(name, "data set")
    folder = _minari_folder(name, data_folder)
    if folder is None:
        hint = nearest(name, _known_names(data_folder))
        is_own = name.startswith("chibit/")
        if is_own or not download or not _REMOTE_MINARI_ID.fullmatch(name):
            raise InputError(f"unknown data set {name!r}{hint}")
        from chibit.data.collect.minari_writer import minari_root
        from chibit.data.readers.minari_download import download_minari

        folder = download_minari(name, minari_root(), hint=hint, progress=progress)
    return _by_path(folder)


def _minari_folder(dataset_id: str, data_folder: Path | None) -> Path | None:
    from chibit.data.collect.minari_writer import minari_root

    places = [minari_root()] if data_folder is None else [data_folder, minari_root()]
    return next((place / dataset_id for place in places if (place / dataset_id).is_dir()), None)


def _by_path(path: Path) -> Source:
    if (path / MANIFEST).is_file():
        return Source(path, None)
    from chibit.data.readers import minari, npz, pickles, sandbox

    if path.is_dir():
        folder = minari.find_data_folder(path)
        if folder is None and any(path.glob("$store$_*_ckpt.*.gz")):
            raise InputError(f"{path}: shards of DQN-replay; chibit data convert makes a store of them")
        if folder is None:
            raise InputError(
                f"{path}: neither a Minari data set (data/metadata.json) nor a store ({MANIFEST})"
            )
        return Source(folder, sandbox.read_minari_apart)
    if path.name == "main_data.hdf5":
        return _by_path(path.absolute().parent)
    readers: dict[str, Reader] = {
        ".hdf5": sandbox.read_d4rl_apart,
        ".h5": sandbox.read_d4rl_apart,
        ".pkl": pickles.read_trajectory_list,
        ".pickle": pickles.read_trajectory_list,
        ".npz": npz.read_npz,
    }
    if path.suffix not in readers:
        raise InputError(f"{path}: unknown kind of file; expected {_FORMATS}")
    return Source(path, readers[path.suffix])


def _known_names(data_folder: Path | None) -> list[str]:
    from chibit.data.collect.mujoco import LEVELS, list_collectable
    from chibit.data.readers.d4rl import IDS

    own = [name for entry in list_collectable() for name in (entry.name, entry.dataset_id)]
    atari = [*GAMES, *(f"{game.lower()}-{level}" for game in GAMES for level in LEVELS)]
    return [*IDS, *own, *atari, *local_minari_ids(data_folder)]


def local_minari_ids(data_folder: Path | None) -> list[str]:
    """List the Minari data sets in `data_folder` and in Minari's own folder."""
    from chibit.data.collect.minari_writer import minari_root

    roots = [minari_root()] if data_folder is None else [data_folder, minari_root()]
    found = set()
    for root in roots:
        for depth in range(1, _MAX_DEPTH + 1):
            for path in root.glob("*/" * depth + "data/metadata.json"):
                found.add(path.parent.parent.relative_to(root).as_posix())
    return sorted(name for name in found if not name.startswith("."))

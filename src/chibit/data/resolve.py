"""From a name or a path to the files it means and the format that they have."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from chibit.core.errors import InputError
from chibit.core.files import check_name, nearest, user_path
from chibit.core.home import home_folder as home_folder
from chibit.core.plugins import OWN_MODULES
from chibit.core.temporary import remove
from chibit.data.readers.base import FORMATS, Format, reading_with, suffix_of
from chibit.data.readers.columns import refuse_part
from chibit.data.store import MANIFEST
from chibit.environments.d4rl import D4RL_SETS
from chibit.environments.data_names import DataName, Source, read_name
from chibit.environments.registry import GAMES, LANGUAGE_TASKS, LEVELS, TASKS

_REMOTE_MINARI_ID = re.compile(r".+/.+-v\d+")
_MAX_DEPTH = 4  # of namespaces above a Minari data set


@dataclass(frozen=True)
class Found:
    """A data set that is here."""

    path: Path
    """A file or folder."""
    format: Format | None
    """What reads it; None where it is a store already."""
    given: Path
    """The file or folder that was named, beside which the user may have said more of it."""
    part: str = ""
    """Name of the part that is wanted; empty for all."""


@dataclass(frozen=True)
class Places:
    """Where data are looked for, and whether more may be fetched; the arguments of `load_dataset`."""

    data_folder: Path | None
    home: Path
    download: bool
    progress: bool

    @property
    def minari(self) -> list[Path]:
        """Folders of Minari data sets."""
        from chibit.data.collect.minari_writer import minari_root

        return [minari_root()] if self.data_folder is None else [self.data_folder, minari_root()]


def find_source(name_or_path: str | Path, places: Places) -> Found:
    """Find out what is meant, and fetch or collect it if it is not here.

    A known name goes before a path of the same spelling.
    """
    known = read_name(name_or_path) if isinstance(name_or_path, str) else None
    if known is not None and known.source in _FINDERS:
        found = _FINDERS[known.source](str(name_or_path), known, places)
        if found is not None:
            return _by_path(found)
    path = user_path(name_or_path)
    shown = repr(str(name_or_path)[:300])
    if str(name_or_path).strip() and path.exists():
        return _by_path(path)
    whole, _, part = path.name.rpartition(":")
    if whole and path.with_name(whole).exists():
        return _part(_by_path(path.with_name(whole)), part)
    is_path = isinstance(name_or_path, Path) or name_or_path.startswith((".", "/", "~"))
    if is_path or suffix_of(path) in readable_suffixes():
        raise InputError(f"{shown}: no such file or folder")
    return _by_path(_find_minari(str(name_or_path), places))


def check_known(name: str) -> None:
    """Refuse what `find_source` would not find, without fetching or collecting anything.

    Raises:
        InputError: for a name that is neither known nor on a server's pattern, and no file or folder.
    """
    known = read_name(name)
    is_fetched = known is not None and known.source not in ("minari", "chibit", "short")
    if not is_fetched and name not in _own_names() and not _REMOTE_MINARI_ID.fullmatch(name):
        find_source(name, Places(None, home_folder(), download=False, progress=False))


def make_places(
    data_folder: str | Path | None, cache: str | Path | None, download: bool, progress: bool
) -> Places:
    """Where to look: arguments are those of `load_dataset`."""
    return Places(
        None if data_folder is None else user_path(data_folder), home_folder(cache), download, progress
    )


def atari_folder(cache: Path | None = None) -> Path:
    """Folder of Atari data that were collected here, in a cache; None is the usual one."""
    return home_folder(cache) / "atari"


def language_folder(cache: Path | None = None) -> Path:
    """Folder of data with instructions that were collected here, in a cache; None is the usual one."""
    return home_folder(cache) / "language"


def readable_suffixes() -> tuple[str, ...]:
    """Suffixes of the files that some format reads."""
    return tuple(suffix for format in all_formats().values() for suffix in format.suffixes)


def local_minari_ids(data_folder: Path | None) -> list[str]:
    """List the Minari data sets in `data_folder` and in Minari's own folder."""
    found = set()
    for root in Places(data_folder, home_folder(), download=False, progress=False).minari:
        for depth in range(1, _MAX_DEPTH + 1):
            for path in root.glob("*/" * depth + "data/metadata.json"):
                found.add(path.parent.parent.relative_to(root).as_posix())
    return sorted(name for name in found if not name.startswith("."))


def _find_d4rl(name: str, known: DataName, places: Places) -> Path:
    from chibit.data.readers.d4rl import find_or_download

    folder = places.data_folder or places.home / "d4rl"
    return find_or_download(name, folder, allow_download=places.download, progress=places.progress)


def _find_played(name: str, known: DataName, places: Places) -> Path:
    """Find Atari data that were collected here."""
    folder = atari_folder(places.home) / name
    if not (folder / MANIFEST).is_file():
        raise _absent(name, " --policy FILE")
    return folder


def _absent(name: str, more: str = "") -> InputError:
    return InputError(f"{name}: not here yet; chibit data collect {name}{more} makes it")


def _find_replay(name: str, known: DataName, places: Places) -> Path:
    """Find a sample of a game's DQN-replay data, and fetch and convert it if need be."""
    from chibit.data.readers import dqn_replay

    game = known.environment
    folder, place = atari_folder(places.home) / name, places.data_folder or places.home / "dqn_replay"
    is_kept = (folder / MANIFEST).is_file()
    if is_kept and not dqn_replay.is_of_shards(folder, dqn_replay.shards_folder(game, place)):
        remove(folder)  # it is only a copy
        is_kept = False
    if not is_kept:
        shards = dqn_replay.find_or_download(
            game, place, allow_download=places.download, progress=places.progress
        )
        num_steps = round(float(known.level or 1) / 100 * dqn_replay.TOTAL_STEPS)
        dqn_replay.convert_replay(shards, game, folder, num_steps=num_steps, progress=places.progress)
    return folder


def _find_own(name: str, known: DataName, places: Places) -> Path | None:
    """Find one of our own levels, and collect it if need be; None if there is no such level."""
    from chibit.data.collect.mujoco import collect, list_collectable

    entry = next((e for e in list_collectable() if name in (e.name, e.dataset_id)), None)
    if entry is None:
        return None
    # In this process: workers would run the caller's script anew where it has no main guard.
    return _collected(
        name, entry.dataset_id, places, lambda: collect(entry.dataset_id, progress=places.progress)
    )


def _find_scripted(name: str, known: DataName, places: Places) -> Path:
    """Find data of one of our tasks, and collect them if need be."""
    from chibit.data.collect.scripted import collect_scripted, scripted_dataset_id

    dataset_id = scripted_dataset_id(name)
    return _collected(name, dataset_id, places, lambda: collect_scripted(name, progress=places.progress))


def _collected(name: str, dataset_id: str, places: Places, collect: Callable[[], Path]) -> Path:
    folder = _minari_folder(dataset_id, places)
    if folder is None and not places.download:
        raise _absent(name)
    return folder or collect()


def _find_instructed(name: str, known: DataName, places: Places) -> Path:
    """Find data with instructions, and collect them if need be."""
    from chibit.data.collect.language import collect_language

    folder = language_folder(places.home)
    if (folder / name / MANIFEST).is_file():
        return folder / name
    if not places.download:
        raise _absent(name)
    return collect_language(name, out=folder, progress=places.progress)


_FINDERS: Mapping[Source, Callable[[str, DataName, Places], Path | None]] = {
    "d4rl": _find_d4rl,
    "played": _find_played,
    "replay": _find_replay,
    "scripted": _find_scripted,
    "instructed": _find_instructed,
    "short": _find_own,
    "chibit": _find_own,
}
"""What a known name is found by; Minari's are found among all of its ids."""


def _find_minari(name: str, places: Places) -> Path:
    check_name(name, "data set")
    folder = _minari_folder(name, places)
    if folder is None:
        hint = nearest(name, _known_names(places.data_folder))
        is_own = name.startswith("chibit/")
        if is_own or not places.download or not _REMOTE_MINARI_ID.fullmatch(name):
            raise InputError(f"unknown data set {name!r}{hint}")
        from chibit.data.readers.minari_download import download_minari

        folder = download_minari(name, places.minari[-1], hint=hint, progress=places.progress)
    return folder


def _minari_folder(dataset_id: str, places: Places) -> Path | None:
    return next((place / dataset_id for place in places.minari if (place / dataset_id).is_dir()), None)


def _part(found: Found, part: str) -> Found:
    if found.format is None or not found.format.has_parts:
        refuse_part(found.path, part)
    return replace(found, part=check_name(part, "part"))


def _by_path(path: Path) -> Found:
    if (path / MANIFEST).is_file():
        return Found(path, None, path)
    formats = all_formats()
    for format in sorted(formats.values(), key=lambda format: bool(format.suffixes)):  # first who look inside
        with reading_with(format, path):
            claimed = format.claim(path)
        if claimed is not None:
            return Found(claimed, format, path)
    if path.is_dir() and any(path.glob("$store$_*_ckpt.*.gz")):
        raise InputError(f"{path}: shards of DQN-replay; chibit data convert makes a store of them")
    if suffix_of(path) == ".tfrecord" or (path.is_dir() and _is_rlds(path)):
        raise InputError(
            f"{path}: RLDS data, which only TensorFlow reads; where it is installed, join the steps of "
            "tfds.builder_from_directory(PATH).as_dataset() to arrays, numpy.savez them, and give that file"
        )
    if path.is_dir():
        raise InputError(
            f"{path}: neither a Minari data set (data/metadata.json), LeRobot's (meta/info.json), a store "
            f"({MANIFEST}) nor tables (.csv, .parquet, .jsonl)"
        )
    if suffix_of(path) in (".gz", ".zip", ".bz2", ".xz", ".zst"):
        raise InputError(f"{path}: is compressed; unpack it, and give what is in it")
    expected = sorted(format.expected or " or ".join(format.suffixes) for format in formats.values())
    raise InputError(
        f"{path}: unknown kind of file; expected {', '.join(expected)} or a store; for a format of yours "
        f"name its module in {OWN_MODULES}"
    )


def _is_rlds(folder: Path) -> bool:
    """Whether TensorFlow Datasets wrote it, or a version in it; folders in it are not listed."""
    versions = any((inner / "dataset_info.json").is_file() for inner in folder.iterdir())
    return versions or any(folder.glob("*.tfrecord*"))


def all_formats() -> Mapping[str, Format]:
    """All formats; those of the package register themselves when they are imported."""
    from chibit.data.readers import (  # noqa: F401
        csv_tables,
        hdf5_files,
        json_lines,
        lerobot,
        minari,
        neorl,
        npz,
        ogbench,
        parquet,
        pickles,
    )

    readers: dict[str, str] = {}
    for key, suffix in ((key, suffix) for key, format in FORMATS.items() for suffix in format.suffixes):
        if readers.setdefault(suffix, key) != key:
            raise InputError(
                f"{suffix} files: formats {readers[suffix]!r} and {key!r} both read them; drop one"
            )
    return FORMATS


def _own_names() -> list[str]:
    from chibit.data.collect.mujoco import list_collectable

    tasks = [f"{task}-{level}" for task, row in TASKS.items() for level in row.scripted_levels]
    tasks += LANGUAGE_TASKS
    return [name for entry in list_collectable() for name in (entry.name, entry.dataset_id)] + tasks


def _known_names(data_folder: Path | None) -> list[str]:
    atari = [*GAMES, *(f"{game.lower()}-{level}" for game in GAMES for level in LEVELS)]
    return [*D4RL_SETS, *_own_names(), *atari, *local_minari_ids(data_folder)]

"""LeRobot's data sets (Cadene et al., 2024), versions 2 and 3: Parquet files and what `meta/info.json` says.

meta/info.json                          version, features, totals, splits
meta/tasks.jsonl | meta/tasks.parquet   text of each task
data/chunk-000/episode_000000.parquet   version 2: a file an episode
data/chunk-000/file-000.parquet         version 3: many episodes a file
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from chibit.core.arrays import reading as reading_errors
from chibit.core.config import read_json
from chibit.core.errors import DamagedFileError, InputError
from chibit.core.files import links_within, list_folder, open_regular, read_regular
from chibit.core.formatting import listed
from chibit.data.readers.columns import EPISODE, Column, Reading, locate_columns
from chibit.data.readers.episodes import join_episodes
from chibit.data.readers.origin import Origin, file_name
from chibit.data.readers.parquet import Parquet
from chibit.data.readers.recording import Recording, find_ends, record_columns

_INFO = Path("meta", "info.json")
_TASK = "task_index"
_MAX_TASK_BYTES = 1 << 26
_PICTURES = ("image", "video")


class LeRobot(Parquet, key="lerobot"):
    """LeRobot's folders."""

    suffixes: ClassVar[tuple[str, ...]] = ()
    expected = "a LeRobot folder"
    has_parts = True
    has_time: ClassVar[bool] = False

    def claim(self, path: Path) -> Path | None:
        """A folder that says of itself what it is."""
        return path if (path / _INFO).is_file() else None

    @contextlib.contextmanager
    def read_here_as(self, path: Path, reading: Reading) -> Iterator[tuple[Recording, Origin]]:
        """Read all episodes, or those of the split that `reading.part` names.

        The observation is what `reading.columns` maps to it; without that all features `observation.*` that
        are numbers or vectors, in the order of `info.json`. Pictures are left out, which a note says.
        """
        info = _read_info(path)
        wanted, notes = _columns(info["features"], path, reading)
        columns, damaged = self.read_files(
            _data_files(path),
            path,
            reading,
            lambda file: self.read_columns(
                file, path, lambda header: _check(wanted, header.names, file), reading
            )[0],
        )
        total, found = info.get("total_frames"), columns[EPISODE].shape[0]
        if total != found and not damaged:
            if not reading.skip_damaged:
                raise DamagedFileError(
                    f"{path}: {found} rows, info.json says {total!r}; copy or download it again"
                )
            damaged = (f"{found:,} rows are here, info.json says {str(total)[:20]}",)
        episodes = _split(columns, info, path, reading.part)
        joined = join_episodes(
            ((place, partial(dict, given)) for place, (_, given) in episodes.items()),
            str(path),
            skip_damaged=reading.skip_damaged,
        )
        name = file_name(path) + (f"-{reading.part}" if reading.part else "")
        provenance = {"kind": "lerobot", "path": str(path.absolute()), "part": reading.part}
        origin = Origin(name=name, notes=(*damaged, *notes, *joined.notes), provenance=provenance)
        recording = record_columns(joined.columns, where=str(path), reading=reading)
        if texts := self._tasks(path):
            ends = np.flatnonzero(find_ends(joined.columns, str(path)))
            logged = np.searchsorted(ends, recording.episode_starts[:-1])  # of an episode that may be cut
            tasks = (episodes[joined.places[number]][0] for number in logged)
            recording = replace(recording, missions=np.array([texts.get(task, "") for task in tasks]))
        yield recording, origin

    def _tasks(self, path: Path) -> dict[int, str]:
        """Text of each task by its number; empty where there is none."""
        lines, table = path / "meta" / "tasks.jsonl", path / "meta" / "tasks.parquet"
        root = links_within(path)
        if lines.is_file():
            with reading_errors(lines):
                rows = map(json.loads, read_regular(lines, most=_MAX_TASK_BYTES, inside=root).splitlines())
                return {int(row[_TASK]): str(row["task"]) for row in rows}
        if not table.is_file():
            return {}
        with open_regular(table, inside=root, most=_MAX_TASK_BYTES) as file, reading_errors(table):
            names = self.read_header(file).names
            [text] = [name for name in names if name != _TASK]
            file.seek(0)
            found: Any = self.read_table(file, [_TASK, text])
            return dict(zip(found[_TASK].to_pylist(), map(str, found[text].to_pylist()), strict=True))


def _read_info(path: Path) -> dict[str, Any]:
    info = read_json(path / _INFO, inside=links_within(path))
    version = str(info.get("codebase_version", "")) if isinstance(info, dict) else ""
    features = info.get("features") if isinstance(info, dict) else None
    if not isinstance(features, dict) or not all(isinstance(each, dict) for each in features.values()):
        raise DamagedFileError(f"{path / _INFO}: no features; copy or download the data set again")
    if not re.fullmatch(r"v?[23](\.\d+)*", version):
        raise InputError(
            f"{path}: LeRobot's version {version[:20]!r}, expected 2 or 3; convert it by its scripts"
        )
    return info


def _columns(
    features: Mapping[str, Mapping[str, Any]], path: Path, reading: Reading
) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
    """The file's columns by our names, and notes."""
    seen = {name: each for name, each in features.items() if re.fullmatch(r"observation(\..+)?", name)}
    pictures = [name for name, each in seen.items() if each.get("dtype") in _PICTURES]
    texts = [name for name, each in seen.items() if each.get("dtype") == "string"]
    vectors = tuple(name for name in seen if name not in (*pictures, *texts))
    mapping = {"observations": vectors, "actions": ("action",), **reading.columns}
    if not mapping["observations"]:
        raise InputError(f"{path}: observations are pictures alone ({', '.join(pictures)}); expected vectors")
    notes = [f"observations are {', '.join(mapping['observations'])}, side by side in this order"]
    for what, left_out in (("pictures", pictures), ("texts", texts)):
        if left_out:
            notes.append(f"left out {what}: {', '.join(left_out)}")
    for ours, theirs in (("rewards", "next.reward"), ("terminations", "next.done")):
        if theirs in features:
            mapping.setdefault(ours, (theirs,))
    found = locate_columns(list(features), str(path / _INFO), Reading(mapping))
    return {**found, EPISODE: ("episode_index",), _TASK: (_TASK,)}, tuple(notes)


def _check(
    wanted: dict[str, tuple[str, ...]], names: Sequence[str], file: Path
) -> dict[str, tuple[str, ...]]:
    for theirs in wanted.values():
        for name in theirs:
            if name not in names:
                raise DamagedFileError(f"{file}: no column {name!r}, which info.json names; copy it again")
    return wanted


def _data_files(path: Path) -> list[Path]:
    data = path / "data"
    folders = [each for each in list_folder(data, inside=path) if each.is_dir()] if data.is_dir() else []
    files = [file for folder in folders for file in list_folder(folder, inside=path)]
    files = [file for file in files if file.suffix == ".parquet"]
    if not files:
        raise InputError(f"{path}: no data/chunk-000/*.parquet; download all of the data set")
    return files


def _split(
    columns: Mapping[str, Column], info: Mapping[str, Any], path: Path, part: str
) -> dict[str, tuple[int, Mapping[str, Column]]]:
    """Task and columns of each episode, by its place."""
    arrays = {name: np.asarray(column[0 : column.shape[0]]) for name, column in columns.items()}
    numbers, tasks = (arrays.pop(name).reshape(-1) for name in (EPISODE, _TASK))
    num_rows = len(numbers)
    first, last = _range(info, path, part)
    edges = [0, *(np.flatnonzero(numbers[1:] != numbers[:-1]) + 1).tolist(), num_rows]
    if len(np.unique(numbers)) != len(edges) - 1:
        raise DamagedFileError(f"{path}: episode_index: an episode comes back after others; copy it again")
    chosen = [
        slice(start, end)
        for start, end in zip(edges[:-1], edges[1:], strict=True)
        if first <= numbers[start] < last
    ]
    return {
        f"{path}: episode {numbers[rows.start]}": (
            int(tasks[rows.start]),
            {name: array[rows] for name, array in arrays.items()},
        )
        for rows in chosen
    }


def _range(info: Mapping[str, Any], path: Path, part: str) -> tuple[int, float]:
    """First number of an episode of a split, and the one behind its last."""
    if not part:
        return 0, np.inf
    splits = info.get("splits")
    text = splits.get(part) if isinstance(splits, dict) else None
    match = re.fullmatch(r"(\d{1,9}):(\d{1,9})", str(text))
    if match is None:
        found = listed(sorted(splits), 20) if isinstance(splits, dict) and splits else "none"
        raise InputError(f"{path}: no split {part!r}; found {found}")
    return int(match[1]), int(match[2])

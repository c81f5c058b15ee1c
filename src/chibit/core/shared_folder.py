"""Write into a folder that others write into as well: only what was written here before is replaced.

`.chibit-files.json` in the folder says which files those are, and what they held. A file that is not in it,
or that has been changed since, is somebody's: it is named in one line, and nothing is written at all.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from chibit.core.errors import InputError, UserError
from chibit.core.files import (
    atomic_folder,
    check_regular,
    flush,
    make_folder,
    read_regular,
    resource_error,
    sha256_file,
    write_atomic,
)
from chibit.core.temporary import remove, sweep_leftovers, temporary_folder

MANIFEST = ".chibit-files.json"
_SCHEMA = 1
_MOST = 1 << 20
_Hashes = dict[str, list[str]]


@contextlib.contextmanager
def shared_folder(
    folder: Path,
    kind: str,
    *,
    beside: Collection[str] = (),
    recognized: Collection[str] = (),
    keep: bool = False,
) -> Iterator[Path]:
    """Fill a folder that is then moved, file by file, into another one, beside what is there.

    Files that this function wrote before and that are as it wrote them are replaced, or removed where the new
    content has none of that name. Readers see each file whole.

    Args:
        folder: where to; it may exist, with anything in it.
        kind: what is written, for example "policy".
        beside: what else of ours the folder may hold, as `what_is` names it.
        recognized: names of files there that are known by their content to be ours, though no manifest says
            so.
        keep: leave those that the new content has none of.

    Yields:
        A temporary folder to write into.

    Raises:
        InputError: where the folder holds another thing of ours (a run, a data set ...), or a file of
            somebody else's that would have to be replaced; nothing was changed then.
    """
    if not os.path.lexists(folder):
        with atomic_folder(folder) as temporary:
            yield temporary
            _write_manifest(temporary, kind, {name: [digest] for name, digest in _hashes(temporary).items()})
        return
    make_folder(folder)
    sweep_leftovers(folder)
    written = _read_manifest(folder, kind, beside)
    written |= {name: [sha256_file(folder / name)] for name in recognized if name not in written}
    with temporary_folder(folder) as temporary:
        yield temporary
        new = _hashes(temporary)
        old = {name: hashes for name, hashes in written.items() if name not in new}
        stale = [] if keep else [name for name in old if os.path.lexists(folder / name)]
        for name in [*new, *stale]:
            _require_ours(folder, name, written.get(name, ()))
        # Both are ours until all are moved, so that after a crash the next call goes on.
        both = {name: [*written.get(name, ()), digest] for name, digest in new.items()}
        _write_manifest(folder, kind, written | both)
        _move(temporary, folder, new)
        for name in stale:
            remove(folder / name)
        kept = old if keep else {}
        _write_manifest(folder, kind, kept | {name: [digest] for name, digest in new.items()})


def what_is(folder: Path) -> str | None:
    """What of this package's a folder holds: "a run", "a study", "a data set" ...; None where it is none."""
    names = {entry.name for entry in folder.iterdir()}
    if MANIFEST in names:
        kind = _load(folder / MANIFEST).get("kind")
        is_name = isinstance(kind, str) and kind.isprintable() and len(kind) < 40
        return f"a {kind}" if is_name else "something that cannot be told"
    if "config.json" in names and ("arm" in _load(folder / "config.json") or "checkpoints" in names):
        return "a run"
    if "manifest.json" in names:
        for name, what in (
            ("records.npy", "a data set"), ("tokens.u16", "a corpus"), ("training_state.pt", "a checkpoint"),
            ("model.safetensors", "a checkpoint"),
        ):  # fmt: skip
            if name in names:
                return what
    if "main_data.hdf5" in names or (folder / "data" / "metadata.json").exists():
        return "a data set"
    if "namespace_metadata.json" in names:
        return "a folder of data sets"
    for entry in sorted(folder.iterdir()):
        if (entry / "config.json").is_file() and "arm" in _load(entry / "config.json"):
            return "a study"
        if entry.name.isdecimal() and (entry / "manifest.json").is_file():
            return "the checkpoints of a run"
    return None


def _load(path: Path) -> Mapping[str, Any]:
    """A small JSON object, for a look at its keys; empty for anything else."""
    try:
        value = json.loads(read_regular(path, most=_MOST, inside=path.parent))
    except (ValueError, RecursionError, UserError):
        return {}
    return value if isinstance(value, dict) else {}


def _read_manifest(folder: Path, kind: str, beside: Collection[str]) -> _Hashes:
    found = what_is(folder)
    if found not in (None, f"a {kind}", *beside):
        raise InputError(f"{folder}: holds {found}, so no {kind} is written into it; choose another folder")
    if not os.path.lexists(folder / MANIFEST):
        return {}
    files = _load(folder / MANIFEST).get("files")
    if not isinstance(files, dict) or not all(
        isinstance(hashes, list) and _is_inside(name) for name, hashes in files.items()
    ):
        raise InputError(f"{folder / MANIFEST}: not a list of files; choose another folder")
    return files


def _is_inside(name: str) -> bool:
    return bool(name) and not os.path.isabs(name) and ".." not in Path(name).parts and "\0" not in name


def _write_manifest(folder: Path, kind: str, files: _Hashes) -> None:
    record = {"schema": _SCHEMA, "kind": kind, "files": files}
    write_atomic(folder / MANIFEST, json.dumps(record, indent=1) + "\n")


def _hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in files}


def _require_ours(folder: Path, name: str, hashes: Collection[str]) -> None:
    """Refuse to touch a file that was not written here, or was changed since."""
    path = folder / name
    if not Path(os.path.realpath(path.parent)).is_relative_to(os.path.realpath(folder)):
        raise InputError(f"{path.parent}: leads out of {folder}; choose another folder")
    for parent in path.parents:
        if parent == folder:
            break
        if os.path.lexists(parent) and not parent.is_dir():
            raise InputError(f"{parent}: is in the way of a folder; move it away, or choose another folder")
    if not os.path.lexists(path):
        return
    remedy = "move it away, or choose another folder"
    if not hashes:
        raise InputError(f"{path}: is there and was not written by this command; {remedy}")
    check_regular(path, remedy=remedy)
    if sha256_file(path) not in hashes:
        raise InputError(f"{path}: was changed since it was written; {remedy}")


def _move(temporary: Path, folder: Path, names: Collection[str]) -> None:
    """Give every file its name; those that describe the others, which come first in a reader's eyes, last."""
    try:
        for name in sorted(names, key=lambda name: (name == "config.json", name)):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            flush(temporary / name)
            os.replace(temporary / name, folder / name)
        for parent in {(folder / name).parent for name in names}:
            flush(parent)
    except OSError as error:
        raise resource_error(folder, error) from error

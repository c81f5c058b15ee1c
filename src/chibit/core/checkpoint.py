"""Checkpoints that are whole or absent, and known to be whole.

A checkpoint is a folder ``<step>/`` with ``model.safetensors`` (the weights), ``training_state.pt``
(optimizers, generators, samplers, counters; read with ``weights_only=True``) and ``manifest.json`` (SHA-256
of both). It is filled under a temporary name, flushed to the disk and renamed; older ones are removed only
afterwards, so at every moment at least one whole checkpoint exists.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import pickle
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from chibit.core.config import read_json
from chibit.core.errors import DamagedFileError, InputError, UserError
from chibit.core.files import (
    atomic_folder,
    create,
    flush,
    make_folder,
    move,
    read_regular,
    write_atomic,
)
from chibit.core.memory import read_whole
from chibit.core.temporary import TEMPORARY_PREFIX, remove

SCHEMA = 1
_FILES = ("model.safetensors", "training_state.pt")
_ALL_FILES = {*_FILES, "manifest.json"}
MARKS = ("last", "best")
"""Names under which a checkpoint may be kept."""
_LONGEST_MARK = 1000
_Contents = dict[str, bytes | memoryview]
_STEP = re.compile("[0-9]{10}")
"""The name of a checkpoint; whatever else lies beside them is not looked at."""
_log = logging.getLogger("chibit")


@dataclass(frozen=True)
class Checkpoint:
    """What was saved at one step."""

    step: int
    """Gradient steps done."""
    tensors: dict[str, torch.Tensor]
    """The weights, by name, on the CPU."""
    state: dict[str, Any]
    """Optimizers, generators, samplers and counters."""


class CheckpointSaver:
    """Saves checkpoints while training goes on: `save` comes back as soon as the content is in memory.

    Hashing, writing and flushing to the disk happen in a thread, one checkpoint at a time. Leaving the
    context, `wait` and the next `save` wait for it and raise what went wrong.
    """

    def __init__(self, folder: Path, *, keep: int = 2) -> None:
        """Prepare to save.

        Args:
            folder: the run's ``checkpoints`` folder.
            keep: how many of the newest to keep, at least 1; those named by `mark` are kept besides.
        """
        self._folder, self._keep = folder, keep
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None

    def save(
        self,
        step: int,
        tensors: Mapping[str, torch.Tensor],
        state: Mapping[str, Any],
        *,
        marks: Iterable[str] = (),
    ) -> None:
        """Begin to save a checkpoint, which appears whole or not at all, and to prune older ones.

        Args:
            step: gradient steps done; names the checkpoint.
            tensors: weights by name; tensors that share memory are stored twice.
            state: tensors, numbers, strings, lists and dicts only, to load with ``weights_only=True``.
            marks: names to `mark` it with.

        Raises:
            ResourceError: when the disk refused the checkpoint before this one; earlier ones are untouched.
        """
        self.wait()
        contents = _serialize(tensors, state)
        self._pending = self._thread.submit(self._save, step, contents, tuple(marks))

    def wait(self) -> None:
        """Come back when the last checkpoint is on the disk; ResourceError if it could not be saved."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def __enter__(self) -> CheckpointSaver:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.wait()
        finally:
            self._thread.shutdown()

    def _save(self, step: int, contents: _Contents, marks: tuple[str, ...]) -> None:
        _log.debug("checkpoint of step %d into %s", step, self._folder)
        _commit(self._folder, step, contents, self._keep)
        for name in marks:
            mark(self._folder, name, step)


def checkpoint_steps(folder: Path) -> list[int]:
    """Steps of the checkpoints in a folder, oldest first, whole or not."""
    if not folder.is_dir():
        return []
    names = [path.name for path in folder.iterdir() if _STEP.fullmatch(path.name) and path.is_dir()]
    return sorted(map(int, names))


def load_checkpoint(folder: Path, step: int | None = None) -> Checkpoint | None:
    """Load the checkpoint of one step, or the newest that is whole.

    Args:
        folder: the run's ``checkpoints`` folder.
        step: which one; None takes the newest whole one and warns about each damaged one it passes over.

    Returns:
        The checkpoint, or None when `step` is None and the folder holds none at all.

    Raises:
        InputError: when `step` is not there.
        DamagedFileError: when the one asked for, or every one there is, does not match its manifest.
    """
    if step is not None:
        path = folder / f"{step:010d}"
        if not path.is_dir():
            have = ", ".join(map(str, checkpoint_steps(folder))) or "none"
            raise InputError(f"{folder}: no checkpoint of step {step}; there are: {have}")
        return _load(path)
    failure: UserError | None = None
    for candidate in reversed(checkpoint_steps(folder)):
        try:
            checkpoint = _load(folder / f"{candidate:010d}")
        except (DamagedFileError, InputError) as error:
            _log.warning("%s; trying the one before", error)
            failure = failure or error
        else:
            return checkpoint
    if failure is not None:
        raise DamagedFileError(
            f"{folder}: no whole checkpoint is left ({failure}); restore one, or train again with another "
            "--out"
        )
    return None


def mark(folder: Path, name: str, step: int) -> None:
    """Write down that a checkpoint is, for example, the best: a small file `name` that holds its step."""
    write_atomic(folder / name, f"{step}\n")


def marked(folder: Path, name: str) -> int | None:
    """The step that `mark` wrote down under this name, or None."""
    path = folder / name
    if not path.exists():
        return None
    content = read_regular(path, inside=folder, most=_LONGEST_MARK, kind=DamagedFileError, remedy="remove it")
    text = content.decode("utf-8", "replace")
    if re.fullmatch(r"[0-9]{1,18}\s*", text) is None:
        raise DamagedFileError(f"{path}: holds {text[:40]!r}, expected a step number; remove the file")
    return int(text)


def sweep(folder: Path) -> None:
    """Remove what an interrupted save left behind. Call it only while holding the run's lock."""
    if folder.is_dir():
        for leftover in folder.glob(".tmp-*"):  # of earlier versions too
            remove(leftover)


def pack_tensors(tensors: Mapping[str, torch.Tensor]) -> bytes:
    """The content of a safetensors file, which takes contiguous tensors of which no two share memory."""
    seen: set[int] = set()
    result = {}
    for name, tensor in tensors.items():
        value = tensor.detach().cpu().contiguous()
        if value.data_ptr() in seen:
            value = value.clone()
        seen.add(value.data_ptr())
        result[name] = value
    return safetensors.torch.save(result)


def _on_host(value: Any) -> Any:
    """Nested dicts and lists with their tensors on the CPU, where every machine can read them."""
    if isinstance(value, torch.Tensor):
        return value.cpu()
    if isinstance(value, dict):
        return {key: _on_host(part) for key, part in value.items()}
    return type(value)(map(_on_host, value)) if isinstance(value, list | tuple) else value


def _serialize(tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any]) -> _Contents:
    """The files of a checkpoint but for its manifest; later changes of the tensors do not reach them."""
    buffer = io.BytesIO()
    torch.save(_on_host(dict(state)), buffer)
    return {
        "model.safetensors": pack_tensors(tensors),
        "training_state.pt": buffer.getbuffer(),
    }


def _commit(folder: Path, step: int, contents: _Contents, keep: int) -> None:
    make_folder(folder)
    target = folder / f"{step:010d}"
    with atomic_folder(target, replace=True) as temporary, ThreadPoolExecutor(len(contents)) as threads:
        # The disk works while the hashes are taken.
        writes = [threads.submit(_write, temporary / name, data) for name, data in contents.items()]
        hashes = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
        manifest = {"schema": SCHEMA, "step": step, "sha256": hashes}
        _write(temporary / "manifest.json", json.dumps(manifest, indent=1).encode())
        for write in writes:
            write.result()
    _prune(folder, keep)


def _write(path: Path, data: bytes | memoryview) -> None:
    with create(path) as file:
        file.write(data)
    flush(path)


_STUMBLES = (
    *(pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, TypeError),
    *(AttributeError, AssertionError, OverflowError),
)
"""What a reader of pickles raises where it stumbles over their bytes."""


def _load(path: Path) -> Checkpoint:
    manifest = read_json(path / "manifest.json", inside=path.parent)
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        schema = manifest.get("schema") if isinstance(manifest, dict) else manifest
        raise DamagedFileError(
            f"{path / 'manifest.json'}: schema {schema!r}, expected {SCHEMA}; written by another version?"
        )
    hashes = manifest.get("sha256")
    if not isinstance(hashes, dict):
        raise DamagedFileError(f"{path / 'manifest.json'}: names no SHA-256")
    contents = {
        name: read_whole(
            path / name, "use another checkpoint", inside=path.parent, sha256=str(hashes.get(name))
        )
        for name in _FILES
    }
    if manifest.get("step") != int(path.name):
        raise DamagedFileError(
            f"{path / 'manifest.json'}: says step {manifest.get('step')!r}, its folder says {path.name}"
        )
    try:
        tensors = safetensors.torch.load(contents["model.safetensors"])
        state = torch.load(io.BytesIO(contents["training_state.pt"]), map_location="cpu", weights_only=True)
    except (SafetensorError, *_STUMBLES) as error:
        raise DamagedFileError(f"{path}: cannot be read ({type(error).__name__})") from error
    return Checkpoint(step=manifest["step"], tensors=tensors, state=state)


def _prune(folder: Path, keep: int) -> None:
    steps = checkpoint_steps(folder)
    protected = set(steps[-max(1, keep) :])
    protected |= {step for name in MARKS if (step := marked(folder, name)) is not None}
    for step in steps:
        place = folder / f"{step:010d}"
        # A checkpoint that somebody put something into stays.
        if step not in protected and {entry.name for entry in place.iterdir()} <= _ALL_FILES:
            # Renamed first: a folder under a number is whole, also while it is being removed.
            old = folder / f"{TEMPORARY_PREFIX}prune-{step}"
            move(place, old)
            remove(old)

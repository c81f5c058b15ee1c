"""Small training runs in forked processes, ended at chosen points, and what they leave behind."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
from pathlib import Path
from typing import Any

import torch

from chibit.core.checkpoint import CheckpointSaver


def save_checkpoint(folder: Path, step: int, tensors: Any, state: Any, *, keep: int = 2) -> Path:
    """Save a checkpoint and wait until it is on the disk; its folder."""
    with CheckpointSaver(folder, keep=keep) as saver:
        saver.save(step, tensors, state)
    return folder / f"{step:010d}"


def save_two(folder: Path) -> None:
    """Checkpoints of steps 1 and 2."""
    for step in (1, 2):
        state = {"step": step, "moments": torch.arange(3.0) * step}
        save_checkpoint(folder, step, {"weight": torch.full((2, 3), float(step))}, state)


def reseal(checkpoint: Path, **changes: object) -> None:
    """Make a checkpoint's manifest fit the files that are there now."""
    path = checkpoint / "manifest.json"
    manifest = json.loads(path.read_text()) | changes
    for name in manifest["sha256"]:
        manifest["sha256"][name] = hashlib.sha256((checkpoint / name).read_bytes()).hexdigest()
    path.write_text(json.dumps(manifest))


def die(*_: object, **__: object) -> None:
    """End this process as a power failure would."""
    os.kill(os.getpid(), signal.SIGKILL)


def on_call(owner: object, name: str, number: int, action: object, *, before: bool = True) -> None:
    """Let `action` happen at the n-th call of a function, counted from 1, before or in place of it."""
    original = getattr(owner, name)
    calls = 0

    def watched(*arguments: object, **options: object) -> object:
        nonlocal calls
        calls += 1
        if calls == number:
            result = action(*arguments, **options)  # type: ignore[operator]
            if not before:
                return result
        return original(*arguments, **options)

    setattr(owner, name, watched)


def half_then_die(path: Path, data: bytes | memoryview) -> None:
    """Write half of a file and die."""
    path.write_bytes(data[: len(data) // 2])
    die()


def leftovers(folder: Path) -> list[Path]:
    """Temporary files and folders anywhere below."""
    with contextlib.suppress(FileNotFoundError):
        return sorted(folder.rglob(".tmp-*"))
    return []

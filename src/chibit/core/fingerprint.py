"""What tells one state of a file or folder from another, for copies that are kept of what was made of it."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from chibit.core.errors import read_error
from chibit.core.files import open_regular

_WHOLE_BYTES, _SAMPLE_BYTES = 1 << 20, 1 << 16


def fingerprint(path: Path) -> str:
    """Give 64 digits that change with a file, or with those in a folder: path, state and content.

    Content is looked at in part, where there is much of it: see `content_sample`.
    """
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        try:
            status = file.stat()
            digest.update(json.dumps([str(file.resolve()), *file_state(status)]).encode())
            digest.update(content_sample(file, status.st_size))
        except OSError as error:
            raise read_error(file, error) from error
    return digest.hexdigest()


def file_state(status: os.stat_result) -> tuple[int, ...]:
    """Give what changes with a file's content: size, time of change, time of its entry, place on the disk.

    A copy that keeps size and time of change (`cp -p`, `rsync -t`) has another of the last two.
    """
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def content_sample(path: Path, size: int) -> bytes:
    """All of a file of up to 1 MB; of a larger one 64 KB each of its beginning, middle and end."""
    with open_regular(path) as file:
        if size <= _WHOLE_BYTES:
            return file.read(_WHOLE_BYTES)
        parts = []
        for start in (0, (size - _SAMPLE_BYTES) // 2, size - _SAMPLE_BYTES):
            file.seek(start)
            parts.append(file.read(_SAMPLE_BYTES))
        return b"".join(parts)

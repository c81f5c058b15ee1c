"""Fetch a Minari data set with Minari's own downloader, in a process of its own, whole or not at all."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

from chibit.core.errors import InputError, ResourceError
from chibit.core.files import atomic_folder, make_folder, move
from chibit.core.network import unreachable
from chibit.core.temporary import temporary_folder

_FETCH = "import sys, minari; minari.download_dataset(sys.argv[1])"


def download_minari(dataset_id: str, root: Path, *, hint: str = "", progress: bool = True) -> Path:
    """Fetch a data set.

    Args:
        dataset_id: `mujoco/hopper/medium-v0`, already checked as a name.
        root: folder of Minari data sets.
        hint: what else may have been meant, for the message.
        progress: say so on standard error, and let Minari's own bars through to a terminal.

    Returns:
        The folder of the data set.

    Raises:
        InputError: if there is no such data set.
    """
    _require_server(dataset_id, root, hint)
    make_folder(root)
    if progress:
        print(f"downloading {dataset_id} with Minari", file=sys.stderr)
    target = root / dataset_id
    with atomic_folder(target) as whole, temporary_folder(root) as temporary:
        error = _fetch(dataset_id, temporary, progress)
        if error is not None:
            kind = InputError if error.startswith("ValueError") else ResourceError
            raise kind(f"{dataset_id}: Minari could not download it ({error}){hint}")
        for item in (temporary / dataset_id).iterdir():
            move(item, whole / item.name)
    return target


def _require_server(dataset_id: str, root: Path, hint: str) -> None:
    """Fail within seconds where there is no network; Minari's own client would try for half a minute."""
    remote = os.environ.get("MINARI_REMOTE", "hf://")
    default = "https://storage.googleapis.com" if remote.startswith("gcp") else "https://huggingface.co"
    server = os.environ.get("HF_ENDPOINT", default)
    reason = unreachable(server)
    if reason is not None:
        raise ResourceError(
            f"{dataset_id}: not in {root}, and {server} cannot be reached ({reason}); "
            f"fetch it elsewhere with `minari download {dataset_id}` and copy it there{hint}"
        )


def _fetch(dataset_id: str, root: Path, progress: bool) -> str | None:
    """Run the downloader; give its last line if it failed."""
    process = subprocess.Popen(
        [sys.executable, "-c", _FETCH, dataset_id],
        env=os.environ | {"MINARI_DATASETS_PATH": str(root)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    tail = b""
    with process, contextlib.ExitStack() as interrupted:
        interrupted.callback(process.kill)  # take it along
        while piece := process.stderr.read1(4096):  # type: ignore[attr-defined]
            tail = (tail + piece)[-4096:]
            if progress and sys.stderr.isatty():
                sys.stderr.write(piece.decode(errors="replace"))
        interrupted.pop_all()
    if process.returncode == 0:
        return None
    lines = [line for line in tail.decode(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip()[:300] if lines else f"exit code {process.returncode}"

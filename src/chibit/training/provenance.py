"""Where a run comes from: code, command, versions, machine, data, physics, sizes."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from chibit.agents import Agent
from chibit.core.platform import kernel_table
from chibit.core.plugins import OWN_MODULES
from chibit.core.runtime import Runtime
from chibit.core.version import __version__
from chibit.data.dataset import TrajectoryDataset
from chibit.environments.make import physics_record
from chibit.models.counting import count_parameters
from chibit.training.run_data import identify

_PACKAGES = ("torch", "numpy", "gymnasium", "mujoco", "minari", "transformers")


def provenance(
    dataset: TrajectoryDataset, agent: Agent, held_out: TrajectoryDataset | None = None
) -> dict[str, Any]:
    """The content of provenance.json."""
    spec = dataset.spec
    return {
        **circumstances(agent.runtime),
        **identify(dataset, held_out),
        "physics": None if spec.env_id is None else physics_record(spec.env_id, spec.d4rl_physics),
        "parameters": count_parameters(agent.modules()),
        **({"plugins": plugins} if (plugins := os.environ.get(OWN_MODULES)) else {}),
        **({} if agent.initializer is None else {"initialiser": agent.initializer}),
    }


def circumstances(runtime: Runtime) -> dict[str, Any]:
    """Code, command, versions, machine and time, of whatever kind of run."""
    return {
        "commit": commit(),
        "argv": sys.argv,
        "versions": versions(),
        "host": {
            "platform": platform.platform(),
            "processor": _processor(),
            "python": platform.python_version(),
        },
        "computed": runtime.record,
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def versions() -> dict[str, str]:
    """Versions of the packages that decide results, those that are installed."""
    found = {"chibit": __version__}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """The commit this package is imported from, "+changes" when modified; None outside a checkout."""
    try:
        head, tracked, unchanged = (
            _git(*words)
            for words in (
                ("rev-parse", "HEAD"),
                ("ls-files", "--error-unmatch", __file__),  # not installed inside some other repository
                ("diff", "--quiet", "HEAD", "--", "."),
            )
        )
    except (OSError, subprocess.SubprocessError):
        return None
    if head.returncode or tracked.returncode:
        return None
    return head.stdout.strip() + ("+changes" if unchanged.returncode else "")


def _git(*words: str) -> subprocess.CompletedProcess[str]:
    folder = str(Path(__file__).resolve().parents[1])
    return subprocess.run(["git", "-C", folder, *words], capture_output=True, text=True, timeout=5)


def _processor() -> str:
    for line in kernel_table("/proc/cpuinfo"):
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()

"""Where a run comes from: code, command, versions, machine, data, physics, sizes."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from chibit.agents import Agent
from chibit.core.platform import kernel_table
from chibit.data.dataset import TrajectoryDataset
from chibit.environments.make import physics_record
from chibit.models.counting import count_parameters
from chibit.training.run_data import identify

_PACKAGES = ("chibit", "torch", "numpy", "gymnasium", "mujoco", "minari", "transformers")


def provenance(dataset: TrajectoryDataset, agent: Agent) -> dict[str, Any]:
    """The content of provenance.json."""
    spec = dataset.spec
    return {
        "commit": commit(),
        "argv": sys.argv,
        "versions": versions(),
        "host": {
            "platform": platform.platform(),
            "processor": _processor(),
            "python": platform.python_version(),
        },
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **identify(dataset),
        "physics": None if spec.env_id is None else physics_record(spec.env_id, spec.d4rl_physics),
        "parameters": count_parameters(agent.modules()),
        **({} if agent.initialiser is None else {"initialiser": agent.initialiser}),
    }


def versions() -> dict[str, str]:
    """Versions of the packages that decide results, those that are installed."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """The commit this package is imported from, "+changes" when modified; None outside a checkout."""
    folder = Path(__file__).resolve().parent
    try:
        head = subprocess.run(
            ["git", "-C", str(folder), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        ).stdout.strip()
        tracked = subprocess.run(
            ["git", "-C", str(folder), "ls-files", "--error-unmatch", __file__],
            capture_output=True,
            timeout=5,
        )
        changed = subprocess.run(
            ["git", "-C", str(folder), "diff", "--quiet", "HEAD", "--", str(folder)],
            capture_output=True,
            timeout=5,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    if tracked.returncode:
        return None  # installed inside some other repository
    return head + ("+changes" if changed.returncode else "")


def _processor() -> str:
    for line in kernel_table("/proc/cpuinfo"):
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()

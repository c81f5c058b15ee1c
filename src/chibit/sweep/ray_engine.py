"""Tasks on a Ray cluster, or on a local one. Run directories must be on a disk that all nodes share."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from chibit.core.errors import InputError, ResourceError, needing
from chibit.environments.own import receive_environments, send_environments
from chibit.sweep.engines import Crash, Ended, Engine
from chibit.sweep.tasks import Outcome, Task, run_task

_PASSED_ON = (
    "CHIBIT_HOME",
    "CHIBIT_PLUGINS",
    "MINARI_DATASETS_PATH",
    "MUJOCO_GL",
    "GLIBC_TUNABLES",
    "HF_HOME",
    "HF_HUB_OFFLINE",
)
"""Environment variables that say where data are, and how to render."""
_CONNECT_SECONDS = 10.0


class RayEngine(Engine):
    """A Ray task for each run: Ray places them by their resources, and retries them when a node dies."""

    capacity = float("inf")
    retries = 0
    """Ray does its own."""

    def __init__(self, address: str | None, gpu_share: float, retries: int) -> None:
        """Connect.

        Args:
            address: of a running cluster (`auto`, `HOST:6379`, `ray://HOST:10001`); None starts a local one.
            gpu_share: share of a GPU that is kept for each run that takes one.
            retries: times that Ray tries a task again.

        Raises:
            InputError: without Ray.
            ResourceError: if the cluster cannot be reached.
        """
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        os.environ.setdefault("RAY_worker_niceness", "0")  # 15 by default, but the runs are the work itself
        with needing("ray", "engine: ray"):
            import ray
        if address is not None:
            require_reachable(address)
        self._ray: Any = ray
        self._started = not ray.is_initialized()
        if self._started:
            variables = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
            local: dict[str, Any] = {} if address else {"include_dashboard": False}
            try:
                ray.init(
                    address=address or "local",
                    runtime_env={"env_vars": variables} if variables else None,
                    logging_level=logging.ERROR,
                    log_to_driver=False,
                    **local,
                )
            except (ConnectionError, RuntimeError, ValueError) as error:
                reason = " ".join(str(error).split())[:200]
                raise ResourceError(f"ray_address: {address or 'local'}: cannot start ({reason})") from error
        self._gpu_share = gpu_share
        self._has_gpus = ray.cluster_resources().get("GPU", 0) > 0
        self._call = ray.remote(max_retries=retries, retry_exceptions=True)(_run_remotely)
        self._tasks: dict[Any, Task] = {}

    def submit(self, task: Task) -> None:
        """Hand a task to Ray: as many CPUs as its configuration has threads, a share of a GPU or none."""
        num_gpus = share_of_gpu(task.config.device, self._gpu_share, has_gpus=self._has_gpus)
        call = self._call.options(num_cpus=task.config.num_threads, num_gpus=num_gpus)
        sent = replace(task, path=task.path.absolute())
        self._tasks[call.remote(sent, str(Path.cwd()), send_environments())] = task

    def collect(self, timeout: float) -> list[Ended]:
        """Wait for tasks."""
        if not self._tasks:
            return []
        done, _ = self._ray.wait(list(self._tasks), timeout=timeout)
        return [
            (task, self._outcome(reference, task))
            for reference in done
            if (task := self._tasks.pop(reference))
        ]

    def _outcome(self, reference: Any, task: Task) -> Outcome | Crash:
        try:
            outcome: Outcome = self._ray.get(reference)
        except self._ray.exceptions.TaskCancelledError:
            return Outcome(task.path, "stopped", "stopped on request")
        except self._ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None) or error
            return Crash(" ".join(f"{type(cause).__name__}: {cause}".split())[:500])
        if outcome.status == "finished" and not (task.path / "result.json").is_file():
            return Crash("finished on another machine, but its folder cannot be seen here; share the disk")
        return replace(outcome, path=task.path)

    def interrupt(self) -> None:
        """Cancel: Ray raises SIGINT in the tasks that run, which save and end, and drops the others."""
        for reference in self._tasks:
            self._ray.cancel(reference, force=False)

    def close(self) -> None:
        """Leave the cluster, or end the one that was started here."""
        if self._started:
            self._ray.shutdown()


def share_of_gpu(device: str, share: float, *, has_gpus: bool) -> float:
    """What a run on a device asks of a cluster that has GPUs, or none."""
    return share if device == "cuda" or (device == "auto" and has_gpus) else 0.0


def refuse_indices(devices: Iterable[str]) -> None:
    """Refuse a GPU by its number: a Ray task sees only the one it is given, whose number is 0."""
    for device in devices:
        if ":" in device:
            raise InputError(f"device: got {device!r}, but Ray gives each run its GPU; use cuda")


def require_reachable(address: str) -> None:
    """Refuse an address where nobody listens, at once; Ray itself would try for minutes.

    Args:
        address: `HOST:PORT` or `ray://HOST:PORT`; others, such as `auto`, are left to Ray.

    Raises:
        InputError: for a port that is no number.
        ResourceError: if nobody answers.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon:
        return
    if not port.isdigit():
        raise InputError(f"ray_address: got {address!r}, expected auto, HOST:PORT or ray://HOST:PORT")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ResourceError(
            f"ray_address: {address}: nobody answers ({error}); start a cluster with ray start --head"
        ) from error


def _run_remotely(task: Task, folder: str, environments: bytes) -> Outcome:
    """The body of a Ray task; relative paths mean what they mean to the driver."""
    if os.path.isdir(folder):
        os.chdir(folder)
    receive_environments(environments)
    return run_task(task)

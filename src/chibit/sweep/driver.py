"""Run a list of configurations with any engine.

A run directory is named after the content of its configuration and locked while it is worked on: finished
runs are skipped, killed ones go on from their checkpoint, a run that crashes is tried again and then
reported, and none of it stops the others. A second driver takes the runs that the first one has not begun.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

from chibit.core.errors import InputError
from chibit.core.files import nearest
from chibit.core.runtime import is_on_gpu
from chibit.core.signals import StopRequests
from chibit.sweep.engines import Crash, Engine, InProcess, LocalPool, gpus_to_share, note
from chibit.sweep.progress import StudyProgress
from chibit.sweep.tasks import Outcome, Task, make_tasks
from chibit.training.run_config import RunConfig, run_path

EngineName = Literal["auto", "process", "pool", "stacked", "ray"]
_POLL_SECONDS = 0.5


def run_all(
    configs: Sequence[RunConfig[Any]],
    *,
    root: Path,
    study: str,
    engine: EngineName = "auto",
    num_processes: int | None = None,
    stack: int | None = None,
    ray_address: str | None = None,
    gpu_share: float = 0.25,
    retries: int = 1,
    attention: bool = False,
    progress: bool = True,
) -> list[Outcome]:
    """Run every configuration that is not finished yet.

    Args:
        configs: the runs.
        root: folder that holds the study's folder.
        study: name of the study.
        engine: process (this one), pool (local processes), stacked (runs of one shape as one program), ray,
            or auto: stacked with `stack`, and on a GPU with one process, else pool.
        num_processes: runs side by side in the pool (None is 1), each with its own number of threads (one by
            default); or processes of a stack's environments, see `train_stack`.
        stack: most runs in a stack; None is as many as fit into the memory of the device.
        ray_address: Ray cluster to join; None starts a local one.
        gpu_share: share of a GPU that Ray keeps for each run that takes one, in (0, 1]. The pool gives its
            places the machine's GPUs in turn.
        retries: times that a run that crashed is tried again, from its checkpoint. A run that was refused
            (bad input, no disk, divergence) would be refused again, and is not.
        attention: draw the attention maps of every finished sequence model.
        progress: show what is done, what runs, and the time left.

    Returns:
        One outcome a configuration, in the same order.

    Raises:
        InputError: for an unknown engine or number of processes, or a missing extra; or runs of which the
            engine stacked can put none beside another.
        ResourceError: if the Ray cluster cannot be reached.
    """
    if stack is not None and stack < 1:
        raise InputError(f"stack: got {stack}, expected at least 1")
    if retries < 0 or (num_processes is not None and num_processes < 1):
        raise InputError(f"num_processes, retries: got {num_processes}, {retries}, expected at least 1 and 0")
    if not 0.0 < gpu_share <= 1.0:
        raise InputError(f"gpu_share: got {gpu_share:g}, expected above 0 and at most 1")
    tasks = make_tasks(configs, root=root, study=study, attention=attention)
    outcomes = {task.path: Outcome(task.path, "skipped") for task in tasks if task.is_done}
    to_do = [task for task in tasks if task.path not in outcomes]
    with StudyProgress(tasks, root, enabled=progress) as shown:
        for outcome in outcomes.values():
            shown.ended(outcome)
        if to_do:
            if engine == "auto":
                engine = usual_engine(to_do, num_processes, stack)
            made = _make_engine(engine, to_do, num_processes, stack, ray_address, gpu_share, retries)
            with contextlib.closing(made):
                outcomes |= _Driver(made, to_do, shown).run()
    return [outcomes[run_path(config, root, study)] for config in configs]


def _make_engine(
    name: str,
    tasks: Sequence[Task],
    num_processes: int | None,
    stack: int | None,
    ray_address: str | None,
    gpu_share: float,
    retries: int,
) -> Engine:
    if name == "process":
        return InProcess(retries)
    if name == "stacked":
        from chibit.sweep.stacked_engine import Stacked

        return Stacked(tasks, retries, stack, num_processes)
    if name == "pool":
        return LocalPool(min(num_processes or 1, len(tasks)), retries, gpus_to_share(tasks))
    if name == "ray":
        from chibit.sweep.ray_engine import RayEngine, refuse_indices

        refuse_indices({task.config.device for task in tasks})
        return RayEngine(ray_address, gpu_share, retries)
    known = get_args(EngineName)
    raise InputError(f"engine: unknown {name!r}{nearest(name, known)}; known: {', '.join(known)}")


def usual_engine(tasks: Sequence[Task], num_processes: int | None, stack: int | None = None) -> EngineName:
    """What `auto` means: stacks where that is asked for, or runs go on a GPU and no pool is; else a pool."""
    from chibit.training.stacked import stack_key

    if stack is not None:
        return "stacked"
    on_gpu = all(is_on_gpu(task.config.device) for task in tasks)
    can_stack = on_gpu and num_processes is None and any(stack_key(task.config) for task in tasks)
    return "stacked" if can_stack else "pool"


class _Driver:
    """Hands tasks to an engine and keeps account of them."""

    def __init__(self, engine: Engine, tasks: Sequence[Task], shown: StudyProgress) -> None:
        self._engine, self._shown = engine, shown
        self._queue, self._running = deque(tasks), set[Path]()
        self._crashes = {task.path: 0 for task in tasks}
        self._busy = set[Path]()
        self._outcomes: dict[Path, Outcome] = {}
        self._stop_requests = StopRequests()

    def run(self) -> dict[Path, Outcome]:
        """To the end of all tasks, or of those under way once a stop was asked for."""
        # In this process Ctrl-C is the task's own affair.
        listening = contextlib.nullcontext() if isinstance(self._engine, InProcess) else self._stop_requests
        with listening:
            while self._queue or self._running:
                self._submit()
                for task, ended in self._engine.collect(_POLL_SECONDS):
                    self._account(task, ended)
                if self._engine.was_interrupted or self._stop_requests.signal_number is not None:
                    self._stop()
        return self._outcomes

    def _submit(self) -> None:
        while self._queue and len(self._running) < self._engine.capacity:
            task = self._queue.popleft()
            self._running.add(task.path)
            self._shown.began(task)
            self._engine.submit(task)

    def _account(self, task: Task, ended: Outcome | Crash) -> None:
        self._running.discard(task.path)
        stop = self._stop_requests.signal_number
        if isinstance(ended, Crash) and stop is None:
            note(task, f"crashed: {ended.message}")
            self._crashes[task.path] += 1
            if self._crashes[task.path] <= self._engine.retries:
                self._shown.say(f"crashed: {task.path.name}: {ended.message}; it is tried again")
                self._queue.append(task)
                return
            ended = Outcome(task.path, "failed", ended.message)
        elif isinstance(ended, Crash):
            ended = Outcome(task.path, "stopped", ended.message)
        elif ended.status == "busy" and task.path not in self._busy:
            # By the time that all others are done, the other driver may be too, or may have died.
            self._busy.add(task.path)
            self._queue.append(task)
            return
        elif ended.status == "busy" and task.is_done:
            ended = Outcome(task.path, "skipped")
        elif ended.status == "failed":
            note(task, f"failed: {ended.message}")
        if ended.status == "stopped" and stop is not None:
            ended = replace(ended, signal_number=stop)  # what it passed on
        self._outcomes[task.path] = ended
        self._shown.ended(ended)

    def _stop(self) -> None:
        number = self._stop_requests.signal_number or 0
        for task in self._queue:
            self._outcomes[task.path] = Outcome(task.path, "stopped", "not started", number)
            self._shown.ended(self._outcomes[task.path])
        self._queue.clear()
        self._engine.interrupt()

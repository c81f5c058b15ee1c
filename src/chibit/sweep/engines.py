"""Where tasks run: in this process, or in a pool of local ones. The Ray engine is in `ray_engine`."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch

from chibit.core.errors import ResourceError
from chibit.core.platform import give_huge_pages, interrupts_held_back, take_interrupts
from chibit.core.run_dir import RunDir
from chibit.core.signals import PASSED_ON, Interrupted, interruptible
from chibit.environments.own import receive_environments, send_environments
from chibit.sweep.tasks import Outcome, Task, run_task

_WATCH_SECONDS, _GRACE_SECONDS = 1.0, 60.0


@dataclass(frozen=True)
class Crash:
    """The end of a task that nothing in the code foresaw."""

    message: str
    """What happened, in one line."""


Ended = tuple[Task, Outcome | Crash]


class Engine(ABC):
    """Takes tasks and gives back how they ended."""

    capacity: float = 1
    """Tasks that it takes at a time."""
    retries: int = 0
    """Times that the driver may submit a task again after a crash."""
    was_interrupted = False
    """Whether a request to stop reached a task of its own, past the driver."""

    @abstractmethod
    def submit(self, task: Task) -> None:
        """Take a task."""

    @abstractmethod
    def collect(self, timeout: float) -> list[Ended]:
        """Tasks that ended; waits up to `timeout` seconds for the first."""

    def interrupt(self) -> None:  # noqa: B027
        """Ask the tasks under way to save and end; called again until they have."""

    def close(self) -> None:  # noqa: B027
        """End what the engine started."""


class InProcess(Engine):
    """One task after the other, in this process. Ctrl-C reaches the task itself."""

    def __init__(self, retries: int) -> None:
        self.retries = retries
        self._waiting: list[Task] = []

    def submit(self, task: Task) -> None:
        """Keep a task for `collect`."""
        self._waiting.append(task)

    def collect(self, timeout: float) -> list[Ended]:
        """Do the waiting task, however long it takes."""
        if not self._waiting:
            return []
        task = self._waiting.pop()
        ended = self.end(task, run_task)
        self.was_interrupted = isinstance(ended, Outcome) and ended.status == "stopped"
        return [(task, ended)]

    @staticmethod
    def end(task: Task, do: Callable[[Task], Outcome]) -> Outcome | Crash:
        """What becomes of a task by something that is done; whatever one dies of, the others go on."""
        try:
            return do(task)
        except Exception as error:
            return crash(task, error)


class LocalPool(Engine):
    """Processes side by side, each with one task and its own number of threads (one by default).

    Every place in the pool is a pool of its own: a process that is killed takes no other task with it.
    """

    def __init__(self, num_processes: int, retries: int, gpus: Sequence[str] = ()) -> None:
        """Make the places.

        Args:
            num_processes: places.
            retries: times that a task may be submitted again after a crash.
            gpus: what CUDA_VISIBLE_DEVICES is in the places, in turn; empty leaves it as it is.
        """
        self.capacity = num_processes
        self.retries, self._has_passed_on = retries, False
        self._others = set(multiprocessing.active_children())
        self._context = multiprocessing.get_context("spawn")
        give_huge_pages()
        self._free = [self._place(gpus[i % len(gpus)] if gpus else None) for i in range(num_processes)]
        self._busy: dict[Future[Outcome], tuple[Task, _Place]] = {}

    def submit(self, task: Task) -> None:
        """Give a task to a free process."""
        place = self._free.pop()
        with interrupts_held_back():  # a process that starts could not tell what to do with one
            try:
                future = place.processes.submit(_run_in_worker, task)
            except BrokenProcessPool:  # it was killed while it had nothing to do
                place.processes.shutdown(wait=False)
                place = self._place(place.gpu)
                future = place.processes.submit(_run_in_worker, task)
        self._busy[future] = (task, place)

    def collect(self, timeout: float) -> list[Ended]:
        """Wait for tasks; a process that was killed is replaced."""
        done, _ = wait(self._busy, timeout, FIRST_COMPLETED)
        ended: list[Ended] = []
        for future in done:
            task, place = self._busy.pop(future)
            error = future.exception()
            if isinstance(error, BrokenProcessPool):
                place.processes.shutdown(wait=False)
                place = self._place(place.gpu)
                message = "its process was killed, perhaps for want of memory"
                ended.append((task, Crash(message)))
            else:
                ended.append((task, future.result() if error is None else crash(task, error)))
            self._free.append(place)
        return ended

    def interrupt(self) -> None:
        """Pass the request on, once."""
        for child in set() if self._has_passed_on else {*multiprocessing.active_children()} - self._others:
            if child.pid is not None:
                os.kill(child.pid, PASSED_ON)
        self._has_passed_on = bool(self._busy)

    def close(self) -> None:
        """Let the processes end."""
        for place in [*self._free, *(place for _, place in self._busy.values())]:
            place.processes.shutdown(wait=True, cancel_futures=True)

    def _place(self, gpu: str | None) -> _Place:
        known = (gpu, send_environments())
        made = ProcessPoolExecutor(1, self._context, initializer=_prepare_worker, initargs=known)
        return _Place(made, gpu)


@dataclass(frozen=True)
class _Place:
    """Where one task runs at a time."""

    processes: ProcessPoolExecutor
    gpu: str | None


def gpus_to_share(tasks: Sequence[Task]) -> list[str]:
    """This machine's GPUs as CUDA_VISIBLE_DEVICES names them; none where runs name theirs or use none."""
    devices = {task.config.device for task in tasks}
    if not devices <= {"auto", "cuda", "cpu"} or devices == {"cpu"}:
        return []
    given, count = os.environ.get("CUDA_VISIBLE_DEVICES"), torch.cuda.device_count()
    return given.split(",")[:count] if given else [str(index) for index in range(count)]


class _Worker:
    """What is known in a process of the pool."""

    was_asked_to_stop = False


def _prepare_worker(gpu: str | None, environments: bytes) -> None:
    """Leave Ctrl-C to the parent, which passes it on; an idle process takes note."""
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    receive_environments(environments)
    _hand_over(_take_note)
    take_interrupts()
    threading.Thread(target=_outlive_nobody, args=(os.getppid(),), daemon=True).start()


def _hand_over(handler: Callable[[int, FrameType | None], Any]) -> None:
    for number in (signal.SIGINT, PASSED_ON):
        signal.signal(number, handler)


def _take_note(number: int, frame: FrameType | None) -> None:
    _Worker.was_asked_to_stop = True


def _run_in_worker(task: Task) -> Outcome:
    """A task; a signal ends it at once while it opens its data, and later where it is the second one."""
    _hand_over(signal.default_int_handler)
    try:
        with interruptible():
            if _Worker.was_asked_to_stop:
                raise Interrupted(signal.SIGINT)
            return run_task(task)
    except Interrupted as error:
        return Outcome(task.path, "stopped", "at once, nothing was saved", error.signal_number)
    finally:
        _hand_over(_take_note)


def _outlive_nobody(parent: int) -> None:
    """End this process when its driver was killed: its run saves a checkpoint first."""
    while os.getppid() == parent:
        time.sleep(_WATCH_SECONDS)
    os.kill(os.getpid(), PASSED_ON)
    time.sleep(_GRACE_SECONDS)
    os._exit(128 + signal.SIGTERM)


def crash(task: Task, error: BaseException) -> Crash:
    """A crash's one line; where it came from goes into the run's log."""
    note(task, "traceback: " + "".join(traceback.format_exception(error)))
    return Crash(" ".join(f"{type(error).__name__}: {error}".split()))


def note(task: Task, line: str) -> None:
    """Write a line into a run's log, if there is a run; what keeps it from that stops no other run."""
    if (task.path / "config.json").is_file():
        with contextlib.suppress(ResourceError):
            RunDir(task.path).log(line)

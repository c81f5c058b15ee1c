"""The engine that trains runs of one shape as one program, in this process."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from chibit.core.errors import InputError
from chibit.core.memory import is_out_of_memory
from chibit.core.platform import give_memory_back
from chibit.core.signals import Stopped
from chibit.sweep.engines import Ended, InProcess
from chibit.sweep.tasks import Outcome, Task, finish_task
from chibit.training.stacked import Ended as Ends
from chibit.training.stacked import stack_key, train_stack

_log = logging.getLogger("chibit")


class Stacked(InProcess):
    """Takes all tasks, and does those of one shape together, so many at a time; others one by one."""

    def __init__(
        self, tasks: Sequence[Task], retries: int, most: int | None, num_processes: int | None
    ) -> None:
        """Prepare to take tasks.

        Args:
            tasks: all that there will be.
            retries: times that a task may be submitted again after a crash.
            most: runs in a stack; None is as many as fit.
            num_processes: in which environments take their steps; see `train_stack`.

        Raises:
            InputError: if none of them can be in a stack.
        """
        super().__init__(retries)
        if not any(stack_key(task.config) for task in tasks):
            raise InputError(
                "engine: got stacked, but every run trains by itself only; a stack takes sequence models "
                "that read no text: use --engine pool"
            )
        self.capacity, self._most, self._is_over = len(tasks), most, False
        self._num_processes = num_processes
        self._room: dict[tuple[Any, ...], int] = {}  # by shape, where not as many runs fitted as were tried

    def interrupt(self) -> None:
        """Begin no more tasks."""
        self._is_over = True

    def collect(self, timeout: float) -> list[Ended]:
        """Do the first waiting task, with all that can be done beside it."""
        if self._is_over:
            waiting, self._waiting = self._waiting, []
            return [(task, Outcome(task.path, "stopped", "not started")) for task in waiting]
        if not self._waiting:
            return []
        key = stack_key(self._waiting[0].config)
        if key is None or self._most == 1:
            self._waiting.append(self._waiting.pop(0))
            return super().collect(timeout)
        alike = [task for task in self._waiting if stack_key(task.config) == key]
        alike = alike[: self._room.get(key)]
        runs = [(task.config, task.path) for task in alike]
        try:
            how = train_stack(runs, study=alike[0].study, most=self._most, num_processes=self._num_processes)
        except Exception as error:  # none of them can be
            how = dict.fromkeys([task.path for task in alike], error)
        how = self._that_fitted(how, key)
        self._waiting = [task for task in self._waiting if task.path not in how]
        self.was_interrupted = any(isinstance(error, Stopped) for error in how.values())
        return [
            (task, self.end(task, lambda task: finish_task(task, how[task.path])))
            for task in alike
            if task.path in how
        ]

    def _that_fitted(self, how: Ends, key: tuple[Any, ...]) -> Ends:
        """How runs ended, without those that took more memory than there is: fewer at a time try again.

        How much a run takes is an estimate. Where somebody has said how many, it is not for the engine.
        """
        causes = {path: error.__cause__ for path, error in how.items() if error is not None}
        fallen = {path for path, cause in causes.items() if cause is not None and is_out_of_memory(cause)}
        if self._most is not None or len(fallen) < 2:
            return how
        self._room[key] = len(fallen) // 2
        _log.warning(
            "stack: %d runs do not fit into memory; %d at a time go on", len(fallen), self._room[key]
        )
        left = {path: error for path, error in how.items() if path not in fallen}
        how.clear()
        causes.clear()  # their tracebacks hold the stack
        give_memory_back()
        return left

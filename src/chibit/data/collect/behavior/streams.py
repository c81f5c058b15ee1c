"""Blocks of episodes computed here or in worker processes, and used in order either way."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import active_children, get_context

from chibit.core.errors import ResourceError
from chibit.core.platform import die_with_parent
from chibit.core.signals import uninterrupted
from chibit.data.collect.behavior.rollout import Episode

BlockTask = Callable[[int], list[Episode]]
"""Computes block k of a stream; must be picklable."""

Submit = Callable[[BlockTask, int], "Future[list[Episode]]"]


@contextmanager
def block_runner(num_processes: int) -> Iterator[Submit]:
    """Give a function that has a block computed: at once in this process, or in one of several workers."""
    if num_processes == 1:
        yield _run_here
        return
    # Spawned, not forked: the fork of a process with threads (torch, HDF5) may hang.
    pool = ProcessPoolExecutor(num_processes, mp_context=get_context("spawn"), initializer=_ignore_interrupts)
    try:
        yield lambda task, block: _submit(pool, task, block)
    except BrokenProcessPool as error:
        raise ResourceError(
            "a collecting process was killed, perhaps for want of memory; use fewer with --num-processes"
        ) from error
    except KeyboardInterrupt:
        for child in active_children():  # which would do their blocks to the end
            child.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _submit(pool: ProcessPoolExecutor, task: BlockTask, block: int) -> Future[list[Episode]]:
    with uninterrupted():  # the first call starts the workers, and one that is half started complains
        return pool.submit(task, block)


def in_order(
    submit: Submit, task: BlockTask, *, wanted: int, num_processes: int
) -> Generator[Episode, None, None]:
    """Yield the episodes of a stream in order, without end.

    Args:
        submit: From `block_runner`.
        task: Computes block 0, 1, 2 and so on.
        wanted: Environment steps that the caller will take; blocks beyond them are not computed ahead.
        num_processes: Blocks are computed ahead to keep so many workers busy.
    """
    window = num_processes + 1 if num_processes > 1 else 1
    pending: deque[Future[list[Episode]]] = deque()
    submitted = blocks = steps = 0
    try:
        while True:
            mean = steps / blocks if blocks else 0.0
            while not pending or (len(pending) < window and steps + len(pending) * mean < wanted):
                pending.append(submit(task, submitted))
                submitted += 1
            episodes = pending.popleft().result()
            blocks += 1
            steps += sum(len(episode.rewards) for episode in episodes)
            yield from episodes
    finally:
        for future in pending:
            future.cancel()


def _run_here(task: BlockTask, block: int) -> Future[list[Episode]]:
    future: Future[list[Episode]] = Future()
    future.set_result(task(block))
    return future


def _ignore_interrupts() -> None:
    """Leave Ctrl-C to the parent, which then stops its workers, and end when it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent()

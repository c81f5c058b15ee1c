"""Blocks in order, whoever computes them."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future

import numpy as np
import pytest

from chibit.core.errors import ResourceError
from chibit.data.collect.behavior.rollout import Episode
from chibit.data.collect.behavior.streams import block_runner, in_order


def episode(number: int, steps: int) -> Episode:
    return Episode(number, np.zeros((steps + 1, 1)), np.zeros((steps, 1)), np.zeros(steps), True, False)


class LateRunner:
    """Runs nothing until its result is asked for; remembers what was submitted."""

    def __init__(self) -> None:
        self.submitted: list[int] = []

    def __call__(self, task: Callable[[int], list[Episode]], block: int) -> Future[list[Episode]]:
        self.submitted.append(block)
        future: Future[list[Episode]] = Future()
        future.set_result(task(block))
        return future


def two_episodes(block: int) -> list[Episode]:
    return [episode(2 * block, 10), episode(2 * block + 1, 10)]


@pytest.mark.parametrize("num_processes", [1, 2, 5])
def test_order_does_not_depend_on_the_number_of_processes(num_processes: int) -> None:
    stream = in_order(LateRunner(), two_episodes, wanted=100, num_processes=num_processes)
    assert [next(stream).reset_seed for _ in range(7)] == list(range(7))


def test_one_process_computes_nothing_ahead() -> None:
    runner = LateRunner()
    stream = in_order(runner, two_episodes, wanted=1000, num_processes=1)
    for _ in range(4):
        next(stream)
    assert runner.submitted == [0, 1]


def test_no_more_is_computed_ahead_than_will_be_used() -> None:
    runner = LateRunner()
    stream = in_order(runner, two_episodes, wanted=100, num_processes=2)  # five blocks
    for _ in range(10):
        next(stream)
    assert runner.submitted == [0, 1, 2, 3, 4]


def test_closing_cancels_what_is_not_needed() -> None:
    futures: list[Future[list[Episode]]] = []

    def submit(task: Callable[[int], list[Episode]], block: int) -> Future[list[Episode]]:
        futures.append(Future())
        if block == 0:
            futures[0].set_result(task(0))
        return futures[-1]

    stream = in_order(submit, two_episodes, wanted=1000, num_processes=3)
    next(stream)
    stream.close()
    assert len(futures) == 4 and all(future.cancelled() for future in futures[1:])


def test_killed_worker_is_a_shortage_of_a_resource() -> None:
    with pytest.raises(ResourceError, match="was killed"), block_runner(2) as submit:
        submit(os._exit, 1).result()

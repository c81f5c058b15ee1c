"""Environments in other processes, for evaluations of many runs at once; the episodes are the same.

A process gets every N-th episode, so that runs whose episodes are long are shared out evenly. What goes
between processes of one program is pickled; nothing from outside is.

Dimensions: E environments · N processes · L environments of a process that still run · A act_dim.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import gymnasium as gym
import numpy as np

from chibit.core.errors import ResourceError, UserError, first_line
from chibit.core.platform import die_with_parent, interrupts_held_back
from chibit.core.signals import uninterrupted
from chibit.environments.own import receive_environments, send_environments
from chibit.evaluation.pool import EnvironmentPool, Kind
from chibit.evaluation.stage import Stage, Taken


class Crew(contextlib.AbstractContextManager["Crew"]):
    """Processes that hold environments; they start when there are some for each, and end with this one."""

    def __init__(self, num_processes: int) -> None:
        self.num_processes = num_processes
        self._members: list[tuple[BaseProcess, Connection]] = []

    @contextlib.contextmanager
    def on_stage(self, wanted: Sequence[tuple[EnvironmentPool, int]]) -> Iterator[CrewStage]:
        """So many environments of each pool's kind, one pool after the other; see `stage.on_stage`."""
        kinds = [kind for pool, count in wanted for kind in [pool.kind] * count]
        missing = min(self.num_processes, len(kinds)) - len(self._members)
        if missing > 0:
            with uninterrupted(), interrupts_held_back():  # a process that is half started would end of one
                self._start(missing)
        try:
            yield CrewStage([connection for _, connection in self._members], kinds, wanted[0][0].take(1)[0])
        except ResourceError:  # one is gone, and others may have answers for which nobody waits any more
            self.close()
            raise

    def _start(self, number: int) -> None:
        context, sent = multiprocessing.get_context("spawn"), send_environments()
        for _ in range(number):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, sent), daemon=True)
            process.start()
            theirs.close()
            self._members.append((process, ours))

    def close(self) -> None:
        """End the processes, whatever they are doing."""
        members, self._members = self._members, []
        for _, connection in members:
            connection.close()
        for process, _ in members:
            process.kill()
            process.join()

    def __exit__(self, *ended: object) -> None:
        self.close()


class CrewStage:
    """Environments of several processes as one stage; see `stage.AnyStage`."""

    def __init__(self, members: Sequence[Connection], kinds: Sequence[Kind], example: gym.Env) -> None:
        self._members, self._kinds, self.example = members[: len(kinds)], kinds, example

    def reset(self, seeds: Sequence[int], dtype: np.dtype[Any]) -> tuple[np.ndarray, list[str | None]]:
        """See `AnyStage`."""
        number, shape = len(self._members), self.example.observation_space.shape
        assert shape is not None
        parts = {m: (_Player.begin, self._kinds[m::number], seeds[m::number], dtype) for m in range(number)}
        observations = np.zeros((len(seeds), *shape), dtype)
        missions: list[str | None] = [None] * len(seeds)
        for member, (seen, said) in enumerate(self._ask(parts)):
            observations[member::number], missions[member::number] = seen, said
        self._shape, self._dtype = shape, dtype
        return observations, missions

    def step(self, actions: np.ndarray, running: np.ndarray) -> Taken:
        """See `AnyStage`."""
        number, size = len(self._members), len(running)
        places = [np.flatnonzero(running % number == member) for member in range(number)]
        parts = {
            member: (_Player.step, actions[member::number], running[own] // number)
            for member, own in enumerate(places)
            if len(own)
        }
        taken = Taken(
            np.zeros((size, *self._shape), self._dtype),
            np.zeros(size),
            np.zeros(size, bool),
            np.zeros(size, np.int8),
            {},
        )
        for member, part in zip(parts, self._ask(parts), strict=True):
            own = places[member]
            taken.observations[own], taken.rewards[own] = part.observations, part.rewards
            taken.dones[own], taken.successes[own] = part.dones, part.successes
            taken.faults.update({int(own[place]): fault for place, fault in part.faults.items()})
        return taken

    def _ask(self, parts: dict[int, tuple[Any, ...]]) -> Iterator[Any]:
        """Ask processes at once, and give their answers in order; what one raised, this one does."""
        try:
            for member, part in parts.items():
                self._members[member].send(part)
            for answer in [self._members[member].recv() for member in parts]:
                if isinstance(answer, Exception):
                    raise answer
                yield answer
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            raise ResourceError(
                "a process of the environments was killed, perhaps for want of memory; use fewer with "
                "--num-processes"
            ) from error


def _serve(connection: Connection, environments: bytes) -> None:
    """Hold environments, and do what is asked for, until nobody asks any more."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # they are the parent's, which may still have episodes to play
    die_with_parent()
    receive_environments(environments)
    with contextlib.ExitStack() as held, contextlib.suppress(EOFError, BrokenPipeError):
        player = _Player(held)
        while True:
            do, *what = connection.recv()
            try:
                answer = do(player, *what)
            except UserError as error:
                answer = error
            except Exception as error:  # of a class that may not travel
                answer = RuntimeError(f"an environment raised {type(error).__name__}: {first_line(error)}")
            connection.send(answer)


class _Player:
    """The environments of a process."""

    def __init__(self, held: contextlib.ExitStack) -> None:
        self._held = held
        self._pools: dict[Kind, EnvironmentPool] = {}
        self._stage, self._playing = Stage([]), list[tuple[Kind, gym.Env]]()

    def begin(
        self, kinds: Sequence[Kind], seeds: Sequence[int], dtype: np.dtype[Any]
    ) -> tuple[np.ndarray, list[str | None]]:
        """Begin an episode in an environment of each kind, without those that failed before."""
        for kind, env in self._playing:
            if any(env is failed for failed in self._stage.failed):
                self._pools[kind].drop([env])
        self._playing = []
        for kind in set(kinds) - self._pools.keys():
            self._pools[kind] = self._held.enter_context(EnvironmentPool(*kind))
        free = {kind: iter(self._pools[kind].take(count)) for kind, count in Counter(kinds).items()}
        self._playing = [(kind, next(free[kind])) for kind in kinds]
        self._stage = Stage([env for _, env in self._playing])
        return self._stage.reset(seeds, dtype)

    def step(self, actions: np.ndarray, running: np.ndarray) -> Taken:
        """See `AnyStage`."""
        return self._stage.step(actions, running)

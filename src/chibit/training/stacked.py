"""Several runs of one shape as one program; each leaves the directory that it would have left alone.

What a run is (its data, log, evaluations, checkpoints, result) is `OfflineRun`'s; here are the steps, which
all take at once, and who of them goes on. A run that ends early, by divergence, a full disk or whatever its
environment breaks of, leaves the others.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from chibit.agents import AgentConfig
from chibit.agents.guard import MOST_UNREAD
from chibit.agents.stack import AgentStack
from chibit.core.errors import InputError, ResourceError, UserError
from chibit.core.memory import limited_memory
from chibit.core.platform import available_cores
from chibit.core.runtime import (
    Runtime,
    capture_rng,
    free_memory,
    resolve_runtime,
    restore_rng,
)
from chibit.core.signals import StopRequests
from chibit.data.samplers.stacked import StackedSampler, side_by_side
from chibit.data.spec import DatasetSpec
from chibit.evaluation.crew import Crew
from chibit.evaluation.rollout import Evaluation, Played, evaluate_all
from chibit.training.longer import carry_on
from chibit.training.offline import OfflineRun, opened
from chibit.training.pretrain.sources import train_sources
from chibit.training.run_config import RunConfig

_SHARED = (
    *("num_steps", "evaluate_every", "num_episodes", "checkpoint_every", "log_every"),
    *("precision", "device", "num_threads"),
)
"""Settings of runs that must be equal in a stack, beside the shape of their agents."""
_FACTOR = 2.0
"""What a run takes in a stack, over the bound from below that its config gives (docs/log.md)."""
Ended = dict[Path, Exception | None]
"""How runs ended, by their directories: None where they are finished."""


def stack_key(config: RunConfig[Any]) -> tuple[Any, ...] | None:
    """The same for runs that may be of one shape; None for one that trains by itself only."""
    shape = config.agent.for_steps(config.num_steps).stack_shape
    return None if shape is None else (shape, *(vars(config)[name] for name in _SHARED))


def train_stack(
    runs: Sequence[tuple[RunConfig[Any], Path]],
    *,
    study: str = "runs",
    most: int | None = None,
    num_processes: int | None = None,
) -> Ended:
    """Train runs of one shape side by side on one device, each in its own directory.

    Args:
        runs: configurations and directories. The first that can be opened says what the others must be like.
        study: name of the study they belong to.
        most: runs in the stack; None is as many as fit into the memory of the device.
        num_processes: in which environments take their steps; None is one for each core of the machine where
            models are on a GPU, and else this one alone, as 1 is.

    Returns:
        How those of them ended that were taken, or could not be: the others are of another shape, at another
        step, or more than fit, and were left as they are.

    Raises:
        InputError: for settings that differ where they must not, naming them; or a device that is not there.
        ResourceError: if `most` runs do not fit, saying how many would.
    """
    first = runs[0][0]
    for config, path in runs[1:]:
        refuse_difference(first, config, path)
    runtime = resolve_runtime(first.device, first.precision, first.num_threads)
    with contextlib.ExitStack() as held:
        members, ended = _open_members(runs, runtime, study, most, held)
        try:
            if len(members) == 1:
                _train_alone(members[0], runtime)
            elif members:
                remedy = f"use --stack {len(members) // 2}"
                with limited_memory(runtime.torch_device.type, remedy):
                    _Stack(members, runtime, num_processes or usual_processes(runtime), ended).run_to_end()
        except Exception as error:
            ended |= dict.fromkeys([m.path for m in members if m.path not in ended], error)
    ends: Ended = dict.fromkeys([member.path for member in members])
    return ends | ended


def usual_processes(runtime: Runtime) -> int:
    """Processes of a stack's environments: while a CPU computes models, it has no time for others."""
    return available_cores() if runtime.torch_device.type == "cuda" else 1


def _train_alone(member: _Member, runtime: Runtime) -> None:
    """A run beside which there is none."""
    restore_rng(member.rng, runtime.torch_device)
    with limited_memory(runtime.torch_device.type):
        member.run.run_to_end()


def refuse_difference(first: RunConfig[Any], other: RunConfig[Any], path: Path) -> None:
    """Stop where two runs cannot be of one stack, as far as their settings say.

    Raises:
        InputError: naming the first setting that differs.
    """
    shapes = [config.agent.for_steps(config.num_steps).stack_shape for config in (first, other)]
    for config, shape in zip((first, other), shapes, strict=True):
        if shape is None:
            raise InputError(
                f"{config.arm_name}: trains by itself only; a stack takes sequence models that read no text"
            )
    ours, theirs = (
        {**{name: vars(config)[name] for name in _SHARED}, "agent": config.agent.agent, **vars(shape)}
        for config, shape in zip((first, other), shapes, strict=True)
    )
    for name, value in ours.items():
        if theirs.get(name) != value:
            raise InputError(
                f"{path}: {name} is {theirs.get(name)!r}, in the first run of the stack {value!r}; runs of "
                "one stack may differ in seed, data, initializer, step sizes and weights of losses alone"
            )


def memory_of_run(config: AgentConfig, spec: DatasetSpec) -> float:
    """Bytes that a run takes in a stack."""
    return max(1.0, _FACTOR * config.num_bytes(spec))


def _open_members(
    runs: Sequence[tuple[RunConfig[Any], Path]],
    runtime: Runtime,
    study: str,
    most: int | None,
    held: contextlib.ExitStack,
) -> tuple[list[_Member], Ended]:
    """Open runs and hold their locks, as many as fit; those that are finished or refused have ended."""
    members: list[_Member] = []
    ended: Ended = {}
    for config, path in runs:
        if members and len(members) == most:
            break
        with contextlib.ExitStack() as own:
            try:
                with limited_memory(runtime.torch_device.type):
                    member = own.enter_context(_member(config, path, runtime, study))
            except Exception as error:
                ended[path] = error
                continue
            if member is None:
                ended[path] = None
                continue
            if not members:
                most = _how_many(member, runtime, len(runs), most)
            elif member.obstacle(members[0]) is not None:
                continue
            members.append(member)
            held.enter_context(own.pop_all())
    return members, ended


def _how_many(first: _Member, runtime: Runtime, there: int, asked: int | None) -> int:
    """Runs in a stack of at most so many, of which the first is open; one if it can be in none."""
    if first.obstacle(first) is not None:
        return 1
    each = memory_of_run(first.run.agent.config, first.run.spec)
    fits = max(1, int(free_memory(runtime.torch_device) // each))
    wanted = there if asked is None else min(asked, there)
    if asked is not None and wanted > fits:
        free = free_memory(runtime.torch_device) / 1e9
        raise ResourceError(
            f"stack: {wanted} runs do not fit into the {free:.1f} GB that are free on {runtime.device}; "
            f"{fits} would: use --stack {fits}"
        )
    return min(fits, wanted)


class _Member:
    """A run of the stack, and the state of torch's generators that it would have alone."""

    def __init__(self, run: OfflineRun, device: torch.device) -> None:
        self.run, self.path = run, run.run.path
        self.rng = capture_rng(device)

    def obstacle(self, first: _Member) -> str | None:
        """What keeps it out of a stack that begins with another one, or itself."""
        return self.run.agent.stack_obstacle(first.run.agent)


@contextlib.contextmanager
def _member(config: RunConfig[Any], path: Path, runtime: Runtime, study: str) -> Iterator[_Member | None]:
    """Hold a run at its newest checkpoint, or its begin; None where it is finished."""
    going_on = carry_on(config, path)
    config = going_on.config
    with opened(going_on, path, study=study) as run:
        if going_on.is_over(run):
            yield None
            return
        train_sources(config.agent, progress=False)
        offline = OfflineRun(config, run, runtime, None, (), progress=False)
        offline.resume(True, allow_inexact=False)
        going_on.extend(run)
        offline.agent.step = offline.state.step
        yield _Member(offline, runtime.torch_device)


class _Stack:
    """The loop over steps of all members."""

    def __init__(
        self, members: Sequence[_Member], runtime: Runtime, num_processes: int, ended: Ended
    ) -> None:
        """Prepare the steps; who ends before the others is put into `ended`."""
        self.members, self.ended = list(members), ended
        self.crew = Crew(num_processes) if num_processes > 1 else None
        self.device = runtime.torch_device
        agents = [member.run.agent for member in members]
        self.agents: AgentStack = type(agents[0]).stack(agents)
        self.agents.begin_draws([member.rng["cpu"] for member in members])
        self.sampler = StackedSampler([cast(Any, m.run.sampler) for m in members], self.device)
        self.stop = StopRequests()
        self._unread: list[Mapping[str, Tensor | Sequence[float]]] = []

    def run_to_end(self) -> None:
        """Until each member is finished, or ended by itself."""
        with self.stop, contextlib.ExitStack() as held, self.crew or contextlib.nullcontext():
            for member in self.members:
                held.enter_context(member.run.resources())
                held.callback(self._close, member)
            while self.members and not self._first.is_done:
                self._step()
                self._follow_up()
            self._each(lambda member: member.run.saver.wait())
            self._each(lambda member: member.run.finish())

    @property
    def _first(self) -> OfflineRun:
        return self.members[0].run

    def _close(self, member: _Member) -> None:
        """Close what writes a member's checkpoints; a fault there has ended it before."""
        with contextlib.suppress(UserError), member.run.saver:
            pass

    def _step(self) -> None:
        with self._training():
            self._unread.append(self.agents.update(self.sampler.sample()))
        for member in self.members:
            member.run.state.step += 1

    @contextlib.contextmanager
    def _training(self) -> Iterator[None]:
        """Share the time within out to all members, as time of training."""
        started = time.perf_counter()
        yield
        share = (time.perf_counter() - started) / len(self.members)
        for member in self.members:
            member.run.state.train_seconds += share

    def _follow_up(self) -> None:
        """As `Loop` does after a step, for every member."""
        first, signal_number = self._first, self.stop.signal_number
        evaluates = first.config.evaluates_at(first.state.step)
        reads = first.logs_now or evaluates or signal_number or first.saves_now(best=False)
        if reads or len(self._unread) == MOST_UNREAD:
            self._read()
        if first.logs_now and self.members:
            self._measure()
            self._each(lambda member: member.run.write_metrics())
        best = self._evaluate() if evaluates and self.members else set()
        saving = [m for m in self.members if signal_number or m.run.saves_now(best=m.path in best)]
        if saving:
            self.agents.scatter()
            states = dict(zip(map(id, self.members), self.agents.rng_states(), strict=True))
            self._each(lambda m: self._save(m, states[id(m)], best=m.path in best), saving)
        if signal_number and self.members and not self._first.is_done:
            self._each(lambda member: member.run.saver.wait())
            self._end([(member, member.run.stopped(signal_number)) for member in self.members])

    def _measure(self) -> None:
        """Have the errors on what is held out ready for the log, those of all runs at once."""
        held_out = [member.run.held_out for member in self.members if member.run.held_out is not None]
        if len(held_out) < len(self.members):
            if held_out:
                self.agents.scatter()  # so that each can measure its own
            return
        started = time.perf_counter()
        parts = zip(*(each.parts for each in held_out), strict=True)  # one part of each run
        measured = [self._errors([part.batches for part in of_all]) for of_all in parts]
        errors, squares = torch.stack([error for error, _ in measured], 1).tolist(), measured[0][1]
        by_dimension = None if squares is None else squares.cpu().numpy()
        share = (time.perf_counter() - started) / len(self.members)
        for place, (member, each) in enumerate(zip(self.members, held_out, strict=True)):
            each.ahead = errors[place], None if by_dimension is None else by_dimension[place]
            member.run.state.evaluation_seconds += share

    def _errors(self, batches: Sequence[Sequence[Any]]) -> tuple[Tensor, Tensor | None]:
        """(R,) mean errors over batches of each run, and (R, A) those of each dimension, squared."""
        measured = [
            self.agents.action_errors(side_by_side(of_all, self.device))
            for of_all in zip(*batches, strict=True)
        ]
        squares = [square for _, square in measured if square is not None]
        mean = torch.stack([error for error, _ in measured]).mean(0)
        return mean, torch.stack(squares).mean(0) if squares else None

    def _read(self) -> None:
        """Wait for the steps since the last time; hand out what they gave, and end who diverged."""
        unread, self._unread = self._unread, []
        tensors = [value for step in unread for value in step.values() if isinstance(value, Tensor)]
        with self._training():
            failures = self.agents.failures()
            read = iter(torch.stack(tensors).tolist() if tensors else ())
        steps = [{n: next(read) if isinstance(v, Tensor) else v for n, v in step.items()} for step in unread]
        diverged: list[tuple[_Member, Exception]] = []
        for place, member in enumerate(self.members):
            if place not in failures:
                member.run.add_up({name: values[place] for name, values in step.items()} for step in steps)
                continue
            error = failures[place]
            error.rows = tuple(self.sampler.own_rows(torch.tensor(error.rows).numpy(), place).tolist())
            try:
                with member.run.written_down():
                    raise error
            except UserError as told:
                diverged.append((member, told))
        self._end(diverged)

    def _evaluate(self) -> set[Path]:
        """Play the episodes of all members at once; directories of those that are the best so far."""
        asked = [(place, member.run.to_play()) for place, member in enumerate(self.members)]
        parts = [replace(played, place=place) for place, played in asked if played is not None]
        if any(member.run.config.best_by == "held_out" for member in self.members):
            self.agents.scatter()
        paths = [self.members[part.place].path for part in parts]
        played = dict(zip(paths, self._play(parts), strict=True))
        best: set[Path] = set()

        def take_in(member: _Member) -> None:
            evaluations = played.get(member.path, [])
            if isinstance(evaluations, Exception):
                raise evaluations
            if member.run.take_in(evaluations):
                best.add(member.path)

        self._each(take_in)
        return best

    def _play(self, parts: Sequence[Played]) -> list[list[Evaluation] | Exception]:
        """Play all parts at once; where that breaks, each by itself, to find whose environments do."""
        try:
            return [*evaluate_all(self.agents.policy(), parts, crew=self.crew)] if parts else []
        except Exception as error:
            return [error] if len(parts) == 1 else [own for part in parts for own in self._play([part])]

    def _save(self, member: _Member, state: Tensor | None, *, best: bool) -> None:
        """Save a member's checkpoint, with the generators as it would have them alone."""
        if state is not None:
            member.rng["cpu"] = state
        restore_rng(member.rng, self.device)
        member.run.save(best=best)

    def _each(self, action: Callable[[_Member], object], members: Sequence[_Member] | None = None) -> None:
        """Do something for members; one with which that fails ends, and the others go on."""
        failed: list[tuple[_Member, Exception]] = []
        for member in self.members if members is None else members:
            try:
                action(member)
            except Exception as error:
                failed.append((member, error))
        self._end(failed)

    def _end(self, ended: Sequence[tuple[_Member, Exception]]) -> None:
        """Take members out of the stack; all steps were read."""
        if not ended:
            return
        self.ended |= {member.path: error for member, error in ended}
        gone = {id(member) for member, _ in ended}
        places = [place for place, member in enumerate(self.members) if id(member) not in gone]
        self.members = [self.members[place] for place in places]
        if places:
            self.agents.keep(places)
            self.sampler.keep(places)

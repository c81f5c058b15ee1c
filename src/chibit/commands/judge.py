"""``chibit judge``: what can be said of trained runs without a simulator."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from annotated_types import MinLen
from rich.console import Console
from rich.table import Table

from chibit.commands.parsing import WithModules, parse
from chibit.core.config import to_json
from chibit.core.errors import InputError, UserError
from chibit.core.fields import BASIC, BelowOne, Count, Seed, Targets
from chibit.core.files import write_atomic
from chibit.core.formatting import count, format_number, format_setting, shown_time
from chibit.core.progress import LONG_SECONDS
from chibit.core.run_dir import RunDir, other_than_run
from chibit.core.terminal import make_console, print_table
from chibit.judging.judgement import FILE, SCHEMA, beside_clone

if TYPE_CHECKING:
    from chibit.agents.base import Policy
    from chibit.data.choices import Choice
    from chibit.data.dataset import DatasetSpec, TrajectoryDataset
    from chibit.judging.judge import Judge, JudgeConfig
    from chibit.judging.judgement import AtLoggedSteps, Judgement, PlayedInModel
    from chibit.training.run_config import RunConfig

_TIMES_FORWARD = 3
"""What a gradient step costs for each that a policy acts."""
_CAPTION = (
    "return and value (discounted): in a model learned from the log, with the model spread, which is no "
    "confidence interval; disagree: the models among themselves, in units of the clone's; outside: share of "
    "steps beyond the log's range; action error: {unit}, on {episodes}; chibit report shows more"
)
_NOT_OWN = "this is not the log that policies learned from, so that no run's folder keeps what is said"


@dataclass(frozen=True, kw_only=True)
class JudgeArguments(WithModules):
    """Judge trained runs without a simulator, in a model learned from their log.

    Their returns are compared with that of a plain clone in the same model. No number is given where a policy
    leaves what the log covers. The model is learned once for a data set and kept.

    Example: chibit judge runs/mine/hopper --target-returns 3600 1800
    """

    runs: Annotated[tuple[Path, ...], MinLen(1), tyro.conf.Positional]
    """Run directories, or folders of them. Of a folder (a study) the finished runs are judged."""
    target_returns: Annotated[Targets, BASIC] = ()
    """Raw returns to ask for; of runs that take some. Empty takes the run's own."""
    data: Annotated[str, BASIC] = ""
    """Log to judge on: their own, if moved, or another. Empty takes each run's own where it was."""
    checkpoint: Annotated[str, BASIC] = "last"
    """last, best, or a step."""
    horizon: Annotated[Count | None, BASIC] = None
    """Steps after which an episode is cut; in the model. None takes the data's time limit."""
    discount: Annotated[BelowOne, BASIC] = 0.99
    """Discount of values, per step."""
    seed: Annotated[Seed, BASIC] = 0
    """Seed of the model and of its test."""
    device: Annotated[str, BASIC] = "auto"
    """Where policies act; auto, cpu, cuda or cuda:N. The model is on the CPU."""
    other_estimates: bool = False
    """Fitted Q and importance sampling too; they mislead: off the logged behavior the first preferred
    policies that fall at once to all good ones, and the second gives the log's mean to any policy."""

    @property
    def config(self) -> JudgeConfig:
        """How policies are judged."""
        from chibit.judging.fitting import FitConfig
        from chibit.judging.judge import JudgeConfig

        fit = FitConfig(seed=self.seed)
        return JudgeConfig(fit=fit, horizon=self.horizon, discount=self.discount)


@dataclass(frozen=True, eq=False)
class _Run:
    """A run without its model, which is in memory only while it is judged."""

    path: Path
    config: RunConfig[Any]
    spec: DatasetSpec


@dataclass(frozen=True)
class _Judged:
    """What is said of a policy."""

    run: _Run
    log: _Log
    judge: Judge
    judgement: Judgement
    others: str
    """The other estimates in a line; empty where they were not asked for."""


def judge(argv: Sequence[str], prog: str) -> None:
    """``chibit judge``."""
    asked = parse(JudgeArguments, argv, prog)
    named: dict[Path, Path] = {}
    for path in (path for given in asked.runs for path in _runs_in(given)):
        named.setdefault(path.resolve(), path)
    _judge_all([*named.values()], asked)


def judge_runs(paths: Sequence[Path], *, device: str = "auto", progress: bool = True) -> None:
    """Judge finished runs as the command does, at their own target returns; say why where that cannot be."""
    try:
        _judge_all(paths, JudgeArguments(runs=tuple(paths), device=device), progress=progress)
    except UserError as error:
        make_console().print(f"not judged: {error}", soft_wrap=True)


def judging_at_end(
    config: RunConfig[Any], dataset: TrajectoryDataset, held_out: TrajectoryDataset | None
) -> tuple[bool, Choice]:
    """Whether a run without an environment is judged when it is finished, and that in words.

    Not where nothing can be learned of the log, nor where it would take longer than the run, and than a
    minute: somebody who tries something out does not wait for that.
    """
    from chibit.data.choices import Choice
    from chibit.judging import judge as judging
    from chibit.training import outlook

    what = "judging at the end"
    try:
        judging.check_log(dataset, held_out)
    except InputError as error:
        return False, Choice(what, "none", str(error))
    num_policies = len(config.targets(dataset.spec) or (None,))
    seconds = judging.rough_seconds(
        dataset, num_policies=num_policies, seconds_an_action=_seconds_an_action(config)
    )
    shown = shown_time(seconds)
    if seconds > max(LONG_SECONDS, outlook.rough_seconds(config, dataset)):
        return False, Choice(what, "none", f"about {shown}, longer than the run; chibit judge does it")
    return True, Choice(what, shown, "rough; in a model of the log; --no-judge leaves it out")


def _seconds_an_action(config: RunConfig[Any]) -> float:
    a_step = config.agent.rough_seconds_a_step(config.num_steps, config.precision)
    return a_step / (_TIMES_FORWARD * config.agent.batch_size)


def _judge_all(paths: Sequence[Path], asked: JudgeArguments, *, progress: bool = True) -> None:
    """Judge every run that can be; those that cannot are named, and raise at the end."""
    from chibit.judging.judge import Judge

    console = make_console()
    judged: list[_Judged] = []
    names = _names(paths)
    runs, failed = _try_all(paths, asked)
    logs, unopened = _logs(runs, asked, progress)
    failed += unopened
    for log in logs:
        try:
            judge_ = Judge(log.train, held_out=log.held_out, config=asked.config, progress=progress)
        except UserError as error:
            failed += [error] * len(log.runs)
            continue
        for run in log.runs:
            try:
                judged += _judge_run(judge_, run, log, names[run.path], asked)
            except UserError as error:
                failed.append(error)
    for judge_ in dict.fromkeys(one.judge for one in judged):
        _print(console, judge_, [one for one in judged if one.judge is judge_])
    if failed and not judged:
        raise failed[0]
    for line in dict.fromkeys(map(str, failed)):
        console.print(f"not judged: {line}", soft_wrap=True)
    if failed:
        raise UserError(f"{len(failed)} of {count(len(paths), 'run')} not judged; the lines above say why")


def _runs_in(folder: Path) -> list[Path]:
    """The folder itself where it is a run, or is nothing that holds any; else its finished runs."""
    if (folder / "config.json").exists() or not folder.is_dir():
        return [folder]
    inside = sorted(path for path in folder.iterdir() if _may_be_run(path))
    finished = [path for path in inside if RunDir(path).is_finished]
    if inside and not finished:
        raise InputError(f"{folder}: none of its {count(len(inside), 'run')} is finished; let them train on")
    return finished or [folder]


def _may_be_run(folder: Path) -> bool:
    """Whether a folder is a run's, also a damaged one, which is named when it is loaded."""
    with contextlib.suppress(UserError):
        return (folder / "config.json").exists() and not other_than_run(folder)
    return True


def _try_all(paths: Sequence[Path], asked: JudgeArguments) -> tuple[list[_Run], list[UserError]]:
    """Load one run after the other, so that what cannot be loaded is known before anything is judged."""
    from chibit.judging.estimators import check_actions

    runs: list[_Run] = []
    failed: list[UserError] = []
    for path in paths:
        try:
            runs.append(_try_loading(path, asked))
        except UserError as error:
            failed.append(error)
    if runs and asked.target_returns and not any(run.config.agent.takes_target_returns for run in runs):
        agents = ", ".join(dict.fromkeys(run.config.agent.agent for run in runs))
        raise InputError(f"target_returns: agent {agents} takes none; leave them out")
    if asked.other_estimates:
        for run in runs:
            check_actions(run.spec)
    return runs, failed


def _try_loading(path: Path, asked: JudgeArguments) -> _Run:
    from chibit.training.loading import load_run

    loaded = load_run(path, asked.checkpoint, device=asked.device)
    return _Run(path, loaded.config, loaded.spec)


@dataclass(frozen=True, eq=False)
class _Log:
    """A log, or a split of it, and the runs that are judged on it."""

    train: TrajectoryDataset
    held_out: TrajectoryDataset | None
    runs: list[_Run]
    is_own: bool
    """Whether the runs learned from it, and not from another."""


def _logs(runs: Sequence[_Run], asked: JudgeArguments, progress: bool) -> tuple[list[_Log], list[UserError]]:
    """Policies of one log are compared with each other, by one judge; and why some logs cannot be opened."""
    from chibit.judging.judge import rough_seconds

    logs: dict[tuple[Any, ...], _Log] = {}
    failed: list[UserError] = []
    for run in runs:
        try:
            train, held_out, is_own = _open(run, asked.data)
        except UserError as error:
            failed.append(error)
            continue
        bounds = train.spec.action_low, train.spec.action_high  # in whose units a policy acts
        key = (train.content_hash, "" if held_out is None else held_out.content_hash, bounds, is_own)
        logs.setdefault(key, _Log(train, held_out, [], is_own)).runs.append(run)
    seconds = sum(
        rough_seconds(
            log.train,
            num_policies=sum(len(_targets(run, asked)) for run in log.runs),
            seconds_an_action=max(_seconds_an_action(run.config) for run in log.runs),
            config=asked.config,
        )
        for log in logs.values()
    )
    if progress and seconds > LONG_SECONDS:
        line = f"judging {count(len(runs), 'run')}: about {shown_time(seconds)} (rough, for one core)"
        make_console(stderr=True).print(line, soft_wrap=True)
    return [*logs.values()], failed


def _open(run: _Run, data: str) -> tuple[TrajectoryDataset, TrajectoryDataset | None, bool]:
    """A log, all of it also where a run learned from a fraction; what it held out; whether it is its own."""
    from chibit.training.run_data import are_here, open_again, open_data, open_given

    whole = dataclasses.replace(run.config, data_fraction=1.0)
    if data:
        return open_given(RunDir(run.path), whole, data)
    try:
        opened = open_again(RunDir(run.path), run.config)
    except InputError as error:
        if are_here(run.config):
            raise
        raise InputError(f"{error}, or give --data") from error
    return *(opened if run.config == whole else open_data(whole)), True


def _targets(run: _Run, asked: JudgeArguments) -> Sequence[float | None]:
    return run.config.targets(run.spec, asked.target_returns) or (None,)


def _names(paths: Sequence[Path]) -> dict[Path, str]:
    """The last part of each path, and with it as many before as tell those of one name apart."""
    parts = {path: path.resolve().parts for path in paths}
    depths = dict.fromkeys(parts, 1)
    for depth in range(2, max(map(len, parts.values())) + 1):
        ends = Counter(whole[-depths[path] :] for path, whole in parts.items())
        depths |= {path: depth for path in parts if ends[parts[path][-depths[path] :]] > 1}
    return {path: "/".join(whole[-depths[path] :]) for path, whole in parts.items()}


def _judge_run(judge_: Judge, run: _Run, log: _Log, called: str, asked: JudgeArguments) -> list[_Judged]:
    """Judge a run's policies, and write it down in its folder where that can be, if the log is its own."""
    from chibit.training.loading import load_run

    loaded = load_run(run.path, asked.checkpoint, device=asked.device)
    found = []
    for target in _targets(run, asked):
        policy = loaded.agent.policy(None if target is None else [target])
        name = called
        if loaded.step != run.config.num_steps:
            name += f" at step {loaded.step:,}"
        if target is not None:
            name += f" asked for {format_setting(target)}"
        judgement = judge_(policy, name=name, target_return=target, step=loaded.step)
        others = _others(judge_, policy, name) if asked.other_estimates else ""
        found.append(_Judged(run, log, judge_, judgement, others))
    if not log.is_own:
        return found
    own = [to_json(one.judgement) for one in found]
    try:
        write_atomic(run.path / FILE, json.dumps({"schema": SCHEMA, "judgements": own}, indent=1))
    except UserError as error:  # as in a folder of somebody else's: it is said all the same
        make_console(stderr=True).print(f"not kept: {error}", soft_wrap=True)
    return found


def _others(judge_: Judge, policy: Policy, name: str) -> str:
    try:
        other = judge_.other_estimates(policy)
    except InputError as error:
        return f"no other estimates for {name}: {error}"
    return (
        f"not to be believed, {name}: fitted Q evaluation {format_number(other.fqe)}, importance sampling "
        f"{format_number(other.wis)} (worth {other.effective_episodes:.1f} of "
        f"{count(other.num_episodes, 'episode')})"
    )


def _print(console: Console, judge_: Judge, judged: Sequence[_Judged]) -> None:
    from chibit.judging.verdict import rank, verdict

    log, judgements = judge_.log, [one.judgement for one in judged]
    are_held_out = all(one.log.held_out is not None for one in judged)
    print_table(console, _table(judge_, rank(judgements), are_held_out))
    other = () if all(one.log.is_own for one in judged) else (_NOT_OWN,)
    for line in (*other, *log.notes, *(note for judgement in judgements for note in judgement.notes)):
        console.print(f"note: {line}", soft_wrap=True)
    for judgement in judgements:
        for reason in judgement.reasons:
            console.print(f"no number for {judgement.name}: {reason}", soft_wrap=True)
    for one in judged:
        if one.others:
            console.print(one.others, soft_wrap=True)
    console.print(f"verdict: {verdict(judgements)}", soft_wrap=True)


def _table(judge_: Judge, judgements: Sequence[Judgement], are_held_out: bool) -> Table:
    log = judge_.log
    title = (
        f"{log.data}: {count(log.num_episodes, 'episode')}, mean return {format_number(log.mean_return)}; "
        f"the model follows held-out episodes for {count(log.self_test.horizon, 'step')}"
    )
    table = Table(
        title=title, caption=_caption(are_held_out, is_discrete=not log.clone_at_steps.error.by_dimension)
    )
    table.add_column("policy", overflow="fold")
    columns = ("return", "to clone", "value", "disagree", "outside", "action error")
    for column in columns:
        table.add_column(column, justify="right")
    for one in judgements:
        table.add_row(one.name, *_cells(one.in_model, one.at_steps, log.clone, is_kept=one.total is not None))
    table.add_section()
    clone = _cells(log.clone, log.clone_at_steps, log.clone, is_kept=not log.unfit)
    table.add_row("clone of the log", *clone)
    return table


def _cells(
    played: PlayedInModel, at_steps: AtLoggedSteps, clone: PlayedInModel, *, is_kept: bool
) -> Iterator[str]:
    yield played.total.short if is_kept else "no number"
    yield beside_clone(played, clone) if is_kept else ""
    yield played.value.short if is_kept else ""
    yield f"{played.times_disagreement(clone):.1f}"
    yield f"{played.clipped:.0%}"
    yield format_number(at_steps.error.relative)


def _caption(are_held_out: bool, *, is_discrete: bool) -> str:
    held_out = "held-out episodes"
    learned = "episodes that policies may have learned from (--validation-share holds some out)"
    unit = "share of other choices" if is_discrete else "root mean square, in units of the log's spread"
    return _CAPTION.format(unit=unit, episodes=held_out if are_held_out else learned)

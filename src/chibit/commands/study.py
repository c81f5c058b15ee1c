"""``chibit study``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from annotated_types import Interval, MinLen
from rich.console import Console
from rich.table import Table

from chibit.commands.parsing import WithModules, parse
from chibit.core.errors import InputError, ResourceError, UserError
from chibit.core.fields import (
    MAX_EPISODES,
    Count,
    Distinct,
    Natural,
    Needs,
    Out,
    Positive,
    Seed,
    Share,
    Workers,
)
from chibit.core.files import check_can_make
from chibit.core.targets import read_targets
from chibit.core.terminal import make_console

if TYPE_CHECKING:
    from chibit.sweep import Outcome
    from chibit.sweep.tasks import Task
    from chibit.training.run_config import RunConfig


@dataclass(frozen=True, kw_only=True)
class StudyArguments(WithModules):
    """Run a table or figure of the paper or another study, and report it. Finished runs are skipped.

    Example: chibit study table2 --seeds 0 1 --num-steps 200 --data hopper-medium --arms random chibit
    """

    name: Annotated[str, tyro.conf.Positional] = ""
    """The study, or MODULE:NAME of one of yours; empty lists them."""
    seeds: Annotated[tuple[Seed, ...], MinLen(1), Distinct()] = (0, 1, 2)
    """One run of every arm on every data set for each."""
    until_half_width: Positive | None = None
    """Add seeds until the 95% intervals of all comparisons over all data sets are within plus or minus this
    many points; None runs the seeds given."""
    max_seeds: Annotated[
        Count | None, Needs("--until-half-width", lambda study: study.until_half_width is not None)
    ] = None
    """Largest number of seeds with --until-half-width; None is 20."""
    arms: Annotated[tuple[str, ...], Distinct()] = ()
    """Recipes in place of the study's own."""
    data: Annotated[tuple[str, ...], Distinct()] = ()
    """Data sets in place of the study's own."""
    env_id: str | None = None
    """Environment to evaluate in (Hopper-v4), where the data name none or another."""
    fractions: Annotated[tuple[Share, ...], Distinct()] = ()
    """Shares of the episodes to train on, in place of the study's own; redrawn with each seed."""
    rates_from: Path | None = None
    """Folder of the runs of study rates, for studies in which each arm has a learning rate of its own."""
    num_steps: Count | None = None
    """Gradient steps; None is the study's own number."""
    evaluate_every: Natural | None = None
    """Gradient steps between evaluations; None is the study's own number, or a quarter of fewer steps."""
    num_episodes: Annotated[int, Interval(ge=0, le=MAX_EPISODES)] | None = None
    """Episodes for each target return; None is the recipe's."""
    target_returns: tuple[str, ...] = ()
    """Raw returns to ask for, on every data set or by environment, such as hopper=3600,1800 halfcheetah=6000;
    empty takes the study's or each data set's own."""
    precision: Literal["fp32", "tf32", "bf16"] | None = None
    """fp32, tf32 (CUDA GPUs) or bf16; None is the study's."""
    device: str | None = None
    """auto, cpu, cuda, cuda:N or mps; None is auto."""
    language_corpus: str = ""
    """Text of the arms that read text, in place of their own: an id, a folder or a built corpus."""
    pretrain_steps: Count | None = None
    """Gradient steps of initializers that are pre-trained on first use; None is the recipe's number."""
    select: Literal["return", "judge"] = "return"
    """What arms and targets are chosen by: returns in the simulator, or the judge, which needs none: all
    finished runs are played in models of their logs (up to a minute for each log, and each split of it)."""
    engine: Literal["auto", "process", "pool", "stacked", "ray"] = "auto"
    """process: one run after the other, in this one; pool: local processes; stacked: runs of one shape as one
    program; ray: a Ray cluster (extra: ray); auto: stacked with --stack, and on a GPU without
    --num-processes, else pool."""
    num_processes: Annotated[
        Workers,
        Needs("--engine pool", lambda study: study.engine in ("auto", "pool") and study.stack is None),
    ] = 1
    """Runs side by side in the pool, one thread each."""
    stack: Annotated[
        Count | None, Needs("--engine stacked", lambda study: study.engine in ("auto", "stacked"))
    ] = None
    """Most runs in a stack; None is as many as fit into the memory of the device."""
    ray_address: Annotated[str | None, Needs("--engine ray", lambda study: study.engine == "ray")] = None
    """Ray cluster to join, such as auto or HOST:6379; None starts one on this machine."""
    gpu_share: Annotated[
        float, Interval(gt=0, le=1), Needs("--engine ray", lambda study: study.engine == "ray")
    ] = 0.25
    """Share of a GPU that Ray keeps for each run that takes one."""
    retries: Natural = 1
    """Times that a run that crashed is tried again, from its checkpoint."""
    root: Out = Path("runs")
    """Folder that holds the study's folder."""
    dry_run: bool = False
    """Only list the runs, what is finished, and how long the rest will take."""


def study(argv: Sequence[str], prog: str) -> None:
    """``chibit study``."""
    from chibit.reporting.read.registration import Registration, register
    from chibit.studies import STUDIES
    from chibit.sweep.adaptive import Adaptive, other_seeds
    from chibit.sweep.tasks import make_tasks

    arguments = parse(StudyArguments, argv, prog)
    console = make_console()
    if not arguments.name:
        if arguments != StudyArguments():
            raise InputError(f"name: missing, but there are flags for it; see {prog} --help")
        _list_studies(console)
        return
    if ":" in arguments.name:
        arguments = replace(arguments, name=STUDIES.load(arguments.name))
    _check(arguments)
    make_configs = _config_maker(arguments)
    configs, adaptive = make_configs(arguments.seeds), None
    entry = STUDIES[arguments.name]
    _refuse_idle(arguments, configs, has_rates=entry.has_chosen_rates)
    fixed = Registration(
        comparisons=entry.comparisons,
        score_levels=dict(entry.score_levels),
        error_levels=dict(entry.error_levels),
        negligible=entry.negligible,
        until_half_width=arguments.until_half_width,
    )
    if arguments.until_half_width is not None:
        adaptive = Adaptive(make_configs, arguments.seeds, fixed, arguments.max_seeds)
        configs = adaptive.first_configs
    if arguments.dry_run:
        tasks = make_tasks(configs, root=arguments.root, study=arguments.name, attention=entry.attention)
        _show_plan(console, tasks, arguments)
        if adaptive is not None:
            console.print(f"then more seeds, up to {adaptive.most} in all, until the intervals are narrow")
        return
    folder = arguments.root / arguments.name
    if fixed != Registration():
        register(folder, fixed)
    run = _runner(arguments, attention=entry.attention)
    if adaptive is None:
        outcomes = run(configs)
    else:
        say = partial(console.print, soft_wrap=True)
        outcomes, seeds = adaptive.run(run, folder, say)
        for line in other_seeds(folder, seeds):
            say(line)
    _report(console, outcomes, arguments)


def _runner(arguments: StudyArguments, *, attention: bool) -> Callable[..., list[Outcome]]:
    """What runs configurations where the flags say."""
    from chibit.sweep import run_all

    return partial(
        run_all,
        root=arguments.root,
        study=arguments.name,
        attention=attention,
        engine=arguments.engine,
        num_processes=arguments.num_processes,
        stack=arguments.stack,
        ray_address=arguments.ray_address,
        gpu_share=arguments.gpu_share,
        retries=arguments.retries,
    )


def _config_maker(arguments: StudyArguments) -> Callable[[Sequence[int]], list[RunConfig[Any]]]:
    """The runs of some seeds, all else as the flags say."""
    from chibit.environments.own import take_env
    from chibit.studies import study_configs
    from chibit.sweep.rates import choose_rates

    expected = "expected numbers, or ENVIRONMENT=NUMBER,... such as hopper=3600,1800"
    everywhere, by_environment = read_targets(arguments.target_returns, "target-returns", expected)
    make = partial(
        study_configs,
        arguments.name,
        arms=arguments.arms,
        data=arguments.data,
        language_corpus=arguments.language_corpus,
        pretrain_steps=arguments.pretrain_steps,
        fractions=arguments.fractions,
        rates=None if arguments.rates_from is None else choose_rates(arguments.rates_from),
        env_id=None if arguments.env_id is None else take_env(arguments.env_id),
        num_steps=arguments.num_steps,
        evaluate_every=arguments.evaluate_every,
        num_episodes=arguments.num_episodes,
        target_returns=everywhere or None,
        targets_by_environment=by_environment,
        precision=arguments.precision,
        device=arguments.device,
    )
    return lambda seeds: make(seeds=seeds)


def _check(arguments: StudyArguments) -> None:
    """Refuse what would not run, also where it is only listed."""
    from chibit.core.runtime import resolve_runtime
    from chibit.data.resolve import check_known
    from chibit.sweep.ray_engine import refuse_indices

    device = arguments.device or "auto"
    if arguments.engine == "ray":  # whose nodes have other devices than this machine
        refuse_indices([device])
    else:
        resolve_runtime(device, arguments.precision or "fp32")
    check_can_make(arguments.root)
    for name in arguments.data:
        check_known(name)


def _refuse_idle(arguments: StudyArguments, configs: Sequence[RunConfig[Any]], *, has_rates: bool) -> None:
    """Refuse what no arm of the study has use for: whatever its value, their settings stay the same."""
    agents = [run.agent for run in configs]
    acts = {
        "language_corpus": any(
            a.in_study(None, "x", {}, None) != a.in_study(None, "y", {}, None) for a in agents
        ),
        "pretrain_steps": any(a.in_study(1, "", {}, None) != a.in_study(2, "", {}, None) for a in agents),
        "rates_from": has_rates
        and any(a.in_study(None, "", {}, 1.0) != a.in_study(None, "", {}, 2.0) for a in agents),
        "target_returns": any(agent.takes_target_returns for agent in agents),
    }
    for name, does in acts.items():
        if getattr(arguments, name) and not does:
            raise InputError(f"{name}: no arm of study {arguments.name} takes it here; leave it out")


def _list_studies(console: Console) -> None:
    from chibit.studies import STUDIES

    table = Table(title="studies: chibit study NAME")
    table.add_column("name", no_wrap=True)
    table.add_column("what it is")
    for name, entry in STUDIES.items():
        table.add_row(name, entry.summary)
    console.print(table)


def _show_plan(console: Console, tasks: Sequence[Task], arguments: StudyArguments) -> None:
    """The runs, what is finished of them, and a cost estimate."""
    from chibit.agents import AGENTS, DEFAULT_AGENT
    from chibit.core.formatting import shown_time
    from chibit.sweep import forecast

    measured = forecast.measure(arguments.root)
    forecasts = [forecast.forecast(task, measured) for task in tasks]
    states = [_state(task) for task in tasks]
    for task, state, entry in zip(tasks, states, forecasts, strict=True):
        left = "" if task.is_done else shown_time(entry.seconds) + (" " if entry.is_measured else "?")
        line = f"{state:<10}{left:>9}  {task.path}"
        console.print(line, soft_wrap=True)
    counts = {kind: sum(state.startswith(kind) for state in states) for kind in ("finished", "at", "to do")}
    console.print(
        f"{len(tasks)} runs: {counts['finished']} finished, {counts['at']} begun, {counts['to do']} to do",
    )
    sources = forecast.sources_left(tasks)
    for spec, steps in sources.items():
        console.print(f"to be pre-trained first: {spec}, {steps} steps")
    total = sum(entry.seconds for entry in forecasts)
    total += sum(sources.values()) * forecast.SECONDS_A_PRETRAINING_STEP
    guessed = sum(not entry.is_measured for entry in forecasts)
    basis = "measured on finished runs here"
    if guessed:
        step = AGENTS[DEFAULT_AGENT].config.seconds_a_step
        rough = f"{step:g} s a step of ChibiT's size in fp32, more for larger models"
        basis = f"those marked ? are rough: {rough}; the others are {basis}"
    side = arguments.num_processes if arguments.engine in ("auto", "pool") else 1
    console.print(
        f"about {shown_time(total / side)} left with {side} at a time ({basis})",
        soft_wrap=True,
    )


def _state(task: Task) -> str:
    from chibit.sweep.forecast import steps_done

    if task.is_done:
        return "finished"
    steps = steps_done(task.path)
    return f"at {steps}" if steps else "at 0" if (task.path / "config.json").exists() else "to do"


def _report(console: Console, outcomes: Sequence[Outcome], arguments: StudyArguments) -> None:
    """Say what did not finish, and write the page of what did."""
    from chibit.sweep.tasks import raise_if_stopped

    for outcome in outcomes:
        if outcome.message:
            line = f"{outcome.status}: {outcome.path}: {outcome.message}"
            console.print(line, soft_wrap=True)
    raise_if_stopped(outcomes)
    finished = [outcome for outcome in outcomes if outcome.status in ("finished", "skipped")]
    folder = arguments.root / arguments.name
    if finished:
        from chibit.commands.judge import judge_runs
        from chibit.reporting.report import print_report

        if arguments.select == "judge":
            judge_runs([outcome.path for outcome in finished], device=arguments.device or "auto")
        print_report(folder)
    broken = [outcome for outcome in outcomes if outcome.status in ("failed", "stopped")]
    if broken:
        raise UserError(f"{len(broken)} of {len(outcomes)} runs did not finish; the lines above say why")
    busy = len(outcomes) - len(finished)
    if busy:
        raise ResourceError(
            f"{busy} of {len(outcomes)} runs are in the hands of another driver; when it is done, "
            f"chibit report {folder} shows them"
        )

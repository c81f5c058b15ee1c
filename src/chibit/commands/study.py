"""``chibit study``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
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
    BASIC,
    MAX_EPISODES,
    Count,
    Distinct,
    Group,
    Natural,
    Needs,
    Out,
    Positive,
    Seed,
    Share,
    Workers,
)
from chibit.core.files import check_can_make
from chibit.core.progress import LONG_SECONDS
from chibit.core.targets import read_targets
from chibit.core.terminal import make_console, print_json

if TYPE_CHECKING:
    from chibit.reporting.read.registration import Registration
    from chibit.studies import Study as StudyEntry
    from chibit.sweep import Outcome
    from chibit.sweep.forecast import Plan
    from chibit.sweep.tasks import Task
    from chibit.training.run_config import RunConfig


@dataclass(frozen=True, kw_only=True)
class StudyArguments(WithModules):
    """Run a table or figure of the paper or another study, and report it. Finished runs are skipped.

    Example: chibit study table2 --seeds 0 1 --num-steps 200 --data hopper-medium --arms random chibit
    """

    name: Annotated[str, tyro.conf.Positional] = ""
    """The study, or MODULE:NAME of one of yours. Empty lists them."""
    seeds: Annotated[tuple[Seed, ...], MinLen(1), Distinct(), BASIC] = (0, 1, 2)
    """Seeds; one run of every arm on every data set for each."""
    until_half_width: Annotated[Positive | None, Group("more seeds")] = None
    """Add seeds until the 95% intervals of all comparisons over all data sets are within plus or minus this
    many points; None runs the seeds given."""
    max_seeds: Annotated[
        Count | None, Needs("--until-half-width", lambda study: study.until_half_width is not None)
    ] = None
    """Largest number of seeds with --until-half-width; None is 20."""
    arms: Annotated[tuple[str, ...], Distinct(), BASIC] = ()
    """Recipes in place of the study's own."""
    data: Annotated[tuple[str, ...], Distinct(), BASIC] = ()
    """Data sets in place of the study's own."""
    env_id: Annotated[str | None, Group("runs")] = None
    """Environment to evaluate in (Hopper-v4), where the data name none or another."""
    fractions: Annotated[tuple[Share, ...], Distinct()] = ()
    """Shares of the episodes to train on, in place of the study's own; redrawn with each seed."""
    rates_from: Path | None = None
    """Folder of the runs of study rates, for studies in which each arm has a learning rate of its own."""
    num_steps: Annotated[Count | None, BASIC] = None
    """Gradient steps; None is the study's own number."""
    evaluate_every: Natural | None = None
    """Gradient steps between evaluations; None is the study's own number, or a quarter of fewer steps."""
    num_episodes: Annotated[int, Interval(ge=0, le=MAX_EPISODES)] | None = None
    """Episodes for each target return; None is the recipe's."""
    target_returns: tuple[str, ...] = ()
    """Raw returns to ask for; on every data set or by environment, such as hopper=3600,1800
    halfcheetah=6000. Empty takes the study's or each data set's own."""
    precision: Annotated[Literal["fp32", "tf32", "bf16"] | None, BASIC] = None
    """Precision; None is the study's. tf32 is for CUDA GPUs."""
    device: str | None = None
    """auto, cpu, cuda, cuda:N or mps; None is auto."""
    language_corpus: str = ""
    """Text of the arms that read text, in place of their own: an id, a folder or a built corpus."""
    pretrain_steps: Count | None = None
    """Gradient steps of initializers that are pre-trained on first use; None is the recipe's number."""
    select: Annotated[Literal["return", "judge"], Group("choice")] = "return"
    """What arms and targets are chosen by: returns in the simulator, or the judge, which needs none: all
    finished runs are played in models of their logs (up to a minute for each log, and each split of it)."""
    engine: Annotated[Literal["auto", "process", "pool", "stacked", "ray"], BASIC] = "auto"
    """Where runs run; process: one run after the other, in this one; pool: local processes; stacked: runs of
    one shape as one program; ray: a Ray cluster (extra: ray); auto: stacked with --stack, and on a GPU
    without --num-processes, else pool."""
    num_processes: Annotated[
        Workers | None,
        Needs("--engine pool or stacked", lambda study: study.engine in ("auto", "pool", "stacked")),
        BASIC,
    ] = None
    """Runs side by side in the pool; each has one thread, and None is 1. With --engine stacked: processes in
    which environments take their steps; None is every core with a GPU, else 1."""
    stack: Annotated[
        Count | None,
        Needs("--engine stacked", lambda study: study.engine in ("auto", "stacked")),
        Group("engine"),
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
    tensorboard: Annotated[bool, Group("trackers")] = False
    """Write TensorBoard event files into each run's folder (extra: tb); tensorboard --logdir ROOT/STUDY."""
    wandb: str | None = None
    """Weights & Biases project (extra: wandb); the runs are grouped by the study's name."""
    root: Annotated[Out, BASIC, Group("output")] = Path("runs")
    """Folder of studies; the study has its own in it."""
    json: Annotated[bool, BASIC, Group("output"), Needs("--dry-run", lambda study: study.dry_run)] = False
    """With --dry-run: JSON on standard output."""
    dry_run: Annotated[bool, BASIC] = False
    """Only list the runs and the time left. It says what is finished, too."""


def study(argv: Sequence[str], prog: str) -> None:
    """``chibit study``."""
    from chibit.reporting.read.registration import register
    from chibit.studies import STUDIES
    from chibit.sweep.adaptive import Adaptive, other_seeds
    from chibit.sweep.forecast import make_plan
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
    folder = arguments.root / arguments.name
    fixed = _fixed(arguments, entry, folder)
    if arguments.until_half_width is not None:
        adaptive = Adaptive(make_configs, arguments.seeds, fixed, arguments.max_seeds)
        configs = adaptive.first_configs
    tasks = make_tasks(configs, root=arguments.root, study=arguments.name, attention=entry.attention)
    plan = make_plan(tasks, arguments.root, _side_by_side(arguments, tasks))
    if arguments.dry_run:
        _show_plan(plan, None if adaptive is None else adaptive.most, as_json=arguments.json)
        return
    if plan.seconds_left is not None and plan.seconds_left > LONG_SECONDS:
        make_console(stderr=True).print(f"{len(plan.runs)} runs: {plan}", soft_wrap=True)
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


def _side_by_side(arguments: StudyArguments, tasks: Sequence[Task]) -> int | None:
    """Runs at a time; None where the engine takes as many as it has room for."""
    from chibit.sweep.driver import usual_engine

    engine = arguments.engine
    if engine == "auto":
        to_do = [task for task in tasks if not task.is_done]
        engine = usual_engine(to_do, arguments.num_processes, arguments.stack)
    if engine == "pool":
        return arguments.num_processes or 1
    return 1 if engine == "process" else None


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


def _fixed(arguments: StudyArguments, entry: StudyEntry, folder: Path) -> Registration:
    """What is fixed before the first run: by this call, or by an earlier one for the same folder."""
    from chibit.reporting.read.registration import FILE, Registration, holding

    asked = Registration(
        comparisons=entry.comparisons,
        score_levels=dict(entry.score_levels),
        error_levels=dict(entry.error_levels),
        negligible=entry.negligible,
        until_half_width=arguments.until_half_width,
    )
    before = holding(folder, Registration(until_half_width=asked.until_half_width))
    if before.fixes_nothing and not asked.fixes_nothing and any(folder.glob("*/result.json")):
        make_console(stderr=True).print(
            f"{folder}: it has results already, so that what is compared cannot be fixed beforehand any more "
            f"and is not called registered; a {FILE} from before the first run belongs there",
            soft_wrap=True,
        )
        return before
    holds = holding(folder, asked)
    if replace(holds, until_half_width=asked.until_half_width) != asked:
        make_console(stderr=True).print(
            f"{folder / FILE}: other comparisons or levels were fixed before the first run, and they hold",
            soft_wrap=True,
        )
    return holds


def _config_maker(arguments: StudyArguments) -> Callable[[Sequence[int]], list[RunConfig[Any]]]:
    """The runs of some seeds, all else as the flags say."""
    from chibit.environments.own import take_env
    from chibit.study_runs import study_configs
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
    trackers: dict[str, Any] = {"tensorboard": arguments.tensorboard, "wandb": arguments.wandb}
    return lambda seeds: [replace(config, **trackers) for config in make(seeds=seeds)]


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


def _show_plan(plan: Plan, max_seeds: int | None, *, as_json: bool) -> None:
    """The runs, what is finished of them, and a cost estimate."""
    from chibit.core.formatting import shown_time

    if as_json:
        print_json({**asdict(plan), "max_seeds": max_seeds})
        return
    console = make_console()
    for run in plan.runs:
        left = "" if run.state == "finished" else shown_time(run.seconds_left) + " ?"[not run.is_measured]
        console.print(f"{run.state:<10}{left:>9}  {run.path}", soft_wrap=True)
    states = Counter(run.state.split(" ")[0] for run in plan.runs)
    counts = f"{states['finished']} finished, {states['at']} begun, {states['to']} to do"
    console.print(f"{len(plan.runs)} runs: {counts}")
    for spec, steps in plan.pretrainings.items():
        console.print(f"to be pre-trained first: {spec}, {steps} steps")
    console.print(str(plan), soft_wrap=True)
    if max_seeds is not None:
        console.print(f"then more seeds, up to {max_seeds} in all, until the intervals are narrow")


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

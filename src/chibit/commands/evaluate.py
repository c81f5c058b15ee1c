"""``chibit evaluate`` and ``chibit attention``: what one looks at in a trained run."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from annotated_types import Interval
from rich.table import Table

from chibit.commands.parsing import WithEnvironment, WithJson, WithModules, parse
from chibit.core.config import read_json
from chibit.core.errors import InputError, UserError
from chibit.core.fields import BASIC, MAX_EPISODES, Count, Out, Positive, Seed, Targets
from chibit.core.files import check_can_make, make_folder, write_atomic
from chibit.core.formatting import format_number, format_setting
from chibit.core.progress import step_bar
from chibit.core.terminal import make_console, print_json, print_table

if TYPE_CHECKING:
    from chibit.data.dataset import DatasetSpec
    from chibit.evaluation.rollout import Evaluation
    from chibit.training.loading import LoadedRun


@dataclass(frozen=True, kw_only=True)
class EvaluateArguments(WithEnvironment, WithJson):
    """Play episodes with a trained run, at any target returns.

    Example: chibit evaluate runs/mine/hopper --target-returns 3600 1800 --num-episodes 20
    """

    run: Annotated[Path, tyro.conf.Positional]
    """The run directory."""
    target_returns: Annotated[Targets, BASIC] = ()
    """Raw returns to ask for; empty takes the run's own. Methods without target returns take none."""
    num_episodes: Annotated[int, Interval(ge=1, le=MAX_EPISODES), BASIC] = 10
    """Episodes for each target."""
    seed: Annotated[Seed, BASIC] = 1
    """Seed of the episodes; another than the training's gives episodes it has not been chosen by."""
    checkpoint: Annotated[str, BASIC] = "last"
    """last, best, or a step."""
    device: Annotated[str, BASIC] = "auto"
    """auto, cpu, cuda or cuda:N."""
    sticky_actions: bool = False
    """Atari: repeat actions at random. The last one is taken again with probability 0.25 in each frame;
    training evaluates without."""
    video: Annotated[bool, BASIC] = False
    """Film an episode for each target, into RUN/videos."""
    out: Annotated[Out | None, BASIC] = None
    """JSON file for every episode's return."""


@dataclass(frozen=True, kw_only=True)
class AttentionArguments(WithModules):
    """Draw where a trained sequence model looks: early, middle and last layer.

    Example: chibit attention runs/mine/hopper
    """

    run: Annotated[Path, tyro.conf.Positional]
    """The run directory; arrays and figure go to its attention folder."""
    data: Annotated[str, BASIC] = ""
    """Data set to take windows from; empty takes the run's own."""
    num_windows: Annotated[Count, BASIC] = 64
    """Windows to average over."""
    temperature: Annotated[Positive, BASIC] = 0.1
    """Sharpens the picture; 0.1 as Appendix B of the paper does, 1 shows the weights as they are."""
    checkpoint: Annotated[str, BASIC] = "last"
    """last, best, or a step."""


def evaluate(argv: Sequence[str], prog: str) -> None:
    """``chibit evaluate``."""
    arguments = parse(EvaluateArguments, argv, prog)
    from chibit.environments.atari import sticky_env_id
    from chibit.evaluation.pool import most_steps
    from chibit.evaluation.video import require_renderer
    from chibit.training.loading import load_run
    from chibit.training.offline import evaluate_agent, open_environments

    if arguments.out is not None:
        check_can_make(arguments.out.parent)
        if arguments.out.is_dir():
            raise InputError(f"out: {arguments.out} is a folder, expected the name of a file")
        _require_own(arguments.out)
    loaded = load_run(arguments.run, arguments.checkpoint, device=arguments.device)
    if arguments.target_returns and not loaded.agent.is_return_conditioned:
        raise InputError(f"target_returns: agent {loaded.config.agent.agent} takes none; leave them out")
    loaded = replace(loaded, spec=arguments.in_environment(loaded.spec))
    targets = loaded.config.targets(loaded.spec, arguments.target_returns)
    if arguments.sticky_actions:
        loaded = replace(loaded, spec=replace(loaded.spec, env_id=sticky_env_id(loaded.spec.env_id)))
    spec = loaded.spec
    environments = open_environments(spec)
    if environments is None:
        raise InputError(f"{arguments.run}: its data name no environment that chibit knows; give --env-id")
    if arguments.video:
        require_renderer(environments.env_id)
    most = most_steps(arguments.num_episodes, len(targets or (None,)), spec.max_episode_steps)
    with environments, step_bar("evaluating", True, most, "steps at most") as advance:
        evaluations = evaluate_agent(
            loaded.agent,
            spec,
            targets,
            num_episodes=arguments.num_episodes,
            seed=arguments.seed,
            environments=environments,
            progress=lambda done, running: advance(),
        )
    console = make_console(stderr=arguments.json)
    record = _record(evaluations, loaded, arguments.seed)
    if arguments.json:
        print_json(record)
    else:
        print_table(console, _evaluation_table(evaluations, spec, loaded.step))
    if arguments.out is not None:
        make_folder(arguments.out.parent)
        write_atomic(arguments.out, json.dumps(record, indent=1))
        console.print(f"written: {arguments.out}", soft_wrap=True)
    if arguments.video:
        for path in loaded.film(targets, arguments.seed):
            console.print(f"video: {path}", soft_wrap=True)


def _evaluation_table(evaluations: Sequence[Evaluation], spec: DatasetSpec, step: int) -> Table:
    table = Table(title=f"{spec.env_id}, step {step:,}")
    scored = spec.score_reference is not None
    summaries = [evaluation.summary for evaluation in evaluations]
    solved = any(summary.success_rate is not None for summary in summaries)
    columns = ("target return", "episodes", "mean return", "std", "min", "max", "mean length")
    for column in (*columns, *(["success"] if solved else []), *(["score"] if scored else [])):
        table.add_column(column, justify="right", no_wrap=column == "target return")
    for summary in summaries:
        target = "none" if summary.target_return is None else format_setting(summary.target_return)
        mean, std, score = summary.mean_return, summary.std_return, summary.normalized_score
        episodes = f"{summary.num_episodes}" if not summary.num_failed else summary.sample
        if mean is None or summary.mean_length is None:
            table.add_row(target, episodes)
            continue
        rate = "" if summary.success_rate is None else f"{summary.success_rate:.0%}"
        values = (std, min(summary.returns), max(summary.returns))
        table.add_row(
            target,
            episodes,
            format_number(mean),
            *("" if value is None else format_number(value, like=[mean]) for value in values),
            format_number(summary.mean_length),
            *([rate] if solved else []),
            *(["" if score is None else format_number(score, decimals=1)] if scored else []),
        )
    table.caption = (
        "score: normalized, 0 random to 100 expert" if scored else "no score: no reference is known"
    )
    if solved:
        table.caption += "; success: the environment reported it in a step of the episode"
    return table


def _require_own(path: Path) -> None:
    """Refuse to replace a file that this command did not write."""
    if not os.path.lexists(path):
        return
    try:
        found = read_json(path)
    except UserError:
        found = None
    if not isinstance(found, dict) or found.keys() != {"run", "seed", "evaluations"}:
        raise InputError(f"{path}: is there and was not written by this command; choose another --out")


def _record(evaluations: Sequence[Evaluation], loaded: LoadedRun, seed: int) -> dict[str, Any]:
    """What the command writes."""
    from chibit.training.offline import evaluation_record

    records = [
        {**evaluation_record(one, loaded.step, 0.0), "discounted_returns": list(one.discounted_returns)}
        for one in evaluations
    ]
    return {"run": str(loaded.run.path), "seed": seed, "evaluations": records}


def attention(argv: Sequence[str], prog: str) -> None:
    """``chibit attention``."""
    arguments = parse(AttentionArguments, argv, prog)
    from chibit.training.attention import draw_attention
    from chibit.training.loading import load_run

    loaded = load_run(arguments.run, arguments.checkpoint, device="cpu")
    paths = draw_attention(
        loaded, arguments.data, num_windows=arguments.num_windows, temperature=arguments.temperature
    )
    for path in paths:
        make_console().print(f"{path}", soft_wrap=True)

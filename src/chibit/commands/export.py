"""``chibit export``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from chibit.commands.parsing import WithEnvironment, parse
from chibit.core.errors import UserError
from chibit.core.fields import BASIC, Out
from chibit.core.terminal import make_console


@dataclass(frozen=True, kw_only=True)
class ExportArguments(WithEnvironment):
    """Write a run's policy as a folder to deploy or share: weights, configuration, model card, a film.

    Example: chibit export runs/mine/hopper --out hopper-policy
    """

    run: Annotated[Path, tyro.conf.Positional]
    """The run directory."""
    out: Annotated[Out | None, BASIC] = None
    """The folder to write; None is the run's own folder `policy`."""
    target_return: Annotated[float | None, BASIC] = None
    """Raw return to ask for; None takes the run's first."""
    checkpoint: Annotated[str, BASIC] = "last"
    """last, best, or a step."""
    onnx: Annotated[bool, BASIC] = False
    """Write policy.onnx too (extra: onnx). It holds one step of the policy."""
    video: Annotated[bool, BASIC] = True
    """Film the start of an episode; as replay.mp4, where something can draw."""


def export(argv: Sequence[str], prog: str) -> None:
    """``chibit export``."""
    arguments = parse(ExportArguments, argv, prog)
    from chibit.policy.card import describe_intervals, policy_scores
    from chibit.policy.export import export_with_extras
    from chibit.training.loading import load_run

    loaded = load_run(arguments.run, arguments.checkpoint, device="cpu")
    spec, evaluations = arguments.in_environment(loaded.spec), loaded.evaluations
    out, target = arguments.out or loaded.run.own_folder("policy"), arguments.target_return
    if target is None:
        target = (loaded.config.targets(spec) or (None,))[0]
    no_video = export_with_extras(
        loaded.agent,
        spec,
        out,
        target_return=target,
        scores=policy_scores(evaluations, loaded.spec),  # played where the run's own data say
        notes=[*describe_intervals(evaluations, loaded.spec), *other_seeds(arguments.run)],
        onnx=arguments.onnx,
        film_seed=loaded.config.seed if arguments.video else None,
    )
    console = make_console()
    if no_video:
        console.print(f"no video: {no_video.removeprefix('video: ')}", soft_wrap=True)
    console.print(f"{out}", soft_wrap=True)


def other_seeds(run: Path) -> list[str]:
    """A line on what the seeds of a run's arm say together, for its model card, where that can be told."""
    from chibit.core.formatting import format_score
    from chibit.reporting.read.study import read_study
    from chibit.reporting.statistics.comparison import collect_scores
    from chibit.reporting.statistics.intervals import bootstrap, mean_over_tasks
    from chibit.reporting.statistics.verdict import describe_rule, format_interval

    if not (run / "result.json").is_file():
        return []
    try:
        study = read_study(run.resolve().parent)
    except UserError:
        return []
    mine = next((entry for entry in study.runs if entry.folder.name == run.resolve().name), None)
    if mine is None:
        return []
    scores = collect_scores(study, "last4")
    values = scores.cell(mine.arm, mine.dataset)
    normalized = study.is_normalized(mine.dataset)
    unit = "score" if normalized else "return"
    mean = format_score(float(values.mean()), normalized=normalized)
    start = f"- {describe_rule(scores, mine.arm).capitalize()} of this arm ({mine.arm}), {unit}: {mean}"
    if len(values) < 2:
        return [f"{start}; one seed, so no interval over seeds can be given."]
    estimate = bootstrap(mean_over_tasks, [values], rng=np.random.default_rng(0))
    interval = format_interval(estimate, normalized=normalized)
    return [f"{start}, 95% interval {interval} (bootstrap over {len(values)} seeds)."]

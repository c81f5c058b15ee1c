"""``chibit study``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from chibit.core.errors import UserError
from chibit.verbs.parsing import parse


@dataclass(frozen=True, kw_only=True)
class StudyArguments:
    """Run a table of the paper or another study, and report it. Finished runs are skipped.

    Example: chibit study table2 --seeds 0 1 --num-steps 200 --data hopper-medium --arms random chibit
    """

    name: Annotated[str, tyro.conf.Positional] = ""
    """The study; empty lists them."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """One run of every arm on every data set for each."""
    arms: tuple[str, ...] = ()
    """Recipes in place of the study's own."""
    data: tuple[str, ...] = ()
    """Data sets in place of the study's own."""
    num_steps: int | None = None
    """Gradient steps; None is the study's own number."""
    evaluate_every: int | None = None
    """Gradient steps between evaluations; None is the study's own number."""
    num_episodes: int | None = None
    """Episodes for each target return; None is the recipe's."""
    precision: str | None = None
    """fp32 or bf16; None is the recipe's."""
    language_corpus: str = ""
    """Text of the arms with language co-training, in place of their own: an id or a folder."""
    num_processes: int = 1
    """Runs side by side."""
    root: Path = Path("runs")
    """Folder that holds the study's folder."""
    dry_run: bool = False
    """Only list the runs and what is finished."""


def study(argv: Sequence[str], prog: str) -> None:
    """``chibit study``."""
    from chibit.studies import STUDIES, study_configs
    from chibit.sweep import run_all
    from chibit.training.run_config import run_path

    arguments = parse(StudyArguments, argv, prog)
    console = Console()
    if not arguments.name:
        table = Table(title="studies: chibit study NAME")
        table.add_column("name", no_wrap=True)
        table.add_column("what it is")
        for name, entry in STUDIES.items():
            table.add_row(name, entry.summary)
        console.print(table)
        return
    configs = study_configs(
        arguments.name,
        seeds=arguments.seeds,
        arms=arguments.arms,
        data=arguments.data,
        num_steps=arguments.num_steps,
        evaluate_every=arguments.evaluate_every,
        num_episodes=arguments.num_episodes,
        precision=arguments.precision,
        language_corpus=arguments.language_corpus,
    )
    if arguments.dry_run:
        for config in configs:
            path = run_path(config, arguments.root, arguments.name)
            state = "finished" if (path / "result.json").is_file() else "begun" if path.exists() else "to do"
            console.print(f"{state:<9} {path}", highlight=False, soft_wrap=True)
        return
    outcomes = run_all(
        configs, root=arguments.root, study=arguments.name, num_processes=arguments.num_processes
    )
    for outcome in outcomes:
        if outcome.message:
            console.print(
                f"{outcome.status}: {outcome.path}: {outcome.message}", highlight=False, soft_wrap=True
            )
    from chibit.verbs.report import write_report

    write_report(arguments.root / arguments.name)
    broken = [outcome for outcome in outcomes if outcome.status in ("failed", "stopped")]
    if broken:
        raise UserError(f"{len(broken)} of {len(outcomes)} runs did not finish; the lines above say why")

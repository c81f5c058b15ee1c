"""``chibit data``: collect, list, inspect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from chibit.verbs.parsing import parse


@dataclass(frozen=True, kw_only=True)
class CollectArguments:
    """Make a D4RL-style data set with the shipped behaviour policies, as a Minari data set.

    Example: chibit data collect hopper-medium --num-steps 100000
    """

    dataset: Annotated[str, tyro.conf.Positional]
    """hopper, halfcheetah or walker2d, a dash, and random, medium, medium-replay, medium-expert or expert."""
    num_steps: int | None = None
    """Environment steps; None takes D4RL's size (1M; replay 0.2M to 0.4M; medium-expert 2M)."""
    seed: int = 0
    """The same seed gives the same data, whatever the number of processes."""
    num_processes: int = 1
    """Processes that collect side by side."""
    out: Path | None = None
    """Root folder of Minari data sets; None takes MINARI_DATASETS_PATH, else ~/.minari/datasets."""


@dataclass(frozen=True, kw_only=True)
class InspectArguments:
    """Show what a data set holds.

    Example: chibit data inspect hopper-medium
    """

    data: Annotated[str, tyro.conf.Positional]
    """An id, a file or a folder, as for chibit train --data."""


@dataclass(frozen=True, kw_only=True)
class ListArguments:
    """List the data sets that can be made, downloaded, or are here already.

    Example: chibit data list
    """


def collect(argv: Sequence[str], prog: str) -> None:
    """``chibit data collect``."""
    arguments = parse(CollectArguments, argv, prog)
    from chibit.data.collect import collect as collect_dataset

    path = collect_dataset(
        arguments.dataset,
        num_steps=arguments.num_steps,
        seed=arguments.seed,
        num_processes=arguments.num_processes,
        out=arguments.out,
        progress=True,
    )
    Console().print(f"{path}", highlight=False, soft_wrap=True)


def inspect(argv: Sequence[str], prog: str) -> None:
    """``chibit data inspect``."""
    arguments = parse(InspectArguments, argv, prog)
    from chibit.data.catalog import load_dataset
    from chibit.data.inspect import describe, render_summary

    Console().print(render_summary(describe(load_dataset(arguments.data))))


def list_known(argv: Sequence[str], prog: str) -> None:
    """``chibit data list``."""
    parse(ListArguments, argv, prog)
    from chibit.data.catalog import list_datasets

    console = Console()
    for line in list_datasets():
        console.print(line, highlight=False, soft_wrap=True)

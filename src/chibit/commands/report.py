"""``chibit report``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

import tyro
from annotated_types import MinLen

from chibit.commands.parsing import WithJson, parse
from chibit.core.fields import Out, Positive

Format = Literal["html", "md", "csv", "tex"]


@dataclass(frozen=True, kw_only=True)
class ReportArguments(WithJson):
    """Write tables, figures and one HTML page from the run directories in a folder.

    Example: chibit report runs/mine

    Example: chibit report runs/table2 --target best --json
    """

    folder: Annotated[Path, tyro.conf.Positional]
    """A study, a run, or kept raw results; the folder of it. A study's has run directories."""
    out: Out | None = None
    """Where to write; None is the folder itself."""
    target: tuple[str, ...] = ("first",)
    """Which of several target returns counts; first (listed), best (on each data set, for all arms), a
    number, or numbers by environment, such as hopper=3600 halfcheetah=6000."""
    baseline: str | None = None
    """Arm to compare the others with; None takes the registered comparisons, else random, dt or bc."""
    score_level: float | None = None
    """Score whose first reach is timed; on all data sets. None: the registered ones, else the data's mean."""
    error_level: Positive | None = None
    """The same for the held-out action error; None: the registered ones."""
    formats: Annotated[tuple[Format, ...], MinLen(1)] = get_args(Format)
    """What to write."""


def report(argv: Sequence[str], prog: str) -> None:
    """``chibit report``."""
    from chibit.reporting.read.targets import read_choice
    from chibit.reporting.report import print_report
    from chibit.reporting.statistics.survival import Levels

    arguments = parse(ReportArguments, argv, prog)
    print_report(
        arguments.folder,
        arguments.out,
        target=read_choice(arguments.target),
        baseline=arguments.baseline,
        formats=arguments.formats,
        levels=Levels(score=arguments.score_level, error=arguments.error_level),
        as_json=arguments.json,
    )

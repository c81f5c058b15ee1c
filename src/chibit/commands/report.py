"""``chibit report``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from annotated_types import MinLen

from chibit.commands.parsing import parse
from chibit.core.config import Checked
from chibit.core.fields import Out, Positive
from chibit.core.terminal import make_console

if TYPE_CHECKING:
    from chibit.reporting import ReportPaths
    from chibit.reporting.read.targets import TargetChoice
    from chibit.reporting.statistics.survival import Levels

Format = Literal["html", "md", "csv", "tex"]


@dataclass(frozen=True, kw_only=True)
class ReportArguments(Checked):
    """Write tables, figures and one HTML page from the run directories in a folder.

    Example: chibit report runs/quickstart --target best --baseline dt
    """

    folder: Annotated[Path, tyro.conf.Positional]
    """Folder whose subfolders are run directories (a study), or a single run directory."""
    out: Out | None = None
    """Where to write; None is the folder itself."""
    target: tuple[str, ...] = ("first",)
    """Which of several target returns counts: first (listed), best (on each data set, for all arms), a
    number, or numbers by environment, such as hopper=3600 halfcheetah=6000."""
    baseline: str | None = None
    """Arm that the others are compared with; None takes the registered comparisons, else random, dt or bc."""
    score_level: float | None = None
    """Score whose first reach is timed, on all data sets; None: the registered ones, else the data's mean."""
    error_level: Positive | None = None
    """The same for the held-out action error; None: the registered ones."""
    formats: Annotated[tuple[Literal["html", "md", "csv", "tex"], ...], MinLen(1)] = (
        "html",
        "md",
        "csv",
        "tex",
    )
    """What to write."""


def report(argv: Sequence[str], prog: str) -> None:
    """``chibit report``."""
    from chibit.reporting.read.targets import read_choice
    from chibit.reporting.statistics.survival import Levels

    arguments = parse(ReportArguments, argv, prog)
    write_report(
        arguments.folder,
        arguments.out,
        target=read_choice(arguments.target),
        baseline=arguments.baseline,
        formats=arguments.formats,
        levels=Levels(score=arguments.score_level, error=arguments.error_level),
    )


def write_report(
    folder: Path,
    out: Out | None = None,
    *,
    target: TargetChoice = "first",
    baseline: str | None = None,
    formats: Sequence[str] = ("html", "md", "csv", "tex"),
    levels: Levels | None = None,
) -> Path | None:
    """Build the report of a folder of runs, print its table and where the page is."""
    from chibit.reporting import build_report, render_console_table

    console = make_console()
    paths = build_report(folder, out, formats=formats, target=target, baseline=baseline, levels=levels)
    console.print(render_console_table(folder, target=target, baseline=baseline))
    for what, path in _named(paths):
        console.print(f"{what}: {path}", soft_wrap=True)
    return paths.html


def _named(paths: ReportPaths) -> list[tuple[str, Path]]:
    """The files that were written; the page alone where there is one, for it has everything."""
    if paths.html is not None:
        return [("page", paths.html)]
    files = (
        ("markdown", paths.markdown),
        ("scores", paths.csv),
        ("comparisons", paths.comparisons),
        ("latex", paths.latex),
    )
    return [(what, path) for what, path in files if path is not None]

"""``chibit report``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from chibit.verbs.parsing import parse


@dataclass(frozen=True, kw_only=True)
class ReportArguments:
    """Write tables, figures and one HTML page from the run directories in a folder.

    Example: chibit report runs/quickstart
    """

    folder: Annotated[Path, tyro.conf.Positional]
    """Folder whose subfolders are run directories; a study."""
    out: Path | None = None
    """Where to write; None is the folder itself."""


def report(argv: Sequence[str], prog: str) -> None:
    """``chibit report``."""
    arguments = parse(ReportArguments, argv, prog)
    write_report(arguments.folder, arguments.out)


def write_report(folder: Path, out: Path | None = None) -> Path | None:
    """Build the report of a folder of runs, print its table and where the page is."""
    from chibit.reporting import build_report, render_console_table

    console = Console()
    paths = build_report(folder, out)
    console.print(render_console_table(folder))
    console.print(f"page: {paths.html}", highlight=False, soft_wrap=True)
    return paths.html

"""What is written to a terminal is written as it is: names and paths are never read as markup or emoji."""

from __future__ import annotations

import io
import json
import math
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import TextColumn
from rich.table import Table

from chibit.core.platform import send_nowhere

_CUT = "…"
"""What rich puts where it leaves something out."""


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Nobody reads any more, as after `| head`: what is under way goes on without a word."""
        self.quiet = True
        send_nowhere(self.file)


def make_console(*, stderr: bool = False, soft_wrap: bool = False) -> Console:
    """A console of standard output or error that prints text as it is."""
    return _Console(stderr=stderr, soft_wrap=soft_wrap, markup=False, emoji=False, highlight=False)


def print_table(console: Console, table: Table) -> None:
    """Print a table, or for each of its rows a list of names and values where a number would be cut."""
    with console.capture() as captured:
        console.print(table)
    if _CUT in captured.get():
        console.print(table.title, _upright(table), table.caption, sep="\n")
    else:
        console.print(table)


def _upright(table: Table) -> Table:
    upright = Table(show_header=False)
    upright.add_column(justify="right")
    upright.add_column(overflow="fold")
    for cells in zip(*(column.cells for column in table.columns), strict=True):
        for column, cell in zip(table.columns, cells, strict=True):
            if cell != "":
                upright.add_row(column.header, cell)
        upright.add_section()
    return upright


def print_json(value: Any) -> None:
    """Print JSON on standard output; numbers that JSON lacks become null."""
    print(json.dumps(_finite(value), indent=1, default=str))


def _finite(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Mapping):
        return {str(key): _finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def text_column(text: str) -> TextColumn:
    """A column of a progress bar, with the fields of a task in braces; their values are shown as they are."""
    return TextColumn(text, markup=False)


def print_anything() -> None:
    """Have standard output and error show what their encoding lacks as escapes, and not raise."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def flush_output() -> None:
    """Write what standard output still holds.

    Raises:
        OSError: if there is no room, or nobody reads; then it is dropped, and the interpreter ends in peace.
    """
    if sys.stdout is None:  # closed by whoever started the process
        return
    try:
        sys.stdout.flush()
    except OSError:
        send_nowhere(sys.stdout)
        raise


def say(console: Console, text: str) -> None:
    """Print a last line on standard error, unless that takes nothing: the exit code says it too."""
    try:
        console.print(text)
    except OSError:
        send_nowhere(sys.stderr)

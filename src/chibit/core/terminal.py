"""What is written to a terminal is written as it is: names and paths are never read as markup or emoji."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable, Iterator
from functools import partial

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)


def make_console(*, stderr: bool = False, soft_wrap: bool = False) -> Console:
    """A console of standard output or error that prints text as it is."""
    return Console(stderr=stderr, soft_wrap=soft_wrap, markup=False, emoji=False, highlight=False)


def text_column(text: str) -> TextColumn:
    """A column of a progress bar, with the fields of a task in braces; their values are shown as they are."""
    return TextColumn(text, markup=False)


@contextlib.contextmanager
def byte_bar(description: str, shown: bool, total: int | None = None) -> Iterator[Callable[..., None]]:
    """A bar over bytes on standard error; gives what takes `advance`, or `completed` and `total`."""
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    console = make_console(stderr=True)
    with Progress(text_column("{task.description}"), *columns, console=console, disable=not shown) as bar:
        yield partial(bar.update, bar.add_task(description, total=total))


def print_anything() -> None:
    """Have standard output and error show what their encoding lacks as escapes, and not raise."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

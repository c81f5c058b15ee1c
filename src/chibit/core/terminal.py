"""What is written to a terminal is written as it is: names and paths are never read as markup or emoji."""

from __future__ import annotations

import contextlib
import io
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)


def make_console(*, stderr: bool = False, soft_wrap: bool = False) -> Console:
    """A console of standard output or error that prints text as it is."""
    return Console(stderr=stderr, soft_wrap=soft_wrap, markup=False, emoji=False, highlight=False)


def print_json(value: Any) -> None:
    """Print JSON on standard output; numbers that JSON lacks become null."""
    print(json.dumps(_finite(value), indent=1, default=str))


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


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


@contextlib.contextmanager
def step_bar(description: str, shown: bool, total: int) -> Iterator[Callable[[], None]]:
    """A bar over steps on standard error, with the time left, gone at its end; gives what counts one.

    Only a terminal shows it: in a file it would leave empty lines.
    """
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), text_column("left"))
    console = make_console(stderr=True)
    text, hidden = text_column("{task.description}"), not (shown and console.is_terminal)
    with Progress(text, *columns, console=console, disable=hidden, transient=True) as bar:
        yield partial(bar.advance, bar.add_task(description, total=total))


def print_anything() -> None:
    """Have standard output and error show what their encoding lacks as escapes, and not raise."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

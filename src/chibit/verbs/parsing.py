"""Flags to dataclasses through tyro; ``--agent``, ``--recipe`` and ``--config`` are read first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import tyro

from chibit.core.errors import InputError

T = TypeVar("T")


def parse(kind: type[T], argv: Sequence[str], prog: str, default: T | None = None) -> T:
    """Read flags into a dataclass; usage errors end the program with exit code 2, as argparse does.

    Args:
        kind: the dataclass; its docstring and its fields' docstrings are the help text.
        argv: the flags.
        prog: the command so far, for the help text.
        default: values under the flags.
    """
    extra: dict[str, Any] = {} if default is None else {"default": default}
    parsed: T = tyro.cli(
        kind,
        args=list(argv),
        prog=prog,
        config=(tyro.conf.OmitArgPrefixes,),
        **extra,
    )
    return parsed


def take_option(argv: list[str], name: str) -> str | None:
    """Remove ``--name VALUE`` or ``--name=VALUE`` from `argv`; its value, or None where it is absent.

    Raises:
        InputError: for a flag without a value, or given twice.
    """
    found: list[str] = []
    position = 0
    while position < len(argv):
        if argv[position] == name:
            if position + 1 >= len(argv):
                raise InputError(f"{name}: needs a value")
            found.append(argv[position + 1])
            del argv[position : position + 2]
        elif argv[position].startswith(name + "="):
            found.append(argv[position].partition("=")[2])
            del argv[position]
        else:
            position += 1
    if len(found) > 1:
        raise InputError(f"{name}: given {len(found)} times, expected once")
    return found[0] if found else None

"""Target returns as given on a command line: for all environments, or ``ENVIRONMENT=NUMBER``."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

from chibit.core.errors import InputError


def read_targets(
    words: Sequence[str], what: str, expected: str
) -> tuple[tuple[float, ...], dict[str, tuple[float, ...]]]:
    """Numbers for all environments, and those by environment: ``3600 1800`` or ``hopper=3600,1800 ant=3000``.

    Args:
        words: as given.
        what: the flag, for messages.
        expected: what it takes, for messages.

    Raises:
        InputError: for words without a finite number, and for an environment or number given twice.
    """
    everywhere: list[float] = []
    by_environment: dict[str, tuple[float, ...]] = {}
    for word in words:
        name, equals, numbers = word.rpartition("=")
        values = tuple(_number(text, word, what, expected) for text in numbers.split(","))
        if len(set(values)) < len(values) or (equals and name in by_environment):
            raise InputError(f"{what}: got {word!r} beside the same, expected each once")
        if not equals:
            everywhere += values
        elif name:
            by_environment[name] = values
        else:
            raise InputError(f"{what}: got {word!r}, {expected}")
    if len(set(everywhere)) < len(everywhere):
        raise InputError(f"{what}: got {' '.join(words)}, expected each once")
    return tuple(everywhere), by_environment


def environment_name(environment: str) -> str:
    """An environment without namespace, version and capitals: ``hopper`` of ``Hopper-v5`` or ``hopper``."""
    return environment.rpartition("/")[2].partition("-")[0].lower()


def is_environment_name(name: str) -> bool:
    """Whether a name has the form of an environment's, not of a data set's: ``hopper``, ``Hopper-v5``."""
    return re.fullmatch(r"(\w+/)?\w+(-v\d+)?", name) is not None


def require_distinct(names: Iterable[str], what: str) -> None:
    """Refuse two names of one environment, of which one would silently be left out.

    Raises:
        InputError: naming both.
    """
    known: dict[str, str] = {}
    for name in filter(is_environment_name, names):
        other = known.setdefault(environment_name(name), name)
        if other != name:
            raise InputError(f"{what}: got {other!r} and {name!r}, one environment, expected each once")


def _number(text: str, word: str, what: str, expected: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{what}: got {word!r}, {expected}")
    return value

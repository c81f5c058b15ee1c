"""Ranges of configuration fields, declared once as part of a field's type, and their one check.

A field says ``Annotated[int, Interval(ge=1)]``, or one of the names below. Whatever the declaration, numbers
are finite, integers have 64 bits, reals fit into single precision, and text can be part of a path.
"""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from annotated_types import Interval, MaxLen, MinLen

from chibit.core.errors import InputError, shown


@dataclass(frozen=True)
class Distinct:
    """Declares that a tuple holds no value twice."""


@dataclass(frozen=True)
class NotRoot:
    """Declares that a path is not the root of the file system, where nothing of ours belongs."""


@dataclass(frozen=True)
class Needs:
    """Declares that a field acts only where others of its class allow it; see `core.config.find_idle`."""

    what: str
    """That condition in words, such as "tuning lora"."""
    holds: Callable[[Any], bool]
    """The condition, of a config of the class."""
    of: tuple[str, ...] = ()
    """The fields of a nested config that it is about; empty is all of them."""


@dataclass(frozen=True)
class Was:
    """Declares what a field was called in version 0.1.0.

    Files keep that name, since a run is found by a hash over them, and are read under either. The command
    line refuses it and says which holds now.
    """

    name: str
    """The field's first name."""
    values: tuple[tuple[str, str], ...] = ()
    """First values, and those that mean the same now, where they are others."""

    def read(self, value: Any) -> Any:
        """What a value in a file means now."""
        return next((now for first, now in self.values if first == value), value)

    def write(self, value: Any) -> Any:
        """The value for a file."""
        return next((first for first, now in self.values if now == value), value)


@dataclass(frozen=True)
class WasSecond(Was):
    """The same of a pair whose second number alone was a field; another first one is written as a pair."""

    first: float = 0.0
    """What the first number always was."""

    def read(self, value: Any) -> Any:
        """A pair."""
        return value if isinstance(value, (list, tuple)) else (self.first, value)

    def write(self, value: Any) -> Any:
        """Its second number where that is enough."""
        return value[1] if value[0] == self.first else value


@dataclass(frozen=True)
class Since:
    """Declares a field that came after version 0.1.0, and what held before there was a choice.

    Files leave the field out where its value is that one, and mean that one where they leave it out.
    """

    before: Any
    """That value."""


@dataclass(frozen=True)
class Flat:
    """Declares that files write the fields of a nested config among those of the one around it."""


@dataclass(frozen=True)
class Group:
    """Declares that ``--help-all`` shows a field, and those below it in its class, as a group of flags."""

    title: str = field(repr=False)
    """Its name; a field with another one ends it, and it may go on below."""


@dataclass(frozen=True)
class Basic:
    """Declares a flag that ``--help`` shows; of a command that has some it shows no others."""


@dataclass(frozen=True)
class NeedsData:
    """Declares that a field acts only with data of a kind, which is known where a run begins."""

    what: str
    """These data in words, such as "pictures"."""
    holds: Callable[[Any, Any], bool]
    """The condition, of a config of the class and of the data, such as a `DatasetSpec`."""


BASIC = Basic()
PICTURES = NeedsData("observations that are pictures", lambda config, spec: bool(spec.image_shape))
VECTORS = NeedsData("observations that are vectors", lambda config, spec: not spec.image_shape)

Count: TypeAlias = Annotated[int, Interval(ge=1)]
Natural: TypeAlias = Annotated[int, Interval(ge=0)]
Positive: TypeAlias = Annotated[float, Interval(gt=0)]
NonNegative: TypeAlias = Annotated[float, Interval(ge=0)]
Fraction: TypeAlias = Annotated[float, Interval(ge=0, le=1)]
Share: TypeAlias = Annotated[float, Interval(gt=0, le=1)]
BelowOne: TypeAlias = Annotated[float, Interval(ge=0, lt=1)]
"""A dropout probability, or the decay of a running mean."""
MAX_LAYERS = 1_000
"""More would take minutes to build before the first step; the deepest published models have a tenth."""
Layers: TypeAlias = Annotated[int, Interval(ge=1, le=MAX_LAYERS)]
"""Blocks of a network."""
Widths: TypeAlias = Annotated[tuple[Count, ...], MinLen(1), MaxLen(MAX_LAYERS)]
Workers: TypeAlias = Annotated[int, Interval(ge=1, le=1024)]
"""Threads or processes: no machine has more."""
Seed: TypeAlias = Annotated[int, Interval(ge=0, le=2**32 - 1)]

Out: TypeAlias = Annotated[Path, NotRoot()]
"""A folder or file to write."""
Targets: TypeAlias = Annotated[tuple[float, ...], Distinct()]
"""Raw returns to ask for."""

MAX_EPISODES = 1_000_000
"""In an evaluation: more would take months."""
INT64 = 2**63 - 1
FLOAT32 = 3.4028234663852886e38
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
MAX_TEXT, MAX_PATH_PART = 4096, 255
"""Bytes, of a path and of each name in it, that Linux takes; so many may each of several columns have."""


def check_number(value: float, kind: type, where: str) -> None:
    """Refuse what no field may hold: NaN, infinity, and numbers too large for what computes with them."""
    if kind is int and abs(value) > INT64:
        raise refusal(where, value, "an integer from -2^63 to 2^63 - 1")
    if not abs(value) < math.inf:
        raise refusal(where, value, "a finite number")
    if abs(value) > FLOAT32:
        raise refusal(where, value, "a number of single precision, at most 3.4e38")


def check_text(text: str, where: str) -> None:
    """Refuse text that could be no path, name or line: with control characters, not UTF-8, or too long."""
    try:
        encoded = text.encode()
    except UnicodeEncodeError as error:
        raise refusal(where, text, "text in UTF-8") from error
    if _CONTROL.search(text):
        raise refusal(where, text, "text without NUL, line breaks and other control characters")
    longest = max(map(len, re.split(b"[/,]", encoded)))
    if len(encoded) > MAX_TEXT or longest > MAX_PATH_PART:
        limits = f"at most {MAX_TEXT:,} bytes, {MAX_PATH_PART} between slashes or commas"
        raise refusal(where, text, limits)


def check_declared(value: Any, metadata: tuple[Any, ...], where: str) -> None:
    """Hold a value to the declarations of its ``Annotated`` type; None, which a union may allow, has none.

    Raises:
        InputError: naming the field, what was given and what was expected.
    """
    for declaration in () if value is None else metadata:
        if isinstance(declaration, Interval) and isinstance(value, numbers.Real):
            if not _inside(value, declaration):
                raise refusal(where, value, _expected(declaration))
        elif isinstance(declaration, MinLen) and len(value) < declaration.min_length:
            least = "one or more" if declaration.min_length == 1 else f"at least {declaration.min_length}"
            raise refusal(where, list(value), f"{least} values")
        elif isinstance(declaration, MaxLen) and len(value) > declaration.max_length:
            raise InputError(
                f"{where}: got {len(value):,} values, expected at most {declaration.max_length:,}"
            )
        elif isinstance(declaration, Distinct) and len(set(value)) < len(value):
            raise refusal(where, list(value), "each value once")
        elif isinstance(declaration, NotRoot) and not value.absolute().name:
            raise refusal(where, str(value), "a folder or file below the root")


def refusal(where: str, value: Any, expected: str) -> InputError:
    """One line: the field, what was given, and what was expected."""
    return InputError(f"{where}: got {shown(value)}, expected {expected}")


def _inside(value: Any, interval: Interval) -> bool:
    return not (
        (interval.ge is not None and not value >= interval.ge)
        or (interval.gt is not None and not value > interval.gt)
        or (interval.le is not None and not value <= interval.le)
        or (interval.lt is not None and not value < interval.lt)
    )


def _expected(interval: Interval) -> str:
    if interval.ge is not None and interval.le is not None:
        return f"{interval.ge} to {interval.le}"
    if interval == Interval(gt=0):
        return "a positive number"
    words = {
        "at least": interval.ge,
        "more than": interval.gt,
        "at most": interval.le,
        "less than": interval.lt,
    }
    return " and ".join(f"{word} {bound}" for word, bound in words.items() if bound is not None)

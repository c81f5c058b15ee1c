"""How numbers are written for people: the one rule of the command line, of tables and of pages."""

from __future__ import annotations

import math
from collections.abc import Iterable

DIGITS = 3
"""Significant digits of a measured number."""
_FIXED = (1e-4, 1e15)
"""Sizes between which numbers are written without an exponent."""


def format_number(
    value: float,
    *,
    like: Iterable[float] = (),
    decimals: int | None = None,
    signed: bool = False,
) -> str:
    """A measured number with at least three significant digits: ``0.0270``, ``27.3``, ``3,234``.

    Args:
        value: the number.
        like: numbers that it stands beside, such as the mean of a spread: all get the decimals that the
            largest needs.
        decimals: digits after the point in place of that rule, for a scale whose unit is known.
        signed: write the sign of a positive number too.
    """
    size = max(abs(number) for number in (value, *like))
    sign = "+" if signed else ""
    if not math.isfinite(size) or size >= _FIXED[1] or (decimals is None and 0 < size < _FIXED[0]):
        return f"{value:{sign}.{DIGITS - 1}e}"
    if decimals is None:
        decimals = max(0, DIGITS - 1 - math.floor(math.log10(size))) if size else 0
    text = f"{value:{sign},.{decimals}f}"
    return text.lstrip("+-") if not text.strip("+-0.,") else text


def format_setting(value: float) -> str:
    """A number that somebody chose, as it was given: ``3,600``, ``0.5``; six significant digits at most."""
    return f"{value:,.6g}"


def format_mean(mean: float, std: float | None) -> str:
    """``3,234 ± 120``, or the mean alone where one sample gives no spread."""
    return (
        format_number(mean) if std is None else f"{format_number(mean)} ± {format_number(std, like=[mean])}"
    )


def count(number: int, what: str) -> str:
    """``1 episode``, ``12 episodes``."""
    return f"{number:,} {what}" + ("" if number == 1 else "s")

"""How numbers are written for people: the one rule of the command line, of tables and of pages."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import islice

DIGITS = 3
"""Significant digits of a measured number."""
_FIXED = (1e-4, 1e15)
"""Sizes between which numbers are written without an exponent."""
_SIX_DIGITS = 999_999.5
"""What six digits show as 1e+06, and all above it."""


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
    """A number that somebody chose, as given: ``3,600``, ``0.5``, in six significant digits, or whole."""
    value = value or 0.0  # of -0.0 without its sign
    return f"{value:,.0f}" if _SIX_DIGITS <= abs(value) < _FIXED[1] else f"{value:,.6g}"


def format_mean(mean: float, std: float | None) -> str:
    """``3,234 ± 120``, or the mean alone where one sample gives no spread."""
    return (
        format_number(mean) if std is None else f"{format_number(mean)} ± {format_number(std, like=[mean])}"
    )


def count(number: int, what: str) -> str:
    """``1 episode``, ``12 episodes``."""
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def listed(items: Iterable[object], most: int = 10, separator: str = ", ") -> str:
    """``1, 2, 5``, or the first of many: ``1, 2, 5, ...``."""
    shown = list(map(str, islice(items, most + 1)))
    return separator.join(shown if len(shown) <= most else [*shown[:most], "..."])


def format_score(
    value: float, *, normalized: bool = True, signed: bool = False, like: Iterable[float] = ()
) -> str:
    """A score with one decimal, or a raw return with three significant digits; with a real minus sign.

    Args:
        value: the figure.
        normalized: whether it is a score, 0 to 100.
        signed: write the sign of a positive one too.
        like: figures that it stands beside and shares its decimals with.
    """
    decimals = 1 if normalized else None
    return format_number(value, like=like, decimals=decimals, signed=signed).replace("-", "−")


def format_p(p_value: float) -> str:
    """``p = 0.03``, with two digits, or ``p < 0.001``."""
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.2g}"


def percent(fraction: float) -> str:
    """``3 %``, ``4.25 %``."""
    return f"{format_setting(float(f'{100 * fraction:.3g}'))} %"


def format_duration(seconds: float) -> str:
    """``1 h 05 min``, ``12 min 30 s`` or ``8.4 s``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def shown_time(seconds: float) -> str:
    """``8 s``, ``12 min``, ``3.5 h`` or ``2.1 days``."""
    for size, unit, digits in ((86_400.0, "days", 1), (3_600.0, "h", 1), (60.0, "min", 0)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.{digits}f} {unit}"
    return f"{seconds:.0f} s"

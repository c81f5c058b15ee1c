"""A matplotlib figure as SVG inside a page: themed by CSS variables, text as text, ids that cannot collide.

Figures are drawn in stand-in colors, which are replaced by CSS variables: one drawing serves light and dark.
Artists with the gid of `arm_gid` become groups with a ``data-arm`` attribute, which the page can hide.
"""

from __future__ import annotations

import io
import itertools
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator, ScalarFormatter

INK, MUTED, GRID, SURFACE = "#0b0000", "#0b0001", "#0b0002", "#0b0003"
"""Stand-ins for the colors of text, of secondary text, of grid lines and of the page."""
_VARIABLES = {INK: "var(--ink)", MUTED: "var(--muted)", GRID: "var(--grid)", SURFACE: "var(--surface)"}

NUM_COLORS = 8
"""Colors for arms; arms beyond them repeat the colors with other dashes."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
_DASHES = ("-", "--", ":", "-.")
_FONT_SIZE = 10.0
_STEPS = [1, 2, 2.5, 5, 10]
PANEL_SIZE = (4.6, 2.9)
"""Inches of a panel; 72 units of the SVG to the inch."""

_gids = itertools.count()

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": _FONT_SIZE,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0.0,
    "ytick.major.size": 0.0,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
}


def arm_color(arm: int) -> str:
    """Stand-in for the color of an arm."""
    return f"#0a{arm % NUM_COLORS:02x}01"


def arm_marker(arm: int) -> str:
    """Marker of an arm: a second sign beside its color."""
    return MARKERS[arm % len(MARKERS)]


def arm_dashes(arm: int) -> str:
    """Line style of an arm: it changes when the colors repeat."""
    return _DASHES[arm // NUM_COLORS % len(_DASHES)]


def arm_gid(arm: int) -> str:
    """Group id of an artist that belongs to an arm."""
    return f"arm-{arm}-{next(_gids)}"


@contextmanager
def style() -> Iterator[None]:
    """Style of all figures; draw and write them inside it."""
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        # The page's own font is used; matplotlib's would only have measured the text.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


class Canvas:
    """A figure with one panel that is drawn on again and again: making axes and ticks is half the cost.

    Use it inside `style` only.
    """

    def __init__(self) -> None:
        self.figure = Figure(figsize=PANEL_SIZE)
        self._axes = self.figure.add_axes((0.135, 0.165, 0.84, 0.80))

    def clear(self, x_label: str, y_label: str, *, counts_steps: bool = False, log: bool = False) -> Axes:
        """Empty axes.

        Args:
            x_label: label of the x axis.
            y_label: label of the y axis.
            counts_steps: write 20,000 as 20k on the x axis.
            log: logarithmic y axis.
        """
        axes = self._axes
        for artist in (*axes.lines, *axes.collections, *axes.patches, *axes.texts, *axes.images):
            artist.remove()
        axes.relim()
        axes.set_autoscale_on(True)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.set_yscale("log" if log else "linear")
        if not log:
            axes.yaxis.set_major_locator(MaxNLocator(5, steps=_STEPS))
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=_STEPS))
        axes.xaxis.set_major_formatter(EngFormatter(sep="") if counts_steps else ScalarFormatter())
        return axes


def to_svg(figure: Figure, key: str, description: str) -> Markup:
    """An inline SVG of a figure that was drawn inside `style`.

    Args:
        figure: the figure.
        key: name of the figure in the page, letters, digits and dashes; prefix of its ids.
        description: what it shows, for those who cannot see it.
    """
    buffer = io.StringIO()
    with mpl.rc_context({**_STYLE, "svg.hashsalt": key}):
        figure.savefig(
            buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
    drawing = buffer.getvalue()
    drawing = drawing[drawing.index("<svg") :]
    drawing = re.sub(r"<metadata>.*?</metadata>", "", drawing, flags=re.DOTALL)
    drawing = re.sub(r"<style type=\"text/css\">.*?</style>", "", drawing, flags=re.DOTALL)
    drawing = re.sub(r"<!--.*?-->\s*", "", drawing, flags=re.DOTALL)
    drawing = re.sub(r'id="arm-(\d+)-\d+"', r'class="arm" data-arm="\1"', drawing)
    drawing = _keep_referenced_ids(drawing, key)
    drawing = re.sub(r"#0[ab]00?[0-9a-f]{2,3}\b", lambda match: _variable(match[0]), drawing)
    drawing = re.sub(r'(?<= d=")[^"]+', lambda match: _shorten(match[0]), drawing)
    drawing = re.sub(r" font-family: [^;\"]*;", "", drawing)
    drawing = re.sub(r">\s+<", "><", drawing).replace("<g/>", "").replace("<defs></defs>", "")
    head = f'<svg role="img" aria-label="{escape(description)}" preserveAspectRatio="xMidYMid meet" viewBox="'
    drawing = re.sub(r"<svg\b[^>]*?viewBox=\"", lambda _: head, drawing, count=1, flags=re.DOTALL)
    drawing = re.sub(
        r'^(<svg[^>]*?)\s+xmlns="[^"]*"\s+version="[^"]*"', r"\1", drawing, count=1, flags=re.DOTALL
    )
    return Markup(drawing.strip())


def _variable(color: str) -> str:
    if color in _VARIABLES:
        return _VARIABLES[color]
    return f"var(--arm-{int(color[3:5], 16)})"


def _keep_referenced_ids(drawing: str, key: str) -> str:
    referenced = set(re.findall(r'(?:url\(|xlink:href=")#([\w.-]+)', drawing))

    def rename(match: re.Match[str]) -> str:
        return f' id="{key}-{match[1]}"' if match[1] in referenced else ""

    drawing = re.sub(r' id="([^"]*)"', rename, drawing)
    return re.sub(r'(url\(|xlink:href=")#([\w.-]+)', rf"\1#{key}-\2", drawing)


def _shorten(path: str) -> str:
    return re.sub(r"(\d+\.\d\d)\d+", r"\1", path).replace("\n", " ")

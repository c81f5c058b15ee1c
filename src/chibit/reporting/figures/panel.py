"""What every figure is made of: panels, their lines and bands, and the sections of a page that hold them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes

from chibit.reporting.figures.svg import MUTED, arm_color, arm_dashes, arm_gid, arm_marker
from chibit.reporting.statistics.comparison import Scores
from chibit.reporting.tables.table import Table

_MARKERS = 7
"""Of a line, about: enough to tell it from others of its color."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One figure of a page."""

    title: str
    """Heading: the data set, or the arm."""
    svg: Markup
    """The drawing."""
    note: str = ""
    """What a reader must know to read it, where it differs from panel to panel."""
    arm: int | None = None
    """Place of the arm that the whole panel is about."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page: figures, and the same as tables."""

    key: str
    """Its id: letters, digits and dashes."""
    title: str
    """Its heading."""
    caption: str = ""
    """What its figures show."""
    panels: Mapping[Any, list[Panel]]
    """Its figures under each score rule; None holds those that are the same under all."""
    tables: Mapping[Any, list[Table]] = field(default_factory=dict)
    """Its tables, likewise."""
    is_half: bool = False
    """Half as wide, beside another of its kind."""
    is_folded: bool = True
    """Its tables are shown on request."""


def present(panels: Iterable[Panel | None]) -> list[Panel]:
    """Those of some panels for which there was something to draw."""
    return [panel for panel in panels if panel is not None]


def arm_style(place: int) -> dict[str, Any]:
    """Color and group of what belongs to an arm."""
    return {"color": arm_color(place), "gid": arm_gid(place)}


def draw_line(axes: Axes, place: int, x: np.ndarray, y: np.ndarray, **style: Any) -> None:
    """An arm's line, with its marker and dashes but for what `style` says."""
    usual: dict[str, Any] = {
        "linestyle": arm_dashes(place),
        "linewidth": 1.7,
        "marker": arm_marker(place),
        "markersize": 3.2,
        "markevery": max(1, len(x) // _MARKERS),
    }
    axes.plot(x, y, **usual | arm_style(place) | style)


def draw_band(axes: Axes, place: int, x: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
    """An interval around an arm's line."""
    axes.fill_between(x, low, high, alpha=0.16, linewidth=0, **arm_style(place))


def draw_behavior(axes: Axes, value: float | None, *, horizontal: bool) -> None:
    """A dotted line at the mean of the training data's own episodes."""
    if value is None:
        return
    draw = axes.axhline if horizontal else axes.axvline
    draw(value, color=MUTED, linewidth=1.2, linestyle=(0, (2, 3)))


def sets_title(scores: Scores) -> str:
    """What is averaged: the only data set, or how many."""
    sets = scores.aggregated
    return sets[0] if len(sets) == 1 else f"{len(sets)} data sets"


def cut(label: str, length: int) -> str:
    """A text of at most so many characters."""
    return label if len(label) <= length else label[: length - 1] + "…"

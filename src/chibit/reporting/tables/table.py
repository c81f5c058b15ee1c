"""A table once, written as Markdown, CSV or LaTeX (the page draws the same object as HTML)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from chibit.core.formatting import format_duration, format_setting
from chibit.reporting.read.arms import arm_label


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column."""

    label: str
    """Heading."""
    numeric: bool = True
    """Numbers stand at the right, text at the left."""
    arm: int | None = None
    """Place of the arm that the column belongs to, so that a page can hide it."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell."""

    text: str
    """What is shown."""
    sort: float | str | None = None
    """What the column is sorted by; None is the text, and empty cells come last."""
    note: str = ""
    """Second line in small type: an interval, a number of seeds."""
    strong: bool = False
    """Set in bold."""
    link: str = ""
    """Where a page that lies beside the runs leads to from here."""


_LONGEST_LINE = 60
"""Characters of a cell that LaTeX keeps in one line."""
_SIGNED_NUMBERS = re.compile(r"[+-][\d.,]+( to [+−-]?[\d.,]+)?")

EMPTY = Cell(text="—", sort=float("-inf"))
"""A cell for which there is nothing: no run, no published number."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row."""

    cells: tuple[Cell, ...]
    """As many as there are columns."""
    arm: int | None = None
    """Place of the arm that the row belongs to."""
    summary: bool = False
    """A mean over the rows above: it stays at the foot when the table is sorted."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table with its title and what a reader must know to read it."""

    key: str
    """Name in the page and in file names: letters, digits and dashes."""
    title: str
    """Heading."""
    caption: str
    """What the numbers are."""
    columns: tuple[Column, ...]
    """Columns from left to right; the first one names the row."""
    rows: tuple[Row, ...]
    """Rows from top to bottom."""


def text_columns(*labels: str) -> tuple[Column, ...]:
    """Columns of text under these headings."""
    return tuple(Column(label=label, numeric=False) for label in labels)


def number_columns(*labels: str) -> tuple[Column, ...]:
    """Columns of numbers under these headings."""
    return tuple(Column(label=label) for label in labels)


def arm_columns(arms: Sequence[str], *, numeric: bool = True) -> tuple[Column, ...]:
    """A column for each arm."""
    return tuple(Column(label=arm_label(arm), numeric=numeric, arm=i) for i, arm in enumerate(arms))


def text(value: str) -> Cell:
    """A cell of text that sorts by itself."""
    return Cell(text=value)


def setting_cell(value: float) -> Cell:
    """A cell of a number that somebody chose, such as a target return."""
    return Cell(text=format_setting(value).replace("-", "−"), sort=value)


def number_cell(value: float | None) -> Cell:
    """A count; empty where the file has none."""
    return EMPTY if value is None else Cell(text=f"{value:,.0f}", sort=float(value))


def duration_cell(seconds: float | None) -> Cell:
    """A time, readable; empty where the file has none."""
    return EMPTY if seconds is None else Cell(text=format_duration(seconds), sort=seconds)


def to_markdown(tables: Sequence[Table]) -> str:
    """Tables as GitHub-flavoured Markdown, each under its title."""
    return "\n".join(_markdown(table) for table in tables)


def to_latex(tables: Sequence[Table]) -> str:
    """Tables as LaTeX for the booktabs package, each a table environment with its caption."""
    head = "% Needs \\usepackage{booktabs}.\n"
    return head + "\n".join(_latex(table) for table in tables)


def csv_safe(value: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    risky = value[:1] in {"=", "+", "-", "@", "\t", "\r"} and not _SIGNED_NUMBERS.fullmatch(value)
    return "'" + value if risky else value


def _joined(cell: Cell) -> str:
    return f"{cell.text} ({cell.note})" if cell.note else cell.text


def _markdown(table: Table) -> str:
    head = f"## {markdown_text(table.title)}\n\n{markdown_text(table.caption)}\n\n"
    return head + markdown_grid(table)


def markdown_grid(table: Table) -> str:
    """The columns and rows of a table as Markdown."""
    lines = [_markdown_row([column.label for column in table.columns])]
    lines.append("|" + "|".join("---:" if column.numeric else "---" for column in table.columns) + "|")
    for row in table.rows:
        lines.append(
            _markdown_row([_joined(cell) for cell in row.cells], [cell.strong for cell in row.cells])
        )
    return "\n".join(lines) + "\n"


def _markdown_row(cells: Sequence[str], strong: Sequence[bool] | None = None) -> str:
    marks = strong or [False] * len(cells)
    shown = [
        f"**{markdown_text(cell)}**" if mark else markdown_text(cell)
        for cell, mark in zip(cells, marks, strict=True)
    ]
    return "| " + " | ".join(shown) + " |"


def markdown_text(value: str) -> str:
    """Text that Markdown shows as it is."""
    escaped = re.sub(r"([\\`*_\[\]|~#!$])", r"\\\1", value)
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\n", " ")


_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    "−": "$-$",
    "—": "---",
    "·": r"$\cdot$",
    "×": r"$\times$",
}


def _latex_text(value: str) -> str:
    return "".join(_LATEX.get(character, character) for character in value).replace("\n", " ")


def _latex(table: Table) -> str:
    alignment = "".join(_latex_alignment(table, place) for place in range(len(table.columns)))
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_latex_text(table.title)}. {_latex_text(table.caption)}}}",
    ]
    lines += [rf"\label{{tab:{table.key}}}", rf"\begin{{tabular}}{{{alignment}}}", r"\toprule"]
    lines += [" & ".join(_latex_text(column.label) for column in table.columns) + r" \\", r"\midrule"]
    for previous, row in zip((None, *table.rows), table.rows, strict=False):
        if row.summary and previous is not None and not previous.summary:
            lines.append(r"\midrule")
        lines.append(" & ".join(_latex_cell(cell) for cell in row.cells) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}", r"\end{table}", ""]
    return "\n".join(lines)


def _latex_alignment(table: Table, place: int) -> str:
    """Numbers to the right, text to the left; sentences are broken into lines."""
    if any(len(row.cells[place].text) > _LONGEST_LINE for row in table.rows):
        return r"p{.22\linewidth}"
    return "r" if table.columns[place].numeric else "l"


def _latex_cell(cell: Cell) -> str:
    shown = _latex_text(_joined(cell))
    return rf"\textbf{{{shown}}}" if cell.strong else shown

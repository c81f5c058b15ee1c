"""A folder of runs to one HTML page, Markdown, LaTeX and CSV, and to a table for a terminal."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.measure import Measurement
from rich.table import Table as RichTable
from rich.text import Text

from chibit.core.config import as_field
from chibit.core.errors import InputError, UserError
from chibit.core.files import nearest, open_regular, user_path, write_atomic
from chibit.core.formatting import count
from chibit.core.shared_folder import MANIFEST, shared_folder
from chibit.core.terminal import make_console, print_json
from chibit.reporting.analysis import HEADLINE, Analysis, analyze
from chibit.reporting.read.study import read_study
from chibit.reporting.read.targets import TargetChoice
from chibit.reporting.statistics.comparison import Comparison
from chibit.reporting.statistics.intervals import Difference
from chibit.reporting.statistics.survival import Levels
from chibit.reporting.tables.judged import SELECTION
from chibit.reporting.tables.table import Table, csv_safe, markdown_text, to_latex, to_markdown

FORMATS = ("html", "md", "csv", "tex")
_NAMES = {
    "html": "report.html",
    "markdown": "report.md",
    "csv": "scores.csv",
    "comparisons": "comparisons.csv",
    "latex": "report.tex",
}
_FORMAT_OF = {"html": "html", "markdown": "md", "csv": "csv", "comparisons": "csv", "latex": "tex"}
"""The format that a file is written for."""
_COLUMNS = (
    *("arm", "dataset", "seed", "target_return", "unit", "last4", "last", "best", "best_step"),
    *("mean_return_last", "steps_to_converge", "seconds_to_converge", "steps", "folder"),
)
_COMPARISON_COLUMNS = (
    *("measure", "arm", "reference", "dataset", "pairs", "dropped_seeds", "difference"),
    *("bootstrap_low", "bootstrap_high", "student_low", "student_high", "standard_error"),
    *("degrees_of_freedom", "p_value", "adjusted_p"),
    *("by_seed_low", "by_seed_high", "by_seed_p_value", "by_seed_adjusted_p"),
)
_Line = dict[str, Any]
"""A line of a CSV file by its columns."""
_LOOKED_AT = 4096
_UNBOUND, _LONGEST_NAME, _MOST_ROWS = 10_000, 22, 24
"""In a terminal: columns of one without an edge, most of a name, most arms."""
_BEGINNINGS = {
    "html": b"<!doctype html>",
    "markdown": b"# ",
    "csv": ",".join(_COLUMNS).encode(),
    "comparisons": b"measure,arm,reference,dataset,pairs,dropped_seeds,difference,bootstrap_low,",
    "latex": b"% Needs \\usepackage{booktabs}.",
}
"""How the files of earlier versions begin."""


@dataclass(frozen=True, kw_only=True)
class ReportPaths:
    """Files that a report wrote; None for formats that were not asked for."""

    html: Path | None = None
    """The page."""
    markdown: Path | None = None
    """All tables as Markdown, below the verdict."""
    csv: Path | None = None
    """One line for each run and target return."""
    comparisons: Path | None = None
    """One line for each comparison, data set and measure."""
    latex: Path | None = None
    """All tables as LaTeX (booktabs)."""


def build_report(
    folder: str | Path,
    out: str | Path | None = None,
    *,
    formats: Sequence[str] = FORMATS,
    target: TargetChoice = "first",
    baseline: str | None = None,
    levels: Levels | None = None,
) -> ReportPaths:
    """Read a study and write its report.

    Args:
        folder: a study's folder, or a single run directory.
        out: where to write; None is the folder itself.
        formats: which of ``html``, ``md``, ``csv`` and ``tex``.
        target: ``first`` listed target return, on each data set the ``best`` by the mean of all runs, a raw
            return, or raw returns by environment such as ``{"hopper": 3600}``.
        baseline: arm that others are compared with; None takes the registered comparisons, else the matched
            control if there is one.
        levels: as in `analyze`.

    Returns:
        Paths of ``report.html``, ``report.md``, ``scores.csv`` with ``comparisons.csv``, and ``report.tex``.

    Raises:
        InputError: for a folder without runs, an unknown format, arm or choice of target.
        ResourceError: when a file cannot be written.
    """
    for name in as_field(tuple[str, ...], formats, "formats"):
        if name not in FORMATS:
            raise InputError(
                f"formats: got {name!r}, expected some of {', '.join(FORMATS)}{nearest(name, FORMATS)}"
            )
    place, into = user_path(folder), user_path(out or folder)
    analysis = analyze(read_study(place), target=target, baseline=baseline, levels=levels)
    return write_report_files(analysis, into, formats)


def write_report_files(analysis: Analysis, out: Path, formats: Sequence[str] = FORMATS) -> ReportPaths:
    """Write an analysis as files into a folder, beside what is there; raises as `build_report`."""
    contents = {
        "csv": render_csv(analysis),
        "comparisons": render_comparisons(analysis),
        "latex": to_latex(analysis.flat_tables()),
    }
    if "html" in formats:
        from chibit.reporting.page import (
            render_page,  # brings matplotlib, which the other formats do not need
        )

        files = _downloads(analysis, contents) if analysis.study.runs else {}
        is_beside = out.resolve() == analysis.study.folder.resolve()
        contents["html"] = render_page(analysis, files, is_beside_runs=is_beside)
    if "md" in formats:
        contents["markdown"] = render_markdown(analysis)
    wanted = {kind for kind, name in _FORMAT_OF.items() if name in formats}
    contents = {kind: content for kind, content in contents.items() if kind in wanted}
    beside = ("a run", "a study")
    with shared_folder(out, "report", beside=beside, recognized=_written_before(out), keep=True) as new:
        for kind, content in contents.items():
            write_atomic(new / _NAMES[kind], content)
    return ReportPaths(**{kind: out / _NAMES[kind] for kind in contents})


def _downloads(analysis: Analysis, contents: Mapping[str, str]) -> dict[str, str]:
    """What the page carries to be taken away: all numbers, and the tables of the headline as LaTeX."""
    tables = [analysis.tables[kind][HEADLINE] for kind in ("scores", "differences")]
    latex = to_latex([table for table in tables if table.rows])
    return {_NAMES[kind]: contents[kind] for kind in ("csv", "comparisons")} | {_NAMES["latex"]: latex}


def _written_before(out: Path) -> list[str]:
    """Reports of an earlier version, which kept no list of its files."""
    if os.path.lexists(out / MANIFEST):
        return []
    return [name for kind, name in _NAMES.items() if _begins_with(out / name, _BEGINNINGS[kind])]


def _begins_with(path: Path, beginning: bytes) -> bool:
    try:
        with open_regular(path) as file:
            return file.read(_LOOKED_AT).startswith(beginning)
    except (UserError, OSError):
        return False


def render_markdown(analysis: Analysis) -> str:
    """The verdict and all tables as Markdown."""
    verdict = analysis.verdict
    lines = [markdown_text(analysis.known), ""] if analysis.known else []
    lines += [f"**{markdown_text(verdict.sentence)}**", "", markdown_text(verdict.basis)]
    lines += [f"- {markdown_text(line)}" for line in (*verdict.also, *verdict.cautions)]
    tables = to_markdown(analysis.flat_tables())
    return f"# {markdown_text(analysis.study.name)}\n\n" + "\n".join(lines) + "\n\n" + tables


def render_csv(analysis: Analysis) -> str:
    """One line for each run and target return, with all three scores."""
    return _to_csv(_COLUMNS, _score_rows(analysis))


def render_comparisons(analysis: Analysis) -> str:
    """One line for each comparison over all data sets and on each, of scores and of what else is measured."""
    return _to_csv(_COMPARISON_COLUMNS, _comparison_rows(analysis))


def render_record(analysis: Analysis, paths: ReportPaths) -> dict[str, Any]:
    """What a report says, and where it was written, as JSON values."""
    return {
        "study": str(analysis.study.folder),
        "verdict": asdict(analysis.verdict),
        "scores": list(_score_rows(analysis)),
        "comparisons": list(_comparison_rows(analysis)),
        "excluded": [asdict(one) for one in analysis.study.excluded],
        "written": {kind: str(path) for kind, path in vars(paths).items() if path is not None},
    }


def _to_csv(columns: Sequence[str], rows: Iterable[_Line]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, restval="", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: csv_safe(v) if isinstance(v, str) else v for name, v in row.items()})
    return buffer.getvalue()


def _score_rows(analysis: Analysis) -> Iterator[_Line]:
    for run in analysis.study.runs:
        normalized = analysis.study.is_normalized(run.dataset)
        for curve in run.curves:
            rules = curve.rules if normalized else curve.return_rules
            row: tuple[Any, ...] = (run.arm, run.dataset, run.seed, curve.target_return)
            row += ("score" if normalized else "return", rules.last4, rules.last, rules.best)
            row += (curve.steps[rules.best_index], curve.mean_returns[-1])
            soon = (curve.steps[rules.converged_index], curve.seconds[rules.converged_index])
            row += soon if normalized else (None, None)  # its margin is of normalized scores
            yield dict(zip(_COLUMNS, (*row, curve.steps[-1], run.name), strict=True))


def _comparison_rows(analysis: Analysis) -> Iterator[_Line]:
    everything = [(f"score-{HEADLINE}", analysis.comparisons[HEADLINE])]
    everything += [(one.measure.key, one.comparisons) for one in analysis.measured]
    for measure, comparisons in everything:
        for comparison in comparisons:
            if comparison.overall is not None:
                whole = _comparison_row(comparison, comparison.overall, comparison.datasets)
                pooled = {"adjusted_p": comparison.adjusted_p, **_by_seed_columns(comparison)}
                yield {**whole, "measure": measure, **pooled}
            for dataset, estimate in comparison.by_dataset.items():
                yield {
                    **_comparison_row(comparison, estimate, (dataset,)),
                    "measure": measure,
                    "dataset": dataset,
                }


def _by_seed_columns(comparison: Comparison) -> _Line:
    student = comparison.by_seed
    if student is None:
        return {}
    row: _Line = {"by_seed_low": student.low, "by_seed_high": student.high}
    row |= {"by_seed_p_value": student.p_value, "by_seed_adjusted_p": comparison.adjusted_p_by_seed}
    return row


def _comparison_row(comparison: Comparison, estimate: Difference, datasets: Sequence[str]) -> _Line:
    dropped = sorted({seed for name in datasets for seed in comparison.dropped.get(name, ())})
    row: _Line = {
        "arm": comparison.treatment,
        "reference": comparison.baseline,
        "pairs": sum(comparison.num_pairs[name] for name in datasets),
        "dropped_seeds": " ".join(map(str, dropped)),
        "difference": estimate.value,
        "bootstrap_low": estimate.low,
        "bootstrap_high": estimate.high,
    }
    if (student := estimate.student) is not None:
        row |= {"student_low": student.low, "student_high": student.high}
        row |= {"standard_error": student.standard_error, "p_value": student.p_value}
        row["degrees_of_freedom"] = student.degrees_of_freedom
    return row


def render_console_table(
    folder: Path, *, target: TargetChoice = "first", baseline: str | None = None
) -> Group:
    """The verdict and the table of scores for a terminal.

    Args:
        folder: a study's folder, or a single run directory.
        target: as in `build_report`.
        baseline: as in `build_report`.

    Returns:
        Something rich's console prints. Text from files is never read as markup.
    """
    return _for_console(analyze(read_study(folder), target=target, baseline=baseline))


def print_report(
    folder: Path,
    out: Path | None = None,
    *,
    formats: Sequence[str] = FORMATS,
    target: TargetChoice = "first",
    baseline: str | None = None,
    levels: Levels | None = None,
    as_json: bool = False,
) -> Path | None:
    """Write a report as `build_report` does, print its scores, and where the page is or else the other files.

    With `as_json` all that it says is printed as JSON instead.

    Returns:
        The page, where it was asked for.
    """
    analysis = analyze(read_study(folder, progress=True), target=target, baseline=baseline, levels=levels)
    paths = write_report_files(analysis, out or folder, formats)
    if as_json:
        print_json(render_record(analysis, paths))
        return paths.html
    console = make_console()
    console.print(_for_console(analysis))
    written = {"page": paths.html} if paths.html else {**vars(paths), "scores": paths.csv, "csv": None}
    for what, path in written.items():
        if path is not None:
            console.print(f"{what}: {path}", soft_wrap=True)
    return paths.html


def _for_console(analysis: Analysis) -> Group:
    parts: list[RichTable | Text] = []
    if analysis.known:
        parts.append(Text(analysis.known + "\n", style="dim"))
    if analysis.study.runs:
        parts.append(_rich_table(analysis.tables["scores"][HEADLINE]))
    parts += [_rich_table(table) for table in analysis.tables["judged"] if table.key.startswith(SELECTION)]
    parts.append(Text(analysis.verdict.sentence, style="bold"))
    parts += [Text(line) for line in (*analysis.verdict.also, *analysis.verdict.cautions)]
    if excluded := len(analysis.study.excluded):
        are = "is" if excluded == 1 else "are"
        parts.append(Text(f"{count(excluded, 'folder')} {are} not counted; the page says why."))
    return Group(*parts)


def _rich_table(table: Table) -> RichTable:
    """All columns, or as many of the first ones as there is room for."""
    console, number = make_console(), len(table.columns)
    for shown in (_columns(table, number), *(_columns(table, most, "-\n") for most in range(number, 1, -1))):
        if Measurement.get(console, console.options.update(width=_UNBOUND), shown).maximum <= console.width:
            break
    return shown


def _columns(table: Table, number: int, hyphen: str = "-") -> RichTable:
    rows = [row for row in table.rows if not row.summary]
    hidden, left_out = len(table.columns) - number, len(rows) - _MOST_ROWS
    more = f" {count(left_out, 'more row')} in the files." if left_out > 0 else ""
    more += f" {count(hidden, 'more column')} in the files and in a wider terminal." if hidden else ""
    caption = Text(table.caption + more)
    shown = RichTable(title=Text(table.title), title_justify="left", caption=caption, caption_justify="left")
    for column in table.columns[:number]:
        label = Text(column.label.replace("-", hyphen))
        if column.numeric:
            shown.add_column(label, justify="right")
        else:
            shown.add_column(label, max_width=_LONGEST_NAME, overflow="fold")
    for row in (*rows[:_MOST_ROWS], *(row for row in table.rows if row.summary)):
        shown.add_row(*[_rich_cell(cell.text, cell.note, cell.strong) for cell in row.cells[:number]])
    return shown


def _rich_cell(text: str, note: str, strong: bool) -> Text:
    shown = Text(text, style="bold" if strong else "")
    return shown.append(f"\n{note}", style="dim") if note else shown

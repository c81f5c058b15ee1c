"""Write the tables of the docs from the raw results in results/, or the page of every study.

A mark in a page of docs/, ``<!-- results: WHAT STUDY -->``, says what stands between it and the next
``<!-- end of results -->``: a key of `PARTS`. Studies whose runs are kept as run directories (see
`export_results.py`) are all in the part `experiment`, with what docs/experiment.md says is to be reported of
them; older ones are kept as a line for each evaluation, ``<study>/<arm>/<data>.csv``.

Commands:
    python scripts/write_results.py
    python scripts/write_results.py --pages site/results
"""

from __future__ import annotations

import argparse
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from chibit.core.errors import UserError
from chibit.core.files import write_atomic
from chibit.core.formatting import format_number, format_p, format_score, format_setting
from chibit.core.score_rules import curve_scores
from chibit.recipes import RATES
from chibit.reporting.analysis import HEADLINE, Analysis, analyze
from chibit.reporting.published.evidence import known_sentence
from chibit.reporting.read.arms import arm_label, arm_rank
from chibit.reporting.read.shipped import read_rows
from chibit.reporting.read.study import read_study
from chibit.reporting.report import write_report_files
from chibit.reporting.statistics.verdict import comparison_label
from chibit.reporting.tables.known import differences_known, studies_known
from chibit.reporting.tables.scores import score_cell, scores_table
from chibit.reporting.tables.table import (
    EMPTY,
    Cell,
    Column,
    Row,
    Table,
    markdown_grid,
    markdown_text,
    number_columns,
    setting_cell,
    text,
    text_columns,
    to_markdown,
)
from chibit.studies import STUDIES
from chibit.study_runs import study_configs
from chibit.sweep.rates import choose, read_trials

ROOT = Path(__file__).parents[1]
PAGES, RESULTS = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"], ROOT / "results"
START, END = re.compile(r"<!-- results: (\w+) ?(\w*) -->\n"), "<!-- end of results -->\n"
BESIDE = {"fair": "fair_baselines"}
"""A study, and another whose arms stand in its table of scores without a test."""
STAGE_0 = {"rates": {100, 101}, "language_rates": {100}}
"""Studies that choose each arm's step size, and their seeds."""
EXPERIMENT = ("fair", "fair_twice", "fair_longer", "low_data", "sources", "sources_one_rate")
"""Studies of docs/experiment.md that compare arms, in the order of its questions."""
SEEDS = 10
"""Paired seeds of the registered experiment."""
CONTROL = "random"

Key = tuple[str, str, str]
"""Data set, arm, target return."""
Curves = dict[Key, dict[int, list[dict[str, str]]]]
"""Evaluations in the order of steps, by seed."""


def read_curves(study: Path) -> Curves:
    """A study that is kept as evaluations, by data set, arm (in the order of tables) and target."""
    found: Curves = defaultdict(lambda: defaultdict(list))
    for path in sorted(study.glob("*/*.csv"), key=lambda path: (path.stem, arm_rank(path.parent.name))):
        rows = read_rows(path)
        for target in sorted({row["target_return"] for row in rows}, key=lambda x: -float(x or 0)):
            for row in rows:
                if row["target_return"] == target:
                    found[path.stem, path.parent.name, target][int(row["seed"])].append(row)
    return found


def scores_of(seeds: Mapping[int, list[dict[str, str]]], rule: str) -> np.ndarray:
    """(n,) scores of the seeds under a rule."""
    return np.array([getattr(curve_scores([float(row["score"]) for row in s]), rule) for s in seeds.values()])


def target_cell(target: str) -> Cell:
    return setting_cell(float(target)) if target else EMPTY


def scores(study: Path) -> str:
    """Last, last 4 and best of each arm, mean and sample standard deviation over seeds."""
    rows = []
    for (data, arm, target), seeds in read_curves(study).items():
        steps = max(int(line[-1]["step"]) for line in seeds.values())
        shown = [
            score_cell(scores_of(seeds, rule), normalized=True, num_seeds=len(seeds))
            for rule in ("last", "last4", "best")
        ]
        counts = (Cell(text=f"{steps:,}"), Cell(text=str(len(seeds))))
        rows.append((text(data), text(arm), target_cell(target), *counts, *shown))
    names = ("Target", "Steps", "Seeds", "Last", "Last 4", "Best")
    return grid((*text_columns("Data", "Arm"), *number_columns(*names)), rows)


def differences(study: Path) -> str:
    """Differences in the mean of the last four from the control of the same seed, and their mean."""
    curves = read_curves(study)
    rows = []
    for (data, arm, target), seeds in curves.items():
        control = curves.get((data, CONTROL, target), {})
        if arm == CONTROL or not control:
            continue
        paired = {seed: lines for seed, lines in seeds.items() if seed in control}
        values = scores_of(paired, HEADLINE) - scores_of({s: control[s] for s in paired}, HEADLINE)
        listed = ", ".join(format_score(value, signed=True) for value in values)
        mean = Cell(text=format_score(float(values.mean()), signed=True))
        rows.append((text(data), text(arm), target_cell(target), text(listed), mean))
    columns = (
        *text_columns("Data", "Arm"),
        *number_columns("Target"),
        *text_columns("By seed"),
        *number_columns("Mean"),
    )
    return grid(columns, rows)


def evaluations(study: Path) -> str:
    """The score at each evaluation of each seed."""
    rows = []
    for (data, arm, target), seeds in read_curves(study).items():
        for seed, lines in seeds.items():
            listed = ", ".join(format_score(float(line["score"])) for line in lines)
            cells = (text(data), text(arm), target_cell(target), Cell(text=str(seed)))
            steps = text(", ".join(f"{int(line['step']):,}" for line in lines))
            rows.append((*cells, steps, text(listed)))
    columns = (
        *text_columns("Data", "Arm"),
        *number_columns("Target", "Seed"),
        *text_columns("Steps", "Scores"),
    )
    return grid(columns, rows)


def returns(study: Path) -> str:
    """Mean return and score at the last evaluation."""
    rows = []
    for (data, arm, target), seeds in read_curves(study).items():
        for lines in seeds.values():
            last = lines[-1]
            shown = (format_number(float(last["mean_return"])), format_score(float(last["score"])))
            cells = (f"{int(last['step']):,}", last["episodes"], *(cell.replace("-", "−") for cell in shown))
            rows.append((text(data), text(arm), target_cell(target), *(Cell(text=cell) for cell in cells)))
    names = ("Target", "Steps", "Episodes", "Mean return", "Score")
    return grid((*text_columns("Data", "Arm"), *number_columns(*names)), rows)


def errors(study: Path) -> str:
    """Action errors before and after training."""
    rows = []
    for row in read_rows(study / "action_error.csv"):
        numbers = (f"{int(row['trainable_parameters']):,}",) + tuple(
            format_number(float(row[name])) for name in ("action_error_before", "action_error_after")
        )
        shown = (*numbers, format_score(float(row["score"])))
        rows.append((text(row["arm"]), *(Cell(text=cell) for cell in shown)))
    names = ("Trainable", "Error before", "Error after", "Score")
    return grid((*text_columns("Arm"), *number_columns(*names)), rows)


def grid(columns: Sequence[Column], rows: Sequence[tuple[Cell, ...]]) -> str:
    """A table without its title, and without columns that are empty."""
    used = [place for place in range(len(columns)) if any(cells[place] is not EMPTY for cells in rows)]
    made = tuple(Row(cells=tuple(cells[place] for place in used)) for cells in rows)
    kept = tuple(columns[place] for place in used)
    return markdown_grid(Table(key="table", title="", caption="", columns=kept, rows=made))


def evidence() -> str:
    """The sentence and the two tables of what others have measured."""
    return f"{known_sentence()}\n\n{_demoted([differences_known(), studies_known()], '###')}"


def _demoted(tables: Sequence[Table], level: str) -> str:
    return re.sub(r"^## ", f"{level} ", to_markdown(tables), flags=re.MULTILINE)


def kept_studies() -> Iterator[Path]:
    """Studies that are kept as run directories, in the order of their table; others by name."""
    order = list(STUDIES)
    kept = {path.parents[1] for path in RESULTS.glob("*/*/result.json")}
    place = {folder: order.index(folder.name) if folder.name in order else len(order) for folder in kept}
    yield from sorted(kept, key=lambda folder: (place[folder], folder.name))


def experiment() -> str:
    """All studies that are kept as run directories."""
    parts = []
    for folder in kept_studies():
        summary = (
            STUDIES[folder.name].summary
            if folder.name in STUDIES
            else "single runs; the page that names them says why"
        )
        stop = "" if summary.endswith("?") else "."
        said = f"{summary[:1].upper()}{summary[1:]}{stop} Raw results: `results/{folder.name}`."
        head = f"### Study `{folder.name}`\n\n{said}\n"
        parts.append(f"{head}\n{stage_0(folder) if folder.name in STAGE_0 else outcomes(folder)}")
    return "\n".join(parts)


def stage_0(folder: Path) -> str:
    """Every arm's step sizes, and the one that the rule chooses once all seeds of all of them are there."""
    trials = read_trials(folder)
    rows, open_arms = [], []
    for arm in sorted(trials, key=arm_rank):
        whole = len(trials[arm]) == len(RATES) and trials[arm][0].num_seeds == len(STAGE_0[folder.name])
        chosen = choose(trials[arm]) if whole else None
        open_arms += [] if whole else [arm_label(arm)]
        for trial in trials[arm]:
            cells = (format_setting(trial.rate), format_number(trial.error), format_score(trial.score))
            strong = trial is chosen
            numbers = (Cell(text=cell, strong=strong) for cell in (*cells, str(trial.num_seeds)))
            rows.append((text(arm_label(arm)), *numbers))
    names = ("Rate", "Held-out error", "Mean of the last 4 scores", "Seeds")
    said = "Bold: the rate that is taken (the lowest error; among those within 1 % of it the highest score)."
    if open_arms:
        said += f" Nothing is chosen yet, for want of rates or seeds, for {', '.join(open_arms)}."
    return f"{said}\n\n{grid((*text_columns('Arm'), *number_columns(*names)), rows)}"


def outcomes(folder: Path) -> str:
    """What a study says, in sentences and tables."""
    analysis = analyze(read_study(folder))
    verdict, tables = analysis.verdict, analysis.tables
    said = [verdict.sentence, *verdict.also, verdict.basis, *verdict.cautions]
    whole = together(analysis, folder)
    chosen = [
        scores_table(whole.scores[HEADLINE], whole.aggregates[HEADLINE]),
        tables["differences"][HEADLINE],
    ]
    for one in analysis.measured:
        kinds = ("arrivals", "measured")
        chosen += [tables[kind][one.measure.key] for kind in kinds if one.measure.key in tables[kind]]
    chosen += [*tables["splits"], *tables["crossovers"], *tables["gaps"]]
    chosen += [tables["excluded"]] if tables["excluded"] else []
    lines = "".join(f"- {markdown_text(line)}\n" for line in said)
    return f"{lines}\n{_demoted([table for table in chosen if table.rows], '####')}"


def successes(folder: Path) -> str:
    """Per cent of the last evaluation that was solved: mean over seeds, and the lowest of them."""
    study = read_study(folder)
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for run in study.runs:
        found[run.arm][run.dataset] += [one.last for one in run.result.scores[:1] if one.last is not None]
    rows = []
    for arm in sorted(found, key=arm_rank):
        cells = []
        for dataset in study.datasets:
            values = np.array(found[arm][dataset])
            note = f"lowest of {values.size}: {values.min():.0f}" if values.size else ""
            cells.append(replace(score_cell(values, normalized=True, num_seeds=values.size), note=note))
        rows.append((text(arm_label(arm)), *cells))
    return grid((*text_columns("Arm"), *number_columns(*study.datasets)), rows)


def compared() -> str:
    """Every comparison of the experiment's studies over all of their data sets."""
    rows = []
    for folder in (RESULTS / name for name in EXPERIMENT if (RESULTS / name).is_dir()):
        analysis = analyze(read_study(folder))
        runs = f"{len(analysis.study.runs)} runs"
        for one in analysis.comparisons[HEADLINE]:
            if one.overall is None or one.overall.student is None or one.adjusted_p is None:
                continue
            student = one.overall.student
            points = (one.overall.value, student.low, student.high)
            value, low, high = (format_score(number, signed=True) for number in points)
            half = format_score((student.high - student.low) / 2)
            cells = (value, f"{low} to {high}", half, format_p(one.adjusted_p).removeprefix("p = "))
            name = Cell(text=folder.name, note=runs)
            rows.append((name, text(comparison_label(one)), *(Cell(text=cell) for cell in cells)))
    names = ("Points", "Student's 95 %", "Half-width", "p")
    return grid((*text_columns("Study", "Comparison"), *number_columns(*names)), rows)


def targets(folder: Path) -> str:
    """The mean of the last four scores of each run at each target that it was asked for."""
    found: dict[str, dict[tuple[int, float], float | None]] = defaultdict(dict)
    for run in read_study(folder).runs:
        for one in run.result.scores:
            found[run.arm][run.seed, one.target_return or 0.0] = one.last4
    keys = sorted({key for cells in found.values() for key in cells}, key=lambda key: (key[0], -key[1]))
    rows = []
    for arm in sorted(found, key=arm_rank):
        scores = [found[arm].get(key) for key in keys]
        rows.append(
            (text(arm_label(arm)), *(EMPTY if s is None else Cell(text=format_score(s)) for s in scores))
        )
    names = [f"seed {seed}, asked for {target:,.0f}" for seed, target in keys]
    return grid((*text_columns("Arm"), *number_columns(*names)), rows)


def finding(folder: Path) -> str:
    """What the main study says: the first comparison, and all that were registered beside it."""
    analysis = analyze(read_study(folder))
    planned, done = len(study_configs(folder.name, seeds=range(SEEDS))), len(analysis.study.runs)
    rest = f" ({done} of the {planned} registered runs are there; the rest decide.)" if done < planned else ""
    where = ", ".join(analysis.study.datasets)
    said = " ".join([analysis.verdict.sentence, *analysis.verdict.also])
    return f"{known_sentence()}\n\nOn our own data ({where}): {said}{rest}\n"


def together(analysis: Analysis, folder: Path) -> Analysis:
    """A study and the one beside it as one; the comparisons stay those of the first."""
    other = RESULTS / BESIDE.get(folder.name, "")
    if other == RESULTS or not other.is_dir():
        return analysis
    study = analysis.study
    return analyze(replace(study, runs=study.runs + read_study(other).runs))


def write_pages(out: Path) -> None:
    """The report of every study that is kept as run directories, below a folder."""
    for folder in kept_studies():
        analysis = together(analyze(read_study(folder)), folder)
        print(write_report_files(analysis, out / folder.name, ["html"]).html)


PARTS: dict[str, Callable[..., str]] = {
    "evidence": evidence,
    "compared": compared,
    "experiment": experiment,
    "finding": finding,
    "targets": targets,
    "scores": scores,
    "differences": differences,
    "evaluations": evaluations,
    "returns": returns,
    "successes": successes,
    "errors": errors,
}
"""What can stand between marks; those after the first three are of one study."""


def filled(page: str) -> str:
    """A page with all that stands between marks computed anew."""
    pieces = []
    while mark := START.search(page):
        what, study = mark.groups()
        _, end, rest = page[mark.end() :].partition(END)
        if not end:
            raise SystemExit(f"{mark[0].strip()}: its end is missing")
        content = PARTS[what](RESULTS / study) if study else PARTS[what]()
        pieces.append(page[: mark.end()] + content + END)
        page = rest
    return "".join(pieces) + page


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pages", type=Path, help="write the page of every study into this folder instead")
    arguments = parser.parse_args()
    if arguments.pages:
        write_pages(arguments.pages)
    else:
        for page in PAGES:
            before = page.read_text(encoding="utf-8")
            if filled(before) != before:
                write_atomic(page, filled(before))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(str(error)) from error

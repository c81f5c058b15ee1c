"""Success on each split of a language task, and what other words for the same bring beyond nonsense.

Beside each such result stands whether the words of an arm know what the test asks: where they do not, that
nothing is found is no evidence about language.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from chibit.reporting.read.arms import arm_label
from chibit.reporting.read.run import Run
from chibit.reporting.read.study import Study
from chibit.reporting.statistics.intervals import mean_and_std, student_interval
from chibit.reporting.tables.scores import SPREAD
from chibit.reporting.tables.table import (
    EMPTY,
    Cell,
    Row,
    Table,
    arm_columns,
    number_columns,
    text,
    text_columns,
)

_SYNONYM, _NONSENSE = "_synonym", "_nonsense"


def splits_tables(study: Study) -> list[Table]:
    """A table of success and one of signals for each data set whose runs were played on splits."""
    tables = []
    for place, dataset in enumerate(study.datasets):
        runs = [run for run in study.runs if run.dataset == dataset and run.result.splits]
        if runs:
            tables += [_success(study, dataset, runs, place), _signals(study, dataset, runs, place)]
    return tables


def _success(study: Study, dataset: str, runs: list[Run], place: int) -> Table:
    splits = list(dict.fromkeys(one.split for run in runs for one in run.result.splits))
    rows = []
    for split in splits:
        found = [[_rates(run).get(split) for run in runs if run.arm == arm] for arm in study.arms]
        cells = [_mean_cell([100 * rate for rate in rates if rate is not None]) for rates in found]
        rows.append(Row(cells=(text(split.replace("_", " ")), *cells)))
    return Table(
        key=f"splits-{place}",
        title=f"Success on each split: {dataset}",
        caption=f"Percent of the episodes played at the end of each run; {SPREAD}. Held out: pairs of color "
        "and type that no training instruction asks for. Synonym: another word for the same in the place of "
        "the verb, type or color; nonsense: a word that means nothing there; wrong: another one of training.",
        columns=(*text_columns("Split"), *arm_columns(study.arms)),
        rows=tuple(rows),
    )


def _signals(study: Study, dataset: str, runs: list[Run], number: int) -> Table:
    slots = sorted(
        {
            one.split.removesuffix(_SYNONYM)
            for run in runs
            for one in run.result.splits
            if _SYNONYM in one.split
        }
    )
    rows = []
    for place, arm in enumerate(study.arms):
        of_arm = [run for run in runs if run.arm == arm]
        cells = [_signal_cell(_signals_of(of_arm, slot), _known(of_arm, slot)) for slot in slots]
        rows.append(Row(cells=(text(arm_label(arm)), *cells), arm=place))
    return Table(
        key=f"signals-{number}",
        title=f"Synonym minus nonsense: {dataset}",
        caption="Percentage points of success that a synonym brings beyond a nonsense word in its place, in "
        "the same rooms; mean over the seeds and its 95% interval (Student). Below: whether what the arm "
        "reads knows the words, by the share whose nearest other one means the same, and that share for "
        "random vectors (chibit words). Where they are not known, that nothing is found is no evidence.",
        columns=(*text_columns("Arm"), *number_columns(*(slot.capitalize() for slot in slots))),
        rows=tuple(rows),
    )


def _signals_of(runs: list[Run], slot: str) -> list[float]:
    """Of each run that was played on both splits, in percentage points."""
    both = {slot + _SYNONYM, slot + _NONSENSE}
    return [
        100 * (rates[slot + _SYNONYM] - rates[slot + _NONSENSE])
        for run in runs
        if both <= (rates := _rates(run)).keys()
    ]


def _rates(run: Run) -> dict[str, float]:
    return {one.split: one.success_rate for one in run.result.splits}


def _mean_cell(percents: list[float]) -> Cell:
    if not percents:
        return EMPTY
    mean, std = mean_and_std(np.array(percents))
    return Cell(text=f"{mean:.0f}" + ("" if std is None else f" ± {std:.0f}"), sort=mean)


def _signal_cell(signals: list[float], known: str) -> Cell:
    if not signals:
        return EMPTY
    mean = float(np.mean(signals))
    shown = _signed(mean)
    if len(signals) > 1 and (interval := student_interval([np.array(signals)])).has_spread:
        shown += f" ({_signed(interval.low)} to {_signed(interval.high)})"
    return Cell(text=shown, sort=mean, note=known)


def _signed(points: float) -> str:
    """``+3``, ``−3`` with a real minus sign, or ``0``."""
    written = f"{points:+.0f}".replace("-", "−")
    return written if written[1:] != "0" else "0"


def _known(runs: list[Run], slot: str) -> str:
    """What the words of an arm know of a slot, as its first run wrote it down."""
    for run in runs:
        record = run.provenance.get("initialiser")
        words = record.get("words") if isinstance(record, Mapping) else None
        test: Any = words.get(slot) if isinstance(words, Mapping) else None
        if isinstance(test, Mapping):
            shares = [test.get(name) for name in ("nearest", "random")]
            if all(isinstance(share, float) for share in shares):
                found = "known" if test.get("known") is True else "not known: no evidence"
                return f"{found} ({shares[0]:.2f}, random {shares[1]:.2f})"
    return ""

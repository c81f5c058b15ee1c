"""Runs of which only evaluations are kept: ``<study>/<arm>/<data>.csv``, a line for each one.

Such a table has the columns of `Line`; settings, losses and single episodes of its runs are not known, and a
report of them has no section on those.
"""

from __future__ import annotations

import csv
import io
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from chibit.core.config import Checked, from_json
from chibit.core.errors import InputError, UserError
from chibit.core.fields import Count, Natural, NonNegative, Seed
from chibit.core.files import open_regular, read_regular
from chibit.core.run_records import EvaluationRecord, ResultRecord, check_record_name
from chibit.environments.data_names import published_env_id
from chibit.reporting.read.run import Excluded, Run, read_curves
from chibit.reporting.read.strict_json import Refused, shown_name

_MAX_BYTES, _LONGEST_HEADER = 16 << 20, 1_000


@dataclass(frozen=True, kw_only=True)
class Line(Checked):
    """An evaluation of a run at one target return."""

    seed: Seed
    step: Natural
    seconds: NonNegative
    target_return: float | None
    score: float | None
    mean_return: float
    episodes: Count


_COLUMNS = [field.name for field in fields(Line)]


def read_kept(folder: Path) -> list[Run | Excluded]:
    """The runs of an arm whose evaluations are kept in a folder; nothing where it holds no such table."""
    found: list[Run | Excluded] = []
    for path in filter(_is_kept, sorted(folder.glob("*.csv"))):
        try:
            found += list(_runs(path, list(_rows(path))))
        except Refused as refusal:
            arm = shown_name(folder)
            name = f"{arm}/{shown_name(path)}"
            found.append(Excluded(name=name, kind=refusal.kind, reason=refusal.reason, arm=arm))
    return found


def _is_kept(path: Path) -> bool:
    """Whether a file begins as such a table does."""
    try:
        with open_regular(path, inside=path.parent) as file:
            return file.readline(_LONGEST_HEADER).decode().strip().split(",") == _COLUMNS
    except (UserError, OSError, ValueError):
        return False


def _rows(path: Path) -> Iterator[Line]:
    try:
        text = read_regular(path, inside=path.parent, most=_MAX_BYTES).decode()
        reader = csv.reader(io.StringIO(text), strict=True)
        next(reader)
        for row in reader:
            where = f"{shown_name(path)}, line {reader.line_num}"
            if len(row) != len(_COLUMNS):
                raise Refused("damaged", f"{where}: {len(row)} values, expected {len(_COLUMNS)}")
            values = {
                name: json.loads(cell) if cell else None for name, cell in zip(_COLUMNS, row, strict=True)
            }
            yield from_json(Line, values, where)
    except (UserError, ValueError, csv.Error) as error:
        reason = str(error) if isinstance(error, UserError) else f"{shown_name(path)}: {error}"
        raise Refused("damaged", reason) from error


def _runs(path: Path, lines: list[Line]) -> Iterator[Run]:
    arm, dataset = shown_name(path.parent), shown_name(path).removesuffix(path.suffix)
    try:
        check_record_name(arm, "the folder's name")
        check_record_name(dataset, "the file's name")
    except InputError as error:
        raise Refused("damaged", str(error)) from error
    by_seed: dict[int, list[Line]] = defaultdict(list)
    for line in lines:
        by_seed[line.seed].append(line)
    env_id = published_env_id(dataset)
    for seed, evaluations in by_seed.items():
        curves = read_curves((f"{shown_name(path)}, seed {seed}", _record(line)) for line in evaluations)
        yield Run(
            folder=path.parent,
            arm=arm,
            dataset=dataset,
            seed=seed,
            config={"seed": seed, "data": dataset},
            provenance={"data_name": dataset, "data_hash": "", "dataset": {"env_id": env_id}},
            curves=tuple(replace(curve, final_returns=np.empty(0)) for curve in curves),
            loss=np.empty((0, 2)),
            held_out=np.empty((0, 2)),
            result=ResultRecord(
                status="finished",
                steps=max(line.step for line in evaluations),
                score_unit="return" if curves[0].scores is None else "normalized",
                scores=(),
                behaviour_mean_return=None,
                behaviour_score=None,
                train_seconds=max(line.seconds for line in evaluations),
            ),
        )


def _record(line: Line) -> EvaluationRecord:
    return EvaluationRecord(
        step=line.step,
        seconds=line.seconds,
        target_return=line.target_return,
        normalized_score=line.score,
        episode_returns=(line.mean_return,),
    )

"""One run directory to one `Run`, strictly: what is damaged or foreign is refused with a reason.

The format is in docs/architecture.md. A refusal's reason names the file and what is wrong with it; it is
shown in the report's list of excluded runs.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from chibit.core.errors import UserError, shown
from chibit.core.files import open_regular
from chibit.core.run_dir import SCHEMA
from chibit.core.run_records import (
    DescriptionRecord,
    EvaluationRecord,
    ProvenanceRecord,
    ResultRecord,
    SettingsRecord,
)
from chibit.core.score_rules import LAST_COUNT, CurveScores, curve_scores
from chibit.evaluation.summary import summarize_record
from chibit.reporting.read.strict_json import (
    Kind,
    Refused,
    read_as,
    read_lines,
    read_number,
    read_object,
    read_step,
    shown_name,
)

HELD_OUT = "held_out/action_error"
"""Key in metrics.jsonl."""
_METRIC_LINES, _HELD_OUT_LINES = 200, 20_000
"""Lines of metrics.jsonl that are read, evenly spaced: enough for a curve, quick for logs of any length; and
all lines of two million steps, as they are usually logged."""
_LOG_BYTES, _LONGEST_FAILURE = 65_536, 300
_TOLERANCE = 1e-6


@dataclass(frozen=True, kw_only=True, eq=False)
class Curve:
    """All evaluations of one run at one target return, in the order of steps."""

    target_return: float | None
    """Raw return that was asked for; None for a policy without one."""
    steps: np.ndarray
    """(N,) int64 gradient steps, rising. Evaluations whose episodes all failed are not there."""
    seconds: np.ndarray
    """(N,) seconds of training up to each evaluation, without evaluation."""
    mean_returns: np.ndarray
    """(N,) mean raw return of the episodes that did not fail."""
    scores: np.ndarray | None
    """(N,) normalized scores, 0 to 100; None where the data set has no reference."""
    final_returns: np.ndarray
    """(M,) raw returns of all episodes of the last four evaluations."""
    num_failed: int
    """Episodes whose environment failed, over all evaluations; left out of every mean."""

    @property
    def values(self) -> np.ndarray:
        """(N,) normalized scores, or mean raw returns where there are none."""
        return self.mean_returns if self.scores is None else self.scores

    @cached_property
    def rules(self) -> CurveScores:
        """`values` under the three score rules."""
        return curve_scores(self.values.tolist())

    @cached_property
    def return_rules(self) -> CurveScores:
        """Mean raw returns under the three score rules."""
        return curve_scores(self.mean_returns.tolist())


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """One finished, evaluated run."""

    folder: Path
    """Its run directory."""
    arm: str
    """Arm it belongs to."""
    dataset: str
    """Data set it was trained on."""
    seed: int
    """Seed of initialization, batches and evaluation episodes."""
    config: dict[str, Any]
    """RunConfig as JSON."""
    provenance: dict[str, Any]
    """Commit, command, versions, machine, data and physics."""
    curves: tuple[Curve, ...]
    """One per target return, in the order in which they were listed."""
    loss: np.ndarray
    """(N, 2) steps and training losses, thinned; N is 0 where no loss was logged."""
    held_out: np.ndarray
    """(M, 2) steps and action errors on held-out episodes; M is 0 where none was measured."""
    result: ResultRecord
    """Content of result.json."""

    @property
    def fraction(self) -> float:
        """Share of the data's episodes that it was trained on."""
        return float(self.config.get("data_fraction", 1.0))

    @property
    def num_steps(self) -> int:
        """Gradient steps that were asked for, or where no settings are kept those that were evaluated."""
        return int(self.config.get("num_steps", self.result.steps))

    @property
    def name(self) -> str:
        """Name of the run directory."""
        return shown_name(self.folder)


@dataclass(frozen=True, kw_only=True)
class Excluded:
    """A folder that is no finished run of this study, and why."""

    name: str
    """Name of the folder."""
    kind: Kind
    """What is wrong, in a word."""
    reason: str
    """What is wrong, in a sentence."""
    arm: str | None = None
    """Arm, where config.json could be read."""
    dataset: str | None = None
    """Data set, where provenance.json could be read."""
    seed: int | None = None
    """Seed, where config.json could be read."""
    is_run: bool = True
    """Whether it is a run at all, and not a folder of something else."""


def read_run(folder: Path) -> Run | Excluded:
    """Read one folder of a study.

    Args:
        folder: any folder.

    Returns:
        The run, or why it is none.
    """
    known: dict[str, Any] = {}
    try:
        return _read_run(folder, known)
    except Refused as refusal:
        has_logs = any(os.path.lexists(folder / name) for name in ("provenance.json", "metrics.jsonl"))
        is_run = "arm" in known or has_logs or refusal.kind == "other schema"
        return Excluded(
            name=shown_name(folder), kind=refusal.kind, reason=refusal.reason, is_run=is_run, **known
        )


def _read_run(folder: Path, known: dict[str, Any]) -> Run:
    if not os.path.lexists(folder / "config.json"):
        raise Refused("foreign", "not a run directory: it has no config.json")
    description = read_as(DescriptionRecord, _versioned(folder, "config.json"), "config.json")
    known["arm"] = description.arm
    settings = read_as(SettingsRecord, description.config, "config.json: config")
    known["seed"] = settings.seed
    provenance: dict[str, Any] = {}
    if os.path.lexists(folder / "provenance.json"):
        provenance = read_object(folder, "provenance.json")
        share = "" if settings.data_fraction == 1.0 else f"-{100 * settings.data_fraction:.3g}pct"
        known["dataset"] = read_as(ProvenanceRecord, provenance, "provenance.json").data_name + share
    if not os.path.lexists(folder / "result.json"):
        raise _unfinished(folder, settings.num_steps)
    if not provenance:
        raise Refused("damaged", "provenance.json is missing")
    found = _versioned(folder, "result.json")
    if found.get("status") != "finished":
        raise Refused("unfinished", f"result.json: status {shown(found.get('status'))}, expected 'finished'")
    result = read_as(ResultRecord, found, "result.json")
    lines = read_lines(folder, "evaluations.jsonl")
    curves = read_curves((where, read_as(EvaluationRecord, line, where)) for where, line in lines)
    _check_result(result, curves)
    loss, held_out = read_columns(folder, ("train/loss", HELD_OUT), _METRIC_LINES)
    if len(held_out) > 1:  # few runs have it; where it decides when a level is reached, each line counts
        (held_out,) = read_columns(folder, (HELD_OUT,), _HELD_OUT_LINES)
    return Run(
        folder=folder,
        config=description.config,
        provenance=provenance,
        curves=curves,
        loss=loss,
        held_out=held_out,
        result=result,
        **known,
    )


def _unfinished(folder: Path, planned: int) -> Refused:
    """Why a run without result.json has none: it diverged, or it is still going or was stopped."""
    if os.path.lexists(folder / "divergence.json"):
        record = read_object(folder, "divergence.json")
        return Refused(
            "diverged", f"diverged after step {shown(record.get('step'))}: {record.get('message')}"
        )
    lines = read_lines(folder, "metrics.jsonl", at_most=_METRIC_LINES, cut_allowed=True)
    steps = [read_step(record, where) for where, record in lines]
    reached = f"logged up to step {max(steps):,}" if steps else "nothing logged yet"
    of = f" of {planned:,}" if steps and planned else ""
    failure = _last_failure(folder)
    said = f"; its log says: {failure}" if failure else ""
    return Refused("unfinished", f"no result.json, so it did not finish: {reached}{of}{said}")


def _last_failure(folder: Path) -> str:
    """Why a run failed or crashed the last time, as the study's driver wrote it down; else empty."""
    try:
        with open_regular(folder / "train.log", inside=folder) as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LOG_BYTES))
            lines = file.read(_LOG_BYTES).decode("utf-8", "replace").splitlines()
    except (UserError, OSError):
        return ""
    found = [line for line in lines if line.startswith(("failed: ", "crashed: "))]
    return found[-1][:_LONGEST_FAILURE] if found else ""


def read_curves(evaluations: Iterable[tuple[str, EvaluationRecord]]) -> tuple[Curve, ...]:
    """Evaluations, each with where it stands, as a curve for each target return."""
    records: dict[float | None, list[EvaluationRecord]] = {}
    for where, record in evaluations:
        earlier = records.setdefault(record.target_return, [])
        if earlier and record.step <= earlier[-1].step:
            raise Refused("damaged", f"{where}: step {record.step} follows step {earlier[-1].step}")
        earlier.append(record)
    if not records:
        raise Refused(
            "not played",
            "it finished without an evaluation, so it has no score; chibit judge says what can be said of it",
        )
    return tuple(_make_curve(target, evaluations) for target, evaluations in records.items())


def _make_curve(target: float | None, records: list[EvaluationRecord]) -> Curve:
    summaries = [(record, summarize_record(vars(record))) for record in records]
    counted = [(record, summary) for record, summary in summaries if summary.num_episodes]
    if not counted:
        raise Refused("not evaluated", f"every episode at target {shown(target)} failed, so it has no score")
    scores = [summary.normalized_score for _, summary in counted]
    if len({score is None for score in scores}) > 1:
        raise Refused(
            "damaged", "evaluations.jsonl: some evaluations have a normalized score and some have none"
        )
    return Curve(
        target_return=target,
        steps=np.array([record.step for record, _ in counted], dtype=np.int64),
        seconds=np.array([record.seconds for record, _ in counted]),
        mean_returns=np.array([summary.mean_return for _, summary in counted]),
        scores=None if scores[0] is None else np.array(scores),
        final_returns=np.concatenate([summary.returns for _, summary in counted[-LAST_COUNT:]]),
        num_failed=sum(summary.num_failed for _, summary in summaries),
    )


def _check_result(result: ResultRecord, curves: tuple[Curve, ...]) -> None:
    """result.json closes the run, so it must say what the evaluations say."""
    entries = {entry.target_return: entry for entry in result.scores}
    for curve in curves:
        if curve.scores is None and curve.num_failed:
            continue  # version 0.1 took the mean of an evaluation of failed episodes alone
        if curve.target_return not in entries:
            raise Refused("damaged", f"result.json has no scores for target {shown(curve.target_return)}")
        said, rules = entries[curve.target_return], curve.rules
        for rule, theirs, ours in (
            ("last", said.last, rules.last),
            ("last4", said.last4, rules.last4),
            ("best", said.best, rules.best),
        ):
            if theirs is None or not math.isclose(ours, theirs, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE):
                raise Refused(
                    "damaged",
                    f"result.json says {rule} = {shown(theirs)}, evaluations.jsonl gives {ours:.6g}",
                )


def read_columns(folder: Path, keys: Sequence[str], at_most: int | None = None) -> list[np.ndarray]:
    """(N, 2) steps and values of what training logged under each key."""
    points: dict[str, list[tuple[int, float]]] = {key: [] for key in keys}
    for where, record in read_lines(folder, "metrics.jsonl", at_most=at_most):
        step = read_step(record, where)
        for key in keys:
            if key in record:
                points[key].append((step, read_number(record[key], f"{where}: {key}")))
    return [np.array(found, dtype=float).reshape(-1, 2) for found in points.values()]


def _versioned(folder: Path, name: str) -> dict[str, Any]:
    data = read_object(folder, name)
    if "schema" not in data:
        raise Refused("foreign", f"{name}: it has no schema number, so chibit did not write it")
    if data["schema"] != SCHEMA:
        raise Refused("other schema", f"{name}: schema {shown(data['schema'])}; this version reads {SCHEMA}")
    return data

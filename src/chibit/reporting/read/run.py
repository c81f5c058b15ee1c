"""One run directory to one `Run`, strictly: what is damaged or foreign is refused with a reason.

The format is in docs/architecture.md. A refusal's reason names the file and what is wrong with it; it is
shown in the report's list of excluded runs.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from chibit.core.errors import UserError
from chibit.core.files import open_regular
from chibit.core.run_dir import SCHEMA
from chibit.core.score_rules import LAST_COUNT, CurveScores, curve_scores
from chibit.evaluation.summary import EvaluationSummary, summarize
from chibit.reporting.read.strict_json import (
    Kind,
    Refused,
    quoted,
    read_lines,
    read_object,
    require,
    require_name,
    require_number,
    shown_name,
)

HELD_OUT = "held_out/action_error"
"""Key in metrics.jsonl."""
_METRIC_LINES, _HELD_OUT_LINES = 200, 2_000
"""Lines of metrics.jsonl that are read, evenly spaced: enough for a curve, quick for logs of any length."""
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
    """(N,) normalised scores, 0 to 100; None where the data set has no reference."""
    final_returns: np.ndarray
    """(M,) raw returns of all episodes of the last four evaluations."""
    num_failed: int
    """Episodes whose environment failed, over all evaluations; left out of every mean."""

    @property
    def values(self) -> np.ndarray:
        """(N,) normalised scores, or mean raw returns where there are none."""
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
    """Seed of initialisation, batches and evaluation episodes."""
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
    result: dict[str, Any]
    """Content of result.json."""

    @property
    def fraction(self) -> float:
        """Share of the data's episodes that it was trained on."""
        return float(self.config.get("data_fraction", 1.0))

    @property
    def name(self) -> str:
        """Name of the run directory."""
        return shown_name(self.folder)


@dataclass(frozen=True, kw_only=True)
class _Evaluated:
    step: int
    seconds: float
    summary: EvaluationSummary


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


def _share(config: dict[str, Any]) -> str:
    """What tells the data of a run that saw a part of the episodes from the whole: `-10pct`, or nothing."""
    fraction = config.get("data_fraction", 1.0)
    if not isinstance(fraction, (int, float)) or isinstance(fraction, bool) or not 0.0 < fraction <= 1.0:
        raise Refused("damaged", f"config.json: data_fraction is {quoted(fraction)}, expected (0, 1]")
    return "" if fraction == 1.0 else f"-{100 * fraction:.3g}pct"


def _read_run(folder: Path, known: dict[str, Any]) -> Run:
    if not os.path.lexists(folder / "config.json"):
        raise Refused("foreign", "not a run directory: it has no config.json")
    description = read_object(folder, "config.json")
    _check_schema(description, "config.json")
    config = require(description, "config", dict, "config.json")
    known["arm"] = require_name(description, "arm", "config.json")
    known["seed"] = require(config, "seed", int, "config.json: config")
    if os.path.lexists(folder / "provenance.json"):
        provenance = read_object(folder, "provenance.json")
        name = require_name(provenance, "data_name", "provenance.json")
        known["dataset"] = name + _share(config)
    if not os.path.lexists(folder / "result.json"):
        raise _unfinished(folder, config)
    if "dataset" not in known:
        raise Refused("damaged", "provenance.json is missing")
    require_name(provenance, "data_hash", "provenance.json")
    result = read_object(folder, "result.json")
    _check_schema(result, "result.json")
    if result.get("status") != "finished":
        raise Refused(
            "unfinished", f"result.json: status {quoted(result.get('status'))}, expected 'finished'"
        )
    curves = _read_curves(folder)
    _check_result(result, curves)
    held_out = _read_column(folder, HELD_OUT, _METRIC_LINES)
    if len(held_out) > 1:  # few runs have it; where it decides when a level is reached, each line counts
        held_out = _read_column(folder, HELD_OUT, _HELD_OUT_LINES)
    return Run(
        folder=folder,
        arm=known["arm"],
        dataset=known["dataset"],
        seed=known["seed"],
        config=config,
        provenance=provenance,
        curves=curves,
        loss=_read_column(folder, "train/loss", _METRIC_LINES),
        held_out=held_out,
        result=result,
    )


def _unfinished(folder: Path, config: dict[str, Any]) -> Refused:
    """Why a run without result.json has none: it diverged, or it is still going or was stopped."""
    if os.path.lexists(folder / "divergence.json"):
        record = read_object(folder, "divergence.json")
        return Refused(
            "diverged", f"diverged after step {quoted(record.get('step'))}: {record.get('message')}"
        )
    lines = read_lines(folder, "metrics.jsonl", at_most=_METRIC_LINES, cut_allowed=True)
    steps = [record["step"] for _, record in lines]
    planned = config.get("num_steps")
    reached = f"logged up to step {max(steps):,}" if steps else "nothing logged yet"
    of = f" of {planned:,}" if steps and isinstance(planned, int) else ""
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


def _read_curves(folder: Path) -> tuple[Curve, ...]:
    records: dict[float | None, list[_Evaluated]] = {}
    for where, record in read_lines(folder, "evaluations.jsonl"):
        target = record.get("target_return")
        if target is not None:
            target = require_number(target, f"{where}: target_return")
        evaluation = _read_evaluation(record, where)
        earlier = records.setdefault(target, [])
        if earlier and evaluation.step <= earlier[-1].step:
            raise Refused("damaged", f"{where}: step {evaluation.step} follows step {earlier[-1].step}")
        earlier.append(evaluation)
    if not records:
        raise Refused("not evaluated", "it finished without an evaluation, so it has no score")
    return tuple(_make_curve(target, evaluations) for target, evaluations in records.items())


def _read_evaluation(record: dict[str, Any], where: str) -> _Evaluated:
    returns = require(record, "episode_returns", list, where)
    failed = record.get("failed_episodes", [])
    if not isinstance(failed, list) or not all(type(i) is int and 0 <= i < len(returns) for i in failed):
        raise Refused("damaged", f"{where}: failed_episodes is not a list of episode numbers")
    if not returns:
        raise Refused("damaged", f"{where}: it has no episode")
    score = record.get("normalized_score")
    return _Evaluated(
        step=record["step"],
        seconds=require_number(record.get("seconds"), f"{where}: seconds"),
        summary=summarize(
            [require_number(value, f"{where}: episode_returns") for value in returns],
            failed_episodes=failed,
            score=None if score is None else require_number(score, f"{where}: normalized_score"),
        ),
    )


def _make_curve(target: float | None, evaluations: list[_Evaluated]) -> Curve:
    num_failed = sum(evaluation.summary.num_failed for evaluation in evaluations)
    evaluations = [evaluation for evaluation in evaluations if evaluation.summary.num_episodes]
    if not evaluations:
        raise Refused("not evaluated", f"every episode at target {quoted(target)} failed, so it has no score")
    scores = [evaluation.summary.normalized_score for evaluation in evaluations]
    if any(score is None for score in scores) and any(score is not None for score in scores):
        raise Refused(
            "damaged", "evaluations.jsonl: some evaluations have a normalised score and some have none"
        )
    return Curve(
        target_return=target,
        steps=np.array([evaluation.step for evaluation in evaluations], dtype=np.int64),
        seconds=np.array([evaluation.seconds for evaluation in evaluations]),
        mean_returns=np.array([evaluation.summary.mean_return for evaluation in evaluations]),
        scores=None if scores[0] is None else np.array(scores),
        final_returns=np.concatenate(
            [evaluation.summary.returns for evaluation in evaluations[-LAST_COUNT:]]
        ),
        num_failed=num_failed,
    )


def _check_result(result: dict[str, Any], curves: tuple[Curve, ...]) -> None:
    """result.json closes the run, so it must say what the evaluations say."""
    entries = require(result, "scores", list, "result.json")
    for curve in curves:
        if curve.scores is None and curve.num_failed:
            continue  # version 0.1 took the mean of an evaluation of failed episodes alone
        found = [
            e for e in entries if isinstance(e, dict) and e.get("target_return", "") == curve.target_return
        ]
        if not found:
            raise Refused("damaged", f"result.json has no scores for target {quoted(curve.target_return)}")
        for rule in ("last", "last4", "best"):
            ours = getattr(curve.rules, rule)
            theirs = require_number(found[0].get(rule), f"result.json: {rule}")
            if not math.isclose(ours, theirs, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE):
                raise Refused(
                    "damaged", f"result.json says {rule} = {theirs:.6g}, evaluations.jsonl gives {ours:.6g}"
                )


def _read_column(folder: Path, key: str, at_most: int | None = None) -> np.ndarray:
    """(N, 2) steps and values of what training logged under a key."""
    points = [
        (record["step"], require_number(record[key], f"{where}: {key}"))
        for where, record in read_lines(folder, "metrics.jsonl", at_most=at_most)
        if key in record
    ]
    return np.array(points, dtype=float).reshape(-1, 2)


def _check_schema(data: dict[str, Any], where: str) -> None:
    if "schema" not in data:
        raise Refused("foreign", f"{where}: it has no schema number, so chibit did not write it")
    if data["schema"] != SCHEMA:
        raise Refused(
            "other schema", f"{where}: schema {quoted(data['schema'])}; this version reads {SCHEMA}"
        )

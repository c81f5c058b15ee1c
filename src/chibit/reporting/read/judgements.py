"""What is known of runs without a simulator: judgements, and action errors while they learned."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from chibit.core.config import Checked
from chibit.judging.judgement import FILE, SCHEMA, Judgement
from chibit.reporting.read.run import Excluded, Run
from chibit.reporting.read.strict_json import (
    Refused,
    read_as,
    read_lines,
    read_number,
    read_object,
    read_step,
    shown_name,
)

_LINES = 200
"""Points of a learning curve."""
_ERRORS = ("action_error", "action_mismatch")
"""What agents call their error."""


@dataclass(frozen=True, kw_only=True)
class _File(Checked):
    judgements: tuple[Judgement, ...]


@dataclass(frozen=True, eq=False)
class JudgedPolicy:
    """A policy that was judged without a simulator, beside what a simulator says where there is one."""

    judgement: Judgement
    true_return: float | None
    """Mean return of the run's evaluation at the same step and target; None where there is none, or where the
    judge ended episodes earlier or later than the data's limit does."""
    arm: str
    """Arm of its run."""
    dataset: str
    """Data set of its run."""
    run: str
    """Name of its run."""
    seed: int | None
    """Seed of its run."""


@dataclass(frozen=True, eq=False)
class Learning:
    """Action errors of a run that was not played, or was judged, while it learned."""

    run: str
    """Its name."""
    arm: str
    dataset: str
    held_out: np.ndarray
    """(N, 2) steps and errors on held-out episodes; N is 0 where none are held out."""
    best_tenth: np.ndarray
    """(N, 2) the same on the tenth of them with the best returns."""
    trained: np.ndarray
    """(N, 2) the same on episodes that it learned from."""
    loss: np.ndarray
    """(M, 2) steps and training losses."""
    by_dimension: tuple[float, ...]
    """Last held-out error of each dimension of the action, in units of its spread in the log."""


def read_judged(folder: Path, run: Run | Excluded) -> list[JudgedPolicy]:
    """Judgements in a run's folder; none where it was not judged.

    Raises:
        Refused: if the file is damaged.
    """
    if not os.path.lexists(folder / FILE):
        return []
    data = read_object(folder, FILE)
    if data.get("schema") != SCHEMA:
        raise Refused("other schema", f"{FILE}: this version reads schema {SCHEMA}")
    found = read_as(_File, data, FILE).judgements
    for judgement in found:
        played, clone = judgement.in_model, judgement.log.clone
        estimates = (played.total, played.value, clone.total, clone.value)
        if len({len(estimate.members) for estimate in estimates}) != 1:
            raise Refused("damaged", f"{FILE}: policy and clone were not played by the same models")
    curves = () if isinstance(run, Excluded) else run.curves
    true = {
        (curve.target_return, step): float(played)
        for curve in curves
        for step, played in [
            *zip(curve.steps.tolist(), curve.mean_returns, strict=True),
            (None, curve.mean_returns[-1]),  # judgements of earlier versions are of the last checkpoint
        ]
    }
    arm, dataset = run.arm or "", run.dataset or ""
    name = shown_name(folder)
    return [
        JudgedPolicy(
            one,
            None if one.log.has_own_limit else true.get((one.target_return, one.step)),
            arm,
            dataset,
            name,
            run.seed,
        )
        for one in found
    ]


def read_learning(folder: Path, run: Run | Excluded) -> Learning:
    """Errors that a run logged.

    Raises:
        Refused: if its log is damaged.
    """
    points: dict[str, list[tuple[float, float]]] = {}
    for where, record in read_lines(folder, "metrics.jsonl", at_most=_LINES):
        step = read_step(record, where)
        for key, value in record.items():
            if key.startswith(("held_out/", "train/")):
                points.setdefault(key, []).append((step, read_number(value, f"{where}: {key}")))
    name = next((name for name in _ERRORS if f"held_out/{name}" in points), _ERRORS[0])
    keys = [f"held_out/dimension_{i}" for i in range(len(points))]
    dimensions = [points[key][-1][1] for key in keys if key in points]

    def column(key: str) -> np.ndarray:
        return np.array(points.get(key, ()), dtype=float).reshape(-1, 2)

    return Learning(
        run=shown_name(folder),
        arm=run.arm or "",
        dataset=run.dataset or "",
        held_out=column(f"held_out/{name}"),
        best_tenth=column(f"held_out/best_tenth_{name}"),
        trained=column(f"train/{name}"),
        loss=column("train/loss"),
        by_dimension=tuple(dimensions),
    )


def by_log(policies: Iterable[JudgedPolicy]) -> list[list[JudgedPolicy]]:
    """Those that can be compared: played from the same states in the same model of one log."""
    groups: list[list[JudgedPolicy]] = []
    for policy in policies:
        group = next((g for g in groups if g[0].judgement.log == policy.judgement.log), None)
        if group is None:
            groups.append([policy])
        else:
            group.append(policy)
    return groups


def excluded_file(folder: Path, name: str, refusal: Refused) -> Excluded:
    """Why what a file of a run says is not shown."""
    return Excluded(name=f"{shown_name(folder)}/{name}", kind=refusal.kind, reason=refusal.reason)

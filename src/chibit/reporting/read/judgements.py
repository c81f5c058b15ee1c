"""What `chibit judge` left in a run's folder: judgements without a simulator."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from chibit.core.config import Checked
from chibit.judging.judgement import FILE, SCHEMA, Judgement
from chibit.reporting.read.run import HELD_OUT, Excluded, Run, read_column
from chibit.reporting.read.strict_json import Refused, read_as, read_object, shown_name

_LINES = 400
"""Points of a learning curve."""


@dataclass(frozen=True, kw_only=True)
class _File(Checked):
    judgements: tuple[Judgement, ...]


@dataclass(frozen=True, eq=False)
class JudgedPolicy:
    """A policy that was judged without a simulator, beside what a simulator says where there is one."""

    judgement: Judgement
    true_return: float | None
    """Mean return of the run's last evaluation at the same target; None where it was not played."""
    errors: tuple[np.ndarray, np.ndarray]
    """(N, 2) and (M, 2) steps and action errors on held-out episodes and on those that it learned from."""
    run: str
    """Name of its run."""


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
    true = {curve.target_return: float(curve.mean_returns[-1]) for curve in curves}
    errors = read_column(folder, HELD_OUT, _LINES), read_column(folder, "train/action_error", _LINES)
    return [
        JudgedPolicy(one, true.get(one.target_return), errors, shown_name(folder.resolve())) for one in found
    ]


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


def excluded_judgements(folder: Path, refusal: Refused) -> Excluded:
    """Why judgements of a folder are not shown."""
    return Excluded(name=f"{shown_name(folder)}/{FILE}", kind=refusal.kind, reason=refusal.reason)

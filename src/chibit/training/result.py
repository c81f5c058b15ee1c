"""The summary that closes a run: scores of every target under every rule, times, parameters."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from chibit.core.run_dir import RunDir
from chibit.core.score_rules import curve_scores
from chibit.data.scores import normalized_score
from chibit.data.trajectory import TrajectoryDataset


def summarise(
    run: RunDir, steps: int, train_seconds: float, evaluation_seconds: float, dataset: TrajectoryDataset
) -> dict[str, Any]:
    """The content of result.json, from the run's own log of evaluations."""
    evaluations = run.read_log("evaluations.jsonl")
    targets = list(dict.fromkeys(record["target_return"] for record in evaluations))
    behaviour = float(np.mean(dataset.episode_returns))
    reference = dataset.spec.score_reference
    return {
        "status": "finished",
        "steps": steps,
        "train_seconds": round(train_seconds, 3),
        "evaluation_seconds": round(evaluation_seconds, 3),
        "score_unit": "return" if reference is None else "normalized",
        "scores": [
            target_scores(target, [record for record in evaluations if record["target_return"] == target])
            for target in targets
        ],
        "behaviour_mean_return": behaviour,
        "behaviour_score": None if reference is None else normalized_score(behaviour, reference),
        "parameters": json.loads((run.path / "provenance.json").read_text())["parameters"],
    }


def target_scores(target: float | None, records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One target's scores under the three rules, and when it converged.

    Args:
        target: the target return, or None for a policy without one.
        records: its evaluations in the order of steps.
    """
    curve = [_score(record) for record in records]
    rules = curve_scores(curve)
    converged = records[rules.converged_index]
    return {
        "target_return": target,
        "last": rules.last,
        "last4": rules.last4,
        "best": rules.best,
        "best_step": records[rules.best_index]["step"],
        "mean_return_last": _mean_return(records[-1]),
        "steps_to_converge": converged["step"],
        "seconds_to_converge": converged["seconds"],
    }


def _score(record: dict[str, Any]) -> float:
    score = record["normalized_score"]
    return _mean_return(record) if score is None else float(score)


def _mean_return(record: dict[str, Any]) -> float:
    """Mean raw return of the episodes whose environment did not fail; of all, if every one did."""
    failed = set(record["failed_episodes"])
    returns = record["episode_returns"]
    return float(np.mean([value for i, value in enumerate(returns) if i not in failed] or returns))

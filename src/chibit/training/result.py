"""The summary that closes a run: scores of every target under every rule, times, parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from chibit.core.run_dir import RunDir
from chibit.core.score_rules import curve_scores
from chibit.data.dataset import TrajectoryDataset
from chibit.environments.scores import normalized_score
from chibit.evaluation.summary import summarize_record

_MEASURED = (
    *("last", "last4", "best", "best_step"),
    *("mean_return_last", "num_episodes_last", "steps_to_converge", "seconds_to_converge"),
)


def summarize(
    run: RunDir, steps: int, train_seconds: float, evaluation_seconds: float, dataset: TrajectoryDataset
) -> dict[str, Any]:
    """The content of result.json, from the run's own log of evaluations."""
    evaluations = run.read_log("evaluations.jsonl")
    targets = list(dict.fromkeys(record["target_return"] for record in evaluations))
    behavior = float(np.mean(dataset.episode_returns))
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
        "behaviour_mean_return": behavior,
        "behaviour_score": None if reference is None else normalized_score(behavior, reference),
        "parameters": run.provenance()["parameters"],
    }


def target_scores(target: float | None, records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One target's scores under the three rules, when it converged, and what all that is of.

    Evaluations whose episodes all failed are left out; scores are None where no evaluation is left. When it
    converged is told by normalized scores alone.

    Args:
        target: the target return, or None for a policy without one.
        records: its evaluations in the order of steps.
    """
    counted, curve = [], []
    for record in records:
        summary = summarize_record(record)
        if summary.score is not None:
            counted.append((record, summary))
            curve.append(summary.score)
    result = {"target_return": target, "num_evaluations": len(curve), **dict.fromkeys(_MEASURED)}
    if not curve:
        return result
    rules, last = curve_scores(curve), counted[-1][1]
    if last.success_rate is not None:
        result["success_rate_last"] = last.success_rate
    if last.normalized_score is not None:  # the rule's margin is one of scores
        converged = counted[rules.converged_index][0]
        result |= {"steps_to_converge": converged["step"], "seconds_to_converge": converged["seconds"]}
    return result | {
        "last": rules.last,
        "last4": rules.last4,
        "best": rules.best,
        "best_step": counted[rules.best_index][0]["step"],
        "mean_return_last": last.mean_return,
        "num_episodes_last": last.num_episodes,
    }

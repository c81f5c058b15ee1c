"""The backbone learning rate of each arm, chosen from runs that are not used again.

Rule: the lowest mean held-out action error over the seeds; among rates whose error is within 1 % of it, the
highest mean of the last four scores.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from chibit.core.errors import InputError
from chibit.core.run_dir import RunDir

TIE = 0.01
"""Relative difference of held-out errors below which the score decides."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One rate of one arm, averaged over its seeds."""

    rate: float
    """Backbone learning rate."""
    error: float
    """Mean held-out action error at the end."""
    score: float
    """Mean over the seeds of the mean of the last four scores at the first target."""
    num_seeds: int
    """Runs behind it."""


def read_trials(folder: Path) -> dict[str, list[Trial]]:
    """Arms and their trials, rates ascending, from a folder of finished runs.

    Raises:
        InputError: if there is none, a run is no trial or not finished, rates differ in their seeds, or runs
            of an arm in their data or length. A rate at which a run diverged is no trial, whatever its other
            seeds did.
    """
    runs: dict[str, dict[float, dict[int, tuple[float, float]]]] = defaultdict(lambda: defaultdict(dict))
    conditions: dict[str, tuple[str, int]] = {}
    diverged: set[tuple[str, float]] = set()
    for path in sorted(folder.glob("*/config.json")):
        run = RunDir.open(path.parent)
        description = run.description()
        config = description["config"]
        arm, _, tried = description["arm"].rpartition("_")
        if "agent" not in config:
            raise InputError(f"{run.path}: is of chibit pretrain, not a trial; leave it out of {folder}")
        rate = config["agent"].get("backbone_learning_rate")
        if not run.is_finished:
            if (run.path / "divergence.json").exists():
                diverged.add((arm, rate))
                continue
            raise InputError(f"{run.path}: is not finished; let it end, or leave finished runs in {folder}")
        result = run.result()
        errors = [
            line["held_out/action_error"]
            for line in run.read_log("metrics.jsonl")[-1:]
            if "held_out/action_error" in line
        ]
        scored = [entry["last4"] for entry in result["scores"][:1] if entry["last4"] is not None]
        if rate is None or not _is_number(tried, rate) or not errors or not scored:
            raise InputError(
                f"{run.path}: no backbone learning rate by which its arm is named, held-out error or score; "
                "not a trial"
            )
        share = config.get("data_fraction", 1.0)
        condition = (config["data"] if share == 1 else f"{share:g} of {config['data']}", config["num_steps"])
        data, steps = conditions.setdefault(arm, condition)
        if config["seed"] in runs[arm][rate] or (data, steps) != condition:
            raise InputError(
                f"{run.path}: arm {arm!r} has two runs of a rate and seed, or runs on other data or of "
                f"another length than {data} and {steps} steps; leave one kind in {folder}"
            )
        runs[arm][rate][config["seed"]] = (errors[0], scored[0])
    for arm, rate in diverged:
        runs[arm].pop(rate, None)
    runs = {arm: rates for arm, rates in runs.items() if rates}
    if not runs:
        raise InputError(f"{folder}: holds no finished run; run chibit study rates first")
    for arm, rates in runs.items():
        if len({frozenset(seeds) for seeds in rates.values()}) > 1:
            raise InputError(f"{folder}: the rates of arm {arm!r} were not all run with the same seeds")
    return {
        arm: [_trial(rate, list(seeds.values())) for rate, seeds in sorted(rates.items())]
        for arm, rates in runs.items()
    }


def _is_number(text: str, number: float) -> bool:
    try:
        return float(text) == number
    except ValueError:
        return False


def _trial(rate: float, results: Sequence[tuple[float, float]]) -> Trial:
    errors, scores = zip(*results, strict=True)
    number = len(results)
    return Trial(rate=rate, error=sum(errors) / number, score=sum(scores) / number, num_seeds=number)


def choose(trials: Sequence[Trial]) -> Trial:
    """The trial that the rule takes."""
    lowest = min(trial.error for trial in trials)
    return max((trial for trial in trials if trial.error <= (1 + TIE) * lowest), key=lambda t: t.score)


def choose_rates(folder: Path) -> Mapping[str, float]:
    """Backbone learning rate by arm; raises as `read_trials`."""
    return {arm: choose(trials).rate for arm, trials in read_trials(folder).items()}

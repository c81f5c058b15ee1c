"""How far judgements without a simulator can be trusted: pools of policies, judged and played.

Pools are made by `benchmarks/judging_pools.py`, whose folder is taken up where it was left. Thresholds were
chosen on the two pools that are marked as known; the others are out of sample.

    python benchmarks/judging.py [--pools hopper-medium-replay ...] [--jobs bc dt ...] [--state build/judging]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from judging_pools import POOLS, SEED, SHARE, Pool, jobs, load_policy, make_pool
from scipy.stats import spearmanr

from chibit.core.config import from_json, to_json
from chibit.core.files import write_atomic
from chibit.judging.fitting import FitConfig
from chibit.judging.judge import Judge, JudgeConfig
from chibit.judging.judgement import Judgement
from chibit.judging.verdict import compare

BAD = 1 / 3
"""Of the range of true values: a kept policy that is further off is a failure."""


@dataclass(frozen=True)
class Judged:
    """A policy's judgement beside the truth."""

    judgement: Judgement
    true: dict

    @property
    def kept(self) -> bool:
        return self.judgement.value is not None


def judge_pool(pool: Pool, state: Path, records: list[dict], seed: int) -> tuple[list[Judged], dict]:
    """Judge what was not judged yet; also gives processor seconds of the fit and of the judgements."""
    path = state / pool.name / f"judged-{seed}.json"
    kept = json.loads(path.read_text()) if path.exists() else {"fit_seconds": None, "policies": {}}
    judge = None
    for record in records:
        if record["name"] in kept["policies"]:
            continue
        if judge is None:
            started = time.process_time()
            config = JudgeConfig(fit=FitConfig(seed=seed), held_out_share=SHARE)
            train, held_out = pool.data().held_out_split(SHARE, SEED)
            judge = Judge(train, held_out=held_out, config=config, cache=state / "home")
            # A model that was there already was paid for by an earlier call.
            kept["fit_seconds"] = kept["fit_seconds"] or time.process_time() - started
        started = time.process_time()
        judgement = judge(
            load_policy(pool, state, record), name=record["name"], target_return=record["target"]
        )
        seconds = time.process_time() - started
        kept["policies"][record["name"]] = {"judgement": to_json(judgement), "seconds": seconds}
        write_atomic(path, json.dumps(kept))
    found = [
        Judged(from_json(Judgement, kept["policies"][record["name"]]["judgement"]), record)
        for record in records
    ]
    seconds = sum(kept["policies"][record["name"]]["seconds"] for record in records)
    return found, {"fit": kept["fit_seconds"], "judge": seconds}


def rho(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's rank correlation; NaN where there is nothing to rank."""
    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    return float(spearmanr(first, second)[0])


def measures(judged: list[Judged], everyone: list[Judged]) -> dict[str, float]:
    """What the judgements of some policies of a pool are worth."""
    if not judged:
        return {}
    value = np.array([one.judgement.in_model.value.mean for one in judged])
    total = np.array([one.judgement.in_model.total.mean for one in judged])
    true_value = np.array([one.true["value"] for one in judged])
    true_total = np.array([one.true["return"] for one in judged])
    errors = np.abs(value - true_value)
    all_values = [one.true["value"] for one in everyone]
    all_totals = [one.true["return"] for one in everyone]
    limit = BAD * np.ptp(all_values)

    def coverage(kind: str, truth: np.ndarray) -> float:
        estimates = [getattr(one.judgement.in_model, kind) for one in judged]
        return float(np.mean([e.low <= t <= e.high for e, t in zip(estimates, truth, strict=True)]))

    return {
        "policies": len(judged),
        "rho_value": rho(value, true_value),
        "rho_return": rho(total, true_total),
        "regret": float((max(all_totals) - true_total[total.argmax()]) / np.ptp(all_totals)),
        "regret_kept": float((true_total.max() - true_total[total.argmax()]) / np.ptp(all_totals)),
        "median_error": float(np.median(errors)),
        "largest_error": float(errors.max()),
        "range": float(np.ptp(all_values)),
        "bad": int((errors > limit).sum()),
        "median_error_return": float(np.median(np.abs(total - true_total))),
        "coverage_value": coverage("value", true_value),
        "coverage_return": coverage("total", true_total),
    }


def told_apart(judged: list[Judged]) -> tuple[int, int, int]:
    """Pairs of kept policies, those told apart, and those of them that are told apart rightly."""
    pairs = clear = right = 0
    for first, second in combinations([one for one in judged if one.kept], 2):
        comparison = compare(first.judgement, second.judgement)
        pairs += 1
        if comparison is not None and comparison.is_clear:
            true = {one.judgement.name: one.true["return"] for one in (first, second)}
            clear += 1
            right += true[comparison.better] > true[comparison.other]
    return pairs, clear, right


def line(name: str, found: dict[str, float]) -> str:
    if not found:
        return f"{name:34} no policy"
    return (
        f"{name:34} {found['policies']:3.0f} {found['rho_value']:6.2f} {found['rho_return']:6.2f} "
        f"{found['regret']:6.2f} {found['regret_kept']:6.2f} {found['median_error']:7.1f} "
        f"{found['largest_error']:7.1f} {found['range']:7.1f} {found['bad']:3.0f} "
        f"{found['coverage_value']:5.0%} {found['coverage_return']:5.0%}"
    )


def report(pool: Pool, judged: list[Judged], seconds: dict) -> None:
    log = judged[0].judgement.log
    fits = ", ".join(
        f"{fit:.2f}@{n}" for n, fit in zip(log.self_test.lengths, log.self_test.fits, strict=True)
    )
    kind = "known" if pool.is_known else "out of sample"
    print(f"\n{pool.name} ({kind}; {log.num_episodes} episodes; R2 of reward sums {fits})")
    print(f"{'':34} num  rho V rho R  regret of kept  med err max err   range bad cov V cov R")
    print(line("all", measures(judged, judged)))
    kept = [one for one in judged if one.kept]
    print(line("kept", measures(kept, judged)))
    pairs, clear, right = told_apart(judged)
    print(f"pairs of kept policies {pairs}, told apart {clear}, rightly {right}")
    mean = [one.judgement.at_steps.error.mean for one in judged]
    best = [one.judgement.at_steps.best_error.mean for one in judged]
    truth = [one.true["return"] for one in judged]
    by_error, by_best = -rho(mean, truth), -rho(best, truth)
    print(f"held-out action error: rho with the return {by_error:.2f}, on the best tenth {by_best:.2f}")
    if seconds["fit"]:
        print(f"processor seconds: fit {seconds['fit']:.0f}, judgements {seconds['judge']:.0f}")
    for one in judged:
        if not one.kept:
            print(f"  no number for {one.judgement.name}: {'; '.join(one.judgement.reasons)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pools", nargs="+", choices=POOLS, default=list(POOLS))
    parser.add_argument("--jobs", nargs="+", choices=[job.name for job in jobs()])
    parser.add_argument("--state", type=Path, default=Path("build/judging"))
    parser.add_argument("--seed", type=int, default=0, help="of the judge's model")
    arguments = parser.parse_args()
    chosen = [job for job in jobs() if not arguments.jobs or job.name in arguments.jobs]
    for name in arguments.pools:
        pool = POOLS[name]
        records = make_pool(pool, arguments.state, chosen)
        judged, seconds = judge_pool(pool, arguments.state, records, arguments.seed)
        report(pool, judged, seconds)


if __name__ == "__main__":
    main()

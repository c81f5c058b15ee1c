"""How far judgements without a simulator can be trusted: pools of policies, judged and played.

Pools are made by `benchmarks/judging_pools.py`, whose folder is taken up where it was left. Thresholds were
chosen on the two pools that are marked as known; the others are out of sample. With `--keep results/judging`
the raw results go where `benchmarks/judging_table.py` reads them.

    python benchmarks/judging.py [--pools hopper-medium-replay ...] [--jobs bc dt ...] [--state build/judging]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from judging_pools import POOLS, SEED, SHARE, Pool, jobs, load_policy, make_pool
from judging_table import KNOWN, Judged, error_ranks, measures, read_pool, told_apart
from judging_table import Pool as JudgedPool

from chibit.core.config import to_json
from chibit.core.files import write_atomic
from chibit.judging.fitting import FitConfig
from chibit.judging.judge import Judge, JudgeConfig


def judge_pool(pool: Pool, state: Path, records: list[dict], seed: int) -> dict:
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
    return kept


def raw_results(kept: dict, records: Sequence[dict]) -> dict:
    """What is kept of a pool: judgements beside the truth, the log once, six digits of each number."""
    policies = []
    for record in records:
        found = kept["policies"][record["name"]]["judgement"]
        log = {key: value for key, value in found["log"].items() if key != "profile"}
        at_steps = {key: value for key, value in found["at_steps"].items() if key != "actions"}
        policies.append(
            {
                "name": record["name"],
                "target_return": found["target_return"],
                "true_return": record["return"],
                "true_value": record["value"],
                "in_model": found["in_model"],
                "at_steps": at_steps,
            }
        )
    seconds = sum(kept["policies"][record["name"]]["seconds"] for record in records)
    return _rounded(
        {"fit_seconds": kept["fit_seconds"], "judge_seconds": seconds, "log": log, "policies": policies}
    )


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def line(name: str, judged: Sequence[Judged], everyone: Sequence[Judged]) -> str:
    if not judged:
        return f"{name:34} no policy"
    found = measures(judged, everyone)
    number = found["policies"]
    return (
        f"{name:34} {number:3.0f} {found['rho_value']:6.2f} {found['rho_return']:6.2f} "
        f"{found['regret']:6.2f} {found['median_error']:7.1f} "
        f"{found['largest_error']:7.1f} {found['range']:7.1f} {found['bad']:3.0f} "
        f"{found['covered_value'] / number:5.0%} {found['covered_return'] / number:5.0%}"
    )


def report(name: str, pool: JudgedPool) -> None:
    log = pool.log
    fits = ", ".join(
        f"{fit:.2f}@{n}" for n, fit in zip(log.self_test.lengths, log.self_test.fits, strict=True)
    )
    kind = "known" if name in KNOWN else "out of sample"
    print(f"\n{name} ({kind}; {log.num_episodes} episodes; R2 of reward sums {fits})")
    print(f"{'':34} num  rho V  rho R regret med err max err   range bad cov V cov R")
    print(line("all", pool.judged, pool.judged))
    print(line("kept", pool.kept, pool.judged))
    pairs, clear, right = told_apart(pool.kept)
    print(f"pairs of kept policies {pairs}, told apart {clear}, rightly {right}")
    by_error, by_best = error_ranks(pool)
    print(f"held-out action error: rho with the return {by_error:.2f}, on the best tenth {by_best:.2f}")
    print(f"processor seconds: fit {pool.fit_seconds:.0f}, judgements {pool.judge_seconds:.0f}")
    for one in pool.judged:
        if not one.kept:
            print(f"  no number for {one.judgement.name}: {'; '.join(one.judgement.reasons)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pools", nargs="+", choices=POOLS, default=list(POOLS))
    parser.add_argument("--jobs", nargs="+", choices=[job.name for job in jobs()])
    parser.add_argument("--state", type=Path, default=Path("build/judging"))
    parser.add_argument("--seed", type=int, default=0, help="of the judge's model")
    parser.add_argument("--keep", type=Path, help="folder of the raw results; the state's without it")
    arguments = parser.parse_args()
    chosen = [job for job in jobs() if not arguments.jobs or job.name in arguments.jobs]
    for name in arguments.pools:
        pool = POOLS[name]
        records = make_pool(pool, arguments.state, chosen)
        kept = judge_pool(pool, arguments.state, records, arguments.seed)
        path = (arguments.keep or arguments.state / "results") / name / f"{arguments.seed}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps(raw_results(kept, records), indent=1) + "\n")
        report(name, read_pool(path))


if __name__ == "__main__":
    main()

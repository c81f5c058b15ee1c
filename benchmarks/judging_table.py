"""What judgements were worth, from the raw results in results/judging; writes the tables of docs/judging.md.

`results/judging/POOL/SEED.json` is what `benchmarks/judging.py` found with one model of a pool's log: the
log, and of each policy what the model says beside what the simulator says. Whether there is a number follows
from the rules of `chibit.judging.judgement` as they are now.

    python benchmarks/judging_table.py
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from chibit.core.config import from_json
from chibit.core.files import write_atomic
from chibit.judging.judgement import AtLoggedSteps, Judgement, LogSummary, PlayedInModel
from chibit.judging.verdict import compare

ROOT = Path(__file__).parents[1]
PAGE, RESULTS = ROOT / "docs" / "judging.md", ROOT / "results" / "judging"
START, END = re.compile(r"<!-- judging: (\w+) -->\n"), "<!-- end of judging -->\n"
BAD, RANKED, COVERED = 1 / 3, 0.7, 0.85
"""Goals: no kept policy off by more than this share of the range of values; rank correlation; coverage."""
POOLS = {
    "hopper-medium-replay": "Hopper medium-replay",
    "hopper-medium": "Hopper medium",
    "pendulum": "Pendulum, 200 steps, truncated",
    "walker2d-medium-replay": "Walker2d medium-replay",
    "hopper-medium-expert-25": "Hopper medium-expert, 25 episodes",
    "halfcheetah-medium-replay": "HalfCheetah medium-replay",
    "halfcheetah-medium-25": "HalfCheetah medium, 25 episodes",
}
KNOWN = ("hopper-medium-replay", "hopper-medium")
"""On which the limits of abstention were chosen."""


@dataclass(frozen=True)
class Judged:
    """A policy's judgement beside the truth."""

    judgement: Judgement
    true_value: float
    true_return: float

    @property
    def kept(self) -> bool:
        return self.judgement.value is not None


@dataclass(frozen=True)
class Pool:
    """The policies of a data set, as one model judges them."""

    judged: tuple[Judged, ...]
    fit_seconds: float
    judge_seconds: float

    @property
    def log(self) -> LogSummary:
        return self.judged[0].judgement.log

    @property
    def kept(self) -> list[Judged]:
        return [one for one in self.judged if one.kept]


def read_pool(path: Path) -> Pool:
    """Read one model's raw results."""
    found = json.loads(path.read_text(encoding="utf-8"))
    log = from_json(LogSummary, found["log"], str(path))
    judged = tuple(
        Judged(
            Judgement(
                name=one["name"],
                target_return=one["target_return"],
                in_model=from_json(PlayedInModel, one["in_model"], str(path)),
                at_steps=from_json(AtLoggedSteps, one["at_steps"], str(path)),
                log=log,
            ),
            true_value=one["true_value"],
            true_return=one["true_return"],
        )
        for one in found["policies"]
    )
    return Pool(judged, found["fit_seconds"], found["judge_seconds"])


def rho(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's rank correlation; NaN where there is nothing to rank."""
    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    return float(spearmanr(first, second)[0])


def measures(judged: Sequence[Judged], everyone: Sequence[Judged]) -> dict[str, Any]:
    """What the judgements of some policies of a pool are worth."""
    value = np.array([one.judgement.in_model.value.mean for one in judged])
    total = np.array([one.judgement.in_model.total.mean for one in judged])
    true_value = np.array([one.true_value for one in judged])
    true_total = np.array([one.true_return for one in judged])
    errors = np.abs(value - true_value)
    all_totals = [one.true_return for one in everyone]
    width = float(np.ptp([one.true_value for one in everyone]))

    def covered(kind: str, truth: np.ndarray) -> int:
        estimates = [getattr(one.judgement.in_model, kind) for one in judged]
        return sum(e.low <= t <= e.high for e, t in zip(estimates, truth, strict=True))

    return {
        "policies": len(judged),
        "rho_value": rho(value, true_value),
        "rho_return": rho(total, true_total),
        "regret": float((max(all_totals) - true_total[total.argmax()]) / np.ptp(all_totals)),
        "median_error": float(np.median(errors)),
        "largest_error": float(errors.max()),
        "range": width,
        "bad": int((errors > BAD * width).sum()),
        "too_high": int((value > true_value).sum()),
        "covered_value": covered("value", true_value),
        "covered_return": covered("total", true_total),
    }


def told_apart(kept: Sequence[Judged]) -> tuple[int, int, int]:
    """Pairs of kept policies, those told apart, and those of them that are told apart rightly."""
    pairs = clear = right = 0
    for first, second in combinations(kept, 2):
        comparison = compare(first.judgement, second.judgement)
        pairs += 1
        if comparison is not None and comparison.is_clear:
            true = {one.judgement.name: one.true_return for one in (first, second)}
            clear += 1
            right += true[comparison.better] > true[comparison.other]
    return pairs, clear, right


def error_ranks(pool: Pool) -> tuple[float, float]:
    """Rank correlation of (minus) the held-out action error with the return; the same on the best tenth."""
    truth = [one.true_return for one in pool.judged]
    errors = [one.judgement.at_steps for one in pool.judged]
    return -rho([e.error.mean for e in errors], truth), -rho([e.best_error.mean for e in errors], truth)


def pools(seed: int) -> dict[str, Pool]:
    """What one model of each log says, in the order of the page; without those that were not made."""
    paths = {name: RESULTS / name / f"{seed}.json" for name in POOLS}
    return {name: read_pool(path) for name, path in paths.items() if path.exists()}


def short(number: float) -> str:
    """``.93``, ``-.13``."""
    return f"{number:.2f}".replace("0.", ".", 1)


def table(head: str, rows: Iterator[str]) -> str:
    return "\n".join([head, "|---" * (head.count("|") - 1) + "|", *rows]) + "\n"


def first_model() -> str:
    """The main table."""

    def rows() -> Iterator[str]:
        for name, pool in pools(0).items():
            found, (pairs, clear, right) = measures(pool.kept, pool.judged), told_apart(pool.kept)
            number = found["policies"]
            shares = [f"{found[f'covered_{kind}'] / number:.0%}" for kind in ("value", "return")]
            cells = (
                POOLS[name],
                "known" if name in KNOWN else "new",
                pool.log.num_episodes,
                f"{number} of {len(pool.judged)}",
                f"{short(found['rho_value'])} / {short(found['rho_return'])}",
                short(found["regret"]),
                f"{found['median_error']:.0f} / {found['largest_error']:.0f} ({found['range']:.0f})",
                f"{shares[0]} / {shares[1]}",
                found["bad"],
                f"{clear} of {pairs}, {right}" if clear else f"0 of {pairs}",
                " / ".join(map(short, error_ranks(pool))),
                f"{pool.fit_seconds:.0f} + {pool.judge_seconds:.0f}",
            )
            yield f"| {' | '.join(map(str, cells))} |"

    head = (
        "| data | | episodes | policies with a number | rank correlation: value / return | regret | "
        "median / largest error of the value (range of true values) | truth in the spread: value / return | "
        "off by a third of the range | pairs told apart, rightly | "
        "rank correlation of the action error: all / best tenth | seconds: model + 23 judgements |"
    )
    return table(head, rows())


def second_model() -> str:
    """Another model, with other first states."""

    def rows() -> Iterator[str]:
        for name, pool in pools(1).items():
            found, (pairs, clear, right) = measures(pool.kept, pool.judged), told_apart(pool.kept)
            cells = (
                POOLS[name],
                f"{found['policies']} of {len(pool.judged)}",
                f"{short(found['rho_value'])} / {short(found['rho_return'])}",
                f"{found['median_error']:.0f} / {found['largest_error']:.0f}",
                f"{found['covered_value']} of {found['policies']}",
                found["bad"],
                f"{clear} of {pairs}, {right}",
            )
            yield f"| {' | '.join(map(str, cells))} |"

    head = (
        "| data | policies with a number | rank correlation: value / return | "
        "median / largest error of the value | truth in the value's spread | off by a third of the range | "
        "pairs told apart, rightly |"
    )
    return table(head, rows())


def goals() -> str:
    """What was aimed at on the new data, and what came of it in each model."""

    def rows() -> Iterator[str]:
        models = [pools(seed) for seed in (0, 1)]
        found = [{n: measures(p.kept, p.judged) for n, p in model.items()} for model in models]
        new = [{n: m for n, m in one.items() if n not in KNOWN} for one in found]
        yield _goal(
            f"rank correlation of at least {short(RANKED)} in four of six pools: value, return",
            [
                " and ".join(
                    f"{sum(m[kind] >= RANKED for m in one.values())} of {len(one)}"
                    for kind in ("rho_value", "rho_return")
                )
                + f" (new: {sum(m['rho_value'] >= RANKED for m in fresh.values())} and "
                f"{sum(m['rho_return'] >= RANKED for m in fresh.values())} of {len(fresh)})"
                for one, fresh in zip(found, new, strict=True)
            ],
        )
        yield _goal(
            f"the truth in the value's spread in {COVERED:.0%}, new data",
            [
                f"{sum(m['covered_value'] for m in one.values())} of "
                f"{sum(m['policies'] for m in one.values())}{_uncovered(one)}"
                for one in new
            ],
        )
        yield _goal(
            "no policy kept whose value is off by more than a third of the range, new data",
            ["; ".join(f"{m['bad']} on {POOLS[name]}" for name, m in one.items() if m["bad"]) for one in new],
        )
        yield _goal(
            "24 policies in three minutes of one core",
            [f"at most {max(p.fit_seconds + p.judge_seconds for p in m.values()):.0f} s" for m in models],
        )
        apart = [[told_apart(p.kept) for n, p in model.items() if n not in KNOWN] for model in models]
        yield _goal(
            "told apart rightly, new data",
            [f"{sum(right for *_, right in one)} of {sum(clear for _, clear, _ in one)}" for one in apart],
        )

    return table("| goal | first model | second model |", rows())


def _goal(what: str, outcomes: Sequence[str]) -> str:
    return f"| {what} | {' | '.join(outcomes)} |"


def _uncovered(found: dict[str, dict[str, Any]]) -> str:
    below = [
        f"{POOLS[name]} ({one['covered_value']} of {one['policies']}; {one['too_high']} are judged too high)"
        for name, one in found.items()
        if one["covered_value"] < COVERED * one["policies"]
    ]
    return f"; below it on {'; '.join(below)}" if below else ""


PARTS: dict[str, Callable[[], str]] = {"first": first_model, "second": second_model, "goals": goals}
"""What stands between marks of the page."""


def filled(page: str) -> str:
    """A page with all that stands between marks computed anew."""
    pieces = []
    while mark := START.search(page):
        _, end, rest = page[mark.end() :].partition(END)
        if not end:
            raise SystemExit(f"{mark[0].strip()}: its end is missing")
        pieces.append(page[: mark.end()] + PARTS[mark[1]]() + END)
        page = rest
    return "".join(pieces) + page


if __name__ == "__main__":
    write_atomic(PAGE, filled(PAGE.read_text(encoding="utf-8")))

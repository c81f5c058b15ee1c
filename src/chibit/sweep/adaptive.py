"""More paired seeds until the intervals of a study's comparisons are narrow enough.

The rule looks at spreads only, never at the differences themselves: after the first seeds, and after each one
more, every comparison's interval over all data sets is computed at a level that makes up for the repeated
looks (docs/statistics.md). It ends when all are narrow, or at the largest number of seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from chibit.core.errors import InputError
from chibit.reporting.read.arms import arm_label
from chibit.reporting.read.registration import Registration
from chibit.reporting.read.study import read_study
from chibit.reporting.statistics.comparison import Scores, choose_baseline, collect_scores, compare_all
from chibit.reporting.statistics.intervals import LOOK_FROM, LOOKED_CONFIDENCE, is_narrow, student_quantile
from chibit.sweep.tasks import Outcome
from chibit.training.run_config import RunConfig

MAX_SEEDS = 20
"""Largest number of seeds where none is given."""

Configs = list[RunConfig[Any]]
Pair = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Look:
    """The intervals after some seeds."""

    half_widths: dict[Pair, float]
    """Of every comparison, over all data sets; infinite where there is no interval yet."""
    is_narrow: bool
    """Whether all are narrow, from enough pairs."""
    hopeless: str
    """Why more seeds cannot make it narrow; empty where they can."""

    def __str__(self) -> str:
        widths = [
            f"{arm_label(arm)} − {arm_label(reference)} ±{width:.3g}"
            for (arm, reference), width in self.half_widths.items()
        ]
        return ", ".join(widths)


class Adaptive:
    """A study whose number of seeds is open."""

    def __init__(
        self,
        configs: Callable[[Sequence[int]], Configs],
        seeds: Sequence[int],
        registration: Registration,
        max_seeds: int | None = None,
    ) -> None:
        """Check what was asked for.

        Args:
            configs: the runs of some seeds.
            seeds: the first ones; seeds above them are added.
            registration: the comparisons, where there are none every arm against the baseline, and the
                half-width of their intervals.
            max_seeds: largest number of seeds; None is `MAX_SEEDS`, or as many as were given.

        Raises:
            InputError: for fewer seeds than can be looked at, runs that have no score, or a single arm.
        """
        if registration.until_half_width is None:
            raise InputError("until_half_width: got None, expected a positive number")
        configs(seeds)  # refuses what a study without an open end would refuse
        self.half_width = registration.until_half_width
        self.most = max(MAX_SEEDS, len(seeds)) if max_seeds is None else max_seeds
        if self.most < max(len(seeds), LOOK_FROM):
            raise InputError(
                f"max_seeds: got {self.most}, expected at least {max(len(seeds), LOOK_FROM)}: --seeds names "
                f"{len(seeds)}, and the spread of fewer than {LOOK_FROM} is too uncertain to stop at"
            )
        first = max(seeds) + 1
        self._seeds = [*seeds, *range(first, first + self.most - len(seeds))]
        self._at_first = max(len(seeds), LOOK_FROM)
        self._configs = configs
        every = configs(self._seeds)  # refuses a seed that is too large now and not after hours
        if any(config.num_episodes == 0 for config in every):
            raise InputError("until_half_width: num_episodes is 0, so that there are no scores to look at")
        arms = list(dict.fromkeys(config.arm_name for config in every))
        baseline = choose_baseline(arms)
        self.pairs = [pair for pair in registration.comparisons if set(pair) <= set(arms)] or [
            (arm, str(baseline)) for arm in arms if arm != baseline
        ]
        if not self.pairs:
            raise InputError("until_half_width: one arm has nothing to be compared with; give two or more")

    @property
    def first_configs(self) -> Configs:
        """The runs before the first look."""
        return self._configs(self._seeds[: self._at_first])

    def run(
        self, run: Callable[[Configs], list[Outcome]], folder: Path, say: Callable[[str], None]
    ) -> tuple[list[Outcome], list[int]]:
        """Add seeds until all is narrow.

        Args:
            run: does runs that are not finished yet.
            folder: the study's folder.
            say: prints a line.

        Returns:
            The outcomes of all runs, and the seeds. It also ends where a run was stopped or is in other
            hands, and where a comparison has no pair at all or no mean over its data sets.
        """
        outcomes: list[Outcome] = []
        done, count = 0, self._at_first
        while True:
            outcomes += run(self._configs(self._seeds[done:count]))
            seeds = self._seeds[:count]
            if any(outcome.status in ("stopped", "busy") for outcome in outcomes):
                return outcomes, seeds
            look = self._look(self._configs(seeds), outcomes, folder)
            say(f"{count} seeds: {look}")
            if look.hopeless:
                say(f"{look.hopeless}: more seeds are not tried")
                return outcomes, seeds
            if look.is_narrow:
                say(f"all within ±{self.half_width:g} after {count} seeds")
                return outcomes, seeds
            if count == self.most:
                say(f"not all within ±{self.half_width:g} after {count} seeds, the largest number allowed")
                return outcomes, seeds
            done, count = count, count + 1

    def _look(self, configs: Configs, outcomes: Sequence[Outcome], folder: Path) -> Look:
        finished = {outcome.path for outcome in outcomes if outcome.status in ("finished", "skipped")}
        scores = collect_scores(read_study(folder, finished))
        scored = {run.folder for run in scores.study.runs}
        counts = self._count_pairs(configs, outcomes, scored)
        without = [
            f"{arm_label(arm)} and {arm_label(reference)} on {data}"
            for ((arm, reference), data), count in counts.items()
            if count == 0
        ]
        hopeless = ""
        if finished and not scored:
            hopeless = "no finished run has a score"
        elif without:
            hopeless = f"no pair of {'; '.join(without)}"
        elif not scores.aggregated:
            hopeless = "raw returns of several data sets have no common unit and no mean"
        found = {} if hopeless else self._intervals(scores)
        widths = {pair: found.get(pair, (math.inf, 1.0)) for pair in self.pairs}
        narrow = all(
            bool(is_narrow(np.array(error), freedom, self.half_width)) for error, freedom in widths.values()
        )
        return Look(
            half_widths={
                pair: error * student_quantile(LOOKED_CONFIDENCE, freedom)
                for pair, (error, freedom) in widths.items()
            },
            is_narrow=narrow and min(counts.values()) >= LOOK_FROM,
            hopeless=hopeless,
        )

    def _count_pairs(
        self, configs: Configs, outcomes: Sequence[Outcome], scored: Collection[Path]
    ) -> dict[tuple[Pair, str], int]:
        """Seeds at which both arms have a score, for every comparison and data set."""
        where: dict[tuple[str, str], set[int]] = {}
        for config, outcome in zip(configs, outcomes, strict=True):
            data = config.data if config.data_fraction == 1 else f"{config.data_fraction:g} of {config.data}"
            seeds = where.setdefault((config.arm_name, data), set())
            if outcome.path in scored:
                seeds.add(config.seed)
        names = dict.fromkeys(data for _, data in where)
        return {
            (pair, data): len(where[pair[0], data] & where[pair[1], data])
            for pair in self.pairs
            for data in names
        }

    def _intervals(self, scores: Scores) -> dict[Pair, tuple[float, float]]:
        """Standard error and degrees of freedom of every comparison that has an interval."""
        pairs = [pair for pair in self.pairs if set(pair) <= set(scores.study.arms)]
        return {
            (one.treatment, one.baseline): (student.standard_error, student.degrees_of_freedom)
            for one in compare_all(scores, pairs)
            if one.overall is not None and (student := one.overall.student) is not None
        }


def other_seeds(folder: Path, seeds: Sequence[int]) -> list[str]:
    """What a study's folder holds of seeds that the rule did not look at, a line for each kind."""
    if not any(folder.glob("*/config.json")):
        return []
    study = read_study(folder)
    finished = {run.seed for run in study.runs} - set(seeds)
    begun = {entry.seed for entry in study.excluded if entry.seed is not None} - set(seeds) - finished
    lines = []
    if finished:
        lines.append(
            f"{_named(finished)}: results of earlier calls; the report counts them, the rule did not"
        )
    if begun:
        lines.append(f"{_named(begun)}: folders without results; they count nowhere")
    return lines


def _named(seeds: set[int]) -> str:
    return f"seed{'' if len(seeds) == 1 else 's'} {', '.join(map(str, sorted(seeds)))}"

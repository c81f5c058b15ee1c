"""Everything a report says, computed once: the page, the files and the console only show it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from chibit.core.formatting import count
from chibit.reporting.published.evidence import known_of
from chibit.reporting.read.study import Study
from chibit.reporting.read.targets import TargetChoice
from chibit.reporting.statistics.comparison import (
    RULES,
    Aggregates,
    Comparison,
    Measure,
    Rule,
    Scores,
    aggregate,
    choose_baseline,
    collect_scores,
    compare_all,
    held_out_errors,
    registered_pairs,
)
from chibit.reporting.statistics.crossover import Trend, trends
from chibit.reporting.statistics.survival import Arrivals, Levels, error_arrivals, score_arrivals
from chibit.reporting.statistics.verdict import (
    Verdict,
    choose_comparison,
    crossing_sentence,
    state_finding,
    state_verdict,
)
from chibit.reporting.tables.arrivals import arrivals_table
from chibit.reporting.tables.convergence import convergence_table
from chibit.reporting.tables.crossover import crossover_table
from chibit.reporting.tables.differences import differences_table, measured_table
from chibit.reporting.tables.judged import dimension_tables, judged_tables, judged_verdicts, learning_table
from chibit.reporting.tables.known import differences_known, studies_known
from chibit.reporting.tables.published import published_table
from chibit.reporting.tables.runs import excluded_table, gaps_table, runs_table
from chibit.reporting.tables.scores import scores_table
from chibit.reporting.tables.settings import data_table, provenance_table, settings_tables
from chibit.reporting.tables.splits import splits_tables
from chibit.reporting.tables.success import success_table
from chibit.reporting.tables.table import Table
from chibit.reporting.tables.targets import targets_table

HEADLINE: Rule = "last4"
"""The rule of the verdict: the least noisy of the three, and not chosen by looking at the score."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """One number of every run that is no score, with its comparisons."""

    measure: Measure
    """The numbers; `Arrivals` where they are steps until a level."""
    comparisons: list[Comparison]
    """Of the same pairs of arms as the scores, where both have it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Analysis:
    """A study under every rule, at one choice of target."""

    study: Study
    """The runs."""
    target: TargetChoice
    """How one target return was chosen where several were evaluated."""
    baseline: str | None
    """Arm that others are compared with where no comparisons are registered; None without runs."""
    given_baseline: str | None
    """The one that was asked for; None takes the registered comparisons, else the usual one."""
    scores: dict[Rule, Scores]
    """The study's numbers under each rule."""
    aggregates: dict[Rule, dict[str, Aggregates | None]]
    """Each arm over all data sets."""
    comparisons: dict[Rule, list[Comparison]]
    """The registered comparisons; else every other arm against the baseline."""

    measured: tuple[Measured, ...]
    """What is compared beside the score."""
    trends: dict[str, list[Trend]]
    """What is measured, and every comparison of it over shares of a data set."""
    levels: Levels
    """What first reaches are timed to, where not the registered ones."""

    def fewer_arms(self, most: int, shown: int) -> Analysis:
        """Of more arms than `most` those that are compared, and the `shown` highest; else all as they are."""
        study = self.study
        if len(study.arms) <= most:
            return self
        ranked = [row.arm for row in self.tables["scores"][HEADLINE].rows if row.arm is not None]
        kept = {self.baseline, *(arm for pair in registered_pairs(study) for arm in pair)}
        kept |= {study.arms[place] for place in ranked[:shown]}
        # Targets, levels, and what is compared and adjusted for stay: these arms are here for being high.
        few = study.among(kept)
        return replace(
            self,
            study=few,
            scores={rule: scores.among(few) for rule, scores in self.scores.items()},
            aggregates={
                rule: {arm: found[arm] for arm in few.arms} for rule, found in self.aggregates.items()
            },
            comparisons={rule: _among(found, few.arms) for rule, found in self.comparisons.items()},
            measured=tuple(
                Measured(measure=one.measure.among(few), comparisons=_among(one.comparisons, few.arms))
                for one in self.measured
            ),
            trends={
                what: [one for one in found if _among([one.comparison], few.arms)]
                for what, found in self.trends.items()
            },
        )

    @cached_property
    def known(self) -> str:
        """What others have measured of the study's question; empty where no arm is pre-trained."""
        return known_of(self.study)

    @cached_property
    def verdict(self) -> Verdict:
        """The study in one sentence, and what else was found."""
        judged = judged_verdicts(self.study)
        if judged and not self.study.runs:
            return Verdict(
                sentence=judged[0],
                basis="By a model learned from the log; docs/judging.md says how far that can be trusted.",
                cautions=tuple(judged[1:]),
                tone="open",
            )
        if self.study.learning and not self.study.runs:
            number = count(len(self.study.learning), "run")
            return Verdict(
                sentence=f"{number} finished without a simulator; chibit judge says what can be said, or why "
                "nothing can.",
                basis="Errors on logged actions, below, rank no policies where the log holds bad ones too.",
                cautions=(),
                tone="open",
            )
        found = state_verdict(self.scores[HEADLINE], self.comparisons[HEADLINE], self.baseline, self.target)
        crossings = [crossing_sentence(trend) for trend in self.trends.get("score", ())]
        return replace(found, also=(*found.also, *crossings, *judged))

    @cached_property
    def other_findings(self) -> dict[Rule, str]:
        """What the other rules say of the arms of the verdict."""
        if not self.comparisons[HEADLINE]:
            return {}
        headline = choose_comparison(self.scores[HEADLINE], self.comparisons[HEADLINE])
        return {
            rule: state_finding(headline, self.scores[rule], self.comparisons[rule])
            for rule in RULES
            if rule != HEADLINE
        }

    @cached_property
    def tables(self) -> dict[str, Any]:
        """All tables by name; those that exist once for each rule as a dictionary by rule."""
        if not self.study.runs:
            return {**self._judged_tables(), "excluded": excluded_table(self.study)}
        headline = self.scores[HEADLINE]
        settings, shared = settings_tables(self.study)
        gaps = gaps_table(self.study)
        return {
            "known": [differences_known(), studies_known()] if self.known else [],
            "scores": {rule: scores_table(self.scores[rule], self.aggregates[rule]) for rule in RULES},
            "differences": {
                rule: differences_table(self.scores[rule], self.comparisons[rule]) for rule in RULES
            },
            "measured": {
                one.measure.key: measured_table(one.measure, one.comparisons)
                for one in self.measured
                if one.comparisons
            },
            "arrivals": {
                one.measure.key: arrivals_table(one.measure)
                for one in self.measured
                if isinstance(one.measure, Arrivals)
            },
            "crossovers": [
                crossover_table(trends, f"crossover-{number}", what)
                for number, (what, trends) in enumerate(self.trends.items())
            ],
            "targets": {rule: targets_table(self.scores[rule]) for rule in RULES},
            "published": published_table(self.scores),
            "success": success_table(headline),
            "splits": splits_tables(self.study),
            "convergence": convergence_table(headline),
            "gaps": [gaps] if gaps else [],
            **self._judged_tables(),
            "excluded": excluded_table(self.study),
            "settings": settings,
            "shared": shared,
            "data": data_table(self.study),
            "provenance": provenance_table(self.study),
            "runs": runs_table(headline),
        }

    def _judged_tables(self) -> dict[str, Any]:
        return {
            "judged": judged_tables(self.study),
            "judged_dimensions": dimension_tables(self.study),
            "learning": learning_table(self.study),
        }

    def flat_tables(self) -> list[Table]:
        """All tables in reading order, for files that show them below each other."""
        flat: list[Table] = []
        for entry in self.tables.values():
            if isinstance(entry, dict):
                flat += [table for table in entry.values() if table is not None and table.rows]
            elif isinstance(entry, list):
                flat += entry
            elif entry is not None and entry.rows:
                flat.append(entry)
        return flat


def analyze(
    study: Study,
    *,
    target: TargetChoice = "first",
    baseline: str | None = None,
    levels: Levels | None = None,
) -> Analysis:
    """Compute everything a report says.

    Args:
        study: the runs.
        target: how one target return is chosen where several were evaluated.
        baseline: arm that all others are compared with; None takes the registered comparisons, else the
            matched control where there is one.
        levels: score and held-out action error whose first reach is timed; None takes the registered ones,
            and for the score else the mean of the training data.

    Raises:
        InputError: for an unknown arm or choice of target.
    """
    scores = {rule: collect_scores(study, rule, target) for rule in RULES}
    against = choose_baseline(study.arms, baseline)
    pairs = registered_pairs(study) if baseline is None else []
    pairs = pairs or [(arm, against) for arm in study.arms if against and arm != against]
    comparisons = {rule: compare_all(scores[rule], pairs) for rule in RULES}
    measured = _measure(scores[HEADLINE], pairs, levels or Levels()) if study.runs else ()
    compared: list[tuple[str, Scores, list[Comparison]]] = [
        ("score", scores[HEADLINE], comparisons[HEADLINE])
    ]
    compared += [
        ("held-out action error", m.measure, m.comparisons) for m in measured if m.measure.key == "held-out"
    ]
    return Analysis(
        study=study,
        target=target,
        baseline=against,
        given_baseline=baseline,
        scores=scores,
        measured=measured,
        trends={what: found for what, values, pairs in compared if (found := trends(values, pairs))},
        aggregates={rule: {arm: aggregate(scores[rule], arm) for arm in study.arms} for rule in RULES},
        comparisons=comparisons,
        levels=levels or Levels(),
    )


def _among(comparisons: Sequence[Comparison], arms: Collection[str]) -> list[Comparison]:
    return [one for one in comparisons if {one.treatment, one.baseline} <= set(arms)]


def _measure(scores: Scores, pairs: Sequence[tuple[str, str]], levels: Levels) -> tuple[Measured, ...]:
    found = (
        held_out_errors(scores),
        score_arrivals(scores, levels.score),
        error_arrivals(scores, levels.error),
    )
    measured = []
    for measure in found:
        if measure is not None:
            arms = {arm for arm, _ in measure.values}
            both = [pair for pair in pairs if set(pair) <= arms]
            measured.append(Measured(measure=measure, comparisons=compare_all(measure, both)))
    return tuple(measured)

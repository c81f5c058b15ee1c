"""What others have measured of pre-training for offline RL: how, on how many seeds, against what.

Every report that has pre-trained arms begins with it. The differences are computed from the numbers in
`numbers/wang2024_20_seeds.csv`; docs/results.md has the same tables, written by scripts/write_evidence.py.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass

from chibit.core.files import open_regular
from chibit.reporting.published.published import (
    NUMBERS,
    PublishedRule,
    PublishedScore,
    arm_label,
    published_scores,
)
from chibit.reporting.read.study import Study, base_name
from chibit.reporting.statistics.verdict import format_score
from chibit.reporting.tables.tables import Cell, Column, Row, Table, text

NINE = tuple(
    f"{environment}-{level}"
    for environment in ("hopper", "halfcheetah", "walker2d")
    for level in ("medium", "medium-replay", "medium-expert")
)
"""The paper's data sets."""
CONTROL = "random"
ARMS = ("chibit", "iid", "markov", "dt")
_RULES: dict[PublishedRule, str] = {"last4": "Last 4", "last": "Last", "best": "Best"}
_NORMAL_95 = 1.96
_PRETRAINED = (
    "chibit",
    "gpt2",
    "clip",
    "igpt",
    "markov",
    "iid",
    "ngram",
    "shuffled",
    "smollm2",
    "dyck",
    "automaton",
)
"""First parts of the names of arms whose weights come from somewhere."""


@dataclass(frozen=True, kw_only=True)
class KnownDifference:
    """A published arm minus the untrained model of the same architecture."""

    arm: str
    """Arm as this project names it."""
    rule: PublishedRule
    """Which evaluations were scored."""
    value: float
    """Mean over the nine data sets of the difference of means, in points."""
    half_width: float
    """1.96 standard errors."""
    num_seeds: int
    """Fewest seeds behind any mean."""

    @property
    def shown(self) -> str:
        """``−0.5 ± 1.4``."""
        return f"{format_score(self.value, signed=True)} ± {format_score(self.half_width)}"


def known_difference(arm: str, rule: PublishedRule) -> KnownDifference:
    """An arm's difference from the untrained model in Wang et al.'s (2024) 20-seed curves.

    Only means and standard deviations for each arm and data set are at hand, so seeds cannot be paired: arms
    and data sets are taken as independent, and the variance of the mean over data sets is the sum of all
    variances of means, over the number of data sets squared.
    """
    ours, control = _by_task(arm, rule), _by_task(CONTROL, rule)
    pairs = [(ours[task], control[task]) for task in NINE]
    variance = sum((score.spread or 0.0) ** 2 / (score.num_seeds or 1) for pair in pairs for score in pair)
    return KnownDifference(
        arm=arm,
        rule=rule,
        value=sum(treated.mean - untrained.mean for treated, untrained in pairs) / len(NINE),
        half_width=_NORMAL_95 * math.sqrt(variance) / len(NINE),
        num_seeds=min(score.num_seeds or 0 for pair in pairs for score in pair),
    )


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What a report begins with."""

    sentence: str
    """The 20-seed differences."""
    tables: tuple[Table, Table]
    """These differences under every rule, and studies with their settings and conclusions."""


def evidence_for(study: Study) -> Evidence | None:
    """What is known of a study's question; None where no arm is pre-trained."""
    names = {base_name(arm).partition("_")[0] for arm in study.arms}
    if not names & set(_PRETRAINED):
        return None
    return Evidence(sentence=known_sentence(), tables=(differences_known(), studies_known()))


def known_sentence() -> str:
    """The differences by the mean of the last four evaluations, in a sentence."""
    found = [known_difference(arm, "last4") for arm in ARMS]
    listed = ", ".join(f"{arm_label(one.arm)} {one.shown}" for one in found)
    return (
        f"Known from {found[0].num_seeds} seeds on nine D4RL data sets (Wang et al. 2024, aggregated anew; "
        f"last 4): against the untrained model of the same architecture, {listed} points."
    )


def differences_known() -> Table:
    """Differences of the published arms from the untrained model, under every rule."""
    rows = []
    for arm in ARMS:
        found = [known_difference(arm, rule) for rule in _RULES]
        cells = [
            Cell(text=one.shown, sort=one.value, strong=abs(one.value) > one.half_width) for one in found
        ]
        rows.append(Row(cells=(text(arm_label(arm)), *cells)))
    return Table(
        key="known-differences",
        title="Published differences from the untrained model",
        caption="Wang et al.'s (2024) public learning curves, aggregated anew: 20 seeds, the mean over nine "
        "D4RL data sets of the difference from the pre-trained arms' architecture after a single update of "
        "pre-training, ± 1.96 standard errors; bold where that leaves out zero. Means and deviations "
        "for each arm and data set are at hand and no single seeds, so nothing can be paired, and arms are "
        "taken as independent. Their ChibiT has the released similarity loss and no co-training; DT is Chen "
        "et al.'s.",
        columns=(Column(label="Arm", numeric=False), *(Column(label=name) for name in _RULES.values())),
        rows=tuple(rows),
    )


def studies_known() -> Table:
    """Studies with their setting, seeds, controls and conclusion."""
    studies = list(_studies())
    return Table(
        key="known-studies",
        title="Published evidence",
        caption="In the order of publication. A best score is chosen by looking at the test environment, and "
        "lies above the last one of the same run.",
        columns=tuple(Column(label=name.capitalize(), numeric=False) for name in studies[0]),
        rows=tuple(Row(cells=tuple(map(text, study.values()))) for study in studies),
    )


def _studies() -> Iterator[dict[str, str]]:
    """Rows of `numbers/studies.csv`, with the numbers that are computed in their places."""
    last, best = (_average("corl", "dt", rule) for rule in ("last", "best"))
    chibit, dt = _average("reid2022-table2", "chibit", "best"), _average("reid2022-table2", "dt", "last")
    numbers = {"chibit": chibit, "dt": dt, "gap": chibit - dt, "dt_last": last, "dt_best": best}
    known = {name: format_score(value) for name, value in numbers.items()}
    known |= {f"known_{arm}": known_difference(arm, "last4").shown for arm in ARMS}
    with io.TextIOWrapper(open_regular(NUMBERS / "studies.csv"), "utf-8", newline="") as file:
        for row in csv.DictReader(file):
            yield {column: value.format(**known) for column, value in row.items()}


def _by_task(arm: str, rule: PublishedRule) -> dict[str, PublishedScore]:
    found = (s for s in published_scores() if (s.source, s.arm, s.rule) == ("wang2024", arm, rule))
    return {score.task: score for score in found}


def _average(source: str, arm: str, rule: PublishedRule) -> float:
    key = (source, arm, "average", rule)
    return next(s.mean for s in published_scores() if (s.source, s.arm, s.task, s.rule) == key)

"""What others have measured of pre-training for offline RL: how, on how many seeds, against what.

Every report that has pre-trained arms begins with it. The differences are computed from the numbers in
`numbers/wang2024_20_seeds.csv`; docs/results.md has the same tables, written by scripts/write_results.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from chibit.core.formatting import format_score
from chibit.environments.registry import OWN_IDS
from chibit.reporting.published.scores import PublishedRule, PublishedScore, published_scores
from chibit.reporting.read.arms import arm_label, base_name
from chibit.reporting.read.study import Study

_LEVELS = ("medium", "medium-replay", "medium-expert")
NINE = tuple(f"{environment}-{level}" for environment in OWN_IDS for level in _LEVELS)
"""The paper's data sets."""
TWELVE = (*NINE, *(f"ant-{level}" for level in _LEVELS))
"""Those of Wang et al. (2024)."""
CONTROL = "random"
ARMS = ("chibit", "iid", "markov", "dt")
RULE_NAMES: dict[PublishedRule, str] = {"last4": "Last 4", "last": "Last", "best": "Best"}
_NORMAL_95 = 1.96
_PRETRAINED = (
    *("chibit", "gpt2", "clip", "igpt", "markov", "iid", "ngram"),
    *("shuffled", "smollm2", "dyck", "automaton"),
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
    """Mean over the data sets of the difference of means, in points."""
    half_width: float
    """1.96 standard errors."""
    num_seeds: int
    """Fewest seeds behind any mean."""

    @property
    def shown(self) -> str:
        """``−0.5 ± 1.3``."""
        return f"{format_score(self.value, signed=True)} ± {format_score(self.half_width)}"


def known_difference(arm: str, rule: PublishedRule, tasks: Sequence[str] = NINE) -> KnownDifference:
    """An arm's difference from the untrained model in Wang et al.'s (2024) 20-seed curves.

    Only means and standard deviations for each arm and data set are at hand, so seeds cannot be paired: arms
    and data sets are taken as independent, and the variance of the mean over data sets is the sum of all
    variances of means, over the number of data sets squared.
    """
    ours, control = _by_task(arm, rule), _by_task(CONTROL, rule)
    pairs = [(ours[task], control[task]) for task in tasks]
    variance = sum((score.spread or 0.0) ** 2 / (score.num_seeds or 1) for pair in pairs for score in pair)
    return KnownDifference(
        arm=arm,
        rule=rule,
        value=sum(treated.mean - untrained.mean for treated, untrained in pairs) / len(tasks),
        half_width=_NORMAL_95 * math.sqrt(variance) / len(tasks),
        num_seeds=min(score.num_seeds or 0 for pair in pairs for score in pair),
    )


def known_of(study: Study) -> str:
    """What is known of a study's question; empty where no arm is pre-trained."""
    names = {base_name(arm).partition("_")[0] for arm in study.arms}
    return known_sentence() if names & set(_PRETRAINED) else ""


def known_sentence() -> str:
    """The differences by the mean of the last four evaluations, in a sentence."""
    found = [known_difference(arm, "last4") for arm in ARMS]
    listed = ", ".join(f"{arm_label(one.arm)} {one.shown}" for one in found)
    return (
        f"Known from {found[0].num_seeds} seeds on nine D4RL data sets (Wang et al. 2024, aggregated anew; "
        f"last 4): against the untrained model of the same architecture, {listed} points."
    )


def _by_task(arm: str, rule: PublishedRule) -> dict[str, PublishedScore]:
    found = (s for s in published_scores() if (s.source, s.arm, s.rule) == ("wang2024", arm, rule))
    return {score.task: score for score in found}

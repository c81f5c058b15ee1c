"""What is said of a policy: numbers, what they are worth, and whether there is a number at all.

The thresholds were chosen on two pools of policies with known returns and tested on others; docs/judging.md
has the tables.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import MinLen

from chibit.core.config import Checked
from chibit.core.errors import InputError
from chibit.core.fields import Natural, NonNegative
from chibit.core.formatting import format_mean, format_number, format_setting

FILE, SCHEMA = "judgements.json", 1
"""Where a run's folder has its judgements, as `{"schema", "judgements"}`."""
_MISFIT = 0.1
"""Share of the variance of the sum of rewards that a model which follows the log may miss beside noise; and
of the noise, which is known no better."""
_LEAST_FIT = 0.2
"""R2 of the sum of rewards below which rewards are too noisy to test a model on them."""
_FORESEEN, _FALSE = 0.33, 0.5
"""Share of terminations that the model must see at the very step (in Hopper it sees two thirds), and what it
may see where there are none, as a share of them."""
_BIAS = 0.15
"""Share of a value, above the floor, by which all members are wrong together."""
_TIMES_CLONE = 4.0
"""Times the clone's disagreement, or its share of clipped states, beyond which nothing is said."""
_CLIPPED = 0.1
"""Share of clipped states that is always allowed."""
_BELOW, _ABOVE = 0.25, 0.01
"""Shares of the log's lowest and highest discounted return, above the floor, by which a value may lie
beyond them. What promises more than any logged episode brought has mostly found an error of the model: above,
only rounding is allowed for, and what the model gives the clone itself."""
LEAST_ENDINGS = 5
"""Terminations below which nothing is said of how well they are foreseen."""
LEAST_HORIZON = 5
"""Steps for which the model must follow held-out episodes, where they are that long."""


@dataclass(frozen=True, kw_only=True)
class Histogram(Checked):
    """How often numbers occur, in bins of one width; those beyond the range are in the first and the last."""

    low: float
    high: float
    counts: Annotated[tuple[Natural, ...], MinLen(1)]

    @property
    def shares(self) -> np.ndarray:
        """(bins,) of all numbers; 0 where there are none."""
        return np.array(self.counts) / max(1, sum(self.counts))

    @property
    def edges(self) -> np.ndarray:
        """(bins + 1,) bounds of the bins."""
        return np.linspace(self.low, self.high, len(self.counts) + 1)


@dataclass(frozen=True, kw_only=True)
class LogProfile(Checked):
    """What a log holds."""

    is_discrete: bool
    """Whether actions are choices."""
    returns: Histogram
    """Of episodes."""
    lengths: Histogram
    """Steps of episodes."""
    rewards: Histogram
    """Of steps."""
    states: tuple[Histogram, ...]
    """By dimension, 64 at most; within four standard deviations of the mean."""
    actions: tuple[Histogram, ...]
    """By dimension between the bounds, 64 at most; of choices one, with a bin for each."""
    constant_states: tuple[Natural, ...]
    """Dimensions that never change, but for rounding."""
    constant_actions: tuple[Natural, ...]
    """Dimensions that never change; of choices those that never occur."""


@dataclass(frozen=True, kw_only=True)
class Endings(Checked):
    """Terminations in episodes that the model was not learned from, seen step by step; means over members."""

    logged: Natural
    """How many there are."""
    foreseen: NonNegative
    """How many of them the model sees."""
    false: NonNegative
    """How many it sees where there are none."""

    @property
    def unforeseen(self) -> str:
        """Why lengths of episodes cannot be believed; empty where they can, or there are too few to say."""
        is_seen = self.foreseen >= _FORESEEN * self.logged and self.false <= _FALSE * self.logged
        if is_seen or self.logged < LEAST_ENDINGS:
            return ""
        return (
            f"the model does not see what ends an episode (of {self.logged} terminations it has "
            f"{self.foreseen:.0f}, and {self.false:.0f} where there are none)"
        )


@dataclass(frozen=True, kw_only=True)
class SelfTest(Checked):
    """How well the model follows episodes that it was not learned from."""

    step_error: float
    """Mean squared error of the change of the state in one step, in units of its spread; 1 is useless."""
    lengths: tuple[int, ...]
    """Steps for which logged actions were played in the model, from logged states."""
    fits: tuple[float, ...]
    """R2 of the sum of the rewards over those steps."""
    ceilings: tuple[float, ...] = ()
    """R2 that the model would have if it were right, and all that it leaves unexplained of single steps
    noise; empty in judgements of earlier versions, which took 1."""
    endings: Endings | None = None
    """None in judgements of earlier versions."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, found in (("fits", self.fits), ("ceilings", self.ceilings or self.fits)):
            if len(self.lengths) != len(found):
                raise InputError(f"{name}: got {len(found)} numbers for {len(self.lengths)} lengths")

    @property
    def expected(self) -> tuple[float, ...]:
        """R2 from which on the model follows the log, by length: 0.9, or as far below what noise allows."""
        ceilings = np.clip(self.ceilings or [1.0] * len(self.fits), 0.0, 1.0)
        return tuple(np.maximum(_LEAST_FIT, ceilings - _MISFIT * (2.0 - ceilings)).tolist())

    @property
    def noise(self) -> float:
        """Share of the variance of the sum of rewards that is taken for noise: the largest of short ones."""
        return 1.0 - max(0.0, min(self.ceilings[: self._num_short], default=1.0))

    @property
    def horizon(self) -> int:
        """Steps up to which the model follows the log, for all lengths up to here."""
        reached = 0
        for length, fit, expected in zip(self.lengths, self.fits, self.expected, strict=True):
            if fit < expected:
                break
            reached = length
        return reached

    @property
    def unfit(self) -> str:
        """Why the model has no number for anybody; empty where it follows the log."""
        short = slice(self._num_short)
        if self.horizon >= max(self.lengths[short], default=1):
            return "" if self.endings is None else self.endings.unforeseen
        if not self.lengths[short]:
            return "the held-out episodes test nothing: stretches of a few steps all bring the same there"
        tried = zip(self.lengths[short], self.fits[short], self.expected[short], strict=True)
        found = [
            f"{math.floor(100 * fit) / 100:.2f} over {length} (expected {expected:.2f})"
            for length, fit, expected in tried
            if fit < expected
        ]
        measured = f"R2 of the sum of rewards by steps: {', '.join(found)}"
        if self.noise > 1.0 - _LEAST_FIT:
            return f"the rewards of the log are too noisy to test a model on them ({measured})"
        return f"the model does not follow the log ({measured})"

    @property
    def _num_short(self) -> int:
        return sum(length <= LEAST_HORIZON for length in self.lengths)


@dataclass(frozen=True, kw_only=True)
class ActionError(Checked):
    """How far a policy's actions are from the logged ones, at logged histories.

    Of continuous actions the mean squared error in their own units, of choices the share of other ones.
    """

    mean: float
    by_dimension: tuple[float, ...]
    """Root of the mean squared error of each dimension, in units of the log's spread; empty for choices."""

    @property
    def relative(self) -> float:
        """Root of the mean of those squares, 1 where the log's mean would do as well; of choices `mean`."""
        return float(np.sqrt(np.mean(np.square(self.by_dimension)))) if self.by_dimension else self.mean


@dataclass(frozen=True, kw_only=True)
class Estimate(Checked):
    """What the model says of a policy's return, by member.

    `low` and `high` are the model spread: two standard deviations over members and 15 % of what the mean
    lies above the floor for what all members share. It is no confidence interval: docs/judging.md has how
    often it held the truth.
    """

    members: Annotated[tuple[float, ...], MinLen(1)]
    floor: float = 0.0
    """What the least rewards of the log would bring in all steps (`judge.reward_floor`), so that a constant
    that is added to every reward changes no share; 0 in judgements of earlier versions."""

    @property
    def mean(self) -> float:
        """Over members."""
        return float(np.mean(self.members))

    @property
    def size(self) -> float:
        """How far the mean lies from the floor; shares are of it."""
        return abs(self.mean - self.floor)

    @property
    def half_width(self) -> float:
        """Of the model spread."""
        spread = np.std(self.members, ddof=1) if len(self.members) > 1 else 0.0
        return float(2.0 * spread + _BIAS * self.size)

    @property
    def low(self) -> float:
        """Lower end of the model spread."""
        return self.mean - self.half_width

    @property
    def high(self) -> float:
        """Upper end of the model spread."""
        return self.mean + self.half_width

    @property
    def short(self) -> str:
        """Mean and half of the model spread."""
        return format_mean(self.mean, self.half_width)

    def __str__(self) -> str:
        ends = [format_number(end, like=[self.mean]) for end in (self.low, self.high)]
        return f"{format_number(self.mean)} (model spread {ends[0]} to {ends[1]})"


@dataclass(frozen=True, kw_only=True)
class PlayedInModel(Checked):
    """What playing a policy in the model brought."""

    value: Estimate
    """Discounted return."""
    total: Estimate
    """Undiscounted return."""
    length: float
    """Steps of an episode; mean."""
    disagreement: float
    """Spread of the members' predictions along the way, in units of the states' changes."""
    clipped: float
    """Share of steps that would have left the range of the log's states."""

    def times_disagreement(self, clone: PlayedInModel) -> float:
        """Disagreement as a multiple of the clone's in the same model."""
        return self.disagreement / max(clone.disagreement, 1e-12)


@dataclass(frozen=True, kw_only=True)
class AtLoggedSteps(Checked):
    """What a policy would have done at logged steps that the clone was not learned from."""

    error: ActionError
    """Over held-out episodes."""
    best_error: ActionError
    """Over the tenth of them with the best return."""
    far: float
    """Share of steps at which its action is more than three of the clone's standard deviations away."""
    actions: tuple[Histogram, ...] = ()
    """Its actions, as those of the log are in `LogProfile`; empty in judgements of earlier versions."""


@dataclass(frozen=True, kw_only=True)
class LogSummary(Checked):
    """The log, and what is learned of it: what judgements are relative to."""

    data: str
    """Name of the data set."""
    num_episodes: int
    mean_return: float
    std_return: float
    best_return: float
    mean_value: float
    """Mean discounted return."""
    lowest_value: float
    best_value: float
    discount: float
    horizon: int
    """Steps after which an episode in the model is cut; returns and values of the log are cut there too."""
    time_limit: int | None = None
    """Steps after which the data's own episodes end; None in judgements of earlier versions."""
    best_episode: float | None = None
    """Best return of a whole episode; None in judgements of earlier versions."""
    self_test: SelfTest
    clone: PlayedInModel
    clone_at_steps: AtLoggedSteps
    noise_floor: float
    """Mean squared distance of logged actions from the clone's that the clone itself expects."""
    notes: tuple[str, ...]
    """What was left out or assumed."""
    profile: LogProfile | None = None
    """What it holds; None in judgements of earlier versions."""

    @property
    def has_own_limit(self) -> bool:
        """Whether the horizon ends episodes elsewhere than the data's own limit does."""
        return self.time_limit not in (None, self.horizon)

    @property
    def unfit(self) -> str:
        """Why the model has no number for anybody, the clone included; empty where it follows the log."""
        return self.self_test.unfit


@dataclass(frozen=True, kw_only=True)
class Judgement(Checked):
    """What can be said of one policy."""

    name: str
    target_return: float | None
    """Raw return that it was asked for."""
    in_model: PlayedInModel
    """What the model says, whether or not it is to be believed: `value` and `total` are."""
    at_steps: AtLoggedSteps
    log: LogSummary
    step: Natural | None = None
    """Gradient steps that it has learned for; None where nobody says so."""

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why there is no number; empty where there is one."""
        return tuple(_reasons(self.in_model, self.log))

    @property
    def value(self) -> Estimate | None:
        """Discounted return; None where no number can be given."""
        return None if self.reasons else self.in_model.value

    @property
    def total(self) -> Estimate | None:
        """Undiscounted return; None where no number can be given."""
        return None if self.reasons else self.in_model.total

    @property
    def num_members(self) -> int:
        """Models that it was played in."""
        return len(self.in_model.total.members)

    @property
    def notes(self) -> tuple[str, ...]:
        """What else a reader must know."""
        target, log = self.target_return, self.log
        best = log.best_return if log.best_episode is None else log.best_episode
        if target is None or target <= best:
            return ()
        return (
            f"asked for {format_setting(target)}, more than the log has (its best return is "
            f"{format_number(best)}); no estimate can vouch for it",
        )

    @property
    def times_clone(self) -> str:
        """The return beside that of a plain clone in the same model, in words; empty without a number."""
        if self.total is None:
            return ""
        ratio = beside_clone(self.in_model, self.log.clone)
        return f"{ratio} the clone" if ratio.endswith("x") else f"{ratio} to the clone"

    def __str__(self) -> str:
        lines = [f"{self.name}: no number: {reason}" for reason in self.reasons]
        if self.value is not None:
            lines = [
                f"{self.name}: return {self.total}, {self.times_clone}; discounted {self.value}; by a model "
                f"that follows the log for {self.log.self_test.horizon} steps"
            ]
        return "\n".join([*lines, *(f"{self.name}: {note}" for note in self.notes)])


def beside_clone(played: PlayedInModel, clone: PlayedInModel) -> str:
    """A return as a multiple of the clone's in the same model; the difference where one is not positive."""
    own, reference = played.total.mean, clone.total.mean
    if own > 0 and reference > 0:
        return f"{own / reference:.2f} x"
    return format_number(own - reference, signed=True)


def _reasons(played: PlayedInModel, log: LogSummary) -> list[str]:
    if log.unfit:  # what else such a model says means nothing
        return [log.unfit]
    reasons = []
    ratio = played.times_disagreement(log.clone)
    if ratio > _TIMES_CLONE:
        reasons.append(
            f"the policy leaves what the log covers: the models disagree {ratio:.1f} times as much as on a "
            f"clone, at most {_TIMES_CLONE:g} times is trusted"
        )
    allowed = max(_TIMES_CLONE * log.clone.clipped, _CLIPPED)
    if played.clipped > allowed:
        reasons.append(
            f"the policy leaves what the log covers: {played.clipped:.0%} of its states lie outside the "
            f"log's range, at most {allowed:.0%} is trusted"
        )
    value = played.value.mean
    floor = played.value.floor
    low = log.lowest_value - _BELOW * abs(log.lowest_value - floor)
    most = max(log.best_value, log.clone.value.mean)
    high = most + _ABOVE * abs(most - floor)
    if not low <= value <= high:
        reasons.append(
            f"the policy leaves what the log covers: its value would be {format_number(value)}, the log's "
            f"go from {format_number(log.lowest_value)} to {format_number(log.best_value)}"
        )
    return reasons

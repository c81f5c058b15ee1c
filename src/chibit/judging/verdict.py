"""Several judgements side by side: who is better than whom, and what cannot be told apart.

By undiscounted returns: a discounted value hides who stands longest. On the pools on which this was chosen
they rank as well or better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from chibit.core.config import Checked
from chibit.core.errors import InputError
from chibit.core.formatting import count, format_number
from chibit.judging.judgement import Estimate, Judgement

_BIAS = 0.1
"""Share of a return, above the floor, by which two policies may be wrong in different ways, in all members
alike."""
CLONE = "the clone of the log"


@dataclass(frozen=True, kw_only=True)
class Comparison(Checked):
    """Two policies, played from the same states in the same members."""

    better: str
    other: str
    difference: float
    """Of their returns in the model, at least 0."""
    half_width: float
    """Two standard deviations of the members' differences, and 10 % of the larger return, above the floor."""

    @property
    def is_clear(self) -> bool:
        """Whether they can be told apart."""
        return self.difference > self.half_width

    def __str__(self) -> str:
        gap = f"{format_number(self.difference)} ± {format_number(self.half_width, like=[self.difference])}"
        if self.is_clear:
            return f"{self.better} is better than {self.other} by {gap}"
        return f"cannot tell {self.better} and {self.other} apart ({gap})"


def compare(first: Judgement, second: Judgement) -> Comparison | None:
    """Compare two policies by their returns; None where one of them has no number.

    Raises:
        InputError: if they were not played in the same models of one log.
    """
    _check_alike([first, second])
    if first.total is None or second.total is None:
        return None
    return _compare((first.name, first.total), (second.name, second.total))


def compare_with_clone(judgement: Judgement) -> Comparison | None:
    """Compare a policy with a plain clone of the log; None where it has no number."""
    if judgement.total is None:
        return None
    return _compare((judgement.name, judgement.total), (CLONE, judgement.log.clone.total))


def rank(judgements: Sequence[Judgement]) -> list[Judgement]:
    """Policies with a number from the best return down, then the others as they were given."""
    with_number = [judgement for judgement in judgements if judgement.total is not None]
    best_first = sorted(with_number, key=lambda judgement: -judgement.in_model.total.mean)
    return [*best_first, *(judgement for judgement in judgements if judgement.total is None)]


def verdict(judgements: Sequence[Judgement]) -> str:
    """What policies of one log come to, in a sentence or two; raises as `compare`."""
    _check_alike(judgements)
    ranked = [judgement for judgement in rank(judgements) if judgement.total is not None]
    left_out = len(judgements) - len(ranked)
    if not ranked:
        return f"No number can be given: {judgements[0].reasons[0]}."
    best, others = ranked[0], ranked[1:]
    said, name = "", best.name
    if others:
        alike = [other.name for other in others if not _is_clear(best, other)]
        apart = f"cannot be told apart from {_listed(alike)}" if alike else "is ahead of all others"
        said, name = f"{best.name} comes first and {apart}; ", "it"
    clone = compare_with_clone(best)
    assert clone is not None
    if not clone.is_clear:
        said += f"{name} cannot be told apart from {CLONE}"
    elif clone.better == best.name:
        said += f"{name} is judged better than {CLONE}"
    else:
        said += f"{CLONE} is judged better than {name}"
    if left_out:
        said += f"; {left_out} of {count(len(judgements), 'judgement')} came to no number"
    return f"{said}."


def _check_alike(judgements: Sequence[Judgement]) -> None:
    first = judgements[0]
    for other in judgements[1:]:
        if other.log != first.log or other.num_members != first.num_members:
            raise InputError(
                f"{first.name} and {other.name} were judged on different logs or by different models; judge "
                "them by one Judge"
            )


def _compare(first: tuple[str, Estimate], second: tuple[str, Estimate]) -> Comparison:
    (better, total), (other, other_total) = sorted((first, second), key=lambda pair: -pair[1].mean)
    gaps = np.subtract(total.members, other_total.members)
    spread = float(2.0 * gaps.std(ddof=1)) if len(gaps) > 1 else 0.0
    bias = _BIAS * max(total.size, other_total.size)
    return Comparison(better=better, other=other, difference=float(gaps.mean()), half_width=spread + bias)


def _is_clear(first: Judgement, second: Judgement) -> bool:
    comparison = compare(first, second)
    return comparison is not None and comparison.is_clear


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:5])
    return f"{shown}, and {len(names) - 5} more" if len(names) > 5 else shown

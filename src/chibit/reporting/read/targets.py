"""Which of several target returns a report shows: the first listed, the best, or given ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from chibit.core.config import as_field
from chibit.core.errors import InputError
from chibit.core.formatting import format_setting
from chibit.core.targets import environment_name, read_targets, require_distinct
from chibit.reporting.read.run import Curve, Run
from chibit.reporting.read.study import Study

TargetChoice = str | float | Mapping[str, float]
"""``first``, ``best``, a raw return for all environments, or raw returns by environment (``hopper``)."""

_ROUNDING = 1e-5
"""Numbers are shown with six significant digits."""
_EXPECTED = "expected first, best, a number, or ENVIRONMENT=NUMBER such as hopper=3600"


def read_choice(words: Sequence[str]) -> TargetChoice:
    """A choice of target as given on the command line.

    Raises:
        InputError: for words that are no choice.
    """
    if chosen := [word for word in words if word in ("first", "best")]:
        if len(words) > 1:
            raise InputError(
                f"target: got {' '.join(words)}, expected {chosen[0]} alone, or numbers; give one choice"
            )
        return chosen[0]
    everywhere, by_environment = read_targets(words, "target", _EXPECTED)
    require_distinct(by_environment, "target")
    if everywhere and not by_environment and len(everywhere) == 1:
        return everywhere[0]
    if everywhere or any(len(values) > 1 for values in by_environment.values()):
        raise InputError(f"target: got {' '.join(words)}, {_EXPECTED}; one for each environment")
    return {environment: values[0] for environment, values in by_environment.items()}


def check_choice(study: Study, target: TargetChoice) -> None:
    """Refuse a choice that the study cannot show.

    Raises:
        InputError: for an unknown word, an environment that is not in the study, or a return that was not
            asked for in all of its runs.
    """
    if isinstance(target, str):
        if target not in ("first", "best"):
            raise InputError(f"target: got {target!r}, {_EXPECTED}")
        return
    known = study.environments
    for value in target.values() if isinstance(target, Mapping) else (target,):
        as_field(float, value, "target")
    if isinstance(target, Mapping):
        for environment in target:
            if environment_name(str(environment)) not in known.values():
                names = ", ".join(dict.fromkeys(known.values())) or "none that is known"
                raise InputError(
                    f"target: got environment {environment!r}, expected one of this study: {names}"
                )
    for dataset in study.datasets:
        wanted = _wanted(study, dataset, target)
        asked = common_targets(study, dataset)
        if wanted is not None and asked is not None and _match(asked, wanted) is None:
            shown = ", ".join(map(format_setting, asked)) or "none"
            raise InputError(
                f"target: got {format_setting(wanted)} on {dataset}, expected one that all its runs were "
                f"evaluated at: {shown}"
            )


def given_target(study: Study, dataset: str, target: TargetChoice) -> float | None:
    """The evaluated return that is meant for a data set's environment; None where none is given."""
    wanted = _wanted(study, dataset, target)
    return None if wanted is None else _match(common_targets(study, dataset) or [], wanted)


def _match(targets: Sequence[float], wanted: float) -> float | None:
    """The target that a number means, which may be as rounded as tables show it: the nearest such one."""
    near = [target for target in targets if math.isclose(target, wanted, rel_tol=_ROUNDING)]
    return min(near, key=lambda target: abs(target - wanted), default=None)


def _wanted(study: Study, dataset: str, target: TargetChoice) -> float | None:
    if isinstance(target, str):
        return None
    if isinstance(target, Mapping):
        given = {environment_name(environment): float(value) for environment, value in target.items()}
        return given.get(study.environments.get(dataset, ""))
    return float(target)


def common_targets(study: Study, dataset: str) -> list[float] | None:
    """Targets that all return-conditioned runs on a data set have, in the order of the first run's list.

    None where no run on it takes a target.
    """
    runs = [run for run in study.runs if run.dataset == dataset and run.curves[0].target_return is not None]
    if not runs:
        return None
    others = [{curve.target_return for curve in run.curves} for run in runs[1:]]
    listed = [curve.target_return for curve in runs[0].curves if curve.target_return is not None]
    return [target for target in listed if all(target in other for other in others)]


def curve_at(run: Run, target: float | None) -> Curve:
    """A run's curve at a target; its first where it has none there, as policies without targets."""
    return next((curve for curve in run.curves if curve.target_return == target), run.curves[0])


def describe_choice(study: Study, target: TargetChoice) -> str:
    """The choice as the page states it, after ``at``; empty where no run takes a target."""
    if all(curve.target_return is None for run in study.runs for curve in run.curves):
        return ""
    if target == "best":
        return "on each data set the target return with the highest mean over all arms and seeds"
    if isinstance(target, str):
        return "the first listed target return"
    if not isinstance(target, Mapping):
        return f"target return {format_setting(target)}"
    given = " and ".join(f"{format_setting(value)} on {name}" for name, value in target.items())
    is_whole = set(study.environments.values()) <= {environment_name(name) for name in target}
    return f"target return {given}" + ("" if is_whole else ", elsewhere the first listed one")

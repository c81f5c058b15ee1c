"""The runs of a study: a configuration for each arm, data set, share and seed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from chibit.core.config import with_settings
from chibit.core.errors import InputError
from chibit.core.targets import environment_name, is_environment_name, require_distinct
from chibit.environments.registry import D4RL_LEVELS
from chibit.recipes import RATES, RECIPES, TEXT_ARMS, check_study, find_recipe, shortened
from chibit.studies import BACKBONE_RATES, STUDIES
from chibit.study import Study
from chibit.training.run_config import RunConfig

_LEVEL = rf"(simple|{'|'.join(D4RL_LEVELS)})"


def study_configs(
    name: str,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    arms: Sequence[str] = (),
    data: Sequence[str] = (),
    language_corpus: str = "",
    pretrain_steps: int | None = None,
    fractions: Sequence[float] = (),
    rates: Mapping[str, float] | None = None,
    targets_by_environment: Mapping[str, tuple[float, ...]] | None = None,
    **overrides: Any,
) -> list[RunConfig[Any]]:
    """The runs of a study, seeds outermost, so that an early stop leaves whole seeds.

    Args:
        name: a key of `STUDIES`.
        seeds: one run for each.
        arms: recipes in place of the study's own.
        data: data sets in place of the study's own.
        language_corpus: text of the arms that train on language too, or are pre-trained on text on first
            use, in place of their own.
        pretrain_steps: gradient steps of what is pre-trained on first use, in place of the recipes'.
        fractions: shares of the episodes to train on, in place of the study's own.
        rates: backbone learning rate by arm, in place of those that are known; for studies that take them.
        targets_by_environment: raw returns to ask for, by environment (hopper) or data set, in place of
            target_returns and of the study's own.
        overrides: fields of RunConfig in place of the study's and the recipes', such as num_steps; None is no
            override. With fewer steps than the study's there are four evaluations at least.

    Raises:
        InputError: for an unknown study or arm, with the nearest names, and for anything named twice.
    """
    study = STUDIES.find(name, "study")
    check_study(study, name)
    if not seeds:
        raise InputError("seeds: got none, expected at least one")
    for arm in arms:
        find_recipe(arm, "arm")
    if pretrain_steps is not None and pretrain_steps < 1:
        raise InputError(f"pretrain_steps: got {pretrain_steps}, expected at least 1")
    fields = _run_fields(study, {key: value for key, value in overrides.items() if value is not None})
    by_data = _targets_by_data(targets_by_environment or {}, data or study.data)
    configs = []
    for seed in _distinct("seeds", seeds):
        for data_name in _distinct("data", data or study.data):
            for fraction in _distinct("fractions", fractions or study.fractions):
                for arm in _distinct("arms", arms or study.arms):
                    run = _arm_run(study, arm, data_name, fields["num_steps"])
                    rate = _rate(name, arm, rates) if study.has_chosen_rates and run.agent.sources else None
                    agent = run.agent.in_study(pretrain_steps, language_corpus, study.language_settings, rate)
                    targets = {"target_returns": study.target_returns.get(data_name)}
                    settings = {**targets, **fields, **by_data.get(data_name, {}), "data_fraction": fraction}
                    configs.append(replace(run, agent=agent, arm=arm, seed=seed, **settings))
    return configs


def _targets_by_data(
    given: Mapping[str, tuple[float, ...]], data: Sequence[str]
) -> dict[str, dict[str, tuple[float, ...]]]:
    """The field target_returns of each data set for which one is given."""
    found: dict[str, dict[str, tuple[float, ...]]] = {}
    require_distinct((name for name in given if name not in data), "target-returns")
    for name, values in sorted(given.items(), key=lambda item: item[0] in data):  # ids last
        # Ids of the known forms alone: an environment is not guessed from a part of a free name.
        known = rf"(\w+/)?{re.escape(environment_name(name))}([-/]{_LEVEL}(-v\d+)?)?"
        chosen = [name] if name in data else []
        if not chosen and is_environment_name(name):
            chosen = [entry for entry in data if re.fullmatch(known, entry, re.IGNORECASE)]
        if not chosen:
            raise InputError(f"target-returns: {name!r} is not in this study; its data: {', '.join(data)}")
        found |= {entry: {"target_returns": tuple(values)} for entry in chosen}
    return found


def _run_fields(study: Study, given: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of RunConfig: the study's, and what is given in their place."""
    fields: dict[str, Any] = {
        **study.run_settings,
        "num_steps": study.num_steps,
        "evaluate_every": 5_000 if study.evaluate_every is None else study.evaluate_every,
        "precision": study.precision,
        **given,
    }
    is_own = study.evaluate_every is not None and fields["num_steps"] >= study.num_steps
    if "evaluate_every" not in given and not is_own:
        fields["evaluate_every"] = min(fields["evaluate_every"], max(1, fields["num_steps"] // 4))
    return fields


def _rate(name: str, arm: str, rates: Mapping[str, float] | None) -> float | None:
    """The rate that was chosen for an arm; None for one whose recipe has its own."""
    chosen = BACKBONE_RATES if rates is None else rates
    if arm not in chosen and "backbone_learning_rate" in find_recipe(arm, "arm").settings:
        return None
    if arm not in chosen:
        trial = f"{arm}_{RATES[0]}"
        how = f"run chibit study {'language_rates' if arm in TEXT_ARMS else 'rates'} with it"
        if trial not in RECIPES:
            flags = f"--arm {trial} --backbone-learning-rate {RATES[0]} --validation-share 0.1 --study trials"
            how = f"try some with chibit train --recipe {arm} {flags}"
        raise InputError(
            f"study {name}: no backbone learning rate was chosen for arm {arm!r}; {how}, and give "
            "--rates-from the folder of its runs"
        )
    return chosen[arm]


def _arm_run(study: Study, arm: str, data_name: str, num_steps: int) -> RunConfig[Any]:
    """An arm's run with the study's settings; the schedules of both shrink with the number of steps."""
    run = find_recipe(arm, "arm").run(data=data_name, num_steps=num_steps)
    key = run.agent.agent
    settings = {**study.settings.get(key, {}), **study.data_settings.get(data_name, {}).get(key, {})}
    settings = shortened(settings, num_steps / study.num_steps)
    return replace(run, agent=with_settings(run.agent, settings))


def _distinct(what: str, values: Sequence[Any]) -> Sequence[Any]:
    if len(set(values)) != len(values):
        raise InputError(f"{what}: got {', '.join(map(str, values))}, expected each once")
    return values

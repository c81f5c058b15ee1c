"""Studies: the tables and figures of the paper, and the controls it lacks, as arms x data sets x seeds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from chibit.core.errors import InputError
from chibit.core.files import nearest
from chibit.core.runtime import Precision
from chibit.recipes import ATARI_METHODS, ATARI_STEPS, RECIPES, SIZES, WEIGHTS_GRID
from chibit.training.run_config import RunConfig
from chibit.training.trained_sources import with_budget

GAMES = ("Breakout", "Qbert", "Pong", "Seaquest")
ENVIRONMENTS = ("hopper", "halfcheetah", "walker2d")
MEDIUM = tuple(f"{name}-medium-v2" for name in ENVIRONMENTS)
MEDIUM_EXPERT = tuple(f"{name}-medium-expert-v2" for name in ENVIRONMENTS)
MEDIUM_REPLAY = tuple(f"{name}-medium-replay-v2" for name in ENVIRONMENTS)
NINE = MEDIUM_EXPERT + MEDIUM + MEDIUM_REPLAY


@dataclass(frozen=True, kw_only=True)
class Study:
    """Arms, data sets and seeds to cross."""

    summary: str
    """One line for ``chibit study``."""
    arms: tuple[str, ...]
    """Names of recipes."""
    data: tuple[str, ...]
    """Data sets."""
    num_steps: int = 100_000
    """Gradient steps of every arm."""
    evaluate_every: int = 5_000
    """Same cadence for every arm."""
    precision: Precision = "fp32"
    """Of every arm."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the sequence model's config, for every arm that is one: a schedule for a small budget."""
    data_settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """More of them, by data set."""
    agent_settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Fields of the configs of other methods, by their key."""
    language_settings: Mapping[str, Any] = field(default_factory=dict)
    """More of them, for the arms that train on language too."""
    attention: bool = False
    """Draw each finished run's attention maps."""
    comparisons: tuple[tuple[str, str], ...] = ()
    """Pairs (arm, reference) that were decided on before the first run, and that Holm's correction counts;
    empty compares every arm with the baseline."""


SHORT = {"warmup_steps": 500, "learning_rate": 3e-4}
"""Schedule for a few thousand steps, in place of Table 7's for 100,000."""
SHORT_VALUES = {"learning_rate": 3e-4, "target_every": 100, "standardize_pictures": True}
"""The same for Atari's value-based methods, in place of 5e-5 and 2,000 for millions."""

STUDIES: dict[str, Study] = {
    "table1": Study(
        summary="Table 1: four Atari games from 1 % of DQN-replay (Pong: K = 50)",
        arms=tuple(f"{name}_atari" for name in ATARI_METHODS),
        data=GAMES,
        num_steps=ATARI_STEPS,
        evaluate_every=ATARI_STEPS // 5,
        data_settings={"Pong": {"context_length": 50}},
    ),
    "table1_small": Study(
        summary="Table 1's arms on our own Breakout and Pong data, for the budget of one core",
        arms=tuple(f"{name}_atari" for name in ("dt", "bc", "random", "chibit", "cql", "qr_dqn", "rem")),
        data=("breakout-medium-expert", "pong-medium-expert"),
        num_steps=2_000,
        evaluate_every=1_000,
        precision="bf16",
        settings={
            "context_length": 10,  # shorter windows and more of them: pictures of one window are alike
            "standardize_pictures": True,  # without, a few thousand updates do not find Pong's ball
            "batch_size": 24,
            "warmup_steps": 50,
            "learning_rate_decay_steps": 2_400,
            "max_timesteps": 4_096,
        },
        agent_settings={
            # With the weight 4 of Table 1 the penalty does not move within a few thousand updates.
            "discrete_cql": {**SHORT_VALUES, "conservative_weight": 100.0},
            "qr_dqn": SHORT_VALUES,
            "rem": SHORT_VALUES,
        },
    ),
    "table2": Study(
        summary="Table 2: pre-trained models and baselines on nine D4RL data sets",
        arms=(
            "chibit_paper",
            "gpt2",
            "clip",
            "igpt",
            "dt",
            "cql_tuned",
            "td3_bc",
            "brac_v",
            "awr",
            "bc",
            "iql_tuned",
            "rebrac_tuned",
            "random",
        ),
        data=NINE,
    ),
    "table3": Study(
        summary="Table 3: steps and seconds to within 2 points of the best, medium-expert",
        arms=("dt", "chibit_paper", "gpt2"),
        data=MEDIUM_EXPERT,
    ),
    "table4": Study(
        summary="Table 4: context of 20 and 60 steps, medium",
        arms=("chibit_paper", "chibit_context60", "dt", "dt_context60"),
        data=MEDIUM,
    ),
    "table5": Study(
        summary="Table 5: fine-tuned or frozen, medium", arms=("chibit_paper", "chibit_frozen"), data=MEDIUM
    ),
    "table6": Study(
        summary="Table 6: without each technique, medium",
        arms=("chibit_paper", "chibit_no_similarity", "chibit_no_language", "chibit_random_positions"),
        data=MEDIUM,
    ),
    "figure2": Study(
        summary="Figure 2: attention maps after fine-tuning on Hopper medium",
        arms=("gpt2", "igpt", "dt", "random", "chibit"),
        data=("hopper-medium-v2",),
        attention=True,
    ),
    "figure3": Study(
        summary="Figure 3: model sizes with and without pre-training on text, medium-expert",
        arms=("random", *(f"random_{size}" for size in SIZES))
        + ("chibit", *(f"chibit_{size}" for size in SIZES), "gpt2"),
        data=MEDIUM_EXPERT,
    ),
    "controls": Study(
        summary="what pre-training is made of: weights redrawn, shuffled or in part, other sources, K = 1",
        arms=("random", "random_matched", "chibit", "chibit_shuffled", "chibit_blocks", "chibit_positions")
        + ("iid", "markov", "ngram", "shuffled_text", "random_no_context", "chibit_no_context"),
        data=MEDIUM,
    ),
    "weights": Study(
        summary="the grid of λ1 and λ2 that section 4.1 searches, medium",
        arms=tuple(WEIGHTS_GRID),
        data=MEDIUM,
    ),
    "policies": Study(
        summary="a policy on our own medium data of each environment, beside the data's own return",
        arms=("random",),
        data=tuple(f"{name}-medium" for name in ENVIRONMENTS),
        num_steps=5_000,
        evaluate_every=1_000,
        precision="bf16",
        settings=SHORT,
    ),
    "initialisers": Study(
        summary="initialisers and techniques on our own Hopper medium-replay data",
        arms=(
            "random",
            "random_matched",
            "chibit",
            "chibit_similarity",
            "chibit_language",
            "chibit_random_positions_plain",
            "chibit_paper",
            "markov",
        ),
        data=("hopper-medium-replay",),
        num_steps=3_000,
        evaluate_every=500,
        precision="bf16",
        settings=SHORT,
        language_settings={"language_batch_size": 1, "language_block": 256},
    ),
    "baselines": Study(
        summary="continuous baselines on our own Hopper medium and medium-replay data",
        arms=("bc", "bc_top10", "td3_bc", "cql", "brac_v", "awr", "iql", "rebrac"),
        data=("hopper-medium", "hopper-medium-replay"),
        num_steps=20_000,
        evaluate_every=2_500,
    ),
}
"""Name to study."""


def study_configs(
    name: str,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    arms: Sequence[str] = (),
    data: Sequence[str] = (),
    language_corpus: str = "",
    pretrain_steps: int | None = None,
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
        overrides: fields of RunConfig in place of the study's and the recipes', such as num_steps; None is no
            override. With fewer steps than four evaluations take, there are four evaluations all the same.

    Raises:
        InputError: for an unknown study or arm, with the nearest names, and for anything named twice.
    """
    if name not in STUDIES:
        raise InputError(f"study: unknown {name!r}{nearest(name, STUDIES)}; known: {', '.join(STUDIES)}")
    study = STUDIES[name]
    fields: dict[str, Any] = {
        "num_steps": study.num_steps,
        "evaluate_every": study.evaluate_every,
        "precision": study.precision,
    }
    given = {key: value for key, value in overrides.items() if value is not None}
    fields |= given
    if "evaluate_every" not in given:
        fields["evaluate_every"] = min(fields["evaluate_every"], max(1, fields["num_steps"] // 4))
    if not seeds:
        raise InputError("seeds: got none, expected at least one")
    for arm in arms:
        if arm not in RECIPES:
            raise InputError(f"arm: unknown {arm!r}{nearest(arm, RECIPES)}; see chibit recipes")
    if pretrain_steps is not None and pretrain_steps < 1:
        raise InputError(f"pretrain_steps: got {pretrain_steps}, expected at least 1")
    configs = []
    for seed in _distinct("seeds", seeds):
        for data_name in _distinct("data", data or study.data):
            for arm in _distinct("arms", arms or study.arms):
                run = RECIPES[arm].run(data=data_name)
                if run.agent.agent == "dt":
                    agent = _with_settings(run.agent, study, data_name, language_corpus)
                    init = with_budget(agent.init, pretrain_steps, language_corpus)
                    run = dataclasses.replace(run, agent=dataclasses.replace(agent, init=init))
                elif settings := study.agent_settings.get(run.agent.agent):
                    run = dataclasses.replace(run, agent=dataclasses.replace(run.agent, **settings))
                configs.append(dataclasses.replace(run, arm=arm, seed=seed, **fields))
    return configs


def _distinct(what: str, values: Sequence[Any]) -> Sequence[Any]:
    if len(set(values)) != len(values):
        raise InputError(f"{what}: got {', '.join(map(str, values))}, expected each once")
    return values


def _with_settings(agent: Any, study: Study, data_name: str, language_corpus: str) -> Any:
    """A sequence model's config with the study's settings in it."""
    settings = {**study.settings, **study.data_settings.get(data_name, {})}
    if agent.language_weight:
        settings |= study.language_settings
        settings |= {"language_corpus": language_corpus} if language_corpus else {}
    return dataclasses.replace(agent, **settings)


# The paper's tables and figures, and the controls, as functions: `table2(seeds=(0, 1), num_steps=200)`.
table1 = partial(study_configs, "table1")
table2 = partial(study_configs, "table2")
table3 = partial(study_configs, "table3")
table4 = partial(study_configs, "table4")
table5 = partial(study_configs, "table5")
table6 = partial(study_configs, "table6")
figure2 = partial(study_configs, "figure2")
figure3 = partial(study_configs, "figure3")
controls = partial(study_configs, "controls")

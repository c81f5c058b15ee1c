"""Studies: the tables and figures of the paper, and the controls it lacks, as arms x data sets x seeds."""

from __future__ import annotations

from dataclasses import replace

from chibit.agents.dt.config import DecisionTransformerConfig
from chibit.core.plugins import AddressedRegistry
from chibit.environments.registry import GAMES, OWN_IDS
from chibit.models.gpt import SIZES
from chibit.recipes import (
    ATARI_METHODS,
    ATARI_STEPS,
    AUTHORS,
    FAIR_ARMS,
    MEMORY_CONTEXTS,
    RATES,
    SOURCE_ARMS,
    TEXT_ARMS,
    WEIGHTS_GRID,
)
from chibit.study import Study as Study

ENVIRONMENTS = tuple(OWN_IDS)
MEDIUM = tuple(f"{name}-medium-v2" for name in ENVIRONMENTS)
MEDIUM_EXPERT = tuple(f"{name}-medium-expert-v2" for name in ENVIRONMENTS)
MEDIUM_REPLAY = tuple(f"{name}-medium-replay-v2" for name in ENVIRONMENTS)
NINE = MEDIUM_EXPERT + MEDIUM + MEDIUM_REPLAY

SEQUENCE = DecisionTransformerConfig.agent
"""Key of the sequence model, whose settings most studies give."""
SHORT = {"learning_rate": 3e-4}
"""Step size for a few thousand steps, in place of Table 7's for 100,000; schedules shrink by themselves."""
STITCHING_SEQUENCE = {"batch_size": 16, "learning_rate": 1e-3}
STITCHING_IQL = {"expectile": 0.9, "inverse_temperature": 10.0}
"""Kostrikov et al. (2022) on AntMaze, which they say needs stitching."""
SHORT_VALUES = {"learning_rate": 3e-4, "target_every": 100, "standardize_pictures": True}
"""The same for Atari's value-based methods, in place of 5e-5 and 2,000 for millions."""

FAIR_COMPARISONS = (
    ("chibit", "random"),
    ("chibit", "random_matched"),
    ("markov", "random"),
    ("markov", "random_matched_markov"),
)
FAIR_TARGETS = {
    "hopper-medium-replay": (3600.0,),
    "hopper-medium-expert": (3600.0,),
    "walker2d-medium-replay": (5000.0,),
}
"""The paper's (Table 7)."""
BACKBONE_RATES: dict[str, float] = {
    **dict.fromkeys(("random", "chibit"), 3e-3),
    "markov": 1e-3,
    **dict.fromkeys(("random_matched", "random_matched_markov", *SOURCE_ARMS), 3e-4),
}
"""What the study `rates` chose for each arm (docs/experiment.md, results/rates)."""
FAIR = Study(
    summary="does pre-training help? Each arm at its own rate, fresh starts, ten paired seeds",
    arms=FAIR_ARMS,
    data=tuple(FAIR_TARGETS),
    num_steps=10_000,
    evaluate_every=1_000,
    precision="bf16",
    settings={SEQUENCE: {"batch_size": 16, "learning_rate": 3e-4}},
    run_settings={"num_episodes": 20, "validation_share": 0.1, "log_every": 250},
    target_returns=FAIR_TARGETS,
    has_chosen_rates=True,
    comparisons=FAIR_COMPARISONS,
    # Mean score of the best tenth of each data set's episodes.
    score_levels={
        "hopper-medium-replay": 34.2,
        "hopper-medium-expert": 113.3,
        "walker2d-medium-replay": 38.8,
    },
    # Mean held-out error of `random` at its chosen rate after 2,500 steps of the study `rates`.
    error_levels={"hopper-medium-replay": 0.09545},
    negligible=1.5,
)
FAIR_CELL = replace(FAIR, data=("hopper-medium-replay",), score_levels={}, negligible=None)
"""On one data set of it, for what is asked besides."""

LANGUAGE = Study(
    summary="instructions in words: who understands other words for the same? Each arm at its own rate",
    arms=tuple(TEXT_ARMS),
    data=("babyai-gotolocals8n4", "babyai-pickuploc", "babyai-mixedlocal"),
    num_steps=1_200,
    evaluate_every=100,
    precision="bf16",
    run_settings={"num_episodes": 50},
    has_chosen_rates=True,
    comparisons=(
        ("text_chibit", "text_random_matched"),
        *((arm, "text_random") for arm in (*TEXT_ARMS,)[2:]),
    ),
)
LANGUAGE = replace(LANGUAGE, score_levels=dict.fromkeys(LANGUAGE.data, 90.0))

MEMORY = Study(
    summary="a cue that must be remembered: contexts of 1, 20 and 60 beside methods without memory",
    arms=(
        *(f"{arm}_last{k}" for arm in ("dt", "random", "chibit") for k in MEMORY_CONTEXTS),
        f"random_matched_last{MEMORY_CONTEXTS[-1]}",
        *("dt", "discrete_bc", "discrete_cql", "rem"),
    ),
    data=("tmaze-15-expert", "tmaze-50-expert", "keytodoor-20-expert"),
    num_steps=600,
    evaluate_every=150,
    precision="bf16",
    settings={SEQUENCE: {"batch_size": 32, "learning_rate": 1e-3, "dropout": 0.0}},
    run_settings={"num_episodes": 100},
    comparisons=(
        *((f"chibit_last{k}", f"random_last{k}") for k in MEMORY_CONTEXTS),
        ("chibit_last60", "random_matched_last60"),
    ),
)

STITCHING = Study(
    summary="starts that lie further from the goal than any way in the data, beside data of whole ways",
    arms=("dt", "dt_last20", "reinformer", "bc", "bc_top10", "iql", "td3_bc"),
    data=("pointmaze-medium-near", "pointmaze-medium-all"),
    num_steps=5_000,
    evaluate_every=1_250,
    precision="bf16",
    settings={SEQUENCE: STITCHING_SEQUENCE, "reinformer": STITCHING_SEQUENCE, "iql": STITCHING_IQL},
    run_settings={"num_episodes": 50},
)


_OWN = {
    "rates": replace(
        FAIR_CELL,
        summary="stage 0 of `fair`: the backbone learning rate of each arm, on seeds that are thrown away",
        arms=tuple(f"{arm}_{rate}" for arm in FAIR_ARMS for rate in RATES),
        num_steps=5_000,
        evaluate_every=500,
        has_chosen_rates=False,
        comparisons=(),
        error_levels={},
    ),
    "fair": FAIR,
    "fair_baselines": Study(
        summary="BC, 10 % BC, IQL and TD3+BC on the data of `fair`",
        arms=("bc", "bc_top10", "iql", "td3_bc"),
        data=tuple(FAIR_TARGETS),
        num_steps=20_000,
        evaluate_every=2_000,
        settings=AUTHORS,
        run_settings={"num_episodes": 20},
    ),
    "fair_twice": replace(
        FAIR_CELL,
        summary="one cell of `fair` at twice the batch and twice the steps: does the sign hold?",
        arms=("random", "chibit"),
        num_steps=20_000,
        evaluate_every=2_000,
        settings={SEQUENCE: {"batch_size": 32, "learning_rate": 3e-4}},
        comparisons=(("chibit", "random"),),
    ),
    "sources": replace(
        FAIR_CELL,
        summary="what may be learned beforehand? Five sources without language, for one budget of tokens",
        arms=("random", "markov", *SOURCE_ARMS),
        comparisons=tuple((arm, "random") for arm in ("markov", *SOURCE_ARMS)),
    ),
    "sources_one_rate": replace(
        FAIR_CELL,
        summary="the four new sources of `sources` beside the untrained model at their own step size",
        arms=("random_3e-4", *SOURCE_ARMS),
        comparisons=tuple((arm, "random_3e-4") for arm in SOURCE_ARMS),
    ),
    "fair_longer": replace(
        FAIR,
        summary="one cell of `fair`, Hopper medium-expert, for five times the steps and at two targets",
        arms=("random", "chibit"),
        data=("hopper-medium-expert",),
        num_steps=50_000,
        evaluate_every=5_000,
        target_returns={"hopper-medium-expert": (3600.0, 1800.0)},
        comparisons=(("chibit", "random"),),
        score_levels={"hopper-medium-expert": 113.3},
        error_levels={},
        negligible=None,
    ),
    "low_data": replace(
        FAIR_CELL,
        summary="1, 3, 10 and 30 % of Hopper medium-replay, a new subset with each seed, shared by the arms",
        num_steps=3_000,
        evaluate_every=500,
        fractions=(0.01, 0.03, 0.1, 0.3),
    ),
    "table1": Study(
        summary="Table 1: four Atari games from 1 % of DQN-replay (Pong: K = 50)",
        arms=tuple(f"{name}_atari" for name in (*ATARI_METHODS, "cql", "qr_dqn", "rem")),
        data=GAMES,
        num_steps=ATARI_STEPS,
        evaluate_every=ATARI_STEPS // 5,
        data_settings={"Pong": {SEQUENCE: {"context_length": 50}}},
    ),
    "table1_small": Study(
        summary="Table 1's arms on our own Breakout and Pong data, for the budget of one core",
        arms=tuple(f"{name}_atari" for name in ("dt", "bc", "random", "chibit", "cql", "qr_dqn", "rem")),
        data=("breakout-medium-expert", "pong-medium-expert"),
        num_steps=2_000,
        evaluate_every=500,
        precision="bf16",
        settings={
            SEQUENCE: {
                "context_length": 10,  # shorter windows and more of them: pictures of one window are alike
                "standardize_pictures": True,  # without, a few thousand updates do not find Pong's ball
                "batch_size": 24,
                "warmup_steps": 50,
                "learning_rate_decay_steps": 2_400,
                "max_timesteps": 4_096,
            },
            # With the weight 4 of Table 1 the penalty does not move within a few thousand updates.
            "discrete_cql": {**SHORT_VALUES, "conservative_weight": 100.0},
            "qr_dqn": SHORT_VALUES,
            "rem": SHORT_VALUES,
        },
    ),
    "table2": Study(
        summary="Table 2: pre-trained models and baselines on nine D4RL data sets",
        arms=("chibit_paper", "gpt2", "clip", "igpt", "dt", "cql_tuned", "td3_bc", "brac_v", "awr", "bc")
        + ("iql_tuned", "rebrac_tuned", "random"),
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
        summary="Table 5: fine-tuned or frozen, medium",
        arms=("chibit_paper", "chibit_frozen"),
        data=MEDIUM,
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
        + (*(f"chibit_{size}" for size in ("0.6M", *SIZES)), "gpt2"),
        data=MEDIUM_EXPERT,
    ),
    "controls": Study(
        summary="what pre-training is made of: weights redrawn, shuffled or in part, other sources, K = 1",
        arms=(
            "random",
            "random_matched",
            "chibit",
            "chibit_shuffled",
            "chibit_blocks",
            "chibit_positions",
        )
        + ("markov", "random_matched_markov", *SOURCE_ARMS, "shuffled_text")
        + ("random_no_context", "chibit_no_context"),
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
        settings={SEQUENCE: SHORT},
    ),
    "memory": MEMORY,
    "memory_grid": replace(
        MEMORY,
        summary="MiniGrid's memory task, where the cue is to be compared: contexts of 1 and 20",
        arms=("random_last1", "random_last20", "random_matched_last20", "chibit_last20", "discrete_bc"),
        data=("minigrid-memory-s7-expert", "minigrid-memory-s13-expert"),
        num_steps=2_000,
        evaluate_every=500,
        comparisons=tuple(("chibit_last20", f"random{kind}_last20") for kind in ("", "_matched")),
    ),
    "stitching": STITCHING,
    "stitching_longer": replace(
        STITCHING,
        summary="twice the steps of `stitching` for the methods with a critic, which were still rising",
        arms=("iql", "td3_bc"),
        num_steps=10_000,
        evaluate_every=2_500,
    ),
    "language_rates": replace(
        LANGUAGE,
        summary="stage 0 of `language`: the learning rate of each arm, on seeds that are thrown away",
        arms=tuple(f"{arm}_{rate}" for arm in TEXT_ARMS for rate in RATES),
        data=LANGUAGE.data[:1],
        num_steps=400,
        run_settings={"num_episodes": 50, "validation_share": 0.02, "log_every": 400},
        has_chosen_rates=False,
        comparisons=(),
        score_levels={},
    ),
    "language": LANGUAGE,
    "initializers": Study(
        summary="initializers and techniques on our own Hopper medium-replay data",
        arms=("random", "random_matched", "chibit", "chibit_similarity", "chibit_language")
        + ("chibit_random_positions_plain", "chibit_paper", "markov"),
        data=("hopper-medium-replay",),
        num_steps=3_000,
        evaluate_every=500,
        precision="bf16",
        settings={SEQUENCE: SHORT},
        language_settings={"language_batch_size": 1, "language_block": 256},
    ),
    "baselines": Study(
        summary="continuous baselines on our own Hopper medium and medium-replay data",
        arms=("bc", "bc_top10", "td3_bc", "cql", "brac_v", "awr", "iql", "rebrac"),
        data=("hopper-medium", "hopper-medium-replay"),
        num_steps=20_000,
        evaluate_every=2_500,
        settings={**AUTHORS, "brac_v": {"behavior_steps": 10_000}, "awr": {"refresh_every": 1_000}},
    ),
}
STUDIES: AddressedRegistry[Study] = AddressedRegistry(
    "study", "studies", "chibit study", "a chibit.studies.Study", Study
)
"""Name to study."""
STUDIES.update(_OWN)

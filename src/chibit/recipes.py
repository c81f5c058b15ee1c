"""Named run configurations: the arms of the paper's tables, its controls, and the baselines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from chibit.agents import AGENTS, DEFAULT_AGENT
from chibit.agents.recommended import RECOMMENDED, recommended
from chibit.core.errors import InputError
from chibit.core.files import nearest
from chibit.models.gpt import SIZES, GPTShape
from chibit.training.run_config import RunConfig


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A method with settings."""

    summary: str
    """One line for ``chibit recipes``."""
    agent: str = DEFAULT_AGENT
    """Key of the method."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Fields of its config that differ from their defaults."""
    per_data: bool = False
    """Take what the method's authors, or CORL, chose for the data set (`agents.recommended`)."""
    num_steps: int = 100_000
    """Gradient steps that its schedules are written for."""

    def run(self, data: str, num_steps: int | None = None) -> RunConfig[Any]:
        """The run configuration for one data set.

        Args:
            data: the data set.
            num_steps: length of the run, to which the schedules shrink; None leaves them as they are written.
        """
        shrink = 1.0 if num_steps is None else num_steps / self.num_steps
        config = AGENTS[self.agent].config(**shortened(self.settings, shrink))
        return RunConfig(data=data, agent=recommended(config, data) if self.per_data else config)


SCHEDULES = ("warmup_steps", "auxiliary_decay_steps", "learning_rate_decay_steps")


def shortened(settings: Mapping[str, Any], factor: float) -> dict[str, Any]:
    """Settings whose schedules are `factor` times as long, where that is shorter; 0 stays off."""
    short = {
        name: max(1, round(factor * value))
        for name, value in settings.items()
        if name in SCHEDULES and value and factor < 1.0
    }
    return {**settings, **short}


CHEN = {
    "timestep_position": "before_norm",
    "timestep_table": "normal",
    "dropout": 0.1,
    "warmup_steps": 10_000,
}
"""Chen et al. (2021): the plain Decision Transformer."""
SIMILARITY = {"similarity_weight": 0.1, "similarity_form": "paper_sum"}
"""Eq. 8 as printed, a sum over all tokens."""
LANGUAGE = {"language_weight": 0.2, "language_corpus": "wikitext-103"}
PAPER = {"initializer": "chibit", **SIMILARITY, **LANGUAGE}
RELEASED = {
    **SIMILARITY,
    "similarity_form": "released",
    "auxiliary_decay": "sigmoid",
    "language_decay": "constant",
    "head": "tied",
    "warmup_steps": 10_000,
}
"""The choices of the released run script."""
ATARI = {
    "embedding": "tanh",
    "context_length": 30,
    "return_scale": 1.0,
    "dropout": 0.1,
    "batch_size": 128,
    "learning_rate": 6e-4,
    "weight_decay": 0.1,
    "decay_weights_only": True,
    "adam_betas": (0.9, 0.95),
    "grad_clip": 1.0,
    "warmup_steps": 3,
    "learning_rate_decay_steps": 23_438,
}
"""Chen et al. (2021) on Atari, around any backbone: 512 * 20 actions of warm-up, a cosine over six epochs of
500,000 windows of which five are trained."""
ATARI_GPT = {"gpt": GPTShape(n_layer=6, n_head=8, n_embd=128, activation="gelu")}
ATARI_STEPS = 19_532
"""Batches of 128 in five epochs of 500,000 windows."""
LAMO = {
    "tuning": "lora",
    "projections": "residual_mlp",
    "timestep_table": "normal",
    "dropout": 0.1,
    "weight_decay": 1e-5,
    "warmup_steps": 2_500,
    "language_weight": 0.1,
    "language_decay": "constant",
    "language_corpus": "wikitext-103",
}
"""Shi et al. (2024)."""

RECIPES: dict[str, Recipe] = {
    "dt": Recipe(summary="Decision Transformer of Chen et al. (2021), to the letter", settings=CHEN),
    "dt_context60": Recipe(summary="the same with a context of 60", settings={**CHEN, "context_length": 60}),
    "random": Recipe(summary="the paper's wrapper, untrained GPT: what pre-training is judged against"),
    "random_matched": Recipe(
        summary="as random, each tensor with ChibiT's mean and standard deviation",
        settings={"initializer": "random_matched:chibit"},
    ),
    "random_matched_markov": Recipe(
        summary="as random, each tensor with the Markov model's mean and standard deviation",
        settings={"initializer": "random_matched:markov"},
    ),
    "chibit": Recipe(
        summary="pre-trained on Wikipedia, no further technique",
        settings={"initializer": "chibit"},
    ),
    "chibit_similarity": Recipe(
        summary="chibit with Eq. 8 as a mean over tokens (λ1 = 0.1), sixty times weaker than the paper's sum",
        settings={"initializer": "chibit", "similarity_weight": 0.1},
    ),
    "chibit_language": Recipe(
        summary="chibit with language co-training (λ2 = 0.2; needs --language-corpus or wikitext-103)",
        settings={"initializer": "chibit", **LANGUAGE},
    ),
    "chibit_random_positions_plain": Recipe(
        summary="chibit with positions drawn anew at the pre-trained ones' norms",
        settings={"initializer": "chibit", "timestep_table": "matched"},
    ),
    "chibit_paper": Recipe(summary="chibit with all three techniques, as in Tables 2 and 6", settings=PAPER),
    "chibit_no_similarity": Recipe(
        summary="Table 6: without L_cos", settings={**PAPER, "similarity_weight": 0.0}
    ),
    "chibit_no_language": Recipe(
        summary="Table 6: without L_LM",
        settings={"initializer": "chibit", **SIMILARITY},
    ),
    "chibit_random_positions": Recipe(
        summary="Table 6: random positions", settings={**PAPER, "timestep_table": "matched"}
    ),
    "chibit_context60": Recipe(summary="Table 4: context of 60", settings={**PAPER, "context_length": 60}),
    "chibit_frozen": Recipe(
        summary="Table 5: only L_r, L_s, L_a and the head are trained",
        settings={"initializer": "chibit", **SIMILARITY, "tuning": "frozen"},
    ),
    "chibit_released": Recipe(
        summary="chibit with the choices of the released run script",
        settings={"initializer": "chibit", **RELEASED},
    ),
    "chibit_lora": Recipe(
        summary="LaMo's recipe on ChibiT",
        settings={"initializer": "chibit", **LAMO},
    ),
    "chibit_blocks": Recipe(
        summary="control: only the blocks are transferred",
        settings={"initializer": "chibit", "transfer": "blocks"},
    ),
    "chibit_positions": Recipe(
        summary="control: only the positions are transferred",
        settings={"initializer": "chibit", "transfer": "positions"},
    ),
    "chibit_shuffled": Recipe(
        summary="control: each pre-trained tensor with its entries permuted",
        settings={"initializer": "chibit", "transfer": "shuffled"},
    ),
    "chibit_no_context": Recipe(
        summary="control: K = 1 (Takagi 2022)",
        settings={"initializer": "chibit", "context_length": 1},
    ),
    "random_no_context": Recipe(summary="its control: random with K = 1", settings={"context_length": 1}),
    "markov": Recipe(
        summary="pre-trained on a Markov chain (Wang et al. 2024)",
        settings={"initializer": "markov"},
    ),
    "iid": Recipe(
        summary="pre-trained on independent tokens, on first use (2,000 steps)",
        settings={"initializer": "iid:2000"},
    ),
    "ngram": Recipe(
        summary="pre-trained on a second-order Markov chain, on first use (2,000 steps)",
        settings={"initializer": "ngram:2000"},
    ),
    "dyck": Recipe(
        summary="pre-trained on nested brackets, on first use (2,000 steps)",
        settings={"initializer": "dyck:2000"},
    ),
    "automaton": Recipe(
        summary="pre-trained on a cellular automaton, on first use (2,000 steps)",
        settings={"initializer": "automaton:2000"},
    ),
    "shuffled_text": Recipe(
        summary="pre-trained on text with its words shuffled, on first use (2,000 steps)",
        settings={"initializer": "shuffled_text:2000"},
    ),
    "gpt2": Recipe(
        summary="GPT-2 small, similarity loss; from the Hub",
        settings={"initializer": "gpt2", **SIMILARITY},
    ),
    "gpt2_lamo": Recipe(
        summary="LaMo: GPT-2, LoRA, MLP projections",
        settings={"initializer": "gpt2", **LAMO},
    ),
    "clip": Recipe(
        summary="CLIP's text tower with the similarity loss; from the Hub",
        settings={"initializer": "clip", **SIMILARITY},
    ),
    "igpt": Recipe(
        summary="ImageGPT small, with its own norm; from the Hub",
        settings={"initializer": "igpt"},
    ),
    "igpt_layernorm": Recipe(
        summary="ImageGPT read by GPT-2's code",
        settings={"initializer": "igpt", "image_gpt_norm": "layernorm"},
    ),
}
"""Name to recipe. Baselines are added below: a recipe for each method with its defaults, and variants."""

RECIPES |= {
    f"random_{size}": Recipe(
        summary=f"Figure 3: random with {size} parameters in its blocks", settings={"gpt": shape}
    )
    for size, shape in SIZES.items()
}
RECIPES |= {
    f"chibit_{size}": Recipe(
        summary=f"Figure 3: {size} parameters, pre-trained on text, on first use (2,000 steps; for a GPU)",
        settings={"initializer": f"chibit_{size}:2000"},
    )
    for size in ("0.6M", *SIZES)
}


def _defaults(agent: str) -> Recipe:
    """An agent with its defaults."""
    entry = AGENTS[agent]
    return Recipe(summary=f"{entry.agent.label}: {entry.summary}", agent=agent)


RECIPES |= {name: _defaults(name) for name in AGENTS if name not in RECIPES}

ATARI_METHODS: dict[str, tuple[str, dict[str, Any], str]] = {
    "dt": ("dt", {**ATARI, **ATARI_GPT}, "Decision Transformer of Chen et al. (2021)"),
    "bc": ("dt", {**ATARI, **ATARI_GPT, "return_tokens": False}, "the same without return tokens: cloning"),
    "random": ("dt", ATARI, "the same around ChibiT's three layers of one head, untrained"),
    "chibit": (
        "dt",
        {**ATARI, "initializer": "chibit"},
        "the same around ChibiT; its positions are those of the tokens",
    ),
    "gpt2": ("dt", {**ATARI, "initializer": "gpt2"}, "the same around GPT-2 small; from the Hub"),
    "clip": ("dt", {**ATARI, "initializer": "clip"}, "the same around CLIP's text tower; from the Hub"),
    "igpt": ("dt", {**ATARI, "initializer": "igpt"}, "the same around ImageGPT small; from the Hub"),
    "cql": ("discrete_cql", {"evaluation_epsilon": 0.001}, "conservative Q-learning on quantiles"),
    "qr_dqn": ("qr_dqn", {"evaluation_epsilon": 0.001}, "quantile-regression DQN"),
    "rem": ("rem", {"evaluation_epsilon": 0.001}, "random ensemble mixture"),
}
RECIPES |= {
    f"{name}_atari": Recipe(
        summary=f"Atari: {summary}",
        agent=agent,
        settings=settings,
        num_steps=ATARI_STEPS,
    )
    for name, (agent, settings, summary) in ATARI_METHODS.items()
}

RECIPES["bc_top10"] = Recipe(
    summary="behaviour cloning of the best tenth of the data", agent="bc", settings={"top_fraction": 0.1}
)
RECIPES["bc_stacked"] = Recipe(
    summary="the cloning baseline of Chen et al. (2021): the last 20 states stacked",
    agent="bc",
    settings={
        "context_length": 20,
        "hidden_sizes": (128, 128, 128),
        "dropout": 0.1,
        "learning_rate": 1e-4,
        "weight_decay": 1e-4,
        "warmup_steps": 10_000,
        "batch_size": 64,
    },
)
RECIPES["cql_markov"] = Recipe(
    summary="cql with critics pre-trained on a synthetic Markov decision process (Wang et al. 2024)",
    agent="cql",
    settings={"pretraining": "markov"},
)
RECIPES |= {
    f"{name}_tuned": Recipe(
        summary=f"{name} with the settings chosen for each D4RL data set, by its authors or CORL",
        agent=name,
        per_data=True,
    )
    for name in RECOMMENDED
}

WEIGHTS_GRID = {
    f"chibit_similarity{10 * similarity:.0f}_language{10 * language:.0f}": {
        "initializer": "chibit",
        **SIMILARITY,
        "similarity_weight": similarity,
        **({**LANGUAGE, "language_weight": language} if language else {}),
    }
    for similarity in (0.1, 0.2)
    for language in (0.0, 0.2, 0.4)
}
"""The grid that section 4.1 searches: λ1 and λ2, in tenths in the name."""
RECIPES |= {
    name: Recipe(
        summary=f"grid of section 4.1: λ1 = {settings['similarity_weight']}, "
        f"λ2 = {settings.get('language_weight', 0.0)}",
        settings=settings,
    )
    for name, settings in WEIGHTS_GRID.items()
}

RATES = ("3e-4", "1e-3", "3e-3")
"""Backbone learning rates that are tried for each arm of the studies `fair` and `sources`."""
RECIPES |= {
    f"{arm}_{rate}": Recipe(
        summary=f"{arm} with backbone learning rate {rate}",
        settings={**RECIPES[arm].settings, "backbone_learning_rate": float(rate)},
    )
    for arm in (
        *("random", "chibit", "random_matched", "markov", "random_matched_markov"),
        *("iid", "ngram", "dyck", "automaton"),
    )
    for rate in RATES
}


def find_recipe(name: str, where: str) -> Recipe:
    """A recipe by its name; the name of an agent that came later is one with its defaults.

    Args:
        name: the recipe's.
        where: what names it, for the message.

    Raises:
        InputError: if there is none, with the nearest name.
    """
    if name in RECIPES:
        return RECIPES[name]
    if name in AGENTS:
        return _defaults(name)
    raise InputError(f"{where}: unknown {name!r}{nearest(name, RECIPES)}; see chibit recipes")

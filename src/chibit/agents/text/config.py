"""Hyper-parameters of the agent that reads."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from chibit.agents.backbone import BackboneConfig
from chibit.core.errors import InputError
from chibit.core.fields import BelowOne, Count, Flat, Natural, Needs, NonNegative, Positive, Since
from chibit.core.runtime import Precision
from chibit.data.dataset import DatasetSpec
from chibit.models.gpt import GPTShape
from chibit.models.initializers import short_name, with_budget

_RANDOM_WORDS = Needs("random words", lambda config: config.read_by == "random")
_FROZEN = Needs("text_encoder frozen", lambda config: config.text_encoder == "frozen")


@dataclass(frozen=True, kw_only=True)
class TextConfig(BackboneConfig):
    """Hyper-parameters. Defaults: those with which GoToLocalS8N4 was first solved (docs/language.md)."""

    agent: ClassVar[str] = "text"
    schedules: ClassVar[Mapping[str, int]] = {"warmup_steps": 100}
    filled_in: ClassVar[tuple[str, ...]] = ("max_timesteps",)
    seconds_a_step: ClassVar[float] = 0.3
    seconds_an_episode: ClassVar[float] = 0.05

    initializer: str = "random"
    """Of the backbone: random, random_matched, chibit, gpt2, hf:ID, a folder, or MODULE:NAME."""
    words: str = ""
    """Initializer whose words, or features, are read; empty is `initializer` itself."""
    words_width: Annotated[Natural, Since(0), _RANDOM_WORDS] = 0
    """Width of random words; 0 is the backbone's."""
    text_encoder: Literal["backbone", "bag", "frozen"] = "backbone"
    """backbone reads the words in order; bag is their mean; frozen: features of the texts from a language
    model that is not trained."""
    text_layer: Annotated[Natural | None, _FROZEN] = None
    """Layer of the language model that features are taken from; None is two fifths of the way up, in the
    package's own models the last, which is their only one."""
    text_length: Count = 32
    """Most tokens of a text; a longer one is refused."""
    gpt: Annotated[GPTShape, Flat()] = field(default_factory=GPTShape)
    """Shape of a random backbone; other initializers bring their own."""
    dropout: BelowOne = 0.0
    """Probability, for embeddings, attention and residual branches."""
    context_length: Count = 32
    """Most steps of an episode that are seen at once."""
    max_timesteps: Natural = 0
    """Rows of the table of timesteps; 0 is the data's episode limit."""
    batch_size: Count = 64
    """Episodes in a batch."""
    learning_rate: Positive = 1e-3
    """AdamW's step size after the warm-up."""
    backbone_learning_rate: Positive | None = None
    """Step size of the backbone and of positions of words; None is `learning_rate`."""
    weight_decay: NonNegative = 1e-4
    """AdamW's weight decay."""
    warmup_steps: Natural | None = None
    """Linear warm-up, in gradient steps; None is 100, or a tenth of a run that is shorter than 1,000."""
    grad_clip: Positive = 1.0
    """Largest global norm of the gradient."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.text_encoder == "frozen" and (self.words or self.initializer) == "random":
            raise InputError(
                "words: text_encoder 'frozen' needs a language model; give words hf:ID or another initializer"
            )

    @property
    def read_by(self) -> str:
        """Initializer whose words are read."""
        return self.words or self.initializer

    @property
    def reads_missions(self) -> bool:
        """That is what it is for."""
        return True

    @property
    def arm_name(self) -> str:
        """Name in tables."""
        return f"text_{short_name(self.initializer)}"

    @property
    def sources(self) -> tuple[str, ...]:
        """Of the backbone and of the words."""
        return self.initializer, self.words

    @property
    def size_class(self) -> tuple[str, ...]:
        """Sizes, and who reads."""
        kinds = (self.initializer.partition(":")[0], self.text_encoder)
        return (*(str(n) for n in (self.gpt.n_layer, self.gpt.n_embd, self.batch_size)), *kinds)

    @property
    def steps_a_batch(self) -> int:
        """Steps of all episodes, were they as long as they may be."""
        return self.batch_size * self.context_length

    def in_study(
        self,
        pretrain_steps: int | None,
        text: str,
        language_settings: Mapping[str, Any],
        backbone_learning_rate: float | None,
    ) -> TextConfig:
        """Take over a study's text and budget of pre-training, and an arm's rate, for all of its weights."""
        settings: dict[str, Any] = {"initializer": with_budget(self.initializer, pretrain_steps, text)}
        if backbone_learning_rate is not None:
            rate = backbone_learning_rate
            settings |= {"backbone_learning_rate": rate, "learning_rate": rate}
        return dataclasses.replace(self, **settings)

    def num_bytes(self, spec: DatasetSpec) -> int:
        """The backbone and a step's batches."""
        batches = [(self.batch_size, self.text_length + 2 * self.context_length)]
        return self.gpt.num_bytes(table_rows=spec.max_episode_steps, batches=batches)

    def rough_seconds_a_step(self, num_steps: int, precision: Precision) -> float:
        """By the size of the backbone, relative to ChibiT's and 64 episodes."""
        faster = 0.6 if precision == "bf16" else 1.0
        return self.seconds_a_step * faster * self.backbone_size * self.batch_size / 64

"""What a pre-training run is: corpus, model, optimization, budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Interval

from chibit.core.config import Checked, to_json
from chibit.core.errors import InputError
from chibit.core.fields import (
    BASIC,
    BelowOne,
    Count,
    Fraction,
    Group,
    Natural,
    Needs,
    NeedsData,
    NonNegative,
    Positive,
    Was,
    WasSecond,
    Workers,
)
from chibit.core.files import check_name
from chibit.core.run_dir import run_folder
from chibit.core.runtime import Precision
from chibit.core.schedules import cosine_decay, linear_decay, warmup
from chibit.data.text.synthetic import SYNTHETIC, SyntheticConfig
from chibit.data.text.tokens import TokenDataset
from chibit.models.gpt import SIZES as SHAPES
from chibit.models.gpt import GPTConfig

SIZES = {"chibit": GPTConfig(), **{name: GPTConfig(**vars(shape)) for name, shape in SHAPES.items()}}
"""Backbones by the count of their blocks' parameters: ChibiT, and Table 9 of Reid et al. (2022)."""
_USUAL_TOKENS, _FACTOR = 8_192, 2.0
"""Tokens of a micro-batch on a CPU; what a step takes of a GPU over the bound from below (docs/log.md)."""
DRAWN = tuple(kind for kind in SYNTHETIC if kind != "shuffled_text")
"""Corpora that are made of nothing."""


def _decides_tokens(config: PretrainConfig, corpus: TokenDataset) -> bool:
    return bool(corpus.provenance.get("tokenizer", config.tokenizer) == config.tokenizer)


def _has(*corpora: str) -> Callable[[PretrainConfig], bool]:
    return lambda config: config.corpus in corpora or config.validation in corpora


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(Checked):
    """A pre-training run. Defaults: section 4.1 of Reid et al. (2022); what it leaves open is marked."""

    corpus: Annotated[str, BASIC, Group("text")] = "wikitext-103"
    """Text or a synthetic corpus; wikitext-103, wikitext-2, a file or folder of text, a folder of token
    shards, a corpus that was built before, or iid, markov, ngram, dyck, automaton, shuffled_text."""
    validation: str | None = None
    """Held-out text, as `corpus`. None takes WikiText-103's validation set for wikitext-103, and else holds
    back the end of the corpus."""
    tokenizer: Annotated[
        str,
        Needs("a corpus of text", lambda config: config.reads_text),
        NeedsData("a corpus that is not built yet", _decides_tokens),
        BASIC,
    ] = "gpt2"
    """gpt2 or bpe:N; the latter trains a vocabulary of N tokens on the corpus."""
    text: Annotated[str | None, Needs("corpus shuffled_text", _has("shuffled_text"))] = None
    """The text that shuffled_text shuffles, as `corpus`."""
    synthetic: Annotated[
        SyntheticConfig,
        Needs("a synthetic corpus", _has(*SYNTHETIC)),
        Needs("corpus markov or ngram", _has("markov", "ngram"), of=("order", "temperature")),
        Needs("a corpus that is drawn", _has(*DRAWN), of=("num_states", "num_sequences")),
    ] = field(default_factory=SyntheticConfig)
    """Shape of a synthetic corpus."""
    gpt: Annotated[GPTConfig, Group("model")] = field(default_factory=GPTConfig)
    """The backbone; --size chibit, 3M, 18M or 84M sets all of it."""
    n_positions: Annotated[int, Interval(ge=2)] = 1024
    """Rows of the position table."""
    initializer: Annotated[str | None, Was("init"), BASIC] = None
    """Language model to go on from; its folder, or its run's. Its optimizer state is not kept. None draws
    one."""
    block_length: Annotated[Count, Group("batches")] = 1024
    """Tokens of a block. Shorter blocks start at a random position, so that every position is trained."""
    batch_tokens: Annotated[Count, BASIC] = 65_536
    """Tokens of a gradient step; over all micro-batches and processes."""
    micro_batch_tokens: Count | None = None
    """Tokens that go through the model at a time in each process; decides the memory. None is 8,192, and on a
    CUDA device as many as fit."""
    num_candidates: Natural = 0
    """Words that the softmax's normalizer is estimated from; 0 is the exact softmax over the vocabulary."""
    num_steps: Annotated[Count, BASIC, Group("optimization")] = 80_000
    """Gradient steps."""
    learning_rate: Annotated[Positive, BASIC] = 3e-4
    """Highest learning rate of AdamW."""
    warmup_steps: Natural = 10_000
    """Steps of linear warm-up."""
    decay: Literal["linear", "cosine", "constant"] = "linear"
    """What follows the warm-up (the paper does not say; linear as in Wang et al. 2024)."""
    final_fraction: Annotated[Fraction, Needs("a decay", lambda config: config.decay != "constant")] = 0.0
    """Where the decay ends, as a fraction of the highest learning rate."""
    weight_decay: NonNegative = 0.01
    """Of matrices (the paper does not say; 0.01 as in Wang et al. 2024)."""
    adam_betas: Annotated[tuple[BelowOne, BelowOne], WasSecond("beta2", first=0.9)] = (0.9, 0.999)
    """AdamW's decay of the first and of the second moment (the paper does not say)."""
    grad_clip: Annotated[Positive, Was("max_gradient_norm")] = 1.0
    """Gradients are scaled down to this norm (the paper does not say)."""
    evaluate_every: Annotated[Natural, Group("evaluation")] = 2_000
    """Gradient steps between evaluations on held-out text; 0 evaluates only at the end."""
    validation_tokens: Annotated[Count, Needs("evaluate_every", lambda c: c.evaluate_every > 0)] = 65_536
    """Held-out tokens of an evaluation on the way; the last one reads all of them."""
    sample_tokens: Natural = 48
    """Tokens of text to generate at each evaluation; 0 for none."""
    checkpoint_every: Annotated[Natural, Group("output")] = 0
    """Gradient steps between checkpoints; 0 saves at each evaluation and at the end."""
    log_every: Count = 50
    """Gradient steps between lines of metrics.jsonl; each is the mean since the line before."""
    seed: Annotated[Natural, BASIC, Group("machine")] = 0
    """Seed of initialization and blocks; of positions and dropout too."""
    precision: Annotated[Precision, BASIC] = "fp32"
    """bf16: faster on recent processors; the forward pass runs in bfloat16 autocast, more than twice as fast
    as in fp32. tf32 rounds the factors of matrix products on a CUDA GPU."""
    device: str = "auto"
    """auto (CUDA where there is one), cpu, cuda, cuda:N or mps."""
    num_threads: Workers = 1
    """Threads inside one operation on the CPU."""
    compile: bool = False
    """Compile the backbone. It pays on GPUs; on CPUs it was measured to be a third slower."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.block_length > self.n_positions:
            raise InputError(
                f"block_length: got {self.block_length}, expected at most n_positions = {self.n_positions}"
            )
        for name, tokens in (
            ("batch_tokens", self.batch_tokens),
            ("micro_batch_tokens", self.micro_batch_tokens or 0),
        ):
            if tokens % self.block_length:
                raise InputError(
                    f"{name}: got {tokens}, expected a multiple of block_length, which is {self.block_length}"
                )
        if self.num_candidates == 1:
            raise InputError("num_candidates: got 1, expected 0 for the exact softmax, or at least 2")

    @property
    def reads_text(self) -> bool:
        """Whether any of its tokens come from text."""
        return self.corpus not in DRAWN or (self.validation or self.corpus) not in DRAWN

    @property
    def batch_size(self) -> int:
        """Blocks of a gradient step."""
        return self.batch_tokens // self.block_length

    def evaluates_at(self, step: int) -> bool:
        """Whether an evaluation follows a gradient step: each `evaluate_every`-th, and the last one."""
        return step == self.num_steps or (self.evaluate_every > 0 and step % self.evaluate_every == 0)

    def micro_batch(self, room: int = 0) -> int:
        """Tokens that go through the model at a time, more than usual where `room` bytes are free."""
        if self.micro_batch_tokens is not None:
            return self.micro_batch_tokens
        tokens = max(1, min(_USUAL_TOKENS, self.batch_tokens) // self.block_length) * self.block_length
        while 2 * tokens <= self.batch_tokens and _FACTOR * self.num_bytes(2 * tokens) <= room:
            tokens *= 2
        return tokens

    def num_bytes(self, micro_batch: int | None = None) -> int:
        """What training will take, from below, without the tables of a vocabulary that is not known yet."""
        tokens = self.micro_batch() if micro_batch is None else micro_batch
        batches = [(max(1, tokens // self.block_length), self.block_length)]
        return self.gpt.num_bytes(table_rows=self.n_positions, batches=batches)

    def learning_rate_at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        if self.decay == "constant":
            factor = warmup(step, self.warmup_steps)
        elif self.decay == "linear":
            factor = linear_decay(step, self.num_steps, self.warmup_steps)
        else:
            factor = cosine_decay(step, self.num_steps, self.warmup_steps)
        if step >= self.warmup_steps:
            factor = self.final_fraction + (1.0 - self.final_fraction) * factor
        return self.learning_rate * factor


def pretrain_path(config: PretrainConfig, root: Path, study: str) -> Path:
    """Where a run lives: ``root/study/<corpus>-s<seed>-<hash>``; see `core.run_dir.run_folder`."""
    readable = "".join(c if c.isalnum() or c in "._-" else "-" for c in Path(config.corpus).name)
    name = readable[:60].strip(".-") or "corpus"
    usual = {"device": "auto", "num_threads": 1, "compile": False, "log_every": 50, "checkpoint_every": 0}
    usual["micro_batch_tokens"] = None
    return run_folder(root / check_name(study, "study"), f"{name}-s{config.seed}", to_json(config), usual)

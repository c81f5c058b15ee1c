"""What a pre-training run reads: its corpus, its held-out text, and the loss on that."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from chibit.core.errors import InputError
from chibit.core.files import user_path
from chibit.core.runtime import Runtime, evaluating
from chibit.data.text.corpus import load_corpus
from chibit.data.text.sources import HUB_CORPORA
from chibit.data.text.synthetic import SYNTHETIC, load_synthetic
from chibit.data.text.tokens import TokenDataset
from chibit.models.language_model import LanguageModel
from chibit.training.pretrain.config import PretrainConfig

_HELD_BACK = 0.02
_MOST_HELD_BACK = 250_000
"""Tokens; WikiText-103's validation set has as many."""


@dataclass(frozen=True)
class PretrainData:
    """Text to learn from and text to be judged on."""

    train: TokenDataset
    held_out: np.ndarray
    """(n,) tokens, in order."""
    held_out_name: str
    """What they are."""

    @cached_property
    def held_out_hash(self) -> str:
        """SHA-256 of the held-out tokens."""
        return hashlib.sha256(np.ascontiguousarray(self.held_out).data).hexdigest()


def is_gone(name: str) -> bool:
    """Whether a text is a file or folder that is not here any more."""
    return name not in {*SYNTHETIC, *HUB_CORPORA} and not user_path(name).exists()


def load_pretrain_data(config: PretrainConfig, *, progress: bool) -> PretrainData:
    """Open a run's corpus and its held-out text, building what is not built yet.

    Raises:
        UserError: for an unknown, empty or damaged corpus, or one too short; see `chibit.data.text.corpus`.
    """
    corpus = _load(config.corpus, config, progress)
    validation = config.validation
    if validation is None and config.corpus == "wikitext-103" and corpus.tokenizer != "bpe":
        validation = "wikitext-103-validation"
    if validation is not None:
        held_out = _load_validation(validation, corpus, config, progress)
        return PretrainData(corpus, np.asarray(held_out.tokens), validation)
    num_last = min(_MOST_HELD_BACK, max(config.block_length + 1, int(_HELD_BACK * len(corpus))))
    if len(corpus) - num_last <= config.block_length:
        raise InputError(
            f"{config.corpus}: holds {len(corpus)} tokens, expected more than two blocks of "
            f"{config.block_length}; give more text or a shorter block"
        )
    train, last = corpus.split(num_last)
    return PretrainData(train, np.asarray(last.tokens), f"the last {num_last} tokens of {config.corpus}")


def _load(name: str, config: PretrainConfig, progress: bool) -> TokenDataset:
    if name not in SYNTHETIC:
        return load_corpus(name, tokenizer=config.tokenizer, progress=progress)
    text = None
    if name == "shuffled_text" and config.text is not None:
        text = load_corpus(config.text, tokenizer=config.tokenizer, progress=progress)
    return load_synthetic(name, config.synthetic, text=text)  # type: ignore[arg-type]


def _load_validation(name: str, corpus: TokenDataset, config: PretrainConfig, progress: bool) -> TokenDataset:
    if corpus.tokenizer == "bpe":
        raise InputError(
            f"validation: got {name!r}, but the corpus has a vocabulary of its own; leave validation out, "
            "and the end of the corpus is held back"
        )
    held_out = _load(name, config, progress)
    if held_out.vocab_size != corpus.vocab_size or held_out.tokenizer != corpus.tokenizer:
        raise InputError(
            f"validation: {name} has {held_out.vocab_size} different tokens, the corpus {corpus.vocab_size}; "
            "both must have one vocabulary"
        )
    return held_out


def held_out_loss(
    model: LanguageModel, tokens: np.ndarray, runtime: Runtime, *, block_length: int, micro_batch_tokens: int
) -> float:
    """Mean negative log-likelihood in nats for each token, in consecutive blocks with no context before them.

    Args:
        model: put into evaluation mode for the while.
        tokens: (n,) integers, at least 2; the first is only read.
        runtime: device and precision.
        block_length: tokens of a block, at most the model's positions.
        micro_batch_tokens: tokens that go through the model at a time.
    """
    total, count = 0.0, 0
    for blocks in _blocks(tokens, block_length, max(1, micro_batch_tokens // block_length)):
        with evaluating(model), runtime.autocast():
            loss = model.loss(torch.from_numpy(blocks.astype(np.int64)).to(runtime.torch_device))
        size = blocks.shape[0] * (blocks.shape[1] - 1)
        total, count = total + loss.item() * size, count + size
    return total / count


def _blocks(tokens: np.ndarray, length: int, rows: int) -> list[np.ndarray]:
    """(rows, length + 1) blocks that overlap by one token, and a shorter last one."""
    num_whole = (len(tokens) - 1) // length
    window = np.arange(length + 1)
    starts = np.arange(num_whole) * length
    batches = [tokens[starts[i : i + rows, None] + window] for i in range(0, num_whole, rows)]
    rest = tokens[num_whole * length :]
    return [*batches, rest[None]] if len(rest) > 1 else batches


def unigram_loss(counts: np.ndarray, tokens: np.ndarray) -> float:
    """Mean negative log-likelihood under the corpus's own frequencies, one count added to each token.

    Args:
        counts: (V,) occurrences in the corpus.
        tokens: (n,) tokens; the first is left out, as no model is asked for it.
    """
    smoothed = counts + 1.0
    return float(-np.log(smoothed / smoothed.sum())[tokens[1:]].mean())

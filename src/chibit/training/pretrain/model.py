"""The model, the optimizer and the sample texts of a pre-training run."""

from __future__ import annotations

import torch

from chibit.core.errors import InputError
from chibit.core.files import user_path
from chibit.core.runtime import evaluating
from chibit.data.text.corpus import corpus_tokenizer
from chibit.data.text.tokens import TokenDataset
from chibit.models.initializers import find_language_model
from chibit.models.language_model import LanguageModel, LanguageModelConfig, load_language_model
from chibit.training.pretrain.config import PretrainConfig
from chibit.training.workers import Workers


def check_sizes(config: PretrainConfig, vocab_size: int, workers: Workers) -> None:
    """Refuse a vocabulary or a number of processes that the configuration does not fit."""
    if config.num_candidates > vocab_size:
        raise InputError(
            f"num_candidates: got {config.num_candidates}, expected at most the vocabulary, {vocab_size}"
        )
    if config.batch_size % workers.size:
        raise InputError(
            f"batch_tokens: {config.batch_size} blocks cannot be shared by {workers.size} processes; "
            "choose a multiple"
        )


def make_language_model(config: PretrainConfig, vocab_size: int) -> LanguageModel:
    """Draw a run's model, or load the one it goes on from.

    Raises:
        InputError: when the loaded model has another vocabulary or too few positions.
    """
    if config.initializer is None:
        return LanguageModel(
            LanguageModelConfig(gpt=config.gpt, vocab_size=vocab_size, n_positions=config.n_positions)
        )
    model = load_language_model(find_language_model(user_path(config.initializer)))
    for name, found, wanted in (
        ("tokens", model.config.vocab_size, vocab_size),
        ("positions", model.config.n_positions, config.n_positions),
        ("backbone", model.config.gpt, config.gpt),
    ):
        if found != wanted:
            raise InputError(f"initializer: {config.initializer} has {name} {found}, this run has {wanted}")
    return model


def make_optimizer(model: LanguageModel, config: PretrainConfig) -> torch.optim.AdamW:
    """AdamW whose weight decay leaves biases and norms alone."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.adam_betas, fused=True)


def sample_text(model: LanguageModel, corpus: TokenDataset, num_tokens: int, *, seed: int) -> str:
    """Some text or some tokens of the model's own, at temperature 1; empty for no tokens."""
    if not num_tokens:
        return ""
    tokenizer = corpus_tokenizer(corpus)
    device = model.tokens.weight.device
    first = int(corpus.tokens[0]) if tokenizer is None else tokenizer.end_of_text
    start, generator = torch.tensor([[first]], device=device), torch.Generator(device).manual_seed(seed)
    with evaluating(model):
        tokens = model.generate(start, num_tokens, generator=generator)[0, 1:].tolist()
    return " ".join(map(str, tokens)) if tokenizer is None else tokenizer.decode(tokens)

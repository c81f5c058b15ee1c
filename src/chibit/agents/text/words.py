"""Whose words are read: how a text becomes tokens, the vectors of these, and features of whole texts.

Dimensions: M texts · L tokens · V vocabulary · E width of the words · F features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from chibit.core.errors import InputError
from chibit.core.runtime import evaluating
from chibit.data.text.tokenizer import GPT2_VOCAB_SIZE, load_gpt2_tokenizer
from chibit.models.huggingface import HuggingFaceLanguageModel, load_tokenizer
from chibit.models.initializers import Pretrained, load_initializer
from chibit.models.instructed import PADDING
from chibit.models.language_model import LanguageModel

_SPREAD = 0.02
"""Of the word embeddings of an untrained language model."""
_MATCHED = "random_matched"


@dataclass(frozen=True)
class Words:
    """A vocabulary and its vectors."""

    name: str
    """Of the initializer."""
    tokenize: Callable[[str], Sequence[int]]
    """A text's tokens, as it stands in running text: with a space before it and no end."""
    table: Tensor
    """(V, E)."""
    positions: Tensor | None
    """(P, E) vectors of the places in a text; None where the model brings its own."""
    model: LanguageModel | HuggingFaceLanguageModel | None
    """The language model around them; None for random words."""

    def tokens(self, texts: Sequence[str], most: int) -> Tensor:
        """(M, L) int64 tokens of texts, padded on the left to the longest.

        Raises:
            InputError: for a text of more than `most` tokens.
        """
        rows = [list(self.tokenize(f" {text}" if text else "")) for text in texts]
        for text, row in zip(texts, rows, strict=True):
            if len(row) > most:
                raise InputError(
                    f"the mission {text[:60]!r} has {len(row)} tokens, expected at most {most}; raise "
                    "text_length"
                )
        length = max(1, *map(len, rows)) if rows else 1
        return torch.tensor([[PADDING] * (length - len(row)) + row for row in rows])

    def features(self, texts: Sequence[str], layer: int | None) -> Tensor:
        """(M, F) mean hidden states of texts, in a layer of the language model, see `hidden_states`.

        The first token is left out where there are others: in models of Llama's kind it draws attention
        without meaning anything, and its vector is much longer than all others.
        """
        found = []
        for text in texts:
            states = hidden_states(self, text or ".", layer)
            found.append(states[1:].mean(0) if len(states) > 1 else states[0])
        return torch.stack(found)


def load_words(name: str, width: int) -> Words:
    """Load the words of an initializer; those of `random` are drawn anew, of a width.

    Raises:
        InputError: if it has none, or none that text is written in.
    """
    if name == "random":
        tokenizer = load_gpt2_tokenizer()
        draw = torch.Generator().manual_seed(int(torch.randint(2**31, ())))
        table, positions = (
            _SPREAD * torch.randn(rows, width, generator=draw) for rows in (GPT2_VOCAB_SIZE, 1024)
        )
        return Words(name, lambda text: tokenizer.encode(text).tolist(), table, positions, None)
    return words_of(load_initializer(name), name)


def words_of(pretrained: Pretrained, name: str) -> Words:
    """The words of a loaded initializer; raises as `load_words`."""
    model, table = pretrained.language_model, pretrained.token_embeddings
    if model is None or table is None:
        raise InputError(
            f"initializer {name!r} has no words to read; use random, chibit, gpt2, hf:ID, or words of another"
        )
    if isinstance(model, HuggingFaceLanguageModel):
        encode = load_tokenizer(name.removeprefix(f"{_MATCHED}:").removeprefix("hf:"))
        return Words(name, encode, table.float(), None, model)
    if len(table) != GPT2_VOCAB_SIZE:
        raise InputError(
            f"initializer {name!r} has {len(table)} words of its own, in which no mission is written; use "
            "random, chibit, gpt2 or hf:ID, or words of another"
        )
    tokenizer = load_gpt2_tokenizer()
    positions = pretrained.position_embeddings
    return Words(name, lambda text: tokenizer.encode(text).tolist(), table.float(), positions, model)


@torch.no_grad()
def hidden_states(words: Words, text: str, layer: int | None = None) -> Tensor:
    """(L, F) hidden states of the tokens of a text.

    Args:
        words: whose language model reads it.
        text: not empty.
        layer: blocks that they are taken after; None is two fifths of them, in the package's own models all.

    Raises:
        InputError: for a layer that is not there, or words without a language model.
    """
    model = words.model
    if model is None:
        raise InputError(f"{words.name}: has no language model to read with; use chibit, gpt2 or hf:ID")
    ids = torch.tensor([list(words.tokenize(f" {text}"))])
    with evaluating(model):
        if isinstance(model, HuggingFaceLanguageModel):
            states = model.hidden_states(ids)
            number = len(states) - 1
            chosen = (number * 2) // 5 if layer is None else layer
            if chosen > number:
                raise InputError(f"text_layer: got {layer}, but {words.name} has {number} layers")
            return states[chosen][0].float()
        blocks = len(model.gpt.blocks)
        if layer not in (None, blocks):
            raise InputError(
                f"text_layer: got {layer}, expected {blocks}, the last of {words.name}; leave it out"
            )
        hidden: Tensor = model(ids)
        return hidden[0]

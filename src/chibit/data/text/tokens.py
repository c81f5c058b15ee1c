"""Text as tokens: a flat file of 16-bit ids that opens as a memory map, and blocks drawn from it.

    tokens.u16       (N,) uint16 little-endian, documents end to end
    tokenizer.json   the vocabulary, where the corpus has one of its own
    manifest.json    schema, counts, SHA-256 of both files, where the text came from

A corpus is written once, whole or not at all, and never changed. Any number of processes share the pages
of one copy.

Dimensions: B batch · T tokens in a block.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from chibit.core.config import read_json
from chibit.core.errors import DamagedFileError, InputError
from chibit.core.files import atomic_folder, create, open_regular, sha256_file, write_atomic
from chibit.data.samplers.base import check_sizes, restore_generator

SCHEMA = 1
MANIFEST, TOKENS, TOKENIZER = "manifest.json", "tokens.u16", "tokenizer.json"
MAX_VOCAB_SIZE = 1 << 16
_REMEDY = "remove the folder and build the corpus again"


@dataclass(frozen=True)
class TokenBatch:
    """B blocks of T + 1 tokens: a model reads the first T of each and is asked for the last T."""

    tokens: Tensor
    """(B, T + 1) int64."""
    starts: np.ndarray
    """(B,) int64 where in the corpus each block begins."""


@dataclass(frozen=True)
class TokenDataset:
    """A corpus of tokens, opened read-only."""

    folder: Path
    """Where it lies."""
    tokens: np.ndarray
    """(N,) uint16, memory-mapped."""
    vocab_size: int
    """Number of different tokens there can be; every token is below it."""
    tokenizer: str | None
    """"gpt2", "bpe" (the corpus's own, in its folder), or None where tokens are no text."""
    num_documents: int
    """Articles, files or sequences it was made of."""
    content_hash: str
    """SHA-256 of the tokens."""
    provenance: Mapping[str, Any]
    """Where the text came from."""

    def __len__(self) -> int:
        return len(self.tokens)

    def split(self, num_last: int) -> tuple[TokenDataset, TokenDataset]:
        """All but the last tokens, and the last `num_last` of them; 1 <= num_last < len."""
        return replace(self, tokens=self.tokens[:-num_last]), replace(self, tokens=self.tokens[-num_last:])

    def counts(self) -> np.ndarray:
        """(V,) int64 occurrences of each token."""
        total = np.zeros(self.vocab_size, np.int64)
        for start in range(0, len(self.tokens), 1 << 22):
            total += np.bincount(self.tokens[start : start + (1 << 22)], minlength=self.vocab_size)
        return total


class TokenWriter:
    """Appends tokens to a corpus that is being written."""

    def __init__(self, file: IO[bytes], vocab_size: int) -> None:
        self._file = file
        self._vocab_size = vocab_size
        self.num_tokens = 0
        self.num_documents = 0

    def write(self, tokens: np.ndarray) -> None:
        """Append (n,) integers, each at least 0 and below the vocabulary's size.

        Raises:
            InputError: for a token that is not in the vocabulary.
        """
        if len(tokens) and int(tokens.max()) >= self._vocab_size:
            raise InputError(
                f"a token is {int(tokens.max())}, expected less than the vocabulary's size {self._vocab_size}"
            )
        self._file.write(np.ascontiguousarray(tokens, dtype="<u2").data)
        self.num_tokens += len(tokens)


@contextlib.contextmanager
def write_corpus(
    folder: Path,
    *,
    vocab_size: int,
    tokenizer: str | None,
    provenance: Mapping[str, Any],
    own_vocabulary: str = "",
) -> Iterator[TokenWriter]:
    """Write a corpus; it appears under its name only when all of it is written.

    Args:
        folder: where it is to be; if another process finishes the same one first, its copy stays.
        vocab_size: from 1 to 65,536.
        tokenizer: what made the tokens; see `TokenDataset.tokenizer`.
        provenance: where the text came from, as JSON values.
        own_vocabulary: text of tokenizer.json, if the corpus has its own.

    Raises:
        InputError: for an empty corpus.
    """
    if not 1 <= vocab_size <= MAX_VOCAB_SIZE:
        raise InputError(f"vocab_size is {vocab_size}, expected 1 to {MAX_VOCAB_SIZE}")
    with atomic_folder(folder) as temporary:
        with create(temporary / TOKENS) as file:
            writer = TokenWriter(file, vocab_size)
            yield writer
        if not writer.num_tokens:
            raise InputError(
                f"{provenance.get('source', folder)}: holds no text, expected at least one token"
            )
        if own_vocabulary:
            write_atomic(temporary / TOKENIZER, own_vocabulary)
        manifest = {
            "schema": SCHEMA,
            "num_tokens": writer.num_tokens,
            "num_documents": writer.num_documents,
            "vocab_size": vocab_size,
            "tokenizer": tokenizer,
            "sha256": {path.name: sha256_file(path) for path in sorted(temporary.iterdir())},
            "provenance": dict(provenance),
        }
        write_atomic(temporary / MANIFEST, json.dumps(manifest, indent=1) + "\n")


def is_corpus(folder: Path) -> bool:
    """Whether a folder looks like a corpus that `write_corpus` wrote."""
    return (folder / MANIFEST).is_file() and (folder / TOKENS).is_file()


def open_corpus(folder: Path) -> TokenDataset:
    """Open a corpus read-only, after checking every byte (a second for each gigabyte).

    Raises:
        InputError: if the folder is not a corpus.
    """
    manifest = read_json(folder / MANIFEST, inside=folder)
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        raise DamagedFileError(
            f"{folder / MANIFEST}: not the manifest of a corpus of schema {SCHEMA}; {_REMEDY}"
        )
    try:
        hashes, num_tokens = dict(manifest["sha256"]), int(manifest["num_tokens"])
        names = {TOKENS, TOKENIZER} if manifest["tokenizer"] == "bpe" else {TOKENS}
        if set(hashes) != names:
            raise ValueError(f"files {sorted(hashes)}, expected {sorted(names)}")
        for name, expected in hashes.items():
            if sha256_file(folder / name, inside=folder) != expected:
                raise DamagedFileError(
                    f"{folder / name}: does not match the SHA-256 in its manifest; {_REMEDY}"
                )
        with open_regular(folder / TOKENS, inside=folder) as file:
            tokens = np.memmap(file, dtype="<u2", mode="r")
        if len(tokens) != num_tokens or int(tokens.max()) >= int(manifest["vocab_size"]):
            raise ValueError(f"{len(tokens)} tokens up to {int(tokens.max())}")
        return TokenDataset(
            folder=folder,
            tokens=tokens,
            vocab_size=int(manifest["vocab_size"]),
            tokenizer=manifest["tokenizer"],
            num_documents=int(manifest["num_documents"]),
            content_hash=hashes[TOKENS],
            provenance=manifest["provenance"],
        )
    except (KeyError, TypeError, ValueError, FileNotFoundError) as error:
        raise DamagedFileError(
            f"{folder / MANIFEST}: does not describe this folder ({error}); {_REMEDY}"
        ) from error


class TokenSampler:
    """Draws blocks in a shuffled order, each once before any comes again.

    Every pass through the corpus has its own shuffle and its own first token, so block boundaries move.
    """

    def __init__(
        self, dataset: TokenDataset, *, block_length: int, batch_size: int, generator: np.random.Generator
    ) -> None:
        """Prepare the draws.

        Args:
            dataset: what to draw from; its memory map is read as needed.
            block_length: T, at least 1.
            batch_size: B, at least 1.
            generator: source of all randomness; `state_dict` holds its state.

        Raises:
            InputError: if the corpus is shorter than a block and its last target.
        """
        check_sizes(block_length=block_length, batch_size=batch_size)
        if len(dataset) <= block_length:
            raise InputError(
                f"{dataset.folder}: holds {len(dataset)} tokens, expected more than {block_length}, a block; "
                "give more text or a shorter block"
            )
        self._tokens = np.asarray(dataset.tokens)  # a plain view: indexing np.memmap itself is slow
        self._window = np.arange(block_length + 1)
        self._batch_size = batch_size
        self._generator = generator
        self._begin_pass()

    def _begin_pass(self) -> None:
        length = len(self._window) - 1
        self._pass_start = dict(self._generator.bit_generator.state)
        spare = (len(self._tokens) - 1) % length
        first = int(self._generator.integers(0, spare + 1))
        self._order = first + length * self._generator.permutation((len(self._tokens) - 1) // length)
        self._next = 0

    def sample(self) -> TokenBatch:
        """Draw the next batch."""
        starts = np.empty(self._batch_size, np.int64)
        filled = 0
        while filled < self._batch_size:
            taken = self._order[self._next : self._next + self._batch_size - filled]
            starts[filled : filled + len(taken)] = taken
            filled += len(taken)
            self._next += len(taken)
            if self._next == len(self._order):
                self._begin_pass()
        blocks = self._tokens.take(starts[:, None] + self._window)  # (B, T + 1)
        return TokenBatch(torch.from_numpy(blocks.astype(np.int64)), starts)

    def state_dict(self) -> dict[str, Any]:
        """State of the generator at the start of this pass, and the place in it."""
        return {"generator": self._pass_start, "next": self._next}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state that `state_dict` gave."""
        restore_generator(self._generator, state)
        self._begin_pass()
        place = state.get("next")
        if not isinstance(place, int) or not 0 <= place < len(self._order):
            raise DamagedFileError(f"sampler state: place {place!r} is not one of {len(self._order)} blocks")
        self._next = place

"""Corpora without language: independent tokens, Markov chains, brackets, an automaton, shuffled words.

Wang et al. (2024) pre-train on them in place of Wikipedia. A chain's next token has logits drawn once
from U(0, 1) for each context and divided by a temperature; at temperature 1 the likeliest token is at
most e times as likely as the least. The logits are a hash of (seed, context, token), not a table, so a
chain may have any number of states and any order; tokens are drawn by rejection from the uniform
distribution.

Sources: Wang et al., "Pre-training with Synthetic Data Helps Offline Reinforcement Learning" (ICLR 2024).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, get_args

import numpy as np
from annotated_types import Interval

from chibit.core.config import Checked, to_json
from chibit.core.errors import InputError
from chibit.core.fields import Count, Natural
from chibit.data.resolve import home_folder
from chibit.data.text.tokens import MAX_VOCAB_SIZE, TokenDataset, is_corpus, open_corpus, write_corpus

Kind = Literal["iid", "markov", "ngram", "shuffled_text", "dyck", "automaton"]
SYNTHETIC: tuple[Kind, ...] = get_args(Kind)
MAX_DEPTH = 32
"""Brackets that are open at a time, at most, in `dyck`."""
RULE = 110
"""The elementary cellular automaton of `automaton`: the one that is known to compute anything (Cook 2004)."""
CELLS_PER_TOKEN, TOKENS_PER_STATE = 6, 16
"""Cells that a token of `automaton` shows, and tokens of a state: a ring of 96 cells."""
LOWEST_TEMPERATURE = 0.01
_ROWS = 4096
"""Sequences that are drawn side by side."""
_ROUNDS, _FEW_STATES = 32, 1024
_GENERATOR = 1
"""Raised when the same configuration would give other tokens."""


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig(Checked):
    """What a made-up corpus looks like. Defaults: the setting of Wang et al.'s main table."""

    num_states: Annotated[int, Interval(ge=2, le=MAX_VOCAB_SIZE)] = 100
    """Different tokens."""
    temperature: Annotated[float, Interval(ge=LOWEST_TEMPERATURE)] = 1.0
    """Divides the logits of a chain; a large one, such as 1e6, is the uniform distribution."""
    order: Annotated[int, Interval(ge=1, le=1024)] = 1
    """Tokens that the next one depends on; 1 for `markov`, 2 to 5 for `ngram` in Wang et al."""
    num_sequences: Count = 16_000
    """Sequences; Wang et al. have 128,000."""
    sequence_length: Count = 1024
    """Tokens in each."""
    corpus_seed: Natural = 0
    """Of the chain and of the draws from it."""


class MarkovChain:
    """A chain over `num_states` tokens whose next token depends on the last `order` ones."""

    def __init__(self, config: SyntheticConfig) -> None:
        self.config = config
        self._salt = int(_mix(np.array([config.corpus_seed], np.uint64) ^ np.uint64(0x9E3779B97F4A7C15))[0])

    def logits(self, contexts: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """Logits in [0, 1) of tokens after contexts, before the temperature.

        Args:
            contexts: (..., order) integers, oldest first; -1 stands for what is before the start.
            tokens: (...) integers.
        """
        with np.errstate(over="ignore"):  # numbers wrap at 2^64, as they are meant to
            state = np.full(contexts.shape[:-1], self._salt, np.uint64)
            for place in range(contexts.shape[-1]):
                state = _mix(state ^ (contexts[..., place].astype(np.int64) + 1).astype(np.uint64))
            state = _mix(state ^ (tokens.astype(np.uint64) << np.uint64(32)))
        return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def sample(self, num_sequences: int, generator: np.random.Generator) -> np.ndarray:
        """(num_sequences, sequence_length) uint16 tokens."""
        order, length = self.config.order, self.config.sequence_length
        drawn = np.full((num_sequences, order + length), -1, np.int64)
        for place in range(order, order + length):
            drawn[:, place] = self._next(drawn[:, place - order : place], generator)
        return drawn[:, order:].astype(np.uint16)

    def _next(self, contexts: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """One next token for each context: proposed uniformly, kept with probability e^((logit - 1) / T).

        Where all logits of a few states are low, that would take forever: after some rounds, what is still
        open is drawn from the distribution itself. Both ways draw from the same one.
        """
        tokens = np.empty(len(contexts), np.int64)
        waiting = np.arange(len(contexts))
        rounds = 0
        while len(waiting):
            if rounds == _ROUNDS and self.config.num_states <= _FEW_STATES:
                tokens[waiting] = self._next_exactly(contexts[waiting], generator)
                break
            rounds += 1
            proposal = generator.integers(0, self.config.num_states, len(waiting))
            excess = (self.logits(contexts[waiting], proposal) - 1.0) / self.config.temperature
            kept = generator.random(len(waiting)) < np.exp(excess)
            tokens[waiting[kept]] = proposal[kept]
            waiting = waiting[~kept]
        return tokens

    def _next_exactly(self, contexts: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """The same by the distribution function; it costs `num_states` logits for each token."""
        states = np.arange(self.config.num_states)
        logits = self.logits(
            contexts[:, None].repeat(len(states), axis=1), np.tile(states, (len(contexts), 1))
        )
        weights = np.exp((logits - logits.max(1, keepdims=True)) / self.config.temperature).cumsum(1)
        points = generator.random((len(contexts), 1)) * weights[:, -1:]
        return (weights <= points).sum(1).clip(max=len(states) - 1)


def _mix(x: np.ndarray) -> np.ndarray:
    """Scramble 64-bit numbers one to one (the finalizer of SplitMix64, Steele et al. 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def sample_dyck(config: SyntheticConfig, num_sequences: int, generator: np.random.Generator) -> np.ndarray:
    """Nested brackets of `num_states // 2` types: token 2k opens a pair of type k, token 2k + 1 closes it.

    Where brackets are open, the next token closes the last one with probability 1/2, so that what comes next
    depends on a token any distance back; else it opens one of a type drawn uniformly. Brackets that are open
    at the end of a sequence stay open.

    Source: the nested dependencies of Papadimitriou and Jurafsky, "Injecting structural hints" (2023).

    Returns:
        (num_sequences, sequence_length) uint16 tokens.
    """
    tokens = np.empty((num_sequences, config.sequence_length), np.uint16)
    stack = np.zeros((num_sequences, MAX_DEPTH), np.int64)
    depth = np.zeros(num_sequences, np.int64)
    rows = np.arange(num_sequences)
    for place in range(config.sequence_length):
        closes = (depth > 0) & ((generator.random(num_sequences) < 0.5) | (depth == MAX_DEPTH))
        types = generator.integers(0, config.num_states // 2, num_sequences)
        depth -= closes
        last = stack[rows, np.minimum(depth, MAX_DEPTH - 1)]
        tokens[:, place] = np.where(closes, 2 * last + 1, 2 * types)
        opened = ~closes
        stack[rows[opened], depth[opened]] = types[opened]
        depth += opened
    return tokens


def sample_automaton(
    config: SyntheticConfig, num_sequences: int, generator: np.random.Generator
) -> np.ndarray:
    """States of a cellular automaton on a ring, one after the other, from a random first one.

    A token shows six neighboring cells, 64 different ones in all; each is decided by three tokens of the
    state before it, 15 to 17 places back.

    Source: rule 110 as in Zhang et al., "Intelligence at the Edge of Chaos" (2025).

    Returns:
        (num_sequences, sequence_length) uint16 tokens.
    """
    num_states = -(-config.sequence_length // TOKENS_PER_STATE)
    cells = generator.integers(0, 2, (num_sequences, CELLS_PER_TOKEN * TOKENS_PER_STATE), dtype=np.uint8)
    weights = 1 << np.arange(CELLS_PER_TOKEN)[::-1]
    table = (RULE >> np.arange(8)) & 1
    tokens = np.empty((num_sequences, num_states, TOKENS_PER_STATE), np.uint16)
    for state in range(num_states):
        tokens[:, state] = cells.reshape(num_sequences, TOKENS_PER_STATE, CELLS_PER_TOKEN) @ weights
        neighborhoods = 4 * np.roll(cells, 1, axis=1) + 2 * cells + np.roll(cells, -1, axis=1)
        cells = table[neighborhoods].astype(np.uint8)
    return tokens.reshape(num_sequences, -1)[:, : config.sequence_length]


def _sampler(kind: Kind, config: SyntheticConfig) -> Callable[[int, np.random.Generator], np.ndarray]:
    """What draws sequences of a kind that is made of nothing: (num_sequences, sequence_length) tokens."""
    if kind == "iid":
        length = config.sequence_length
        return lambda rows, generator: generator.integers(0, config.num_states, (rows, length))
    if kind in ("markov", "ngram"):
        return MarkovChain(config).sample
    return partial(sample_dyck if kind == "dyck" else sample_automaton, config)


def build_synthetic(
    kind: Kind,
    config: SyntheticConfig,
    out: Path,
    *,
    text: TokenDataset | None = None,
) -> TokenDataset:
    """Make up a corpus, or open the one that is at `out`.

    Args:
        kind: `iid` draws tokens uniformly and independently, `markov` and `ngram` from a chain of the
            configured order, `shuffled_text` permutes the tokens of each sequence of a text, and `dyck` and
            `automaton` are as `sample_dyck` and `sample_automaton` say.
        config: its shape; `shuffled_text` takes only `sequence_length` and `corpus_seed` from it, `automaton`
            also `num_sequences` and enough `num_states` for its 64 tokens.
        out: folder of the corpus; it appears only when it is whole.
        text: the text to shuffle.
    """
    if kind not in SYNTHETIC:
        raise InputError(f"synthetic corpus {kind!r}: expected one of {', '.join(SYNTHETIC)}")
    if kind == "ngram" and config.order < 2:
        raise InputError(f"order is {config.order}, expected at least 2 for ngram; markov has order 1")
    if kind == "dyck" and config.num_states % 2:
        raise InputError(f"num_states is {config.num_states}, expected an even number for dyck's pairs")
    if kind == "automaton" and config.num_states < 1 << CELLS_PER_TOKEN:
        raise InputError(f"num_states is {config.num_states}, expected at least 64 for automaton")
    if is_corpus(out):
        return open_corpus(out)
    generator = np.random.default_rng([config.corpus_seed, SYNTHETIC.index(kind)])
    provenance: dict[str, object] = {"kind": kind, "source": kind, "config": to_json(config)}
    if kind == "shuffled_text":
        if text is None:
            raise InputError("shuffled_text: needs a text to shuffle; give one with --text")
        return _shuffle(text, config.sequence_length, generator, out, provenance)
    sample = _sampler(kind, config)
    with write_corpus(out, vocab_size=config.num_states, tokenizer=None, provenance=provenance) as writer:
        for start in range(0, config.num_sequences, _ROWS):
            rows = min(_ROWS, config.num_sequences - start)
            writer.write(sample(rows, generator).reshape(-1))
            writer.num_documents += rows
    return open_corpus(out)


def load_synthetic(
    kind: Kind,
    config: SyntheticConfig,
    *,
    text: TokenDataset | None = None,
    cache: Path | None = None,
) -> TokenDataset:
    """Open a made-up corpus, after making it in the cache if need be; see `build_synthetic`."""
    key = json.dumps([_GENERATOR, kind, to_json(config), None if text is None else text.content_hash])
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    return build_synthetic(kind, config, home_folder(cache) / "corpora" / f"{kind}-{digest}", text=text)


def _shuffle(
    text: TokenDataset, length: int, generator: np.random.Generator, out: Path, provenance: dict[str, object]
) -> TokenDataset:
    if len(text) < length:
        raise InputError(
            f"{text.folder}: holds {len(text)} tokens, expected at least one sequence of {length}"
        )
    source = {"text": text.content_hash, "tokenizer": text.tokenizer, **provenance}
    with write_corpus(out, vocab_size=text.vocab_size, tokenizer=None, provenance=source) as writer:
        whole = len(text) // length * length
        step = max(1, (1 << 20) // length) * length
        for start in range(0, whole, step):
            rows = np.array(text.tokens[start : min(start + step, whole)]).reshape(-1, length)
            writer.write(generator.permuted(rows, axis=1).reshape(-1))
            writer.num_documents += len(rows)
    return open_corpus(out)

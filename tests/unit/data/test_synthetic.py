"""Synthetic corpora: their distributions, by numbers worked out by hand."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chibit.core.errors import InputError
from chibit.data.text.synthetic import (
    MAX_DEPTH,
    Kind,
    MarkovChain,
    SyntheticConfig,
    build_synthetic,
    load_synthetic,
    sample_automaton,
    sample_dyck,
)
from chibit.data.text.tokens import write_corpus

SMALL = SyntheticConfig(num_states=5, num_sequences=500, sequence_length=200)


def probabilities(chain: MarkovChain, context: tuple[int, ...]) -> np.ndarray:
    """(num_states,) distribution of the next token after one context."""
    tokens = np.arange(chain.config.num_states)
    logits = chain.logits(np.broadcast_to(np.array(context), (len(tokens), len(context))), tokens)
    weights = np.exp((logits - logits.max()) / chain.config.temperature)
    return weights / weights.sum()


def transition_matrix(chain: MarkovChain) -> np.ndarray:
    return np.stack([probabilities(chain, (state,)) for state in range(chain.config.num_states)])


def test_probabilities_are_the_softmax_of_uniform_logits() -> None:
    chain = MarkovChain(SyntheticConfig(num_states=50))
    matrix = transition_matrix(chain)
    np.testing.assert_allclose(matrix.sum(1), 1.0)
    # Logits are between 0 and 1, so no token is more than e times as likely as another.
    ratio = matrix.max(1) / matrix.min(1)
    assert ratio.max() < math.e
    assert ratio.min() > math.exp(0.8)
    logits = chain.logits(np.arange(50)[:, None, None].repeat(50, 1), np.arange(50)[None].repeat(50, 0))
    # A uniform variable: mean 1/2, variance 1/12; 2500 of them.
    assert logits.mean() == pytest.approx(0.5, abs=5 * math.sqrt(1 / 12 / 2500))
    assert logits.var() == pytest.approx(1 / 12, rel=0.1)
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(matrix, expected)


def test_entropy_is_the_one_worked_out_by_hand() -> None:
    # With U uniform on (0, 1): E[e^U] = e - 1 and E[U e^U] = 1, so a row's divergence from the uniform
    # distribution tends to 1 / (e - 1) - ln(e - 1) = 0.04066 nats.
    chain = MarkovChain(SyntheticConfig(num_states=200))
    matrix = transition_matrix(chain)
    entropy = -(matrix * np.log(matrix)).sum(1).mean()
    divergence = 1 / (math.e - 1) - math.log(math.e - 1)
    assert divergence == pytest.approx(0.04066, abs=1e-5)
    assert math.log(200) - entropy == pytest.approx(divergence, abs=0.001)


@pytest.mark.parametrize("temperature", [0.1, 1.0, 10.0, 1e30])
def test_samples_follow_the_transition_matrix(temperature: float) -> None:
    config = SyntheticConfig(num_states=5, temperature=temperature, sequence_length=300)
    chain = MarkovChain(config)
    tokens = chain.sample(400, np.random.default_rng(0)).astype(np.int64)
    assert tokens.shape == (400, 300)
    counts = np.zeros((5, 5))
    np.add.at(counts, (tokens[:, :-1].ravel(), tokens[:, 1:].ravel()), 1)
    matrix = transition_matrix(chain)
    if temperature == 1e30:
        np.testing.assert_allclose(matrix, 0.2)
    visits = counts.sum(1, keepdims=True)
    deviation = (counts - visits * matrix) / np.sqrt(visits * matrix * (1 - matrix) + 1e-9)
    assert np.abs(deviation).max() < 5
    start = np.bincount(tokens[:, 0], minlength=5) / 400
    expected = probabilities(chain, (-1,))
    assert np.abs(start - expected).max() < 5 * math.sqrt(0.25 / 400)


def test_chain_reaches_its_stationary_distribution() -> None:
    chain = MarkovChain(SyntheticConfig(num_states=5, temperature=0.3, sequence_length=400))
    matrix = transition_matrix(chain)
    values, vectors = np.linalg.eig(matrix.T)
    stationary = np.real(vectors[:, np.argmax(np.real(values))])
    stationary /= stationary.sum()
    np.testing.assert_allclose(stationary @ matrix, stationary, atol=1e-12)
    tokens = chain.sample(500, np.random.default_rng(1))
    for half in (tokens[:, 50:200], tokens[:, 200:]):
        frequency = np.bincount(half.ravel(), minlength=5) / half.size
        np.testing.assert_allclose(frequency, stationary, atol=0.01)


def test_higher_orders_look_further_back() -> None:
    config = SyntheticConfig(num_states=3, order=2, temperature=0.2, sequence_length=300)
    chain = MarkovChain(config)
    assert not np.allclose(probabilities(chain, (0, 2)), probabilities(chain, (1, 2)))
    assert not np.allclose(probabilities(chain, (0, 1)), probabilities(chain, (1, 0)))
    tokens = chain.sample(300, np.random.default_rng(0)).astype(np.int64)
    triples = np.zeros((3, 3, 3))
    np.add.at(triples, (tokens[:, :-2].ravel(), tokens[:, 1:-1].ravel(), tokens[:, 2:].ravel()), 1)
    for first in range(3):
        for second in range(3):
            row = triples[first, second]
            expected = probabilities(chain, (first, second))
            error = np.sqrt(expected * (1 - expected) / row.sum())
            assert (np.abs(row / row.sum() - expected) < 5 * error).all()


def test_many_states_need_no_table() -> None:
    chain = MarkovChain(SyntheticConfig(num_states=65_536, order=5, sequence_length=20))
    tokens = chain.sample(50, np.random.default_rng(0))
    assert tokens.max() > 60_000
    assert len(np.unique(tokens)) > 950  # of 1000 draws


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 99), st.integers(0, 99))
def test_seeds_make_chains(first: int, second: int) -> None:
    one, two = (MarkovChain(SyntheticConfig(num_states=7, corpus_seed=seed)) for seed in (first, second))
    assert np.array_equal(transition_matrix(one), transition_matrix(two)) == (first == second)


def test_iid_is_uniform_and_has_no_memory(tmp_path: Path) -> None:
    corpus = build_synthetic("iid", SMALL, tmp_path / "iid")
    assert (corpus.vocab_size, corpus.num_documents, corpus.tokenizer) == (5, 500, None)
    tokens = np.asarray(corpus.tokens, dtype=np.int64)
    assert len(tokens) == 100_000
    pairs = np.bincount(tokens[:-1] * 5 + tokens[1:], minlength=25) / (len(tokens) - 1)
    assert np.abs(pairs - 1 / 25).max() < 5 * math.sqrt(1 / 25 / len(tokens))


def test_built_corpora_are_the_same_every_time(tmp_path: Path) -> None:
    first = build_synthetic("markov", SMALL, tmp_path / "a")
    second = build_synthetic("markov", SMALL, tmp_path / "b")
    assert first.content_hash == second.content_hash
    cached = load_synthetic("markov", SMALL, cache=tmp_path)
    assert cached.content_hash == first.content_hash
    assert load_synthetic("markov", SMALL, cache=tmp_path).folder == cached.folder
    hot = SyntheticConfig(num_states=5, num_sequences=3, sequence_length=9, temperature=1e30)
    assert load_synthetic("markov", hot, cache=tmp_path).content_hash != first.content_hash


def test_shuffled_text_keeps_the_words_of_each_sequence(tmp_path: Path) -> None:
    with write_corpus(tmp_path / "text", vocab_size=1000, tokenizer="gpt2", provenance={}) as writer:
        writer.write(np.arange(1000))
    from chibit.data.text.tokens import open_corpus

    text = open_corpus(tmp_path / "text")
    config = SyntheticConfig(sequence_length=300)
    shuffled = build_synthetic("shuffled_text", config, tmp_path / "out", text=text)
    tokens = np.asarray(shuffled.tokens, dtype=np.int64)
    assert len(tokens) == 900  # the last 100 are no whole sequence
    assert shuffled.vocab_size == 1000
    for number in range(3):
        part = tokens[number * 300 : (number + 1) * 300]
        assert sorted(part) == list(range(number * 300, (number + 1) * 300))
        assert (part[1:] == part[:-1] + 1).sum() < 10
    with pytest.raises(InputError, match="needs a text"):
        build_synthetic("shuffled_text", config, tmp_path / "other")
    with pytest.raises(InputError, match="one sequence of 2000"):
        long = SyntheticConfig(sequence_length=2000)
        build_synthetic("shuffled_text", long, tmp_path / "other", text=text)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_states": 1},
        {"num_states": 65_537},
        {"temperature": 0.0},
        {"temperature": math.nan},
        {"order": 0},
        {"num_sequences": 0},
        {"sequence_length": 0},
        {"corpus_seed": -1},
    ],
)
def test_impossible_configs_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(changes))):
        SyntheticConfig(**changes)  # type: ignore[arg-type]


def test_unknown_kinds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected one of iid"):
        build_synthetic("markow", SMALL, tmp_path / "out")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="expected at least 2 for ngram"):
        build_synthetic("ngram", SMALL, tmp_path / "out")


def test_brackets_nest() -> None:
    config = SyntheticConfig(num_states=10, sequence_length=400)
    tokens = sample_dyck(config, 50, np.random.default_rng(0)).astype(int)
    deepest, chances, closed = 0, 0, 0
    for row in tokens:
        stack: list[int] = []
        for token in row:
            if stack and len(stack) < MAX_DEPTH:
                chances, closed = chances + 1, closed + token % 2
            if token % 2:
                assert stack.pop() == token // 2  # the last bracket that was opened, and never one too many
            else:
                stack.append(token // 2)
            deepest = max(deepest, len(stack))
    assert 10 < deepest <= MAX_DEPTH
    assert closed / chances == pytest.approx(0.5, abs=5 * math.sqrt(0.25 / chances))
    opened = tokens[tokens % 2 == 0] // 2
    assert np.bincount(opened, minlength=5) / len(opened) == pytest.approx([0.2] * 5, abs=0.02)


def test_the_automaton_follows_rule_110() -> None:
    config = SyntheticConfig(sequence_length=100)
    tokens = sample_automaton(config, 3, np.random.default_rng(0))
    assert tokens.shape == (3, 100) and tokens.max() < 64
    becomes = {"111": "0", "110": "1", "101": "1", "100": "0", "011": "1", "010": "1", "001": "1", "000": "0"}
    for row in tokens:
        states = ["".join(f"{token:06b}" for token in row[i : i + 16]) for i in range(0, 96, 16)]
        for before, after in zip(states[:-1], states[1:], strict=True):
            ring = before[-1] + before + before[0]
            assert after == "".join(becomes[ring[i : i + 3]] for i in range(96))
    assert len({tuple(row) for row in tokens}) == 3


@pytest.mark.parametrize("kind", ["dyck", "automaton"])
def test_new_corpora_are_built_whole_and_the_same_again(kind: Kind, tmp_path: Path) -> None:
    config = SyntheticConfig(num_sequences=9, sequence_length=50)
    first = build_synthetic(kind, config, tmp_path / "a")
    again = build_synthetic(kind, config, tmp_path / "b")
    assert len(first) == 450 and first.content_hash == again.content_hash
    other = build_synthetic(kind, dataclasses.replace(config, corpus_seed=1), tmp_path / "c")
    assert other.content_hash != first.content_hash


def test_numbers_of_states_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="even"):
        build_synthetic("dyck", SyntheticConfig(num_states=9), tmp_path / "x")
    with pytest.raises(InputError, match="at least 64"):
        build_synthetic("automaton", SyntheticConfig(num_states=63), tmp_path / "x")


def test_a_chain_that_looks_back_without_end_is_refused() -> None:
    with pytest.raises(InputError, match="order: got 9223372036854775807, expected 1 to 1024"):
        SyntheticConfig(order=2**63 - 1)

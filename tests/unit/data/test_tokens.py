"""Corpora on disk and the blocks drawn from them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chibit.core.errors import DamagedFileError, InputError
from chibit.data.text.tokens import TokenDataset, TokenSampler, open_corpus, write_corpus


def corpus(folder: Path, tokens: object = range(100), vocab_size: int = 100) -> TokenDataset:
    with write_corpus(folder, vocab_size=vocab_size, tokenizer=None, provenance={"source": "test"}) as writer:
        writer.write(np.array(tokens))
        writer.num_documents = 1
    return open_corpus(folder)


def in_memory(num_tokens: int, folder: Path = Path("memory")) -> TokenDataset:
    return TokenDataset(
        folder=folder,
        tokens=np.arange(num_tokens, dtype=np.uint16),
        vocab_size=num_tokens,
        tokenizer=None,
        num_documents=1,
        content_hash="",
        provenance={},
    )


def sampler(dataset: TokenDataset, block_length: int, batch_size: int, seed: int = 0) -> TokenSampler:
    generator = np.random.default_rng(seed)
    return TokenSampler(dataset, block_length=block_length, batch_size=batch_size, generator=generator)


def test_corpus_round_trip(tmp_path: Path) -> None:
    dataset = corpus(tmp_path / "c", [5, 0, 65_535, 5], vocab_size=65_536)
    assert dataset.tokens.tolist() == [5, 0, 65_535, 5]
    assert len(dataset) == 4
    assert not dataset.tokens.flags.writeable
    assert dataset.provenance == {"source": "test"}
    counts = dataset.counts()
    assert counts.shape == (65_536,)
    assert (counts[0], counts[5], counts[65_535], counts.sum()) == (1, 2, 1, 4)
    train, last = dataset.split(1)
    assert (train.tokens.tolist(), last.tokens.tolist()) == ([5, 0, 65_535], [5])


def test_interrupted_writing_leaves_nothing(tmp_path: Path) -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        write_corpus(tmp_path / "c", vocab_size=9, tokenizer=None, provenance={}) as writer,
    ):
        writer.write(np.arange(9))
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_empty_corpus_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="test: holds no text"):
        corpus(tmp_path / "c", np.array([], dtype=np.int64))
    assert list(tmp_path.iterdir()) == []


def test_token_outside_the_vocabulary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a token is 9, expected less than .* 9"):
        corpus(tmp_path / "c", [3, 9], vocab_size=9)


def test_damage_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    corpus(folder)
    file = folder / "tokens.u16"
    original = file.read_bytes()
    for damaged in (original[:-2], original + b"\0\0", b"\1" + original[1:], b""):
        file.write_bytes(damaged)
        with pytest.raises(DamagedFileError, match=r"tokens.u16: does not match the SHA-256"):
            open_corpus(folder)
    file.unlink()
    with pytest.raises(DamagedFileError, match="does not describe this folder"):
        open_corpus(folder)
    file.write_bytes(original)
    manifest = json.loads((folder / "manifest.json").read_text())
    for changes, pattern in (
        ({"schema": 99}, "schema 1"),
        ({"vocab_size": 50}, "does not describe"),
        ({"num_tokens": 3}, "does not describe"),
        ({"sha256": {"../secret": "0"}}, "does not describe"),
        ({"sha256": []}, "does not describe"),
    ):
        (folder / "manifest.json").write_text(json.dumps({**manifest, **changes}))
        with pytest.raises(DamagedFileError, match=pattern):
            open_corpus(folder)
    (folder / "manifest.json").write_text("{")
    with pytest.raises(DamagedFileError, match="not valid JSON"):
        open_corpus(folder)


@settings(max_examples=50, deadline=None)
@given(
    num_tokens=st.integers(2, 300), block=st.integers(1, 40), batch=st.integers(1, 9), seed=st.integers(0, 9)
)
def test_every_block_comes_once_in_a_pass(num_tokens: int, block: int, batch: int, seed: int) -> None:
    if num_tokens <= block:
        return
    draws = sampler(in_memory(num_tokens), block, batch, seed)
    num_blocks = (num_tokens - 1) // block
    seen: list[np.ndarray] = []
    while len(seen) < 2 * num_blocks:
        seen.extend(draws.sample().tokens.numpy())
    for first in (0, num_blocks):
        blocks = seen[first : first + num_blocks]
        assert all((np.diff(tokens) == 1).all() and len(tokens) == block + 1 for tokens in blocks)
        starts = sorted(int(tokens[0]) for tokens in blocks)
        assert np.diff(starts).tolist() == [block] * (num_blocks - 1)


def test_sampler_goes_on_to_the_bit() -> None:
    dataset = in_memory(203)
    draws = sampler(dataset, 10, 7)
    for _ in range(5):
        draws.sample()
    state = json.loads(json.dumps(draws.state_dict()))
    expected = [draws.sample().tokens for _ in range(9)]
    other = sampler(dataset, 10, 7, seed=5)
    other.load_state_dict(state)
    assert all(bool((other.sample().tokens == tokens).all()) for tokens in expected)


def test_damaged_sampler_state_is_refused() -> None:
    draws = sampler(in_memory(203), 10, 7)
    state = draws.state_dict()
    for broken in ({}, {"generator": 3}, {**state, "next": 99}, {**state, "next": "0"}):
        with pytest.raises(DamagedFileError, match="sampler state"):
            draws.load_state_dict(broken)


def test_batch_is_int64_and_random() -> None:
    draws = sampler(in_memory(10_001), 10, 8)
    first, second = draws.sample().tokens, draws.sample().tokens
    assert first.shape == (8, 11)
    assert str(first.dtype) == "torch.int64"
    assert not bool((first == second).any())


@pytest.mark.parametrize(("block", "batch", "pattern"), [(0, 1, "block_length"), (1, 0, "batch_size")])
def test_impossible_sizes_are_refused(block: int, batch: int, pattern: str) -> None:
    with pytest.raises(InputError, match=pattern):
        sampler(in_memory(50), block, batch)


def test_corpus_shorter_than_a_block_is_refused() -> None:
    with pytest.raises(InputError, match="memory: holds 50 tokens, expected more than 50, a block"):
        sampler(in_memory(50), 50, 1)
    assert sampler(in_memory(51), 50, 1).sample().tokens.shape == (1, 51)

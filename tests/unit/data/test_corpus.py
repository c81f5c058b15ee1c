"""Building corpora from text, shards and the Hub."""

from __future__ import annotations

import gzip
import hashlib
import json
import lzma
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chibit.core import network
from chibit.core.errors import DamagedFileError, InputError, ResourceError, UserError
from chibit.data.text import sources as text_sources
from chibit.data.text.corpus import build_corpus, corpus_tokenizer, load_corpus
from chibit.data.text.sources import find_text, read_text_file
from chibit.data.text.tokenizer import load_gpt2_tokenizer

STORY = "Once upon a time, in a land far away, there were 3 bears.\n\n= Bears =\n They ate porridge .  \n"
EOT = 50_256


def ids(text: str) -> list[int]:
    return load_gpt2_tokenizer().encode(text).tolist()


def build(source: Path, out: Path, **options: Any) -> list[int]:
    return build_corpus(source, out, progress=False, **options).tokens.tolist()


def test_text_files_are_documents_in_the_order_of_names(tmp_path: Path) -> None:
    folder = tmp_path / "text"
    (folder / "deeper").mkdir(parents=True)
    (folder / "b.txt").write_text(STORY)
    (folder / "a.txt.gz").write_bytes(gzip.compress("ärger".encode()))
    (folder / "deeper" / "c.jsonl").write_text('{"text": "one"}\n\n{"text": "two", "id": 7}\n{"text": ""}\n')
    (folder / "notes.md").write_text("not read")
    (folder / "empty.txt").write_text("")
    expected = [*ids("ärger"), EOT, *ids(STORY), EOT, *ids("one"), EOT, *ids("two"), EOT]
    assert build(folder, tmp_path / "out") == expected
    corpus = build_corpus(folder, tmp_path / "out", progress=False)
    assert (corpus.vocab_size, corpus.tokenizer, corpus.num_documents) == (50_257, "gpt2", 4)
    assert corpus_tokenizer(corpus).decode(corpus.tokens[-2:-1].tolist()) == "two"  # type: ignore[union-attr]


@settings(max_examples=60, deadline=None)
@given(st.text(st.sampled_from("ab 1\n.é'日s"), min_size=1, max_size=200), st.integers(1, 20))
def test_reading_in_pieces_changes_no_token(
    tmp_path_factory: pytest.TempPathFactory, text: str, piece: int
) -> None:
    path = tmp_path_factory.mktemp("text") / "x.txt"
    path.write_text(text)
    before = text_sources.PIECE
    text_sources.PIECE = piece
    try:
        pieces = list(read_text_file(path))
    finally:
        text_sources.PIECE = before
    assert "".join(part.text for part in pieces) == text
    assert [token for part in pieces for token in ids(part.text)] == ids(text)
    assert [part.ends_document for part in pieces] == [False] * (len(pieces) - 1) + [True]
    assert sum(part.size for part in pieces) == len(text.encode())


def test_memory_is_bounded_by_the_piece(tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_text("word " * 1_000_000)
    assert max(len(part.text) for part in read_text_file(path)) <= 2 * text_sources.PIECE


@pytest.mark.parametrize(
    ("name", "content", "kind", "pattern"),
    [
        ("x.txt", b"\xff\xfe bad", InputError, "not UTF-8"),
        ("x.jsonl", b'{"text": "a"}\n{"txt": 1}\n', InputError, "line 2 is not a JSON object"),
        ("x.jsonl", b"[]\n", InputError, "line 1 is not"),
        ("x.jsonl", b'{"text": 3}\n', InputError, "line 1 is not"),
        ("x.jsonl", b'{"text": "a \\ud83d b"}\n', InputError, r"line 1 holds '.ud83d', half a character"),
        ("x.txt.gz", b"not gzip", DamagedFileError, "not a whole gzip file"),
        (
            "x.txt.gz",
            gzip.compress(b"some text " * 99, mtime=0)[:-9],
            DamagedFileError,
            "not a whole gzip file",
        ),
        ("x.txt", b"", InputError, "holds no text"),
        ("x.md", b"text", InputError, "holds no text; expected files"),
    ],
)
def test_bad_text_is_refused(tmp_path: Path, name: str, content: bytes, kind: type, pattern: str) -> None:
    folder = tmp_path / "text"
    folder.mkdir()
    (folder / name).write_bytes(content)
    with pytest.raises(kind, match=pattern) as caught:
        build(folder, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["text"]


def test_unknown_sources_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean 'wikitext-103'"):
        build_corpus("wikitext103", tmp_path / "out")
    with pytest.raises(InputError, match="neither a text file"):
        load_corpus(tmp_path / "nowhere", cache=tmp_path)
    (tmp_path / "a.txt").write_text("text")
    for tokenizer in ("bert", "bpe:²", f"bpe:{'9' * 5000}"):
        with pytest.raises(InputError, match="expected gpt2, or bpe:N"):
            build(tmp_path / "a.txt", tmp_path / "out", tokenizer=tokenizer)


def test_a_mark_of_the_order_of_bytes_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one two", encoding="utf-8-sig")
    assert build(tmp_path / "a.txt", tmp_path / "out") == [*ids("one two"), EOT]


def test_own_vocabulary_is_kept_with_the_corpus(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(STORY * 50)
    corpus = build_corpus(tmp_path / "a.txt", tmp_path / "out", tokenizer="bpe:300", progress=False)
    tokenizer = corpus_tokenizer(corpus)
    assert tokenizer is not None
    assert corpus.vocab_size == tokenizer.vocab_size <= 300
    assert corpus.tokens[-1] == tokenizer.end_of_text
    assert tokenizer.decode(corpus.tokens[:-1].tolist()) == STORY * 50


def test_own_vocabulary_is_that_of_all_documents_however_short(tmp_path: Path) -> None:
    lines = [json.dumps({"text": word}) for word in ["one"] * 100 + ["zweiundvierzig"] * 9]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    corpus = build_corpus(tmp_path / "a.jsonl", tmp_path / "out", tokenizer="bpe:300", progress=False)
    assert len(corpus) == 2 * len(lines)  # each word is a token


def test_cache_notices_a_source_replaced_by_one_of_its_size_and_time(tmp_path: Path) -> None:
    source = tmp_path / "text.txt"
    found = []
    for words in ("one two three ", "two one three "):
        source.write_text(words * 99)
        os.utime(source, ns=(5, 5))
        found.append(load_corpus(source, tokenizer="bpe:280", cache=tmp_path / "cache", progress=False))
    assert found[0].content_hash != found[1].content_hash


def test_cache_notices_a_changed_source(tmp_path: Path) -> None:
    source = tmp_path / "a.txt"
    source.write_text("one")
    first = load_corpus(source, cache=tmp_path / "cache", progress=False)
    again = load_corpus(source, cache=tmp_path / "cache", progress=False)
    assert again.folder == first.folder
    source.write_text("two, longer")
    os.utime(source, ns=(1, 1))
    changed = load_corpus(source, cache=tmp_path / "cache", progress=False)
    assert changed.folder != first.folder
    assert load_corpus(first.folder).tokens.tolist() == first.tokens.tolist()


def shards(folder: Path, tokens: np.ndarray, num: int = 2) -> dict[str, Any]:
    folder.mkdir()
    entries = []
    for number, part in enumerate(np.array_split(tokens, num)):
        data = lzma.compress(part.astype("<u2").tobytes())
        name = f"wiki.{number:02d}.u16.xz"
        (folder / name).write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        entries.append({"file": name, "tokens": len(part), "bytes": len(data), "sha256": digest})
    manifest = {"source": "wiki", "docs": 3, "tokens": len(tokens), "eot": EOT, "shards": entries}
    (folder / "wiki.json").write_text(json.dumps(manifest))
    return manifest


def test_shards_are_joined(tmp_path: Path) -> None:
    tokens = np.random.default_rng(0).integers(0, 50_257, 3_000_001)
    shards(tmp_path / "wiki", tokens, 3)
    corpus = build_corpus(tmp_path / "wiki", tmp_path / "out", progress=False)
    np.testing.assert_array_equal(corpus.tokens, tokens)
    assert corpus.num_documents == 3
    with pytest.raises(InputError, match="expected gpt2"):
        build(tmp_path / "wiki", tmp_path / "other", tokenizer="bpe:300")


def test_damaged_shards_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "wiki"
    manifest = shards(folder, np.arange(40_000))
    shard = folder / "wiki.01.u16.xz"
    good = shard.read_bytes()
    bomb = lzma.compress(b"\0" * (64 << 20))
    for damaged in (good[:-20], good[:100] + bytes([good[100] ^ 1]) + good[101:], b"not xz", bomb):
        shard.write_bytes(damaged)
        with pytest.raises(DamagedFileError, match=r"wiki\.01\.u16\.xz: not .*fetch it again"):
            build(folder, tmp_path / "out")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["wiki"]
    shard.unlink()
    with pytest.raises(DamagedFileError, match="shards and manifests differ"):
        build(folder, tmp_path / "out")
    shard.write_bytes(good)
    nameless = {"shards": [{"file": entry["file"]} for entry in manifest["shards"]]}
    for changes in ({"shards": 3}, {"docs": None}, nameless):
        (folder / "wiki.json").write_text(json.dumps({**manifest, **changes}))
        with pytest.raises(DamagedFileError, match="not a manifest of shards"):
            build(folder, tmp_path / "out")
    (folder / "wiki.json").write_text(json.dumps({**manifest, "eot": 0}))
    with pytest.raises(DamagedFileError, match="expected GPT-2's 50256"):
        build(folder, tmp_path / "out")


def test_real_shards(tmp_path: Path) -> None:
    shared = Path(os.environ.get("CHIBIT_SHARED", "../shared")) / "data" / "wikipedia"
    if not shared.is_dir():
        pytest.skip(f"{shared} is not there; set CHIBIT_SHARED")
    folder = tmp_path / "wiki"
    folder.mkdir()
    manifest = json.loads((shared / "enwiki2014_zy.json").read_text())
    manifest["shards"] = manifest["shards"][-1:]
    name = manifest["shards"][0]["file"]
    (folder / name).write_bytes((shared / name).read_bytes())
    (folder / "enwiki2014_zy.json").write_text(json.dumps(manifest))
    corpus = build_corpus(folder, tmp_path / "out", progress=False)
    assert len(corpus) == 2_103_984
    assert corpus.tokens[-1] == EOT


class Hub:
    """Stands in for `datasets`: yields rows, or fails on the way."""

    def __init__(self, fails: bool = False) -> None:
        self.fails = fails

    def load_dataset(self, repository: str, configuration: str, *, split: str, streaming: bool) -> Any:
        assert (repository, streaming) == ("Salesforce/wikitext", True)
        assert configuration.startswith("wikitext-")
        yield {"text": f" = {split} = \n"}
        if self.fails:
            raise ConnectionResetError("reset by peer\nmore")
        yield {"text": ""}
        yield {"text": " Text . \n"}


def use_hub(monkeypatch: pytest.MonkeyPatch, hub: Hub, *, reachable: bool) -> None:
    monkeypatch.setitem(sys.modules, "datasets", hub)  # type: ignore[arg-type]
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    if reachable:
        monkeypatch.setattr(text_sources, "unreachable", lambda endpoint: None)


def test_corpus_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_hub(monkeypatch, Hub(), reachable=True)
    corpus = build_corpus("wikitext-103", tmp_path / "out", progress=False)
    text = "".join(corpus_tokenizer(corpus).decode(corpus.tokens[:-1].tolist()))  # type: ignore[union-attr]
    assert text == " = train = \n Text . \n"
    assert corpus.tokens[-1] == EOT


def test_broken_download_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_hub(monkeypatch, Hub(fails=True), reachable=True)
    with pytest.raises(ResourceError, match=r"the download failed \(reset by peer\).*folder of .txt"):
        build_corpus("wikitext-2", tmp_path / "out", progress=False)
    assert list(tmp_path.iterdir()) == []


def test_unreachable_hub_is_told_in_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_hub(monkeypatch, Hub(), reachable=False)
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(network, "PROBE_SECONDS", 0.5)
    with socket.socket() as silent:  # accepts, and never answers
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        started = time.monotonic()
        with pytest.raises(ResourceError, match="the Hub does not answer .*give a folder of .txt files"):
            build_corpus("wikitext-103", tmp_path / "out", progress=False)
        assert time.monotonic() - started < 5.0


def test_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"pip install 'chibit\[hf\]'; or give a folder"):
        find_text("wikitext-103")


def test_interruption_leaves_no_half_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("some text")
    (tmp_path / "b.txt").write_text("more text")
    original = text_sources.read_text_file

    def interrupted(path: Path) -> Any:
        if path.name == "b.txt":
            raise KeyboardInterrupt
        return original(path)

    monkeypatch.setattr(text_sources, "read_text_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load_corpus(tmp_path, cache=tmp_path / "cache", progress=False)
    assert list((tmp_path / "cache" / "corpora").iterdir()) == []


def test_suffixes_of_text_may_be_in_upper_case(tmp_path):
    (tmp_path / "A.TXT").write_text("one document")
    (tmp_path / "B.JSONL").write_text('{"text": "first"}\n{"text": "second"}\n')
    assert len(list(read_text_file(tmp_path / "B.JSONL"))) == 2
    assert find_text(tmp_path).size == sum(path.stat().st_size for path in tmp_path.iterdir())

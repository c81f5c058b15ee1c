"""Corpora by name or path: text or token shards become tokens once, and are opened from there.

wikitext-103, wikitext-2      from the Hub (extra hf)
a file or folder of text      .txt, .raw or .jsonl (field "text"), each also with .gz
a folder of token shards      .u16.xz files beside .json manifests with their SHA-256
a corpus                      as `build_corpus` wrote it
"""

from __future__ import annotations

import hashlib
import lzma
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from chibit.core.config import read_json
from chibit.core.errors import DamagedFileError, InputError
from chibit.core.files import open_regular, read_regular, user_path
from chibit.core.fingerprint import fingerprint
from chibit.core.progress import byte_bar
from chibit.data.resolve import home_folder
from chibit.data.text.sources import HUB_CORPORA, PIECE, TextSource, find_text
from chibit.data.text.tokenizer import BPETokenizer, Tokenizer, load_gpt2_tokenizer, train_bpe
from chibit.data.text.tokens import TokenDataset, TokenWriter, is_corpus, open_corpus, write_corpus

SHARD_SUFFIX = ".u16.xz"
_BPE_TEXT = 64 << 20
"""Characters, from the start, that a vocabulary of one's own is trained on."""
_LARGEST_VOCABULARY = 64 << 20
_LZMA_MEMORY = 256 << 20
"""Bytes a shard may ask for to be unpacked."""

Advance = Callable[..., None]


def build_corpus(
    source: str | Path, out: Path, *, tokenizer: str = "gpt2", progress: bool = True
) -> TokenDataset:
    """Turn a source of text into a corpus of tokens, in bounded memory.

    Args:
        source: an id of `HUB_CORPORA`, a file or folder of text, or a folder of token shards.
        out: folder of the corpus; it appears only when it is whole. One that is there already is opened.
        tokenizer: "gpt2", or "bpe:N" to train one of N tokens on the text. Token shards are GPT-2's.
        progress: show a bar on standard error.

    Raises:
        DamagedFileError: for a shard that does not match its SHA-256.
    """
    if is_corpus(out):
        return open_corpus(out)
    folder = user_path(source)
    shards = sorted(folder.glob(f"*{SHARD_SUFFIX}")) if folder.is_dir() else []
    if shards:
        if tokenizer != "gpt2":
            raise InputError(
                f"{folder}: holds tokens of GPT-2's vocabulary; tokenizer is {tokenizer!r}, expected gpt2"
            )
        _build_from_shards(folder, shards, out, progress)
    else:
        _build_from_text(find_text(source), out, tokenizer, progress)
    return open_corpus(out)


def load_corpus(
    source: str | Path, *, tokenizer: str = "gpt2", cache: Path | None = None, progress: bool = True
) -> TokenDataset:
    """Open a corpus, after building it in the cache if that was not done before.

    Args:
        source: as in `build_corpus`, or a corpus that it wrote.
        tokenizer: as in `build_corpus`.
        cache: where corpora are kept; see `home_folder`.
        progress: show a bar on standard error.
    """
    if not str(source).strip():
        raise InputError("corpus: got an empty name, expected a file or folder of text, or a known name")
    folder = user_path(source)
    if is_corpus(folder):
        return open_corpus(folder)
    is_own = str(source) not in HUB_CORPORA and folder.exists()
    state = fingerprint(folder) if is_own else str(source)
    key = hashlib.sha256(f"{state} {tokenizer}".encode()).hexdigest()[:16]
    readable = "".join(c if c.isalnum() or c in "-_" else "-" for c in folder.name)[:40].strip("-") or "text"
    out = home_folder(cache) / "corpora" / f"{readable}-{key}"
    return build_corpus(source, out, tokenizer=tokenizer, progress=progress)


def corpus_tokenizer(corpus: TokenDataset) -> Tokenizer | None:
    """Load the tokenizer that made a corpus, or None where its tokens are no text."""
    if corpus.tokenizer == "gpt2":
        return load_gpt2_tokenizer()
    if corpus.tokenizer == "bpe":
        return BPETokenizer(read_regular(corpus.folder / "tokenizer.json", most=_LARGEST_VOCABULARY).decode())
    return None


def _build_from_text(source: TextSource, out: Path, tokenizer: str, progress: bool) -> None:
    chosen = _choose_tokenizer(tokenizer, source)
    provenance = {"kind": "text", "source": source.name, "tokenizer": tokenizer}
    writing = write_corpus(
        out,
        vocab_size=chosen.vocab_size,
        tokenizer=chosen.name,
        provenance=provenance,
        own_vocabulary=chosen.to_json(),
    )
    with writing as writer, byte_bar(f"encoding {Path(source.name).name}", progress, source.size) as advance:
        is_open = False
        for piece in source.pieces():
            tokens = chosen.encode(piece.text)
            writer.write(tokens)
            is_open = is_open or len(tokens) > 0
            if piece.ends_document and is_open:
                writer.write(np.array([chosen.end_of_text]))
                writer.num_documents += 1
                is_open = False
            advance(advance=piece.size)


def _choose_tokenizer(name: str, source: TextSource) -> Tokenizer:
    if name == "gpt2":
        return load_gpt2_tokenizer()
    kind, _, size = name.partition(":")
    if kind != "bpe" or not (size.isascii() and size.isdigit() and len(size) < 10):
        raise InputError(
            f"tokenizer: got {name!r}, expected gpt2, or bpe:N for a vocabulary of N tokens of its own"
        )
    return train_bpe(_beginning(source), int(size))


def _beginning(source: TextSource) -> Iterator[str]:
    """The first texts, however they are cut: of the Hub and of .jsonl a piece may be a line."""
    seen = 0
    for piece in source.pieces():
        yield piece.text
        seen += len(piece.text)
        if seen >= _BPE_TEXT:
            return


def _build_from_shards(folder: Path, shards: list[Path], out: Path, progress: bool) -> None:
    manifests = [read_json(path) for path in sorted(folder.glob("*.json"))]
    try:
        listed = {
            str(entry["file"]): (int(entry["tokens"]), entry["sha256"])
            for manifest in manifests
            for entry in manifest["shards"]
        }
        num_documents = sum(int(manifest["docs"]) for manifest in manifests)
        size = sum(path.stat().st_size for path in shards)
        end_of_text = {int(manifest["eot"]) for manifest in manifests}
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedFileError(
            f"{folder}: a .json file in it is not a manifest of shards ({error!r})"
        ) from error
    odd = sorted({path.name for path in shards} ^ listed.keys())
    if odd:
        raise DamagedFileError(
            f"{folder / odd[0]}: shards and manifests differ about this file; fetch both again"
        )
    tokenizer = load_gpt2_tokenizer()
    if end_of_text != {tokenizer.end_of_text}:
        raise DamagedFileError(
            f"{folder}: documents end with {sorted(end_of_text)}, expected GPT-2's {tokenizer.end_of_text}"
        )
    provenance = {"kind": "token shards", "source": str(folder), "manifests": manifests}
    writing = write_corpus(out, vocab_size=tokenizer.vocab_size, tokenizer="gpt2", provenance=provenance)
    with writing as writer, byte_bar(f"unpacking {folder.name}", progress, size) as advance:
        writer.num_documents = num_documents
        for path in shards:
            _append_shard(path, listed[path.name], writer, advance)


def _append_shard(path: Path, listed: tuple[int, str], writer: TokenWriter, advance: Advance) -> None:
    """Unpack one shard, hashing on the way; if it is damaged, the whole corpus is dropped."""
    digest, before, rest = hashlib.sha256(), writer.num_tokens, b""
    for block in _unpacked(path, digest.update, advance):
        data = rest + block
        whole = len(data) // 2 * 2
        writer.write(np.frombuffer(data[:whole], dtype="<u2"))
        rest = data[whole:]
        if writer.num_tokens - before > listed[0]:
            break
    if (writer.num_tokens - before, digest.hexdigest()) != listed or rest:
        raise DamagedFileError(f"{path}: not the tokens that its manifest describes; fetch it again")


def _unpacked(path: Path, on_block: Callable[[bytes], None], advance: Advance) -> Iterator[bytes]:
    """Unpacked blocks of bounded size, however far the file expands."""
    unpack = lzma.LZMADecompressor(memlimit=_LZMA_MEMORY)
    with open_regular(path) as file:
        while block := file.read(PIECE):
            on_block(block)
            size = len(block)
            try:
                while not unpack.eof:
                    yield unpack.decompress(block, max_length=4 * PIECE)
                    block = b""
                    if unpack.needs_input:
                        break
            except (lzma.LZMAError, EOFError) as error:
                raise DamagedFileError(f"{path}: not a whole xz file ({error}); fetch it again") from error
            advance(advance=size)

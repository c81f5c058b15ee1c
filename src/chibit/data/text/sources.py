"""Where text comes from, piece by piece: files and folders, plain or gzipped, and corpora on the Hub."""

from __future__ import annotations

import codecs
import gzip
import http.client
import json
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from chibit.core.errors import DamagedFileError, InputError, ResourceError, UserError, first_line, needing
from chibit.core.files import nearest, open_regular, user_path
from chibit.core.network import unreachable

HUB_CORPORA = {
    "wikitext-103": ("Salesforce/wikitext", "wikitext-103-raw-v1", "train"),
    "wikitext-103-validation": ("Salesforce/wikitext", "wikitext-103-raw-v1", "validation"),
    "wikitext-2": ("Salesforce/wikitext", "wikitext-2-raw-v1", "train"),
}
"""Data set, configuration and split on the Hub, by the name used here."""
SUFFIXES = (".txt", ".raw", ".jsonl")
"""Files of text, each also with .gz."""
PIECE = 1 << 20
"""Bytes read at a time."""
_LONGEST_WORD = 1 << 24
"""Bytes without a place to cut after which a text is cut anywhere."""
_CUT = re.compile(r"(?<=\S)[ \n](?=\S)")
"""A single space or newline between two words: cut before it, GPT-2's encoding is that of the whole text."""
_HALF = re.compile("[\ud800-\udfff]")
"""What JSON may hold by itself, and no UTF-8."""


@dataclass(frozen=True)
class TextPiece:
    """Some consecutive text of one document."""

    text: str
    ends_document: bool
    size: int
    """Bytes of the source that were read for it."""


@dataclass(frozen=True)
class TextSource:
    """Text that can be read from its start any number of times."""

    name: str
    pieces: Callable[[], Iterator[TextPiece]]
    size: int | None
    """Bytes of its files, None where that is not known beforehand."""


def find_text(source: str | Path) -> TextSource:
    """Find text by an id of `HUB_CORPORA`, or by the path of a file or folder."""
    if source in HUB_CORPORA:
        return _hub_text(str(source))
    path = user_path(source)
    if path.is_file() and _is_text(path):
        files = [path]
    elif path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file() and _is_text(file))
    else:
        hint = nearest(str(source), HUB_CORPORA)
        raise InputError(
            f"{source}: neither a text file ({', '.join(SUFFIXES)}, also with .gz) nor a folder of them "
            f"nor one of {', '.join(HUB_CORPORA)}{hint}"
        )
    if not files:
        raise InputError(f"{path}: holds no text; expected files {', '.join(SUFFIXES)}, also with .gz")

    def pieces() -> Iterator[TextPiece]:
        for file in files:
            yield from read_text_file(file)

    return TextSource(str(path), pieces, sum(file.stat().st_size for file in files))


def _is_text(path: Path) -> bool:
    return path.name.lower().removesuffix(".gz").endswith(SUFFIXES)


def read_text_file(path: Path) -> Iterator[TextPiece]:
    """Read one file: a .jsonl file holds a document in each line, any other is one document.

    Raises:
        InputError: for a file that cannot be read or is not UTF-8, or a line that is not JSON with a text.
    """
    try:
        with open_regular(path) as raw:
            file: IO[bytes] = gzip.GzipFile(fileobj=raw) if path.suffix.lower() == ".gz" else raw  # type: ignore[assignment]
            if path.name.lower().removesuffix(".gz").endswith(".jsonl"):
                yield from _read_lines(path, file, raw)
            else:
                yield from _read_plain(path, file, raw)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DamagedFileError(f"{path}: not a whole gzip file ({error}); fetch it again") from error
    except UserError:
        raise
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error.reason}); convert it") from error
    except OSError as error:
        raise InputError(f"{path}: cannot read ({error.strerror or error})") from error


def _read_plain(path: Path, file: IO[bytes], raw: IO[bytes]) -> Iterator[TextPiece]:
    decoder = codecs.getincrementaldecoder("utf-8-sig")()  # a mark that some programs begin with is no text
    text, place = "", 0
    while block := file.read(PIECE):
        text += decoder.decode(block)
        cut = _last_cut(text)
        if cut:
            yield TextPiece(text[:cut], False, raw.tell() - place)
            text, place = text[cut:], raw.tell()
    yield TextPiece(text + decoder.decode(b"", final=True), True, raw.tell() - place)


def _last_cut(text: str) -> int:
    start = max(0, len(text) - PIECE // 16)
    cuts = [match.start() for match in _CUT.finditer(text, start)]
    if cuts:
        return cuts[-1]
    return len(text) if len(text) > _LONGEST_WORD else 0


def _read_lines(path: Path, file: IO[bytes], raw: IO[bytes]) -> Iterator[TextPiece]:
    place = 0
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            text = json.loads(line)["text"]
        except (ValueError, KeyError, TypeError, RecursionError):
            text = None
        if not isinstance(text, str):
            raise InputError(f'{path}: line {number} is not a JSON object with a string "text"')
        if half := _HALF.search(text):
            raise InputError(
                f"{path}: line {number} holds {half[0]!r}, half a character; mend the line, or leave it out"
            )
        yield TextPiece(text, True, raw.tell() - place)
        place = raw.tell()


def _hub_text(name: str) -> TextSource:
    advice = "or give a folder of .txt files"
    with needing("hf", f"{name}: downloading", advice):
        import datasets
        from huggingface_hub import constants
    offline = constants.HF_HUB_OFFLINE
    failure = None if offline else unreachable(constants.ENDPOINT)
    if failure is not None:
        raise ResourceError(f"{name}: the Hub does not answer ({failure}); connect to the network, {advice}")
    repository, configuration, split = HUB_CORPORA[name]

    def pieces() -> Iterator[TextPiece]:
        try:
            rows: Any = datasets.load_dataset(repository, configuration, split=split, streaming=not offline)
            for row in rows:
                yield TextPiece(row["text"], False, len(row["text"]))
        except (OSError, http.client.HTTPException) as error:
            reason = first_line(error)
            raise ResourceError(
                f"{name}: the download failed ({reason[:120]}); try again, {advice}"
            ) from error
        yield TextPiece("", True, 0)

    return TextSource(name, pieces, None)

"""Ways to spoil files: their bytes, fields of JSON, lines of logs, arrays, and what stands in their place."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import shutil
import socket
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

NUMBERS = (
    0, 1, -1, 2, 3, 0.5, -0.0, 7, 10**5, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, -(2**63) - 1, 2**70,
    10**30, 10**400, -(10**400), 1e-320, 1e-12, 1e38, 1e39, 1e299, 1e308, -1e308, float("nan"), float("inf"),
    float("-inf"),
)  # fmt: skip
TEXTS = (
    "", " ", "0", "1e3", "nan", "None", "null", "true", "../../x", "/", "/etc/passwd", "a/b", "a\nb", "a\rb",
    "a\tb", "a\0b", "\x1b[31mred", "\ud800", "\udcff\udcfe", "\u202egnp.exe", "\u200f", "²", "٣", "é" * 300,
    "x" * 5000, "[/b]", "[red]x", "[link=file:///etc]x", "<script>alert(1)</script>", "</td></html>",
    "{{7*7}}", "%s%n", "$(touch executed)", "os:system", "hf:", "hf:x/y", "CON", ".", "..", "~", "-",
    "--help", "NaN,", "\\", "'\"",
)  # fmt: skip
_OTHERS = (
    None,
    True,
    False,
    [],
    {},
    [[]] * 3,
    [0] * 1000,
    [None],
    {"": None},
    {"a": {"b": {}}},
    [1, "x", None],
)
LONG_TEXT = "message [/b] <b> " * 300_000
"""About 5 MB."""


def hostile_value(generator: random.Random) -> Any:
    """Something that a field of JSON may suddenly hold."""
    if generator.random() < 0.01:
        return LONG_TEXT
    if generator.random() < 0.01:
        nested: Any = 1
        for _ in range(generator.choice([50, 300, 900])):
            nested = [nested]
        return nested
    return generator.choice(generator.choice((NUMBERS, NUMBERS, TEXTS, _OTHERS)))


def mutate_bytes(content: bytes, generator: random.Random) -> bytes:
    """Change, cut, repeat or blank a part."""
    changed, way = bytearray(content), generator.random()
    if not changed:
        return b"\0"
    at = generator.randrange(len(changed))
    if way < 0.1:
        return bytes(changed[:at])
    if way < 0.2:
        length = generator.choice([1, 8, 100])
        return bytes(changed[:at] + changed[at : at + length] + changed[at:])
    if way < 0.3:
        changed[at : at + generator.choice([4, 16, 64])] = bytes(generator.choice([4, 16, 64]))
        return bytes(changed)
    for _ in range(generator.choice([1, 1, 2, 8, 32])):
        place = generator.randrange(min(len(changed), 6000) if generator.random() < 0.6 else len(changed))
        changed[place] = generator.choice([0, 255, generator.randrange(256), changed[place] ^ 1])
    return bytes(changed)


def mutate_value(value: Any, generator: random.Random) -> Any:
    """Change one field of a JSON value, however deep: another value, name, length or order, or none."""
    places: list[tuple[Any, Any]] = []

    def visit(node: Any) -> None:
        items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, item in items:
            places.append((node, key))
            visit(item)

    visit(value)
    if not places:
        return hostile_value(generator)
    # A list of a thousand numbers is one place like any other, not a thousand.
    owners = {id(node): node for node, _ in places}
    node = owners[generator.choice(list(owners))]
    key = generator.choice(list(node) if isinstance(node, dict) else range(len(node)))
    old, way = node[key], generator.random()
    if isinstance(old, str) and old.startswith("{") and way < 0.7:
        node[key] = json.dumps(mutate_value(json.loads(old), generator))  # JSON in JSON, as Minari has it
    elif way < 0.1:
        del node[key]
    elif way < 0.15 and isinstance(node, dict):
        node[generator.choice(("", "schema", "x" * 300, "config", "<b>", "\ud800", "seed"))] = node.pop(key)
    elif way < 0.3 and isinstance(old, list) and old:
        node[key] = generator.choice(
            (old[:-1], [*old, old[-1]], old[::-1], [], old * 3, [old], {"0": old}, [None, *old[1:]])
        )
    elif way < 0.5 and isinstance(old, (int, float)) and not isinstance(old, bool) and abs(old) < 1e300:
        node[key] = generator.choice(
            (-old, old + 1, old - 1, old * 10, float(old), str(old), [old], 2 * old + 1, old / 3)
        )
    else:
        node[key] = hostile_value(generator)
    return value


def mutate_json(text: str, generator: random.Random) -> str:
    """One or two changes to a JSON text."""
    value = json.loads(text)
    for _ in range(generator.choice((1, 1, 1, 2))):
        value = mutate_value(value, generator)
    try:
        return json.dumps(value)
    except RecursionError:
        return "[" * 100_000


def mutate_lines(text: str, generator: random.Random) -> str:
    """Change, drop, repeat, swap or cut lines of JSON lines."""
    lines = text.splitlines() or ["{}"]
    at, way = generator.randrange(len(lines)), generator.random()
    if way < 0.7:
        lines[at] = mutate_json(lines[at], generator)
    elif way < 0.75:
        del lines[at]
    elif way < 0.8:
        lines.insert(at, lines[generator.randrange(len(lines))])
    elif way < 0.85:
        generator.shuffle(lines)
    elif way < 0.9:
        lines[at] = lines[at][: len(lines[at]) // 2]
    else:
        lines.insert(
            at, generator.choice(("", "[]", "null", "{}", LONG_TEXT, "\0", '{"step": "x"}', "[" * 9999))
        )
    return "\n".join(lines) + "\n" * generator.randrange(2)


def _npy(header: str, data: bytes = bytes(64)) -> bytes:
    text = header.encode("latin-1", "replace")
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def mutate_npy(content: bytes, generator: random.Random) -> bytes:
    """Change one array: its values, shape, type or header."""
    try:
        array = np.array(np.load(io.BytesIO(content), allow_pickle=False))
    except (ValueError, EOFError):
        return mutate_bytes(content, generator)
    way, saved = generator.randrange(9), io.BytesIO()
    if way == 0:
        count = generator.choice((0, -1, 2**40, 2**63, 10**30, "float('inf')", "None", 1e308, float("inf")))
        descr = generator.choice(("<f4", "|O", "<M8", "|V0", "<U99999999", "x" * 999))
        return _npy(f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': ({count}, {count}), }}\n")
    if way == 1:
        return _npy(
            generator.choice(("", "{" * 5000, "()", "{'descr': '<f4'}", "1" * 5000, "__import__('os')"))
        )
    if way == 2 and array.size and array.dtype.kind in "fiub":
        wanted = np.array(generator.choice((-1, 1, 2, 1e10, 1e30, 1e38, 1e39, np.nan, np.inf, -np.inf)))
        with np.errstate(all="ignore"):
            array.reshape(-1)[generator.randrange(array.size)] = wanted.astype(array.dtype)
    elif way == 3:
        array = array[:-1] if array.ndim and len(array) else np.zeros(3)
    elif way == 4:
        array = np.concatenate([array, array]) if array.ndim else np.stack([array] * 2)
    elif way == 5:
        array = array.astype(generator.choice(("f8", "f2", "i8", "u1", "bool", "c8", "S3")))
    elif way == 6:
        array = array.reshape(-1) if generator.random() < 0.5 else array[None]
    elif way == 7:
        array = array[::-1] if array.ndim else array
    else:
        array = np.full(array.shape, generator.choice((0, 1, -1, np.nan, np.inf, 1e38)))
    np.save(saved, array, allow_pickle=False)
    return saved.getvalue()


def mutate_zip(content: bytes, generator: random.Random) -> bytes:
    """Change one member of an archive, its name, how it is packed, or what its entry says of it."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error, OSError):
        return mutate_bytes(content, generator)  # an earlier mutation left nothing to be read
    if not members:
        return mutate_bytes(content, generator)
    name, way, made = generator.choice(list(members)), generator.randrange(7), io.BytesIO()
    if way <= 2:
        members[name] = mutate_npy(members[name], generator)
    elif way == 3:
        members[generator.choice(("../../x.npy", "/x.npy", "x" * 300, "a\nb.npy"))] = members.pop(name)
    elif way == 4:
        members[name] = members[name] + bytes(generator.choice((10**5, 10**8)))
    elif way == 5:
        del members[name]
    kind = generator.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    with zipfile.ZipFile(made, "w", kind if way != 4 else zipfile.ZIP_DEFLATED) as archive:
        for each, data in members.items():
            archive.writestr(each, data)
    packed = bytearray(made.getvalue())
    if way == 6:  # encrypted, another way to pack, or another size, says the directory
        at = packed.rfind(b"PK\1\2")
        offset = generator.choice((8, 10, 20, 24))
        packed[at + offset : at + offset + 2] = generator.choice((b"\1\0", b"\x63\0", b"\xff\xff"))
    return bytes(packed)


def mutate_file(path: Path, generator: random.Random) -> str:
    """Change a file's content in the way of its kind; says what was done."""
    if generator.random() < 0.1:
        path.write_bytes(mutate_bytes(path.read_bytes(), generator))
        return f"bytes of {path.name}"
    by_suffix: dict[str, Callable[[bytes, random.Random], bytes]] = {
        ".json": lambda content, g: mutate_json(content.decode(), g).encode(),
        ".jsonl": lambda content, g: mutate_lines(content.decode(), g).encode(),
        ".npz": mutate_zip,
        ".npy": mutate_npy,
        ".safetensors": mutate_safetensors,
    }
    mutate = by_suffix.get(path.suffix, mutate_bytes)
    content = path.read_bytes()
    try:
        changed = mutate(content, generator)
    except (ValueError, RecursionError, struct.error):  # an earlier mutation left nothing to be read
        changed = mutate_bytes(content, generator)
    path.write_bytes(changed)
    return f"content of {path.name}"


def mutate_safetensors(content: bytes, generator: random.Random) -> bytes:
    """Change the header or the numbers behind it, whole otherwise."""
    length = struct.unpack("<Q", content[:8])[0]
    header, data = content[8 : 8 + length], content[8 + length :]
    way = generator.randrange(5)
    if way == 0:
        header = mutate_json(header.decode(), generator).encode()
    elif way == 1:
        data = mutate_bytes(data, generator)
    elif way == 2:
        fill = generator.choice((float("nan"), float("inf"), 1e30, 0.0, -1.0))
        at = 4 * generator.randrange(max(1, len(data) // 4))
        data = data[:at] + struct.pack("<f", fill) + data[at + 4 :]
    elif way == 3:
        fill = generator.choice((float("nan"), 3e38, 1e18, 0.0))
        data = struct.pack("<f", fill) * (len(data) // 4)
    else:
        return mutate_bytes(content, generator)
    return struct.pack("<Q", len(header)) + header + data


def replace_file(path: Path, outside: Path, generator: random.Random) -> str:
    """Put something else in a file's place: a link, a pipe, a device, a folder, or nothing."""
    way = generator.choice(
        ("link to a secret", "link to a folder outside", "dangling", "loop", "pipe", "link to a pipe",
         "socket", "/dev/zero", "device", "/dev/tty", "folder", "empty", "gone", "sparse", "link within",
         "large")
    )  # fmt: skip
    content = path.read_bytes() if path.is_file() and path.stat().st_size < 1 << 20 else b""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
    if way == "link to a secret":
        path.symlink_to(outside / "secret.mp4")
    elif way == "link to a folder outside":
        path.symlink_to(outside / "folder")
    elif way == "dangling":
        path.symlink_to(outside / "nothing")
    elif way == "loop":
        path.symlink_to(path.name)
    elif way == "pipe":
        os.mkfifo(path)
    elif way == "link to a pipe":
        if not os.path.lexists(path.with_name("pipe")):
            os.mkfifo(path.with_name("pipe"))
        path.symlink_to("pipe")
    elif way == "socket":
        _bind(path)
    elif way in ("/dev/zero", "/dev/tty"):
        path.symlink_to(way)
    elif way == "device":
        try:
            os.mknod(path, 0o666 | 0o020000, os.makedev(1, 5))
        except PermissionError:
            path.symlink_to("/dev/zero")
    elif way == "folder":
        path.mkdir()
        (path / "inner").write_bytes(content)
    elif way == "empty":
        path.write_bytes(b"")
    elif way == "sparse":
        path.write_bytes(content)
        os.truncate(path, generator.choice((10**8, 2 * 10**9)))
    elif way == "link within":
        moved = f"moved-{path.name}"
        path.with_name(moved).write_bytes(content)
        path.symlink_to(moved)
    elif way == "large":
        path.write_bytes(content + b" " * 9_000_000)
    return f"{path.name}: {way}"


def _bind(path: Path) -> None:
    """A socket's name is bound by a short name: systems allow about a hundred characters."""
    here = os.open(".", os.O_RDONLY)
    try:
        os.chdir(path.parent)
        with socket.socket(socket.AF_UNIX) as end:
            end.bind(path.name[:100])
    finally:
        os.fchdir(here)
        os.close(here)


def add_entry(folder: Path, outside: Path, generator: random.Random) -> str:
    """Put something into a folder that does not belong there."""
    name = generator.choice(
        (b"Thumbs.db", b".DS_Store", "²".encode(), "٣".encode(), b"\xff\xfe", b"notes.txt", b"-1",
         b"9" * 30, b"a\nb", b"<b>[red]", b"last", b"best", b"0000000003", b"x.npz", b"x.mp4", b"result.json",
         b".tmp-0-x", b"x" * 255)
    )  # fmt: skip
    path = Path(os.fsdecode(os.path.join(os.fsencode(folder), name)))
    if os.path.lexists(path):
        return replace_file(path, outside, generator)
    kind = generator.choice(("bytes", "folder", "link", "pipe", "loop"))
    if kind == "bytes":
        path.write_bytes(generator.randbytes(30))
    elif kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(outside / generator.choice(("secret.mp4", "folder", "nothing")))
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(".")
    return f"{name!r} added: {kind}"


def resign(folder: Path) -> None:
    """Make every hash in a folder fit what is there now, so that what lies behind the hashes is reached."""
    for path in sorted(folder.rglob("*.json")):
        if not path.is_file() or path.is_symlink() or path.stat().st_size > 10**7:
            continue
        try:
            value = json.loads(path.read_text())
            changed = _resigned(path.parent, value)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            continue
        if changed:
            path.write_text(json.dumps(value))


def _resigned(folder: Path, value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    hashes = value.get("sha256")
    if isinstance(hashes, str):  # a policy's config
        value["sha256"] = _sha256(folder / "model.safetensors")
    elif isinstance(hashes, dict):  # a checkpoint's manifest, or a language model's
        value["sha256"] = {name: _sha256(folder / name) for name in hashes if (folder / name).is_file()}
    elif isinstance(value.get("files"), dict):  # a store's manifest
        for name, entry in value["files"].items():
            file = folder / f"{name}.npy"
            if isinstance(entry, dict) and file.is_file():
                entry |= {"bytes": file.stat().st_size, "sha256": _sha256(file)}
    else:
        return False
    from chibit.data import store

    if "content_hash" in value:
        value["content_hash"] = store._content_hash(value["files"])
    if "manifest_sha256" in value:
        value["manifest_sha256"] = store._manifest_hash(value)
    return True


def _sha256(path: Path) -> str:
    is_small = path.is_file() and path.stat().st_size < 10**8
    return hashlib.sha256(path.read_bytes()).hexdigest() if is_small else ""

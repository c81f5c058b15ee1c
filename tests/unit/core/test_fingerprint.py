"""One state of a file or folder is told from another."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from chibit.core.errors import UserError
from chibit.core.fingerprint import fingerprint


def test_large_files_are_looked_at_in_their_middle_too(tmp_path, monkeypatch):
    path = tmp_path / "large"
    path.write_bytes(bytes(5 << 20))
    status = SimpleNamespace(st_size=5 << 20, st_mtime_ns=0, st_ctime_ns=0, st_ino=0, st_mode=0o100644)
    monkeypatch.setattr(Path, "stat", lambda *_, **__: status)
    seen = set()
    for place in (None, 0, 5 << 19, (5 << 20) - 1):
        content = bytearray(5 << 20)
        if place is not None:
            content[place] = 1
        path.write_bytes(content)
        seen.add(fingerprint(path))
    assert len(seen) == 4


def test_a_folder_is_all_of_its_files(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "a").write_bytes(b"1")
    first = fingerprint(tmp_path)
    assert fingerprint(tmp_path) == first
    (tmp_path / "inner" / "b").write_bytes(b"")
    second = fingerprint(tmp_path)
    (tmp_path / "inner" / "a").write_bytes(b"2")
    assert len({first, second, fingerprint(tmp_path)}) == 3


def test_what_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match="nothing: no such file"):
        fingerprint(tmp_path / "nothing")

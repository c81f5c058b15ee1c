"""Downloads from a real server on this machine, one that can also misbehave."""

import contextlib
import hashlib
import http.server
import multiprocessing
import threading
import time

import numpy as np
import pytest

from chibit.core.errors import InputError, ResourceError
from chibit.data.fetch import download

CONTENT = np.random.default_rng(0).bytes(1_000_000)


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves one content under any name, by ranges; faults are switched on by the test."""

    def do_GET(self):
        server = self.server
        server.requests.append(self.headers.get("Range"))
        content, tag = server.content, f'"{hashlib.sha256(server.content).hexdigest()}"'
        if server.delay:
            time.sleep(server.delay)
        if self.path == "/missing":
            self.send_error(404)
            return
        start = 0
        asked = self.headers.get("Range")
        if self.headers.get("If-Range", tag) != tag:
            asked = None
        if asked and not server.ignores_ranges:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
        self.send_response(206 if start else 200)
        if not server.hides_length:
            self.send_header("Content-Length", str(len(content) - start))
        if server.tags:
            self.send_header("ETag", tag)
        self.end_headers()
        body = content[start:]
        if server.breaks:
            server.breaks -= 1
            body = body[: len(body) // 2]
        with contextlib.suppress(BrokenPipeError):  # the client may have given up
            self.wfile.write(body)

    def log_message(self, *_args):
        pass


@pytest.fixture
def server():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.requests, server.breaks, server.delay = [], 0, 0.0
    server.content, server.tags = CONTENT, True
    server.ignores_ranges = server.hides_length = False
    server.url = f"http://127.0.0.1:{server.server_port}/file"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def fetch(server, target):
    return download(server.url, target, progress=False)


def test_a_file_arrives_whole(server, tmp_path):
    target = tmp_path / "new" / "file.hdf5"
    assert fetch(server, target) == target
    assert target.read_bytes() == CONTENT
    assert not target.with_name("file.hdf5.part").exists()
    fetch(server, target)
    assert server.requests == [None]


def test_a_broken_connection_is_taken_up_where_it_broke(server, tmp_path):
    server.breaks = 2
    target = fetch(server, tmp_path / "file")
    assert target.read_bytes() == CONTENT
    assert server.requests == [None, "bytes=500000-", "bytes=750000-"]


def test_what_arrived_is_kept_for_a_later_call(server, tmp_path):
    server.breaks = 3
    target = tmp_path / "file"
    with pytest.raises(ResourceError, match="875000 of 1000000 bytes arrived"):
        fetch(server, target)
    assert not target.exists()
    assert fetch(server, target).read_bytes() == CONTENT
    assert server.requests[-1] == "bytes=875000-"


@pytest.mark.parametrize("num_calls", [1, 2])
def test_a_file_that_was_replaced_meanwhile_is_fetched_anew(server, tmp_path, num_calls):
    """Two versions have one length; half of each would pass for a whole file."""
    server.breaks = 3
    with pytest.raises(ResourceError, match="bytes arrived"):
        fetch(server, tmp_path / "file")
    server.content, server.breaks = bytes(reversed(CONTENT)), num_calls - 1
    assert fetch(server, tmp_path / "file").read_bytes() == server.content
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "file.lock"]


@pytest.mark.parametrize("kept", [b"", b"W/\xff\n", b'"of another"'])
def test_what_is_said_of_a_version_is_not_trusted(server, tmp_path, kept):
    (tmp_path / "file.part").write_bytes(CONTENT[:1000])
    (tmp_path / "file.part.version").write_bytes(kept)
    assert fetch(server, tmp_path / "file").read_bytes() == CONTENT


def test_a_server_that_tells_no_versions_is_taken_at_its_word(server, tmp_path):
    server.tags, server.breaks = False, 1
    assert fetch(server, tmp_path / "file").read_bytes() == CONTENT
    assert server.requests == [None, "bytes=500000-"]


def test_a_server_without_ranges_sends_all_of_it_again(server, tmp_path):
    server.ignores_ranges = True
    (tmp_path / "file.part").write_bytes(b"x" * 1000)
    assert fetch(server, tmp_path / "file").read_bytes() == CONTENT


def test_a_part_that_is_whole_already_is_taken(server, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT)
    assert fetch(server, tmp_path / "file").read_bytes() == CONTENT
    assert len(server.requests) == 1


def test_a_part_that_is_too_long_is_thrown_away(server, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT + b"x")
    assert fetch(server, tmp_path / "file").read_bytes() == CONTENT


def test_a_length_that_is_not_told_is_not_trusted(server, tmp_path):
    server.hides_length = True
    with pytest.raises(ResourceError, match="does not say how long"):
        fetch(server, tmp_path / "file")


def test_an_unreachable_server_is_said_within_seconds(tmp_path):
    begin = time.monotonic()
    with pytest.raises(
        ResourceError, match=r"http://127\.0\.0\.1:9/x\.hdf5: cannot be fetched .*put it into"
    ):
        download("http://127.0.0.1:9/x.hdf5", tmp_path / "x.hdf5", progress=False)
    assert time.monotonic() - begin < 5


def test_a_missing_file_is_said(server, tmp_path):
    with pytest.raises(ResourceError, match="Not Found"):
        download(server.url.replace("/file", "/missing"), tmp_path / "file", progress=False)
    assert not (tmp_path / "file").exists()


def test_a_silent_server_is_given_up(server, tmp_path, monkeypatch):
    monkeypatch.setattr("chibit.data.fetch.TIMEOUT_SECONDS", 0.2)
    server.delay = 1.0
    with pytest.raises(ResourceError, match="timed out"):
        fetch(server, tmp_path / "file")


def test_a_folder_that_is_a_file_is_refused(server, tmp_path):
    (tmp_path / "in_the_way").write_text("")
    with pytest.raises(InputError, match="in_the_way is a file and in the way of this folder"):
        fetch(server, tmp_path / "in_the_way" / "file")


def fetch_quietly(url, target):
    return download(url, target, progress=False).read_bytes() == CONTENT


def test_processes_that_want_the_same_file_fetch_it_once(server, tmp_path):
    server.delay = 0.5
    context = multiprocessing.get_context("fork")
    with context.Pool(3) as pool:
        jobs = [pool.apply_async(fetch_quietly, (server.url, tmp_path / "file")) for _ in range(3)]
        assert all(job.get(60) for job in jobs)
    assert len(server.requests) == 1

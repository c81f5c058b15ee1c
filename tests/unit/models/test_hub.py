"""Finding and reading foreign models: folders, a Hub over HTTP, no network, pickles and damaged files."""

from __future__ import annotations

import json
import os
import pickle
import socket
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlparse

import pytest
import torch
from safetensors.torch import save_file

from chibit.core.errors import DamagedFileError, InputError, UserError
from chibit.models.hub import model_folder, read_config, read_weights
from forked import Forked


def ask(model: str, home: Path, **environment: str) -> Forked:
    """Look a model up in a process with an empty cache, which imports the Hub's client itself."""

    def look() -> int:
        for name in [name for name in sys.modules if name.startswith("huggingface_hub")]:
            del sys.modules[name]
        for name in [name for name in os.environ if name.startswith("HF_")]:
            del os.environ[name]
        os.environ.update({"HF_HOME": str(home), "no_proxy": "127.0.0.1", **environment})
        start = time.perf_counter()
        try:
            folder = model_folder(model, flag="igpt:FOLDER")
            print(folder, sorted(read_weights(folder)))
        except UserError as error:
            print(error)
            return error.exit_code
        finally:
            print(time.perf_counter() - start, file=sys.stderr)
        return 0

    return Forked(look, home / "said")


def answer(asked: Forked) -> tuple[int, str, float]:
    """Exit code, output, and seconds that it took."""
    code, output, messages = asked.wait()
    assert "Traceback" not in messages
    return code, output.strip(), float(messages.split()[-1])


class Hub(ThreadingHTTPServer):
    """As much of the Hub's HTTP interface as a download needs, over real files."""

    def __init__(self, files: dict[str, dict[str, bytes]], proposals: list[dict[str, object]]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files, self.proposals = files, proposals  # files by revision

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, *, with_body: bool) -> None:
        path = urlparse(self.path).path.strip("/").replace("%2F", "/")
        status, body, headers = self.find(path)
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def find(self, path: str) -> tuple[int, bytes, dict[str, str]]:
        base = "api/models/someone/tiny"
        for revision, files in self.server.files.items():
            commit = revision.encode().hex().ljust(40, "0")
            if path == f"{base}/revision/{revision}":
                siblings = [{"rfilename": name} for name in files]
                info = {"id": "someone/tiny", "sha": commit, "siblings": siblings}
                return 200, json.dumps(info).encode(), {"Content-Type": "application/json"}
            if path == f"{base}/tree/{commit}":
                tree = [
                    {"type": "file", "path": name, "size": len(content), "oid": f"{len(content):040x}"}
                    for name, content in files.items()
                ]
                return 200, json.dumps(tree).encode(), {"Content-Type": "application/json"}
            for name, content in files.items():
                if path == f"someone/tiny/resolve/{commit}/{name}":
                    return 200, content, {"ETag": f'"{commit}{name}"', "X-Repo-Commit": commit}
        if path == f"{base}/discussions":
            listing = {"discussions": self.server.proposals, "count": len(self.server.proposals), "start": 0}
            return 200, json.dumps(listing).encode(), {"Content-Type": "application/json"}
        missing = {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}
        return (404, b"{}", missing) if path else (200, b"", {})


@pytest.fixture
def weights(tmp_path: Path) -> bytes:
    save_file({"a": torch.ones(2)}, tmp_path / "made.safetensors")
    return (tmp_path / "made.safetensors").read_bytes()


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub({}, [])
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def proposal(author: str) -> dict[str, object]:
    return {
        "title": "Adding `safetensors` variant of this model", "num": 3, "isPullRequest": True,
        "author": {"name": author}, "createdAt": "2023-01-01T00:00:00.000Z", "status": "open",
        "repo": {"name": "someone/tiny", "type": "model"},
    }  # fmt: skip


def test_a_model_is_downloaded_once_and_then_found_without_a_network(
    hub: Hub, weights: bytes, tmp_path: Path
) -> None:
    hub.files["main"] = {"config.json": b"{}", "model.safetensors": weights, "pytorch_model.bin": b"x"}
    code, output, _ = answer(ask("someone/tiny", tmp_path, HF_ENDPOINT=hub.url))
    assert code == 0 and output.endswith("['a']")
    folder = Path(output.partition(" ")[0])
    assert sorted(file.name for file in folder.iterdir()) == ["config.json", "model.safetensors"]
    again = answer(ask("someone/tiny", tmp_path, HF_HUB_OFFLINE="1"))
    assert again[:2] == (0, output)


@pytest.mark.slow
def test_a_pickle_on_the_hub_is_replaced_by_the_conversion_that_the_bot_proposes(
    hub: Hub, weights: bytes, tmp_path: Path
) -> None:
    hub.files["main"] = {"config.json": b"{}", "pytorch_model.bin": b"x"}
    hub.files["refs/pr/3"] = {"config.json": b"{}", "model.safetensors": weights}
    hub.proposals.append(proposal("a stranger"))
    code, output, _ = answer(ask("someone/tiny", tmp_path / "one", HF_ENDPOINT=hub.url))
    assert code == 3 and output.startswith("someone/tiny: the Hub has its weights as a pickle only")
    hub.proposals.append(proposal("SFconvertbot"))
    code, output, _ = answer(ask("someone/tiny", tmp_path / "two", HF_ENDPOINT=hub.url))
    assert code == 0 and output.endswith("['a']")


def test_a_model_that_the_hub_does_not_know(hub: Hub, tmp_path: Path) -> None:
    code, output, _ = answer(ask("someone/else", tmp_path, HF_ENDPOINT=hub.url))
    assert code == 2 and "no such model" in output and "igpt:FOLDER" in output


def test_no_network_fails_in_seconds_in_one_line_that_says_what_to_give(tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # accepts and never answers
        silent.listen(8)
        environments = (
            {"HF_ENDPOINT": "http://127.0.0.1:9"},
            {"HF_HUB_OFFLINE": "1"},
            {"HF_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}"},
        )
        asked = [ask("openai/imagegpt-small", tmp_path, **each) for each in environments]
        refused, offline, hanging = map(answer, asked)
    for code, output, seconds in (refused, offline, hanging):
        assert code == 4
        assert output.count("\n") == 0
        assert "cannot be reached" in output and "give a folder: igpt:FOLDER" in output
        assert seconds < 30
    assert "HF_HUB_OFFLINE" in offline[1] and "timed out" in hanging[1]


def test_a_folder_is_itself(tmp_path: Path) -> None:
    assert model_folder(str(tmp_path), flag="x") == tmp_path


@pytest.mark.parametrize(
    "source",
    ["./nowhere", "/nowhere/at/all", "a/b/c", "~/nowhere", "~nobody-here/x", "a;b", "../up", "", "a" * 300],
)
def test_neither_a_folder_nor_an_id(source: str) -> None:
    with pytest.raises(InputError):
        model_folder(source, flag="x")


@pytest.mark.parametrize("source", ["1e+38", "a+b", "x--y", "name" * 30])
def test_what_no_model_of_the_hub_can_be_called_is_said_so(source: str) -> None:
    with pytest.raises(InputError, match="no name that a model of the Hub can have"):
        model_folder(source, flag="gpt2:FOLDER")


def test_weights_are_read_as_float32_copies(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"half": torch.tensor([1.5, -2.0], dtype=torch.float16)}, path)
    read = read_weights(tmp_path)
    path.unlink()
    assert read["half"].dtype == torch.float32
    assert read["half"].tolist() == [1.5, -2.0]


def test_shards_are_joined(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "model-1.safetensors")
    save_file({"b": torch.ones(1)}, tmp_path / "model-2.safetensors")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert set(read_weights(tmp_path)) == {"a", "b"}
    (tmp_path / "model-2.safetensors").unlink()
    with pytest.raises(InputError, match="model-2.safetensors: no such file"):
        read_weights(tmp_path)


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/passwd", "model.bin", 3])
def test_a_shard_outside_the_folder_is_refused(tmp_path: Path, name: object) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(DamagedFileError):
        read_weights(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.99])
def test_truncated_weights_are_refused(tmp_path: Path, share: float) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(100)}, path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(DamagedFileError, match=r"model\.safetensors: not a whole safetensors file"):
        read_weights(tmp_path)


class _Bomb:
    def __reduce__(self) -> tuple[object, ...]:
        return (open, ("exploded", "w"))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pkl"])
def test_a_pickle_is_refused_unopened(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(pickle.dumps(_Bomb()))
    with pytest.raises(DamagedFileError, match="pickle.*convert") as refusal:
        read_weights(tmp_path)
    assert refusal.value.exit_code == 3
    assert not (tmp_path / "exploded").exists()


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no model.safetensors"):
        read_weights(tmp_path)
    with pytest.raises(InputError, match="config.json: no such file"):
        read_config(tmp_path)


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff\xfe", b""])
def test_a_damaged_config(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(UserError) as refusal:
        read_config(tmp_path)
    assert refusal.value.exit_code == 3

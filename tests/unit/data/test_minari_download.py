import http.server
import threading

import pytest

from chibit.core.errors import InputError, ResourceError
from chibit.data.load import load_dataset
from chibit.data.readers import minari_download

COPY = """
import os, pathlib, shutil, sys
target = pathlib.Path(os.environ["MINARI_DATASETS_PATH"]) / sys.argv[1]
shutil.copytree({source!r}, target)
"""


class NotFound(http.server.BaseHTTPRequestHandler):
    """A server that is there and has nothing."""

    def do_GET(self):
        self.send_error(404)

    do_HEAD = do_GET

    def log_message(self, *_args):
        pass


@pytest.fixture
def empty_server(monkeypatch):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), NotFound)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_downloaded_set_appears_whole_and_is_used(
    write_minari, hopper_episodes, home, tmp_path, monkeypatch, empty_server
):
    source = write_minari(hopper_episodes, dataset_id="far/hopper/random-v0")
    monkeypatch.setattr(minari_download, "_FETCH", COPY.format(source=str(source)))
    root = tmp_path / "fresh"
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(root))
    dataset = load_dataset("far/hopper/random-v0", progress=False)
    assert dataset.num_episodes == len(hopper_episodes)
    assert sorted(path.name for path in root.iterdir()) == ["far"]
    assert sorted(path.name for path in (root / "far/hopper/random-v0").iterdir()) == ["data"]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("raise ValueError('no such version')", InputError),
        ("raise OSError('connection lost')", ResourceError),
        ("import os; os.abort()", ResourceError),
    ],
)
def test_a_failed_download_leaves_nothing(home, tmp_path, monkeypatch, empty_server, code, kind):
    monkeypatch.setattr(minari_download, "_FETCH", code)
    with pytest.raises(kind, match="far/x-v0: Minari could not download it") as caught:
        load_dataset("far/x-v0", progress=False)
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "minari" / "far").iterdir()) == []


def test_minari_itself_says_that_there_is_no_such_set(home, empty_server):
    with pytest.raises((InputError, ResourceError), match="Minari could not download it"):
        load_dataset("far/hopper/random-v0", progress=False)

"""Attention maps and videos from run directories: drawn, embedded, bounded, or refused."""

import base64
import io
import pickle

import numpy as np
import pytest

from chibit.reporting.figures import media
from chibit.reporting.figures.media import attention_panels, embed_videos
from chibit.reporting.read.study import read_study


@pytest.fixture
def run(tmp_path, runs):
    return runs.write_run(tmp_path / "s", "dt", "hopper-medium-v2", 0, num_evaluations=2)


def edit(run, **changes):
    path = run / "attention" / "attention.npz"
    with np.load(path) as arrays:
        kept = dict(arrays)
    np.savez_compressed(path, **{k: v for k, v in {**kept, **changes}.items() if v is not None})


def test_one_panel_for_each_layer(run, runs):
    runs.write_attention(run, tokens=29)
    panels, refused = attention_panels(read_study(run.parent))
    assert refused == []
    assert [panel.title for panel in panels] == ["DT, layer 1 of 3", "DT, layer 2 of 3", "DT, layer 3 of 3"]
    assert "data:image/png;base64," in panels[0].svg
    assert "Attention of DT, layer 1" in panels[0].svg
    assert "temperature 0.1" in panels[0].note


def test_only_the_first_run_of_an_arm_is_drawn(run, runs):
    second = runs.write_run(run.parent, "dt", "hopper-medium-v2", 1, num_evaluations=2)
    for folder in (run, second):
        runs.write_attention(folder, tokens=8)
    panels, _ = attention_panels(read_study(run.parent))
    assert len(panels) == 3
    assert "seed 0" in panels[0].note


@pytest.mark.parametrize(
    "changes",
    [
        {"sharpened": None},
        {"layers": None},
        {"sharpened": np.ones((3, 4, 5))},
        {"sharpened": np.ones((2, 4, 4))},
        {"sharpened": np.full((3, 4, 4), np.nan)},
        {"sharpened": np.array(["a", "b", "c"])},
        {"sharpened": np.ones((3, 600, 600), dtype=np.float32)},
        {"num_layers": np.array([1, 2])},
        {"temperature": np.array("warm")},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_arrays_of_another_kind_are_refused_in_one_line(run, runs, changes):
    runs.write_attention(run, tokens=8)
    edit(run, **changes)
    panels, refused = attention_panels(read_study(run.parent))
    assert panels == []
    assert len(refused) == 1
    assert "attention.npz: not attention maps" in refused[0]
    assert "\n" not in refused[0]


def test_files_that_are_no_archive_are_refused(run):
    (run / "attention").mkdir()
    path = run / "attention" / "attention.npz"
    whole = io.BytesIO()
    np.savez_compressed(whole, sharpened=np.ones((1, 9, 9)))
    for content in (b"", b"not a zip", whole.getvalue()[:-30], pickle.dumps({"a": 1})):
        path.write_bytes(content)
        panels, refused = attention_panels(read_study(run.parent))
        assert (panels, len(refused)) == ([], 1)


def test_a_pickle_inside_an_archive_is_never_loaded(run, runs):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("the pickle was loaded",))

    runs.write_attention(run, tokens=8)
    edit(run, sharpened=np.array([Bomb()], dtype=object))
    panels, refused = attention_panels(read_study(run.parent))
    assert (panels, len(refused)) == ([], 1)


def test_an_archive_that_unpacks_to_too_much_is_refused_unopened(run, runs):
    runs.write_attention(run, tokens=8)
    edit(run, sharpened=np.zeros(10**7))
    panels, refused = attention_panels(read_study(run.parent))
    assert panels == []
    assert "sharpened is float64 (10000000,)" in refused[0]


def make_video(run, name, size=1000):
    (run / "videos").mkdir(exist_ok=True)
    content = b"\x00\x00\x00\x18ftypisom" + bytes(size)
    (run / "videos" / name).write_bytes(content)
    return content


def test_videos_are_embedded_whole(run):
    content = make_video(run, "target-3600.mp4")
    videos, left_out = embed_videos(read_study(run.parent))
    assert left_out == []
    assert videos[0].title == "DT on hopper-medium-v2: target-3600"
    head, _, data = videos[0].data_url.partition(",")
    assert head == "data:video/mp4;base64"
    assert base64.b64decode(data) == content


def test_videos_beyond_the_limit_are_left_out_and_named(run, monkeypatch):
    monkeypatch.setattr(media, "MAX_VIDEO_BYTES", 2500)
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        make_video(run, name)
    videos, left_out = embed_videos(read_study(run.parent))
    assert [video.title[-1] for video in videos] == ["a", "b"]
    assert len(left_out) == 1
    assert ": c: left out" in left_out[0]


def test_files_that_only_call_themselves_videos_are_left_out(run):
    (run / "videos").mkdir()
    (run / "videos" / "page.mp4").write_bytes(b"<html><script>alert(1)</script></html>")
    videos, left_out = embed_videos(read_study(run.parent))
    assert videos == []
    assert "not an MP4" in left_out[0]

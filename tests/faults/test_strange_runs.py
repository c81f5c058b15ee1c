"""A report on somebody else's runs: nothing outside is read, nothing waits, no traceback, a small page."""

import importlib.util
import json
import os
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from chibit.core.errors import InputError
from chibit.core.shared_folder import MANIFEST
from chibit.reporting.figures.media import attention_panels, embed_videos
from chibit.reporting.read.study import read_study
from chibit.reporting.report import build_report
from fault_guard import assert_refused, command, guarded, untouched

_SPEC = importlib.util.spec_from_file_location(
    "synthetic_runs", Path(__file__).parents[1] / "unit" / "reporting" / "synthetic_runs.py"
)
synthetic_runs = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(synthetic_runs)
FIRST_BYTES = b"\x00\x00\x00\x18ftypisom"


@pytest.fixture
def run(place):
    return write_run(place / "study", 0)


def write_run(study, seed, **options):
    return synthetic_runs.write_run(study, "dt", "hopper-medium-v2", seed, num_evaluations=4, **options)


def edit(path, change):
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def edit_lines(path, change):
    records = [json.loads(line) for line in path.read_text().splitlines()]
    for record in records:
        change(record)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def raw(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def returns_of(value):
    """Every return is `value`, and result.json says the same."""

    def change(run):
        def set_returns(record):
            record["episode_returns"] = [value] * len(record["episode_returns"])
            record["normalized_score"] = None

        edit_lines(run / "evaluations.jsonl", set_returns)

        def set_scores(record):
            for entry in record["scores"]:
                entry |= {"last": value, "last4": value, "best": value, "mean_return_last": value}
            record["behaviour_mean_return"] = value

        edit(run / "result.json", set_scores)

    return change


def set_key(name, *keys, value):
    def change(run):
        def set_value(record):
            for key in keys[:-1]:
                record = record[key]
            record[keys[-1]] = value

        edit(run / name, set_value)

    return change


STRANGE = {
    "returns of 1e299": returns_of(1e299),
    "returns of -1e299": returns_of(-1e299),
    "returns of 1e38": returns_of(1e38),
    "returns of 1e-320": returns_of(1e-320),
    "a return of 400 digits": returns_of(10**399),
    "a count of 400 digits": set_key("result.json", "parameters", "total", value=10**399),
    "a setting of 400 digits": set_key("config.json", "config", "agent", "learning_rate", value=10**399),
    "a setting of 5,000 digits": lambda run: raw(run / "config.json", "0.0001", "1" * 5000),
    "a seed beyond 64 bits": set_key("config.json", "config", "seed", value=2**63),
    "a time of 1e308": set_key("result.json", "train_seconds", value=1e308),
    "a mean of 1e299": set_key("result.json", "behaviour_mean_return", value=1e299),
    "1e999": lambda run: raw(run / "config.json", "0.0001", "1e999"),
    "NaN": lambda run: raw(run / "config.json", "0.0001", "NaN"),
    "a lone surrogate in the arm": lambda run: raw(run / "config.json", '"arm": "dt"', '"arm": "\\ud800"'),
    "a lone surrogate in a setting": lambda run: raw(run / "config.json", '"fp32"', '"\\udfff"'),
    "a lone surrogate as a key": lambda run: raw(run / "config.json", '"precision"', '"\\udfff"'),
    "a lone surrogate in the host": set_key("provenance.json", "host", value="\ud800"),
    "a message of 5 MB": lambda run: (
        (run / "result.json").unlink(),
        (run / "divergence.json").write_text(json.dumps({"step": 3, "message": "x" * 5_000_000})),
    ),
    "a message of 3 MB": lambda run: (
        (run / "result.json").unlink(),
        (run / "divergence.json").write_text(json.dumps({"step": 3, "message": "x" * 3_000_000})),
    ),
    "a status of 3 MB": set_key("result.json", "status", value="y" * 3_000_000),
    "a setting of 3 MB": set_key("config.json", "config", "agent", "init", value="z" * 3_000_000),
    "a command of 100,000 words": set_key("provenance.json", "argv", value=["word"] * 100_000),
    "a host of 100,000 names": set_key("provenance.json", "host", value=["word"] * 100_000),
    "100,000 settings": set_key("config.json", "config", "agent", value={f"k{i}": i for i in range(100_000)}),
    "a log line of 3 MB": lambda run: (run / "train.log").write_text("failed: " + "x" * 3_000_000),
    "nested 100 deep": set_key("config.json", "config", "agent", value=json.loads("[" * 100 + "]" * 100)),
    "nested 100,000 deep": lambda run: raw(run / "config.json", "0.0001", "[" * 100_000 + "]" * 100_000),
    "a log of one line without an end": lambda run: (run / "metrics.jsonl").write_text("{" * 1_000_000),
}  # fmt: skip


@pytest.mark.parametrize("strange", STRANGE)
def test_strange_values_make_no_traceback_and_no_large_page(place, run, strange):
    other = write_run(place / "study", 1)
    STRANGE[strange](run)
    paths = build_report(place / "study")
    assert paths.html.stat().st_size < 1_500_000
    assert other.name in paths.csv.read_text()


@pytest.mark.parametrize(
    "value", [1e38, -1e38, 1e-320, 0.0], ids=["huge", "very negative", "denormal", "zero"]
)
def test_extreme_returns_of_a_run_of_ones_own_are_drawn(place, value):
    for seed in (0, 1):
        returns_of(value)(write_run(place / "study", seed, normalized=False))
    study = read_study(place / "study")
    assert [run.seed for run in study.runs] == [0, 1]
    assert build_report(place / "study").html.stat().st_size < 1_500_000


FILES = ("config.json", "provenance.json", "result.json", "metrics.jsonl", "evaluations.jsonl", "train.log")
ODD = {
    "a pipe": lambda path, outside: os.mkfifo(path),
    "a folder": lambda path, outside: path.mkdir(),
    "a link to nothing": lambda path, outside: path.symlink_to("absent"),
    "a link to itself": lambda path, outside: path.symlink_to(path.name),
    "a link to /dev/zero": lambda path, outside: path.symlink_to("/dev/zero"),
    "a link outside": lambda path, outside: path.symlink_to(outside / "secret.bin"),
    "a link to /proc": lambda path, outside: path.symlink_to("/proc/self/environ"),
}


@pytest.mark.parametrize("odd", ODD)
def test_run_files_that_are_no_files_of_the_run_are_listed_and_not_opened(place, outside, odd):
    write_run(place / "study", 0)
    for seed, name in enumerate(FILES, start=1):
        run = write_run(place / "study", seed)
        (run / name).unlink()
        if name == "train.log":
            (run / "result.json").unlink()
        ODD[odd](run / name, outside)
    started = time.monotonic()
    with untouched(outside):
        study = read_study(place / "study")
    assert time.monotonic() - started < 5
    assert [run.seed for run in study.runs] == [0]
    assert len(study.excluded) == len(FILES)


@pytest.mark.parametrize("odd", ODD)
def test_media_that_are_no_files_of_the_run_are_left_out(run, outside, odd):
    for folder, name in (("videos", "a.mp4"), ("attention", "a.npz")):
        (run / folder).mkdir()
        ODD[odd](run / folder / name, outside)
    (outside / "secret.bin").write_bytes(FIRST_BYTES + b"secret")
    with untouched(outside):
        study = read_study(run.parent)
        videos, left_out = embed_videos(study)
        panels, refused = attention_panels(study)
    assert (videos, panels) == ([], [])
    assert len(left_out) == len(refused) == 1


def test_a_folder_of_media_that_is_a_link_outside_is_not_followed(run, outside):
    (outside / "a.mp4").write_bytes(FIRST_BYTES + b"secret")
    np.savez(outside / "a.npz", sharpened=np.ones((1, 2, 2), np.float32))
    for folder in ("videos", "attention"):
        (run / folder).symlink_to(outside)
    with untouched(outside):
        study = read_study(run.parent)
        assert [len(found) for found in (*embed_videos(study), *attention_panels(study))] == [0, 1, 0, 1]


def test_a_description_that_is_a_link_outside_is_not_opened(run, outside):
    (run / "config.json").unlink()
    (run / "config.json").symlink_to(outside / "secret.bin")
    with untouched(outside):
        verdict = guarded(command("report", run.parent), run.parent)
    assert verdict.code in (0, 2), verdict


def write_maps(path, **changes):
    arrays = {
        "sharpened": np.tril(np.full((1, 6, 6), 0.1, np.float32)), "layers": np.array([1]),
        "num_layers": np.int64(3), "temperature": np.float64(0.25),
    }  # fmt: skip
    path.parent.mkdir(exist_ok=True)
    np.savez(path, **arrays | changes)
    return path


def set_encrypted(path):
    content = bytearray(path.read_bytes())
    for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = content.find(signature)
        while at >= 0:
            content[at + place] |= 1
            at = content.find(signature, at + 1)
    path.write_bytes(content)


def with_member(path, name, content):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, content)


def header(text):
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


MAPS = {
    "encrypted": set_encrypted,
    "an infinite count": lambda path: write_maps(path, num_layers=np.float64("inf")),
    "a count of NaN": lambda path: write_maps(path, num_layers=np.float64("nan")),
    "layers of infinity": lambda path: write_maps(path, layers=np.array([np.inf])),
    "a temperature of infinity": lambda path: write_maps(path, temperature=np.float64("inf")),
    "shares of 1e300": lambda path: write_maps(path, sharpened=np.full((1, 6, 6), 1e300)),
    "complex numbers": lambda path: write_maps(path, sharpened=np.ones((1, 6, 6), complex)),
    "text": lambda path: write_maps(path, sharpened=np.array("x" * 100)),
    "objects": lambda path: write_maps(path, sharpened=np.array([{}], object)),
    "several counts": lambda path: write_maps(path, num_layers=np.arange(3)),
    "no counts": lambda path: write_maps(path, num_layers=np.arange(0)),
    "no layers": lambda path: write_maps(path, sharpened=np.ones((0, 6, 6)), layers=np.arange(0)),
    "a malformed header": lambda path: with_member(path, "sharpened.npy", header(b"{'descr': (((")),
    "a header of another kind": lambda path: with_member(path, "sharpened.npy", header(b"[1, 2]\n")),
    "a header that calls": lambda path: with_member(path, "sharpened.npy", header(b"__import__('os')\n")),
    "a negative shape": lambda path: with_member(
        path, "sharpened.npy", header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 2, 2)}\n")
    ),
    "a shape of 2**80": lambda path: with_member(
        path, "sharpened.npy", header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (%d,)}\n" % 2**80)
    ),
    "no archive": lambda path: path.write_bytes(b"PK\x03\x04 not one"),
    "nothing": lambda path: path.write_bytes(b""),
    "names outside": lambda path: with_member(path, "../sharpened.npy", b""),
}


@pytest.mark.parametrize("maps", MAPS)
def test_attention_maps_that_are_none_are_left_out_in_one_line(run, maps):
    path = write_maps(run / "attention" / "maps.npz")
    MAPS[maps](path)
    panels, refused = attention_panels(read_study(run.parent))
    if maps == "no layers":
        assert panels == []
        return
    assert panels == []
    assert len(refused) == 1
    assert "\n" not in refused[0]
    assert len(refused[0]) < 500


def test_names_that_are_no_unicode_are_shown_with_a_mark(place, run):
    strange = run.parent / os.fsdecode(b"dt-\xff\xfe")
    run.rename(strange)
    (strange / "videos").mkdir()
    (strange / "videos" / os.fsdecode(b"\xff.mp4")).write_bytes(FIRST_BYTES)
    verdict = guarded(command("report", place / "study"), place)
    assert verdict.code == 0, verdict.message
    assert "�" in (place / "study" / "report.html").read_text()


def test_a_report_of_a_folder_without_runs_writes_nothing(place):
    folders = {
        "subfolders": ["a/b.txt", "c/d/e.txt"],
        "a policy": ["p/README.md"],
        "someone's model": ["m/model.safetensors"],
        "nothing": [],
    }
    for name, files in folders.items():
        folder = place / name.replace(" ", "-")
        folder.mkdir()
        for file in files:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text("mine")
        (place / "a-policy" / "p").is_dir() and (place / "a-policy" / "p" / "config.json").write_text(
            '{"schema": 1, "agent": "bc", "config": {}}'
        )
        before = sorted(folder.rglob("*"))
        for arguments in ((folder,), (folder, "--out", place / "out")):
            assert_refused(guarded(command("report", *arguments), place), 2, "holds no run directories")
        assert sorted(folder.rglob("*")) == before
        assert not (place / "out").exists()
    assert_refused(guarded(command("report", "/etc"), place), 2, "/etc: ")


def test_a_report_replaces_no_file_of_somebody_elses(place, run):
    (run.parent / "scores.csv").write_text("my,own,table\n")
    verdict = guarded(command("report", run.parent), place)
    assert_refused(verdict, 2, "scores.csv: is there and was not written by this command")
    assert not (run.parent / "report.html").exists()
    (run.parent / "scores.csv").unlink()
    build_report(run.parent)
    build_report(run.parent, formats=["csv"])
    assert (run.parent / "report.html").exists()
    with open(run.parent / "report.md", "a") as file:
        file.write("What I make of it.\n")
    with pytest.raises(InputError, match=r"report.md: was changed since"):
        build_report(run.parent)


def test_a_report_of_an_earlier_version_is_replaced(run):
    paths = build_report(run.parent)
    before = paths.html.stat().st_ino
    (run.parent / MANIFEST).unlink()
    assert build_report(run.parent).html.stat().st_ino != before

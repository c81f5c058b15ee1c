"""The campaigns of `benchmarks/faults.py`, small: a few kills and mutants of every kind.

Continuous integration opens 50 of each kind of folder, specs and command lines (`make campaigns`).
"""

import subprocess
import sys
import time

import faults_kills
import faults_lines
import faults_mutations
import faults_watch
import pytest

from chibit.cli import VERBS
from chibit.core.errors import InputError


def test_kills(tmp_path, monkeypatch):
    monkeypatch.setenv("CHIBIT_HOME", str(tmp_path / "home"))
    found = faults_kills.kill_campaign(tmp_path, num_kills=4, num_in_save=2)
    assert (found["kills"], found["in_save"]) == (4, 2)
    assert not any(found[column] for column in ("lost", "torn", "unequal", "failed", "leftovers")), found


def test_kills_in_place_lose_files(tmp_path):
    """The campaign can fail: without a temporary name most kills leave nothing that can be read."""
    assert faults_kills.in_place_campaign(tmp_path, 3) > 0


WHOLE = ("policy folder", "run folder", "spec and config", "command line")
FILES = tuple(kind for kind in faults_mutations.KINDS if kind not in WHOLE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Originals are written once, for all campaigns."""
    return tmp_path_factory.mktemp("campaigns")


FEW = [(FILES, 3, 0), (WHOLE, 8, 0)]
MANY = [((kind,), 50, 1) for kind in WHOLE]


@pytest.mark.parametrize(
    ("kinds", "number", "seed"), [*FEW, *(pytest.param(*each, marks=pytest.mark.slow) for each in MANY)]
)
def test_mutations(kinds, number, seed, folder, monkeypatch):
    monkeypatch.setenv("CHIBIT_HOME", str(folder / "made"))
    table = faults_mutations.mutation_campaign(folder, number, seed, chosen=kinds)
    for kind, found in table.items():
        assert found["mutants"] == number
        assert not any(found[column] for column in faults_mutations.BAD), (kind, found)
    assert sum(found["refused"] for found in table.values()) > number / 10


def _raise(error):
    raise error


BAD_DEEDS = {
    "crashed": lambda place: _raise(ZeroDivisionError),
    "hung": lambda place: time.sleep(60),
    "outside": lambda place: (place.outside / "secret.mp4").read_bytes(),
    "executed": lambda place: subprocess.run(["true"]).returncode,
}


@pytest.mark.parametrize("outcome", BAD_DEEDS)
def test_what_must_not_happen_is_seen(outcome, tmp_path, monkeypatch):
    monkeypatch.setattr(faults_watch, "IDLE_SECONDS", 0.5)
    place = faults_watch.Place(tmp_path)
    place.empty()
    seen = faults_watch.run(lambda: BAD_DEEDS[outcome](place), place)
    assert faults_mutations._judge(seen, None)[0] == outcome, seen


def test_what_takes_too_much_memory_is_seen(tmp_path):
    """In a process of its own: what a process did before, it may use again without taking more."""
    code = (
        "import sys; sys.path[:0] = sys.argv[2:]\n"
        "import faults_watch, numpy; from pathlib import Path\n"
        "place = faults_watch.Place(Path(sys.argv[1])); place.empty()\n"
        "megabytes = faults_watch.MEGABYTES + 100\n"
        "for number in (megabytes, 9):\n"
        "    seen = faults_watch.run(lambda: len(numpy.ones(number << 17)), place)\n"
        "    print(seen.megabytes > faults_watch.MEGABYTES)"
    )
    program = [sys.executable, "-c", code, tmp_path, *sys.path]
    result = subprocess.run(program, capture_output=True, text=True, check=False)
    assert result.stdout.splitlines() == ["True", "False"], result.stderr


@pytest.mark.parametrize("name", ["user/notes", "tmp/left", "work/.tmp-1-x", "home/strange", "../beside"])
def test_files_that_must_not_be_written_are_seen(name, tmp_path):
    place = faults_watch.Place(tmp_path / "place")
    place.empty()
    seen = faults_watch.run(lambda: (place.root / name).write_text("x") and None, place)
    assert faults_mutations._judge(seen, None)[0] == "outside", seen
    assert not (tmp_path / "beside").exists()


def test_what_is_fine_is_called_fine(tmp_path):
    place = faults_watch.Place(tmp_path)
    place.empty()
    seen = faults_watch.run(lambda: (place.work / "result").write_text("x") and None, place)
    assert faults_mutations._judge(seen, None)[0] == "read", seen
    seen = faults_watch.run(lambda: _raise(InputError("seed: got -1, expected at least 0")), place)
    assert faults_mutations._judge(seen, None) == ("refused", "chibit: seed: got -1, expected at least 0")
    two_lines = faults_watch.run(lambda: print("chibit: one\nchibit: two", file=sys.stderr) or 2, place)
    assert faults_mutations._judge(two_lines, None)[0] == "crashed"


def test_command_lines_are_made_of_every_flag_of_every_command():
    names = {verb: {name for flag in faults_lines.flags_of(verb) for name in flag.names} for verb in VERBS}
    assert {"--agent", "--recipe", "--config", "--data", "--out"} <= names["train"]
    assert {"--size", "--corpus"} <= names["pretrain"]
    assert "--alpha" in {
        name for flag in faults_lines.flags_of("train", ("--agent", "td3_bc")) for name in flag.names
    }
    assert all("--help" in flags for flags in names.values())
    assert set(faults_lines._BASES) <= set(VERBS)

"""The campaigns of `benchmarks/faults.py`, small: a few kills and mutants of every kind."""

import contextlib
import io

import faults_kills
import faults_mutations


def test_kills(tmp_path, monkeypatch):
    monkeypatch.setenv("CHIBIT_HOME", str(tmp_path / "home"))
    found = faults_kills.kill_campaign(tmp_path, num_kills=4, num_in_save=2)
    assert (found["kills"], found["in_save"]) == (4, 2)
    assert not any(found[column] for column in ("lost", "torn", "unequal", "failed", "leftovers")), found


def test_kills_in_place_lose_files(tmp_path):
    """The campaign can fail: without a temporary name most kills leave nothing that can be read."""
    assert faults_kills.in_place_campaign(tmp_path, 3) > 0


def test_mutations(tmp_path, monkeypatch):
    monkeypatch.setenv("CHIBIT_HOME", str(tmp_path / "home"))
    with contextlib.redirect_stderr(io.StringIO()):
        table = faults_mutations.mutation_campaign(tmp_path, number=48)
    assert sum(found["mutants"] for found in table.values()) == 48
    for kind, found in table.items():
        assert not any(found[column] for column in faults_mutations.BAD), (kind, found)
    assert sum(found["refused"] for found in table.values()) > 10

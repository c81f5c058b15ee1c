"""Benchmarks that a move of code may break: each runs in a small form, whatever its figures are here."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_evaluation_compares_the_same_actions(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    arguments = ["--num-episodes", "1", "--steps", "3", "--rounds", "1"]
    monkeypatch.setattr(sys, "argv", ["evaluation.py", *arguments])
    importlib.import_module("evaluation").main()
    first, *table = capsys.readouterr().out.splitlines()
    assert float(first.rpartition(" ")[2]) < 1e-5 and len(table) == 4


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        "training_step.py --rounds 1",
        "sampling.py",
        "similarity.py --rounds 1",
        "policy.py",
        "loading.py --num-steps 20000",
        "pretraining.py --rounds 1",
        "report.py",
    ],
)
def test_the_others_run_to_their_end(command, tmp_path):
    run_small(command, tmp_path)


@pytest.mark.slow
def test_baselines_run_beside_their_peer(tmp_path):
    peer = os.environ.get("CHIBIT_PEER_PYTHON")
    if peer is None:
        pytest.skip("CHIBIT_PEER_PYTHON names no interpreter with d3rlpy")
    run_small(f"baselines.py --rounds 1 --agents bc td3_bc --peer-python {peer}", tmp_path)


def run_small(command, tmp_path):
    name, *arguments = command.split()
    environment = {**os.environ, "CHIBIT_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / name), *arguments],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip()

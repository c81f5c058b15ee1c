"""The benchmark of a GPU in its smallest form, on the device made of the CPU."""

import importlib
from pathlib import Path


def test_every_part_runs_there(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    gpu = importlib.import_module("gpu")
    monkeypatch.setattr(gpu.gpu_parts, "timed", timed_once)
    with gpu.at_hand("pretend"):
        rows, is_good = gpu.measure("pretend", gpu.SMALL, seconds=1e9)
    assert is_good and {name for name, _ in rows} == set(gpu.PARTS)
    assert not [row for _, row in rows if row.what == "failed"]


def timed_once(step, device, number):
    """In place of a measurement: one step."""
    step()
    return 1e-3

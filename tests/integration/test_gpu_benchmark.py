"""The benchmark of a GPU in its smallest form, on the CPU; tests/device has it on the tests' device."""

import importlib
from pathlib import Path

import pytest
import torch

from chibit.core.errors import InputError

BENCHMARKS = str(Path(__file__).parents[2] / "benchmarks")


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("gpu")


def test_every_part_gives_rows_and_a_table(gpu, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu.gpu_parts, "timed", timed_once)
    monkeypatch.setattr(gpu.gpu_parts.importlib.util, "find_spec", lambda name: None)
    assert gpu.main(["--device", "cpu", "--small", "--out", str(tmp_path / "table.md")]) == 0
    lines = (tmp_path / "table.md").read_text().splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines[4:]]
    assert {row[0] for row in rows} == set(gpu.PARTS)
    assert not [row for row in rows if "failed" in row[1]]
    assert [row[1] for row in rows if row[0] == "a step of a stack"][:2] == ["1 runs fp32", "3 runs fp32"]
    assert "d3rlpy, compile_graph" in capsys.readouterr().out


def test_the_memory_of_a_stack_is_counted_anew(gpu, monkeypatch):
    """Else what a larger stack took before hides what this one takes."""
    peak = [9_000]
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 2_000)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: peak.append(2_000))
    assert gpu.gpu_parts.begin_memory("cuda") == peak[-1] == 2_000
    assert gpu.gpu_parts.begin_memory("cpu") == 0


def test_losses_that_differ_end_it_with_1_and_what_fails_is_said(gpu, monkeypatch, capsys):
    def broken(device, sizes):
        raise InputError("no such thing")

    other = gpu.gpu_parts.losses
    count = []

    def differs(config, sizes, runtime):
        count.append(runtime)
        share = 1 + 0.1 * (len(count) % 2)
        return [
            {name: share * value for name, value in step.items()} for step in other(config, sizes, runtime)
        ]

    monkeypatch.setattr(gpu.gpu_parts, "losses", differs)
    monkeypatch.setattr(gpu, "PARTS", {"parity": gpu_first(gpu.gpu_parts.parity), "broken": broken})
    assert gpu.main(["--device", "cpu", "--small"]) == 1
    said = capsys.readouterr().out
    assert "| broken | failed |  | InputError: no such thing |" in said
    assert gpu.main(["--device", "cuda:99", "--small"]) == 2


def gpu_first(part):
    """The first row of a part alone."""
    return lambda *arguments: iter([next(part(*arguments))])


def timed_once(step, device, number):
    """In place of a measurement: one step."""
    step()
    return 1e-3

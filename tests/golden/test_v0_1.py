"""Folders that version 0.1.0 wrote are read, resumed, evaluated and reported by this one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import chibit
from chibit.cli import main
from chibit.core.checkpoint import load_checkpoint
from chibit.data.store import open_store
from chibit.training.offline import train
from chibit.training.run_config import from_record
from golden.environment import fingerprint

WRITTEN = Path(__file__).with_name("v0_1")
EXPECTED = json.loads((WRITTEN / "expected.json").read_text())


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A copy to work in."""
    shutil.copytree(WRITTEN, tmp_path / "old")
    monkeypatch.chdir(tmp_path / "old")
    return tmp_path / "old"


def test_a_store_is_opened(folder):
    with np.load("data.npz") as archive:
        columns = dict(archive)
    for verify in ("size", "hash"):
        dataset = open_store(folder / "store", verify=verify)
        assert dataset.content_hash == EXPECTED["content_hash"]
        for name in ("observations", "actions", "rewards"):
            np.testing.assert_allclose(getattr(dataset, name), columns[name], rtol=1e-6, atol=1e-7)
        assert dataset.episode_lengths.tolist() == [30] * 8
    assert dataset.spec.env_id == "Pendulum-v1"


def test_a_policy_acts_as_it_did(folder):
    policy = chibit.Policy.from_pretrained("policy")
    policy.reset()
    np.testing.assert_allclose(policy.act(EXPECTED["observation"]), EXPECTED["action"], rtol=1e-4)


def test_a_run_is_reported(folder, capsys):
    assert main(["report", "run", "--out", "page"]) == 0
    result = json.loads(Path("run/result.json").read_text())
    [row] = [row for row in result["scores"] if row["target_return"] == -200.0]
    score = f"{row['last4']:,.0f}".replace("-", "\N{MINUS SIGN}")
    assert f"Random init reaches a return of {score} on data" in Path("page/report.md").read_text()
    printed = capsys.readouterr().out
    assert "Random init" in printed and score in printed


def test_a_run_is_evaluated_and_exported(folder, capsys):
    assert main(["evaluate", "run", "--num-episodes", "1", "--device", "cpu"]) == 0
    assert main(["export", "run", "--out", "again", "--no-video"]) == 0
    first, second = (chibit.Policy.from_pretrained(name) for name in ("policy", "again"))
    for policy in (first, second):
        policy.reset()
    assert np.array_equal(first.act(EXPECTED["observation"]), second.act(EXPECTED["observation"]))


def test_a_run_is_resumed_and_ends_where_it_did(folder):
    """From its checkpoint at step 4: to the bit where the bits can be the same, else to rounding."""
    written = load_checkpoint(folder / "run" / "checkpoints", 8).tensors
    shutil.rmtree(folder / "run" / "checkpoints" / "0000000008")
    (folder / "run" / "result.json").unlink()
    record = json.loads(Path("run/config.json").read_text())["config"]
    result = train(from_record(record), folder / "run", progress=False)
    assert result["steps"] == 8
    found = load_checkpoint(folder / "run" / "checkpoints", 8).tensors
    assert found.keys() == written.keys()
    for name, tensor in written.items():
        if fingerprint() == EXPECTED["environment"]:
            assert torch.equal(found[name], tensor), name
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-6)
    log = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == [2, 4, 6, 8]


def test_a_finished_run_is_not_run_again(folder):
    record = json.loads(Path("run/config.json").read_text())["config"]
    before = Path("run/result.json").read_bytes()
    result = train(from_record(record), folder / "run", progress=False)
    assert Path("run/result.json").read_bytes() == before
    assert result["scores"] == json.loads(before)["scores"]

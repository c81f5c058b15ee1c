"""Whole runs on a device that is not the CPU: what they wait for, checkpoints, and who reads those."""

import json
import signal
import subprocess
import sys
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import torch

from baseline_toys import small_config
from chibit.agents import AGENTS
from chibit.core import memory
from chibit.core.checkpoint import load_checkpoint
from chibit.core.errors import DamagedFileError, DivergenceError
from chibit.core.signals import Stopped
from chibit.data.text.synthetic import SyntheticConfig
from chibit.losses.similarity import spherical_kmeans
from chibit.models.gpt import GPTConfig
from chibit.training import stacked
from chibit.training.loop import Loop
from chibit.training.offline import OfflineRun, train
from chibit.training.pretrain.config import PretrainConfig
from chibit.training.pretrain.loop import pretrain
from chibit.training.run_config import RunConfig
from pretend_device import PretendTensor, pretend_device
from sequence_toys import SMALL

TEXT = PretrainConfig(
    corpus="markov",
    synthetic=SyntheticConfig(num_states=6, temperature=0.2, num_sequences=40, sequence_length=64),
    gpt=GPTConfig(n_layer=1, n_embd=16, attn_dropout=0.1, resid_dropout=0.1, embd_dropout=0.0),
    n_positions=32,
    block_length=16,
    batch_tokens=128,
    micro_batch_tokens=64,
    num_steps=6,
    warmup_steps=2,
    evaluate_every=4,
    validation_tokens=100,
    sample_tokens=5,
    log_every=3,
    device="pretend",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Six episodes of ten steps of Pendulum's sizes."""
    path, draw = tmp_path_factory.mktemp("data") / "made.npz", np.random.default_rng(0)
    np.savez(
        path,
        env_id="Pendulum-v1",
        observations=draw.normal(size=(60, 3)),
        actions=draw.uniform(-2, 2, (60, 1)),
        rewards=draw.normal(size=60),
        terminations=np.arange(60) % 10 == 9,
    )
    return path


def config_of(data, agent, **fields):
    """A run of six steps, with a line of the log and a checkpoint after three; dt would play for long."""
    usual = {"num_steps": 6, "evaluate_every": 3, "num_episodes": int(agent != "dt"), "log_every": 3}
    usual["device"] = "pretend"
    made = AGENTS["dt"].config(**SMALL) if agent == "dt" else small_config(agent)
    return RunConfig(data=str(data), agent=made, **{**usual, **fields})


@pytest.fixture
def waits(monkeypatch):
    """For each step: what it waited for, as `pretend_device` counts it, and how often something was sent."""
    kept, step = [], Loop._step

    def counted(self):
        self.seen.clear()
        step(self)
        kept.append((dict(self.seen.syncs), sum(self.seen.copies.values())))

    monkeypatch.setattr(Loop, "_step", counted)
    return kept


def test_memory_is_limited_on_the_cpu_alone(data, tmp_path, monkeypatch):
    limits = []
    monkeypatch.setattr(memory, "limit_data", lambda most: limits.append(most))
    for device, count in (("pretend", 0), ("auto", 1)):
        with pretend_device():
            config = config_of(data, "bc", num_steps=1, num_episodes=0, device=device)
            train(config, tmp_path / device, progress=False)
        assert len(limits) == count


@pytest.mark.parametrize("agent", ["dt", "td3_bc", "awr"])
def test_a_run_waits_only_where_it_logs_saves_and_plays(data, tmp_path, monkeypatch, waits, agent):
    config = config_of(data, agent, validation_share=0.2)
    with pretend_device() as seen:
        monkeypatch.setattr(Loop, "seen", seen, raising=False)
        result = train(config, tmp_path / "run", progress=False)
    copies = [2, 1, 2, 1, 1, 1] if agent == "awr" else [1] * 6  # more where AWR values all its data
    assert waits == [({}, count) for count in copies]
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [3, 6] and all(
        np.isfinite(line["train/loss"]) for line in lines
    )
    assert result["steps"] == 6
    computed = json.loads((tmp_path / "run" / "provenance.json").read_text())["computed"]
    assert computed == {"device": "pretend", "name": None, "precision": "fp32"}


def test_pre_training_waits_only_where_it_logs_and_evaluates(tmp_path, monkeypatch, waits):
    with pretend_device() as seen:
        monkeypatch.setattr(Loop, "seen", seen, raising=False)
        result = pretrain(TEXT, tmp_path / "run", progress=False)
    assert waits == [({}, 1)] * 6
    assert np.isfinite(result["held_out_loss"])


def test_a_bad_step_is_told_of_at_the_next_line_with_its_own_number_and_rows(data, tmp_path, monkeypatch):
    drawn, update = [], OfflineRun.update

    def spoil(self):
        if self.state.step == 1:
            batch = self.sampler.sample()
            drawn.extend(batch.rows.tolist())
            batch.states[0, 0] = torch.nan
            return self.agent.update(batch)
        return update(self)

    monkeypatch.setattr(OfflineRun, "update", spoil)
    with pretend_device(), pytest.raises(DivergenceError, match="is nan at step 1, expected"):
        train(config_of(data, "bc"), tmp_path / "run", progress=False)
    record = json.loads((tmp_path / "run" / "divergence.json").read_text())
    assert (record["step"], record["rows"]) == (1, drawn)
    assert (
        not (tmp_path / "run" / "metrics.jsonl").exists() and not (tmp_path / "run" / "checkpoints").exists()
    )


def test_a_run_goes_on_exactly_there_and_is_evaluated_where_there_is_no_such_device(data, tmp_path):
    config = config_of(data, "dt")
    with pretend_device():
        train(config, tmp_path / "whole", progress=False)
        with pytest.raises(Stopped):
            train_until(3, config, tmp_path / "part")
        train(config, tmp_path / "part", progress=False)
    whole, part = (load_checkpoint(tmp_path / name / "checkpoints").tensors for name in ("whole", "part"))
    assert all(torch.equal(tensor, part[name]) for name, tensor in whole.items())
    script = (
        "import sys; from pathlib import Path\n"
        "from chibit.cli import main; from chibit.core.checkpoint import load_checkpoint\n"
        "run = Path(sys.argv[1]); state = load_checkpoint(run / 'checkpoints').state\n"
        "assert state['agent']['optimizer']['state'][0]['exp_avg'].device.type == 'cpu'\n"
        "sys.exit(main(['evaluate', str(run), '--num-episodes', '1', '--device', 'cpu']))"
    )
    plain = [sys.executable, "-c", script, str(tmp_path / "whole")]
    ended = subprocess.run(plain, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_a_run_goes_on_elsewhere_only_where_that_is_allowed(data, tmp_path):
    config = config_of(data, "dt")
    with pretend_device():
        train(config, tmp_path / "run", progress=False)
    (tmp_path / "run" / "result.json").unlink()
    elsewhere = replace(config, device="cpu")
    with pytest.raises(DamagedFileError, match="drawn on pretend, the run would go on with cpu"):
        train(elsewhere, tmp_path / "run", progress=False)
    train(elsewhere, tmp_path / "run", progress=False, allow_inexact_resume=True)
    assert "random numbers begin anew" in (tmp_path / "run" / "train.log").read_text()


def test_words_are_clustered_there_into_the_centers_of_the_cpu():
    words = torch.randn(60, 8, generator=torch.Generator().manual_seed(0))
    expected = spherical_kmeans(words, 5)
    with pretend_device():
        centers = spherical_kmeans(words.to("pretend"), 5)
        assert isinstance(centers, PretendTensor) and torch.allclose(centers.cpu(), expected, atol=1e-5)


def train_until(step, config, path):
    """Train until a signal that comes in a step."""
    step_of_loop = Loop._step

    def stopping(self):
        step_of_loop(self)
        if self.state.step == step:
            self.stop.signal_number = signal.SIGTERM

    with mock.patch.object(Loop, "_step", stopping):
        train(config, path, progress=False)


def test_a_stack_waits_only_where_it_logs_saves_and_plays(data, tmp_path, monkeypatch):
    kept, step = [], stacked._Stack._step

    def counted(self):
        seen.clear()
        step(self)
        kept.append((dict(seen.syncs), sum(seen.copies.values())))

    monkeypatch.setattr(stacked._Stack, "_step", counted)
    agent = AGENTS["dt"].config(**{**SMALL, "dropout": 0.2})
    configs = [replace(config_of(data, "dt", seed=seed), agent=agent) for seed in range(3)]
    paths = [tmp_path / f"run{seed}" for seed in range(3)]
    with pretend_device() as seen:
        ended = stacked.train_stack(list(zip(configs, paths, strict=True)))
        train(configs[1], tmp_path / "alone", progress=False)
    assert ended == dict.fromkeys(paths)
    assert kept == [({}, 1)] * 6
    here, there = (load_checkpoint(path / "checkpoints") for path in (paths[1], tmp_path / "alone"))
    torch.testing.assert_close(dict(here.tensors), dict(there.tensors), rtol=1e-3, atol=1e-4)
    assert here.state["agent"]["dropout_seed"] == there.state["agent"]["dropout_seed"]
    lines = (tmp_path / "run1" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [3, 6]

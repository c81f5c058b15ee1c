"""Behavior policies: what they compute, how they are stored, and what is shipped."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from chibit.core.errors import DamagedFileError, InputError
from chibit.data.collect.behavior import BehaviorPolicy, Ladder, PolicyRecord, load_ladder
from chibit.data.collect.behavior.ladder import (
    POLICY_FOLDER,
    random_policy,
    read_ladder,
    save_ladder,
)
from chibit.environments.make import make_env
from chibit.environments.registry import OWN_IDS

RECORD = PolicyRecord(name="step-000000001", algorithm="ppo", train_steps=1)


def tiny_policy(activation: str = "relu", record: PolicyRecord = RECORD) -> BehaviorPolicy:
    """Two observations, two hidden units, one action."""
    first = (np.array([[1.0, 0.0], [0.0, 2.0]], np.float32), np.array([0.0, -1.0], np.float32))
    second = (np.array([[0.5, -0.25]], np.float32), np.array([0.1], np.float32))
    log_std = np.log(np.array([0.5], np.float32))
    return BehaviorPolicy(replace(record, activation=activation), [first, second], log_std)


def tiny_ladder() -> Ladder:
    expert = tiny_policy(
        "tanh", PolicyRecord(name="expert", algorithm="dagger", train_steps=7, mean_score=99.5)
    )
    return Ladder(
        env_name="hopper",
        env_id="Hopper-v5",
        physics={"contact_margin": "max"},
        policies=(random_policy(1, mean_score=0.0), tiny_policy(), expert),
    )


def test_action_is_mean_plus_scaled_noise_and_is_clipped() -> None:
    observations = np.array([[1.0, 1.0], [-1.0, 0.0], [4.0, 0.0]])
    # hidden: (1, 1), (0, 0), (4, 0); mean: 0.5 - 0.25 + 0.1, 0.1, 2.1
    noise = np.array([[0.0], [-1.0], [-0.2]], np.float32)
    actions = tiny_policy().act(observations, noise)
    np.testing.assert_allclose(actions, [[0.35], [-0.4], [1.0]], rtol=1e-6)
    assert actions.dtype == np.float32


def test_tanh_policy() -> None:
    mean = tiny_policy("tanh").mean(np.array([[1.0, 1.0]]))
    np.testing.assert_allclose(mean, [[0.5 * np.tanh(1.0) - 0.25 * np.tanh(1.0) + 0.1]], rtol=1e-6)


def test_random_policy_is_uniform() -> None:
    policy = random_policy(3)
    noise = policy.draw_noise(np.random.default_rng(0), 20_000)
    actions = policy.act(np.zeros((20_000, 5)), noise)
    assert actions.dtype == np.float32 and np.abs(actions).max() <= 1.0
    np.testing.assert_allclose(actions.mean(0), 0.0, atol=0.02)
    np.testing.assert_allclose((actions**2).mean(0), 1 / 3, atol=0.02)


def test_trained_policy_draws_standard_normal_noise() -> None:
    noise = tiny_policy().draw_noise(np.random.default_rng(0), 50_000)
    assert noise.shape == (50_000, 1) and noise.dtype == np.float32
    np.testing.assert_allclose([noise.mean(), noise.std()], [0.0, 1.0], atol=0.02)


def test_ladder_survives_its_file(tmp_path: Path) -> None:
    ladder = tiny_ladder()
    save_ladder(ladder, tmp_path / "hopper.safetensors")
    back = read_ladder(tmp_path / "hopper.safetensors")
    assert (back.env_name, back.env_id, back.physics) == ("hopper", "Hopper-v5", {"contact_margin": "max"})
    assert [p.record.name for p in back.policies] == ["random", "step-000000001", "expert"]
    assert back.expert.record == ladder.expert.record
    observations = np.random.default_rng(1).normal(size=(4, 2))
    for old, new in zip(ladder.policies[1:], back.policies[1:], strict=True):
        np.testing.assert_array_equal(old.mean(observations), new.mean(observations))
        np.testing.assert_array_equal(old.log_std, new.log_std)


def test_rungs_have_names() -> None:
    ladder = tiny_ladder()
    assert ladder.random.record.name == "random"
    assert ladder.medium.record.name == "step-000000001"
    assert ladder.expert.record.name == "expert"
    assert [p.record.name for p in ladder.replay] == ["random", "step-000000001"]


@pytest.mark.parametrize("keep", [0, 7, 200, -1])
def test_truncated_file_is_refused(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "hopper.safetensors"
    save_ladder(tiny_ladder(), path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DamagedFileError, match=r"hopper\.safetensors: not a whole safetensors file"):
        read_ladder(path)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DamagedFileError, match="no such file"):
        read_ladder(tmp_path / "none.safetensors")


def test_other_safetensors_files_are_refused(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"weight": np.zeros(3)}, tmp_path / "other.safetensors", metadata={"format": "pt"})
    with pytest.raises(DamagedFileError, match="format 'pt', expected"):
        read_ladder(tmp_path / "other.safetensors")


def test_ladder_without_its_tensors_is_refused(tmp_path: Path) -> None:
    from safetensors import safe_open
    from safetensors.numpy import save_file

    save_ladder(tiny_ladder(), tmp_path / "whole.safetensors")
    with safe_open(tmp_path / "whole.safetensors", framework="numpy") as file:
        metadata = file.metadata()
    save_file({"random/log_std": np.zeros(1)}, tmp_path / "part.safetensors", metadata=metadata)
    with pytest.raises(DamagedFileError, match="incomplete ladder"):
        read_ladder(tmp_path / "part.safetensors")


def test_unknown_ladder_names_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'hopper'"):
        load_ladder("hoper")


def test_policies_run_without_torch() -> None:
    code = (
        "import sys, chibit.data.collect.behavior as b; b.load_ladder('hopper'); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("env_name", OWN_IDS)
def test_shipped_ladder_keeps_its_promises(env_name: str) -> None:
    ladder = load_ladder(env_name)
    records = [policy.record for policy in ladder.policies]
    assert records[0].name == "random" and records[0].algorithm == "uniform"
    assert len(ladder.replay) >= 8
    assert [r.train_steps for r in records[:-1]] == sorted(r.train_steps for r in records[:-1])
    assert 30 <= ladder.medium.record.mean_score <= 60
    assert ladder.expert.record.mean_score >= 85
    assert min(r.num_episodes for r in records) >= 20
    assert ladder.physics["contact_margin"] == "max" and ladder.env_id == OWN_IDS[env_name]


@pytest.mark.parametrize("env_name", OWN_IDS)
def test_shipped_policies_fit_their_environment(env_name: str) -> None:
    ladder = load_ladder(env_name)
    env = make_env(ladder.env_id)
    observations = np.stack([env.reset(seed=seed)[0] for seed in range(3)])
    for policy in ladder.policies:
        noise = policy.draw_noise(np.random.default_rng(0), 3)
        actions = policy.act(observations, noise)
        assert actions.shape == (3, *env.action_space.shape)
        assert np.abs(actions).max() <= 1.0
        # Every one of them is stochastic.
        assert np.abs(actions - policy.act(observations, -noise)).max() > 0.01


def test_shipped_policies_stay_small() -> None:
    assert sum(path.stat().st_size for path in POLICY_FOLDER.iterdir()) < 3_000_000

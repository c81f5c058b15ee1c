"""The scripts that make the policies: folding, choosing, imitating."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from chibit.data.collect.behavior import BehaviorPolicy, PolicyRecord
from chibit.data.collect.behavior.ladder import random_policy

SCRIPTS = Path(__file__).parents[3] / "scripts"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickling look modules up here
    spec.loader.exec_module(module)
    return module


def test_folded_actor_equals_the_trained_network() -> None:
    pytest.importorskip("stable_baselines3", reason="only the policies' producers need stable-baselines3")
    training = script("train_behavior_policies")
    model, normalized = training.make_model("hopper", seed=0)
    generator = np.random.default_rng(0)
    normalized.obs_rms.mean = generator.normal(size=11)
    normalized.obs_rms.var = generator.uniform(0.1, 4.0, size=11)
    record = PolicyRecord(name="x", algorithm="ppo", train_steps=0)
    actor = training.policy_from_arrays(training.folded_actor(model, normalized), record)
    observations = generator.normal(size=(16, 11))
    expected, _ = model.predict(normalized.normalize_obs(observations), deterministic=True)
    np.testing.assert_allclose(np.clip(actor.mean(observations), -1, 1), expected, atol=1e-5)
    np.testing.assert_allclose(actor.log_std, -1.0)


def test_student_folds_its_normalization() -> None:
    distil = script("distil_experts")
    torch.manual_seed(0)
    student = distil.Student(5, 2, width=8)
    student.center.copy_(torch.randn(5))
    student.scale.copy_(torch.rand(5) + 0.5)
    observations = np.random.default_rng(0).normal(size=(9, 5)).astype(np.float32)
    expected = student(torch.from_numpy(observations)).detach().numpy()
    actor = student.policy(0.1, train_steps=3)
    np.testing.assert_allclose(actor.mean(observations), expected, atol=1e-5)
    np.testing.assert_allclose(np.exp(actor.log_std), 0.1, rtol=1e-6)


def test_imitation_loss_forgives_only_what_clipping_hides() -> None:
    loss = script("distil_experts").imitation_loss
    one = torch.tensor([[1.0]])
    assert loss(1.7 * one, 0.99 * one) == 0.0  # beyond the bound the teacher is at
    assert loss(-1.7 * one, -0.99 * one) == 0.0
    assert loss(0.8 * one, one).item() == pytest.approx(0.04)  # short of it
    assert loss(1.7 * one, 0.5 * one).item() == pytest.approx(1.44)  # the teacher is not at a bound
    assert loss(-1.7 * one, 0.99 * one).item() == pytest.approx(2.69**2)  # the wrong bound


def test_snapshots_are_chosen_evenly_up_to_medium() -> None:
    scores = {0: 0.0, 10: 11.0, 20: 21.0, 30: 22.0, 40: 29.0, 50: 41.0, 60: 80.0}
    tried = [
        BehaviorPolicy(
            PolicyRecord(name=str(steps), algorithm="ppo", train_steps=steps, mean_score=score),
            [],
            np.zeros(1),
        )
        for steps, score in scores.items()
    ]
    assert script("build_ladders").choose(tried, medium=40.0, count=4) == [0, 10, 40, 50]


def test_rounding_scales_the_noise(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "actor.npz",
        weight0=np.ones((2, 3)),
        bias0=np.zeros(2),
        log_std=np.log([0.4, 0.2]),
        train_steps=12,
    )
    record = PolicyRecord(name="x", algorithm="ppo", train_steps=0)
    actor = script("build_ladders").rounded_policy(tmp_path / "actor.npz", record, noise_scale=0.5)
    assert actor.record.train_steps == 12 and actor.layers[0][0].dtype == np.float16
    np.testing.assert_allclose(np.exp(actor.log_std.astype(np.float32)), [0.2, 0.1], rtol=2e-3)


def test_a_measured_policy_knows_its_score() -> None:
    measured = script("build_ladders").measured(random_policy(3), "hopper", num_episodes=10)
    assert measured.record.num_episodes == 10
    assert 0.5 < measured.record.mean_score < 3.0 and measured.record.std_score > 0.0

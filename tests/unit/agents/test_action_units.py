"""Actions of any size: every method learns in units of their range, and acts within it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import baseline_toys
from chibit.agents import AGENTS, make_agent
from chibit.core.config import from_json, to_json
from chibit.core.runtime import Runtime
from chibit.data.dataset import TrajectoryDataset
from chibit.data.load import from_arrays
from chibit.models.gpt import GPTShape
from chibit.policy.policy import Policy
from chibit.training.run_config import RunConfig, to_record

SMALL = {
    **{name: baseline_toys.SMALL[name] for name in baseline_toys.CONTINUOUS},
    "dt": {"gpt": GPTShape(n_layer=1, n_head=1, n_embd=16), "context_length": 3, "warmup_steps": 0},
}
RANGES = (([0.0, 0.0], [1e-3, 1.0]), ([-1e4, 10.0], [0.0, 90.0]), ([50.0, -1e-3], [60.0, 1e4]))


def log_in(low, high, cache) -> TrajectoryDataset:
    """A hundred episodes of ten steps, the same but for the range of their two actions."""
    rng = np.random.default_rng(0)
    states = rng.standard_normal((1000, 3))
    unit = np.tanh(states @ rng.standard_normal((3, 2)) + 0.1 * rng.standard_normal((1000, 2)))
    unit[:2] = -1.0, 1.0
    actions = np.array(low) + (np.array(high) - low) * (unit + 1) / 2
    return from_arrays(states, actions, unit[:, 0], np.arange(1000) % 10 == 9, cache=cache)


def trained(name: str, dataset: TrajectoryDataset, steps: int = 12, **settings):
    torch.manual_seed(0)
    config = AGENTS[name].config(**{**SMALL[name], "batch_size": 32, **settings})
    agent = make_agent(config, dataset.spec, Runtime())
    sampler = agent.sampler(agent.prepare(dataset), np.random.default_rng(0))
    return agent, [float(agent.update(sampler.sample())["train/loss"]) for _ in range(steps)]


def acted(agent, states: np.ndarray) -> np.ndarray:
    policy = agent.policy([4.0] if agent.is_return_conditioned else None)
    policy.reset(len(states))
    found = []
    for _ in range(3):
        found.append(policy.act(states).astype(np.float64))
        policy.observe(np.ones(len(states)), np.zeros(len(states), bool))
    return np.concatenate(found)


@pytest.mark.parametrize("name", SMALL)
def test_the_same_is_learned_whatever_the_unit_of_each_action(name, tmp_path):
    states = np.random.default_rng(1).standard_normal((50, 3))
    agent, losses = trained(name, log_in([-1, -1], [1, 1], tmp_path))
    expected = acted(agent, states)
    for low, high in RANGES:
        agent, other = trained(name, log_in(low, high, tmp_path))
        found = acted(agent, states)
        assert (found >= np.float32(low)).all() and (found <= np.float32(high)).all()
        unit = 2 * (found - np.array(low)) / (np.array(high) - low) - 1
        np.testing.assert_allclose(unit, expected, atol=2e-3)
        assert other == pytest.approx(losses, rel=1e-2, abs=1e-4)


def test_a_small_action_beside_a_large_one_is_learned_as_well(tmp_path):
    dataset = log_in([-0.01, 10.0], [0.01, 90.0], tmp_path)
    agent, _ = trained("dt", dataset, steps=150, learning_rate=3e-3, dropout=0.0)
    sampler = agent.sampler(dataset, np.random.default_rng(1))
    errors = np.mean([agent.action_errors(sampler.sample()) for _ in range(4)], axis=0)
    relative = np.sqrt(errors) / dataset.actions.std(axis=0)
    assert (relative < 0.4).all() and relative.max() < 2 * relative.min()


def test_a_saved_policy_acts_as_the_agent_whatever_the_range(tmp_path):
    dataset = log_in(*RANGES[1], tmp_path)
    agent, _ = trained("dt", dataset)
    states = np.random.default_rng(1).standard_normal((5, 3))
    Policy(agent, dataset.spec, target_return=4.0).save_pretrained(tmp_path / "policy")
    loaded = Policy.from_pretrained(tmp_path / "policy")
    loaded.reset(5)
    assert loaded.agent.config.action_units == "range"
    assert np.array_equal(loaded.act(states), acted(agent, states)[:5].astype(np.float32))


@pytest.mark.slow
def test_a_graph_acts_as_the_policy_whatever_the_range(tmp_path):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    from chibit.policy.onnx import export_onnx

    low, high = RANGES[1]
    dataset = log_in(low, high, tmp_path)
    agent, _ = trained("dt", dataset)
    session = onnxruntime.InferenceSession(export_onnx(agent, dataset.spec, tmp_path / "policy.onnx"))
    policy, states = agent.policy([4.0]), np.random.default_rng(1).standard_normal((2, 3, 3))
    policy.reset(2)
    done = np.zeros((2, 3, 2), np.float32)
    for t in range(3):
        expected = policy.act(states[:, t])
        [found] = session.run(
            None,
            {
                "returns_to_go": np.full((2, t + 1), 4.0, np.float32),
                "observations": states[:, : t + 1].astype(np.float32),
                "actions": done[:, : t + 1],
                "timesteps": np.arange(t + 1)[None].repeat(2, 0),
            },
        )
        np.testing.assert_allclose((found - expected) / (np.array(high) - low), 0.0, atol=1e-5)
        done[:, t] = expected
        policy.observe(np.zeros(2), np.zeros(2, bool))


def test_files_without_units_mean_actions_as_they_are():
    kind = AGENTS["dt"].config
    before = to_json(kind(action_units="raw"))
    assert "action_units" not in before
    assert from_json(kind, before).action_units == "raw"
    assert from_json(kind, to_json(kind())).action_units == "range"


def test_runs_on_the_papers_data_are_written_as_before():
    config = RunConfig(data="hopper-medium", agent=AGENTS["dt"].config())
    assert "action_units" not in to_record(config)["agent"]
    assert to_record(replace(config, data="mine.npz"))["agent"]["action_units"] == "range"

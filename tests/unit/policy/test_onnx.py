"""ONNX graphs of policies give the actions that the policies give."""

import json

import numpy as np
import pytest
import torch

from chibit.agents import AGENTS, make_agent
from chibit.core.errors import InputError
from chibit.core.runtime import resolve_runtime
from chibit.data.dataset import DatasetSpec
from chibit.models.gpt import GPTShape
from chibit.policy.onnx import export_onnx

pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxscript", reason="onnxscript is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

PARITY = 1e-5
FOUR_ACTIONS = {"act_dim": 0, "num_actions": 4, "action_low": (), "action_high": ()}


def spec_of(**changes):
    fields = {
        "name": "toy",
        "state_dim": 3,
        "act_dim": 2,
        "num_actions": None,
        "env_id": None,
        "d4rl_physics": False,
        "max_episode_steps": 9,
        "score_reference": None,
        "state_mean": (1.0, -2.0, 30.0),
        "state_std": (0.5, 3.0, 10.0),
        "action_low": (-2.0, -1.0),
        "action_high": (2.0, 0.5),
        "default_target_returns": (50.0, 25.0),
    }
    return DatasetSpec(**{**fields, **changes})


def session(agent, spec, tmp_path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    path = export_onnx(agent, spec, tmp_path / "policy.onnx")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def observations(rng, *shape):
    return (np.array([1.0, -2.0, 30.0]) + rng.normal(size=(*shape, 3)) * [0.5, 3.0, 10.0]).astype(np.float32)


def make(name, spec, **fields):
    return make_agent(AGENTS[name].config(**fields), spec, resolve_runtime("cpu"))


@pytest.mark.slow
def test_a_sequence_models_graph_acts_as_its_policy_does_step_by_step(tmp_path):
    """Twelve steps with a context of four: windows that grow, and windows that slide."""
    spec = spec_of()
    agent = make("dt", spec, gpt=GPTShape(n_layer=2, n_embd=16), context_length=4, max_timesteps=12)
    graph = session(agent, spec, tmp_path)
    assert [i.name for i in graph.get_inputs()] == ["returns_to_go", "observations", "actions", "timesteps"]
    metadata = graph.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["context_length"]) == 4
    rng, policy = np.random.default_rng(0), agent.policy((50.0,))
    policy.reset(2)
    seen, acted, left, asked = [], [], np.full(2, 50.0), []
    for step in range(12):
        seen.append(observations(rng, 2))
        asked.append(left.copy())
        action = policy.act(seen[-1])
        first = max(0, step - 3)
        feed = {
            "returns_to_go": np.stack(asked[first:], 1).astype(np.float32),
            "observations": np.stack(seen[first:], 1),
            "actions": np.stack([*acted[first:], np.zeros((2, 2))], 1).astype(np.float32),
            "timesteps": np.tile(np.arange(first, step + 1), (2, 1)),
        }
        np.testing.assert_allclose(graph.run(None, feed)[0], action, atol=PARITY, rtol=0)
        acted.append(action)
        rewards = rng.normal(size=2)
        policy.observe(rewards, np.zeros(2, bool))
        left -= rewards


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bc", "td3_bc", "cql", "iql", "awr"])
def test_a_baselines_graph_acts_as_its_policy_does(name, tmp_path):
    spec = spec_of()
    agent = make(name, spec)
    graph, policy = session(agent, spec, tmp_path), agent.policy(None)
    for episodes in (1, 7):
        given = observations(np.random.default_rng(1), episodes)
        policy.reset(episodes)
        action = policy.act(given)
        np.testing.assert_allclose(graph.run(None, {"observations": given})[0], action, atol=PARITY, rtol=0)
        assert np.abs(action).max() > 0


@pytest.mark.slow
def test_discrete_policies_give_actions_or_logits(tmp_path):
    spec = spec_of(**FOUR_ACTIONS)
    agent = make("qr_dqn", spec, hidden_sizes=(8,), num_quantiles=4)
    given = observations(np.random.default_rng(1), 9)
    graph = session(agent, spec, tmp_path)
    np.testing.assert_array_equal(graph.run(None, {"observations": given})[0], agent.policy(None).act(given))
    sequence = make("dt", spec, gpt=GPTShape(n_layer=1, n_embd=8), context_length=1)
    graph = session(sequence, spec, tmp_path)
    assert [output.name for output in graph.get_outputs()] == ["action", "logits"]
    feed = {
        "returns_to_go": np.ones((5, 1), np.float32),
        "observations": given[:5, None],
        "actions": np.zeros((5, 1), np.int64),
        "timesteps": np.zeros((5, 1), np.int64),
    }
    action, logits = graph.run(None, feed)
    assert logits.shape == (5, 4) and np.array_equal(action, logits.argmax(1))


def test_policies_without_a_graph_are_refused_in_one_line(tmp_path):
    pictures = spec_of(image_shape=(1, 40, 40), state_dim=1600, state_mean=(), state_std=(), **FOUR_ACTIONS)
    agent = make("discrete_bc", pictures)
    with pytest.raises(InputError, match="onnx: this policy sees images; only policies of vectors"):
        export_onnx(agent, pictures, tmp_path / "policy.onnx")
    agent = make("dt", spec_of(), gpt=GPTShape(n_layer=1, n_embd=8))
    agent.model.backbone = torch.nn.Identity()
    with pytest.raises(InputError, match="onnx: the backbone is not chibit's GPT"):
        export_onnx(agent, spec_of(), tmp_path / "policy.onnx")
    assert not (tmp_path / "policy.onnx").exists()

"""`OnnxPolicy` does what `Policy` does over whole episodes, by a graph and without torch."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from chibit.core.config import to_json
from chibit.core.errors import DamagedFileError, InputError
from chibit.core.files import write_atomic
from chibit.policy.export import export_with_extras
from chibit.policy.onnx_policy import OnnxPolicy
from chibit.policy.policy import Policy
from policy_toys import episode, make

PARITY = 1e-5
KINDS = ["dt", "discrete dt", "bc", "stacked", "td3_bc", "qr_dqn", "discrete_bc"]


class Module:
    """A session of the module that a graph is made of."""

    def __init__(self, policy: Policy) -> None:
        self.step = policy.agent.policy_step()
        self.step.module.eval()

    def get_inputs(self):
        return [SimpleNamespace(name=name) for name in self.step.inputs]

    def run(self, names, feed):
        assert set(feed) == set(self.step.inputs)
        for name, example in self.step.inputs.items():
            assert torch.from_numpy(feed[name]).dtype == example.dtype
        with torch.no_grad():
            given = self.step.module(*(torch.from_numpy(feed[name]) for name in self.step.inputs))
        given = given if isinstance(given, tuple) else (given,)
        return [dict(zip(self.step.outputs, given, strict=True))[name].numpy() for name in names]


def of_module(policy: Policy, **options) -> OnnxPolicy:
    facts = {
        "spec": json.loads(json.dumps(to_json(policy.spec))),
        "target_return": policy.target_return,
        **policy.agent.policy_step().metadata,
    }
    return OnnxPolicy(Module(policy), facts, **options)


def assert_alike(torch_policy: Policy, onnx_policy: OnnxPolicy) -> None:
    """Three environments, of which one ends, one begins anew, and one is told what was done instead."""
    assert torch_policy.target_return == onnx_policy.target_return
    rng, spec = np.random.default_rng(0), torch_policy.spec
    # far outside the data: bounds of actions matter
    seen = 3 * rng.normal(size=(25, 3, spec.state_dim)).astype(np.float32)
    rewards = rng.normal(size=(25, 3))
    taken = episode(torch_policy, 3)[1]
    target = {} if torch_policy.target_return is None else {"target_return": [5.0, -3.0, 100.0]}
    for one in (torch_policy, onnx_policy):
        one.reset(3, seed=4, **target)
    for step in range(25):
        if step == 6:
            for one in (torch_policy, onnx_policy):
                one.reset(envs=[1], seed=9)
        dones = [step >= 20, False, False]
        actions = [one.act(seen[step]) for one in (torch_policy, onnx_policy)]
        assert actions[0].dtype == actions[1].dtype
        np.testing.assert_allclose(actions[1][step > 20 :], actions[0][step > 20 :], atol=PARITY, rtol=0)
        for one in (torch_policy, onnx_policy):
            one.observe(rewards[step], dones, taken if step == 3 else None)
    history = episode(torch_policy, 12)
    chosen, known = (one.replay(*history, seed=1) for one in (onnx_policy, torch_policy))
    np.testing.assert_allclose(chosen, known, atol=PARITY, rtol=0)
    assert len(np.unique(chosen)) > 1


@pytest.mark.parametrize("kind", KINDS)
def test_it_acts_as_the_other_does_by_the_module_of_the_graph(kind):
    assert_alike(make(kind), of_module(make(kind)))


def test_rewards_that_come_at_the_end_dice_and_greed():
    sparse = make("dt", reward_mode="sparse")
    assert_alike(sparse, of_module(sparse))
    assert_alike(make("discrete dt", greedy=True), of_module(make("discrete dt"), greedy=True))
    random = make("qr_dqn", evaluation_epsilon=0.5)
    assert_alike(random, of_module(random))
    unlike = of_module(random)
    unlike.reset(seed=4), random.reset(seed=5)
    seen = episode(random, 30)[0]
    pairs = []
    for step in range(30):
        pairs.append([int(one.act(seen[step])) for one in (random, unlike)])
        for one in (random, unlike):
            one.observe(0.0, False)
    assert len({first == second for first, second in pairs}) == 2


@pytest.mark.parametrize("kind", ["dt", "bc"])
def test_a_signal_beside_a_large_offset(kind):
    """Observations that single precision cannot tell apart."""
    agent = make(kind).agent
    spec = dataclasses.replace(
        agent.spec, state_mean=(0.0,), state_std=(1e-6,), state_offset=(52.0,), max_episode_steps=30
    )
    agent.spec = spec
    policy = Policy(agent, spec)
    acting = of_module(policy)
    seen = 52.0 + 1e-6 * np.random.default_rng(0).normal(size=(8, 1))
    actions = []
    for one in (policy, acting):
        one.reset()
        actions.append([])
        for step in range(8):
            actions[-1].append(one.act(seen[step]))
            one.observe(0.5, False)
    np.testing.assert_allclose(actions[1], actions[0], atol=PARITY)
    assert np.ptp(actions[0]) > 1e-2
    assert np.array_equal(policy.replay(seen, np.array(actions[0]), np.full(8, 0.5)), actions[0])


def test_a_graph_that_does_not_look_at_returns_is_given_none():
    policy = make("dt", return_tokens=False)
    acting = of_module(policy)
    acting._acting._inputs.discard("returns_to_go")  # as the exporter leaves it out
    acting._acting._session.run = lambda names, feed: [np.full((1, 1), len(feed), np.float32)]
    acting.reset()
    assert acting.act(episode(policy, 1)[0][0]) == [3]
    with pytest.raises(InputError, match="takes none"):
        of_module(policy, target_return=3.0)


def test_what_is_refused_is_refused_alike():
    acting = of_module(make("dt"))
    with pytest.raises(InputError, match="^act: call reset first$"):
        acting.act(np.zeros(1))
    acting.reset()
    with pytest.raises(InputError, match="observation of environment 0 is nan in dimension 0"):
        acting.act([np.nan])
    for target in (np.nan, np.inf, "high", [1.0, 2.0]):
        with pytest.raises(InputError, match="target_return"):
            of_module(make("dt"), target_return=target)


def test_files_that_are_no_policy_are_refused_in_one_line(tmp_path):
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    path = tmp_path / "policy.onnx"
    with pytest.raises(InputError, match="policy.onnx: no such file.*export --onnx"):
        OnnxPolicy.from_pretrained(tmp_path)
    for content in (b"", b"not a graph", b"\x00" * 1000):
        write_atomic(path, content)
        with pytest.raises(DamagedFileError, match="no whole graph") as refusal:
            OnnxPolicy.from_pretrained(path)
        assert "\n" not in str(refusal.value)
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    other = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([node], "g", [value], [other])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
    write_atomic(path, model.SerializeToString())
    with pytest.raises(InputError, match="says nothing of its data; write it again"):
        OnnxPolicy.from_pretrained(tmp_path)
    for metadata in ({"spec": "{"}, {"spec": "{}", "target_return": "null"}, {"spec": "[]"}):
        del model.metadata_props[:]
        for key, text in metadata.items():
            model.metadata_props.append(onnx.StringStringEntryProto(key=key, value=text))
        write_atomic(path, model.SerializeToString())
        with pytest.raises(DamagedFileError, match="its metadata are damaged"):
            OnnxPolicy.from_pretrained(tmp_path)
    facts = {"spec": to_json(make("bc").spec), "target_return": None, "epsilon": 0.0}
    del model.metadata_props[:]
    for key, value in facts.items():
        model.metadata_props.append(onnx.StringStringEntryProto(key=key, value=json.dumps(value)))
    write_atomic(path, model.SerializeToString())
    assert OnnxPolicy.from_pretrained(tmp_path).target_return is None
    with pytest.raises(InputError, match=r"^target_return is 3.0, but this method takes none"):
        OnnxPolicy.from_pretrained(tmp_path, target_return=3.0)


PROGRAM = """
import json
import sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, *rest):
        known = name.partition(".")[0] in {"chibit", "numpy", "onnxruntime", *sys.stdlib_module_names}
        return self.finder.find_spec(name, *rest) if known else None

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
import numpy as np
import chibit

policy = chibit.OnnxPolicy.from_pretrained(sys.argv[1])
seen = np.load(sys.argv[2])
policy.reset(seed=1)
for step in range(len(seen)):
    action = policy.act(seen[step])
    policy.observe(0.5, False)
print(json.dumps(np.asarray(action).tolist()))
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_an_exported_graph_acts_as_the_policy_and_needs_numpy_and_onnxruntime_alone(kind, tmp_path):
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    policy = make(kind)
    agent, spec = policy.agent, policy.spec
    export_with_extras(
        agent, spec, tmp_path / "policy", target_return=policy.target_return and 7.0, onnx=True
    )
    if policy.target_return is not None:
        policy.target_return = 7.0
    acting = OnnxPolicy.from_pretrained(tmp_path / "policy")
    assert_alike(policy, acting)
    assert "OnnxPolicy.from_pretrained" in (tmp_path / "policy" / "README.md").read_text()
    seen = episode(policy, 7)[0]
    np.save(tmp_path / "seen.npy", seen)
    policy.reset(seed=1)
    for step in range(7):
        action = policy.act(seen[step])
        policy.observe(0.5, False)
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "policy"), str(tmp_path / "seen.npy")],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    np.testing.assert_allclose(json.loads(run.stdout), action, atol=PARITY)


@pytest.mark.slow
def test_the_graph_of_another_plant(tmp_path):
    """Units and offsets of each dimension of its own."""
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    from chibit.policy.onnx import export_onnx

    policy = make("dt")
    spec = dataclasses.replace(
        policy.spec, state_mean=(300.0,), state_std=(0.01,), default_target_returns=(2.0,)
    )
    policy.agent.spec = spec
    policy = Policy(policy.agent, spec)
    export_onnx(policy.agent, spec, tmp_path / "policy.onnx")
    acting = OnnxPolicy.from_pretrained(tmp_path / "policy.onnx")
    assert acting.target_return == policy.target_return == 2.0
    for one in (policy, acting):
        one.reset()
    for step in range(6):
        seen = np.array([300.0 + 0.01 * np.sin(step)], np.float32)
        np.testing.assert_allclose(acting.act(seen), policy.act(seen), atol=PARITY)
        for one in (policy, acting):
            one.observe(0.1, False)

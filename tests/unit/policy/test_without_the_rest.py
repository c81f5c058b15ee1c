"""Acting needs torch, numpy, and what reads weights and configurations: nothing that trains or plays."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np

from chibit.policy.policy import export_policy
from policy_toys import make

PROGRAM = """
import json
import sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, *rest):
        return None if name.partition(".")[0] in CLOSED else self.finder.find_spec(name, *rest)

CLOSED = set(sys.argv[2].split(","))
sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
import numpy as np
import chibit

assert "torch" not in sys.modules and "numpy" in sys.modules
for folder in sys.argv[3:]:
    policy = chibit.Policy.from_pretrained(folder)
    seen = np.load(sys.argv[1])[:, : policy.spec.state_dim]
    policy.reset(seed=1)
    for step in range(len(seen)):
        action = policy.act(seen[step])
        policy.observe(0.5, False)
    print(np.asarray(action).tolist())
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""
CLOSED = (
    "gymnasium,gymnasium_robotics,mujoco,minari,matplotlib,transformers,h5py,imageio,imageio_ffmpeg,rich,tyro,"
    "jinja2,packaging,scipy,pandas,pyarrow,onnx,onnxruntime,peft,huggingface_hub,tokenizers,datasets,ale_py"
)


def test_policies_act_with_torch_and_numpy_alone(tmp_path):
    seen = np.random.default_rng(0).uniform(-1, 1, (6, 3)).astype(np.float32)
    np.save(tmp_path / "seen.npy", seen)
    folders, expected = [], []
    for kind in ("dt", "bc", "td3_bc", "discrete dt", "qr_dqn"):
        policy = make(kind)
        folders.append(str(export_policy(policy.agent, policy.spec, tmp_path / kind.replace(" ", "_"))))
        policy.reset(seed=1)
        for step in range(6):
            action = policy.act(seen[step, : policy.spec.state_dim])
            policy.observe(0.5, False)
        expected.append(action)
    arguments = [str(tmp_path / "seen.npy"), CLOSED, *folders]
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, timeout=300, check=False
    )
    assert run.returncode == 0, run.stderr
    *acted, loaded = map(json.loads, run.stdout.splitlines())
    for actions, known in zip(acted, expected, strict=True):
        np.testing.assert_allclose(actions, known, atol=1e-5)
    assert not set(loaded) & set(CLOSED.split(","))


def test_the_policy_of_a_graph_imports_numpy_alone():
    code = """
import sys
allowed = {"chibit", "numpy", *sys.stdlib_module_names}
import chibit, chibit.policy.onnx_policy
chibit.OnnxPolicy
others = {name.partition(".")[0] for name in sys.modules} - allowed
print(sorted(name for name in others if not name.startswith("__") and not name.startswith("_")))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.strip() == "[]"

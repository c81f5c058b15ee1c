"""The examples of the README in Python, run as they stand but for the number of steps."""

from __future__ import annotations

import dataclasses
import re
import warnings
from pathlib import Path

import numpy as np
import torch

from chibit.agents import AGENTS, make_agent
from chibit.core.runtime import Runtime
from chibit.data.dataset import DatasetSpec
from chibit.models.gpt import GPTShape
from chibit.policy.policy import export_policy

README = Path(__file__).parents[2] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
HOPPER = DatasetSpec(
    name="chibit/hopper/medium-v0", state_dim=11, act_dim=3, num_actions=None, env_id="Hopper-v5",
    d4rl_physics=False, max_episode_steps=1000, score_reference=None, state_mean=(0.0,) * 11,
    state_std=(1.0,) * 11, action_low=(-1.0,) * 3, action_high=(1.0,) * 3, default_target_returns=(3600.0,),
)  # fmt: skip


def test_the_example_drives_hopper(tmp_path, monkeypatch, capsys):
    (code,) = [block for block in BLOCKS if "Policy.from_pretrained" in block]
    folder = re.search(r'from_pretrained\("([\w-]+)"\)', code).group(1)
    torch.manual_seed(0)
    config = dataclasses.replace(AGENTS["dt"].config(), gpt=GPTShape(n_layer=1, n_embd=16))
    export_policy(make_agent(config, HOPPER, Runtime()), HOPPER, tmp_path / folder)
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # gymnasium's own about its environments
        exec(compile(code, "README.md", "exec"), {})
    assert np.isfinite(float(capsys.readouterr().out.split()[-1]))


def test_three_lines_train_and_act(tmp_path, monkeypatch, capsys):
    (code,) = [block for block in BLOCKS if "chibit.fit" in block]
    generator = np.random.default_rng(0)
    columns = {"observations": generator.normal(size=(90, 3)), "actions": generator.uniform(-1, 1, (90, 2))}
    columns |= {"rewards": columns["observations"][:, 0], "terminations": np.arange(1, 91) % 30 == 0}
    np.savez(tmp_path / "plant.npz", **columns)
    monkeypatch.chdir(tmp_path)
    exec(compile(re.sub(r"\bsteps=[\d_]+", "steps=2", code), "README.md", "exec"), {})
    action = [float(part) for part in capsys.readouterr().out.strip(" []\n").split()]
    assert len(action) == 2 and all(-1 <= part <= 1 for part in action)
    assert (tmp_path / "runs" / "plant" / "result.json").is_file()

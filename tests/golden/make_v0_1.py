"""Write what version 0.1.0 wrote: its data, store, run directory and policy's folder, in the current folder.

    git worktree add --detach ../v0_1 385fe01
    cd tests/golden/v0_1 && PYTHONPATH=../../../../v0_1/src python ../make_v0_1.py

It was run once, at that commit; what it wrote is read by every later version (`test_v0_1.py`). Another
version of the formats gets a folder and a script of its own.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np

import chibit
from chibit.cli import main
from chibit.data.load import load_dataset

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from golden.environment import fingerprint

STEPS, EPISODES = 30, 8


def columns() -> dict[str, np.ndarray]:
    """Pendulums on paper: closed forms, so that no generator's stream matters."""
    t = np.arange(STEPS * EPISODES, dtype=np.float64)
    angle, ends = np.sin(0.37 * t) * 2, t % STEPS == STEPS - 1
    return {
        "observations": np.stack([np.cos(angle), np.sin(angle), np.cos(0.37 * t)], axis=1),
        "actions": (2 * np.sin(0.11 * t))[:, None].astype(np.float32),
        "rewards": -(angle**2) - 0.1 * (t // STEPS),
        "terminations": np.zeros(len(t), bool),
        "truncations": ends,
    }


def write(folder: Path) -> None:
    """All four."""
    np.savez_compressed(folder / "data.npz", env_id="Pendulum-v1", **columns())
    shape = ["--n-layer", "1", "--n-embd", "8", "--context-length", "4", "--max-timesteps", "200"]
    schedule = ["--num-steps", "8", "--evaluate-every", "4", "--num-episodes", "2", "--log-every", "2"]
    others = ["--batch-size", "4", "--warmup-steps", "3", "--device", "cpu", "--quiet", "--seed", "5"]
    out = ["--data", "data.npz", "--out", "run", "--target-returns", "-200", "-400"]
    assert main(["train", "--agent", "dt", *shape, *schedule, *others, *out]) == 0
    assert main(["export", "run", "--out", "policy", "--no-video"]) == 0
    dataset = load_dataset("data.npz", progress=False)
    shutil.copytree(dataset.folder, folder / "store")
    policy = chibit.Policy.from_pretrained("policy")
    policy.reset()
    observation = [0.6, 0.8, -0.5]
    expected = {
        "content_hash": dataset.content_hash,
        "observation": observation,
        "action": policy.act(observation).tolist(),
        "environment": fingerprint(),
    }
    (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
    provenance = folder / "run" / "provenance.json"
    record = json.loads(provenance.read_text())
    record["host"]["platform"] = "Linux"
    provenance.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    write(Path.cwd())

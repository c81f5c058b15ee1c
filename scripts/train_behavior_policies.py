"""Train policies from untrained to medium with PPO (stable-baselines3), with a snapshot at regular steps.

    python scripts/train_behavior_policies.py hopper --state STATE --num-steps 1000000

STATE/hopper receives `progress.jsonl` (a line a snapshot: steps, normalized return), `actors/<steps>.npz`
(the numpy actor, observation normalization folded in) and `checkpoint` (all that is needed to go on). The
same command resumes after an interruption; with a larger `--num-steps` it goes on. All environments run
with the physics of MuJoCo before 3.5 (`d4rl_physics=True`). The hyper-parameters start from RL Baselines3
Zoo's. The shipped ladders come from 340,000 steps for Hopper (`--snapshot-every 10000`), 520,000 for
HalfCheetah and 600,000 for Walker2d (`--snapshot-every 20000`), seed 0. `build_ladders.py` then chooses
among the snapshots.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from chibit.data.collect.behavior import BehaviorPolicy, PolicyRecord
from chibit.data.collect.behavior.rollout import BLOCK_EPISODES, roll_out_block
from chibit.environments.make import make_env
from chibit.environments.registry import OWN_IDS
from chibit.environments.scores import normalized_score, score_reference

NUM_ENVS = 4

HYPERPARAMETERS: dict[str, dict] = {
    "hopper": {
        "n_steps": 512, "batch_size": 64, "n_epochs": 8, "learning_rate": 2e-4, "gamma": 0.995,
        "gae_lambda": 0.97, "clip_range": 0.2, "ent_coef": 0.0, "max_grad_norm": 0.7, "vf_coef": 0.8,
    },
    "halfcheetah": {
        "n_steps": 256, "batch_size": 64, "n_epochs": 12, "learning_rate": 5e-5, "gamma": 0.98,
        "gae_lambda": 0.92, "clip_range": 0.1, "ent_coef": 0.0004, "max_grad_norm": 0.8, "vf_coef": 0.58,
    },
    "walker2d": {
        "n_steps": 512, "batch_size": 64, "n_epochs": 10, "learning_rate": 1.5e-4, "gamma": 0.99,
        "gae_lambda": 0.95, "clip_range": 0.1, "ent_coef": 0.0005, "max_grad_norm": 1.0, "vf_coef": 0.87,
    },
}  # fmt: skip


def make_model(name: str, seed: int) -> tuple[PPO, VecNormalize]:
    envs = DummyVecEnv([lambda: make_env(OWN_IDS[name], d4rl_physics=True)] * NUM_ENVS)
    settings = HYPERPARAMETERS[name]
    normalized = VecNormalize(envs, gamma=settings["gamma"])
    model = PPO(
        "MlpPolicy",
        normalized,
        seed=seed,
        device="cpu",
        policy_kwargs={
            "net_arch": {"pi": [128, 128], "vf": [128, 128]},
            "activation_fn": torch.nn.ReLU,
            "log_std_init": -1.0,
            "ortho_init": False,
        },
        **settings,
    )
    return model, normalized


def folded_actor(model: PPO, normalized: VecNormalize) -> dict[str, np.ndarray]:
    """Return the actor's arrays with (observation - mean) / std folded into the first layer."""
    nets = [*model.policy.mlp_extractor.policy_net, model.policy.action_net]
    layers = [m for m in nets if isinstance(m, torch.nn.Linear)]
    weights = [m.weight.detach().numpy().astype(np.float64) for m in layers]
    biases = [m.bias.detach().numpy().astype(np.float64) for m in layers]
    std = np.sqrt(normalized.obs_rms.var + normalized.epsilon)
    weights[0] = weights[0] / std
    biases[0] = biases[0] - weights[0] @ normalized.obs_rms.mean
    arrays = {f"weight{i}": w.astype(np.float32) for i, w in enumerate(weights)}
    arrays |= {f"bias{i}": b.astype(np.float32) for i, b in enumerate(biases)}
    return arrays | {"log_std": model.policy.log_std.detach().numpy().copy()}


def policy_from_arrays(arrays: dict[str, np.ndarray], record: PolicyRecord) -> BehaviorPolicy:
    count = sum(name.startswith("weight") for name in arrays)
    layers = [(arrays[f"weight{i}"], arrays[f"bias{i}"]) for i in range(count)]
    return BehaviorPolicy(record, layers, arrays["log_std"])


def measure(policy: BehaviorPolicy, name: str, num_episodes: int, seed: int) -> np.ndarray:
    """Return the normalized returns of `num_episodes` episodes with the noise on."""
    envs = [make_env(OWN_IDS[name], d4rl_physics=True) for _ in range(BLOCK_EPISODES)]
    seeds = np.random.SeedSequence(seed).spawn(num_episodes + -num_episodes % BLOCK_EPISODES)
    blocks = [seeds[i : i + BLOCK_EPISODES] for i in range(0, len(seeds), BLOCK_EPISODES)]
    episodes = [e for block in blocks for e in roll_out_block(policy, envs, block)]
    return np.array([normalized_score(e.rewards.sum(), score_reference(OWN_IDS[name])) for e in episodes])


class SnapshotCallback(BaseCallback):
    """Every `every` steps, before a rollout: save a snapshot, its score, and the state to go on from."""

    def __init__(
        self, name: str, normalized: VecNormalize, folder: Path, every: int, num_episodes: int
    ) -> None:
        super().__init__()
        self.name, self.normalized, self.folder = name, normalized, folder
        self.every, self.num_episodes = every, num_episodes
        self.next_snapshot = 0
        self.started = time.monotonic()

    def _on_rollout_start(self) -> None:
        if self.num_timesteps >= self.next_snapshot:
            self.next_snapshot = self.num_timesteps - self.num_timesteps % self.every + self.every
            self.snapshot()

    def _on_step(self) -> bool:
        return True

    def snapshot(self) -> None:
        """Save the actor as it is now."""
        steps = self.num_timesteps
        arrays = folded_actor(self.model, self.normalized)
        record = PolicyRecord(name=f"step-{steps:09d}", algorithm="ppo", train_steps=steps)
        scores = measure(policy_from_arrays(arrays, record), self.name, self.num_episodes, seed=steps)
        np.savez(self.folder / "actors" / f"{steps:09d}.npz", **arrays)
        save_checkpoint(self.model, self.normalized, self.folder / "checkpoint")
        line = {
            "steps": steps,
            "score": round(float(scores.mean()), 2),
            "std": round(float(scores.std()), 2),
            "noise": np.exp(arrays["log_std"]).round(3).tolist(),
            "seconds": round(time.monotonic() - self.started),
        }
        with (self.folder / "progress.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(self.name, line, flush=True)


def save_checkpoint(model: PPO, normalized: VecNormalize, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    model.save(folder / "model.tmp.zip")
    obs, ret = normalized.obs_rms, normalized.ret_rms
    np.savez(
        folder / "normalization.tmp.npz",
        steps=model.num_timesteps,
        obs_mean=obs.mean, obs_var=obs.var, obs_count=obs.count,
        ret_mean=ret.mean, ret_var=ret.var, ret_count=ret.count,
    )  # fmt: skip
    for name in ("model.zip", "normalization.npz"):
        (folder / name.replace(".", ".tmp.")).replace(folder / name)


def restore_checkpoint(model: PPO, normalized: VecNormalize, folder: Path) -> None:
    model.set_parameters(folder / "model.zip", device="cpu")
    with np.load(folder / "normalization.npz") as saved:
        model.num_timesteps = int(saved["steps"])
        for rms, prefix in ((normalized.obs_rms, "obs"), (normalized.ret_rms, "ret")):
            rms.mean, rms.var = saved[f"{prefix}_mean"], saved[f"{prefix}_var"]
            rms.count = float(saved[f"{prefix}_count"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=sorted(OWN_IDS))
    parser.add_argument("--state", type=Path, required=True, help="folder for checkpoints and snapshots")
    parser.add_argument("--num-steps", type=int, default=1_000_000, help="environment steps in all")
    parser.add_argument(
        "--snapshot-every", type=int, default=40_000, help="environment steps between snapshots"
    )
    parser.add_argument("--num-episodes", type=int, default=16, help="episodes that score a snapshot")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    torch.set_num_threads(1)
    folder = args.state / args.name
    (folder / "actors").mkdir(parents=True, exist_ok=True)
    model, normalized = make_model(args.name, args.seed)
    callback = SnapshotCallback(args.name, normalized, folder, args.snapshot_every, args.num_episodes)
    if (folder / "checkpoint" / "normalization.npz").exists():
        restore_checkpoint(model, normalized, folder / "checkpoint")
        callback.next_snapshot = model.num_timesteps + args.snapshot_every
    remaining = args.num_steps - model.num_timesteps
    if remaining > 0:
        model.learn(remaining, callback=callback, reset_num_timesteps=False)
        callback.snapshot()


if __name__ == "__main__":
    main()

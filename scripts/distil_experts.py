"""Distil an expert into the small actor form of the ladders, with DAgger (Ross, Gordon and Bagnell, 2011).

    python scripts/distil_experts.py hopper --teacher Hopper.safetensors --state STATE

The teacher is a TQC actor of RL Baselines3 Zoo in safetensors: `latent_pi.0`, `latent_pi.2` (ReLU) and
`mu` (tanh). The student acts, the teacher says what it would have done, and the student learns from all
states seen so far. The student acts with its noise on, as it will when it collects data. STATE/hopper
receives `visited/<round>.npy` and `student.safetensors` (to resume from) and `expert.npz`, the numpy
actor.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from safetensors.numpy import load_file
from safetensors.torch import load_model, save_model
from torch import nn

from chibit.data.collect.behavior.ladder import BehaviorPolicy, PolicyRecord
from chibit.data.collect.behavior.rollout import BLOCK_EPISODES, roll_out_block
from chibit.environments.make import make_env
from chibit.environments.registry import OWN_IDS
from chibit.environments.scores import normalized_score, score_reference

SATURATED = 0.97
"""Teacher actions beyond this are treated as the bound itself: the student may then go past it at no cost."""


class Teacher(BehaviorPolicy):
    """A TQC actor: an MLP whose mean passes through tanh."""

    def __init__(self, path: Path, noise: float) -> None:
        arrays = load_file(path)
        layers = [(arrays[f"{n}.weight"], arrays[f"{n}.bias"]) for n in ("latent_pi.0", "latent_pi.2", "mu")]
        log_std = np.full(layers[-1][1].shape, np.log(noise), np.float32)
        super().__init__(PolicyRecord(name="teacher", algorithm="tqc", train_steps=0), layers, log_std)

    def mean(self, observations: np.ndarray) -> np.ndarray:
        """Return the teacher's mode."""
        return np.tanh(super().mean(observations))


class Student(nn.Module):
    """The small actor with its observation normalization kept apart, for training."""

    def __init__(self, state_dim: int, act_dim: int, width: int) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(state_dim))
        self.register_buffer("scale", torch.ones(state_dim))
        self.net = nn.Sequential(
            nn.Linear(state_dim, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, act_dim),
        )

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """Return mean actions, not yet clipped."""
        return self.net((observations - self.center) / self.scale)

    def policy(self, noise: float, train_steps: int) -> BehaviorPolicy:
        """Return the numpy actor, normalization folded into the first layer."""
        linear = [m for m in self.net if isinstance(m, nn.Linear)]
        layers = [(m.weight.detach().numpy().copy(), m.bias.detach().numpy().copy()) for m in linear]
        weight = layers[0][0] / self.scale.numpy()
        layers[0] = (weight, layers[0][1] - weight @ self.center.numpy())
        record = PolicyRecord(name="expert", algorithm="dagger", train_steps=train_steps)
        return BehaviorPolicy(record, layers, np.full(linear[-1].out_features, np.log(noise), np.float32))


def imitation_loss(predictions: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Squared error, except that going past a bound the teacher sits on costs nothing."""
    beyond = (targets.abs() > SATURATED) & (predictions.abs() > targets.abs()) & (predictions * targets > 0)
    return ((predictions - targets) ** 2).masked_fill(beyond, 0.0).mean()


def fit(
    student: Student,
    observations: torch.Tensor,
    targets: torch.Tensor,
    updates: int,
    rates: tuple[float, float],
) -> float:
    """Run Adam, the learning rate falling from the first to the second of `rates`; return the last loss."""
    optimizer = torch.optim.Adam(student.parameters(), lr=rates[0])
    losses = []
    for update in range(updates):
        optimizer.param_groups[0]["lr"] = rates[0] * (rates[1] / rates[0]) ** (update / updates)
        rows = torch.randint(len(observations), (512,))
        loss = imitation_loss(student(observations[rows]), targets[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return float(np.mean(losses[-max(1, updates // 10) :]))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=sorted(OWN_IDS))
    parser.add_argument("--teacher", type=Path, required=True, help="safetensors file of the TQC actor")
    parser.add_argument("--state", type=Path, required=True, help="folder for checkpoints and the result")
    parser.add_argument("--rounds", type=int, default=40, help="DAgger rounds of eight episodes")
    parser.add_argument("--width", type=int, default=128, help="units in each of the two hidden layers")
    parser.add_argument("--noise", type=float, default=0.1, help="standard deviation of the action noise")
    parser.add_argument("--updates", type=int, default=400, help="gradient steps a round")
    parser.add_argument(
        "--final-updates", type=int, default=30_000, help="gradient steps on all data at the end"
    )
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    folder = args.state / args.name
    (folder / "visited").mkdir(parents=True, exist_ok=True)
    teacher = Teacher(args.teacher, args.noise)
    envs = [make_env(OWN_IDS[args.name], d4rl_physics=True) for _ in range(BLOCK_EPISODES)]
    student = Student(envs[0].observation_space.shape[0], teacher.act_dim, args.width)
    if (folder / "student.safetensors").exists():
        load_model(student, folder / "student.safetensors")
    visited = [np.load(file) for file in sorted((folder / "visited").glob("*.npy"))]

    for round_ in range(len(visited), args.rounds):
        steps = sum(map(len, visited))
        policy = teacher if round_ == 0 else student.policy(args.noise, steps)
        episodes = roll_out_block(
            policy, envs, np.random.SeedSequence((args.seed, round_)).spawn(BLOCK_EPISODES)
        )
        scores = [normalized_score(e.rewards.sum(), score_reference(OWN_IDS[args.name])) for e in episodes]
        visited.append(np.concatenate([e.observations[:-1] for e in episodes]).astype(np.float32))
        data = torch.from_numpy(np.concatenate(visited))
        if round_ == 0:
            student.center.copy_(data.mean(0))
            student.scale.copy_(data.std(0) + 1e-3)
        loss = fit(student, data, torch.from_numpy(teacher.mean(data.numpy())), args.updates, (1e-3, 5e-4))
        save_model(student, str(folder / "student.safetensors"))
        np.save(folder / "visited" / f"{round_:03d}.npy", visited[-1])
        print(
            f"{args.name} round {round_}: score {np.mean(scores):.1f}, {len(data)} states, loss {loss:.5f}",
            flush=True,
        )

    data = torch.from_numpy(np.concatenate(visited))
    loss = fit(student, data, torch.from_numpy(teacher.mean(data.numpy())), args.final_updates, (1e-3, 1e-5))
    policy = student.policy(args.noise, len(data))
    seeds = np.random.SeedSequence((args.seed, args.rounds)).spawn(2 * BLOCK_EPISODES)
    episodes = [
        e for i in (0, BLOCK_EPISODES) for e in roll_out_block(policy, envs, seeds[i : i + BLOCK_EPISODES])
    ]
    scores = [normalized_score(e.rewards.sum(), score_reference(OWN_IDS[args.name])) for e in episodes]
    print(
        f"{args.name} expert: score {np.mean(scores):.1f} +- {np.std(scores):.1f}, loss {loss:.5f}",
        flush=True,
    )
    arrays = {f"weight{i}": w for i, (w, _) in enumerate(policy.layers)}
    arrays |= {f"bias{i}": b for i, (_, b) in enumerate(policy.layers)}
    np.savez(folder / "expert.npz", log_std=policy.log_std, train_steps=len(data), **arrays)


if __name__ == "__main__":
    main()

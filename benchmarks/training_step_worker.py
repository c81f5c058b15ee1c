"""One side of the speed comparison of `training_step.py`: takes steps whenever it is asked to.

Runs in either environment: `chibit` and `transformers` need this package with its test extra, `d3rlpy`
needs d3rlpy 2.8.1. Reads a number of steps from each line of standard input, takes that many on one
fixed batch, and prints the CPU and the wall seconds they took.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np
import torch

BATCH, CONTEXT, STATE_DIM, ACT_DIM, WIDTH, LAYERS, DROPOUT = 64, 20, 11, 3, 128, 3, 0.1
MEAN_LENGTH = 457
"""Of hopper-medium's episodes; a window that starts near an episode's end is padded."""


def columns() -> dict[str, np.ndarray]:
    """Windows of Hopper's sizes, real steps first."""
    rng = np.random.default_rng(0)
    left = np.minimum(rng.integers(1, MEAN_LENGTH + 1, BATCH), CONTEXT)
    shape = (BATCH, CONTEXT)
    return {
        "states": rng.standard_normal((*shape, STATE_DIM)).astype(np.float32),
        "actions": rng.uniform(-1, 1, (*shape, ACT_DIM)).astype(np.float32),
        "returns_to_go": rng.uniform(0, 3000, shape).astype(np.float32),
        "timesteps": rng.integers(0, 900, (BATCH, 1)) + np.arange(CONTEXT),
        "mask": np.arange(CONTEXT) < left[:, None],
    }


def chibit_step(precision: str, settings: dict | None = None) -> Callable[[], object]:
    """The agent's update, as training calls it."""
    from chibit.agents import AGENTS, make_agent
    from chibit.core.runtime import resolve_runtime
    from chibit.data.dataset import DatasetSpec
    from chibit.data.samplers.windows import SequenceBatch

    spec = DatasetSpec(
        name="random", state_dim=STATE_DIM, act_dim=ACT_DIM, num_actions=None, env_id=None,
        d4rl_physics=False, max_episode_steps=1000, score_reference=None, state_mean=(0.0,) * STATE_DIM,
        state_std=(1.0,) * STATE_DIM, action_low=(-1.0,) * ACT_DIM, action_high=(1.0,) * ACT_DIM,
        default_target_returns=(0.0,),
    )  # fmt: skip
    chen = {"timestep_position": "before_norm", "timestep_table": "normal", "dropout": DROPOUT}
    config = AGENTS["dt"].config(**(chen if settings is None else settings))
    agent = make_agent(config, spec, resolve_runtime("cpu", precision))
    data = columns()
    batch = SequenceBatch(
        returns_to_go=torch.from_numpy(data["returns_to_go"]),
        states=torch.from_numpy(data["states"]),
        actions=torch.from_numpy(data["actions"]),
        timesteps=torch.from_numpy(data["timesteps"]),
        attention_mask=torch.from_numpy(data["mask"]),
        rows=torch.arange(BATCH),
    )
    return lambda: agent.update(batch)


def transformers_step(device: str = "cpu") -> Callable[[], object]:
    """The model of transformers, trained as Chen et al. train; padding on the left as theirs.

    On a GPU it waits for the loss at each step, as theirs does.
    """
    from transformers import DecisionTransformerConfig, DecisionTransformerModel

    model = DecisionTransformerModel(
        DecisionTransformerConfig(
            state_dim=STATE_DIM, act_dim=ACT_DIM, hidden_size=WIDTH, n_embd=WIDTH, n_layer=LAYERS, n_head=1,
            max_ep_len=1000, activation_function="relu", resid_pdrop=DROPOUT, embd_pdrop=DROPOUT,
            attn_pdrop=DROPOUT, bos_token_id=None, eos_token_id=None,
        )
    ).train().to(device)  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=1e-4)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min((step + 1) / 10_000, 1))
    host = {name: torch.from_numpy(np.flip(value, axis=1).copy()) for name, value in columns().items()}
    data = {name: value.to(device) for name, value in host.items()}
    mask = data["mask"]

    def step() -> float:
        predictions = model(
            states=data["states"], actions=data["actions"],
            returns_to_go=data["returns_to_go"][..., None] / 1000,
            timesteps=data["timesteps"], attention_mask=mask.long(), rewards=None,
        ).action_preds  # fmt: skip
        loss = torch.mean((predictions[mask] - data["actions"][mask]) ** 2)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.25)
        optimizer.step()
        scheduler.step()
        return loss.item()

    return step


def d3rlpy_step(device: str = "cpu:0", *, compile_graph: bool = False) -> Callable[[], object]:
    """d3rlpy's update, at the width of its published Decision Transformer runs."""
    import d3rlpy

    data = columns()
    config = d3rlpy.algos.DecisionTransformerConfig(
        batch_size=BATCH,
        context_size=CONTEXT,
        encoder_factory=d3rlpy.models.VectorEncoderFactory([WIDTH], exclude_last_activation=True),
        optim_factory=d3rlpy.optimizers.AdamWFactory(
            weight_decay=1e-4,
            clip_grad_norm=0.25,
            lr_scheduler_factory=d3rlpy.optimizers.WarmupSchedulerFactory(warmup_steps=10_000),
        ),
        num_heads=1,
        num_layers=LAYERS,
        compile_graph=compile_graph,
    )
    algorithm = config.create(device=device)
    algorithm.create_impl((STATE_DIM,), ACT_DIM)
    zeros = np.zeros((BATCH, CONTEXT, 1), np.float32)
    batch = d3rlpy.dataset.TrajectoryMiniBatch(
        observations=data["states"],
        actions=data["actions"],
        rewards=zeros,
        returns_to_go=data["returns_to_go"][..., None] / 1000,
        terminals=zeros,
        timesteps=data["timesteps"].astype(np.float32) + 1,
        masks=data["mask"].astype(np.float32),
        length=CONTEXT,
    )
    return lambda: algorithm.update(batch)


SIDES = {
    "chibit-fp32": lambda: chibit_step("fp32"),
    "chibit-bf16": lambda: chibit_step("bf16"),
    "transformers": transformers_step,
    "d3rlpy": d3rlpy_step,
}


def serve(step: Callable[[], object]) -> None:
    """Take as many steps as each line asks for, and say how long they took."""
    for _ in range(2):
        step()
    print("ready", flush=True)
    for line in sys.stdin:
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in range(int(line)):
            step()
        print(f"seconds {time.process_time() - cpu} {time.perf_counter() - wall}", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(0)
    serve(SIDES[sys.argv[1]]())

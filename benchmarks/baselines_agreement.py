"""Losses of the baselines against d3rlpy 2.8.1: equal weights, equal batch, equal random numbers.

    python benchmarks/baselines_agreement.py --peer-python PATH/TO/VENV/bin/python

Ours are computed here and written, with weights, batch and random numbers in d3rlpy's layout, to a temporary
file; the peer's interpreter reads it (`baselines_agreement_peer.py`) and computes the same losses.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

from chibit.agents import AGENTS, make_agent
from chibit.agents.cql import CQL
from chibit.core.runtime import Runtime
from chibit.data.dataset import DatasetSpec
from chibit.data.samplers.transitions import TransitionBatch
from chibit.models.mlp import MLP, StackedMLP

HERE = Path(__file__).parent
STATE_DIM, ACT_DIM, NUM_ACTIONS, BATCH_SIZE, NUM_SAMPLES, NUM_QUANTILES = 4, 2, 3, 64, 10, 8
HIDDEN = (32, 32)
Arrays = dict[str, np.ndarray]


def make_spec(is_discrete: bool) -> DatasetSpec:
    """Random data's description."""
    act_dim = 0 if is_discrete else ACT_DIM
    return DatasetSpec(
        name="random",
        state_dim=STATE_DIM,
        act_dim=act_dim,
        num_actions=NUM_ACTIONS if is_discrete else None,
        env_id=None,
        d4rl_physics=False,
        max_episode_steps=1000,
        score_reference=None,
        state_mean=(0.0,) * STATE_DIM,
        state_std=(1.0,) * STATE_DIM,
        action_low=(-1.0,) * act_dim,
        action_high=(1.0,) * act_dim,
        default_target_returns=(0.0,),
    )


def make_batch(is_discrete: bool) -> TransitionBatch:
    """Random transitions, some of which terminate."""
    if is_discrete:
        actions = torch.randint(NUM_ACTIONS, (BATCH_SIZE,))
    else:
        actions = torch.rand(BATCH_SIZE, ACT_DIM) * 1.8 - 0.9
    return TransitionBatch(
        states=torch.randn(BATCH_SIZE, STATE_DIM),
        actions=actions,
        rewards=torch.randn(BATCH_SIZE),
        next_states=torch.randn(BATCH_SIZE, STATE_DIM),
        terminations=(torch.rand(BATCH_SIZE) < 0.2).float(),
        rows=torch.arange(BATCH_SIZE),
    )


def layers_of(network: nn.Module, member: int) -> list[tuple[Tensor, Tensor]]:
    """Weights (out, in) and biases (out,) of an MLP, or of one member of a stack."""
    if isinstance(network, MLP):
        return [(layer.weight, layer.bias) for layer in network.layers]
    assert isinstance(network, StackedMLP)
    pairs = zip(network.weights, network.biases, strict=True)
    return [(weight[member].T, bias[member, 0]) for weight, bias in pairs]


def exported(prefix: str, layers: list[tuple[Tensor, Tensor]], heads: tuple[str, ...] = ("_fc",)) -> Arrays:
    """Layers under d3rlpy's names; the last one is cut into its heads."""
    arrays = {}
    for i, (weight, bias) in enumerate(layers[:-1]):
        arrays[f"{prefix}._encoder._layers.{2 * i}.weight"] = weight
        arrays[f"{prefix}._encoder._layers.{2 * i}.bias"] = bias
    weights, biases = (part.chunk(len(heads)) for part in layers[-1])
    for head, weight, bias in zip(heads, weights, biases, strict=True):
        arrays[f"{prefix}.{head}.weight"], arrays[f"{prefix}.{head}.bias"] = weight, bias
    return {name: array.detach().numpy() for name, array in arrays.items()}


def exported_critics(agent: Any) -> Arrays:
    arrays: Arrays = {}
    for prefix, critics in (("q_funcs", agent.critics), ("targ_q_funcs", agent.target_critics)):
        for member in range(2):
            arrays |= exported(f"{prefix}.{member}", layers_of(critics.mlp, member))
    return arrays


@contextmanager
def scripted_randomness(*draws: Tensor) -> Iterator[None]:
    """Let `torch.randn` and `torch.rand_like` give these, in turn."""
    queue = iter(draws)
    with (
        patch("torch.randn", lambda *_, **__: next(queue)),
        patch("torch.rand_like", lambda *_, **__: next(queue)),
    ):
        yield


def bc(agent: Any, batch: TransitionBatch) -> tuple[dict[str, float], Arrays]:
    loss = agent.actor_loss(batch.states, batch.actions)[0].item()
    return {"actor": loss}, exported("imitator", layers_of(agent.actor.mlp, 0))


def td3_bc(agent: Any, batch: TransitionBatch) -> tuple[dict[str, float], Arrays]:
    losses = {"critic": agent.critic_loss(batch)[0].item(), "actor": agent.actor_loss(batch)[0].item()}
    arrays = exported_critics(agent)
    arrays |= exported("policy", layers_of(agent.actor.mlp, 0))
    return losses, arrays | exported("targ_policy", layers_of(agent.target_actor.mlp, 0))


def cql(agent: CQL, batch: TransitionBatch) -> tuple[dict[str, float], Arrays]:
    noise = {name: torch.randn(BATCH_SIZE, NUM_SAMPLES, ACT_DIM) for name in ("current", "next")}
    noise["actor"] = torch.randn(BATCH_SIZE, 1, ACT_DIM)
    noise["uniform"] = torch.rand(BATCH_SIZE, NUM_SAMPLES, ACT_DIM)
    # The peer's target takes the policy's mode: a draw whose noise is 0.
    following = torch.cat([noise["next"], torch.zeros(BATCH_SIZE, 1, ACT_DIM)], dim=1)
    current = agent.actor(batch.states)
    with scripted_randomness(noise["actor"], noise["uniform"].clone(), noise["current"], following):
        actions, log_probs = (x[:, 0] for x in current.sample(1))
        conservative = agent.conservative_batch(batch, current)
    losses = {
        "critic": agent.critic_loss(conservative)[0].item(),
        "actor": agent.actor_loss(batch.states, actions, log_probs)[0].item(),
    }
    arrays = exported_critics(agent) | exported("policy", layers_of(agent.actor.mlp, 0), ("_mu", "_logstd"))
    return losses, arrays | {f"noise.{name}": draws.numpy() for name, draws in noise.items()}


def iql(agent: Any, batch: TransitionBatch) -> tuple[dict[str, float], Arrays]:
    advantages = agent.advantages(batch)
    losses = {
        "critic": agent.critic_loss(batch)[0].item(),
        "value": agent.value_loss(advantages)[0].item(),
        "actor": agent.actor_loss(batch, advantages)[0].item(),
    }
    arrays = exported_critics(agent) | exported("value_func", layers_of(agent.value.mlp, 0))
    arrays |= exported("policy", layers_of(agent.actor.mlp, 0), ("_mu",))
    # The peer bends its parameter into [-5, 2] with a sigmoid; ours is 0 at the start.
    return losses, arrays | {"policy._logstd": np.full((1, ACT_DIM), np.log(2.5), np.float32)}


def qr_dqn(agent: Any, batch: TransitionBatch) -> tuple[dict[str, float], Arrays]:
    arrays: Arrays = {}
    for prefix, critic in (("q_funcs", agent.critic), ("targ_q_funcs", agent.target_critic)):
        layers = [*layers_of(critic.encoder.mlp, 0), (critic.head.weight, critic.head.bias)]
        arrays |= exported(f"{prefix}.0", layers)
    return {"critic": agent.critic_loss(batch)[0].item()}, arrays


SETTINGS: dict[str, dict[str, Any]] = {
    "bc": {},
    "td3_bc": {"policy_noise": 0.0},
    "cql": {"conservative_weight": 5.0, "num_sampled_actions": NUM_SAMPLES},
    "iql": {},
    "qr_dqn": {"num_quantiles": NUM_QUANTILES},
}
LOSSES = {"bc": bc, "td3_bc": td3_bc, "cql": cql, "iql": iql, "qr_dqn": qr_dqn}


def compare(name: str, peer_python: str, folder: Path) -> list[str]:
    """Rows of the table for one agent."""
    torch.manual_seed(0)
    is_discrete = name == "qr_dqn"
    config = AGENTS[name].config(hidden_sizes=HIDDEN, **SETTINGS[name])
    agent: Any = make_agent(config, make_spec(is_discrete), Runtime())
    for key, parameter in agent.modules().named_parameters():
        if key.startswith("target_"):  # else targets equal their sources, and a mix-up would not show
            parameter.data += 0.1 * torch.randn_like(parameter)
    batch = make_batch(is_discrete)
    losses, arrays = LOSSES[name](agent, batch)
    arrays |= {f"batch.{key}": value.numpy() for key, value in vars(batch).items()}
    path = folder / f"{name}.npz"
    np.savez(path, **arrays)
    peer = subprocess.run(
        [peer_python, str(HERE / "baselines_agreement_peer.py"), name, str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    rows = []
    for line in peer.stdout.splitlines():
        if not line.startswith("loss "):
            continue
        _, loss, value = line.split()
        ours, theirs = losses.pop(loss), float(value)
        difference = abs(ours - theirs) / abs(theirs)
        rows.append(f"| {name} | {loss} | {ours:.7g} | {theirs:.7g} | {difference:.1e} |")
    assert not losses, f"{name}: the peer gave no {', '.join(losses)}"
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--peer-python", required=True, help="interpreter of an environment with d3rlpy 2.8.1"
    )
    arguments = parser.parse_args()
    print("| agent | loss | ours | d3rlpy | relative difference |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name in LOSSES:
            print("\n".join(compare(name, arguments.peer_python, Path(folder))), flush=True)


if __name__ == "__main__":
    main()

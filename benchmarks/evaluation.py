"""Evaluation speed: lockstep rollout against the loop that Decision Transformer repositories have.

The peer plays one environment at a time and, at each step, pads the last K steps and computes every token's
output with transformers' DecisionTransformerModel. Both sides have the same weights, the same environments
and one thread, take turns, and are timed in processor seconds; the ratio is the median over rounds. First
the actions of both are compared along the peer's own episode.

    python benchmarks/evaluation.py [--env-id HalfCheetah-v5] [--num-episodes 20] [--steps 200] [--rounds 5]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from transformers import DecisionTransformerConfig, DecisionTransformerModel

from chibit.agents import AGENTS, make_agent
from chibit.agents.base import Agent
from chibit.core.runtime import Runtime
from chibit.data.dataset import DatasetSpec
from chibit.evaluation.pool import EnvironmentPool
from chibit.evaluation.rollout import episode_seeds, evaluate

CONTEXT, SCALE, TARGET = 20, 1000.0, 3600.0


def make_spec(env_id: str) -> DatasetSpec:
    with EnvironmentPool(env_id) as pool:
        env = pool.take(1)[0]
        state_dim, act_dim = env.observation_space.shape[0], env.action_space.shape[0]
    return DatasetSpec(
        name="benchmark", state_dim=state_dim, act_dim=act_dim, num_actions=None, env_id=env_id,
        d4rl_physics=False, max_episode_steps=1000, score_reference=None, state_mean=(0.0,) * state_dim,
        state_std=(1.0,) * state_dim, action_low=(-1.0,) * act_dim, action_high=(1.0,) * act_dim,
        default_target_returns=(TARGET,),
    )  # fmt: skip


def make_peer(agent: Agent, spec: DatasetSpec) -> DecisionTransformerModel:
    """Model of transformers with the agent's weights; its row 0 of wpe, which ours has not, is zero."""
    config = DecisionTransformerConfig(
        state_dim=spec.state_dim, act_dim=spec.act_dim, hidden_size=128, n_embd=128, n_layer=3, n_head=1,
        max_ep_len=1000, activation_function="relu", attn_implementation="eager",
    )  # fmt: skip
    peer = DecisionTransformerModel(config).eval()
    nn.init.zeros_(peer.encoder.wpe.weight)
    missing, _ = peer.load_state_dict(_peer_names(agent.model.state_dict()), strict=False)
    unread = ("predict_state", "predict_return", "encoder.wte", "encoder.wpe")
    assert not [name for name in missing if not name.startswith(unread)], missing
    return peer


def _peer_names(ours: dict[str, Tensor]) -> dict[str, Tensor]:
    outer = {
        "embed_return": "embed_return", "embed_state": "embed_state", "embed_action": "embed_action",
        "timesteps": "embed_timestep", "embedding_norm": "embed_ln", "action_head": "predict_action.0",
        "backbone.norm": "encoder.ln_f",
    }  # fmt: skip
    inner = {
        "attention_norm": "ln_1", "mlp_norm": "ln_2", "attention.qkv": "attn.c_attn",
        "attention.projection": "attn.c_proj", "expand": "mlp.c_fc", "contract": "mlp.c_proj",
    }  # fmt: skip
    names = dict(outer)
    for layer in range(3):
        names |= {f"backbone.blocks.{layer}.{o}": f"encoder.h.{layer}.{t}" for o, t in inner.items()}
    theirs = {}
    for name, tensor in ours.items():
        stem, _, kind = name.rpartition(".")
        if stem in names:
            is_transposed = ".c_" in names[stem] and kind == "weight"
            theirs[f"{names[stem]}.{kind}"] = tensor.T if is_transposed else tensor
    return theirs


class PeerLoop:
    """One environment, batch 1, the whole window padded and recomputed at every step."""

    def __init__(self, peer: DecisionTransformerModel, spec: DatasetSpec, steps: int) -> None:
        self.peer, self.spec, self.steps = peer, spec, steps
        self.mean, self.std = torch.tensor(spec.state_mean), torch.tensor(spec.state_std)

    @torch.no_grad()
    def action(self, states: Tensor, actions: Tensor, returns: Tensor, timesteps: Tensor) -> Tensor:
        """(A,) for the last of T states; all arguments have T rows."""
        states = ((states - self.mean) / self.std)[-CONTEXT:]
        actions, returns, timesteps = actions[-CONTEXT:], returns[-CONTEXT:], timesteps[-CONTEXT:]
        padding = CONTEXT - len(states)
        mask = torch.cat([torch.zeros(padding), torch.ones(len(states))])[None].long()

        def pad(x: Tensor) -> Tensor:
            return torch.cat([torch.zeros(padding, *x.shape[1:], dtype=x.dtype), x])[None]

        output = self.peer(
            states=pad(states), actions=pad(actions), rewards=None, returns_to_go=pad(returns),
            timesteps=pad(timesteps), attention_mask=mask, return_dict=False,
        )  # fmt: skip
        return output[1][0, -1]

    def episode(self, env, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Observations (T, S), actions (T, A) and rewards (T,) of one episode."""
        observation, _ = env.reset(seed=seed)
        states = torch.from_numpy(observation.astype(np.float32))[None]
        actions = torch.zeros(0, self.spec.act_dim)
        returns, timesteps = torch.tensor([[TARGET / SCALE]]), torch.zeros(1, dtype=torch.long)
        rewards: list[float] = []
        done = False
        while not done:
            actions = torch.cat([actions, torch.zeros(1, self.spec.act_dim)])
            actions[-1] = self.action(states, actions, returns, timesteps)
            observation, reward, terminated, truncated, _ = env.step(actions[-1].numpy())
            done = terminated or truncated
            rewards.append(float(reward))
            states = torch.cat([states, torch.from_numpy(observation.astype(np.float32))[None]])
            returns = torch.cat([returns, returns[-1:] - reward / SCALE])
            timesteps = torch.cat([timesteps, timesteps[-1:] + 1])
        return states[:-1].numpy(), actions.numpy(), np.array(rewards)


def largest_difference(agent: Agent, played: tuple[np.ndarray, np.ndarray, np.ndarray]) -> float:
    """Largest difference of an action, with both models seeing the peer's episode."""
    policy, difference = agent.policy([TARGET]), 0.0
    policy.reset(1)
    for observation, action, reward in zip(*played, strict=True):
        difference = max(difference, float(np.abs(policy.act(observation[None])[0] - action).max()))
        policy.observe(np.array([reward]), np.array([False]))
    return difference


def rate(play: Callable[[], int]) -> float:
    """Environment steps in a processor second."""
    started = time.process_time()
    steps = play()
    return steps / (time.process_time() - started)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--env-id", default="HalfCheetah-v5", help="one whose episodes do not end early")
    parser.add_argument("--num-episodes", type=int, default=20)
    parser.add_argument("--steps", type=int, default=200, help="length of an episode")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    spec = make_spec(given.env_id)
    pool = EnvironmentPool(spec.env_id, max_episode_steps=given.steps)
    config = AGENTS["dt"].config(timestep_position="before_norm", timestep_table="normal")
    agents = {
        precision: make_agent(config, spec, Runtime(precision=precision)) for precision in ("fp32", "bf16")
    }
    agents["bf16"].modules().load_state_dict(agents["fp32"].modules().state_dict())
    peer = PeerLoop(make_peer(agents["fp32"], spec), spec, given.steps)
    played = peer.episode(pool.take(1)[0], episode_seeds(0, 1)[0])
    difference = largest_difference(agents["fp32"], played)
    print(f"largest difference of an action over {len(played[2])} steps: {difference:.1e}")

    def lockstep(agent: Agent) -> int:
        (result,) = evaluate(
            agent.policy([TARGET]), spec.env_id, target_returns=[TARGET], num_episodes=given.num_episodes,
            seed=0, max_episode_steps=given.steps, environments=pool,
        )  # fmt: skip
        return sum(result.episode_lengths)

    variants: dict[str, Callable[[], int]] = {
        "peer": lambda: len(peer.episode(pool.take(1)[0], 0)[2]),
        "lockstep fp32": lambda: lockstep(agents["fp32"]),
        "lockstep bf16": lambda: lockstep(agents["bf16"]),
    }
    rates: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(given.rounds):
        for name, play in variants.items():
            rates[name].append(rate(play))
    print(f"{given.env_id}, K = {CONTEXT}, one thread, median of {given.rounds} rounds")
    for name, values in rates.items():
        ratio = statistics.median(v / p for v, p in zip(values, rates["peer"], strict=True))
        print(f"{name:<16}{statistics.median(values):8.0f} env-steps/CPU-s   {ratio:5.2f} x")


if __name__ == "__main__":
    main()

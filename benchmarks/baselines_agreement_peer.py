"""The peer's side of `baselines_agreement.py`: needs d3rlpy 2.8.1 and nothing of this package."""

from __future__ import annotations

import sys
from unittest.mock import patch

import d3rlpy
import numpy as np
import torch
from d3rlpy.models.encoders import VectorEncoderFactory
from d3rlpy.models.q_functions import QRQFunctionFactory
from d3rlpy.torch_utility import TorchMiniBatch

HIDDEN = [32, 32]
ENCODER = VectorEncoderFactory(HIDDEN)
ACTOR_CRITIC = {"actor_encoder_factory": ENCODER, "critic_encoder_factory": ENCODER}
CONFIGS = {
    "bc": lambda: d3rlpy.algos.BCConfig(encoder_factory=ENCODER),
    "td3_bc": lambda: d3rlpy.algos.TD3PlusBCConfig(**ACTOR_CRITIC, target_smoothing_sigma=0.0),
    # No Lagrange multiplier: its learning rate is 0, it stays at 1, and its threshold is taken out. The
    # temperature is held too: the peer updates it before it uses it.
    "cql": lambda: d3rlpy.algos.CQLConfig(
        **ACTOR_CRITIC, alpha_learning_rate=0.0, alpha_threshold=0.0, temp_learning_rate=0.0
    ),
    "iql": lambda: d3rlpy.algos.IQLConfig(**ACTOR_CRITIC, value_encoder_factory=ENCODER),
    "qr_dqn": lambda: d3rlpy.algos.DQNConfig(
        encoder_factory=ENCODER, q_func_factory=QRQFunctionFactory(n_quantiles=8)
    ),
}


def build(name: str, arrays: dict[str, np.ndarray]):
    """An algorithm with our weights."""
    states, actions = arrays["batch.states"], arrays["batch.actions"]
    num_steps = len(states)
    ends = np.zeros(num_steps, np.float32)
    ends[-1] = 1.0
    actions = actions[:, None] if actions.ndim == 1 else actions
    dataset = d3rlpy.dataset.MDPDataset(states, actions, arrays["batch.rewards"], np.zeros(num_steps), ends)
    algorithm = CONFIGS[name]().create(device="cpu:0")
    algorithm.build_with_dataset(dataset)
    modules = algorithm.impl.modules
    for key, array in arrays.items():
        module, _, parameter = key.partition(".")
        if module in ("batch", "noise"):
            continue
        target = dict(getattr(modules, module).named_parameters())[parameter]
        target.data.copy_(torch.from_numpy(array))
    return algorithm.impl


def make_batch(arrays: dict[str, np.ndarray]) -> TorchMiniBatch:
    """Our batch in the peer's form."""
    tensors = {
        key.partition(".")[2]: torch.from_numpy(a) for key, a in arrays.items() if key.startswith("batch.")
    }
    actions = tensors["actions"]
    column = torch.ones(len(actions), 1)
    return TorchMiniBatch(
        observations=tensors["states"],
        actions=actions[:, None] if actions.dim() == 1 else actions,
        rewards=tensors["rewards"][:, None],
        next_observations=tensors["next_states"],
        next_actions=torch.zeros_like(column),
        returns_to_go=torch.zeros_like(column),
        terminals=tensors["terminations"][:, None],
        intervals=column,
        device="cpu:0",
    )


def losses(name: str, impl, batch: TorchMiniBatch, noise: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    if name == "bc":
        return {"actor": impl.compute_loss(batch.observations, batch.actions).loss}
    if name == "qr_dqn":
        return {"critic": impl.compute_loss(batch, impl.compute_target(batch)).loss}
    if name == "cql":
        return cql_losses(impl, batch, noise)
    critic = impl.compute_critic_loss(batch, impl.compute_target(batch))
    actor = impl.compute_actor_loss(batch, impl.modules.policy(batch.observations)).actor_loss
    if name == "iql":
        return {"critic": critic.q_loss, "value": critic.v_loss, "actor": actor}
    return {"critic": critic.critic_loss, "actor": actor}


def cql_losses(impl, batch: TorchMiniBatch, noise: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Conservative loss with our random numbers in place of the distributions' own."""
    draws = iter([noise["current"].transpose(0, 1), noise["next"].transpose(0, 1), noise["actor"][:, 0]])
    uniform = noise["uniform"].flatten(0, 1) * 2 - 1
    with (
        patch("torch.distributions.Normal.rsample", lambda self, *_: self.loc + self.scale * next(draws)),
        patch("torch.Tensor.uniform_", lambda self, *_: self.copy_(uniform)),
    ):
        critic = impl.compute_critic_loss(batch, impl.compute_target(batch)).critic_loss
        action = impl.modules.policy(batch.observations)
        actor = impl.compute_actor_loss(batch, action).actor_loss
    return {"critic": critic, "actor": actor}


def main(name: str, path: str) -> None:
    arrays = dict(np.load(path))
    noise = {
        key.partition(".")[2]: torch.from_numpy(a) for key, a in arrays.items() if key.startswith("noise.")
    }
    for loss, value in losses(name, build(name, arrays), make_batch(arrays), noise).items():
        print("loss", loss, repr(value.item()))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""What agents with discrete actions share: check of the data, encoder, reward rule and greedy policy.

Dimensions: B batch · A num_actions · H heads.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from chibit.agents.markov import MarkovPolicy
from chibit.core.errors import InputError
from chibit.data.trajectory import DatasetSpec, TrajectoryDataset
from chibit.data.transitions import TransitionSampler
from chibit.models.convolution import ConvolutionalEncoder
from chibit.models.mlp import Encoder, VectorEncoder

IMAGE_FEATURES = 512
"""Width of the hidden layer behind the convolutions."""


def require_discrete(agent: str, spec: DatasetSpec) -> int:
    """Number of actions, for an agent that needs them discrete.

    Raises:
        InputError: if actions are continuous.
    """
    if spec.num_actions is None:
        raise InputError(
            f"agent {agent}: the actions of {spec.name} are continuous, expected discrete ones; "
            "use bc, td3_bc, cql, brac_v, awr, iql or rebrac"
        )
    return spec.num_actions


def make_encoder(spec: DatasetSpec, hidden_sizes: Sequence[int], standardize_pictures: bool) -> Encoder:
    """Build what turns observations into features: hidden layers for vectors, convolutions for images.

    Behind the convolutions there is one hidden layer of 512, as in Mnih et al. (2015).
    """
    if spec.image_shape:
        return ConvolutionalEncoder(
            spec.image_shape, IMAGE_FEATURES, final=nn.ReLU, standardize=standardize_pictures
        )
    return VectorEncoder(spec.state_dim, hidden_sizes)


def clipped_reward_sampler(
    dataset: TrajectoryDataset, generator: np.random.Generator, batch_size: int, reward_clip: float | None
) -> TransitionSampler:
    """Draw transitions uniformly, rewards cut to ± `reward_clip`; None keeps them raw."""
    if reward_clip is None:
        return TransitionSampler(dataset, batch_size=batch_size, generator=generator)
    return TransitionSampler(
        dataset,
        batch_size=batch_size,
        generator=generator,
        reward_transform=lambda rewards: np.clip(rewards, -reward_clip, reward_clip),
    )


def greedy_policy(
    spec: DatasetSpec, device: torch.device, critic: nn.Module, epsilon: float = 0.0
) -> MarkovPolicy:
    """Act by the largest mean over the heads of a critic that maps states to (B, A, H).

    Args:
        spec: of the data.
        device: where the critic is.
        critic: the critic.
        epsilon: probability of a random action instead, so that no game hangs for ever in one state.
    """

    def actions(states: Tensor) -> Tensor:
        values: Tensor = critic(states)
        return values.mean(dim=-1).argmax(dim=-1)

    return MarkovPolicy(spec, device, actions, epsilon=epsilon)

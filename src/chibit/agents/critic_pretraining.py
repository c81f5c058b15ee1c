"""Synthetic pre-training of critics (Wang et al., 2024): predict the next state of a random decision process.

The process has 100 states and 100 actions, each a fixed random vector of the real task's size. Policy and
transitions are softmaxes of uniform logits at temperature 1 (`markov`), or everything is drawn independently
(`iid`).

Dimensions: N synthetic steps · B batch · S state_dim · A act_dim · E critics.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from chibit.agents.off_policy import adam
from chibit.models.critics import Critics
from chibit.models.mlp import StackedMLP

NUM_STATES = NUM_ACTIONS = 100
NUM_EPISODES = EPISODE_LENGTH = 1000
BATCH_SIZE, LEARNING_RATE = 256, 3e-4


@dataclass(frozen=True)
class SyntheticTransitions:
    """Steps of the process as numbers of states and actions, and the vectors that stand for them."""

    states: Tensor
    """(N,) int64."""
    actions: Tensor
    """(N,) int64."""
    next_states: Tensor
    """(N,) int64."""
    state_vectors: Tensor
    """(100, S) uniform in [-1, 1]."""
    action_vectors: Tensor
    """(100, A) uniform in [-1, 1]."""


def synthetic_transitions(
    kind: Literal["markov", "iid"], state_dim: int, act_dim: int, num_episodes: int = NUM_EPISODES
) -> SyntheticTransitions:
    """Draw a process and 1000 steps of each of its episodes, from torch's global generator.

    Args:
        kind: `markov`, or `iid` for steps without any structure.
        state_dim: S.
        act_dim: A.
        num_episodes: episodes, drawn side by side.
    """
    state_vectors = torch.rand(NUM_STATES, state_dim) * 2 - 1
    action_vectors = torch.rand(NUM_ACTIONS, act_dim) * 2 - 1
    if kind == "iid":
        num_steps = num_episodes * EPISODE_LENGTH
        states, next_states = torch.randint(NUM_STATES, (2, num_steps))
        actions = torch.randint(NUM_ACTIONS, (num_steps,))
        return SyntheticTransitions(states, actions, next_states, state_vectors, action_vectors)
    start = torch.rand(NUM_STATES).softmax(dim=-1).cumsum(dim=-1)
    policy = torch.rand(NUM_STATES, NUM_ACTIONS).softmax(dim=-1).cumsum(dim=-1)
    dynamics = torch.rand(NUM_STATES, NUM_ACTIONS, NUM_STATES).softmax(dim=-1).cumsum(dim=-1)
    states = torch.empty(EPISODE_LENGTH + 1, num_episodes, dtype=torch.int64)
    actions = torch.empty(EPISODE_LENGTH, num_episodes, dtype=torch.int64)
    states[0] = _draw(start.repeat(num_episodes, 1))
    for t in range(EPISODE_LENGTH):
        actions[t] = _draw(policy[states[t]])
        states[t + 1] = _draw(dynamics[states[t], actions[t]])
    return SyntheticTransitions(
        states[:-1].flatten(), actions.flatten(), states[1:].flatten(), state_vectors, action_vectors
    )


def _draw(cumulative: Tensor) -> Tensor:
    """One draw for each row of cumulative probabilities, by inversion."""
    uniform = torch.rand(len(cumulative), 1)
    return torch.searchsorted(cumulative, uniform).squeeze(1).clamp(max=cumulative.shape[1] - 1)


def pretrain_critics(
    critics: Critics,
    *,
    kind: Literal["markov", "iid"],
    num_steps: int,
    state_dim: int,
    act_dim: int,
    progress: bool = False,
) -> float:
    """Train the hidden layers of critics to predict next states; the head for that is then thrown away.

    Args:
        critics: changed in place, but for their last layer.
        kind: of the synthetic process.
        num_steps: gradient steps of Adam at 3e-4 on batches of 256.
        state_dim: S.
        act_dim: A.
        progress: show how far it is.

    Returns:
        Mean squared error of the last batch, summed over critics.
    """
    from chibit.core.progress import step_bar  # policies act without it

    device = critics.mlp.weights[0].device
    data = synthetic_transitions(kind, state_dim, act_dim)
    hidden_sizes = [weight.shape[2] for weight in critics.mlp.weights[:-1]]
    predictor = StackedMLP(len(critics.mlp.weights[0]), state_dim + act_dim, hidden_sizes, state_dim).to(
        device
    )
    optimizer = adam(predictor, LEARNING_RATE)
    loss = torch.zeros(())
    with step_bar("pre-training the critics", progress, num_steps) as advance:
        for _ in range(num_steps):
            rows = torch.randint(len(data.states), (BATCH_SIZE,))
            states, actions = data.state_vectors[data.states[rows]], data.action_vectors[data.actions[rows]]
            target = data.state_vectors[data.next_states[rows]].to(device)
            predictions = predictor(torch.cat([states, actions], dim=-1).to(device))  # (E, B, S)
            loss = (predictions - target).square().mean(dim=(1, 2)).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            advance()
    with torch.no_grad():
        for ours, trained in (
            (critics.mlp.weights, predictor.weights),
            (critics.mlp.biases, predictor.biases),
        ):
            for parameter, source in zip(ours[:-1], trained[:-1], strict=True):
                parameter.copy_(source)
    return loss.item()

"""The sequence agent learns what can be learned: to repeat a few episodes, and to do as it is asked."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from chibit.evaluation.rollout import rollout
from chibit.models.gpt import GPTShape
from sequence_toys import make_small, scratch
from toys import IdentityEnv, TargetReturnEnv, play_toy


@pytest.mark.parametrize(
    "switches",
    [
        {},
        {"timestep_position": "before_norm", "timestep_table": "normal"},
        {"head": "tied"},
        {"projections": "residual_mlp"},
    ],
    ids=["wrapper", "chen", "shared", "residual_mlp"],
)
def test_four_random_episodes_are_learned_by_heart(switches: dict) -> None:
    dataset = play_toy(IdentityEnv(length=8), 4, scratch(), choose=lambda draw, _: draw.uniform(-0.9, 0.9, 1))
    agent, sampler = make_small(
        dataset,
        dropout=0.0,
        context_length=8,
        gpt=GPTShape(n_layer=2, n_head=2, n_embd=32),
        learning_rate=3e-3,
        grad_clip=1.0,
        **switches,
    )
    rows = dataset.episode_starts[:-1]
    for _ in range(400):
        metrics = agent.update(sampler.windows(rows))
        if metrics["train/action_loss"] < 1e-3:
            break
    assert metrics["train/action_loss"] < 1e-3


def test_asking_for_more_brings_more() -> None:
    agent, sampler = make_small(dropout=0.0, timestep_table="normal")
    for _ in range(400):
        agent.update(sampler.sample())
    targets = [-6.0, -2.0, 2.0, 6.0]
    episodes = rollout(agent.policy(targets), [TargetReturnEnv() for _ in targets], [0] * 4)
    returns = [episode.raw_return for episode in episodes]
    assert returns == sorted(returns)
    np.testing.assert_allclose(returns, targets, atol=1.0)


def test_discrete_actions_are_learned() -> None:
    dataset = play_toy(IdentityEnv(num_actions=3), 60, scratch(), seed=3)
    best = dataset.observations.argmax(axis=1)
    records = np.array(dataset.records)
    records[:, 1 + dataset.spec.state_dim] = best
    expert = dataclasses.replace(dataset, records=records, spec=dataset.spec)
    agent, sampler = make_small(expert, dropout=0.0, grad_clip=1.0)
    for _ in range(250):
        metrics = agent.update(sampler.sample())
    assert metrics["train/action_loss"] < 0.1
    episodes = rollout(agent.policy([10.0]), [IdentityEnv(num_actions=3) for _ in range(10)], list(range(10)))
    assert np.mean([episode.raw_return for episode in episodes]) > 9.0

"""Methods learn from pictures: a few real steps by heart, and values of a reward that one action brings."""

import dataclasses

import numpy as np
import pytest
import torch

from atari_toys import play_games
from chibit.agents import make_agent
from chibit.core.runtime import Runtime
from chibit.data.frame_store import FrameEpisode, write_frame_store
from chibit.data.load import load_dataset
from chibit.data.readers.origin import Origin
from chibit.recipes import RECIPES

ENV_ID = "PongNoFrameskip-v4"


@pytest.fixture(scope="module")
def games():
    return play_games(ENV_ID, range(2), max_steps=60)


def dataset_of(games, tmp_path):
    origin = Origin(name="Pong", env_id=ENV_ID)
    return load_dataset(write_frame_store(tmp_path / "store", games, origin))


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["dt_atari", "bc_atari", "chibit_atari"])
def test_a_transformer_learns_a_few_windows_by_heart(recipe, games, tmp_path):
    torch.manual_seed(0)
    dataset = dataset_of(games, tmp_path)
    changes = {"context_length": 8, "batch_size": 4, "max_timesteps": 64, "dropout": 0.0}
    changes |= {"learning_rate_decay_steps": 0, "warmup_steps": 5, "learning_rate": 2e-3}
    config = dataclasses.replace(RECIPES[recipe].run(data="x").agent, **changes)
    agent = make_agent(config, dataset.spec, Runtime())
    batch = agent.sampler(agent.prepare(dataset), np.random.default_rng(0)).windows(
        np.array([20, 35, 80, 100])
    )
    losses = [agent.update(batch)["train/action_loss"] for _ in range(150)]
    assert losses[0] > 1.5 and losses[-1] < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["cql_atari", "qr_dqn_atari", "rem_atari"])
def test_values_find_the_action_that_is_rewarded(recipe, games, tmp_path):
    """Real pictures, and a reward for action 3 alone: the greedy policy takes it in most of them."""
    torch.manual_seed(0)
    rewarded = [
        FrameEpisode(game.frames, game.actions, (game.actions == 3).astype(np.float32), True)
        for game in games
    ]
    dataset = dataset_of(rewarded, tmp_path)
    changes = {"learning_rate": 1e-3, "discount": 0.0, "evaluation_epsilon": 0.0}
    config = dataclasses.replace(RECIPES[recipe].run(data="x").agent, **changes)
    agent = make_agent(config, dataset.spec, Runtime())
    sampler = agent.sampler(agent.prepare(dataset), np.random.default_rng(0))
    for _ in range(120):
        agent.update(sampler.sample())
    states = sampler.transitions(np.arange(0, 110, 5)).states.numpy()
    policy = agent.policy(None)
    policy.reset(len(states))
    assert (policy.act(states) == 3).mean() > 0.9

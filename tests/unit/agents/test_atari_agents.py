"""Every method of Table 1 on pictures: it trains, acts in ALE, and is saved and loaded."""

import dataclasses

import numpy as np
import pytest
import torch

from atari_toys import play_games
from chibit.agents import make_agent
from chibit.core.config import from_json, to_json
from chibit.core.errors import InputError
from chibit.core.runtime import Runtime
from chibit.data.frame_store import write_frame_store
from chibit.data.load import load_dataset
from chibit.data.readers.origin import Origin
from chibit.evaluation.rollout import evaluate
from chibit.policy.policy import Policy
from chibit.recipes import RECIPES

ENV_ID = "BreakoutNoFrameskip-v4"
LOCAL = [f"{name}_atari" for name in ("dt", "bc", "random", "chibit", "cql", "qr_dqn", "rem")]
SMALL = {"batch_size": 2, "max_timesteps": 64, "context_length": 4}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores") / "breakout"
    games = play_games(ENV_ID, range(3), max_steps=50)
    return load_dataset(write_frame_store(folder, games, Origin(name="Breakout", env_id=ENV_ID)))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def make(recipe, dataset, **changes):
    config = RECIPES[recipe].run(data="x").agent
    config = dataclasses.replace(config, **(SMALL if config.agent == "dt" else {"batch_size": 2}), **changes)
    agent = make_agent(config, dataset.spec, Runtime())
    return agent, agent.sampler(agent.prepare(dataset), np.random.default_rng(0))


@pytest.mark.parametrize("recipe", LOCAL)
def test_a_method_trains_acts_and_is_saved(recipe, dataset, tmp_path):
    agent, sampler = make(recipe, dataset)
    before = {key: value.clone() for key, value in agent.modules().state_dict().items()}
    metrics = [agent.update(sampler.sample()) for _ in range(2)]
    assert all(np.isfinite(value) for line in metrics for value in line.values())
    encoder = [key for key in before if "convolutions.0.weight" in key and "target" not in key]
    assert encoder and all(not torch.equal(agent.modules().state_dict()[key], before[key]) for key in encoder)
    targets = [3.0, 1.0] if agent.is_return_conditioned else [None]
    assert agent.is_return_conditioned == (agent.config.agent == "dt" and recipe != "bc_atari")
    evaluations = evaluate(
        agent.policy(targets if agent.is_return_conditioned else None),
        ENV_ID,
        target_returns=targets,
        num_episodes=2,
        seed=0,
        max_episode_steps=6,
        score_reference=dataset.spec.score_reference,
    )
    assert [evaluation.episode_lengths for evaluation in evaluations] == [(6, 6)] * len(targets)
    assert all(e.normalized_score == pytest.approx(100 * (e.mean_return - 1.7) / 28.8) for e in evaluations)
    config = from_json(type(agent.config), to_json(agent.config))
    assert config == agent.config
    policy = Policy(agent, dataset.spec)
    policy.save_pretrained(tmp_path / "policy")
    loaded = Policy.from_pretrained(tmp_path / "policy")
    pictures = np.random.default_rng(0).integers(0, 256, (3, 4, 84, 84), dtype=np.uint8)
    for one in (policy, loaded):
        one.reset(3)
    np.testing.assert_array_equal(loaded.act(pictures), policy.act(pictures))
    assert "pictures of 84 x 84" in (tmp_path / "policy" / "README.md").read_text()


def test_the_transformer_of_the_table_is_that_of_chen(dataset):
    config = RECIPES["dt_atari"].run(data="x").agent
    assert (config.gpt.n_layer, config.gpt.n_head, config.gpt.n_embd, config.gpt.activation) == (
        6,
        8,
        128,
        "gelu",
    )
    assert (config.context_length, config.batch_size, config.learning_rate) == (30, 128, 6e-4)
    agent, _ = make("dt_atari", dataset)
    assert (
        agent.model.token_positions.weight.shape == (12, 128) and not agent.model.token_positions.weight.any()
    )
    assert not agent.model.timesteps.weight.any()


def test_chibit_has_three_layers_of_one_head_and_its_positions_are_the_tokens(dataset):
    from chibit.models.initializers import load_initializer

    agent, _ = make("chibit_atari", dataset)
    own = agent.model.backbone.config
    assert (own.n_layer, own.n_head, own.n_embd) == (3, 1, 128)
    table = load_initializer("chibit").position_embeddings
    torch.testing.assert_close(agent.model.token_positions.weight.detach(), table[:12])


def test_only_weights_of_linear_layers_and_convolutions_decay(dataset):
    agent, _ = make("dt_atari", dataset)
    names = {id(p): name for name, p in agent.modules().named_parameters()}
    groups = agent.optimizer.param_groups
    decayed = {names[id(p)] for g in groups if g["weight_decay"] == 0.1 for p in g["params"]}
    spared = {names[id(p)] for g in groups if g["weight_decay"] == 0.0 for p in g["params"]}
    assert decayed | spared == set(names.values()) and not decayed & spared
    assert all(name.endswith("weight") for name in decayed)
    assert {name for name in spared if name.endswith("weight") and "norm" not in name} == {
        "model.embed_action.weight",
        "model.timesteps.weight",
        "model.token_positions.weight",
    }
    assert all(group["betas"] == (0.9, 0.95) for group in groups)


def test_the_step_size_falls_along_a_cosine_to_a_tenth(dataset):
    agent, sampler = make("dt_atari", dataset, warmup_steps=1, learning_rate_decay_steps=3)
    rates = [agent.update(sampler.sample())["train/learning_rate"] for _ in range(5)]
    expected = [1.0, 1.0, 0.55, 0.1, 0.1]
    np.testing.assert_allclose(rates, [6e-4 * factor for factor in expected], rtol=1e-6)


def test_history_is_encoded_once_and_gives_the_whole_windows_actions(dataset):
    """The policy's stored features and a forward pass over the raw stacks agree on the distribution."""
    agent, _ = make("dt_atari", dataset)
    policy = agent.policy([5.0])
    policy.reset(1)
    states = dataset.spec.image_shape
    pictures = np.random.default_rng(1).integers(0, 256, (3, *states), dtype=np.uint8)
    chosen = []
    for step in range(3):
        chosen.append(int(policy.act(pictures[step][None])[0]))
        policy.observe(np.array([1.0]), np.array([False]))
    agent.model.eval()
    with torch.no_grad():
        logits = agent.model(
            torch.tensor([[5.0, 4.0, 3.0]]),
            torch.from_numpy(pictures)[None],
            torch.tensor([[*chosen[:2], 0]]),
            torch.arange(3)[None],
        )[0]
    draws = np.random.default_rng((0, 0))
    for step in range(3):
        probabilities = logits[step].double().softmax(-1).cumsum(-1).numpy()
        assert chosen[step] == int((probabilities < draws.random()).sum())


def test_an_episode_does_not_depend_on_the_others_beside_it(dataset):
    agent, _ = make("dt_atari", dataset)

    def play(number):
        """The evaluation, and what was done in its first episode: hardly anything is scored in 40 steps."""
        policy, acted = agent.policy([5.0]), []
        act = policy.act
        policy.act = lambda seen: acted.append(act(seen)) or acted[-1]
        (found,) = evaluate(
            policy, ENV_ID, target_returns=[5.0], num_episodes=number, seed=3, max_episode_steps=40
        )
        return found, [int(actions[0]) for actions in acted]

    (two, beside), (one, alone) = play(2), play(1)
    assert beside == alone and len(set(alone)) > 1
    assert two.episode_returns[:1] == one.episode_returns and two.env_seeds[:1] == one.env_seeds


def test_epsilon_is_the_share_of_random_actions_and_out_of_range_refused(dataset):
    agent, _ = make("qr_dqn_atari", dataset, evaluation_epsilon=1.0)
    pictures = np.zeros((400, 4, 84, 84), np.uint8)
    policy = agent.policy(None)
    policy.reset(400)
    assert len(set(policy.act(pictures).tolist())) == 4
    with pytest.raises(InputError, match="evaluation_epsilon"):
        dataclasses.replace(agent.config, evaluation_epsilon=1.5)


def test_a_policy_refuses_pictures_of_another_shape(dataset):
    agent, _ = make("rem_atari", dataset)
    policy = Policy(agent, dataset.spec)
    policy.reset(1)
    with pytest.raises(InputError, match=r"expected \(1, 4, 84, 84\)"):
        policy.act(np.zeros((1, 84, 84), np.uint8))


def test_a_film_shows_the_games_own_screen(dataset, tmp_path):
    from chibit.evaluation.video import record_video

    agent, _ = make("rem_atari", dataset)
    video = record_video(agent.policy(None), ENV_ID, tmp_path / "game.mp4", max_seconds=0.5)
    assert video.path.stat().st_size > 1000 and (video.steps, video.frames) == (7, 8)

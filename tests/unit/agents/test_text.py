"""The agent that reads: oracles of its model, what it refuses, and a run from data to film."""

import copy
import dataclasses
import json

import numpy as np
import pytest
import torch

import chibit
from chibit.agents import make_agent
from chibit.agents.text.config import TextConfig
from chibit.agents.text.known_words import known_words
from chibit.agents.text.words import load_words
from chibit.cli import main
from chibit.core.errors import InputError
from chibit.core.runtime import Runtime, seed_torch
from chibit.data.load import load_dataset
from chibit.evaluation.rollout import evaluate
from chibit.evaluation.video import captioned
from chibit.models.gpt import GPTShape
from chibit.models.instructed import PADDING, SoftLook

pytest.importorskip("minigrid")
pytest.importorskip("tiktoken")
from chibit.data.collect.language import collect_language  # noqa: E402

SMALL = {"gpt": GPTShape(n_layer=2, n_embd=32, n_head=1), "batch_size": 6}
ENV = "chibit/BabyAI-GoToLocalS8N4-v0"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    out = tmp_path_factory.mktemp("language")
    return collect_language("babyai-gotolocals8n4", num_episodes=16, out=out, progress=False)


@pytest.fixture(scope="module")
def data(store):
    return load_dataset(store)


def build(spec, **settings):
    seed_torch(0)
    return make_agent(TextConfig(**{**SMALL, **settings}), spec, Runtime())


@pytest.fixture(scope="module")
def steps():
    """Two episodes of six steps: states, actions, timesteps."""
    generator = torch.Generator().manual_seed(1)
    direction = torch.nn.functional.one_hot(torch.randint(0, 4, (2, 6), generator=generator), 4)
    grid = torch.randint(0, 4, (2, 6, 147), generator=generator)
    states = torch.cat([direction, grid], dim=-1).float()
    return states, torch.randint(0, 7, (2, 6), generator=generator), torch.arange(6).repeat(2, 1)


@pytest.fixture(scope="module")
def chibit_agent(data):
    agent = build(data.spec, initializer="chibit", gpt=GPTShape())
    agent.modules().eval()
    return agent


@pytest.mark.parametrize("encoder", ["backbone", "bag"])
def test_padding_of_the_text_changes_nothing(data, steps, encoder):
    agent = build(data.spec, text_encoder=encoder)
    model = agent.model.eval()
    text = agent.encode(["go to the red ball", "go to a blue key"])
    padded = torch.cat([torch.full((2, 5), PADDING), text], dim=1)
    with torch.no_grad():
        torch.testing.assert_close(model(padded, *steps), model(text, *steps), atol=1e-5, rtol=0)


def test_padding_changes_nothing_for_a_model_of_transformers(data, steps, tmp_path):
    """GPT-2's table of positions counts from the first real token, wherever padding is."""
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(n_layer=2, n_embd=32, n_head=2, vocab_size=300)
    torch.manual_seed(0)
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path)
    from tokenizers import ByteLevelBPETokenizer

    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(["go to the red ball, a blue key"], vocab_size=300)
    transformers.PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer).save_pretrained(tmp_path)
    for encoder in ("backbone", "frozen"):
        agent = build(data.spec, initializer=f"hf:{tmp_path}", text_encoder=encoder, gpt=GPTShape(n_embd=32))
        model = agent.model.eval()
        text = agent.encode(["go to the red ball", "go to a blue key"])
        if encoder == "frozen":
            assert text.shape == (2, 32) and text.is_floating_point()
            assert not torch.equal(text[0], text[1])
            continue
        padded = torch.cat([torch.full((2, 3), PADDING), text], dim=1)
        with torch.no_grad():
            torch.testing.assert_close(model(padded, *steps), model(text, *steps), atol=1e-5, rtol=0)
    bag = build(data.spec, words=f"hf:{tmp_path}", text_encoder="bag")  # whose tokens only that model knows
    for each in (agent, bag):
        with pytest.raises(InputError, match="not exported; act from its run"):
            _ = each.acting_config


def test_no_step_sees_the_future_and_the_text_is_seen(chibit_agent, steps):
    model, (states, actions, time) = chibit_agent.model, steps
    text = chibit_agent.encode(["go to the red ball", "go to a blue key"])
    later, other = states.clone(), actions.clone()
    later[:, 4:], other[:, 3:] = 1.0, 0
    with torch.no_grad():
        full = model(text, states, actions, time)
        changed = model(text, later, other, time)
        assert torch.equal(changed[:, :4], full[:, :4]) and not torch.equal(changed[:, 4], full[:, 4])
        told = model(chibit_agent.encode(["go to the blue ball", "go to a blue key"]), states, actions, time)
        last = model(text, states, actions, time, last_only=True)
    moved = (told - full).abs().amax((1, 2))
    assert moved[0] > 0.01 and moved[1] < 1e-5  # one color, and padding
    torch.testing.assert_close(last[:, 0], full[:, -1], atol=1e-5, rtol=1e-5)


def test_the_look_is_where_the_text_says():
    """With keys and query set by hand the look goes to the cell whose object is asked for."""
    torch.manual_seed(0)
    look = SoftLook(num_cells=4, num_others=0, width=8)
    seen = []
    look.project.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        for table in look.symbols[1:]:
            table.weight.zero_()
        look.symbols[0].weight.zero_()
        look.symbols[0].weight[5, 0] = look.symbols[0].weight[6, 1] = 10.0
        look.key.weight.zero_()
        look.key.weight[0, 0] = look.key.weight[1, 1] = 10.0
        look.query.weight.zero_()
        look.query.bias.zero_()
        look.query.weight[0, 0] = look.query.weight[1, 1] = 1.0
        grid = torch.tensor([[[[1, 0, 0], [5, 2, 0], [6, 1, 0], [2, 5, 0]]]])
        look(grid, torch.zeros(1, 1, 0), torch.eye(8)[:1] * 5)
        look(grid, torch.zeros(1, 1, 0), torch.eye(8)[1:2] * 5)
    weights = [values[0, 0, -4:] / 2 for values in seen]
    assert [int(w.argmax()) for w in weights] == [1, 2] and all(w.max() > 0.99 for w in weights)


def test_a_hundred_updates_tell_two_missions_apart(data):
    """In one and the same state, what is right depends on the text alone."""
    agent = build(data.spec, learning_rate=3e-3)
    sampler = agent.sampler(data, np.random.default_rng(0))
    batch = sampler.sample()
    from dataclasses import replace

    half = len(batch.rows) // 2
    text = agent.encode(["go to the red ball"] * half + ["open a blue door"] * half)
    states = batch.states[:1].expand(len(batch.rows), -1, -1)
    right = (torch.arange(len(batch.rows)) >= half).long()[:, None].expand_as(batch.actions).contiguous()
    batch = replace(batch, text=text, states=states, actions=right * batch.attention_mask)
    first = agent.action_error(batch)
    for _ in range(60):
        agent.update(batch)
    assert agent.action_error(batch) < 0.1 < first


def test_features_are_those_of_the_weights_as_they_were_loaded(data):
    """The backbone that learns is not the model that reads, also of texts that training never saw."""
    agent = build(data.spec, initializer="chibit", text_encoder="frozen", gpt=GPTShape())
    sampler = agent.sampler(data, np.random.default_rng(0))
    before = [parameter.clone() for parameter in agent.model.backbone.parameters()]
    for _ in range(2):
        agent.update(sampler.sample())
    assert not all(map(torch.equal, before, agent.model.backbone.parameters()))
    said = "go to the crimson sphere"
    assert torch.equal(agent.encode([said]), load_words("chibit", 128).features([said], None))


def test_whole_episodes_with_their_texts(data):
    agent = build(data.spec)
    sampler = agent.sampler(data, np.random.default_rng(0))
    batch = sampler.sample()
    starts, lengths = data.episode_starts, data.episode_lengths
    texts = dict(zip(starts[:-1].tolist(), data.missions.tolist(), strict=True))
    for place, row in enumerate(batch.rows.tolist()):
        assert row in texts
        length = int(lengths[starts.tolist().index(row)])
        assert int(batch.attention_mask[place].sum()) == length
        tokens = batch.text[place]
        assert tokens[tokens != PADDING].tolist() == agent.encode([texts[row]])[0].tolist()
        np.testing.assert_array_equal(batch.states[place, :length], data.observations[row : row + length])
    assert batch.states.shape[1] == int(batch.attention_mask.sum(1).max())
    short = build(data.spec, context_length=3).sampler(data, np.random.default_rng(0))
    assert {int(t) for _ in range(20) for t in short.sample().timesteps[:, 0]} > {0, 1}


def test_an_interrupted_agent_goes_on_to_the_bit(data):
    agents = [build(data.spec), build(data.spec)]
    samplers = [agent.sampler(data, np.random.default_rng(3)) for agent in agents]
    for _ in range(3):
        agents[0].update(samplers[0].sample())
    agents[1].load_state_dict(copy.deepcopy(agents[0].state_dict()))
    samplers[1].load_state_dict(samplers[0].state_dict())
    losses = [
        [float(a.update(s.sample())["train/loss"]) for _ in range(2)]
        for a, s in zip(agents, samplers, strict=True)
    ]
    assert losses[0] == losses[1]


def test_what_does_not_go_together(data, tmp_path):
    agent = build(data.spec, text_length=4)
    with pytest.raises(InputError, match="mission 'go to the red ball and' has 6 tokens, expected at most 4"):
        agent.encode(["go to the red ball and"])
    for name, reason in {
        "markov": "'markov' has 100 words of its own, in which no mission is written",
        "own:nothing": "'own:nothing' is a backbone of somebody's own",
    }.items():
        with pytest.raises(InputError, match=reason):
            build(data.spec, initializer=name, gpt=GPTShape())
    with pytest.raises(
        InputError, match="initializer 'chibit blocks' has no words|have width 128, the backbone 32"
    ):
        build(data.spec, words="chibit")
    with pytest.raises(InputError, match="text_encoder 'frozen' needs a language model"):
        TextConfig(text_encoder="frozen")
    vectors = chibit.from_arrays(
        np.zeros((4, 3)), np.arange(4) % 2, np.ones(4), np.arange(4) == 3, cache=tmp_path
    )
    with pytest.raises(InputError, match="have no grid of symbols"):
        build(vectors.spec)
    from dataclasses import replace

    with pytest.raises(InputError, match="says in no words what its episodes are for"):
        agent.sampler(replace(data, missions=None), np.random.default_rng(0))
    with pytest.raises(InputError, match="the environment says in no words what to do"):
        evaluate(agent.policy(None), "CartPole-v1", num_episodes=1)


def test_agents_that_do_not_read_are_refused_data_that_speak(store, tmp_path, capsys):
    command = ["train", "--data", str(store), "--agent", "discrete_bc", "--out", str(tmp_path / "run")]
    assert main([*command, "--num-steps", "1", "--quiet"]) == 2
    said = capsys.readouterr().err
    assert (
        "different texts what its episodes are for, and agent discrete_bc reads none; use --agent text"
        in " ".join(said.split())
    )
    blind = tmp_path / "blind.npz"
    assert main(["data", "convert", str(store), "--to", "npz", "--out", str(blind)]) == 0
    command[2] = str(blind)
    assert main([*command, "--num-steps", "1", "--quiet", "--num-episodes", "0", "--no-judge"]) == 0


def test_a_policy_is_told_what_to_do(data, tmp_path):
    policy = chibit.Policy(build(data.spec), data.spec)
    grid = np.zeros((7, 7, 3), np.uint8)
    with pytest.raises(InputError, match="what is environment 0 to do"):
        policy.reset()
        policy.act(np.zeros(151))
    policy.instruct("go to the red ball")
    with pytest.raises(InputError, match="got 2 texts, expected 1"):
        policy.instruct(["a", "b"])
    policy.reset()
    for tell in (
        lambda: policy.instruct([None]),
        lambda: policy.act({"direction": 2, "image": grid, "mission": [None]}),
    ):
        with pytest.raises(InputError, match="environment 0 is told None, expected a text"):
            tell()
    policy.instruct("go to the red ball")
    first = policy.act({"direction": 2, "image": grid, "mission": "something else"})
    with pytest.raises(InputError, match="at the beginning of an episode"):
        policy.instruct("go to the blue ball")
    policy.observe(0.0, False)
    with pytest.raises(InputError, match="at the beginning of an episode"):
        policy.instruct("go to the blue ball")
    policy.reset(2)
    seen = {
        "direction": np.array([2, 1]),
        "image": np.stack([grid] * 2),
        "mission": ["go to the red ball", "open it"],
    }
    assert policy.act(seen).shape == (2,) and policy.act is not None
    policy.observe(np.zeros(2), np.array([True, False]))
    policy.reset(envs=[0])
    with pytest.raises(InputError, match="what is environment 0 to do"):
        policy.act(np.zeros((2, 151)))
    policy.instruct(["go to the red ball"], [0])
    assert policy.act(np.zeros((2, 151))).shape == (2,)
    episode = data.trajectory(0)
    chosen = policy.replay(episode.observations, episode.actions, episode.rewards, mission=data.missions[0])
    assert chosen.shape == episode.actions.shape
    folder = policy.save_pretrained(tmp_path / "policy")
    again = chibit.Policy.from_pretrained(folder)
    again.reset()
    again.instruct("go to the red ball")
    assert again.act({"direction": 2, "image": grid}) == first
    blind = make_agent_that_does_not_read(data.spec)
    with pytest.raises(InputError, match="this method reads no text"):
        blind.reset()
        blind.instruct("go to the red ball")


def test_a_policy_sees_what_was_learned_from_where_observations_have_an_offset(data):
    """Records are less the offset: a clock in seconds since 1970 beside the grid."""
    shown = {}
    for clock in (0.0, 1.7e9):
        spec = dataclasses.replace(data.spec, state_offset=(clock, *[0.0] * 150) if clock else ())
        agent = build(spec)
        agent.model.register_forward_pre_hook(lambda _, inputs, at=clock: shown.update({at: inputs[1]}))
        policy = agent.policy()
        policy.reset(1)
        policy.instruct(["go to the red ball"])
        policy.act(np.array([[clock + 3.0, *data.observations[0, 1:]]], policy.dtype))
    assert torch.equal(shown[0.0], shown[1.7e9]) and shown[0.0].dtype == torch.float32


def test_a_policy_that_reads_words_of_another_width_is_loaded_again(data, tmp_path):
    agent = build(data.spec, text_encoder="bag", words="chibit", gpt=GPTShape(n_layer=1, n_embd=64, n_head=1))
    assert agent.words.table.shape[1] == 128
    policy = chibit.Policy(agent, data.spec)
    again = chibit.Policy.from_pretrained(policy.save_pretrained(tmp_path / "policy"))
    seen = {"direction": 2, "image": data.trajectory(0).observations[0, 4:].reshape(7, 7, 3)}
    for each in (policy, again):
        each.reset()
        each.instruct("go to the red ball")
    assert again.act(seen) == policy.act(seen)
    ours, theirs = agent.model.state_dict(), again.agent.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("env_id", [ENV, None])
def test_the_card_of_a_policy_that_reads_runs(env_id, data, tmp_path, monkeypatch, capsys):
    spec = dataclasses.replace(data.spec, env_id=env_id)
    text = (chibit.Policy(build(spec), spec).save_pretrained(tmp_path) / "README.md").read_text()
    assert "policy.instruct(" in text.split("```python\n")[1] and "normalizes" not in text
    monkeypatch.chdir(tmp_path)
    exec(compile(text.split("```python\n")[1].split("```")[0], "README.md", "exec"), {})
    assert float(capsys.readouterr().out) >= 0


def make_agent_that_does_not_read(spec):
    from chibit.agents.discrete_bc import DiscreteBCConfig

    return chibit.Policy(make_agent(DiscreteBCConfig(), spec, Runtime()), spec)


def test_chibit_knows_no_color(capsys):
    """To two digits as it was measured before; hidden states do no better."""
    words = load_words("chibit", 128)
    found = known_words(words)
    measured = {slot: (test["nearest"], test["seen"]) for slot, test in found.items()}
    expected = {"color": (0.16, 0.23), "type": (0.42, 0.35), "verb": (0.50, 0.50)}
    for slot, numbers in expected.items():
        assert measured[slot] == pytest.approx(numbers, abs=0.005)
    assert [found[slot]["known"] for slot in ("color", "type", "verb")] == [False, False, True]
    hidden = known_words(words, in_context=True)
    assert [hidden[slot]["nearest"] for slot in ("color", "type", "verb")] == pytest.approx(
        [0.08, 0.25, 0.30], abs=0.005
    )
    assert main(["words", "random"]) == 0
    assert "a synonym test of verbs and types and colors that finds nothing" in capsys.readouterr().out
    assert main(["words", "markov"]) == 2
    assert "no mission is written" in capsys.readouterr().err


def test_a_film_says_what_is_to_be_done():
    picture = np.zeros((64, 96, 3), np.uint8)
    film = captioned(picture, "put the red ball next to the blue key")
    assert film.shape[1:] == (96, 3) and film.dtype == np.uint8 and (len(film) - 64) % 16 == 0
    np.testing.assert_array_equal(film[:64], picture)
    band = film[64:]
    assert (band > 200).mean() > 0.6 and (band < 100).any()  # dark letters on white
    assert not np.array_equal(captioned(picture, "go to the key"), captioned(picture, "go to the box"))


def test_a_run_from_data_to_success_rates(store, tmp_path, capsys):
    run = tmp_path / "run"
    settings = ["--n-embd", "32", "--n-layer", "1", "--batch-size", "6", "--precision", "bf16"]
    command = ["train", "--agent", "text", "--data", str(store), "--out", str(run), *settings, "--quiet"]
    assert main([*command, "--num-steps", "4", "--evaluate-every", "4", "--num-episodes", "2"]) == 0
    [line] = [json.loads(text) for text in (run / "evaluations.jsonl").read_text().splitlines()]
    assert len(line["successes"]) == 2 and line["target_return"] is None
    provenance = json.loads((run / "provenance.json").read_text())
    assert provenance["initialiser"]["words"]["color"]["known"] is False
    env = "chibit/BabyAI-GoToLocalS8N4-color_synonym-v0"
    assert main(["evaluate", str(run), "--num-episodes", "1", "--env-id", env]) == 0
    assert "success" in capsys.readouterr().out

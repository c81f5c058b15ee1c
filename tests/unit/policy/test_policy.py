"""A policy as a folder: equal actions after a round trip for every agent, and no damage goes unnoticed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import socket
import time

import numpy as np
import pytest
import safetensors.torch
import torch

import chibit
from baseline_toys import identity_data
from chibit.agents import AGENTS, make_agent
from chibit.agents.dt.config import DecisionTransformerConfig
from chibit.cli import main
from chibit.core.config import to_json
from chibit.core.errors import DamagedFileError, InputError, ResourceError
from chibit.core.runtime import Runtime
from chibit.core.shared_folder import MANIFEST
from chibit.data.dataset import DatasetSpec
from chibit.evaluation import video
from chibit.evaluation.rollout import evaluate
from chibit.models.gpt import GPTConfig, GPTShape
from chibit.models.language_model import LanguageModel, LanguageModelConfig, save_language_model
from chibit.policy import export
from chibit.policy.card import PolicyScore
from chibit.policy.policy import Policy, export_policy
from policy_toys import KINDS, make

HOPPER = DatasetSpec(
    name="chibit/hopper/medium-v0",
    state_dim=11,
    act_dim=3,
    num_actions=None,
    env_id="Hopper-v5",
    d4rl_physics=False,
    max_episode_steps=1000,
    score_reference=(-20.272305, 3234.3),
    state_mean=tuple(np.linspace(-0.5, 1.3, 11).tolist()),
    state_std=tuple(np.linspace(0.3, 2.0, 11).tolist()),
    action_low=(-1.0,) * 3,
    action_high=(1.0,) * 3,
    default_target_returns=(3600.0, 1800.0),
)
LONG = dataclasses.replace(HOPPER, max_episode_steps=10**12)
CARTPOLE = dataclasses.replace(
    HOPPER, name="cartpole", state_dim=4, act_dim=0, num_actions=2, env_id="CartPole-v1",
    max_episode_steps=500, score_reference=None, state_mean=(0.0,) * 4, state_std=(1.0,) * 4, action_low=(),
    action_high=(), default_target_returns=(500.0, 250.0),
)  # fmt: skip
SCORE = PolicyScore(
    env_id="Hopper-v5", target_return=3600.0, num_episodes=10, mean_return=1500.0, std_return=321.5,
    normalized_score=46.71,
)  # fmt: skip


def build(key: str, spec: DatasetSpec | None = None):
    """An agent with fresh weights and a data set it can learn from."""
    torch.manual_seed(0)
    for candidate in [spec] if spec else [HOPPER, CARTPOLE]:
        try:
            return make_agent(AGENTS[key].config(), candidate, Runtime()), candidate
        except InputError as error:
            if spec is not None or "actions" not in str(error):
                raise
    raise AssertionError(f"{key} takes neither continuous nor discrete actions")


def play(policy, spec: DatasetSpec, num_envs: int = 3, steps: int = 4) -> np.ndarray:
    """Actions for made-up observations and rewards."""
    generator = np.random.default_rng(3)
    policy.reset(num_envs)
    actions = []
    for _ in range(steps):
        actions.append(policy.act(generator.normal(size=(num_envs, spec.state_dim)).astype(np.float32)))
        policy.observe(generator.normal(size=num_envs), np.zeros(num_envs, bool))
    return np.stack(actions)


@pytest.mark.parametrize("key", [key for key in AGENTS if key != "text"])  # which is told what to do
def test_round_trip_gives_equal_actions(key, tmp_path):
    agent, spec = build(key)
    target = spec.default_target_returns[0] if agent.is_return_conditioned else None
    expected = play(agent.policy(None if target is None else [target]), spec)
    folder = export_policy(agent, spec, tmp_path / "policy")
    assert sorted(p.name for p in folder.iterdir()) == [
        MANIFEST,
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    torch.manual_seed(99)
    policy = Policy.from_pretrained(folder)
    np.testing.assert_array_equal(play(policy, spec), expected)
    assert policy.target_return == target
    again = Policy.from_pretrained(policy.save_pretrained(tmp_path / "again"))
    np.testing.assert_array_equal(play(again, spec), expected)
    assert (tmp_path / "again" / "config.json").read_text() == (folder / "config.json").read_text()


@pytest.fixture
def saved(tmp_path):
    agent, spec = build("dt", HOPPER)
    return export_policy(agent, spec, tmp_path / "policy", target_return=3000.0, scores=[SCORE])


def test_what_was_saved_comes_back(saved):
    policy = Policy.from_pretrained(str(saved))
    assert policy.spec == HOPPER
    assert policy.target_return == 3000.0
    assert policy.scores == (SCORE,)
    record = json.loads((saved / "config.json").read_text())
    assert record["agent"] == "dt" and record["chibit"] == chibit.__version__


@pytest.mark.parametrize("source", [3, None, b"policy", ["a"]])
def test_what_is_no_place_of_a_policy_is_refused(source):
    with pytest.raises(InputError, match="^source: got .*, expected a folder, or an id on the Hub"):
        Policy.from_pretrained(source)


def test_another_target_return_changes_the_actions(saved):
    one, other = Policy.from_pretrained(saved), Policy.from_pretrained(saved, target_return=100.0)
    assert other.target_return == 100.0
    assert np.abs(play(one, HOPPER) - play(other, HOPPER)).max() > 1e-5


def test_act_keeps_the_rank_it_was_given(saved):
    policy = Policy.from_pretrained(saved)
    observation = np.linspace(0, 1, 11)
    policy.reset()
    single = policy.act(observation)
    assert single.shape == (3,) and single.dtype == np.float32
    policy.observe(1.0, False)
    assert policy.act(observation[None]).shape == (1, 3)
    policy.reset(num_envs=2)
    pair = policy.act(np.stack([observation, observation]))
    assert pair.shape == (2, 3)
    np.testing.assert_allclose(pair[0], single, atol=1e-6)


def test_a_discrete_policy_gives_integers(tmp_path):
    agent, spec = build("dt", CARTPOLE)
    policy = Policy.from_pretrained(export_policy(agent, spec, tmp_path / "policy"))
    policy.reset()
    action = policy.act(np.zeros(4))
    assert action.shape == () and action.dtype == np.int64 and action in (0, 1)


@pytest.mark.parametrize(
    ("misuse", "said"),
    [
        (lambda p: p.act(np.zeros(11)), "call reset first"),
        (lambda p: p.reset(0), "num_envs is 0"),
        (lambda p: (p.reset(), p.act(np.zeros(12))), r"shape \(12,\), expected \(1, 11\)"),
        (lambda p: (p.reset(2), p.act(np.zeros(11))), r"expected \(2, 11\)"),
        (lambda p: (p.reset(), p.act(np.zeros(11)), p.act(np.zeros(11))), "observe"),
        (lambda p: (p.reset(2), p.observe(1.0, False)), r"rewards have shape \(1,\), expected \(2,\)"),
    ],
)
def test_misuse_is_refused(saved, misuse, said):
    with pytest.raises(InputError, match=said):
        misuse(Policy.from_pretrained(saved))


def test_a_saved_policy_is_evaluated_in_its_real_environment(saved):
    policy = Policy.from_pretrained(saved)
    (result,) = evaluate(
        policy, policy.spec.env_id, target_returns=[policy.target_return], num_episodes=2, seed=0,
        score_reference=policy.spec.score_reference, max_episode_steps=30,
    )  # fmt: skip
    assert result.target_return == 3000.0
    assert result.failed_episodes == () and min(result.episode_lengths) > 3
    assert -5 < result.normalized_score < 20


def test_the_model_card_says_what_it_is_and_its_example_runs(saved, monkeypatch, capsys):
    text = (saved / "README.md").read_text()
    assert "not D4RL's" in text and "Hopper-v5" in text and "| 3,600 | 10 | 1,500 | ± 322 | 46.7 |" in text
    yaml = pytest.importorskip("yaml")
    head = yaml.safe_load(text.split("---")[1])
    assert head["library_name"] == "chibit" and "reinforcement-learning" in head["tags"]
    (result,) = head["model-index"][0]["results"]
    assert result["dataset"]["name"] == "Hopper-v5"
    assert {m["type"]: m["value"] for m in result["metrics"]} == {
        "mean_reward": "1500 +/- 322",
        "normalized_score": 46.71,
    }
    monkeypatch.chdir(saved)
    exec(compile(text.split("```python\n")[1].split("```")[0], "README.md", "exec"), {})
    assert np.isfinite(float(capsys.readouterr().out))


def test_the_example_of_a_card_ends_where_the_policy_does(tmp_path, monkeypatch, capsys):
    """Its limit may come before the environment's, which may have none."""
    spec = dataclasses.replace(HOPPER, max_episode_steps=4)
    export_policy(build("bc", spec)[0], spec, tmp_path)
    monkeypatch.chdir(tmp_path)
    text = (tmp_path / "README.md").read_text()
    exec(compile(text.split("```python\n")[1].split("```")[0], "README.md", "exec"), {})
    assert np.isfinite(float(capsys.readouterr().out))


@pytest.mark.parametrize("kind", KINDS)
def test_the_card_of_a_plant_runs_and_says_how_actions_are_chosen(kind, tmp_path, monkeypatch, capsys):
    """Data that name no environment: nothing is built, and the lines run as they stand."""
    policy = make(kind)
    assert policy.spec.env_id is None
    text = (export_policy(policy.agent, policy.spec, tmp_path) / "README.md").read_text()
    assert "make_env" not in text
    assert ("greedy=True" in text) == (kind == "discrete dt") == ("Nothing is drawn" not in text)
    monkeypatch.chdir(tmp_path)
    exec(compile(text.split("```python\n")[1].split("```")[0], "README.md", "exec"), {})
    assert capsys.readouterr().out


def rewrite(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def flip_a_byte(folder):
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)


def replace_weights(folder, change):
    """Other weights, with a hash that fits: only what is in them can give them away."""
    path = folder / "model.safetensors"
    tensors = safetensors.torch.load(path.read_bytes())
    change(tensors)
    content = safetensors.torch.save(tensors)
    path.write_bytes(content)
    rewrite(folder, sha256=hashlib.sha256(content).hexdigest())


def spoil(tensors):
    next(t for t in tensors.values() if t.is_floating_point()).view(-1)[0] = float("nan")


def add(tensors):
    tensors["extra"] = torch.ones(2)


def cut(tensors):
    name = max(tensors, key=lambda n: tensors[n].numel())
    tensors[name] = tensors[name][:-1].clone()


@pytest.mark.parametrize(
    ("damage", "kind", "said"),
    [
        (lambda f: (f / "config.json").unlink(), InputError, "config.json: no such file"),
        (lambda f: (f / "config.json").write_text("{"), DamagedFileError, "not valid JSON"),
        (lambda f: (f / "config.json").write_text("[]"), InputError, "is not a policy's"),
        (lambda f: rewrite(f, schema=99), InputError, "upgrade chibit"),
        (lambda f: rewrite(f, schema=None), InputError, "is not a policy's"),
        (lambda f: rewrite(f, arm="dt", study="s"), InputError, "unknown field 'arm'"),
        (lambda f: rewrite(f, agent="dtt"), InputError, "agent: got 'dtt'; did you mean 'dt'"),
        (lambda f: rewrite(f, config={"contxt": 3}), InputError, "unknown field 'contxt'"),
        (lambda f: rewrite(f, config={"init": "hf:somebody/model"}), DamagedFileError, "expected 'random'"),
        (lambda f: rewrite(f, config={"n_embd": 10**7}), DamagedFileError, "of another model"),
        (lambda f: rewrite(f, spec=to_json(LONG)), ResourceError, "its model takes"),
        (lambda f: rewrite(f, surprise=1), InputError, "unknown field 'surprise'"),
        (lambda f: rewrite(f, spec={}), InputError, "missing field"),
        (lambda f: (f / "model.safetensors").unlink(), DamagedFileError, "no such file"),
        (lambda f: (f / "model.safetensors").write_bytes(b""), DamagedFileError, "does not match"),
        (flip_a_byte, DamagedFileError, "does not match the SHA-256"),
        (lambda f: replace_weights(f, spoil), DamagedFileError, "not a finite number"),
        (lambda f: replace_weights(f, lambda t: t.popitem()), DamagedFileError, "has nothing, expected"),
        (lambda f: replace_weights(f, add), DamagedFileError, "expected nothing"),
        (lambda f: replace_weights(f, cut), DamagedFileError, "it does not fit config.json"),
    ],
)  # fmt: skip
def test_damage_is_refused_in_one_line(saved, damage, kind, said):
    damage(saved)
    with pytest.raises(kind, match=said) as refusal:
        Policy.from_pretrained(saved)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("target_return", [float("nan"), float("inf"), "high", "5", [1.0, 2.0]])
def test_a_target_that_is_no_number_is_refused_and_nothing_is_written(tmp_path, target_return):
    agent, spec = build("dt", HOPPER)
    with pytest.raises(InputError, match="finite number"):
        export_policy(agent, spec, tmp_path / "policy", target_return=target_return)
    assert list(tmp_path.iterdir()) == []


def test_a_film_asks_for_what_the_policy_asks_for(tmp_path, monkeypatch):
    asked = []

    def record_video(policy, env_id, path, **options):
        policy.reset(1)
        policy.act(np.zeros((1, 11), np.float32))
        asked.append(policy._history._returns_to_go[0, 0])

    monkeypatch.setattr(video, "record_video", record_video)
    agent, spec = build("dt", HOPPER)
    for target in (None, 1200.0):
        export.film(agent, spec, tmp_path / "replay.mp4", target_return=target, seed=0)
    assert asked == [3600.0, 1200.0]


def test_a_method_without_targets_refuses_one(tmp_path):
    keys = [key for key, entry in AGENTS.items() if not entry.config().takes_target_returns]
    agent, spec = build(keys[0])
    with pytest.raises(InputError, match="takes none"):
        Policy(agent, spec, target_return=1.0)


def test_a_policy_where_a_run_is_expected_is_said(tmp_path, capsys):
    export_policy(build("bc", HOPPER)[0], HOPPER, tmp_path / "policy")
    for command in ("evaluate", "judge", "attention", "export"):
        assert (
            main([command, str(tmp_path / "policy"), *(["--out", "x"] if command == "export" else [])]) == 2
        )
        error = " ".join(capsys.readouterr().err.split())
        assert "policy: not a run directory but a policy; in Python chibit.evaluate" in error
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"model_type": "gpt2"}')
    assert main(["evaluate", str(tmp_path / "other")]) == 2
    assert "not a run directory (it holds the config.json of something else)" in capsys.readouterr().err


def test_a_card_says_in_which_order_a_plants_columns_stand(tmp_path):
    names = tuple(f"{part}`{i}" for part in ("temp", "flow") for i in range(5)) + ("level",)
    spec = dataclasses.replace(HOPPER, env_id=None, observation_names=names, action_names=("a", "b", "c"))
    export_policy(build("bc", spec)[0], spec, tmp_path / "policy")
    card = (tmp_path / "policy" / "README.md").read_text()
    assert (
        "- Observations: 11 numbers (in this order: `temp 0`, `temp 1`, `temp 2`" in card
        and "`level`)" in card
    )
    assert "- Actions: 3 numbers (in this order: `a`, `b`, `c`)." in card
    assert Policy.from_pretrained(tmp_path / "policy").spec.observation_names == names
    with pytest.raises(InputError, match="action_names: got 2, expected 3 or none"):
        dataclasses.replace(HOPPER, action_names=("a", "b"))


def test_saving_again_replaces_its_own_files_and_leaves_others_alone(saved):
    (saved / "thesis.txt").write_text("x")
    (saved / ".git").mkdir()
    Policy.from_pretrained(saved, target_return=7.0).save_pretrained(saved)
    assert sorted(p.name for p in saved.iterdir()) == [
        *(MANIFEST, ".git", "README.md", "config.json", "model.safetensors", "thesis.txt")
    ]
    assert Policy.from_pretrained(saved).target_return == 7.0
    assert [p.name for p in saved.parent.iterdir()] == ["policy"]


def test_loading_leaves_the_number_of_threads_alone(saved):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        Policy.from_pretrained(saved)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_path_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        Policy.from_pretrained(tmp_path / "absent")


def test_an_unreachable_hub_is_refused_within_seconds(monkeypatch):
    pytest.importorskip("huggingface_hub")

    def refuse(*args, **kwargs):
        raise OSError("network is unreachable")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    started = time.perf_counter()
    with pytest.raises(ResourceError, match="somebody/hopper-policy") as refusal:
        Policy.from_pretrained("somebody/hopper-policy")
    assert time.perf_counter() - started < 15
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_a_wrapped_model_loads_without_its_source(tmp_path, tuning):
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=40, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=128,
    )  # fmt: skip
    source = tmp_path / "source"
    transformers.LlamaForCausalLM(config).save_pretrained(source)
    torch.manual_seed(0)
    agent = make_agent(
        AGENTS["dt"].config(initializer=f"hf:{source}", tuning=tuning, context_length=5), HOPPER, Runtime()
    )
    expected = play(agent.policy([3600.0]), HOPPER)
    folder = export_policy(agent, HOPPER, tmp_path / "policy")
    shutil.rmtree(source)
    policy = Policy.from_pretrained(folder)
    np.testing.assert_array_equal(play(policy, HOPPER), expected)
    again = policy.save_pretrained(tmp_path / "again")
    for name in ("config.json", "backbone/config.json"):
        assert (again / name).read_text() == (folder / name).read_text()
        assert str(tmp_path) not in (folder / name).read_text()


def test_a_pretrained_arm_loads_without_its_source(tmp_path):
    source = tmp_path / "source"
    shape = GPTConfig(n_layer=2, n_head=2, n_embd=16, activation="gelu_new")
    torch.manual_seed(0)
    save_language_model(LanguageModel(LanguageModelConfig(gpt=shape, vocab_size=50, n_positions=32)), source)
    agent = make_agent(AGENTS["dt"].config(initializer=str(source)), HOPPER, Runtime())
    expected = play(agent.policy([3600.0]), HOPPER)
    folder = export_policy(agent, HOPPER, tmp_path / "policy")
    shutil.rmtree(source)
    np.testing.assert_array_equal(play(Policy.from_pretrained(folder), HOPPER), expected)
    assert str(tmp_path) not in (folder / "config.json").read_text()


def test_what_was_really_done_is_what_a_sequence_model_remembers():
    spec = identity_data(False).spec
    config = DecisionTransformerConfig(gpt=GPTShape(n_layer=1, n_embd=16), context_length=4)
    agent = make_agent(config, spec, Runtime())
    seen = np.full((2, spec.state_dim), 0.3, np.float32)

    def second_actions(executed):
        policy = Policy(agent, spec, target_return=1.0)
        policy.reset(2)
        first = policy.act(seen)
        policy.observe(np.zeros(2), np.zeros(2, bool), executed)
        return first, policy.act(seen)

    first, plain = second_actions(None)
    assert np.array_equal(second_actions(first)[1], plain)
    assert not np.array_equal(second_actions(np.full_like(first, 0.9))[1], plain)
    policy = Policy(agent, spec, target_return=1.0)
    policy.reset(1)
    policy.act(seen[0])
    policy.observe(0.0, False, np.array([0.2]))  # without the first axis, as act gives it
    for wrong in (np.zeros(3), np.zeros((1, 2))):
        with pytest.raises(InputError, match="observe: actions have shape"):
            policy.observe(0.0, False, wrong)

"""The sequence agent: Eq. 9, what is trained, clipping, divergence, schedules, exact resume."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from chibit.agents.dt.agent import DecisionTransformer
from chibit.agents.dt.config import BACKBONE_FOLDER
from chibit.core.errors import DivergenceError, InputError
from chibit.core.runtime import Runtime, capture_rng, restore_rng
from chibit.core.schedules import cosine_decay
from chibit.data.samplers.windows import SequenceBatch
from chibit.losses.sequence import action_cross_entropy, action_mse
from chibit.losses.similarity import similarity_loss, spherical_kmeans
from chibit.models.gpt import GPTShape
from chibit.models.huggingface import HuggingFaceBackbone
from chibit.models.initializers import load_initializer
from sequence_toys import corpus_folder, language_model_folder, make_small, target_return_data


def with_language(**settings: object) -> dict:
    return {
        "initializer": language_model_folder(), "language_weight": 0.4, "language_corpus": corpus_folder(),
        "language_block": 16, **settings,
    }  # fmt: skip


def with_similarity(**settings: object) -> dict:
    return {"initializer": language_model_folder(), "similarity_weight": 0.1, "num_clusters": 5, **settings}


def parameters_of(agent: DecisionTransformer) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in agent.modules().named_parameters()}


class TestLoss:
    def test_is_the_mean_squared_error_where_nothing_else_is_asked_for(self) -> None:
        agent, sampler = make_small(dropout=0.0)
        batch = sampler.sample()
        predictions = agent.model(batch.returns_to_go, batch.states, batch.actions, batch.timesteps)
        expected = action_mse(predictions, batch.actions, batch.attention_mask).item()
        metrics = agent.update(batch)
        assert metrics["train/action_loss"] == metrics["train/loss"] == pytest.approx(expected, rel=1e-6)
        assert "train/similarity_loss" not in metrics
        assert "train/language_loss" not in metrics

    def test_is_equation_9(self) -> None:
        settings = with_language() | with_similarity(similarity_weight=0.2)
        agent, sampler = make_small(dropout=0.0, auxiliary_decay_steps=10, **settings)
        agent.step = 5
        batch = sampler.sample()
        tokens = agent.model.embed(batch.returns_to_go, batch.states, batch.actions, batch.timesteps)
        words = load_initializer(language_model_folder()).token_embeddings
        centers = spherical_kmeans(words, 5)
        real = batch.attention_mask.repeat_interleave(3, dim=1)
        similarity = similarity_loss(tokens, centers, real).item()
        other, _ = make_small(dropout=0.0, auxiliary_decay_steps=10, **settings)
        language = other.language.model.loss(other.language._sampler.sample().tokens).item()
        metrics = {name: float(value) for name, value in agent.update(batch).items()}
        assert metrics["train/similarity_loss"] == pytest.approx(similarity, rel=1e-5)
        assert metrics["train/language_loss"] == pytest.approx(language, rel=1e-5)
        expected = metrics["train/action_loss"] + 0.5 * 0.2 * similarity + 0.5 * 0.4 * language
        assert metrics["train/loss"] == pytest.approx(expected, rel=1e-5)

    def test_padding_neither_counts_nor_is_seen(self) -> None:
        agent, sampler = make_small(dropout=0.0, **with_similarity())
        batch = sampler.windows(np.array([7, 8, 9, 16]))
        assert batch.attention_mask.sum(dim=1).tolist() == [3, 2, 1, 4]
        pad = 2
        junk = dataclasses.replace(
            batch,
            returns_to_go=torch.cat((batch.returns_to_go, torch.full((4, pad), 50.0)), dim=1),
            states=torch.cat((batch.states, torch.full((4, pad, 1), -9.0)), dim=1),
            actions=torch.cat((batch.actions, torch.full((4, pad, 1), -10.0)), dim=1),
            timesteps=torch.cat((batch.timesteps, torch.zeros(4, pad, dtype=torch.int64)), dim=1),
            attention_mask=torch.cat((batch.attention_mask, torch.zeros(4, pad, dtype=torch.bool)), dim=1),
        )
        before, after = agent.losses(batch), agent.losses(junk)
        assert before.keys() == after.keys() == {"action", "similarity"}
        for name in before:
            torch.testing.assert_close(after[name], before[name])

    def test_similarity_is_of_two_tokens_a_step_where_there_are_no_return_tokens(self) -> None:
        agent, sampler = make_small(**with_similarity(), return_tokens=False)
        batch = sampler.sample()
        metrics = agent.update(batch)
        assert 0 < abs(metrics["train/similarity_loss"]) < 1.5

    def test_language_batches_come_at_their_steps_only(self) -> None:
        agent, sampler = make_small(**with_language(language_every=3))
        seen = ["train/language_loss" in agent.update(sampler.sample()) for _ in range(7)]
        assert seen == [True, False, False, True, False, False, True]

    def test_nothing_is_computed_once_the_weights_are_zero(self) -> None:
        agent, sampler = make_small(auxiliary_decay_steps=2, **with_language() | with_similarity())
        metrics = [agent.update(sampler.sample()) for _ in range(3)]
        assert "train/similarity_loss" in metrics[1]
        assert {"train/similarity_loss", "train/language_loss"}.isdisjoint(metrics[2])


@pytest.mark.parametrize(
    ("decay", "expected"),
    [
        ("linear_to_zero", {0: 1.0, 2500: 0.5, 5000: 0.0, 9000: 0.0}),
        ("sigmoid", {0: 0.9933, 1250: 0.9241, 2500: 0.5, 3750: 0.0759, 5000: 0.0067, 9000: 2e-6}),
        ("constant", {0: 1.0, 9000: 1.0}),
    ],
)
def test_auxiliary_weights_over_time(decay: str, expected: dict[int, float]) -> None:
    agent, _ = make_small(**with_language() | with_similarity(), auxiliary_decay=decay)
    for step, factor in expected.items():
        agent.step = step
        weights = agent.weights()
        assert weights["similarity"] == pytest.approx(0.1 * factor, abs=1e-5)
        assert weights["language"] == pytest.approx(0.4 * factor, abs=4e-5)


def test_language_can_decay_otherwise() -> None:
    agent, _ = make_small(
        **with_language() | with_similarity(), auxiliary_decay="sigmoid", language_decay="constant"
    )
    agent.step = 2500
    assert agent.weights() == {"action": 1.0, "similarity": 0.05, "language": 0.4}


@pytest.mark.parametrize(
    ("settings", "factors"),
    [
        ({"warmup_steps": 4}, {0: 0.25, 1: 0.5, 3: 1.0, 9: 1.0}),
        ({"warmup_steps": 4, "learning_rate_decay_steps": 12}, {1: 0.5, 4: 1.0, 8: 0.55, 12: 0.1, 99: 0.1}),
    ],
    ids=["warmup", "cosine"],
)
def test_the_learning_rate_moves_the_weights_by_its_schedule(settings: dict, factors: dict) -> None:
    """AdamW's first step moves each weight by the rate, whatever its gradient, unless that is about 0."""
    for step, factor in factors.items():
        agent, sampler = make_small(weight_decay=0.0, backbone_learning_rate=1e-4, **settings)
        agent.step = step
        before = parameters_of(agent)
        metrics = agent.update(sampler.sample())
        assert metrics["train/learning_rate"] == pytest.approx(1e-3 * factor)
        of_backbone = {id(p) for p in agent.groups["backbone"][0]}
        for rate, belongs in ((1e-4, True), (1e-3, False)):
            largest = max(
                (p.detach() - before[name]).abs().max().item()
                for name, p in agent.modules().named_parameters()
                if (id(p) in of_backbone) == belongs
            )
            assert largest == pytest.approx(rate * factor, rel=1e-2)


def test_bfloat16_reaches_training_and_acting() -> None:
    """Rounding to 8 bits moves what is computed by up to a per cent or so, and by more than float32's."""
    outputs = []
    for precision in ("fp32", "bf16"):
        agent, sampler = make_small(precision=precision, dropout=0.0)
        loss = agent.losses(sampler.sample())["action"]
        policy = agent.policy((3.0,))
        policy.reset(2)
        actions = policy.act(np.array([[1.0], [0.5]]))
        assert actions.dtype == np.float32
        outputs.append((loss.item(), *actions.ravel().tolist()))
        assert {p.dtype for p in agent.modules().parameters()} == {torch.float32}
    for exact, rounded in zip(*outputs, strict=True):
        assert rounded == pytest.approx(exact, rel=5e-2)
        assert rounded != pytest.approx(exact, rel=1e-5)


TUNINGS = {
    "full": ({}, set()),
    "shared_head": ({"head": "tied"}, set()),
    "chen": ({"timestep_position": "before_norm", "timestep_table": "normal"}, set()),
    "lamo": ({"projections": "residual_mlp", "tuning": "lora", "timestep_table": "normal"}, {"frozen"}),
    "frozen": ({"tuning": "frozen"}, {"backbone", "timesteps", "embedding_norm"}),
    "frozen_blocks": ({"tuning": "frozen_blocks"}, {"blocks"}),
    "lora": ({"tuning": "lora"}, {"frozen"}),
    "co_training": (with_language(), set()),
    "co_training_lora": (with_language(tuning="lora"), {"frozen"}),
    "similarity": (with_similarity(), set()),
}


@pytest.mark.parametrize(("settings", "frozen"), TUNINGS.values(), ids=TUNINGS)
def test_one_update_moves_every_trainable_parameter_and_no_other(settings: dict, frozen: set) -> None:
    agent, sampler = make_small(dropout=0.0, **settings)
    lora = settings.get("tuning") == "lora"
    if lora:  # A has no gradient while B is at its start, zero
        for name, p in agent.model.named_parameters():
            if name.endswith(".up"):
                torch.nn.init.normal_(p, std=0.02)
    before = parameters_of(agent)
    agent.update(sampler.sample())
    trainable = {name for name, p in agent.modules().named_parameters() if p.requires_grad}
    moved = {
        name for name, p in agent.modules().named_parameters() if not torch.equal(p.detach(), before[name])
    }
    assert moved == trainable
    parts = {name: set(name.split(".")) for name in before}
    if lora:
        wrapped = {n for n, p in parts.items() if "backbone" in p and not p & {"up", "down"}}
        trained_biases = {n for n in wrapped if n.endswith("qkv.bias")}
        untouched = wrapped - trained_biases
        if "language_weight" in settings:
            untouched.add("language.tokens.weight")
    else:
        untouched = {name for name, p in parts.items() if p & frozen}
    assert before.keys() - moved == untouched


@pytest.mark.parametrize("settings", [value[0] for value in TUNINGS.values()], ids=TUNINGS)
def test_optimizer_groups_partition_the_trainable_parameters(settings: dict) -> None:
    agent, _ = make_small(**settings)
    grouped = [p for group in agent.optimizer.param_groups for p in group["params"]]
    trainable = [p for p in agent.modules().parameters() if p.requires_grad]
    assert len(grouped) == len({id(p) for p in grouped})
    assert {id(p) for p in grouped} == {id(p) for p in trainable}
    backbone = {id(p) for p in agent.groups["backbone"][0]}
    assert {id(p) for p in agent.model.backbone.parameters() if p.requires_grad} <= backbone
    assert id(agent.model.embed_state) not in backbone
    projections = [*agent.model.embed_state.parameters(), *agent.model.embed_return.parameters()]
    assert backbone.isdisjoint(id(p) for p in projections)


def test_pre_trained_tables_are_in_the_backbones_group_and_fresh_ones_are_not() -> None:
    for form, belongs in (("pretrained", True), ("normal", False), ("matched", False)):
        agent, _ = make_small(**with_language(timestep_table=form))
        ids = {id(p) for p in agent.groups["backbone"][0]}
        assert (id(agent.model.timesteps.weight) in ids) == belongs
        assert id(agent.language.model.tokens.weight) in ids
        assert id(agent.language.model.positions.weight) in ids


def test_applied_gradient_is_clipped_after_the_backward_pass() -> None:
    agent, sampler = make_small(return_scale=1e-3, grad_clip=0.25)
    batch = sampler.sample()
    batch = dataclasses.replace(batch, actions=batch.actions * 1e3)
    metrics = agent.update(batch)
    assert metrics["train/grad_norm"] > 25.0
    applied = torch.stack([p.grad.norm() for p in agent.modules().parameters() if p.grad is not None]).norm()
    assert applied.item() == pytest.approx(0.25, rel=1e-3)


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e30])
def test_divergence_stops_before_the_step_and_names_the_rows(bad: float) -> None:
    agent, sampler = make_small()
    agent.update(sampler.sample())
    before = copy.deepcopy(agent.state_dict())
    batch = sampler.sample()
    batch.actions[0, 0, 0] = bad
    with pytest.raises(DivergenceError, match="step 1") as caught:
        agent.update(batch)
    assert caught.value.rows == tuple(batch.rows.tolist())
    assert caught.value.exit_code == 5
    after = agent.state_dict()
    assert all(torch.equal(after.tensors[name], tensor) for name, tensor in before.tensors.items())
    assert after.training["step"] == 1


def test_update_leaves_the_batch_as_it_was() -> None:
    agent, sampler = make_small()
    batch = sampler.sample()
    before = {field.name: getattr(batch, field.name).clone() for field in dataclasses.fields(SequenceBatch)}
    agent.update(batch)
    assert all(torch.equal(getattr(batch, name), value) for name, value in before.items())


ALL_PARTS = with_language(perplexity_every=2) | with_similarity()


@pytest.mark.parametrize("settings", [{}, ALL_PARTS, {"tuning": "lora"}], ids=["plain", "all", "lora"])
def test_resumed_training_equals_uninterrupted_training_to_the_bit(settings: dict) -> None:
    agent, sampler = make_small(**settings)
    whole = [agent.update(sampler.sample()) for _ in range(6)]
    first, sampler = make_small(**settings)
    metrics = [first.update(sampler.sample()) for _ in range(3)]
    saved = copy.deepcopy((first.state_dict(), sampler.state_dict(), capture_rng(torch.device("cpu"))))
    second, sampler = make_small(seed=5, **settings)
    second.load_state_dict(saved[0])
    sampler.load_state_dict(saved[1])
    restore_rng(saved[2], torch.device("cpu"))
    metrics += [second.update(sampler.sample()) for _ in range(3)]
    assert metrics == whole
    expected = agent.state_dict().tensors
    assert second.state_dict().tensors.keys() == expected.keys()
    assert all(torch.equal(second.state_dict().tensors[name], expected[name]) for name in expected)


def test_equal_seeds_give_equal_runs_and_others_do_not() -> None:
    runs = []
    for seed in (0, 0, 1):
        agent, sampler = make_small(seed=seed)
        runs.append([agent.update(sampler.sample())["train/loss"] for _ in range(3)])
    assert runs[0] == runs[1] != runs[2]


def test_bf16_trains_about_as_fp32_does() -> None:
    (exact, sampler), (rough, _) = make_small(dropout=0.0), make_small(dropout=0.0, precision="bf16")
    for _ in range(5):
        batch = sampler.sample()
        expected, got = (float(agent.update(batch)["train/loss"]) for agent in (exact, rough))
        assert got == pytest.approx(expected, rel=0.02)
    assert all(p.dtype == torch.float32 for p in rough.modules().parameters())


class TestInitializers:
    def test_arms_that_share_a_seed_share_their_projections(self) -> None:
        arms = [{}, {"initializer": language_model_folder()}, {"timestep_table": "normal"}]
        agents = [make_small(seed=3, **settings)[0] for settings in arms]
        for first, second in itertools.pairwise(agents):
            assert torch.equal(first.model.embed_state.weight, second.model.embed_state.weight)
            assert torch.equal(first.model.action_head.weight, second.model.action_head.weight)
        backbones = [next(agent.model.backbone.parameters()) for agent in agents]
        assert torch.equal(backbones[0], backbones[2])
        assert not torch.equal(agents[0].model.timesteps.weight[0], agents[2].model.timesteps.weight[0])

    def test_they_do_with_a_position_for_each_token_too(self) -> None:
        arms = [{}, {"initializer": language_model_folder()}]
        first, second = (make_small(seed=3, embedding="tanh", **settings)[0].model for settings in arms)
        assert not first.token_positions.weight.any() and second.token_positions.weight.all()
        assert torch.equal(first.embed_state.weight, second.embed_state.weight)
        assert torch.equal(first.action_head.weight, second.action_head.weight)

    def test_auto_takes_the_initializers_positions_where_it_has_some(self) -> None:
        agent, _ = make_small(initializer=language_model_folder())
        source = load_initializer(language_model_folder())
        assert torch.equal(agent.model.timesteps.weight, source.position_embeddings)
        assert agent.initializer["timestep_table"] == "pretrained"
        assert agent.initializer["hash"] == source.hash
        assert make_small()[0].initializer["timestep_table"] == "random"

    def test_timesteps_are_the_language_models_positions_in_co_training(self) -> None:
        shared, _ = make_small(**with_language())
        assert shared.language.model.positions is shared.model.timesteps
        assert shared.language.model.gpt is shared.model.backbone
        apart, _ = make_small(**with_language(timestep_table="normal"))
        assert apart.language.model.positions is not apart.model.timesteps

    def test_a_table_that_was_extended_serves_both(self) -> None:
        agent, sampler = make_small(**with_language(max_timesteps=40))
        assert agent.model.timesteps.num_embeddings == 40
        assert math.isfinite(agent.update(sampler.sample())["train/language_loss"])

    def test_dropouts_reach_the_backbone(self) -> None:
        for init in ("random", language_model_folder()):
            agent, _ = make_small(initializer=init, dropout=0.3, attention_dropout=0.1)
            config = agent.model.backbone.config
            assert (config.attn_dropout, config.resid_dropout, config.embd_dropout) == (0.1, 0.3, 0.3)
            assert agent.model.backbone.blocks[0].attention.config.attn_dropout == 0.1

    def test_words_can_come_from_another_initializer(self) -> None:
        agent, sampler = make_small(
            similarity_weight=0.1, num_clusters=5, similarity_source=language_model_folder()
        )
        own, _ = make_small(**with_similarity())
        torch.testing.assert_close(agent.centers, own.centers)
        assert "train/similarity_loss" in agent.update(sampler.sample())

    def test_shipped_centers_are_those_of_the_shipped_words(self) -> None:
        """Nearest to them: a second clustering would take seconds."""
        agent, _ = make_small(initializer="chibit", similarity_weight=0.1)
        words = load_initializer("chibit").token_embeddings
        directions = torch.nn.functional.normalize(words, dim=-1)
        nearest = (directions @ torch.nn.functional.normalize(agent.centers, dim=-1).T).argmax(dim=-1)
        sums = torch.zeros(1000, 128).index_add_(0, nearest, directions)
        cosines = torch.nn.functional.cosine_similarity(sums, agent.centers)
        assert agent.centers.shape == (1000, 128)
        assert cosines.min() > 0.9
        assert cosines.mean() > 0.999

    def test_similarity_without_words_is_refused(self) -> None:
        with pytest.raises(InputError, match="no word embeddings"):
            make_small(similarity_weight=0.1)

    def test_words_of_another_width_are_refused(self) -> None:
        with pytest.raises(InputError, match="width 16, expected 8"):
            make_small(
                gpt=GPTShape(n_embd=8), similarity_weight=0.1, similarity_source=language_model_folder()
            )

    def test_co_training_without_a_language_model_is_refused(self) -> None:
        with pytest.raises(InputError, match="language model"):
            make_small(language_weight=0.1, language_corpus=corpus_folder())


class TestPerplexity:
    def test_is_measured_on_schedule_on_the_same_text(self) -> None:
        """The likelihood of the weights after the step, without dropout: to the rounding of float32."""
        agent, sampler = make_small(**with_language(language_weight=0.0, perplexity_every=2))
        text = agent.language._fixed.clone()
        for measured in (False, True, False, True):
            metrics = agent.update(sampler.sample())
            assert ("train/perplexity" in metrics) == measured
            if measured:
                with torch.no_grad():
                    expected = math.exp(agent.language.model.eval().loss(text).item())
                assert metrics["train/perplexity"] == pytest.approx(expected, rel=1e-6)

    def test_does_not_disturb_training(self) -> None:
        losses = []
        for every in (0, 1):
            agent, sampler = make_small(**with_language(perplexity_every=every))
            losses.append([agent.update(sampler.sample())["train/loss"] for _ in range(3)])
        assert losses[0] == losses[1]


def test_delayed_mode_trains_on_the_episodes_whole_return() -> None:
    agent, sampler = make_small(reward_mode="sparse")
    dataset = target_return_data()
    batch = sampler.windows(np.array([3, 27]))
    expected = torch.from_numpy(dataset.episode_returns[[0, 2]])[:, None]
    torch.testing.assert_close(
        batch.returns_to_go * batch.attention_mask, expected * batch.attention_mask.float()
    )
    plain = make_small()[1].windows(np.array([3, 27]))
    assert not torch.allclose(plain.returns_to_go, batch.returns_to_go)


def test_an_acting_config_rebuilds_the_model_without_its_source() -> None:
    agent, sampler = make_small(**with_language() | with_similarity(tuning="lora"))
    agent.update(sampler.sample())
    torch.manual_seed(9)
    copy_of = DecisionTransformer(agent.acting_config, agent.spec, Runtime())
    copy_of.acting_modules().load_state_dict(agent.acting_modules().state_dict())
    batch = sampler.sample()
    inputs = (batch.returns_to_go, batch.states, batch.actions, batch.timesteps)
    assert torch.equal(copy_of.model.eval()(*inputs), agent.model.eval()(*inputs))


def asked_for(
    agent: DecisionTransformer, targets: tuple[float, ...] | None, num_envs: int
) -> list[list[float]]:
    """Returns-to-go that the model is given in the newest step of three acts, each of which brings 1.5."""
    seen = []
    hook = agent.model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][:, -1].tolist()))
    policy = agent.policy(targets)
    policy.reset(num_envs)
    for _ in range(3):
        policy.act(np.zeros((num_envs, 1)))
        policy.observe(np.full(num_envs, 1.5), np.zeros(num_envs, bool))
    hook.remove()
    return seen


def test_the_policy_asks_for_the_given_returns_or_the_datas_own() -> None:
    agent, _ = make_small()
    assert asked_for(agent, (6.0, -2.0), 2) == [[6.0, -2.0], [4.5, -3.5], [3.0, -5.0]]
    own = torch.tensor(target_return_data().spec.default_target_returns)
    assert asked_for(agent, None, len(own))[0] == pytest.approx(own.tolist())


def test_the_policy_holds_its_return_in_delayed_mode() -> None:
    agent, _ = make_small(reward_mode="sparse")
    assert asked_for(agent, (6.0,), 1) == [[6.0], [6.0], [6.0]]


def test_a_policy_without_return_tokens_takes_no_returns() -> None:
    """It acts in any number of episodes, whatever it is asked for, and equally."""
    agent, _ = make_small(return_tokens=False)
    assert not agent.is_return_conditioned
    acts = []
    for targets in (None, (3.0, 1.0, 2.0), (-9.0,)):
        policy = agent.policy(targets)
        policy.reset(1)
        acts.append(policy.act(np.array([[0.4]])).tolist())
    assert acts[0] == acts[1] == acts[2]


def test_what_acts_is_the_trajectory_model_alone() -> None:
    agent, _ = make_small(**with_language())
    assert {name.partition(".")[0] for name in agent.modules().state_dict()} == {"model", "language"}
    assert {name.partition(".")[0] for name in agent.acting_modules().state_dict()} == {"model"}


class TestWhatOthersTakeFromIt:
    def test_the_step_for_a_graph_acts_as_the_model(self) -> None:
        agent, _ = make_small(dropout=0.0, context_length=2)
        step = agent.policy_step()
        assert step.max_steps == 2
        returns, observations, actions, timesteps = (x.clone() for x in step.inputs.values())
        observations += torch.randn(observations.shape)
        states = (observations - torch.tensor(agent.spec.state_mean)) / torch.tensor(agent.spec.state_std)
        agent.model.eval()
        with torch.no_grad():
            expected = agent.model(returns, states, actions, timesteps)[:, -1]
            given = step.module(returns, observations, actions, timesteps)
        low, high = torch.tensor(agent.spec.action_low), torch.tensor(agent.spec.action_high)
        torch.testing.assert_close(given, expected.clamp(low, high))

    def test_a_backbone_of_transformers_has_no_such_step(self) -> None:
        agent, _ = make_small()
        agent.model.backbone = torch.nn.Identity()
        with pytest.raises(InputError) as caught:
            agent.policy_step()
        said = "onnx: the backbone is not chibit's GPT; export it with its own library"
        assert str(caught.value) == said

    def test_attention_is_drawn_on_windows_that_are_the_same_each_time(self) -> None:
        data = target_return_data()
        agent, _ = make_small()
        model, sampler = agent.attending(data)
        assert model is agent.model
        expected = agent.sampler(data, np.random.default_rng(0))
        assert torch.equal(sampler.sample().rows, expected.sample().rows)

    def test_the_configuration_of_a_backbone_of_transformers_is_saved_beside(self, tmp_path: Path) -> None:
        agent, _ = make_small()
        agent.save_beside(tmp_path)  # its own backbone has none
        saved: list[Path] = []
        backbone = HuggingFaceBackbone.__new__(HuggingFaceBackbone)
        torch.nn.Module.__init__(backbone)
        backbone.body = SimpleNamespace(config=SimpleNamespace(save_pretrained=saved.append))
        agent.model.backbone = backbone
        agent.save_beside(tmp_path)
        assert saved == [tmp_path / BACKBONE_FOLDER]

    def test_a_gradient_that_is_not_finite_stops_it_where_the_loss_is(self) -> None:
        agent, sampler = make_small()
        before = parameters_of(agent)
        first = next(p for p in agent.model.parameters() if p.requires_grad)
        first.register_hook(lambda gradient: gradient * math.inf)
        with pytest.raises(DivergenceError, match="gradient"):
            agent.update(sampler.sample())
        assert all(torch.equal(value, before[name]) for name, value in parameters_of(agent).items())

    def test_a_decay_without_warm_up_begins_at_once(self) -> None:
        agent, sampler = make_small(warmup_steps=0, learning_rate_decay_steps=10)
        agent.step = 3
        expected = agent.config.learning_rate * cosine_decay(3, 10, 0, floor=0.1)
        assert agent.update(sampler.sample())["train/learning_rate"] == pytest.approx(expected)


class TestVariants:
    def test_the_form_of_the_similarity_loss_is_the_settings(self) -> None:
        losses = {}
        for form in ("mean_max_cosine", "paper_sum"):
            agent, sampler = make_small(dropout=0.0, **with_similarity(similarity_form=form))
            losses[form] = agent.update(sampler.sample())["train/similarity_loss"]
        assert losses["paper_sum"] < 1.5 * losses["mean_max_cosine"] < 0

    def test_discrete_actions_are_learned_by_their_likelihood(self) -> None:
        agent, _ = make_small()
        agent.spec = dataclasses.replace(agent.spec, act_dim=0, num_actions=3, action_low=(), action_high=())
        logits, actions = torch.randn(2, 4, 3), torch.randint(3, (2, 4))
        mask = torch.tensor([[True] * 4, [False] * 2 + [True] * 2])
        expected = action_cross_entropy(logits, actions, mask)
        assert torch.equal(agent._action_loss(logits, actions, mask), expected)

    @pytest.mark.parametrize("only_weights", [True, False])
    def test_decay_is_of_all_parameters_or_of_weights_of_layers_alone(self, only_weights: bool) -> None:
        agent, _ = make_small(decay_weights_only=only_weights, weight_decay=0.25)
        layers = [m for m in agent.modules().modules() if isinstance(m, torch.nn.Linear)]
        weights = {id(layer.weight) for layer in layers}
        decays = {id(p): g["weight_decay"] for g in agent.optimizer.param_groups for p in g["params"]}
        trained = [p for p in agent.modules().parameters() if p.requires_grad]
        assert decays.keys() == {id(p) for p in trained}
        for parameter in trained:
            is_decayed = not only_weights or id(parameter) in weights
            assert decays[id(parameter)] == (0.25 if is_decayed else 0.0)

    def test_positions_of_tokens_learn_at_the_rate_of_the_backbone(self) -> None:
        agent, _ = make_small(embedding="tanh", backbone_learning_rate=1e-5, learning_rate=1e-3)
        rates = {id(p): group["lr"] for group in agent.optimizer.param_groups for p in group["params"]}
        assert rates[id(agent.model.token_positions.weight)] == 1e-5
        assert rates[id(agent.model.timesteps.weight)] == 1e-5
        assert 1e-3 in rates.values()

    def test_adams_second_moment_forgets_as_the_settings_say(self) -> None:
        agent, sampler = make_small(adam_betas=(0.9, 0.5))
        agent.update(sampler.sample())
        for parameter, state in agent.optimizer.state.items():
            torch.testing.assert_close(state["exp_avg_sq"], 0.5 * parameter.grad.square())
            torch.testing.assert_close(state["exp_avg"], 0.1 * parameter.grad, rtol=1e-4, atol=1e-9)

    def test_settings_that_leave_nothing_to_train_are_refused(self) -> None:
        agent, _ = make_small()
        agent.modules().requires_grad_(False)
        with pytest.raises(InputError) as caught:
            agent._parameter_groups(SimpleNamespace(shared_positions=None))
        assert str(caught.value) == "tuning 'full' leaves nothing to train; use full"


@pytest.mark.parametrize("anchor", ["first", "last"])
def test_windows_are_drawn_by_the_end_that_the_config_names(anchor: str) -> None:
    _, sampler = make_small(window_anchor=anchor)
    assert sampler.anchor == anchor

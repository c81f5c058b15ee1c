"""Settings of the sequence agent: the paper's defaults, refusals, JSON."""

from __future__ import annotations

from typing import Any

import pytest

from chibit.agents.dt.config import DecisionTransformerConfig
from chibit.agents.text.config import TextConfig
from chibit.core.config import from_json, to_json
from chibit.core.errors import InputError
from chibit.models.gpt import SIZES, GPTShape


def test_defaults_are_table_7() -> None:
    config = DecisionTransformerConfig()
    assert (config.gpt.n_layer, config.gpt.n_head, config.gpt.n_embd, config.gpt.activation) == (
        3,
        1,
        128,
        "relu",
    )
    assert (config.batch_size, config.context_length, config.dropout) == (64, 20, 0.2)
    run = config.for_steps(100_000)
    assert (run.learning_rate, run.warmup_steps, run.grad_clip) == (1e-4, 5000, 0.25)
    assert run.auxiliary_decay_steps == 5000
    assert (config.weight_decay, config.return_scale) == (1e-4, None)
    assert config.auxiliary_decay == "linear_to_zero"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"context_length": 0}, "context_length: got 0"),
        ({"batch_size": 0}, "batch_size"),
        ({"learning_rate": 0.0}, "learning_rate: got 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"backbone_learning_rate": -1.0}, "backbone_learning_rate"),
        ({"grad_clip": float("inf")}, "grad_clip"),
        ({"return_scale": -1.0}, "return_scale"),
        ({"weight_decay": -0.1}, "weight_decay"),
        ({"weight_decay": float("nan")}, "weight_decay"),
        ({"dropout": 1.0}, "dropout"),
        ({"attention_dropout": -0.1}, "attention_dropout: got -0.1"),
        ({"gpt": {"n_embd": 10, "n_head": 3}}, "n_head"),
        ({"head": "tied", "projections": "residual_mlp"}, "tied"),
        ({"language_weight": 0.1}, "language_corpus"),
        ({"perplexity_every": 5}, "language_corpus"),
        ({"language_weight": 0.1, "language_corpus": "x", "tuning": "frozen"}, "frozen"),
        ({"num_clusters": 0}, "num_clusters"),
        ({"language_block": 1}, "language_block"),
        ({"lora_rank": 0}, "lora_rank"),
        ({"auxiliary_decay_steps": 0}, "auxiliary_decay_steps"),
    ],
)
def test_what_cannot_work_is_refused_by_name(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        DecisionTransformerConfig(**settings)


def test_survives_json() -> None:
    config = DecisionTransformerConfig(
        initializer="gpt2",
        tuning="lora",
        similarity_weight=0.2,
        backbone_learning_rate=1e-5,
        attention_dropout=0.1,
    )
    assert from_json(DecisionTransformerConfig, to_json(config)) == config
    with pytest.raises(InputError, match="similarity_form"):
        from_json(DecisionTransformerConfig, {"similarity_form": "cosine"})


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({}, "random"),
        ({"timestep_position": "before_norm"}, "dt"),
        ({"initializer": "chibit"}, "chibit"),
        ({"initializer": "hf:some/model"}, "hf"),
        ({"initializer": "some/folder/markov-run"}, "markov-run"),
    ],
)
def test_arms_are_named_after_the_initializer(settings: dict[str, Any], name: str) -> None:
    assert DecisionTransformerConfig(**settings).arm_name == name


FIRST = {
    "init": "gpt2", "mode": "delayed", "head": "shared", "timestep_table": "given", "adam_beta2": 0.95,
    "n_layer": 2, "n_embd": 8, "norm_eps": 1e-3, "timestep_position": "before_norm",
}  # fmt: skip
"""A config as version 0.1.0 wrote it."""


def test_files_keep_the_names_of_the_first_version() -> None:
    config = from_json(DecisionTransformerConfig, FIRST)
    assert config == DecisionTransformerConfig(
        initializer="gpt2",
        reward_mode="sparse",
        head="tied",
        timestep_table="pretrained",
        adam_betas=(0.9, 0.95),
        gpt=GPTShape(n_layer=2, n_embd=8, norm_eps=1e-3),
        timestep_position="before_norm",
        action_units="raw",
        return_baseline=(0.0, 0.0),
    )
    record = to_json(config)
    assert FIRST.items() <= record.items() and not {"gpt", "initializer", "reward_mode"} & record.keys()


def test_files_may_also_have_the_names_of_now() -> None:
    now = {"initializer": "gpt2", "head": "tied", "gpt": {"n_layer": 2}, "adam_betas": [0.8, 0.95]}
    config = from_json(DecisionTransformerConfig, now)
    assert (config.initializer, config.head, config.gpt.n_layer) == ("gpt2", "tied", 2)
    assert from_json(DecisionTransformerConfig, to_json(config)) == config
    assert config.adam_betas == (0.8, 0.95)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"init": "gpt2", "initializer": "clip"}, "initializer is given twice, also as 'initializer'"),
        ({"n_layer": 1, "gpt": {"n_layer": 2}}, "gpt is given twice"),
        ({"gpt": {"n_layer": 2}, "n_layer": 1}, "gpt is given twice"),
        ({"n_layers": 2}, "unknown field 'n_layers'; did you mean 'n_layer'"),
        ({"n_layer": 0}, "gpt.n_layer: got 0, expected 1 to 1000"),
        ({"head": "mine"}, "head: got 'mine', expected one of linear, tied"),
        ({"gpt": 3}, "gpt: got 3, expected an object"),
    ],
)
def test_files_that_contradict_themselves_are_refused(record: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_json(DecisionTransformerConfig, record)


@pytest.mark.parametrize("kind", [DecisionTransformerConfig, TextConfig])
def test_a_large_initializer_is_known_to_take_long_by_every_method_around_one(kind: Any) -> None:
    seconds = [
        kind(initializer=name).rough_seconds_a_step(1_000, "fp32")
        for name in ("random", "gpt2:some/folder", "chibit_84M:9")
    ]
    assert seconds[1] == pytest.approx(143 * seconds[0])
    assert seconds[2] == pytest.approx(kind(gpt=SIZES["84M"]).rough_seconds_a_step(1_000, "fp32"))

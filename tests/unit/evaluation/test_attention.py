"""Attention maps: means of real distributions over whole windows, in arrays and in a figure."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from chibit.core.errors import InputError
from chibit.data.samplers.windows import SequenceBatch
from chibit.evaluation.attention import attention_maps, early_middle_last, save_attention
from chibit.models.decision_transformer import (
    DecisionTransformerModel,
    DecisionTransformerModelConfig,
    make_timestep_table,
)
from chibit.models.gpt import GPT, GPTConfig


def make_model(n_layer: int = 3) -> DecisionTransformerModel:
    torch.manual_seed(0)
    config = GPTConfig(n_layer=n_layer, n_head=2, n_embd=16)
    table = make_timestep_table("normal", 50, 16)
    model = DecisionTransformerModel(
        DecisionTransformerModelConfig(), GPT(config), state_dim=4, act_dim=2, timesteps=table
    )
    with torch.no_grad():
        for block in model.backbone.blocks:
            block.attention.qkv.weight.mul_(20)  # far from uniform
    return model


def make_batch(context_length: int = 4) -> SequenceBatch:
    generator = torch.Generator().manual_seed(1)
    mask = torch.ones(5, context_length, dtype=torch.bool)
    mask[3, 2:] = False
    return SequenceBatch(
        returns_to_go=torch.rand(5, context_length, generator=generator) * 1000,
        states=torch.randn(5, context_length, 4, generator=generator),
        actions=torch.rand(5, context_length, 2, generator=generator),
        timesteps=torch.arange(context_length).expand(5, -1),
        attention_mask=mask,
        rows=torch.arange(5) * 10,
    )


def test_maps_are_the_mean_over_heads_and_whole_windows():
    model, batch = make_model(), make_batch()
    maps = attention_maps(model, batch)
    keep = [0, 1, 2, 4]
    model.eval()
    with torch.no_grad():
        attentions = model.attentions(
            batch.returns_to_go[keep], batch.states[keep], batch.actions[keep], batch.timesteps[keep]
        )
    assert maps.rows.tolist() == [0, 10, 20, 40]
    assert maps.weights.shape == (3, 11, 11)
    for ours, layer in zip(maps.weights, attentions, strict=True):
        brute = sum(layer[b, h] for b in range(4) for h in range(2)) / 8
        np.testing.assert_allclose(ours, brute.numpy(), atol=1e-6)
    for array in (maps.weights, maps.sharpened):
        np.testing.assert_allclose(array.sum(-1), 1.0, atol=1e-5)
        assert not np.triu(array, k=1).any()


def test_temperature_divides_the_scores_before_each_softmax():
    model, batch = make_model(1), make_batch()
    model.eval()
    (weights,) = model.attentions(batch.returns_to_go, batch.states, batch.actions, batch.timesteps)
    whole = weights[[0, 1, 2, 4]].detach().double().numpy()
    sharpened = whole ** (1 / 0.5)
    sharpened = (sharpened / sharpened.sum(-1, keepdims=True)).mean((0, 1))
    maps = attention_maps(model, batch, temperature=0.5)
    np.testing.assert_allclose(maps.sharpened[0], sharpened, atol=1e-6)
    plain = attention_maps(model, batch, temperature=1.0)
    np.testing.assert_allclose(plain.sharpened, plain.weights, atol=1e-6)
    default = attention_maps(model, batch)
    assert default.temperature == 0.1
    assert default.sharpened.max(-1).mean() > default.weights.max(-1).mean()


def test_the_model_is_left_as_it_was_and_dropout_is_off():
    model, batch = make_model().train(), make_batch()
    first = attention_maps(model, batch)
    assert model.training
    np.testing.assert_array_equal(first.weights, attention_maps(model, batch).weights)


@pytest.mark.parametrize(
    ("num_layers", "expected"), [(1, [0]), (2, [0, 1]), (3, [0, 1, 2]), (6, [0, 3, 5]), (12, [0, 6, 11])]
)
def test_early_middle_and_last_layer(num_layers, expected):
    assert early_middle_last(num_layers) == expected


def test_files_hold_the_arrays_and_a_picture(tmp_path):
    maps = attention_maps(make_model(), make_batch())
    arrays, figure = save_attention(maps, tmp_path / "attention")
    with np.load(arrays) as saved:
        np.testing.assert_array_equal(saved["weights"], maps.weights)
        np.testing.assert_array_equal(saved["sharpened"], maps.sharpened)
        assert saved["labels"].tolist() == ["R1", "s1", "a1", "R2", "s2", "a2", "R3", "s3", "a3", "R4", "s4"]
        assert saved["layers"].tolist() == [1, 2, 3] and saved["num_layers"] == 3
        assert saved["temperature"] == 0.1
    assert figure.read_bytes().startswith(b"\x89PNG") and figure.stat().st_size > 20_000
    assert sorted(p.name for p in arrays.parent.iterdir()) == ["attention.npz", "attention.png"]


def test_refusals():
    model, batch = make_model(), make_batch()
    with pytest.raises(InputError, match="temperature is 0"):
        attention_maps(model, batch, temperature=0)
    padded = dataclasses.replace(batch, attention_mask=torch.zeros(5, 4, dtype=torch.bool))
    with pytest.raises(InputError, match="no window has 4 real steps"):
        attention_maps(model, padded)
    model.return_token = 1  # of states, returns, actions
    with pytest.raises(InputError, match="returns come after states"):
        attention_maps(model, batch)

"""GPT: parity with transformers, causality, masks, trimming, dropout and stacking."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, grad, stack_module_state, vmap

from chibit.core.errors import InputError
from chibit.models import gpt
from chibit.models.gpt import GPT, GPTConfig, dropout

TINY = GPTConfig(n_layer=2, n_head=2, n_embd=16, attn_dropout=0.0, resid_dropout=0.0, embd_dropout=0.0)


def tiny(seed: int = 0, **changes: object) -> GPT:
    torch.manual_seed(seed)
    model = GPT(replace(TINY, **changes))
    for parameter in model.parameters():  # so that biases and norms are not at their trivial start
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def inputs(tokens: int = 7, batch: int = 3, width: int = 16) -> Tensor:
    return torch.randn(batch, tokens, width, generator=torch.Generator().manual_seed(1))


def to_gpt2(model: GPT) -> torch.nn.Module:
    transformers = pytest.importorskip("transformers")
    config = model.config
    names = {"relu": "relu", "gelu": "gelu", "gelu_new": "gelu_new", "quick_gelu": "quick_gelu"}
    theirs = transformers.GPT2Model(
        transformers.GPT2Config(
            vocab_size=1, n_positions=64, n_embd=config.n_embd, n_layer=config.n_layer, n_head=config.n_head,
            activation_function=names[config.activation], attn_implementation="eager",
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        )
    ).eval()  # fmt: skip
    state = {"wpe.weight": torch.zeros_like(theirs.wpe.weight), "wte.weight": theirs.wte.weight}
    pairs = {
        "ln_1": "attention_norm", "ln_2": "mlp_norm", "attn.c_attn": "attention.qkv",
        "attn.c_proj": "attention.projection", "mlp.c_fc": "expand", "mlp.c_proj": "contract",
    }  # fmt: skip
    ours = model.state_dict()
    for layer in range(config.n_layer):
        for their_name, our_name in pairs.items():
            weight = ours[f"blocks.{layer}.{our_name}.weight"]
            state[f"h.{layer}.{their_name}.weight"] = weight.T if weight.ndim == 2 else weight
            state[f"h.{layer}.{their_name}.bias"] = ours[f"blocks.{layer}.{our_name}.bias"]
    state["ln_f.weight"], state["ln_f.bias"] = ours["norm.weight"], ours["norm.bias"]
    theirs.load_state_dict(state)
    return theirs


@pytest.mark.parametrize("activation", ["relu", "gelu", "gelu_new", "quick_gelu"])
def test_forward_and_attentions_equal_transformers(activation: str) -> None:
    model = tiny(activation=activation).eval()
    theirs = to_gpt2(model)
    x = inputs()
    mask = torch.ones(3, 7, dtype=torch.bool)
    mask[0, :3] = False  # left padding
    expected = theirs(inputs_embeds=x, attention_mask=mask.long(), output_attentions=True)
    hidden, attentions = model(x, mask, return_attentions=True)
    torch.testing.assert_close(hidden[mask], expected.last_hidden_state[mask], atol=1e-5, rtol=0)
    for ours, reference in zip(attentions, expected.attentions, strict=True):
        torch.testing.assert_close(ours[1:], reference[1:], atol=1e-5, rtol=0)
    torch.testing.assert_close(model(x, mask), hidden, atol=1e-5, rtol=0)


def test_gradients_equal_transformers() -> None:
    model = tiny()
    theirs = to_gpt2(model)
    x = inputs()
    model(x).square().sum().backward()
    theirs(inputs_embeds=x).last_hidden_state.square().sum().backward()
    ours, reference = model.blocks[0].attention.qkv.weight.grad, theirs.h[0].attn.c_attn.weight.grad
    torch.testing.assert_close(ours, reference.T, atol=1e-4, rtol=1e-4)


def test_default_size_is_the_papers() -> None:
    model = GPT(GPTConfig())
    assert sum(p.numel() for p in model.blocks.parameters()) == 594_816
    assert sum(p.numel() for p in model.norm.parameters()) == 256
    assert model.width == 128


def test_initialization_is_gpt2s() -> None:
    torch.manual_seed(0)
    model = GPT(GPTConfig(n_layer=8, n_embd=128))
    block = model.blocks[3]
    assert block.attention.qkv.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert block.expand.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert block.attention.projection.weight.std().item() == pytest.approx(0.02 / 4, rel=0.03)
    assert block.contract.weight.std().item() == pytest.approx(0.02 / 4, rel=0.03)
    assert block.expand.bias.abs().max() == 0
    assert bool((model.norm.weight == 1).all())


def test_future_tokens_are_invisible() -> None:
    model = tiny().eval()
    x = inputs()
    changed = x.clone()
    changed[:, 4:] += 1.0
    torch.testing.assert_close(model(changed)[:, :4], model(x)[:, :4], atol=0, rtol=0)
    assert not torch.allclose(model(changed)[:, 4:], model(x)[:, 4:])


@pytest.mark.parametrize("left", [True, False])
def test_padding_changes_nothing(left: bool) -> None:
    model = tiny().eval()
    x = inputs()
    junk = torch.full((3, 2, 16), 37.0)
    real, padding = torch.ones(3, 7, dtype=torch.bool), torch.zeros(3, 2, dtype=torch.bool)
    padded = torch.cat((junk, x) if left else (x, junk), dim=1)
    mask = torch.cat((padding, real) if left else (real, padding), dim=1)
    hidden = model(padded, mask)
    assert bool(hidden.isfinite().all())
    torch.testing.assert_close(hidden[mask].view(3, 7, 16), model(x), atol=1e-6, rtol=0)
    if not left:
        torch.testing.assert_close(model(padded)[:, :7], model(x), atol=1e-6, rtol=0)


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("positions", [slice(1, None, 3), slice(-1, None), slice(None)])
def test_trimmed_rows_equal_the_full_computation(positions: slice, masked: bool) -> None:
    model = tiny()
    x = inputs(tokens=9)
    mask = torch.ones(3, 9, dtype=torch.bool)
    mask[0, :2] = False
    full = model(x, mask if masked else None)[:, positions]
    trimmed = model(x, mask if masked else None, positions=positions)
    torch.testing.assert_close(trimmed, full, atol=1e-6, rtol=0)
    parameters = list(model.parameters())
    expected = torch.autograd.grad(full.square().sum(), parameters)
    torch.testing.assert_close(
        torch.autograd.grad(trimmed.square().sum(), parameters), expected, atol=1e-4, rtol=1e-5
    )


def test_attentions_have_one_row_for_each_position() -> None:
    model = tiny(n_layer=3).eval()
    _, attentions = model(inputs(tokens=9), positions=slice(1, None, 3), return_attentions=True)
    assert [tuple(a.shape) for a in attentions] == [(3, 2, 9, 9), (3, 2, 9, 9), (3, 2, 3, 9)]
    for weights in attentions:
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
        assert weights[..., 0, 3:].max() == 0  # token 1 or token 0 sees nothing after token 2


@pytest.mark.parametrize("masked", [True, False])
def test_fused_and_explicit_attention_agree(masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny()
    x = inputs(tokens=9)
    mask = torch.ones(3, 9, dtype=torch.bool)
    mask[1, :4] = False
    results = []
    for fused in (True, False):
        monkeypatch.setattr("chibit.models.gpt._use_fused", lambda *_, fused=fused: fused)
        for positions in (None, slice(1, None, 3)):
            hidden = model(x, mask if masked else None, positions=positions)
            assert bool(hidden.isfinite().all())
            # Rows of padding have no meaning, and the kernels may differ there.
            hidden = hidden * (mask if positions is None else mask[:, positions])[..., None]
            results.append((hidden, torch.autograd.grad(hidden.square().sum(), list(model.parameters()))))
    torch.testing.assert_close(results[:2], results[2:], atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("masked", [True, False])
def test_long_sequences_go_in_blocks_and_agree(masked: bool) -> None:
    model = tiny()
    x = inputs(tokens=600, batch=2)
    mask = None
    if masked:
        mask = torch.ones(2, 600, dtype=torch.bool)
        mask[1, :270] = False  # more than a whole block of queries is padding
    whole, _ = model(x, mask, return_attentions=True)
    blocks = model(x, mask)
    assert bool(blocks.isfinite().all())
    real = slice(None) if mask is None else mask
    torch.testing.assert_close(blocks[real], whole[real], atol=1e-5, rtol=0)
    parameters = list(model.parameters())
    expected = torch.autograd.grad(whole[real].square().sum(), parameters)
    actual = torch.autograd.grad(blocks[real].square().sum(), parameters)
    torch.testing.assert_close(actual, expected, atol=1e-2, rtol=1e-4)


def test_rms_norm_by_hand() -> None:
    model = tiny(norm="rms").eval()
    x = inputs()
    weight = model.norm.weight
    expected = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight
    torch.testing.assert_close(model.norm(x), expected, atol=1e-6, rtol=0)
    assert "norm.bias" not in model.state_dict()
    assert model(x).shape == x.shape


def test_stacked_models_equal_a_loop() -> None:
    models = [tiny(seed) for seed in range(3)]
    parameters, buffers = stack_module_state(models)
    x = torch.stack([inputs() + i for i in range(3)])
    template = tiny().to("meta")

    def loss(state: dict[str, Tensor], batch: Tensor) -> Tensor:
        return functional_call(template, (state, buffers), (batch,)).square().mean()

    values = vmap(loss)(parameters, x)
    gradients = vmap(grad(loss))(parameters, x)
    for i, model in enumerate(models):
        value = model(x[i]).square().mean()
        value.backward()
        torch.testing.assert_close(values[i], value, atol=1e-6, rtol=1e-5)
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(gradients[name][i], parameter.grad, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_dropout_has_the_stated_distribution(p: float) -> None:
    torch.manual_seed(0)
    x = torch.ones(1000, 1001)
    y = dropout(x, p, training=True)
    kept = y != 0
    n = x.numel()
    five_sigma = 5 * math.sqrt(p * (1 - p) / n)
    assert abs((~kept).double().mean().item() - p) < five_sigma
    # Neighbors come from one 64-bit draw: they must still be independent.
    for lag in (1, 2, 3, 4):
        together = (~kept[:, :-lag] & ~kept[:, lag:]).double().mean().item()
        assert abs(together - p * p) < 5 * math.sqrt(p * p * (1 - p * p) / n) + 1e-4
    assert y[kept].unique().numel() == 1
    assert y.double().mean().item() == pytest.approx(1.0, abs=5 * math.sqrt(p / (1 - p) / n))


def test_dropout_follows_the_global_generator() -> None:
    x = torch.ones(5, 7)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first, second = dropout(x, 0.5, training=True), dropout(x, 0.5, training=True)
    torch.set_rng_state(state)
    assert torch.equal(dropout(x, 0.5, training=True), first)
    assert not torch.equal(first, second)
    assert dropout(x, 0.5, training=False) is x
    assert dropout(x, 0.0, training=True) is x


def test_dropout_gradient_is_its_mask() -> None:
    x = torch.randn(4, 6, requires_grad=True)
    y = dropout(x, 0.3, training=True)
    y.sum().backward()
    torch.testing.assert_close(x.grad * x.detach(), y.detach())


def test_dropout_is_on_in_training_only() -> None:
    model = tiny(attn_dropout=0.2, resid_dropout=0.2, embd_dropout=0.2)
    x = inputs()
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


def test_every_parameter_has_a_gradient() -> None:
    model = tiny()
    model(inputs()).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for name, p in model.named_parameters())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n_head", 3),
        ("n_layer", 0),
        ("n_embd", 0),
        ("activation", "swish"),
        ("norm", "batch"),
        ("attn_dropout", 1.0),
        ("resid_dropout", -0.1),
        ("n_inner", 0),
        ("norm_eps", 0.0),
    ],
)
def test_impossible_configs_are_refused(field: str, value: object) -> None:
    with pytest.raises(InputError, match=field):
        replace(TINY, **{field: value})


@pytest.mark.parametrize("width", [16, 1024])
def test_both_computations_of_a_linear_map_are_equal(width: int) -> None:
    x = inputs(width=width).requires_grad_()
    layer = torch.nn.Linear(width, 2 * width)
    got = gpt._linear(x, layer.weight, layer.bias)
    expected = torch.nn.functional.linear(x, layer.weight, layer.bias)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    wanted = (x, layer.weight, layer.bias)
    seed = torch.randn_like(got)
    gradients = torch.autograd.grad(got, wanted, seed), torch.autograd.grad(expected, wanted, seed)
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        assert torch.equal(gpt._linear(x, layer.weight, layer.bias), layer(x))


def test_without_onednn_linear_layers_are_no_convolutions(monkeypatch):
    x, layer = torch.randn(2, 3, 8), torch.nn.Linear(8, 16)
    expected = layer(x)
    monkeypatch.setattr(gpt.F, "conv2d", None)
    monkeypatch.setattr(gpt, "_HAS_ONEDNN", False)
    assert torch.equal(gpt._linear(x, layer.weight, layer.bias), expected)

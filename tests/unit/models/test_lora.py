"""LoRA on our GPT: the start, what is trained, the closed form, merging to the bit, counts, refusals."""

from __future__ import annotations

import copy

import pytest
import torch
import transformers
from torch import Tensor, nn

from chibit.core.errors import InputError
from chibit.models.counting import count_parameters
from chibit.models.gpt import GPT, GPTConfig
from chibit.models.huggingface import HuggingFaceBackbone
from chibit.models.lora import LoRALinear, add_lora

CONFIG = GPTConfig(n_layer=2, n_head=2, n_embd=16, attn_dropout=0.0, resid_dropout=0.0, embd_dropout=0.0)
X = torch.randn(3, 7, 16, generator=torch.Generator().manual_seed(0))


def tiny() -> GPT:
    torch.manual_seed(0)
    return GPT(CONFIG)


def trained(dropout: float = 0.0, steps: int = 3) -> GPT:
    gpt = tiny()
    add_lora(gpt, rank=4, alpha=8.0, dropout=dropout)
    optimizer = torch.optim.Adam([p for p in gpt.parameters() if p.requires_grad], lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        (gpt(X) - 1.0).square().mean().backward()
        optimizer.step()
    return gpt


def test_it_starts_as_the_same_function() -> None:
    plain = tiny()
    adapted = add_lora(copy.deepcopy(plain), rank=4, alpha=8.0, dropout=0.5)
    assert torch.equal(adapted(X), plain(X))
    assert torch.equal(adapted(X, positions=slice(1, None, 3)), plain(X, positions=slice(1, None, 3)))


def test_corrected_matrix_by_hand() -> None:
    linear = nn.Linear(2, 3)
    linear.weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    linear.bias.data = torch.tensor([0.5, 0.0, 0.0])
    lora = LoRALinear(linear, rank=1, alpha=2.0, dropout=0.0)
    lora.down.data = torch.tensor([[1.0, 2.0]])
    lora.up.data = torch.tensor([[1.0], [0.0], [-1.0]])
    # W + 2 B A = [[1, 0], [0, 1], [1, 1]] + 2 [[1, 2], [0, 0], [-1, -2]]
    assert lora.weight.tolist() == [[3.0, 4.0], [0.0, 1.0], [-1.0, -3.0]]
    assert lora(torch.tensor([1.0, 1.0])).tolist() == [7.5, 1.0, -4.0]


def test_only_the_corrections_and_biases_of_the_fused_map_learn() -> None:
    before, after = dict(tiny().named_parameters()), dict(trained().named_parameters())
    trainable = {name for name, parameter in after.items() if parameter.requires_grad}
    parts = ("bias", "down", "up")
    assert trainable == {f"blocks.{i}.attention.qkv.{part}" for i in range(2) for part in parts}
    for name, parameter in after.items():
        old = before.get(name.replace("qkv.frozen", "qkv.weight"))
        if name not in trainable:
            assert old is not None and torch.equal(parameter, old)
        elif old is not None:
            assert not torch.equal(parameter, old)
    assert all(after[f"blocks.{i}.attention.qkv.up"].abs().min() > 0 for i in range(2))


def test_counts() -> None:
    with_bias = count_parameters(add_lora(tiny(), rank=4))
    # Two blocks, each with A (4, 16) and B (48, 4); biases of 48.
    assert with_bias["trainable"] == 2 * (4 * 16 + 48 * 4 + 48)
    assert with_bias["total"] == count_parameters(tiny())["total"] + 2 * (4 * 16 + 48 * 4)
    gpt2 = GPTConfig(n_layer=12, n_head=12, n_embd=768, activation="gelu_new")
    with torch.device("meta"):
        counts = count_parameters(add_lora(GPT(gpt2), rank=16))
    assert counts["trainable"] == 12 * (16 * (768 + 2304) + 2304)
    assert counts["trainable"] / counts["total"] < 0.0075  # LaMo trains about 0.7 %


def test_dropout_drops_entries_of_a_and_keeps_the_mean() -> None:
    torch.manual_seed(1)
    lora = LoRALinear(nn.Linear(30, 20), rank=8, alpha=8.0, dropout=0.25)
    lora.up.data.normal_()
    mean = torch.stack([lora.weight for _ in range(4000)]).mean(0)
    torch.testing.assert_close(mean, lora.eval().weight, atol=0.06, rtol=0)
    lora.train()
    lora.up.data = torch.eye(20, 8)
    correction = (lora.weight - lora.frozen)[:8]
    kept = correction != 0
    assert 0.6 < kept.float().mean() < 0.9
    torch.testing.assert_close(correction[kept], lora.down[kept] / 0.75)


def test_it_equals_peft_without_dropout() -> None:
    peft = pytest.importorskip("peft")
    gpt = trained()
    reference = nn.Sequential()
    reference.add_module("qkv", nn.Linear(16, 48))
    ours = gpt.blocks[0].attention.qkv
    reference.qkv.weight.data, reference.qkv.bias.data = ours.frozen.data.clone(), ours.bias.data.clone()
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["qkv"])
    peft.inject_adapter_in_model(config, reference)
    reference.qkv.lora_A["default"].weight.data = ours.down.data.clone()
    reference.qkv.lora_B["default"].weight.data = ours.up.data.clone()
    torch.testing.assert_close(ours(X), reference(X), atol=1e-5, rtol=0)


def test_padding_positions_and_causality_hold_as_without_it() -> None:
    gpt = trained().eval()
    full = gpt(X)
    torch.testing.assert_close(gpt(X, positions=slice(1, None, 3)), full[:, 1::3], atol=1e-6, rtol=0)
    changed: Tensor = X.clone()
    changed[:, -1] = 5.0
    assert torch.equal(gpt(changed)[:, :-1], full[:, :-1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "rank is 0, expected at least 1"),
        ({"alpha": -1.0}, "alpha is -1.0, expected a positive"),
        ({"dropout": 1.0}, "dropout is 1.0, expected a probability"),
    ],
)
def test_values_out_of_range(options: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        add_lora(tiny(), **options)


def test_wrong_backbones() -> None:
    with pytest.raises(InputError, match="got Linear"):
        add_lora(nn.Linear(2, 2))
    with pytest.raises(InputError, match="already"):
        add_lora(add_lora(tiny()))


def test_models_that_peft_does_not_adapt_or_that_have_no_attention_are_refused_in_one_line() -> None:
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "vocab_size": 20}
    mamba = transformers.MambaForCausalLM(transformers.MambaConfig(**shape, state_size=4))
    with pytest.raises(InputError, match="MambaModel takes no low-rank corrections") as error:
        add_lora(HuggingFaceBackbone(mamba))
    assert "\n" not in str(error.value)
    config = transformers.RwkvConfig(**shape, attention_hidden_size=16, context_length=32)
    for model in (mamba, transformers.RwkvForCausalLM(config)):
        with pytest.raises(InputError, match="gives no attention maps"):
            HuggingFaceBackbone(model)(torch.zeros(1, 5, 16), return_attentions=True)

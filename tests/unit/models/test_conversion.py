"""GPT-2, CLIP's text tower and ImageGPT in our GPT: parity with transformers on small random models."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from chibit.core.errors import DamagedFileError, InputError
from chibit.models.conversion import load_converted

transformers = pytest.importorskip("transformers")

SIZES = {"n_embd": 24, "n_layer": 3, "n_head": 4, "n_positions": 32}
INPUTS = torch.randn(2, 9, 24, generator=torch.Generator().manual_seed(0))


def shake(model: nn.Module) -> nn.Module:
    """Move every parameter off its trivial start, norms and biases as well."""
    torch.manual_seed(3)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval()


def gpt2(kind: str = "GPT2LMHeadModel", **changes: Any) -> nn.Module:
    config = transformers.GPT2Config(**{**SIZES, "vocab_size": 50, **changes}, attn_implementation="eager")
    return shake(getattr(transformers, kind)(config))


def image_gpt(kind: str = "ImageGPTModel") -> nn.Module:
    config = transformers.ImageGPTConfig(**SIZES, vocab_size=17, attn_implementation="eager")
    return shake(getattr(transformers, kind)(config))


def clip(kind: str = "CLIPTextModel", activation: str = "quick_gelu") -> nn.Module:
    text = {"vocab_size": 40, "hidden_size": 24, "intermediate_size": 56, "num_hidden_layers": 3}
    text |= {"num_attention_heads": 4, "max_position_embeddings": 20, "hidden_act": activation}
    if kind == "CLIPTextModel":
        return shake(transformers.CLIPTextModel(transformers.CLIPTextConfig(**text)))
    vision = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"image_size": 8, "patch_size": 4}
    return shake(transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=vision)))


def save(model: nn.Module, folder: Path, **options: Any) -> Path:
    model.save_pretrained(folder, **options)
    return folder


def assert_equal(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def gpt2_reference(body: nn.Module) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Hidden states and attentions of GPT-2 code without its positions, which our backbone has not."""
    body.wpe.weight.data.zero_()
    output = body(inputs_embeds=INPUTS, output_attentions=True)
    return output.last_hidden_state, output.attentions


@pytest.mark.parametrize("kind", ["GPT2LMHeadModel", "GPT2Model"])
@pytest.mark.parametrize("changes", [{}, {"activation_function": "relu", "n_inner": 40}])
def test_gpt2(kind: str, changes: dict[str, Any], tmp_path: Path) -> None:
    model = gpt2(kind, **changes)
    ours = load_converted("gpt2", save(model, tmp_path))
    body = model.base_model
    assert_equal(ours.token_embeddings, body.wte.weight)
    assert_equal(ours.position_embeddings, body.wpe.weight)
    hidden, attentions = ours.backbone.eval()(INPUTS, return_attentions=True)
    expected, expected_attentions = gpt2_reference(body)
    assert_equal(hidden, expected)
    for mine, theirs in zip(attentions, expected_attentions, strict=True):
        assert_equal(mine, theirs)


def test_gpt2_in_shards_with_dropout_of_its_config(tmp_path: Path) -> None:
    model = gpt2(resid_pdrop=0.3, embd_pdrop=0.05, attn_pdrop=0.0, layer_norm_epsilon=1e-3)
    folder = save(model, tmp_path, max_shard_size="20KB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    backbone = load_converted("gpt2", folder).backbone
    config = backbone.config
    assert (config.resid_dropout, config.embd_dropout, config.attn_dropout) == (0.3, 0.05, 0.0)
    assert_equal(backbone.eval()(INPUTS), gpt2_reference(model.base_model)[0])


@pytest.mark.parametrize("kind", ["ImageGPTModel", "ImageGPTForCausalImageModeling"])
def test_image_gpt(kind: str, tmp_path: Path) -> None:
    model = image_gpt(kind)
    ours = load_converted("igpt", save(model, tmp_path))
    assert ours.backbone.config.norm == "rms" and ours.backbone.config.activation == "quick_gelu"
    hidden, attentions = ours.backbone.eval()(INPUTS, return_attentions=True)
    expected, expected_attentions = gpt2_reference(model.base_model)
    assert_equal(hidden, expected)
    assert_equal(attentions[2], expected_attentions[2])


def test_image_gpt_as_gpt2_code_loads_it(tmp_path: Path) -> None:
    folder = save(image_gpt(), tmp_path)
    ours = load_converted("igpt", folder, image_gpt_norm="layernorm")
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        **SIZES, vocab_size=17, activation_function="quick_gelu", attn_implementation="eager"
    )
    theirs = transformers.GPT2Model(config).eval()
    kept = theirs.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
    assert all(
        name.endswith("bias") and "ln_" in name for name in kept.missing_keys
    )  # GPT-2 starts them at 0
    expected, _ = gpt2_reference(theirs)
    assert_equal(ours.backbone.eval()(INPUTS), expected)
    as_it_is = load_converted("igpt", folder).backbone.eval()(INPUTS)
    assert (as_it_is - expected).abs().max() > 0.01


@pytest.mark.parametrize("kind", ["CLIPTextModel", "CLIPModel"])
@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_clip(kind: str, activation: str, tmp_path: Path) -> None:
    model = clip(kind, activation)
    ours = load_converted("clip", save(model, tmp_path))
    text = model if kind == "CLIPTextModel" else model.text_model
    causal = torch.full((9, 9), torch.finfo(torch.float32).min).triu(1)[None, None]
    encoded = text.encoder(inputs_embeds=INPUTS, attention_mask=causal).last_hidden_state
    expected = text.final_layer_norm(encoded)
    assert_equal(ours.backbone.eval()(INPUTS), expected)
    assert_equal(ours.token_embeddings, text.embeddings.token_embedding.weight)
    assert_equal(ours.position_embeddings, text.embeddings.position_embedding.weight)
    # And through its own interface, on tokens.
    ids = torch.randint(40, (2, 9), generator=torch.Generator().manual_seed(1))
    embedded = ours.token_embeddings[ids] + ours.position_embeddings[:9]
    assert_equal(ours.backbone(embedded), text(input_ids=ids).last_hidden_state)


def test_loading_draws_no_random_numbers_and_gives_trainable_parameters(tmp_path: Path) -> None:
    folder = save(gpt2(), tmp_path)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    one, two = (load_converted("gpt2", folder).backbone for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    pairs = list(zip(one.parameters(), two.parameters(), strict=True))
    assert all(a.requires_grad and a.data_ptr() != b.data_ptr() and torch.equal(a, b) for a, b in pairs)


def edit_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_weights(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_embd": 48}, "n_embd is 48, but the weights have 24"),
        ({"n_layer": 2}, "n_layer is 2, but the weights have 3"),
        ({"n_layer": 4}, "n_layer is 4, but the weights have 3"),
        ({"vocab_size": 51}, "vocab_size is 51, but the weights have 50"),
        ({"n_positions": 16}, "n_positions is 16, but the weights have 32"),
        ({"n_head": 5}, "n_head: got 5, expected a divisor of n_embd = 24"),
        ({"activation_function": "swish"}, "activation is 'swish'"),
        ({"activation_function": ["relu"]}, "activation is "),
        ({"model_type": "bert"}, "model_type is 'bert', expected gpt2"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is True"),
        ({"scale_attn_weights": False}, "scale_attn_weights is False"),
    ],
)
def test_a_config_that_does_not_fit(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    edit_config(save(gpt2("GPT2Model"), tmp_path), **changes)
    with pytest.raises(InputError, match=message) as refusal:
        load_converted("gpt2", tmp_path)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "changes", [{"n_head": "many"}, {"n_head": 2.5}, {"n_head": 1e999}, {"resid_pdrop": [1]}]
)
def test_a_config_that_is_damaged(changes: dict[str, object], tmp_path: Path) -> None:
    edit_config(save(gpt2("GPT2Model"), tmp_path), **changes)
    with pytest.raises(DamagedFileError, match="not a number"):
        load_converted("gpt2", tmp_path)


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    folder = save(gpt2("GPT2Model"), tmp_path)
    name = "h.1.attn.c_attn.weight"
    edit_weights(folder, lambda tensors: tensors.update({name: torch.zeros(24, 48)}))
    with pytest.raises(InputError, match=r"h\.1\.attn\.c_attn\.weight has shape \(48, 24\)"):
        load_converted("gpt2", folder)
    edit_weights(folder, lambda tensors: tensors.update({name: torch.full((24, 72), torch.nan)}))
    with pytest.raises(DamagedFileError, match=r"c_attn\.weight holds what is not a finite number"):
        load_converted("gpt2", folder)
    edit_weights(folder, lambda tensors: tensors.pop(name))
    with pytest.raises(DamagedFileError, match=r"no tensor h\.1\.attn\.c_attn\.weight"):
        load_converted("gpt2", folder)


def test_another_family_is_refused_by_name(tmp_path: Path) -> None:
    save(gpt2("GPT2Model"), tmp_path)
    with pytest.raises(InputError, match="model_type is 'gpt2', expected imagegpt for igpt"):
        load_converted("igpt", tmp_path)

"""Backbones of transformers: parity with the whole model, padding, causality, losses, loading, refusals."""

from __future__ import annotations

import copy
import json
import math
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from chibit.core.errors import DamagedFileError, InputError, UserError
from chibit.models.huggingface import (
    HuggingFaceBackbone,
    HuggingFaceLanguageModel,
    build_huggingface,
    load_huggingface,
)
from chibit.models.lora import add_lora

transformers = pytest.importorskip("transformers")

LLAMA = {"vocab_size": 40, "hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2}
LLAMA |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 32}
IDS = torch.randint(40, (2, 9), generator=torch.Generator().manual_seed(0))


def make(name: str, **changes: Any) -> nn.Module:
    """A small random model with a language-modeling head, every parameter off its trivial start."""
    configs: dict[str, Callable[..., Any]] = {
        "Llama": transformers.LlamaConfig,
        "Gemma2": transformers.Gemma2Config,
        "GPTNeoX": transformers.GPTNeoXConfig,
        "Bloom": transformers.BloomConfig,
        "OPT": transformers.OPTConfig,
        "GPT2": transformers.GPT2Config,
    }
    sizes = {
        "Gemma2": {**LLAMA, "head_dim": 6, "sliding_window": 4},
        "Bloom": {"vocab_size": 40, "hidden_size": 24, "n_layer": 2, "n_head": 4},
        "OPT": {**LLAMA, "ffn_dim": 48, "word_embed_proj_dim": 24},
        "GPT2": {"vocab_size": 40, "n_embd": 24, "n_layer": 2, "n_head": 4, "n_positions": 32},
    }
    torch.manual_seed(5)
    config = configs[name](**sizes.get(name, LLAMA), **changes)
    if name == "OPT":
        config.word_embed_proj_dim = 24
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval()


@pytest.mark.parametrize("name", ["Llama", "Gemma2", "GPTNeoX", "Bloom", "OPT", "GPT2"])
def test_hidden_states_attentions_and_loss_are_those_of_the_whole_model(name: str) -> None:
    model = make(name, **({"final_logit_softcapping": None} if name == "Gemma2" else {}))
    whole = copy.deepcopy(model)
    language_model = HuggingFaceLanguageModel(model).eval()
    expected = whole(input_ids=IDS, labels=IDS, output_attentions=True, output_hidden_states=True)
    backbone = language_model.gpt
    assert backbone.width == 24
    hidden, attentions = backbone(language_model.tokens(IDS), return_attentions=True)
    torch.testing.assert_close(hidden, expected.hidden_states[-1], atol=1e-5, rtol=1e-4)
    for ours, theirs in zip(attentions, expected.attentions, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    assert language_model.loss(IDS).item() == pytest.approx(expected.loss.item(), rel=1e-5)
    assert language_model.perplexity(IDS) == pytest.approx(math.exp(expected.loss.item()), rel=1e-4)


@pytest.mark.parametrize("name", ["Llama", "OPT", "Bloom"])
def test_padding_on_the_right_changes_nothing(name: str) -> None:
    backbone = HuggingFaceBackbone(make(name))
    x = torch.randn(2, 7, 24, generator=torch.Generator().manual_seed(1))
    mask = torch.tensor([[True] * 7, [True] * 4 + [False] * 3])
    padded = x.clone()
    padded[1, 4:] = 9.0
    alone = backbone(x[1:, :4])[0]
    for given in (mask, None):
        hidden = backbone(padded, given)
        torch.testing.assert_close(hidden[1, :4], alone, atol=1e-5, rtol=0)
        torch.testing.assert_close(hidden[0], backbone(x[:1])[0], atol=1e-5, rtol=0)


def test_positions_trim_outputs_and_the_last_map() -> None:
    backbone = HuggingFaceBackbone(make("Llama"))
    x = torch.randn(2, 9, 24, generator=torch.Generator().manual_seed(1))
    rows = slice(1, None, 3)
    full, maps = backbone(x, return_attentions=True)
    hidden, trimmed = backbone(x, positions=rows, return_attentions=True)
    assert torch.equal(hidden, full[:, rows]) and torch.equal(backbone(x, positions=rows), hidden)
    assert torch.equal(trimmed[0], maps[0]) and torch.equal(trimmed[-1], maps[-1][:, :, rows])


def test_the_backbone_holds_no_vocabulary_and_every_part_of_it_learns() -> None:
    model = make("Llama", tie_word_embeddings=True)
    whole = sum(parameter.numel() for parameter in model.parameters())
    language_model = HuggingFaceLanguageModel(model)
    backbone, table = language_model.gpt, language_model.tokens.weight
    assert language_model.head is None and table.shape == (40, 24)
    trainable = [parameter for parameter in backbone.parameters() if parameter.requires_grad]
    assert sum(parameter.numel() for parameter in trainable) == whole - 40 * 24
    backbone(torch.randn(2, 5, 24)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in trainable)
    language_model.loss(IDS).backward()
    assert table.grad is not None


@pytest.mark.parametrize("name", ["GPT2", "Llama", "OPT", "GPTNeoX"])
def test_dropout_acts_in_training_and_is_off_without(name: str) -> None:
    backbone = HuggingFaceBackbone(make(name))
    tokens = torch.randn(2, 5, backbone.width)
    plain = backbone.eval()(tokens)
    outputs = {}
    for probability in (0.0, 0.9):
        backbone.set_dropout(attn_dropout=probability, resid_dropout=probability, embd_dropout=probability)
        torch.testing.assert_close(backbone.eval()(tokens), plain)
        outputs[probability] = backbone.train()(tokens)
    torch.testing.assert_close(outputs[0.0], plain)
    assert not torch.allclose(outputs[0.9], plain, atol=1e-2)


def test_a_dropout_of_a_whole_zero_is_one() -> None:
    backbone = HuggingFaceBackbone(make("Llama", attention_dropout=0))
    tokens = torch.randn(2, 5, backbone.width)
    plain = backbone.train()(tokens)
    backbone.set_dropout(attn_dropout=0.9, resid_dropout=0.0, embd_dropout=0.0)
    assert not torch.allclose(backbone.train()(tokens), plain, atol=1e-2)


def test_a_longer_context_than_the_table_of_positions() -> None:
    backbone = HuggingFaceBackbone(make("OPT"))
    with pytest.raises(InputError, match="33 tokens, but OPTModel has 32 positions"):
        backbone(torch.zeros(1, 33, 24))


def test_a_model_that_sees_later_tokens_is_refused() -> None:
    sizes = {k: v for k, v in LLAMA.items() if k not in ("num_key_value_heads",)}
    model = transformers.BertLMHeadModel(transformers.BertConfig(**sizes))
    with pytest.raises(InputError, match="BertLMHeadModel is not causal"):
        HuggingFaceBackbone(model)
    decoder = transformers.BertLMHeadModel(transformers.BertConfig(**sizes, is_decoder=True))
    assert HuggingFaceBackbone(decoder).width == 24


def test_a_model_without_a_head_is_refused() -> None:
    with pytest.raises(InputError, match="no language-modeling head"):
        HuggingFaceBackbone(transformers.LlamaModel(transformers.LlamaConfig(**LLAMA)))


def test_logits_by_more_than_a_matrix_refuse_a_loss_but_not_the_backbone() -> None:
    language_model = HuggingFaceLanguageModel(make("Gemma2", final_logit_softcapping=0.5))
    assert language_model.gpt(torch.zeros(1, 2, 24)).shape == (1, 2, 24)
    with pytest.raises(InputError, match="more than a matrix product"):
        language_model.loss(IDS)


def test_a_saved_folder_loads_with_the_same_outputs(tmp_path: Path) -> None:
    model = make("Llama")
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        expected = model(input_ids=IDS, labels=IDS).loss.item()
    state = torch.get_rng_state()
    loaded = load_huggingface(str(tmp_path))
    assert loaded.perplexity(IDS) == pytest.approx(math.exp(expected), rel=1e-4)
    assert loaded.head is not None and loaded.head.weight.dtype == torch.float32
    assert torch.equal(torch.get_rng_state(), state)


def _no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def _truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def _pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _drop_a_tensor(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    tensors.pop("model.layers.0.mlp.up_proj.weight")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _spoil_a_tensor(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"][0, 0] = torch.nan
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _other_width(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(path.read_text().replace('"hidden_size": 24', '"hidden_size": 32'))


def _unknown_type(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(path.read_text().replace('"model_type": "llama"', '"model_type": "unheard_of"'))


@pytest.mark.parametrize(
    ("damage", "kind", "message"),
    [
        (_no_config, InputError, "config.json"),
        (_unknown_type, InputError, "unheard_of"),
        (_truncate, DamagedFileError, "fetch it again"),
        (_pickle, DamagedFileError, "pickle"),
        (_drop_a_tensor, DamagedFileError, "missing"),
        (_spoil_a_tensor, DamagedFileError, "up_proj.weight holds what is not a finite number"),
        (_other_width, DamagedFileError, "fetch it again"),
    ],
)
def test_damaged_folders_are_refused_in_one_line(
    damage: Callable[[Path], None], kind: type[UserError], message: str, tmp_path: Path
) -> None:
    make("Llama").save_pretrained(tmp_path)
    damage(tmp_path)
    with pytest.raises(kind, match=message) as refusal:
        load_huggingface(str(tmp_path))
    assert "\n" not in str(refusal.value)


def test_an_encoder_decoder_is_refused(tmp_path: Path) -> None:
    config = transformers.T5Config(vocab_size=40, d_model=24, d_kv=6, d_ff=48, num_layers=1, num_heads=4)
    transformers.T5ForConditionalGeneration(config).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="not a causal language model"):
        load_huggingface(str(tmp_path))


def write_gguf(model: nn.Module, path: Path) -> None:
    """Save a small Llama as llama.cpp does: its names, and rotary pairs side by side in queries and keys."""
    gguf = pytest.importorskip("gguf")
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    names = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    names |= {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "model.layers": "blk"}
    names |= {
        f"self_attn.{x}_proj": f"attn_{y}" for x, y in zip("qkvo", ("q", "k", "v", "output"), strict=True)
    }
    names |= {f"mlp.{x}_proj": f"ffn_{x}" for x in ("gate", "up", "down")}
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, tensor in model.state_dict().items():
        for part, count in heads.items():
            if part in name:
                tensor = tensor.unflatten(0, (count, 2, -1)).transpose(1, 2).flatten(0, 2)
        for theirs, ours in names.items():
            name = name.replace(theirs, ours)
        writer.add_tensor(name, tensor.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_gguf_files(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    model = make("Llama")
    write_gguf(model, tmp_path / "tiny.gguf")
    expected = model(input_ids=IDS, labels=IDS).loss.item()
    for source in (tmp_path, tmp_path / "tiny.gguf"):
        assert load_huggingface(str(source)).loss(IDS).item() == pytest.approx(expected, rel=1e-4)
    (tmp_path / "other.gguf").write_bytes(b"")
    with pytest.raises(InputError, match="several GGUF files"):
        load_huggingface(str(tmp_path))
    with pytest.raises(UserError) as refusal:
        load_huggingface(str(tmp_path / "other.gguf"))
    assert "\n" not in str(refusal.value)


def adapted(**options: Any) -> tuple[HuggingFaceBackbone, list[str]]:
    backbone = HuggingFaceBackbone(make("Llama"))
    add_lora(backbone, **options)
    return backbone, [name for name, parameter in backbone.named_parameters() if parameter.requires_grad]


def test_lora_starts_from_the_same_function_and_trains_little() -> None:
    pytest.importorskip("peft")
    x = torch.randn(2, 5, 24, generator=torch.Generator().manual_seed(1))
    expected = HuggingFaceBackbone(make("Llama"))(x)
    backbone, trainable = adapted(rank=2, alpha=4.0, dropout=0.0)
    torch.testing.assert_close(backbone(x), expected, atol=1e-6, rtol=0)
    # Two layers of q (24 to 24), k and v (24 to 12), each with A (2, in) and B (out, 2).
    assert len(trainable) == 2 * 3 * 2 and all(".lora_" in name for name in trainable)
    count = sum(p.numel() for p in backbone.parameters() if p.requires_grad)
    assert count == 2 * (2 * (24 + 24) + 2 * 2 * (24 + 12))
    frozen = {name: p.detach().clone() for name, p in backbone.named_parameters() if name not in trainable}
    optimizer = torch.optim.SGD([p for p in backbone.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):  # A learns from the second step on, once B is no longer zero
        optimizer.zero_grad()
        backbone(x).square().mean().backward()
        optimizer.step()
    after = dict(backbone.named_parameters())
    assert all(torch.equal(after[name], tensor) for name, tensor in frozen.items())
    assert (backbone(x) - expected).abs().max() > 1e-4
    with pytest.raises(InputError, match="already"):
        add_lora(backbone)


def test_lora_reaches_a_model_with_names_of_its_own() -> None:
    pytest.importorskip("peft")
    backbone = HuggingFaceBackbone(make("GPT2"))
    add_lora(backbone, rank=2, alpha=4.0)
    trainable = {name for name, parameter in backbone.named_parameters() if parameter.requires_grad}
    assert {name.split(".")[4] for name in trainable} == {"c_attn"}
    assert any(name.endswith("bias") for name in trainable)


def test_gradients_reach_the_embeddings() -> None:
    backbone = HuggingFaceBackbone(make("Llama"))
    x: Tensor = torch.randn(1, 4, 24, requires_grad=True)
    backbone(x)[:, 1].sum().backward()
    assert x.grad is not None
    assert x.grad[:, :2].abs().sum() > 0 and x.grad[:, 2:].abs().max() < 1e-6


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("n_layer", 2**31), ("n_embd", 10**6), ("vocab_size", 2**40), ("n_embd", "wide"),
        ("n_embd", -8), ("n_head", 0), ("n_layer", 1e308), ("n_positions", None),
        ("scale_attn_weights", 3), ("activation_function", "no such"), ("model_type", []),
        ("vocab_size", [5]), ("layer_norm_epsilon", {"a": 1}),
        ("auto_map", {"AutoConfig": "own.Config"}), ("summary_type", -1),
    ],
)  # fmt: skip
def test_a_configuration_that_transformers_stumbles_over_is_refused_in_one_line(tmp_path, key, value):
    config = transformers.GPT2Config(n_layer=1, n_head=1, n_embd=8, n_positions=8, vocab_size=5)
    config.save_pretrained(tmp_path)
    record = json.loads((tmp_path / "config.json").read_text()) | {key: value}
    (tmp_path / "config.json").write_text(json.dumps(record))
    try:
        built = build_huggingface(str(tmp_path))
    except UserError as refused:
        assert "\n" not in str(refused)
    else:
        assert built.gpt.width == 8


@pytest.mark.parametrize(
    ("name", "load"),
    [
        ("config.json", build_huggingface),
        ("config.json", load_huggingface),
        ("generation_config.json", load_huggingface),
    ],
)
def test_a_configuration_without_end_is_refused_before_it_is_read(tmp_path, name, load):
    make("Llama").save_pretrained(tmp_path)
    os.truncate(tmp_path / name, 200_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(DamagedFileError, match="200,000,000 bytes"):
            load(str(tmp_path))
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()

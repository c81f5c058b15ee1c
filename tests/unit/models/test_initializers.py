"""Initializers: names, seeds, transfer masks, controls with matched tensors, hashes, sharing and refusals."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from chibit.core.errors import DamagedFileError, InputError, ResourceError
from chibit.models.gpt import GPT, GPTConfig
from chibit.models.huggingface import HuggingFaceBackbone
from chibit.models.initializers import TRAINED, Pretrained, load_initializer
from chibit.models.language_model import (
    SHIPPED,
    LanguageModel,
    LanguageModelConfig,
    save_language_model,
    shipped_folder,
)

SHAPE = GPTConfig(n_layer=2, n_head=2, n_embd=16)
IDS = torch.randint(30, (2, 9), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model with no tensor at its trivial start."""
    torch.manual_seed(0)
    model = LanguageModel(LanguageModelConfig(gpt=SHAPE, vocab_size=30, n_positions=12))
    for index, parameter in enumerate(model.parameters()):
        parameter.data = 0.1 * index + (1 + index / 10) * torch.randn_like(parameter)
    return save_language_model(model, tmp_path_factory.mktemp("models") / "tiny")


def storages(loaded: Pretrained) -> set[int]:
    whole = loaded.language_model or loaded.backbone
    tables = (loaded.token_embeddings, loaded.position_embeddings)
    tensors: list[Tensor] = [*whole.parameters(), *loaded.backbone.parameters()]
    tensors += [table for table in tables if table is not None]
    return {tensor.untyped_storage().data_ptr() for tensor in tensors}


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_random_is_a_seeded_draw_that_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(9)
    state = torch.get_rng_state()
    one = load_initializer("random", gpt_config=SHAPE, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    again, other = (load_initializer("random", gpt_config=SHAPE, seed=seed) for seed in (3, 4))
    torch.manual_seed(3)
    assert same_weights(one.backbone, GPT(SHAPE))
    assert same_weights(one.backbone, again.backbone) and one.hash == again.hash
    assert not same_weights(one.backbone, other.backbone) and one.hash != other.hash
    assert one.name == "random"
    assert (one.token_embeddings, one.position_embeddings, one.language_model) == (None, None, None)
    assert load_initializer("random").backbone.config == GPTConfig()


def test_a_language_model_folder(folder: Path) -> None:
    loaded = load_initializer(str(folder))
    model = loaded.language_model
    assert isinstance(model, LanguageModel) and model.gpt is loaded.backbone
    assert torch.equal(loaded.token_embeddings, model.tokens.weight)
    assert torch.equal(loaded.position_embeddings, model.positions.weight)
    assert loaded.backbone.width == 16
    assert re.fullmatch("[0-9a-f]{64}", loaded.hash)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_run_of_pretraining(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text("{}")
    (run / "language_model").symlink_to(folder)
    assert load_initializer(str(run)).hash == load_initializer(str(folder)).hash


def test_no_two_loads_share_storage_with_each_other_or_with_their_tables(folder: Path) -> None:
    specs = [str(folder), f"random_matched:{folder}"]
    masks = ("whole", "blocks", "positions", "shuffled")
    loads = [load_initializer(s, transfer=m) for s, m in itertools.product(specs * 2, masks)]
    for one, other in itertools.combinations(loads, 2):
        assert not storages(one) & storages(other)
    first = loads[0]
    before = first.token_embeddings.clone()
    first.language_model.tokens.weight.data.zero_()
    assert torch.equal(first.token_embeddings, before)


def test_random_matched_keeps_the_mean_and_spread_of_each_tensor_and_nothing_else(folder: Path) -> None:
    source = load_initializer(str(folder))
    matched = load_initializer(f"random_matched:{folder}", seed=1)
    pairs = zip(
        source.language_model.named_parameters(), matched.language_model.named_parameters(), strict=True
    )
    for (name, a), (other_name, b) in pairs:
        assert name == other_name
        tolerance = 5 * a.std(correction=0) / a.numel() ** 0.5
        assert abs(a.mean() - b.mean()) < tolerance, name
        assert abs(a.std(correction=0) - b.std(correction=0)) < tolerance, name
        correlation = torch.corrcoef(torch.stack((a.flatten(), b.flatten())))[0, 1]
        assert abs(correlation) < 5 / a.numel() ** 0.5, name
    assert torch.equal(matched.token_embeddings, matched.language_model.tokens.weight)
    assert same_weights(matched.backbone, load_initializer(f"random_matched:{folder}", seed=1).backbone)
    assert not same_weights(matched.backbone, load_initializer(f"random_matched:{folder}", seed=2).backbone)


def test_a_constant_tensor_is_matched_by_itself(tmp_path: Path) -> None:
    model = LanguageModel(
        LanguageModelConfig(gpt=SHAPE, vocab_size=30, n_positions=12)
    )  # zero biases, unit norms
    save_language_model(model, tmp_path / "fresh")
    backbone = load_initializer(f"random_matched:{tmp_path / 'fresh'}").backbone
    assert backbone.blocks[0].expand.bias.abs().max() == 0
    assert (backbone.norm.weight == 1).all()


def test_shuffled_permutes_the_entries_of_each_tensor(folder: Path) -> None:
    source = load_initializer(str(folder))
    shuffled = load_initializer(str(folder), transfer="shuffled", seed=1)
    for (name, a), b in zip(
        source.language_model.named_parameters(), shuffled.language_model.parameters(), strict=True
    ):
        assert torch.equal(a.flatten().sort().values, b.flatten().sort().values), name
        assert not torch.equal(a, b), name
    assert torch.equal(shuffled.position_embeddings, shuffled.language_model.positions.weight)
    assert shuffled.name.endswith(" shuffled")
    other = load_initializer(str(folder), transfer="shuffled", seed=2)
    assert not same_weights(shuffled.backbone, other.backbone)


def test_blocks_alone(folder: Path) -> None:
    source = load_initializer(str(folder))
    blocks = load_initializer(str(folder), transfer="blocks")
    assert same_weights(blocks.backbone.blocks, source.backbone.blocks)
    assert (blocks.backbone.norm.weight == 1).all() and (blocks.backbone.norm.bias == 0).all()
    assert (blocks.token_embeddings, blocks.position_embeddings, blocks.language_model) == (None, None, None)


def test_positions_alone(folder: Path) -> None:
    source = load_initializer(str(folder))
    positions = load_initializer(str(folder), transfer="positions", seed=5)
    assert torch.equal(positions.position_embeddings, source.position_embeddings)
    assert same_weights(positions.backbone, load_initializer("random", gpt_config=SHAPE, seed=5).backbone)
    assert (positions.token_embeddings, positions.language_model) == (None, None)


def test_hashes_tell_weights_apart(folder: Path) -> None:
    masks = ("whole", "blocks", "positions", "shuffled")
    hashes = {load_initializer(str(folder), transfer=mask).hash for mask in masks}
    assert len(hashes) == 4
    assert load_initializer(str(folder)).hash in hashes


def test_a_given_config_puts_its_dropouts_in(folder: Path) -> None:
    asked = replace(SHAPE, attn_dropout=0.0, resid_dropout=0.3, embd_dropout=0.4)
    loaded = load_initializer(str(folder), gpt_config=asked)
    assert loaded.backbone.config == asked
    assert all(block.config == asked and block.attention.config == asked for block in loaded.backbone.blocks)
    assert loaded.language_model.config.gpt == asked
    x = torch.ones(1, 3, 16)
    assert not torch.equal(loaded.backbone(x), loaded.backbone(x))
    loaded.backbone.set_dropout(resid_dropout=0.0, embd_dropout=0.0)
    assert loaded.backbone.config == replace(asked, resid_dropout=0.0, embd_dropout=0.0)
    assert torch.equal(loaded.backbone(x), loaded.backbone(x))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_embd": 32}, "n_embd is 32, but .* has 16"),
        ({"n_head": 4}, "n_head is 4, but .* has 2"),
        ({"n_layer": 3}, "n_layer is 3, but .* has 2"),
        ({"n_inner": 8}, "n_inner is 8, but .* has 64"),
        ({"activation": "gelu"}, "activation is 'gelu', but .* has 'relu'"),
        ({"norm": "rms"}, "norm is 'rms', but .* has 'layernorm'"),
    ],
)
def test_a_shape_that_does_not_agree(changes: dict[str, Any], message: str, folder: Path) -> None:
    for spec in (str(folder), f"random_matched:{folder}"):
        with pytest.raises(InputError, match=message):
            load_initializer(spec, gpt_config=replace(SHAPE, **changes))


def test_text_of_another_vocabulary(folder: Path) -> None:
    loaded = load_initializer(str(folder))
    loaded.require_vocabulary(30, "wikitext-103")
    with pytest.raises(InputError, match=r"wikitext-103 has a vocabulary of 50257 tokens, .* one of 30"):
        loaded.require_vocabulary(50_257, "wikitext-103")
    with pytest.raises(InputError, match="no language model to train on wikitext-103"):
        load_initializer("random").require_vocabulary(30, "wikitext-103")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("chibt", "did you mean 'chibit'"),
        ("gtp2", "did you mean 'gpt2'"),
        ("Random", "did you mean 'random'"),
        ("xyzzy", "expected random, random_matched, chibit"),
        ("", "expected random"),
        ("hf:", "names no model"),
        ("./nowhere", "neither a known name nor a folder"),
        ("gpt2:./nowhere", "no such folder"),
        ("~nobody-here/x", "neither a known name nor a folder"),
        ("a" * 300, "cannot read"),
        ("hf:" + "a" * 300, "cannot read"),
        ("random_matched:./nowhere", "neither a known name nor a folder"),
    ],
)
def test_unknown_names(spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as refusal:
        load_initializer(spec)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", TRAINED)
def test_sources_trained_on_first_use_say_so(name: str) -> None:
    for spec in (name, f"{name}:", f"{name}:0", f"{name}:-5", f"{name}:many"):
        if spec not in SHIPPED:
            with pytest.raises(InputError, match=f"gradient steps of its pre-training, such as {name}:2000"):
                load_initializer(spec)
    with pytest.raises(InputError, match="not pre-trained yet; chibit train and .* on first use"):
        load_initializer(f"{name}:7")


def test_transfers_that_make_no_sense(folder: Path) -> None:
    with pytest.raises(InputError, match="random has no weights to transfer"):
        load_initializer("random", transfer="blocks")
    with pytest.raises(InputError, match="did you mean 'blocks'"):
        load_initializer(str(folder), transfer="block")  # type: ignore[arg-type]


def test_a_folder_with_something_else(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="no language model in it"):
        load_initializer(str(tmp_path))


@pytest.mark.parametrize("name", ["chibit", "markov"])
def test_shipped_models(name: str) -> None:
    if not (shipped_folder(name) / "config.json").exists():
        pytest.skip(f"{name} is not in this tree; scripts make it")
    loaded = load_initializer(name)
    assert loaded.name == name and loaded.language_model is not None
    assert loaded.backbone.width == loaded.token_embeddings.shape[1] == 128
    matched = load_initializer("random_matched" if name == "chibit" else f"random_matched:{name}")
    assert matched.backbone.config == loaded.backbone.config and matched.hash != loaded.hash


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Small random models as `save_pretrained` writes them."""
    transformers = pytest.importorskip("transformers")
    root = tmp_path_factory.mktemp("foreign")
    sizes = {"n_embd": 24, "n_layer": 2, "n_head": 4, "n_positions": 32}
    text = {"hidden_size": 24, "intermediate_size": 56, "num_hidden_layers": 2, "num_attention_heads": 4}
    models = {
        "gpt2": transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, vocab_size=30)),
        "igpt": transformers.ImageGPTModel(transformers.ImageGPTConfig(**sizes, vocab_size=17)),
        "clip": transformers.CLIPTextModel(transformers.CLIPTextConfig(**text, vocab_size=40)),
        "hf": transformers.LlamaForCausalLM(transformers.LlamaConfig(**text, vocab_size=30)),
    }
    for name, model in models.items():
        model.save_pretrained(root / name)
    return {name: root / name for name in models}


def test_gpt2_is_a_language_model_with_the_loss_of_transformers(foreign: dict[str, Path]) -> None:
    transformers = pytest.importorskip("transformers")
    loaded = load_initializer(f"gpt2:{foreign['gpt2']}")
    whole = transformers.GPT2LMHeadModel.from_pretrained(foreign["gpt2"]).eval()
    expected = whole(input_ids=IDS, labels=IDS).loss
    model = loaded.language_model.eval()
    assert model.loss(IDS).item() == pytest.approx(expected.item(), rel=1e-5)
    assert torch.equal(loaded.position_embeddings, whole.transformer.wpe.weight)
    loaded.require_vocabulary(30, "text")


def test_towers_without_a_head_have_tables_but_no_language_model(foreign: dict[str, Path]) -> None:
    for name, rows in (("clip", 40), ("igpt", 17)):
        loaded = load_initializer(f"{name}:{foreign[name]}")
        assert loaded.language_model is None
        assert loaded.token_embeddings.shape == (rows, 24)
        shuffled = load_initializer(f"{name}:{foreign[name]}", transfer="shuffled")
        expected = loaded.token_embeddings.flatten().sort().values
        assert torch.equal(shuffled.token_embeddings.flatten().sort().values, expected)
        assert not torch.equal(shuffled.position_embeddings, loaded.position_embeddings)
    norm = load_initializer(f"igpt:{foreign['igpt']}", image_gpt_norm="layernorm").backbone.config.norm
    assert norm == "layernorm"


def test_any_causal_model(foreign: dict[str, Path]) -> None:
    spec = f"hf:{foreign['hf']}"
    loaded = load_initializer(spec)
    assert isinstance(loaded.backbone, HuggingFaceBackbone)
    assert loaded.language_model.gpt is loaded.backbone
    assert loaded.token_embeddings.shape == (30, 24) and loaded.position_embeddings is None
    shuffled = load_initializer(spec, transfer="shuffled")
    matched = load_initializer(f"random_matched:{spec}")
    assert len({loaded.hash, shuffled.hash, matched.hash}) == 3
    assert load_initializer(spec).hash == loaded.hash
    with pytest.raises(InputError, match="cannot be taken apart"):
        load_initializer(spec, transfer="blocks")
    with pytest.raises(InputError, match="n_embd is 128, but hf:.* has 24"):
        load_initializer(spec, gpt_config=GPTConfig())
    with pytest.raises(InputError, match="n_layer is 2, but hf:.* brings its own"):
        load_initializer(spec, gpt_config=GPTConfig(n_embd=24, n_layer=2))


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"num_hidden_layers": 100_000}, DamagedFileError, "100,000 layers; no model has so many"),
        ({"hidden_size": 2_000_000}, ResourceError, "a model of .* weights takes"),
        ({"intermediate_size": 10**12}, ResourceError, "a model of .* weights takes"),
        ({"vocab_size": 10**12}, ResourceError, "a model of .* weights takes"),
    ],
)
@pytest.mark.parametrize("kind", ["hf", "hf_config"])
def test_a_model_that_could_not_be_built_is_refused_on_its_description(
    foreign: dict[str, Path], tmp_path: Path, change: dict, error: type, says: str, kind: str
) -> None:
    shutil.copytree(foreign["hf"], tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(error, match=says):
        load_initializer(f"{kind}:{tmp_path / 'model'}")


def test_a_pickle_and_a_truncated_file(foreign: dict[str, Path], tmp_path: Path) -> None:
    for name in ("gpt2", "hf"):
        target = tmp_path / name
        target.mkdir()
        for file in foreign[name].iterdir():
            (target / file.name).write_bytes(file.read_bytes())
        weights = target / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-50])
        with pytest.raises(DamagedFileError):
            load_initializer(f"{name}:{target}")
        weights.rename(target / "pytorch_model.bin")
        with pytest.raises(DamagedFileError, match="pickle"):
            load_initializer(f"{name}:{target}")


def test_an_architecture_without_its_weights(foreign: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((foreign["hf"] / "config.json").read_bytes())
    built, loaded = load_initializer(f"hf_config:{tmp_path}"), load_initializer(f"hf:{foreign['hf']}")
    assert built.backbone.state_dict().keys() == loaded.backbone.state_dict().keys()
    assert built.hash != loaded.hash
    built.backbone.load_state_dict(loaded.backbone.state_dict())
    x = torch.randn(1, 4, 24, generator=torch.Generator().manual_seed(0))
    assert torch.equal(built.backbone.eval()(x), loaded.backbone.eval()(x))
    with pytest.raises(InputError, match=r"nowhere/config\.json: no such file"):
        load_initializer(f"hf_config:{tmp_path / 'nowhere'}")

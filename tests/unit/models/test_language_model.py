"""Language model: parity with transformers, loss, generation, and strict saving and loading."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open

from chibit.core.errors import DamagedFileError, InputError
from chibit.core.shared_folder import MANIFEST
from chibit.models.gpt import GPTConfig
from chibit.models.language_model import (
    LanguageModel,
    LanguageModelConfig,
    load_language_model,
    load_shipped,
    save_language_model,
    shipped_folder,
)

GPT_TINY = GPTConfig(n_layer=2, n_head=2, n_embd=16, attn_dropout=0.0, resid_dropout=0.0, embd_dropout=0.0)
TINY = LanguageModelConfig(gpt=GPT_TINY, vocab_size=31, n_positions=12)


def tiny(seed: int = 0) -> LanguageModel:
    torch.manual_seed(seed)
    return LanguageModel(TINY)


def some_tokens(*shape: int) -> torch.Tensor:
    return torch.randint(0, 31, shape, generator=torch.Generator().manual_seed(5))


def test_parameter_count_is_the_papers() -> None:
    model = LanguageModel(LanguageModelConfig())
    blocks = sum(p.numel() for p in model.gpt.blocks.parameters())
    assert blocks == 594_816
    assert sum(p.numel() for p in model.parameters()) == 594_816 + 256 + 50_257 * 128 + 1024 * 128


def test_logits_and_loss_equal_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    model = tiny().eval()
    theirs = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=31, n_positions=12, n_embd=16, n_layer=2, n_head=2, activation_function="relu",
            bos_token_id=0, eos_token_id=0,
        )
    ).eval()  # fmt: skip
    ours = model.state_dict()
    state = {"transformer.wte.weight": ours["tokens.weight"], "lm_head.weight": ours["tokens.weight"]}
    state["transformer.wpe.weight"] = ours["positions.weight"]
    pairs = {
        "ln_1": "attention_norm",
        "ln_2": "mlp_norm",
        "attn.c_attn": "attention.qkv",
        "attn.c_proj": "attention.projection",
        "mlp.c_fc": "expand",
        "mlp.c_proj": "contract",
    }
    for layer in range(2):
        for their_name, our_name in pairs.items():
            weight = ours[f"gpt.blocks.{layer}.{our_name}.weight"]
            state[f"transformer.h.{layer}.{their_name}.weight"] = weight.T if weight.ndim == 2 else weight
            state[f"transformer.h.{layer}.{their_name}.bias"] = ours[f"gpt.blocks.{layer}.{our_name}.bias"]
    state["transformer.ln_f.weight"], state["transformer.ln_f.bias"] = (
        ours["gpt.norm.weight"],
        ours["gpt.norm.bias"],
    )
    theirs.load_state_dict(state)
    tokens = some_tokens(3, 10)
    torch.testing.assert_close(model.logits(tokens), theirs(tokens).logits, atol=1e-5, rtol=0)
    expected = theirs(tokens, labels=tokens).loss
    torch.testing.assert_close(model.loss(tokens), expected, atol=1e-5, rtol=0)


def test_offsets_shift_the_positions() -> None:
    model = tiny().eval()
    tokens = some_tokens(2, 5)
    hidden = model(tokens, offsets=torch.tensor([0, 7]))
    embedded = model.tokens(tokens[1:]) + model.positions.weight[7:12]
    torch.testing.assert_close(hidden[1:], model.gpt(embedded))
    torch.testing.assert_close(hidden[:1], model(tokens[:1]))


def test_too_long_a_block_is_refused() -> None:
    with pytest.raises(InputError, match="13 tokens.*at most 12"):
        tiny()(some_tokens(1, 13))


def test_one_batch_is_learned_by_heart() -> None:
    model = tiny()
    tokens = some_tokens(4, 9)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    first = model.loss(tokens).item()
    for _ in range(150):
        optimizer.zero_grad()
        loss = model.loss(tokens)
        loss.backward()
        optimizer.step()
    assert first == pytest.approx(torch.log(torch.tensor(31.0)).item(), abs=0.1)
    assert loss.item() < 0.05


def test_greedy_generation_is_the_argmax() -> None:
    model = tiny().eval()
    for parameter in model.parameters():
        parameter.data *= 10
    start = some_tokens(2, 3)
    text = model.generate(start, 12, generator=torch.Generator(), temperature=0.0)
    assert text.shape == (2, 15)
    assert torch.equal(text[:, :3], start)
    assert torch.equal(text[:, 3], model.logits(start)[:, -1].argmax(-1))
    assert torch.equal(text[:, 14], model.logits(text[:, 2:14])[:, -1].argmax(-1))


def test_sampling_follows_its_generator() -> None:
    model = tiny().eval()
    start = some_tokens(2, 3)
    first, second, other = (
        model.generate(start, 9, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_saved_and_loaded_is_the_same_model(tmp_path: Path) -> None:
    model = tiny()
    folder = save_language_model(model, tmp_path / "lm", extra={"model_card.md": "card\n"})
    loaded = load_language_model(folder)
    assert loaded.config == model.config
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    assert sorted(path.name for path in folder.iterdir()) == [
        MANIFEST,
        "config.json",
        "model.safetensors",
        "model_card.md",
    ]
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    loaded.loss(some_tokens(2, 5)).backward()


def test_half_precision_on_disk_is_float32_in_memory(tmp_path: Path) -> None:
    model = tiny()
    folder = save_language_model(model, tmp_path / "lm", dtype=torch.float16)
    loaded = load_language_model(folder)
    weight = loaded.tokens.weight
    assert weight.dtype == torch.float32
    torch.testing.assert_close(weight, model.tokens.weight, atol=1e-4, rtol=1e-3)
    assert (folder / "model.safetensors").stat().st_size < 2.5 * sum(p.numel() for p in model.parameters())


def rewrite(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    config.update(changes)
    (folder / "config.json").write_text(json.dumps(config))


def test_bad_folders_are_refused_in_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "lm"

    def refusal(kind: type[Exception], pattern: str) -> None:
        with pytest.raises(kind, match=pattern) as caught:
            load_language_model(folder)
        assert "\n" not in str(caught.value)
        shutil.rmtree(folder, ignore_errors=True)
        save_language_model(tiny(), folder)

    refusal(InputError, "config.json: no such file")
    (folder / "model.safetensors").unlink()
    refusal(InputError, "model.safetensors: no such file")
    rewrite(folder, vocab_size=32)
    refusal(DamagedFileError, r"tokens.weight has \(31, 16\), expected \(32, 16\)")
    rewrite(folder, gpt={"n_layer": 3, "n_head": 2, "n_embd": 16})
    refusal(DamagedFileError, r"gpt.blocks.2\S* has nothing, expected")
    rewrite(folder, gpt={"n_layer": 1, "n_head": 2, "n_embd": 16})
    refusal(DamagedFileError, r"gpt.blocks.1\S* has .*, expected nothing")
    rewrite(folder, speed="fast")
    refusal(InputError, "unknown field 'speed'")
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
    refusal(DamagedFileError, "not a whole safetensors file")
    torch.save({"tokens.weight": torch.zeros(2)}, folder / "model.safetensors")
    refusal(DamagedFileError, "not a whole safetensors file")


def test_weights_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    model = tiny()
    model.tokens.weight.data[3, 4] = torch.nan
    folder = save_language_model(model, tmp_path / "lm")
    with pytest.raises(DamagedFileError, match="tokens.weight holds what is not a finite number"):
        load_language_model(folder)


@pytest.mark.parametrize("changes", [{"vocab_size": 1}, {"n_positions": 0}])
def test_impossible_configs_are_refused(changes: dict[str, int]) -> None:
    with pytest.raises(InputError, match=next(iter(changes))):
        replace(TINY, **changes)


def test_unknown_shipped_model_is_refused() -> None:
    with pytest.raises(InputError, match="expected chibit or markov; did you mean 'markov'"):
        shipped_folder("markow")


@pytest.mark.parametrize(("name", "vocab_size"), [("chibit", 50_257), ("markov", 100)])
def test_shipped_models_load(name: str, vocab_size: int) -> None:
    model = load_shipped(name)
    gpt = replace(model.config.gpt, attn_dropout=0.1, resid_dropout=0.1, embd_dropout=0.1)
    assert gpt == GPTConfig()
    assert (model.config.vocab_size, model.config.n_positions) == (vocab_size, 1024)
    untrained = LanguageModel(model.config)
    moved = (model.positions.weight - untrained.positions.weight).abs().amax(-1)
    assert bool((moved > 1e-3).all())  # every position was trained
    files = {path.name for path in shipped_folder(name).iterdir()}
    assert {"model.safetensors", "config.json", "model_card.md", "curve.csv"} <= files


def test_shipped_files_are_small() -> None:
    sizes = {
        name: sum(path.stat().st_size for path in shipped_folder(name).iterdir())
        for name in ("chibit", "markov")
    }
    assert (shipped_folder("chibit") / "model.safetensors").stat().st_size <= 15e6
    assert sizes["markov"] < 3e6


def test_shipped_centers_are_those_of_the_shipped_words() -> None:
    words = F.normalize(load_shipped("chibit").tokens.weight.detach(), dim=-1)
    with safe_open(shipped_folder("chibit") / "centers.safetensors", framework="pt") as file:
        centers = file.get_tensor("centers")
        digest = file.metadata()["sha256"]
    assert centers.shape == (1000, 128)
    assert hashlib.sha256(centers.numpy().data).hexdigest() == digest
    sample = words[:5000]
    nearest = (sample @ F.normalize(centers, dim=-1).T).amax(-1).mean()
    shuffled = centers[:, torch.randperm(128, generator=torch.Generator().manual_seed(0))]
    by_chance = (sample @ F.normalize(shuffled, dim=-1).T).amax(-1).mean()
    assert nearest > by_chance + 0.1


def test_shipped_chibit_has_learned_language() -> None:
    """A sentence is likelier than the same words in reverse, and than under word frequencies."""
    from chibit.data.text.tokenizer import load_gpt2_tokenizer

    model = load_shipped("chibit").eval()
    tokens = load_gpt2_tokenizer().encode(
        " The city is the capital of the province, and the largest in the country ."
    )
    with torch.no_grad():
        forward, backward = (
            model.loss(torch.tensor(order.astype("int64"))[None]).item()
            for order in (tokens, tokens[::-1].copy())
        )
    assert forward < backward - 1.0
    assert forward < 5.0


@pytest.mark.slow
def test_shipped_chibit_has_its_cards_perplexity() -> None:
    shared = Path(os.environ.get("CHIBIT_SHARED", "../shared")) / "data" / "wikitext2" / "valid.raw.gz"
    if not shared.is_file():
        pytest.skip(f"{shared} is not there; set CHIBIT_SHARED")
    from chibit.core.runtime import Runtime
    from chibit.data.text.corpus import load_corpus
    from chibit.training.pretrain.data import held_out_loss

    tokens = load_corpus(shared, progress=False).tokens
    loss = held_out_loss(
        load_shipped("chibit"), tokens, Runtime(), block_length=1024, micro_batch_tokens=8192
    )
    row = re.search(
        r"as shipped in half precision \| ([\d.]+) \|",
        (shipped_folder("chibit") / "model_card.md").read_text(),
    )
    assert row is not None
    assert math.exp(loss) == pytest.approx(float(row[1]), rel=0.005)
    assert math.exp(loss) < 250

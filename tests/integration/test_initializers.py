"""Every initializer and tuning in the agent, on real trajectories: the error falls, what is frozen stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from chibit.agents import make_agent
from chibit.agents.dt.agent import DecisionTransformer
from chibit.agents.dt.config import DecisionTransformerConfig
from chibit.core.runtime import Runtime, seed_torch
from chibit.data.dataset import TrajectoryDataset
from chibit.data.load import load_dataset
from chibit.losses.similarity import spherical_kmeans
from chibit.models.gpt import GPTConfig
from chibit.models.initializers import load_initializer
from chibit.models.language_model import LanguageModel, LanguageModelConfig, save_language_model

STEPS = 30


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Small pre-trained models as folders, by the kind of initializer."""
    transformers = pytest.importorskip("transformers")
    root = tmp_path_factory.mktemp("sources")
    torch.manual_seed(0)
    gpt = {"n_embd": 24, "n_layer": 2, "n_head": 4, "n_positions": 32}
    text = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    models = {
        "gpt2": transformers.GPT2LMHeadModel(transformers.GPT2Config(**gpt, vocab_size=30)),
        "igpt": transformers.ImageGPTModel(transformers.ImageGPTConfig(**gpt, vocab_size=17)),
        "clip": transformers.CLIPTextModel(transformers.CLIPTextConfig(**text, vocab_size=40)),
        "hf": transformers.LlamaForCausalLM(transformers.LlamaConfig(**text, vocab_size=30)),
    }
    for name, model in models.items():
        model.save_pretrained(root / name)
    config = LanguageModelConfig(gpt=GPTConfig(n_layer=2, n_embd=24), vocab_size=30, n_positions=64)
    folder = save_language_model(LanguageModel(config), root / "own")
    return {"own": str(folder), **{name: f"{name}:{root / name}" for name in models}}


@pytest.fixture(scope="module")
def dataset(pendulum_file: Path) -> TrajectoryDataset:
    return load_dataset(pendulum_file)


def agent_of(dataset: TrajectoryDataset, **settings: Any) -> DecisionTransformer:
    seed_torch(0)
    config = DecisionTransformerConfig(
        context_length=5, batch_size=16, learning_rate=3e-3, warmup_steps=1, dropout=0.0, **settings
    )
    agent = make_agent(config, dataset.spec, Runtime())
    assert isinstance(agent, DecisionTransformer)
    return agent


def train(agent: DecisionTransformer, dataset: TrajectoryDataset) -> tuple[float, float]:
    """Action errors on the same windows before and after some steps."""
    sampler = agent.sampler(dataset, np.random.default_rng(0))
    held = sampler.windows(np.arange(0, dataset.num_steps, 3))
    errors = []
    for steps in (STEPS, 0):
        agent.modules().eval()
        with torch.no_grad():
            errors.append(agent.losses(held)["action"].item())
        for _ in range(steps):
            agent.update(sampler.sample())
    return errors[0], errors[1]


@pytest.mark.parametrize("tuning", ["full", "frozen", "frozen_blocks", "lora"])
@pytest.mark.parametrize("kind", ["own", "gpt2", "igpt", "clip", "hf"])
def test_tuning(kind: str, tuning: str, sources: dict[str, str], dataset: TrajectoryDataset) -> None:
    if (kind, tuning) == ("hf", "lora"):
        pytest.importorskip("peft")
    agent = agent_of(dataset, initializer=sources[kind], tuning=tuning)
    before: dict[str, Tensor] = {n: p.detach().clone() for n, p in agent.model.named_parameters()}
    first, last = train(agent, dataset)
    assert last < 0.97 * first
    moved = {n for n, p in agent.model.named_parameters() if not torch.equal(p, before[n])}
    trainable = {n for n, p in agent.model.named_parameters() if p.requires_grad}
    assert moved == trainable
    in_blocks = {n for n in moved if n.startswith("backbone.") and n != "backbone.norm.weight"}
    if tuning == "frozen":
        assert not any(n.startswith(("backbone.", "timesteps.", "embedding_norm.")) for n in moved)
    elif tuning == "frozen_blocks":
        assert not any("blocks" in n for n in in_blocks)
    elif tuning == "lora":
        parts = (".lora_A.", ".lora_B.", "qkv.down", "qkv.up", "qkv.bias")
        assert in_blocks and all(any(part in n for part in parts) for n in in_blocks)
    else:
        assert before.keys() - moved <= {"backbone.body.embed_tokens.weight"}  # a spare row


@pytest.mark.parametrize("transfer", ["blocks", "positions", "shuffled"])
def test_transfer_masks(transfer: str, sources: dict[str, str], dataset: TrajectoryDataset) -> None:
    first, last = train(agent_of(dataset, initializer=sources["own"], transfer=transfer), dataset)
    assert last < 0.97 * first


@pytest.mark.parametrize("kind", ["own", "hf"])
def test_matched_controls(kind: str, sources: dict[str, str], dataset: TrajectoryDataset) -> None:
    agent = agent_of(dataset, initializer=f"random_matched:{sources[kind]}")
    first, last = train(agent, dataset)
    assert last < 0.97 * first
    assert agent.initializer["name"].startswith("random_matched:")


def test_similarity_to_the_words_of_a_wrapped_model(
    sources: dict[str, str], dataset: TrajectoryDataset
) -> None:
    agent = agent_of(dataset, initializer=sources["hf"], similarity_weight=0.1, num_clusters=8)
    batch = agent.sampler(dataset, np.random.default_rng(0)).sample()
    words = load_initializer(sources["hf"]).token_embeddings
    assert words is not None and words.shape == (30, 24)
    centers = spherical_kmeans(words, 8)
    with torch.no_grad():
        tokens = agent.model.embed(batch.returns_to_go, batch.states, batch.actions, batch.timesteps)
    real = tokens[batch.attention_mask.repeat_interleave(3, dim=1)]
    cosines = F.normalize(real, dim=-1) @ F.normalize(centers, dim=-1).T
    expected = -cosines.max(-1).values.mean().item()
    assert agent.update(batch)["train/similarity_loss"] == pytest.approx(expected, rel=1e-4)

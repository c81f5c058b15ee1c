"""Small sequence agents, data and language models that tests share."""

from __future__ import annotations

import atexit
import shutil
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import torch

from chibit.agents.dt.agent import DecisionTransformer
from chibit.agents.dt.config import DecisionTransformerConfig
from chibit.core.runtime import Runtime
from chibit.data.dataset import TrajectoryDataset
from chibit.data.samplers.windows import WindowSampler
from chibit.data.text.tokens import write_corpus
from chibit.models.gpt import GPTConfig, GPTShape
from chibit.models.language_model import LanguageModel, LanguageModelConfig, save_language_model
from toys import TargetReturnEnv, play_toy

VOCABULARY = 50
SMALL: dict[str, Any] = {
    "gpt": GPTShape(n_layer=2, n_head=2, n_embd=16), "context_length": 4, "batch_size": 8,
    "return_scale": 10.0,
    "learning_rate": 1e-3, "warmup_steps": 0,
}  # fmt: skip
"""Settings of a small random model that moves at its first step."""
WITHOUT_SHAPE = {name: value for name, value in SMALL.items() if name != "gpt"}


@cache
def scratch() -> Path:
    """A folder for what is made once; it goes when the process does."""
    folder = Path(mkdtemp(prefix="chibit-toys-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def target_return_data() -> TrajectoryDataset:
    """Forty episodes of ten steps whose actions scatter around a level of each episode's own."""
    return play_toy(
        TargetReturnEnv(),
        40,
        scratch(),
        choose=lambda draw, episode: np.clip(
            (episode - 20) / 20 + 0.1 * draw.standard_normal(1), -1, 1
        ).astype(np.float32),
    )


@cache
def language_model_folder() -> str:
    """An untrained language model of `SMALL`'s shape, with 32 positions."""
    torch.manual_seed(7)
    gpt = GPTConfig(n_layer=2, n_head=2, n_embd=16)
    model = LanguageModel(LanguageModelConfig(gpt=gpt, vocab_size=VOCABULARY, n_positions=32))
    return str(save_language_model(model, scratch() / "language_model"))


@cache
def corpus_folder() -> str:
    """A thousand tokens, each the one before plus one."""
    folder = scratch() / "corpus"
    with write_corpus(folder, vocab_size=VOCABULARY, tokenizer=None, provenance={"source": "toy"}) as writer:
        writer.write(np.arange(1000) % VOCABULARY)
        writer.num_documents = 1
    return str(folder)


def make_small(
    dataset: TrajectoryDataset | None = None, *, seed: int = 0, precision: Any = "fp32", **settings: Any
) -> tuple[DecisionTransformer, WindowSampler]:
    """An agent of `SMALL` with some settings changed, and its sampler."""
    dataset = dataset or target_return_data()
    base = WITHOUT_SHAPE if settings.get("initializer", "random") != "random" else SMALL
    torch.manual_seed(seed)
    agent = DecisionTransformer(
        DecisionTransformerConfig(**{**base, **settings}), dataset.spec, Runtime(precision=precision)
    )
    return agent, agent.sampler(dataset, np.random.default_rng(seed))

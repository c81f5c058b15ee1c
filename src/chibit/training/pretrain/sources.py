"""Initializers that are pre-trained on first use: small budgets, kept in the cache, shared by all runs.

`iid:2000` is 2,000 steps of 8,192 tokens, 16 million in all, as the shipped Markov model had; each token is
seen once. Wang et al. (2024) take 20,000 steps of 65,536. The larger ChibiTs are for GPUs.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from chibit.agents import AgentConfig
from chibit.core.errors import BusyError
from chibit.core.home import language_model_folder
from chibit.core.run_dir import RunDir
from chibit.core.runtime import Precision
from chibit.data.text.synthetic import SyntheticConfig
from chibit.models.gpt import GPTConfig
from chibit.models.initializers import TRAINED_WITHOUT_TEXT, import_initializer, parse_trained
from chibit.training.pretrain.config import SIZES, PretrainConfig
from chibit.training.pretrain.loop import pretrain, refuse_changed_text

BATCH_TOKENS, BLOCK_LENGTH = 8_192, 256
LEARNING_RATE, WARMUP_FRACTION = 3e-3, 0.05
NUM_CANDIDATES = 4_096
"""Words of the sampled softmax over GPT-2's vocabulary."""
_SEQUENCE_LENGTH = 1_024
_POLL_SECONDS = 1.0


def trained_config(name: str, steps: int, text: str = "") -> PretrainConfig:
    """The pre-training behind a source.

    Args:
        name: one of `models.initializers.TRAINED`.
        steps: gradient steps.
        text: text in place of WikiText-103, for the sources made of text.
    """
    synthetic = SyntheticConfig(
        order=2 if name == "ngram" else 1,
        num_sequences=max(64, steps * BATCH_TOKENS // _SEQUENCE_LENGTH),
        sequence_length=_SEQUENCE_LENGTH,
    )
    precision: Precision = "bf16"
    shared: dict[str, Any] = {
        "block_length": BLOCK_LENGTH,
        "batch_tokens": BATCH_TOKENS,
        "micro_batch_tokens": BATCH_TOKENS,
        "num_steps": steps,
        "learning_rate": LEARNING_RATE,
        "warmup_steps": max(1, round(WARMUP_FRACTION * steps)),
        "evaluate_every": max(1, steps // 4),
        "log_every": 10,
        "sample_tokens": 0,
        "precision": precision,
    }
    if name in TRAINED_WITHOUT_TEXT:
        quiet = GPTConfig(attn_dropout=0.0, resid_dropout=0.0, embd_dropout=0.0)  # nothing is seen twice
        return PretrainConfig(corpus=name, synthetic=synthetic, gpt=quiet, **shared)
    if name == "shuffled_text":
        words = text or "wikitext-103"
        return PretrainConfig(corpus=name, text=words, num_candidates=NUM_CANDIDATES, **shared)
    size = {"0.6M": SIZES["chibit"], **SIZES}[name.removeprefix("chibit_")]
    rate = LEARNING_RATE * SIZES["chibit"].n_embd / size.n_embd  # wider models take smaller steps
    shared |= {"learning_rate": rate, "gpt": size, "num_candidates": NUM_CANDIDATES}
    return PretrainConfig(corpus=text or "wikitext-103", **shared)


def trained_specs(agent: AgentConfig) -> list[str]:
    """The sources among the initializers that an agent's configuration names."""
    plain = (name.removeprefix("random_matched:") for name in agent.sources)
    return [spec for spec in dict.fromkeys(plain) if parse_trained(spec) is not None]


def import_sources(agent: AgentConfig) -> None:
    """Import the modules of the initializers that a configuration names; not for one that a file holds."""
    for spec in agent.sources:
        import_initializer(spec)


def source_folder(spec: str) -> Path:
    """Where a source is kept."""
    return language_model_folder(*_parts(spec))


def source_steps(spec: str) -> int:
    """Gradient steps of a source's pre-training."""
    return _parts(spec)[1]


def _parts(spec: str) -> tuple[str, int, str]:
    found = parse_trained(spec)
    assert found is not None
    return found


def train_sources(agent: AgentConfig, *, progress: bool = True) -> None:
    """Pre-train the sources that an agent's configuration names and that are not there yet.

    Where another process is at it, this one waits, and goes on from its checkpoint should it end early.

    Raises:
        UserError: as `pretrain`; also where a source's own text has changed since it was made.
        Stopped: after SIGINT or SIGTERM, with a checkpoint saved.
    """
    for spec in trained_specs(agent):
        found, folder = _parts(spec), source_folder(spec)
        while not (folder / "result.json").is_file():
            try:
                pretrain(trained_config(*found), folder, study="language_models", progress=progress)
            except BusyError:
                time.sleep(_POLL_SECONDS)
        if found[2]:
            refuse_changed_text(RunDir(folder), trained_config(*found))

"""Make the language models that the package ships: ChibiT on Wikipedia text, and one on a Markov chain.

    python scripts/pretrain_chibit.py train chibit --wikipedia FOLDER --wikitext FOLDER --work FOLDER
    python scripts/pretrain_chibit.py train markov --work FOLDER
    python scripts/pretrain_chibit.py ship chibit --wikipedia FOLDER --wikitext FOLDER --work FOLDER
    python scripts/pretrain_chibit.py ship markov --work FOLDER

`train` can be stopped and started again; `ship` measures the model and fills src/chibit/assets. The
Wikipedia folder holds token shards (.u16.xz with .json manifests), the WikiText folder WikiText-2's
train.raw.gz and valid.raw.gz; the latter is WikiText-103's validation set too. This is a recipe for one
CPU core and tens of millions of tokens; the paper's is the default of `chibit pretrain`.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import safetensors.torch
import torch

from chibit.core.runtime import Runtime
from chibit.data.text.corpus import load_corpus
from chibit.data.text.synthetic import MarkovChain, SyntheticConfig, load_synthetic
from chibit.data.text.tokens import TokenDataset, is_corpus, open_corpus, write_corpus
from chibit.losses.similarity import spherical_kmeans
from chibit.models.counting import count_parameters
from chibit.models.gpt import GPTConfig
from chibit.models.language_model import (
    LanguageModel,
    LanguageModelConfig,
    load_language_model,
    save_language_model,
)
from chibit.training.pretrain.config import PretrainConfig
from chibit.training.pretrain.data import held_out_loss, unigram_loss
from chibit.training.pretrain.loop import LANGUAGE_MODEL, pretrain

ASSETS = Path(__file__).parents[1] / "src" / "chibit" / "assets"
CARDS = Path(__file__).with_name("model_cards")
WIKITEXT_REPEATS = 3
NUM_CENTERS = 1000
_QUIET = GPTConfig(attn_dropout=0.0, resid_dropout=0.0, embd_dropout=0.0)  # no text is seen twice
_COMMON = PretrainConfig(
    corpus="",
    gpt=_QUIET,
    batch_tokens=8192,
    micro_batch_tokens=8192,
    adam_betas=(0.9, 0.95),
    evaluate_every=250,
    precision="bf16",
    device="cpu",
)
CHIBIT_STAGES = (
    replace(
        _COMMON,
        block_length=256,
        num_candidates=4096,
        num_steps=2500,
        learning_rate=3e-3,
        warmup_steps=300,
        decay="constant",
    ),
    replace(
        _COMMON,
        num_candidates=4096,
        num_steps=1350,
        learning_rate=3e-3,
        warmup_steps=50,
        final_fraction=0.4 / 3,
    ),
    replace(_COMMON, num_steps=110, learning_rate=4e-4, warmup_steps=20, evaluate_every=50),
)
"""Short blocks and a sampled softmax, then long blocks, then the exact softmax."""
MARKOV = replace(
    _COMMON,
    corpus="markov",
    synthetic=SyntheticConfig(num_sequences=32_000),
    block_length=256,
    num_steps=2000,
    learning_rate=3e-3,
    warmup_steps=100,
    evaluate_every=250,
)


def chibit_corpus(wikipedia: Path, wikitext: Path, work: Path) -> TokenDataset:
    """Wikipedia's articles and, three times, WikiText-2's training text for its typography."""
    folder = work / "corpus"
    if is_corpus(folder):
        return open_corpus(folder)
    parts = [load_corpus(wikipedia)] + [load_corpus(wikitext / "train.raw.gz")] * WIKITEXT_REPEATS
    provenance = {
        "kind": "text",
        "source": "Wikipedia and WikiText-2",
        "parts": [p.content_hash for p in parts],
    }
    with write_corpus(folder, vocab_size=50_257, tokenizer="gpt2", provenance=provenance) as writer:
        for part in parts:
            writer.write(np.asarray(part.tokens))
            writer.num_documents += part.num_documents
    return open_corpus(folder)


def train_chibit(arguments: argparse.Namespace) -> None:
    chibit_corpus(arguments.wikipedia, arguments.wikitext, arguments.work)
    init, rows, before, seconds = None, [], 0, 0.0
    for number, stage in enumerate(CHIBIT_STAGES, start=1):
        run = arguments.work / f"stage{number}"
        config = replace(
            stage,
            corpus=str(arguments.work / "corpus"),
            validation=str(arguments.wikitext / "valid.raw.gz"),
            initializer=init,
            seed=number,
        )
        result = pretrain(config, run)
        rows += read_stage(run, number, before, seconds)
        init, before = str(run / LANGUAGE_MODEL), before + result["tokens_seen"]
        seconds += result["train_seconds"]
    write_curve(arguments.work / "curve.csv", rows)


def train_markov(arguments: argparse.Namespace) -> None:
    run = arguments.work / "stage1"
    pretrain(MARKOV, run)
    write_curve(arguments.work / "curve.csv", read_stage(run, 1, 0, 0.0))


def read_stage(run: Path, stage: int, tokens: int, seconds: float) -> list[dict]:
    """Held-out perplexity over tokens seen, from one stage's log."""
    from chibit.core.run_dir import RunDir

    batch = _COMMON.batch_tokens
    return [
        {
            "stage": stage,
            "step": record["step"],
            "tokens": tokens + record["step"] * batch,
            "seconds": round(seconds + record["seconds"]),
            "held_out_perplexity": round(record["held_out/perplexity"], 2),
        }
        for record in RunDir(run).read_log("metrics.jsonl")
        if "held_out/loss" in record and (record["step"] or stage == 1)
    ]


def write_curve(path: Path, rows: list[dict]) -> None:
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def perplexity(model: LanguageModel, held_out: np.ndarray) -> float:
    runtime = Runtime(precision="fp32")
    return math.exp(held_out_loss(model, held_out, runtime, block_length=1024, micro_batch_tokens=8192))


def ship(name: str, folder: Path, curve: list[dict], held_out: np.ndarray, train: TokenDataset) -> None:
    """Write one model's folder of assets: half-precision weights, configuration, card, curve."""
    model = load_language_model(folder)
    target = save_language_model(model, ASSETS / name, dtype=torch.float16)
    torch.manual_seed(0)
    untrained = LanguageModel(LanguageModelConfig(gpt=_QUIET, vocab_size=train.vocab_size))
    facts = {
        "tokens_seen": int(curve[-1]["tokens"]),
        "hours": int(curve[-1]["seconds"]) / 3600,
        "perplexity": perplexity(load_language_model(target), held_out),
        "full_precision": perplexity(model, held_out),
        "unigram": math.exp(unigram_loss(train.counts(), held_out)),
        "untrained": perplexity(untrained, held_out),
        "floor": chain_perplexity(MARKOV.synthetic),
        "held_out_tokens": len(held_out) - 1,
        **{f"parameters_{key}": value for key, value in count_parameters(model).items()},
    }
    (target / "model_card.md").write_text((CARDS / f"{name}.md").read_text().format(**facts))
    write_curve(target / "curve.csv", curve)
    print(facts)


def ship_chibit(arguments: argparse.Namespace) -> None:
    train = chibit_corpus(arguments.wikipedia, arguments.wikitext, arguments.work)
    held_out = np.asarray(load_corpus(arguments.wikitext / "valid.raw.gz").tokens)
    last = arguments.work / f"stage{len(CHIBIT_STAGES)}" / LANGUAGE_MODEL
    ship("chibit", last, read_curve(arguments.work), held_out, train)
    table = load_language_model(ASSETS / "chibit").tokens.weight.detach()
    centers = spherical_kmeans(table, NUM_CENTERS, seed=0)
    digest = hashlib.sha256(centers.contiguous().numpy().data).hexdigest()
    data = safetensors.torch.save({"centers": centers}, {"sha256": digest})
    (ASSETS / "chibit" / "centers.safetensors").write_bytes(data)


def ship_markov(arguments: argparse.Namespace) -> None:
    train, held_out = load_synthetic("markov", MARKOV.synthetic).split(250_000)
    model = arguments.work / "stage1" / LANGUAGE_MODEL
    ship("markov", model, read_curve(arguments.work), np.asarray(held_out.tokens), train)


def chain_perplexity(config: SyntheticConfig) -> float:
    """The perplexity of the chain itself, the lowest there is; its states are about equally frequent."""
    rows = [MarkovChain(config).probabilities((state,)) for state in range(config.num_states)]
    return math.exp(-float(np.mean([(row * np.log(row)).sum() for row in rows])))


def read_curve(work: Path) -> list[dict]:
    with open(work / "curve.csv", newline="") as file:
        return list(csv.DictReader(file))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("verb", choices=("train", "ship"))
    parser.add_argument("model", choices=("chibit", "markov"))
    parser.add_argument("--wikipedia", type=Path)
    parser.add_argument("--wikitext", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.model == "chibit" and not (arguments.wikipedia and arguments.wikitext):
        parser.error("chibit needs --wikipedia and --wikitext")
    torch.set_num_threads(1)
    arguments.work.mkdir(parents=True, exist_ok=True)
    verbs = {
        ("train", "chibit"): train_chibit,
        ("train", "markov"): train_markov,
        ("ship", "chibit"): ship_chibit,
        ("ship", "markov"): ship_markov,
    }
    verbs[arguments.verb, arguments.model](arguments)


if __name__ == "__main__":
    main()

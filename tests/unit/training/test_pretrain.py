"""Pre-training: schedules, held-out loss, exact resume, several processes, and refusals."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import socket
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from chibit.cli import main
from chibit.core.checkpoint import load_checkpoint
from chibit.core.config import from_json, to_json
from chibit.core.errors import DamagedFileError, DivergenceError, InputError
from chibit.core.runtime import Runtime
from chibit.core.signals import Stopped
from chibit.data.text.corpus import load_corpus
from chibit.data.text.synthetic import SyntheticConfig
from chibit.data.text.tokens import TokenDataset
from chibit.models.gpt import GPTConfig
from chibit.models.language_model import (
    LanguageModel,
    LanguageModelConfig,
    load_language_model,
    save_language_model,
)
from chibit.training.pretrain import data as pretrain_data
from chibit.training.pretrain import loop as pretrain_loop
from chibit.training.pretrain.config import SIZES, PretrainConfig, pretrain_path
from chibit.training.pretrain.data import held_out_loss, load_pretrain_data, unigram_loss
from chibit.training.pretrain.loop import pretrain
from chibit.training.workers import Workers
from fault_runs import save_checkpoint
from forked import Forked

TINY = PretrainConfig(
    corpus="markov",
    synthetic=SyntheticConfig(num_states=6, temperature=0.2, num_sequences=40, sequence_length=64),
    gpt=GPTConfig(n_layer=1, n_embd=16, attn_dropout=0.1, resid_dropout=0.1, embd_dropout=0.0),
    n_positions=32,
    block_length=16,
    batch_tokens=128,
    micro_batch_tokens=64,
    num_steps=8,
    warmup_steps=2,
    learning_rate=1e-2,
    evaluate_every=4,
    validation_tokens=100,
    sample_tokens=5,
    log_every=3,
    device="cpu",
)


def run(config: PretrainConfig, path: Path, **options: bool) -> dict:
    return pretrain(config, path, progress=False, **options)


def final_tensors(path: Path) -> dict[str, torch.Tensor]:
    checkpoint = load_checkpoint(path / "checkpoints")
    assert checkpoint is not None
    return checkpoint.tensors


def records(path: Path) -> list[dict]:
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def test_defaults_are_the_papers() -> None:
    config = PretrainConfig()
    assert (config.batch_tokens, config.learning_rate) == (65_536, 3e-4)
    assert (config.num_steps, config.warmup_steps) == (80_000, 10_000)
    assert config.gpt == GPTConfig(n_layer=3, n_head=1, n_embd=128, activation="relu")
    assert config.learning_rate_at(0) == pytest.approx(3e-8)
    assert config.learning_rate_at(9_999) == pytest.approx(3e-4)
    assert config.learning_rate_at(45_000) == pytest.approx(1.5e-4)
    assert config.learning_rate_at(80_000) == 0.0


def test_sizes_are_those_of_table_9() -> None:
    shapes = {name: (c.n_embd, c.n_head, c.n_layer) for name, c in SIZES.items()}
    assert shapes == {
        "chibit": (128, 1, 3),
        "3M": (256, 4, 4),
        "18M": (512, 8, 6),
        "84M": (768, 12, 12),
    }
    for name, millions in (("3M", 3.2), ("18M", 18.9), ("84M", 85.1)):
        config = SIZES[name]
        blocks = config.n_layer * (12 * config.n_embd**2 + 13 * config.n_embd)
        assert blocks / 1e6 == pytest.approx(millions, abs=0.1)


@pytest.mark.parametrize(
    ("decay", "quarter", "middle", "end"),
    [("linear", 0.8, 0.6, 0.2), ("cosine", 0.8828, 0.6, 0.2), ("constant", 1.0, 1.0, 1.0)],
)
def test_decay_ends_at_the_final_fraction(decay: str, quarter: float, middle: float, end: float) -> None:
    config = PretrainConfig(
        learning_rate=1.0, num_steps=200, warmup_steps=100, decay=decay, final_fraction=0.2
    )  # type: ignore[arg-type]
    assert config.learning_rate_at(49) == pytest.approx(0.5)
    assert config.learning_rate_at(125) == pytest.approx(quarter, abs=1e-4)  # half way all curves meet
    assert config.learning_rate_at(150) == pytest.approx(middle)
    assert config.learning_rate_at(200) == pytest.approx(end)


def test_config_survives_json() -> None:
    config = replace(TINY, corpus="x", initializer="y")
    assert from_json(PretrainConfig, json.loads(json.dumps(to_json(config)))) == config


@pytest.mark.parametrize(
    "changes",
    [
        {"batch_tokens": 100},
        {"micro_batch_tokens": 100},
        {"block_length": 33},
        {"num_steps": 0},
        {"num_candidates": 1},
        {"learning_rate": 0.0},
        {"final_fraction": 1.5},
        {"log_every": 0},
    ],
)
def test_impossible_configs_are_refused(changes: dict) -> None:
    with pytest.raises(InputError, match=next(iter(changes))):
        replace(TINY, **changes)


def test_run_directory(tmp_path: Path) -> None:
    path = tmp_path / "run"
    result = run(TINY, path)
    assert sorted(p.name for p in path.iterdir() if not p.name.startswith(".")) == [
        "checkpoints",
        "config.json",
        "language_model",
        "metrics.jsonl",
        "provenance.json",
        "result.json",
        "train.log",
    ]
    lines = records(path)
    assert [r["step"] for r in lines if "held_out/loss" in r] == [0, 4, 8]
    trained = [r for r in lines if "train/loss" in r]
    assert [(r["step"], r["train/tokens"]) for r in trained] == [(3, 384), (6, 768), (8, 1024)]
    assert result["tokens_seen"] == 1024
    assert result["held_out_name"] == "the last 51 tokens of markov"
    assert result["parameters"]["blocks"] == 12 * 16**2 + 13 * 16
    assert json.loads((path / "result.json").read_text()) == result
    model = load_language_model(path / "language_model")
    for name, tensor in final_tensors(path).items():
        assert torch.equal(model.state_dict()[name], tensor)
    before = (path / "metrics.jsonl").read_bytes()
    assert run(TINY, path) == result  # finished: nothing is done again
    assert (path / "metrics.jsonl").read_bytes() == before


def test_a_markov_chain_is_learned(tmp_path: Path) -> None:
    config = replace(
        TINY, num_steps=120, batch_tokens=512, micro_batch_tokens=512, evaluate_every=0, sample_tokens=0
    )
    config = replace(config, synthetic=replace(TINY.synthetic, num_sequences=200))
    result = run(config, tmp_path / "run")
    assert result["untrained_perplexity"] == pytest.approx(6.0, abs=0.3)
    # The chain's own perplexity at this temperature is the floor; a unigram model stays far above it.
    assert result["held_out_perplexity"] < 0.75 * result["unigram_perplexity"]


@pytest.mark.parametrize("num_candidates", [0, 4])
def test_resumed_run_equals_the_uninterrupted_one(tmp_path: Path, num_candidates: int) -> None:
    config = replace(TINY, num_candidates=num_candidates, checkpoint_every=5)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    result = run(config, whole)
    assert interrupted(config, broken, at=5)
    assert run(config, broken)["held_out_loss"] == result["held_out_loss"]
    expected = final_tensors(whole)
    for name, tensor in final_tensors(broken).items():
        assert torch.equal(tensor, expected[name]), name
    kept = [{k: v for k, v in r.items() if k != "seconds"} for r in records(whole)]
    assert [{k: v for k, v in r.items() if k != "seconds"} for r in records(broken)] == kept


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_its_log_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """Ends a run at once, as SIGKILL does."""

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(pretrain_loop._PretrainRun, "update", die)
        with pytest.raises(Killed):
            run(TINY, tmp_path / "run")
    assert [record["step"] for record in records(tmp_path / "run")] == [0]
    run(TINY, tmp_path / "run")
    run(TINY, tmp_path / "whole")
    steps = [[record["step"] for record in records(tmp_path / name)] for name in ("run", "whole")]
    assert steps[0] == steps[1]


def test_a_checkpoint_of_an_earlier_version_goes_on_exactly(tmp_path: Path) -> None:
    """It has one count for all sums, and no times or scores of evaluations."""
    config = replace(TINY, checkpoint_every=5)
    run(config, tmp_path / "whole")
    assert interrupted(config, tmp_path / "old", at=5)
    saved = load_checkpoint(tmp_path / "old" / "checkpoints")
    assert saved is not None
    loop = {key: saved.state["loop"][key] for key in ("step", "train_seconds", "sums")}
    assert loop["sums"], "a mean is under way"
    loop["count"] = max(saved.state["loop"]["counts"].values())
    save_checkpoint(tmp_path / "old" / "checkpoints", 5, saved.tensors, {**saved.state, "loop": loop})
    run(config, tmp_path / "old")
    expected = final_tensors(tmp_path / "whole")
    for name, tensor in final_tensors(tmp_path / "old").items():
        assert torch.equal(tensor, expected[name]), name
    logs = [
        [{k: v for k, v in r.items() if k != "seconds"} for r in records(tmp_path / name)]
        for name in ("whole", "old")
    ]
    assert logs[0] == logs[1]


def test_a_signal_that_all_processes_receive_gives_its_own_exit_code(tmp_path: Path, monkeypatch) -> None:
    """What processes add up of it says that it came, not which it was."""
    monkeypatch.setattr(Workers, "add_up", lambda self, tensors: [tensor.mul_(2) for tensor in tensors])
    assert interrupted(TINY, tmp_path / "run", at=3)


def interrupted(config: PretrainConfig, path: Path, *, at: int) -> bool:
    """Send this process SIGTERM in the middle of a step; True if the run stopped with 143."""
    import chibit.training.pretrain.loop as module

    original = module._PretrainRun._micro_step
    sent = []

    def micro_step(self, *args, **kwargs):
        if self.state.step == at - 1 and not sent:
            sent.append(True)
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, *args, **kwargs)

    module._PretrainRun._micro_step = micro_step
    try:
        run(config, path)
    except Stopped as stopped:
        return stopped.exit_code == 143
    finally:
        module._PretrainRun._micro_step = original
    return False


def test_the_learning_rate_moves_the_weights_by_its_schedule(tmp_path: Path) -> None:
    """AdamW's first step moves each weight by the rate, whatever its gradient, unless that is about 0."""
    torch.manual_seed(0)
    model = LanguageModel(LanguageModelConfig(gpt=TINY.gpt, vocab_size=6, n_positions=32))
    start = save_language_model(model, tmp_path / "start")
    for warmup_steps, factor in ((1, 1.0), (10, 0.1)):
        config = replace(
            TINY,
            initializer=str(start),
            num_steps=1,
            warmup_steps=warmup_steps,
            learning_rate=1e-4,
            weight_decay=0.0,
        )
        run(config, tmp_path / str(warmup_steps))
        moved = final_tensors(tmp_path / str(warmup_steps))
        before = dict(model.named_parameters())
        largest = max((moved[name] - before[name].detach()).abs().max().item() for name in before)
        assert largest == pytest.approx(1e-4 * factor, rel=1e-2)


def test_a_micro_batch_is_as_large_as_memory_allows() -> None:
    config = PretrainConfig(corpus="x")
    assert [config.micro_batch(room) for room in (0, 2 * config.num_bytes(65_536))] == [8_192, 65_536]
    assert config.micro_batch(2 * config.num_bytes(32_768) + 1) == 32_768
    assert replace(config, micro_batch_tokens=1_024).micro_batch(10**15) == 1_024
    odd = PretrainConfig(corpus="x", block_length=1_000, batch_tokens=24_000)
    assert [odd.micro_batch(room) for room in (0, 10**15)] == [8_000, 16_000]
    assert PretrainConfig(corpus="x", block_length=64, batch_tokens=128).micro_batch() == 128


def test_the_size_of_a_micro_batch_is_no_part_of_what_a_run_is(tmp_path: Path) -> None:
    paths = {pretrain_path(replace(TINY, micro_batch_tokens=n), tmp_path, "s") for n in (None, 32, 64)}
    assert len(paths) == 1
    run(TINY, tmp_path / "run")
    assert run(replace(TINY, micro_batch_tokens=None), tmp_path / "run")["status"] == "finished"


def test_accumulation_changes_nothing(tmp_path: Path) -> None:
    quiet = replace(TINY, gpt=replace(TINY.gpt, attn_dropout=0.0, resid_dropout=0.0))
    run(quiet, tmp_path / "two")
    run(replace(quiet, micro_batch_tokens=128), tmp_path / "one")
    for ours, theirs in zip(records(tmp_path / "one"), records(tmp_path / "two"), strict=True):
        for key in ("train/loss", "held_out/loss"):
            if key in ours:
                assert ours[key] == pytest.approx(theirs[key], rel=1e-5)


def test_going_on_from_a_model(tmp_path: Path) -> None:
    run(TINY, tmp_path / "first")
    config = replace(TINY, initializer=str(tmp_path / "first"), seed=3)
    result = run(config, tmp_path / "second")
    first = json.loads((tmp_path / "first" / "result.json").read_text())
    start = next(r for r in records(tmp_path / "second") if r["step"] == 0)
    on_the_way = [r for r in records(tmp_path / "first") if r["step"] == 8 and "held_out/loss" in r][0]
    assert start["held_out/loss"] == pytest.approx(on_the_way["held_out/loss"], rel=1e-5)
    assert result["held_out_perplexity"] < first["untrained_perplexity"]
    with pytest.raises(InputError, match="initializer: .* has backbone"):
        run(replace(config, gpt=replace(TINY.gpt, n_layer=2)), tmp_path / "third")


def test_all_positions_are_trained(tmp_path: Path) -> None:
    vocab = LanguageModelConfig(gpt=TINY.gpt, vocab_size=6, n_positions=32)
    source = save_language_model(LanguageModel(vocab), tmp_path / "start")
    config = replace(TINY, initializer=str(source), num_steps=30, evaluate_every=0, weight_decay=0.0)
    run(config, tmp_path / "run")
    start, end = (load_language_model(path) for path in (source, tmp_path / "run" / "language_model"))
    moved = (end.positions.weight - start.positions.weight).abs().amax(-1)
    assert bool((moved > 0).all())


def test_held_out_loss_by_hand() -> None:
    torch.manual_seed(0)
    vocab = LanguageModelConfig(gpt=TINY.gpt, vocab_size=6, n_positions=32)
    model = LanguageModel(vocab)
    tokens = np.random.default_rng(0).integers(0, 6, 50)
    for rows in (1, 2, 5):
        loss = held_out_loss(model, tokens, Runtime(), block_length=16, micro_batch_tokens=16 * rows)
        model.eval()
        total = 0.0
        for start, end in ((0, 16), (16, 32), (32, 48), (48, 49)):
            logits = model.logits(torch.tensor(tokens[None, start:end]))[0].log_softmax(-1)
            total -= logits[torch.arange(end - start), tokens[start + 1 : end + 1]].sum().item()
        model.train()
        assert loss == pytest.approx(total / 49, rel=1e-5)
    assert model.training


def test_unigram_loss_by_hand() -> None:
    counts = np.array([2, 0, 1])  # one more each: 3, 1, 2 of 6
    expected = -(math.log(3 / 6) + math.log(1 / 6)) / 2
    assert unigram_loss(counts, np.array([2, 0, 1])) == pytest.approx(expected)


def test_validation_text_and_its_refusals(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("The train text. " * 60)
    (tmp_path / "valid.txt").write_text("Another text, held out. " * 9)
    config = replace(TINY, corpus=str(tmp_path / "train.txt"), validation=str(tmp_path / "valid.txt"))
    data = load_pretrain_data(config, progress=False)
    assert len(data.train) == 60 * 4 + 2  # "The train text.", then a space before the end of text
    assert data.held_out_name == config.validation
    with pytest.raises(InputError, match="one vocabulary"):
        load_pretrain_data(replace(config, corpus="markov"), progress=False)
    with pytest.raises(InputError, match="a vocabulary of its own"):
        load_pretrain_data(replace(config, tokenizer="bpe:300"), progress=False)
    (tmp_path / "short.txt").write_text("Two words")
    with pytest.raises(InputError, match="holds 3 tokens, expected more than two blocks of 16"):
        load_pretrain_data(
            replace(config, corpus=str(tmp_path / "short.txt"), validation=None), progress=False
        )
    with pytest.raises(InputError, match="holds 3 tokens, expected more than 16"):
        run(replace(config, corpus=str(tmp_path / "short.txt")), tmp_path / "run")


def test_wikitexts_own_validation_set_is_taken_where_the_vocabulary_is_its_own_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "train.txt").write_text("The train text. " * 60)

    def load(name: str, config: PretrainConfig, progress: bool) -> TokenDataset:
        return load_corpus(str(tmp_path / "train.txt"), tokenizer=config.tokenizer, progress=progress)

    monkeypatch.setattr(pretrain_data, "_load", load)  # WikiText-103 is on the Hub alone
    wikitext = replace(TINY, corpus="wikitext-103")
    assert load_pretrain_data(wikitext, progress=False).held_out_name == "wikitext-103-validation"
    own = load_pretrain_data(replace(wikitext, tokenizer="bpe:280"), progress=False)
    assert own.held_out_name.endswith("tokens of wikitext-103") and len(own.held_out) > 16


def test_text_samples_are_text(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("one two three four five " * 200)
    config = replace(
        TINY,
        corpus=str(tmp_path / "train.txt"),
        tokenizer="bpe:280",
        num_steps=60,
        evaluate_every=30,
        sample_tokens=20,
    )
    run(config, tmp_path / "run")
    lines = (tmp_path / "run" / "train.log").read_text().splitlines()
    samples = [line.partition("perplexity ")[2].partition("; ")[2] for line in lines if "perplexity " in line]
    assert {"one", "two", "three", "four", "five"} & set(samples[-1].split())


def test_too_many_candidates_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="num_candidates: got 7, expected at most the vocabulary, 6"):
        run(replace(TINY, num_candidates=7), tmp_path / "run")


def test_divergence_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(DivergenceError, match="lower the learning rate"):
        run(replace(TINY, learning_rate=1e30, warmup_steps=0, num_steps=30), tmp_path / "run")
    assert not (tmp_path / "run" / "result.json").exists()
    record = json.loads((tmp_path / "run" / "divergence.json").read_text())
    assert len(record["rows"]) == TINY.batch_size
    assert f"at step {record['step']}" in record["message"]


def test_a_finished_run_is_not_returned_once_its_text_has_changed(tmp_path: Path) -> None:
    text = tmp_path / "a.txt"
    text.write_text("The train text. " * 60)
    config = replace(TINY, corpus=str(text), num_steps=2)
    result = run(config, tmp_path / "run")
    assert run(config, tmp_path / "run") == result
    with pytest.raises(InputError, match="holds a finished run; use --resume or another --out"):
        run(config, tmp_path / "run", resume=False)
    text.write_text("The other text. " * 60)
    with pytest.raises(DamagedFileError, match=r"a\.txt has changed since this run was finished"):
        run(config, tmp_path / "run")
    text.unlink()
    assert run(config, tmp_path / "run") == result


def test_changed_corpus_and_unwanted_resume_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("The train text. " * 60)
    config = replace(TINY, corpus=str(tmp_path / "a.txt"), checkpoint_every=5)
    interrupted(config, tmp_path / "run", at=5)
    with pytest.raises(InputError, match="holds a run at step 5"):
        run(config, tmp_path / "run", resume=False)
    (tmp_path / "a.txt").write_text("Another text now. " * 60)
    with pytest.raises(DamagedFileError, match="has changed since the checkpoint"):
        run(config, tmp_path / "run")


def test_a_run_is_bound_to_its_held_out_text(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text(f"The text {name} of it. " * 60)
    held_out = tmp_path / "b.txt"
    config = replace(TINY, corpus=str(tmp_path / "a.txt"), validation=str(held_out))
    interrupted(config, tmp_path / "run", at=5)
    whole = run(config, tmp_path / "whole")
    kept = held_out.read_text()
    held_out.write_text("Something else now. " * 60)
    with pytest.raises(DamagedFileError, match=r"held-out text .*b\.txt has changed since the checkpoint"):
        run(config, tmp_path / "run")
    with pytest.raises(DamagedFileError, match=r"b\.txt has changed since this run was finished"):
        run(config, tmp_path / "whole")
    held_out.unlink()
    assert run(config, tmp_path / "whole") == whole
    held_out.write_text(kept)
    assert run(config, tmp_path / "run")["held_out_loss"] == whole["held_out_loss"]


def test_run_path_names_corpus_and_seed(tmp_path: Path) -> None:
    path = pretrain_path(replace(TINY, corpus="/data/My Text.txt", seed=4), tmp_path, "study")
    assert path.parent == tmp_path / "study"
    assert path.name.startswith("My-Text.txt-s4-")
    with pytest.raises(InputError, match="study"):
        pretrain_path(TINY, tmp_path, "../up")


def test_two_processes_have_the_losses_of_one(tmp_path: Path) -> None:
    gpt = replace(TINY.gpt, attn_dropout=0.0, resid_dropout=0.0)
    config = replace(TINY, gpt=gpt, num_candidates=4, micro_batch_tokens=32)
    run(config, tmp_path / "one")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}  # as torchrun sets them
    for process in [
        Forked(
            lambda: run(config, tmp_path / "two") and None,
            tmp_path / "said",
            environment={**address, "RANK": rank, "LOCAL_RANK": rank},
        )
        for rank in "01"
    ]:
        code, _, messages = process.wait()
        assert code == 0, messages
    for ours, theirs in zip(records(tmp_path / "two"), records(tmp_path / "one"), strict=True):
        assert ours["step"] == theirs["step"]
        for key in ("train/loss", "train/grad_norm", "held_out/loss"):
            if key in ours:
                assert ours[key] == pytest.approx(theirs[key], rel=1e-5)
    # Each process drops out on its own, so a run goes on with as many as it began with.
    (tmp_path / "two" / "result.json").unlink()
    with pytest.raises(InputError, match="was started by 2 processes, not 1"):
        run(config, tmp_path / "two")


def test_blocks_that_processes_cannot_share_are_refused() -> None:
    from chibit.training.pretrain.model import check_sizes

    with pytest.raises(InputError, match="8 blocks cannot be shared by 3 processes"):
        check_sizes(TINY, 6, Workers(size=3))


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from chibit.commands.pretrain import pretrain as pretrain_command

    with pytest.raises(InputError, match="--size: unknown '4M'; did you mean .*known: chibit, 3M, 18M, 84M"):
        pretrain_command(["--size", "4M"], "chibit pretrain")
    flags = {
        "size": "3M",
        "n-layer": 1,
        "n-embd": 8,
        "n-head": 2,
        "corpus": "iid",
        "num-states": 5,
        "num-sequences": 4,
        "sequence-length": 50,
        "n-positions": 16,
        "block-length": 8,
        "batch-tokens": 16,
        "micro-batch-tokens": 16,
        "num-steps": 2,
        "warmup-steps": 1,
        "device": "cpu",
        "out": tmp_path / "run",
    }
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    pretrain_command([*words, "--quiet"], "chibit pretrain")
    shown = " ".join(capsys.readouterr().out.split())
    assert "held-out perplexity" in shown
    assert "after 32 tokens" in shown
    model = load_language_model(tmp_path / "run" / "language_model")
    assert (model.config.gpt.n_layer, model.config.gpt.n_embd, model.config.gpt.n_head) == (1, 8, 2)
    assert model.config.gpt.activation == "relu"


def test_a_generator_that_cannot_go_on_begins_anew_only_where_that_is_allowed(tmp_path: Path) -> None:
    path = tmp_path / "run"
    run(replace(TINY, num_steps=4), path)
    saved = load_checkpoint(path / "checkpoints")
    assert saved is not None
    state = {**saved.state, "rng": saved.state["rng"] * 2, "draws": {}}
    shutil.rmtree(path / "checkpoints")
    save_checkpoint(path / "checkpoints", 3, saved.tensors, {**state, "loop": {**state["loop"], "step": 3}})
    (path / "result.json").unlink()
    with pytest.raises(InputError, match="allow-inexact-resume"):
        run(replace(TINY, num_steps=4), path)
    result = run(replace(TINY, num_steps=4), path, allow_inexact_resume=True)
    assert result["steps"] == 4
    assert "begin anew" in (path / "train.log").read_text()


def test_the_command_writes_into_the_study_that_it_is_given(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    flags = "--corpus iid --num-states 4 --num-sequences 9 --sequence-length 16 --n-embd 8 --n-layer 1"
    flags += " --n-positions 8 --block-length 8 --batch-tokens 16 --micro-batch-tokens 16"
    flags += " --num-steps 1 --validation-tokens 9"
    assert main(["pretrain", *flags.split(), "--study", "mine", "--quiet"]) == 0
    assert main(["pretrain", *flags.split(), "--quiet"]) == 0
    made = sorted(path.parents[1].name for path in tmp_path.glob("runs/*/*/language_model"))
    assert made == ["mine", "pretrain"]


def test_a_compiler_that_does_not_work_is_said_at_the_start(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CHIBIT_HOME", str(tmp_path / "home"))

    def compile_nothing(*_: object, **__: object) -> None:
        raise RuntimeError("InvalidCxxCompiler: no working C++ compiler found\nand much more")

    monkeypatch.setattr(torch, "compile", compile_nothing)
    sizes = (
        "--num-states 5 --num-sequences 20 --sequence-length 16 --n-embd 8 --n-positions 8 --block-length 8"
    )
    tokens = "--batch-tokens 16 --micro-batch-tokens 16 --validation-tokens 16 --num-steps 1 --warmup-steps 0"
    line = (
        f"pretrain --corpus markov --compile --quiet --device cpu {sizes} {tokens} --out {tmp_path / 'run'}"
    )
    assert main(line.split()) == 4
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert "no working C++ compiler found); leave --compile out" in said[0]
    assert "much more" not in said[0]


def test_configurations_of_version_0_1_are_read_and_keep_their_hash():
    first = {"init": "y", "beta2": 0.95, "max_gradient_norm": 0.5}
    config = from_json(PretrainConfig, first)
    assert (config.initializer, config.adam_betas, config.grad_clip) == ("y", (0.9, 0.95), 0.5)
    assert first.items() <= to_json(config).items()
    assert from_json(PretrainConfig, to_json(config)) == config

"""Language-model pre-training: text in, a folder that `--initializer` takes out.

One process, or several under torchrun that share each batch.
"""

from __future__ import annotations

import contextlib
import math
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from chibit.agents.guard import StepGuard
from chibit.core.checkpoint import Checkpoint
from chibit.core.config import Checked, find_idle, to_json
from chibit.core.errors import DamagedFileError, DivergenceError, InputError, ResourceError, first_line
from chibit.core.files import user_path
from chibit.core.memory import check_fits
from chibit.core.optimizers import restore_optimizer
from chibit.core.run_dir import RunDir
from chibit.core.runtime import (
    Runtime,
    capture_rng,
    free_memory,
    resolve_runtime,
    restore_rng,
    seed_torch,
    send,
)
from chibit.data.text.tokens import TokenSampler
from chibit.models.counting import count_parameters
from chibit.models.language_model import save_language_model
from chibit.models.vocabulary_loss import CHUNK_TOKENS, Candidates, CandidateSampler
from chibit.training.loop import Loop, RunProgress
from chibit.training.pretrain.config import PretrainConfig
from chibit.training.pretrain.data import (
    PretrainData,
    held_out_loss,
    is_gone,
    load_pretrain_data,
    unigram_loss,
)
from chibit.training.pretrain.model import check_sizes, make_language_model, make_optimizer, sample_text
from chibit.training.provenance import circumstances
from chibit.training.workers import Workers

LANGUAGE_MODEL = "language_model"
"""Folder in the run directory that `--initializer` takes."""
_CUDA_CHUNK = 4096
_LARGEST_LOSS = 88.0
"""Beyond it a perplexity does not fit into single precision."""


@dataclass(frozen=True, kw_only=True)
class PretrainProvenance(Checked):
    """What is read again of provenance.json."""

    corpus: dict[str, Any]
    unigram_loss: float
    parameters: dict[str, int]
    held_out: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class PretrainResult(Checked):
    """What is read again of result.json."""

    held_out_name: str
    held_out_perplexity: float
    untrained_perplexity: float
    unigram_perplexity: float
    tokens_seen: int


def pretrain(
    config: PretrainConfig,
    path: Path,
    *,
    study: str = "pretrain",
    resume: bool = True,
    allow_inexact_resume: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Pre-train a language model and write the run directory.

    Args:
        config: the run.
        path: its directory. A finished run is not run again; its result is returned, unless its text has
            changed since. The model is in its folder `language_model`.
        study: name of the group of runs it belongs to.
        resume: continue from the newest whole checkpoint; False refuses when there is one.
        allow_inexact_resume: go on with new random numbers where the checkpoint's cannot be restored, or
            where another number of processes goes on.
        progress: show a progress bar.

    Returns:
        The content of result.json.

    Raises:
        Stopped: after SIGINT or SIGTERM, with a checkpoint saved.
    """
    workers = Workers.of_torchrun()
    runtime = resolve_runtime(workers.device(config.device), config.precision, config.num_threads)
    with workers.joined(runtime.torch_device), contextlib.ExitStack() as held:
        remedy = "lower micro_batch_tokens, block_length or the model's size"
        check_fits(config.num_bytes(), "this model with a batch", remedy, runtime.memory)
        with workers.first_alone():
            run = RunDir(path)
            if workers.is_first:
                made = RunDir.held(path, arm="pretrain", study=study, config=to_json(config))
                run = held.enter_context(made)
        if all(workers.gather(run.is_finished)):
            if not resume:
                run.refuse_anew("a finished run")
            if workers.is_first:
                refuse_changed_text(run, config)
            return run.result(PretrainResult)
        pretraining = _PretrainRun(config, runtime, workers, run, progress)
        pretraining.resume(resume, allow_inexact=allow_inexact_resume)
        if config.compile:
            _try_compiler(runtime)
            pretraining.model.gpt.compile()
        pretraining.run_to_end()
        return run.result(PretrainResult)


def refuse_changed_text(run: RunDir, config: PretrainConfig) -> None:
    """Stop where a finished run's own texts, if they are still there, are not those that it read."""
    text = (config.text or "") if config.corpus == "shuffled_text" else config.corpus
    if not text or not user_path(text).exists() or is_gone(config.validation or text):
        return
    data, record = load_pretrain_data(config, progress=False), run.provenance(PretrainProvenance)
    then = str(record["corpus"].get("sha256"))
    held_out_then = record.get("held_out", {}).get("sha256", data.held_out_hash)  # of an earlier version
    for name, old, now in (
        (text, then, data.train.content_hash),
        (data.held_out_name, str(held_out_then), data.held_out_hash),
    ):
        if old != now:
            raise DamagedFileError(
                f"{run.path}: the text {name} has changed since this run was finished (content {old[:12]}, "
                f"now {now[:12]}); bring the old one back, choose another --out, or remove that folder"
            )


def _try_compiler(runtime: Runtime) -> None:
    """Refuse at the start where PyTorch's compiler does not work, for example without a C++ compiler.

    It compiles in this process: its pool of workers would outlive one that is stopped.
    """
    from torch._inductor import config as compiler

    compiler.compile_threads = 1
    try:
        torch.compile(lambda x: x.relu() + 1)(torch.ones(2, device=runtime.torch_device))
    except (RuntimeError, OSError) as error:
        raise ResourceError(
            f"compile: PyTorch's compiler does not work here ({first_line(error)}); leave --compile out"
        ) from error


class _PretrainRun(Loop[PretrainConfig]):
    """A language model that reads text; each of several processes has a part of every batch."""

    def __init__(
        self, config: PretrainConfig, runtime: Runtime, workers: Workers, run: RunDir, progress: bool
    ) -> None:
        shown = RunProgress(
            config.num_steps,
            run.name,
            enabled=progress and workers.is_first,
            unit="tokens",
            units_a_step=config.batch_tokens,
        )
        super().__init__(config, run, shown, workers)
        self.runtime = runtime
        with workers.first_alone():
            self.data: PretrainData = load_pretrain_data(config, progress=progress and workers.is_first)
        train = self.data.train
        check_sizes(config, train.vocab_size, workers)
        seed_torch(config.seed)
        self.model = make_language_model(config, train.vocab_size).to(runtime.torch_device)
        self.optimizer = make_optimizer(self.model, config)
        device = runtime.torch_device
        self.micro_batch = config.micro_batch(free_memory(device) if device.type == "cuda" else 0)
        self.guard = StepGuard(runtime.torch_device, [self.optimizer])
        self.sampler = TokenSampler(
            train,
            block_length=config.block_length,
            batch_size=config.batch_size,
            generator=np.random.default_rng([config.seed, 1]),
        )
        self.draws = np.random.default_rng([config.seed, 2])  # of positions and candidates
        self.candidates = (
            CandidateSampler(train.counts(), config.num_candidates) if config.num_candidates else None
        )
        self.signal_number = 0
        seed_torch(config.seed + (workers.rank << 32))  # dropout differs between processes

    def before_first_step(self) -> None:
        self.evaluate()

    def asked_to_stop(self) -> int:
        """Number of a signal that some process has received by the last step."""
        return self.signal_number

    def update(self) -> Mapping[str, float | Tensor]:
        config, workers, step = self.config, self.workers, self.state.step
        device = self.runtime.torch_device
        batch = self.sampler.sample()
        spare = config.n_positions - config.block_length
        offsets = torch.from_numpy(self.draws.integers(0, spare + 1, config.batch_size))
        drawn = torch.cat([batch.tokens, offsets[:, None]], dim=1)[workers.rank :: workers.size]
        drawn = send(drawn.contiguous(), device)  # in one piece
        tokens, offsets = drawn[:, :-1], drawn[:, -1]
        candidates = None if self.candidates is None else self.candidates.draw(self.draws)
        rows = max(1, self.micro_batch // config.block_length)
        loss = torch.zeros((), dtype=self.runtime.sum_dtype, device=device)
        for block, offset in zip(torch.split(tokens, rows), torch.split(offsets, rows), strict=True):
            loss += self._micro_step(block, offset, candidates)
        parameters = list(self.model.parameters())
        workers.add_up([loss, *(parameter.grad for parameter in parameters if parameter.grad is not None)])
        norm = torch.nn.utils.clip_grad_norm_(parameters, config.grad_clip)
        with self._written_down():
            self.guard.admit(step, torch.from_numpy(batch.starts), loss=loss, gradient_norm=norm)
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate_at(step)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if workers.any(self.stop.signal_number is not None):
            self.signal_number = self.stop.signal_number or signal.SIGTERM
        return {"train/loss": loss, "train/grad_norm": norm}

    def check(self) -> None:
        with self._written_down():
            self.guard.check()

    @contextlib.contextmanager
    def _written_down(self) -> Iterator[None]:
        """Have a divergence leave in the run's folder where its blocks begin in the corpus."""
        try:
            yield
        except DivergenceError as error:
            if self.workers.is_first:
                self.run.write_divergence(error.step or 0, str(error), error.rows)
            raise DivergenceError(
                f"{self.run.path}: {error}, or use --precision fp32; where its blocks begin in the corpus is "
                "in divergence.json"
            ) from error

    def _micro_step(self, tokens: Tensor, offsets: Tensor, candidates: Candidates | None) -> Tensor:
        """Add one micro-batch's share to the gradients; its share of the loss."""
        chunk = CHUNK_TOKENS if tokens.device.type == "cpu" else _CUDA_CHUNK
        with self.runtime.autocast():
            loss = self.model.loss(tokens, offsets=offsets, candidates=candidates, chunk=chunk)
            loss = loss * (len(tokens) / self.config.batch_size)
        torch.autograd.backward(loss)
        return loss.detach()

    def measure(self) -> dict[str, float]:
        step = self.state.step
        return {
            "train/learning_rate": self.config.learning_rate_at(step - 1),
            "train/tokens": step * self.config.batch_tokens,
        }

    def evaluate(self) -> bool:
        """Loss on held-out text, some text of the model's own, and the model's folder."""
        if not self.workers.is_first:
            return False
        config, step, held_out = self.config, self.state.step, self.data.held_out
        if step < config.num_steps:
            held_out = held_out[: config.validation_tokens + 1]
        loss = held_out_loss(
            self.model,
            held_out,
            self.runtime,
            block_length=config.block_length,
            micro_batch_tokens=self.micro_batch,
        )
        if not math.isfinite(loss):
            raise DivergenceError(
                f"{self.run.path}: held-out loss {loss} at step {step}; lower learning_rate"
            )
        perplexity = math.exp(min(loss, _LARGEST_LOSS))
        measured = {"loss": loss, "perplexity": perplexity, "tokens": len(held_out) - 1}
        self.write_line({f"held_out/{name}": value for name, value in measured.items()})
        sample = sample_text(self.model, self.data.train, config.sample_tokens, seed=config.seed)
        line = f"step {step}: held-out perplexity {perplexity:.2f}; {sample}"
        self.run.log(line)
        self.progress.say(f"  {' '.join(line.split())}")
        if step:
            save_language_model(self.model, self.run.own_folder(LANGUAGE_MODEL))
        return False

    def contents(self) -> tuple[Mapping[str, Tensor], dict[str, Any]]:
        return self.model.state_dict(), {
            "optimizer": self.optimizer.state_dict(),
            "sampler": self.sampler.state_dict(),
            "draws": dict(self.draws.bit_generator.state),
            "rng": self.workers.gather(capture_rng(self.runtime.torch_device)),
            "data_hash": self.data.train.content_hash,
            "held_out_hash": self.data.held_out_hash,
        }

    def refuse_changed(self, state: Mapping[str, Any], *, allow_inexact: bool) -> None:
        if state.get("data_hash") != self.data.train.content_hash:
            raise DamagedFileError(
                f"{self.run.path}: the corpus {self.config.corpus} has changed since the checkpoint; "
                "bring the old one back or choose another --out"
            )
        if state.get("held_out_hash", self.data.held_out_hash) != self.data.held_out_hash:
            raise DamagedFileError(
                f"{self.run.path}: the held-out text {self.data.held_out_name} has changed since the "
                "checkpoint; bring the old one back or choose another --out"
            )
        started_by, size = len(state.get("rng", ())), self.workers.size
        if started_by != size and not allow_inexact:
            raise InputError(
                f"{self.run.path}: was started by {started_by} processes, not {size}; use as many, or "
                "--allow-inexact-resume"
            )

    def restore(self, checkpoint: Checkpoint) -> None:
        self.model.load_state_dict(checkpoint.tensors)
        restore_optimizer(self.optimizer, checkpoint.state["optimizer"])

    def restore_draws(self, state: Mapping[str, Any]) -> None:
        self.sampler.load_state_dict(state["sampler"])
        self.draws.bit_generator.state = state["draws"]
        restore_rng(state["rng"][self.workers.rank], self.runtime.torch_device)

    def begin(self) -> None:
        train = self.data.train
        record = {
            **circumstances(self.runtime),
            "micro_batch_tokens": self.micro_batch,
            "corpus": {
                "tokens": len(train),
                "documents": train.num_documents,
                "vocab_size": train.vocab_size,
                "sha256": train.content_hash,
                "source": dict(train.provenance),
            },
            "held_out": {
                "name": self.data.held_out_name,
                "tokens": len(self.data.held_out),
                "sha256": self.data.held_out_hash,
            },
            "unigram_loss": unigram_loss(train.counts(), self.data.held_out),
            "parameters": count_parameters(self.model),
        }
        self.run.write_provenance(record)
        for note in find_idle(self.config, data=train):
            self.run.log(f"config: {note}")
            self.progress.say(f"config: {note}")

    def result(self) -> dict[str, Any]:
        curve = [record for record in self.run.read_log("metrics.jsonl") if "held_out/loss" in record]
        provenance = self.run.provenance(PretrainProvenance)
        return {
            "status": "finished",
            "kind": "pretrain",
            "steps": self.state.step,
            "tokens_seen": self.state.step * self.config.batch_tokens,
            "train_seconds": round(self.state.train_seconds, 3),
            "held_out_name": self.data.held_out_name,
            "held_out_loss": curve[-1]["held_out/loss"],
            "held_out_perplexity": curve[-1]["held_out/perplexity"],
            "untrained_perplexity": curve[0]["held_out/perplexity"],
            "unigram_perplexity": math.exp(provenance["unigram_loss"]),
            "parameters": provenance["parameters"],
        }

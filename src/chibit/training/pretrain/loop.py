"""Language-model pre-training: text in, a folder that `--init` takes out.

One process, or several under torchrun that share each batch. A resumed run equals the uninterrupted one
to the bit on the CPU: a checkpoint holds the weights, AdamW, every generator, the place in the corpus and
the sums of the metrics that are not yet written.
"""

from __future__ import annotations

import contextlib
import datetime
import math
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from chibit.core.checkpoint import CheckpointSaver, load_checkpoint, sweep
from chibit.core.config import Checked, to_json
from chibit.core.errors import (
    DamagedFileError,
    DivergenceError,
    InputError,
    ResourceError,
    UserError,
    first_line,
)
from chibit.core.memory import check_fits
from chibit.core.run_dir import RunDir
from chibit.core.runtime import Runtime, capture_rng, resolve_runtime, restore_rng, seed_torch
from chibit.data.text.tokens import TokenSampler
from chibit.models.counting import count_parameters
from chibit.models.language_model import save_language_model
from chibit.models.vocabulary_loss import CHUNK_TOKENS, Candidates, CandidateSampler
from chibit.training.pretrain.config import PretrainConfig
from chibit.training.pretrain.data import PretrainData, held_out_loss, load_pretrain_data, unigram_loss
from chibit.training.pretrain.model import check_sizes, make_language_model, make_optimizer, sample_text
from chibit.training.pretrain.progress import PretrainProgress
from chibit.training.provenance import commit, versions
from chibit.training.stopping import Stopped, StopRequests
from chibit.training.workers import Workers, join_workers

LANGUAGE_MODEL = "language_model"
"""Folder in the run directory that `--init` takes."""
_CUDA_CHUNK = 4096
_LARGEST_LOSS = 88.0
"""Beyond it a perplexity does not fit into single precision."""


@dataclass(frozen=True, kw_only=True)
class PretrainProvenance(Checked):
    """What is read again of provenance.json."""

    corpus: dict[str, Any]
    unigram_loss: float
    parameters: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class PretrainResult(Checked):
    """What is read again of result.json."""

    held_out_name: str
    held_out_perplexity: float
    untrained_perplexity: float
    unigram_perplexity: float
    tokens_seen: int


@dataclass
class LoopState:
    """Where the loop stands; part of a checkpoint."""

    step: int = 0
    """Gradient steps done."""
    train_seconds: float = 0.0
    """Wall seconds of training, without evaluation."""
    sums: dict[str, float] = field(default_factory=dict)
    """Sums of the metrics since the last line of the log."""
    count: int = 0
    """Steps in those sums."""


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
            changed since. The model is in its
            folder `language_model`.
        study: name of the group of runs it belongs to.
        resume: continue from the newest whole checkpoint; False refuses when there is one.
        allow_inexact_resume: go on with new random numbers where the checkpoint's cannot be restored, or
            where another number of processes goes on.
        progress: show a progress bar.

    Returns:
        The content of result.json.

    Raises:
        UserError: bad data or configuration, damaged files, no resources, divergence.
        Stopped: after SIGINT or SIGTERM, with a checkpoint saved.
    """
    with join_workers(config.device) as workers:
        device = config.device
        if workers.size > 1 and device == "cuda":
            device = f"cuda:{workers.local_rank}"
        runtime = resolve_runtime(device, config.precision, config.num_threads)
        remedy = "lower micro_batch_tokens, block_length or the model's size"
        check_fits(config.num_bytes(), "this model with a batch", remedy, runtime.memory)
        with workers.first_alone():
            run = RunDir(path)
            if workers.is_first:
                run = RunDir.create(path, arm="pretrain", study=study, config=to_json(config))
        with run.lock() if workers.is_first else contextlib.nullcontext():
            if all(workers.gather(run.is_finished)):
                if workers.is_first:
                    refuse_changed_text(run, config)
                return run.result(PretrainResult)
            pretraining = _PretrainRun(config, runtime, workers, run, progress)
            pretraining.resume(resume, allow_inexact=allow_inexact_resume)
            return pretraining.run_to_end()


def refuse_changed_text(run: RunDir, config: PretrainConfig) -> None:
    """Stop where a finished run's own text, if it is still there, is not what it learned from.

    Raises:
        DamagedFileError: naming the text.
    """
    text = (config.text or "") if config.corpus == "shuffled_text" else config.corpus
    if not text or not Path(text).expanduser().exists():
        return
    now = load_pretrain_data(config, progress=False).train.content_hash
    then = str(run.provenance(PretrainProvenance)["corpus"].get("sha256"))
    if now != then:
        raise DamagedFileError(
            f"{run.path}: the text {text} has changed since this run was finished (content {then[:12]}, "
            f"now {now[:12]}); bring the old one back, choose another --out, or remove that folder"
        )


def _try_compiler(runtime: Runtime) -> None:
    """Refuse at the start where PyTorch's compiler does not work, for example without a C++ compiler."""
    try:
        torch.compile(lambda x: x.relu() + 1)(torch.ones(2, device=runtime.torch_device))
    except (RuntimeError, OSError) as error:
        raise ResourceError(
            f"compile: PyTorch's compiler does not work here ({first_line(error)}); leave --compile out"
        ) from error


class _PretrainRun:
    """One run's moving parts, held while the lock is."""

    def __init__(
        self,
        config: PretrainConfig,
        runtime: Runtime,
        workers: Workers,
        run: RunDir,
        progress: bool,
    ) -> None:
        self.config, self.runtime, self.workers, self.run = config, runtime, workers, run
        with workers.first_alone():
            self.data: PretrainData = load_pretrain_data(config, progress=progress and workers.is_first)
        train = self.data.train
        check_sizes(config, train.vocab_size, workers)
        seed_torch(config.seed)
        self.model = make_language_model(config, train.vocab_size).to(runtime.torch_device)
        self.optimizer = make_optimizer(self.model, config)
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
        seed_torch(config.seed + (workers.rank << 32))  # dropout differs between processes
        self.state = LoopState()
        self.progress = PretrainProgress(
            config.num_steps, config.batch_tokens, run.path.name, enabled=progress and workers.is_first
        )
        self.saver = CheckpointSaver(run.checkpoints)

    def run_to_end(self) -> dict[str, Any]:
        """The loop: step, log, evaluate, save, until the last step."""
        config, state = self.config, self.state
        if config.compile:
            _try_compiler(self.runtime)
            self.model.gpt.compile()
        with StopRequests() as stop, self.progress, self.saver:
            self.progress.start(state.step)
            if state.step == 0:
                self._evaluate(final=False)
            while state.step < config.num_steps:
                stopping = self._step(stop)
                step, done = state.step, state.step == config.num_steps
                if step % config.log_every == 0 or done:
                    self._write_metrics()
                evaluated = done or (config.evaluate_every > 0 and step % config.evaluate_every == 0)
                if evaluated:
                    self._evaluate(final=done)
                every = config.checkpoint_every
                if done or (step % every == 0 if every else evaluated) or stopping:
                    self._save()
                if stopping and not done:
                    self.saver.wait()
                    raise Stopped(stopping, f"{self.run.path}: stopped after step {step}, checkpoint saved")
        with self.workers.first_alone():
            if self.workers.is_first:
                self.run.write_result(self._result())
        return self.run.result(PretrainResult)

    def _step(self, stop: StopRequests) -> int:
        """One gradient step; the number of a signal that some process has received, or 0."""
        started = time.perf_counter()
        config, workers = self.config, self.workers
        device = self.runtime.torch_device
        batch = self.sampler.sample()
        tokens = batch.tokens[workers.rank :: workers.size].to(device)
        spare = config.n_positions - config.block_length
        offsets = torch.from_numpy(self.draws.integers(0, spare + 1, config.batch_size))
        offsets = offsets[workers.rank :: workers.size].to(device)
        candidates = None if self.candidates is None else self.candidates.draw(self.draws)
        rows = max(1, config.micro_batch_tokens // config.block_length)
        shared = torch.zeros(2, dtype=torch.float64, device=device)  # loss, signal
        for block, offset in zip(torch.split(tokens, rows), torch.split(offsets, rows), strict=True):
            loss = self._micro_step(block, offset, candidates)
            shared[0] += loss.double()
        shared[1] = stop.signal_number or 0
        parameters = list(self.model.parameters())
        workers.add_up([shared, *(parameter.grad for parameter in parameters if parameter.grad is not None)])
        norm = torch.nn.utils.clip_grad_norm_(parameters, config.max_gradient_norm)
        loss_value, norm_value = shared[0].item(), norm.item()
        if not math.isfinite(loss_value) or not math.isfinite(norm_value):
            message = f"loss {loss_value}, gradient norm {norm_value} at step {self.state.step}"
            if workers.is_first:
                self.run.write_divergence(self.state.step, message, batch.starts)
            raise DivergenceError(
                f"{self.run.path}: {message}; lower learning_rate, or use --precision fp32; "
                "where its blocks begin in the corpus is in divergence.json"
            )
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate_at(self.state.step)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        for name, value in (("train/loss", loss_value), ("train/gradient_norm", norm_value)):
            self.state.sums[name] = self.state.sums.get(name, 0.0) + value
        self.state.count += 1
        self.state.step += 1
        self.state.train_seconds += time.perf_counter() - started
        self.progress.advance(loss_value)
        return int(shared[1].item())

    def _micro_step(self, tokens: Tensor, offsets: Tensor, candidates: Candidates | None) -> Tensor:
        """Add one micro-batch's share to the gradients; its share of the loss."""
        chunk = CHUNK_TOKENS if tokens.device.type == "cpu" else _CUDA_CHUNK
        with self.runtime.autocast():
            loss = self.model.loss(tokens, offsets=offsets, candidates=candidates, chunk=chunk)
            loss = loss * (len(tokens) / self.config.batch_size)
        torch.autograd.backward(loss)
        return loss.detach()

    def _write_metrics(self) -> None:
        state, config = self.state, self.config
        means = {name: total / state.count for name, total in state.sums.items()}
        record = {
            "step": state.step,
            "seconds": round(state.train_seconds, 3),
            **means,
            "train/learning_rate": config.learning_rate_at(state.step - 1),
            "train/tokens": state.step * config.batch_tokens,
        }
        if self.workers.is_first:
            self.run.append_metrics(record)
        state.sums, state.count = {}, 0

    def _evaluate(self, *, final: bool) -> None:
        """Loss on held-out text, some text of the model's own, and the model's folder."""
        if not self.workers.is_first:
            return
        config = self.config
        held_out = self.data.held_out if final else self.data.held_out[: config.validation_tokens + 1]
        loss = held_out_loss(
            self.model,
            held_out,
            self.runtime,
            block_length=config.block_length,
            micro_batch_tokens=config.micro_batch_tokens,
        )
        if not math.isfinite(loss):
            raise DivergenceError(
                f"{self.run.path}: held-out loss {loss} at step {self.state.step}; lower learning_rate"
            )
        perplexity = math.exp(min(loss, _LARGEST_LOSS))
        self.run.append_metrics(
            {
                "step": self.state.step,
                "seconds": round(self.state.train_seconds, 3),
                "held_out/loss": loss,
                "held_out/perplexity": perplexity,
                "held_out/tokens": len(held_out) - 1,
            }
        )
        sample = sample_text(self.model, self.data.train, config.sample_tokens, seed=config.seed)
        self.run.log(f"step {self.state.step}: held-out perplexity {perplexity:.2f}; {sample}")
        self.progress.evaluated(loss, sample)
        if self.state.step:
            save_language_model(self.model, self.run.own_folder(LANGUAGE_MODEL))

    def _save(self) -> None:
        random_states = self.workers.gather(capture_rng())
        if not self.workers.is_first:
            return
        self.run.sync()
        state = {
            "loop": {**vars(self.state), "sums": dict(self.state.sums)},
            "optimizer": self.optimizer.state_dict(),
            "sampler": self.sampler.state_dict(),
            "draws": dict(self.draws.bit_generator.state),
            "rng": random_states,
            "data_hash": self.data.train.content_hash,
        }
        self.saver.save(self.state.step, self.model.state_dict(), state, marks=("last",))

    def resume(self, wanted: bool, *, allow_inexact: bool) -> None:
        """Go on from the newest whole checkpoint, or begin; raises as `pretrain` says."""
        run, workers = self.run, self.workers
        if workers.is_first:
            sweep(run.checkpoints)
        checkpoint = load_checkpoint(run.checkpoints)
        if checkpoint is None:
            if workers.is_first:
                run.rewind(0)
                run.write_provenance(self._provenance())
            return
        if not wanted:
            raise InputError(
                f"{run.path}: holds a run at step {checkpoint.step}; use --resume or another --out"
            )
        state = checkpoint.state
        if state["data_hash"] != self.data.train.content_hash:
            raise DamagedFileError(
                f"{run.path}: the corpus {self.config.corpus} has changed since the checkpoint; "
                "bring the old one back or choose another --out"
            )
        if len(state["rng"]) != workers.size and not allow_inexact:
            raise InputError(
                f"{run.path}: was started by {len(state['rng'])} processes, not {workers.size}; use as "
                "many, or --allow-inexact-resume"
            )
        try:
            self.model.load_state_dict(checkpoint.tensors)
            self.optimizer.load_state_dict(state["optimizer"])
            self._restore_draws(state, allow_inexact)
            self.state = LoopState(**state["loop"])
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            reason = first_line(error)
            where = f"{run.checkpoints}: step {checkpoint.step}"
            raise DamagedFileError(f"{where} does not fit this run ({reason}); use another --out") from error
        if workers.is_first:
            run.rewind(checkpoint.step)
            run.log(f"resumed at step {checkpoint.step}")

    def _restore_draws(self, saved: Mapping[str, Any], allow_inexact: bool) -> None:
        """Put every generator back, or begin them anew where that is allowed."""
        try:
            self.sampler.load_state_dict(saved["sampler"])
            self.draws.bit_generator.state = saved["draws"]
            restore_rng(saved["rng"][self.workers.rank])
        except (KeyError, IndexError, TypeError, ValueError, UserError) as error:
            reason = first_line(error)
            if not allow_inexact:
                raise DamagedFileError(
                    f"{self.run.checkpoints}: random numbers cannot go on as they were ({reason}); "
                    "use another --out, or --allow-inexact-resume"
                ) from error
            self.run.log(f"random numbers begin anew, the run is not an exact one any more ({reason})")

    def _provenance(self) -> dict[str, Any]:
        train = self.data.train
        return {
            "commit": commit(),
            "argv": sys.argv,
            "versions": versions(),
            "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "corpus": {
                "tokens": len(train),
                "documents": train.num_documents,
                "vocab_size": train.vocab_size,
                "sha256": train.content_hash,
                "source": dict(train.provenance),
            },
            "held_out": {"name": self.data.held_out_name, "tokens": len(self.data.held_out)},
            "unigram_loss": unigram_loss(train.counts(), self.data.held_out),
            "parameters": count_parameters(self.model),
        }

    def _result(self) -> dict[str, Any]:
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

"""The one offline loop, for every agent: batches, steps, evaluations, checkpoints, exact resume.

A resumed run equals the uninterrupted one to the bit on the CPU: a checkpoint holds the weights, the
optimizers, torch's generators, the sampler's generator and the sums of the metrics that are not yet written.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from chibit.agents import Agent, AgentState, Sampler, make_agent
from chibit.core.checkpoint import CheckpointSaver, load_checkpoint, sweep
from chibit.core.config import find_idle
from chibit.core.errors import DamagedFileError, DivergenceError, InputError, first_line
from chibit.core.memory import check_fits, limited_memory
from chibit.core.run_dir import RunDir
from chibit.core.runtime import capture_rng, resolve_runtime, restore_rng, seed_torch
from chibit.data.dataset import DatasetSpec
from chibit.data.inspect import find_notes
from chibit.evaluation.pool import EnvironmentPool
from chibit.evaluation.rollout import Evaluation, Progress, evaluate
from chibit.training.held_out import HeldOutError
from chibit.training.pretrain.sources import train_sources
from chibit.training.progress import RunProgress
from chibit.training.provenance import provenance
from chibit.training.result import summarise
from chibit.training.run_config import RunConfig, to_record
from chibit.training.run_data import open_data, refuse_changed, refuse_changed_if_here
from chibit.training.stopping import Stopped, StopRequests
from chibit.training.trackers import Tracker, evaluation_metrics, make_trackers


@dataclass
class LoopState:
    """Where the loop stands; part of a checkpoint."""

    step: int = 0
    """Gradient steps done."""
    train_seconds: float = 0.0
    """Wall seconds of training, without evaluation."""
    evaluation_seconds: float = 0.0
    """Wall seconds of evaluation."""
    best_score: float | None = None
    """Best score so far at the first target."""
    sums: dict[str, float] = field(default_factory=dict)
    """Sums of the metrics since the last line of the log."""
    counts: dict[str, int] = field(default_factory=dict)
    """Steps in each of those sums; a metric need not be there at every step."""


def train(
    config: RunConfig[Any],
    path: Path,
    *,
    study: str = "runs",
    resume: bool = True,
    allow_inexact_resume: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Train one agent on one data set, evaluate it on schedule, and write the run directory.

    Args:
        config: the run.
        path: its directory. A finished run is not run again; its result is returned, unless its data have
            changed since.
        study: name of the study it belongs to.
        resume: continue from the newest whole checkpoint; False starts anew when there is none, and refuses
            when there is.
        allow_inexact_resume: go on with new random numbers where the checkpoint's cannot be restored.
        progress: show a progress bar.

    Returns:
        The content of result.json.

    Raises:
        UserError: bad data or configuration, damaged files, no resources, divergence; each with its exit
            code.
        Stopped: after SIGINT or SIGTERM, with a checkpoint saved.
    """
    run = RunDir.create(path, arm=config.arm_name, study=study, config=to_record(config))
    with run.lock():
        if run.is_finished:
            refuse_changed_if_here(run, config)
            _trackers(config, run)
            return run.result()
        train_sources(config.agent, progress=progress)
        with limited_memory(config.device):
            offline = _OfflineRun(config, run, progress=progress)
            offline.resume(resume, allow_inexact=allow_inexact_resume)
            return offline.run_to_end()


class _OfflineRun:
    """One run's moving parts, held while the lock is."""

    def __init__(self, config: RunConfig[Any], run: RunDir, *, progress: bool) -> None:
        self.config, self.run = config, run
        self.runtime = resolve_runtime(config.device, config.precision, config.num_threads)
        self.dataset, held_out = open_data(config, progress=progress)
        self.spec: DatasetSpec = self.dataset.spec
        seed_torch(config.seed)
        agent_config = config.agent.for_steps(config.num_steps)
        remedy = "lower batch_size, context_length or the model's size"
        needed = agent_config.num_bytes(self.spec)
        check_fits(needed, "this model with a batch", remedy, self.runtime.memory)
        self.agent: Agent = make_agent(agent_config, self.spec, self.runtime)
        generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([config.seed, 1])))
        self.sampler: Sampler[Any] = self.agent.sampler(self.agent.prepare(self.dataset), generator)
        self.held_out = None if held_out is None else HeldOutError(self.agent, held_out, config.seed)
        self.targets = _targets(config, self.spec, self.agent)
        self.environments = open_environments(self.spec) if config.num_episodes else None
        self.state = LoopState()
        self.trackers = _trackers(config, run)
        self.progress = RunProgress(config.num_steps, run.path.name, enabled=progress)
        self.saver = CheckpointSaver(run.checkpoints)

    def run_to_end(self) -> dict[str, Any]:
        """The loop: step, log, evaluate, save, until the last step."""
        environments = self.environments or contextlib.nullcontext()
        with StopRequests() as stop, self.progress, environments, self.saver:
            self.progress.start(self.state.step)
            while self.state.step < self.config.num_steps:
                self._step()
                step, done = self.state.step, self.state.step == self.config.num_steps
                if step % self.config.log_every == 0 or done:
                    self._write_metrics()
                evaluated = self.config.evaluates_at(step)
                best = self._evaluate() if evaluated else False
                every = self.config.checkpoint_every
                if done or (step % every == 0 if every else evaluated) or stop.signal_number:
                    self._save(best=best)
                elif best:
                    self._save(best=True)
                if stop.signal_number and not done:
                    self.saver.wait()
                    raise Stopped(
                        stop.signal_number, f"{self.run.path}: stopped after step {step}, checkpoint saved"
                    )
        result = summarise(
            self.run, self.state.step, self.state.train_seconds, self.state.evaluation_seconds, self.dataset
        )
        self.run.write_result(result)
        return self.run.result()

    def _step(self) -> None:
        started = time.perf_counter()
        batch = self.sampler.sample()
        try:
            metrics = self.agent.update(batch)
        except DivergenceError as error:
            rows = self.sampler.dataset.in_store(np.array(error.rows, np.int64))
            path = self.run.write_divergence(self.state.step, str(error), rows)
            raise DivergenceError(f"{error}; the rows of its batch are in {path}") from error
        for name, value in metrics.items():
            self.state.sums[name] = self.state.sums.get(name, 0.0) + value
            self.state.counts[name] = self.state.counts.get(name, 0) + 1
        self.state.step += 1
        self.state.train_seconds += time.perf_counter() - started
        self.progress.advance(metrics.get("train/loss"))

    def _write_metrics(self) -> None:
        means = {name: total / self.state.counts[name] for name, total in self.state.sums.items()}
        if self.held_out is not None:
            started = time.perf_counter()
            means |= self.held_out()
            self.state.evaluation_seconds += time.perf_counter() - started
        self.run.append_metrics(
            {"step": self.state.step, "seconds": round(self.state.train_seconds, 3), **means}
        )
        self._track(means)
        self.state.sums, self.state.counts = {}, {}

    def _track(self, metrics: Mapping[str, float]) -> None:
        for tracker in self.trackers:
            tracker(self.state.step, metrics)

    def _evaluate(self) -> bool:
        """Evaluate every target; True when the first one's score is the best so far."""
        if self.environments is None:
            return False
        rng = capture_rng()
        with self.progress.evaluating():
            evaluations = evaluate_agent(
                self.agent,
                self.spec,
                self.targets,
                num_episodes=self.config.num_episodes,
                seed=evaluation_seed(self.config.seed, self._evaluation_index()),
                environments=self.environments,
            )
        restore_rng(rng)
        for evaluation in evaluations:
            self.run.append_evaluation(
                evaluation_record(evaluation, self.state.step, self.state.train_seconds)
            )
            self._track(evaluation_metrics(evaluation.summary))
        self.state.evaluation_seconds += evaluations[0].seconds
        score = evaluation_score(evaluations[0])
        self.progress.evaluated(evaluations)
        if self.state.best_score is not None and score <= self.state.best_score:
            return False
        self.state.best_score = score
        return True

    def _evaluation_index(self) -> int:
        """Which evaluation of the schedule this is, from 1: equal for all runs with one cadence."""
        every = self.config.evaluate_every
        return math.ceil(self.state.step / every) if every else 1

    def _save(self, *, best: bool) -> None:
        self.run.sync()
        agent_state = self.agent.state_dict()
        state = {
            "loop": dict(vars(self.state)),
            "agent": agent_state.training,
            "sampler": self.sampler.state_dict(),
            "rng": capture_rng(),
            "data_hash": self.dataset.content_hash,
        }
        marks = ("last", "best") if best else ("last",)
        self.saver.save(self.state.step, agent_state.tensors, state, marks=marks)

    def resume(self, wanted: bool, *, allow_inexact: bool) -> None:
        """Go on from the newest whole checkpoint, or begin; raises as `train` says."""
        sweep(self.run.checkpoints)
        checkpoint = load_checkpoint(self.run.checkpoints)
        if checkpoint is None:
            self.run.rewind(0)
            self.run.write_provenance(provenance(self.dataset, self.agent))
            notes = [f"data: {note}" for note in find_notes(self.dataset)]
            for note in [*notes, *(f"config: {note}" for note in find_idle(self.config))]:
                self.run.log(note)
                self.progress.say(note)
            return
        if not wanted:
            raise InputError(
                f"{self.run.path}: holds a run at step {checkpoint.step}; use --resume or another --out"
            )
        refuse_changed(self.run, self.config, self.dataset)
        try:
            training = checkpoint.state["agent"]
            if training is None:  # which would load the weights alone
                raise ValueError("it holds no state of the training")
            self.agent.load_state_dict(AgentState(tensors=checkpoint.tensors, training=training))
            self._restore_draws(checkpoint.state, allow_inexact)
            self.state = LoopState(**checkpoint.state["loop"])
            if self.state.step != checkpoint.step:
                raise ValueError(f"it holds step {self.state.step!r}")
        except (AttributeError, KeyError, RuntimeError, ValueError, TypeError) as error:
            reason = first_line(error)
            where = f"{self.run.checkpoints}: step {checkpoint.step}"
            raise DamagedFileError(f"{where} does not fit this run ({reason}); use another --out") from error
        self.run.rewind(checkpoint.step)
        self.run.log(f"resumed at step {checkpoint.step}")

    def _restore_draws(self, saved: Mapping[str, Any], allow_inexact: bool) -> None:
        """Put the sampler and torch's generators back, or begin them anew where that is allowed."""
        try:
            self.sampler.load_state_dict(saved["sampler"])
            restore_rng(saved["rng"])
        except (KeyError, TypeError, ValueError, InputError, DamagedFileError) as error:
            reason = first_line(error)
            if not allow_inexact:
                raise DamagedFileError(
                    f"{self.run.checkpoints}: random numbers cannot go on as they were ({reason}); "
                    "use another --out, or --allow-inexact-resume"
                ) from error
            self.run.log(f"random numbers begin anew, the run is not an exact one any more ({reason})")


def _trackers(config: RunConfig[Any], run: RunDir) -> list[Tracker]:
    return make_trackers(run, tensorboard=config.tensorboard, wandb=config.wandb, config=to_record(config))


def _targets(config: RunConfig[Any], spec: DatasetSpec, agent: Agent) -> tuple[float, ...] | None:
    if not agent.is_return_conditioned:
        return None
    return config.target_returns or spec.default_target_returns


def open_environments(spec: DatasetSpec) -> EnvironmentPool | None:
    """Open the environments of a data set and check that its states and actions fit; None where it has none.

    Raises:
        InputError: when sizes differ.
    """
    if spec.env_id is None:
        return None
    pool = EnvironmentPool(
        spec.env_id, d4rl_physics=spec.d4rl_physics, max_episode_steps=spec.max_episode_steps
    )
    pool.check_sizes(state_dim=spec.state_dim, act_dim=spec.act_dim, num_actions=spec.num_actions)
    return pool


def evaluation_seed(seed: int, index: int) -> int:
    """Seed of one evaluation of a run.

    Every evaluation starts from fresh states, so that their mean averages over starts and the best of them is
    not chosen on one set; runs that share a seed meet the same states, so that they can be paired.

    Args:
        seed: of the run.
        index: place of the evaluation in the schedule, from 1.
    """
    return int(np.random.SeedSequence((seed, index)).generate_state(1)[0])


def evaluate_agent(
    agent: Agent,
    spec: DatasetSpec,
    targets: Sequence[float] | None,
    *,
    num_episodes: int,
    seed: int,
    environments: EnvironmentPool,
    progress: Progress | None = None,
) -> list[Evaluation]:
    """Roll an agent's policy out; one record per target, or one where it takes none."""
    return evaluate(
        agent.policy(targets),
        environments.env_id,
        target_returns=(None,) if targets is None else targets,
        num_episodes=num_episodes,
        seed=seed,
        d4rl_physics=environments.d4rl_physics,
        max_episode_steps=environments.max_episode_steps,
        score_reference=spec.score_reference,
        environments=environments,
        progress=progress,
    )


def evaluation_score(evaluation: Evaluation) -> float:
    """The normalised score, or the mean return without a reference; -inf if every episode failed."""
    score = evaluation.summary.score
    return -math.inf if score is None else score


def evaluation_record(evaluation: Evaluation, step: int, seconds: float) -> dict[str, Any]:
    """A line of evaluations.jsonl; `seconds` is training time alone."""
    return {
        "step": step,
        "seconds": round(seconds, 3),
        "target_return": evaluation.target_return,
        "normalized_score": evaluation.normalized_score,
        "episode_returns": [float(value) for value in evaluation.episode_returns],
        "episode_lengths": [int(value) for value in evaluation.episode_lengths],
        "env_seeds": [int(value) for value in evaluation.env_seeds],
        "failed_episodes": [int(value) for value in evaluation.failed_episodes],
        "evaluation_seconds": round(evaluation.seconds, 3),
    }

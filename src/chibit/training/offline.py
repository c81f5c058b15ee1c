"""Offline training, for every agent: batches, steps, evaluations; `training.loop` does the rest."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor

from chibit.agents import Agent, AgentState, Sampler, make_agent
from chibit.core.checkpoint import Checkpoint
from chibit.core.config import find_idle
from chibit.core.errors import DivergenceError
from chibit.core.fields import refusal
from chibit.core.files import user_path
from chibit.core.formatting import shown_time
from chibit.core.memory import check_fits, limited_memory
from chibit.core.run_dir import RunDir
from chibit.core.runtime import Runtime, capture_rng, resolve_runtime, restore_rng, seed_torch
from chibit.data.choices import Choice, table_lines
from chibit.data.dataset import DatasetSpec, TrajectoryDataset
from chibit.data.inspect import find_notes
from chibit.data.load import given_dataset
from chibit.data.samplers.placement import place
from chibit.environments.own import EnvLike, take_env
from chibit.evaluation.pool import EnvironmentPool
from chibit.evaluation.rollout import Evaluation, Played, Progress, evaluate
from chibit.policy.policy import Policy
from chibit.training.evaluation_seed import evaluation_seed, seed_at
from chibit.training.held_out import HeldOut
from chibit.training.longer import GoingOn, carry_on
from chibit.training.loop import Loop, RunProgress
from chibit.training.outlook import outlook, warnings
from chibit.training.pretrain.sources import train_sources
from chibit.training.provenance import provenance
from chibit.training.result import summarize
from chibit.training.run_config import RunConfig, to_record
from chibit.training.run_data import (
    advise,
    generator_of,
    open_data,
    refuse_changed,
    refuse_changed_if_here,
    refuse_unread,
)
from chibit.training.splits import play_splits
from chibit.training.trackers import evaluation_metrics, make_trackers
from chibit.training.warm_start import start_from


@dataclass(frozen=True)
class Evaluated:
    """What a run tells after each evaluation."""

    step: int
    """Gradient steps done."""
    evaluations: tuple[Evaluation, ...]
    """One for each target return; none where the data have no environment."""
    policy: Policy
    """Acts with the weights of this step, until the next one."""


Callback: TypeAlias = Callable[[Evaluated], object]
"""Called after each evaluation; what it draws from torch's generators does not change the run."""
Afterwards: TypeAlias = Callable[
    [RunConfig[Any], TrajectoryDataset, TrajectoryDataset | None], Iterable[Choice]
]
"""Says, by the run and its data (trained on, held out), what is done with it when it is finished."""


def say_nothing(
    config: RunConfig[Any], dataset: TrajectoryDataset, held_out: TrajectoryDataset | None
) -> Iterable[Choice]:
    """Of callers that do nothing more."""
    return ()


def train(
    config: RunConfig[Any],
    path: str | Path,
    *,
    dataset: TrajectoryDataset | str | Path | None = None,
    env: EnvLike | None = None,
    on_evaluation: Callback | Sequence[Callback] = (),
    afterwards: Afterwards = say_nothing,
    study: str = "runs",
    resume: bool = True,
    allow_inexact_resume: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Train one agent on one data set, evaluate it on schedule, and write the run directory.

    Args:
        config: the run.
        path: its directory. A finished run is not run again; its result is returned, unless its data changed.
        dataset: the data, opened already or a part of them, or their name, in place of `config.data`.
        env: environment to evaluate in: an id, also of anything registered with Gymnasium in this process,
            what builds one, or an instance; see `take_env`. None takes that of `config`, or of the data.
        on_evaluation: called after each evaluation, one or several.
        afterwards: says what the caller will do with the finished run, for the table of what was chosen.
        study: name of the study it belongs to.
        resume: continue from the newest whole checkpoint; False starts anew when there is none, and refuses
            when there is.
        allow_inexact_resume: go on with new random numbers where the checkpoint's cannot be restored.
        progress: show a progress bar.

    Returns:
        The content of result.json.

    Raises:
        Stopped: after SIGINT or SIGTERM, with a checkpoint saved.
    """
    path = user_path(path)
    dataset = None if dataset is None else given_dataset(dataset, "dataset")
    callbacks = (on_evaluation,) if callable(on_evaluation) else on_evaluation
    if not isinstance(callbacks, Sequence) or not all(map(callable, callbacks)):
        raise refusal("on_evaluation", on_evaluation, "a function, or a list of them")
    config = config if env is None else replace(config, env_id=take_env(env))
    going_on = carry_on(config, path) if resume else GoingOn(config, config)
    config = going_on.config
    with opened(going_on, path, dataset, study=study) as run:
        if run.is_finished and not resume:
            run.refuse_anew("a finished run")
        if not going_on.is_over(run):
            train_sources(config.agent, progress=progress)
            runtime = resolve_runtime(config.device, config.precision, config.num_threads)
            with limited_memory(runtime.torch_device.type):
                offline = OfflineRun(
                    config, run, runtime, dataset, callbacks, progress=progress, afterwards=afterwards
                )
                offline.resume(resume, allow_inexact=allow_inexact_resume)
                going_on.extend(run)
                offline.run_to_end()
        return run.result()


@contextlib.contextmanager
def opened(
    going_on: GoingOn, path: Path, dataset: TrajectoryDataset | None = None, *, study: str
) -> Iterator[RunDir]:
    """Hold a run's directory, which is made where it is not there.

    Raises:
        UserError: where it is another run's or another process's, or is finished and its data have changed.
    """
    there = going_on.there
    with RunDir.held(path, arm=there.arm_name, study=study, config=to_record(there)) as run:
        if going_on.is_over(run):
            refuse_changed_if_here(run, there, dataset)
            make_trackers(run, there)
        yield run


class OfflineRun(Loop[RunConfig[Any]]):
    """An agent that learns from logged trajectories, and plays on schedule."""

    def __init__(
        self,
        config: RunConfig[Any],
        run: RunDir,
        runtime: Runtime,
        dataset: TrajectoryDataset | None,
        callbacks: Sequence[Callback],
        *,
        progress: bool,
        afterwards: Afterwards = say_nothing,
    ) -> None:
        super().__init__(config, run, RunProgress(config.num_steps, run.name, enabled=progress))
        self.device = runtime.torch_device
        self.dataset, held_out = open_data(config, dataset, run=run, progress=progress)
        self.measured_on = held_out
        refuse_unread(config, self.dataset)
        self.callbacks = callbacks
        self.spec: DatasetSpec = self.dataset.spec
        seed_torch(config.seed)
        agent_config = config.agent.for_steps(config.num_steps)
        remedy = "lower batch_size, context_length or the model's size"
        check_fits(agent_config.num_bytes(self.spec), "this model with a batch", remedy, runtime.memory)
        self.agent: Agent = make_agent(agent_config, self.spec, runtime)
        drawn_from = self.agent.prepare(self.dataset)
        self.sampler: Sampler[Any] = self.agent.sampler(drawn_from, generator_of(config.seed, 1))
        self.advice = (*advise(config, self.dataset, held_out), *warnings(config, self.dataset))
        self.held_out = None
        if held_out is not None:
            self.held_out = HeldOut(self.agent, self.sampler.dataset, held_out, config.seed)
        self.targets = config.targets(self.spec)
        self.environments = open_environments(self.spec) if config.num_episodes else None
        self.trackers = make_trackers(run, config)
        self.planned = (*outlook(config, self.dataset), *afterwards(config, self.dataset, held_out))
        self._began: tuple[int, float] | None = None

    def begin(self) -> None:
        """See `Loop`."""
        record = provenance(self.dataset, self.agent, self.measured_on)
        record["asked"] = self.config.agent.asked()
        notes = [f"data: {note}" for note in find_notes(self.dataset)]
        loaded: Sequence[str] = ()
        if self.config.init_from:
            record["init_from"], loaded, said = start_from(self.agent, self.config.init_from)
            notes.append(f"weights: {said}")
        self.run.write_provenance(record)
        notes += [f"config: {note}" for note in find_idle(self.config, data=self.spec)]
        table = table_lines(self.planned)
        for line in (*notes, *self.advice, "chosen for this run:", *table):
            self._say(line)
        self.agent.before_first_update(loaded, progress=self.progress.is_shown)

    def _say(self, line: str) -> None:
        self.run.log(line)
        self.progress.say(line)

    def run_to_end(self) -> None:
        """As `Loop.run_to_end`; once steps were made, say how long the others will take."""
        self._began = self.state.step, self.state.train_seconds
        self.sampler = place(self.sampler, self.device)
        super().run_to_end()

    def resources(self) -> contextlib.AbstractContextManager[Any]:
        """See `Loop`."""
        return self.environments or contextlib.nullcontext()

    def update(self) -> Mapping[str, float | Tensor]:
        """See `Loop`."""
        batch = self.sampler.sample()
        with self.written_down():
            return self.agent.update(batch)

    def check(self) -> None:
        """See `Loop`."""
        with self.written_down():
            self.agent.check()

    @contextlib.contextmanager
    def written_down(self) -> Iterator[None]:
        """Have a divergence leave its rows in the run's folder."""
        try:
            yield
        except DivergenceError as error:
            rows = self.sampler.dataset.in_store(np.array(error.rows, np.int64))
            step = self.state.step if error.step is None else error.step
            path = self.run.write_divergence(step, str(error), rows)
            raise DivergenceError(f"{error}; the rows of its batch are in {path}") from error

    def measure(self) -> dict[str, float]:
        """See `Loop`."""
        self._say_time()
        if self.held_out is None:
            return {}
        metrics = self.held_out()
        warning = self.held_out.warning(metrics)
        if warning is not None:
            self._say(warning)
        return metrics

    def _say_time(self) -> None:
        """Say once how long the steps left will take, as the first ones of this process did."""
        if self._began is None:
            return
        (step, seconds), state, self._began = self._began, self.state, None
        done, left = state.step - step, self.config.num_steps - state.step
        if left:
            a_step = (state.train_seconds - seconds) / done
            self._say(
                f"measured over {done:,} steps: {1000 * a_step:.3g} ms each, about "
                f"{shown_time(left * a_step)} for the {left:,} left, without evaluations"
            )

    def evaluate(self) -> bool:
        """Play for every target; True when the model is the best so far."""
        rng = capture_rng(self.device)
        evaluations = []
        if self.environments is not None:
            evaluations = evaluate_agent(
                self.agent,
                self.spec,
                self.targets,
                num_episodes=self.config.num_episodes,
                seed=seed_at(self.state.step, self.config, self.run),
                environments=self.environments,
            )
        restore_rng(rng, self.device)
        return self.take_in(evaluations)

    def to_play(self) -> Played | None:
        """The evaluation that is due at this step, for a stack; None where there is nothing to play in."""
        if self.environments is None:
            return None
        return Played(
            environments=self.environments,
            target_returns=self.targets or (None,),
            num_episodes=self.config.num_episodes,
            seed=seed_at(self.state.step, self.config, self.run),
            score_reference=self.spec.score_reference,
        )

    def take_in(self, evaluations: Sequence[Evaluation]) -> bool:
        """Write down an evaluation, one record for each target; True when the model is the best so far.

        It is judged by the score at the first target, or what the run chooses by.
        """
        state, by_error = self.state, self.config.best_by == "held_out"
        is_best = by_error and self.held_out is not None and self._is_best(-self.held_out.error())
        if self.callbacks:
            rng = capture_rng(self.device)
            self._tell(evaluations)
            restore_rng(rng, self.device)
        if not evaluations:
            return is_best
        for evaluation in evaluations:
            self.run.append_evaluation(evaluation_record(evaluation, state.step, state.train_seconds))
            self.track(evaluation_metrics(evaluation.summary))
        state.evaluation_seconds += evaluations[0].seconds
        self.progress.say(evaluation_line(evaluations, state.step))
        return is_best if by_error else self._is_best(evaluation_score(evaluations[0]))

    def _is_best(self, score: float) -> bool:
        """Whether a score is the best so far; it is then remembered."""
        best = self.state.best_score
        if best is not None and score <= best:
            return False
        self.state.best_score = score
        return True

    def _tell(self, evaluations: Sequence[Evaluation]) -> None:
        target = None if self.targets is None else self.targets[0]
        policy = Policy(self.agent, self.spec, target_return=target)
        told = Evaluated(self.state.step, tuple(evaluations), policy)
        for callback in self.callbacks:
            callback(told)

    def contents(self) -> tuple[Mapping[str, Tensor], dict[str, Any]]:
        """See `Loop`."""
        agent = self.agent.state_dict()
        return agent.tensors, {
            "agent": agent.training,
            "sampler": self.sampler.state_dict(),
            "rng": capture_rng(self.device),
            "data_hash": self.dataset.content_hash,
            "held_out": None if self.held_out is None else self.held_out.state_dict(),
        }

    def refuse_changed(self, state: Mapping[str, Any], *, allow_inexact: bool) -> None:
        """See `Loop`."""
        refuse_changed(self.run, self.config, self.dataset, self.measured_on)

    def restore(self, checkpoint: Checkpoint) -> None:
        """See `Loop`."""
        training = checkpoint.state["agent"]
        if training is None:  # which would load the weights alone
            raise ValueError("it holds no state of the training")
        self.agent.load_state_dict(AgentState(tensors=checkpoint.tensors, training=training))
        told = checkpoint.state.get("held_out")  # not in those of earlier versions
        if self.held_out is not None and told is not None:
            self.held_out.load_state_dict(told)

    def restore_draws(self, state: Mapping[str, Any]) -> None:
        """See `Loop`."""
        self.sampler.load_state_dict(state["sampler"])
        restore_rng(state["rng"], self.device)

    def result(self) -> dict[str, Any]:
        """See `Loop`."""
        config, state = self.config, self.state
        seed = evaluation_seed(config.seed, 0)
        splits, more = play_splits(
            self.agent, self.spec, self.targets, config.num_episodes, seed=seed, say=self._say
        )
        seconds = state.train_seconds, state.evaluation_seconds + more
        result = summarize(self.run, state.step, *seconds, self.dataset)
        return result | ({"splits": splits} if splits else {})


def open_environments(spec: DatasetSpec) -> EnvironmentPool | None:
    """Open the environments of a data set, of which sizes must fit (InputError); None where it has none."""
    if spec.env_id is None:
        return None
    pool = EnvironmentPool(
        spec.env_id, d4rl_physics=spec.d4rl_physics, max_episode_steps=spec.max_episode_steps
    )
    pool.check_sizes(
        observation_shape=spec.observation_shape, act_dim=spec.act_dim, num_actions=spec.num_actions
    )
    return pool


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
    """The normalized score, or the mean return without a reference; -inf if every episode failed."""
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
        **({"successes": list(evaluation.successes)} if evaluation.successes else {}),
    }


def evaluation_line(evaluations: Sequence[Evaluation], step: int) -> str:
    """What a person is told of an evaluation."""
    return f"  step {step}: {'; '.join(str(evaluation.summary) for evaluation in evaluations)}"

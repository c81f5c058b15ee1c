"""Open what a run has learned: its agent with the weights of one checkpoint, without its data."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from chibit.agents import Agent, AgentState, make_agent
from chibit.core.checkpoint import load_checkpoint, marked
from chibit.core.config import from_json
from chibit.core.errors import DamagedFileError, InputError
from chibit.core.memory import check_fits
from chibit.core.run_dir import RunDir
from chibit.core.runtime import resolve_runtime
from chibit.data.dataset import DatasetSpec
from chibit.evaluation.summary import EvaluationSummary, summarize_record
from chibit.models.counting import check_plausible
from chibit.policy.export import film
from chibit.training.run_config import RunConfig, from_record


@dataclass(frozen=True)
class LoadedRun:
    """A run's agent at one checkpoint."""

    run: RunDir
    config: RunConfig[Any]
    spec: DatasetSpec
    agent: Agent
    step: int
    """Gradient steps of the checkpoint."""

    def evaluations(self) -> list[EvaluationSummary]:
        """The run's evaluations at the step of the checkpoint."""
        records = self.run.read_log("evaluations.jsonl")
        return [summarize_record(record) for record in records if record["step"] == self.step]

    def film(self, targets: Sequence[float] | None, seed: int) -> list[Path]:
        """Film the beginning of an episode for each target into the run's folder `videos`."""
        paths = []
        for target in targets or (None,):
            name = "policy" if target is None else f"target-{target:g}"
            paths.append(self.run.own_folder("videos") / f"{name}.mp4")
            film(self.agent, self.spec, paths[-1], target_return=target, seed=seed)
        return paths


def load_run(path: Path, which: str = "last", *, device: str = "auto") -> LoadedRun:
    """Load a run's agent.

    Args:
        path: the run directory.
        which: "last", "best", or a step.
        device: where to put it.
    """
    run = RunDir.open(path)
    config = from_record(run.description()["config"], str(path / "config.json"))
    spec = from_json(DatasetSpec, run.provenance()["dataset"], f"{path / 'provenance.json'}: dataset")
    runtime = resolve_runtime(device, config.precision, config.num_threads)
    needed = dataclasses.replace(config.agent, batch_size=1).num_bytes(spec)
    check_fits(needed, f"{path / 'config.json'}: its model", "use a larger machine", runtime.memory)
    checkpoint = load_checkpoint(run.checkpoints, _step(run, which))
    if checkpoint is None:
        raise InputError(f"{path}: has no checkpoint yet; let it train on, or choose another run")
    check_plausible(config.agent, checkpoint.tensors, path / "config.json")
    agent = make_agent(config.agent, spec, runtime)
    try:
        with torch.no_grad():
            agent.load_state_dict(AgentState(tensors=checkpoint.tensors))
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise DamagedFileError(
            f"{path}: weights of step {checkpoint.step} do not fit config.json ({reason})"
        ) from error
    return LoadedRun(run, config, spec, agent, checkpoint.step)


def _step(run: RunDir, which: str) -> int | None:
    if which == "last":
        return None
    if which == "best":
        step = marked(run.checkpoints, "best")
        if step is None:
            raise InputError(f"{run.path}: has no best checkpoint (it was never evaluated); use last")
        return step
    if not (which.isascii() and which.isdigit() and len(which) < 19):  # 19 digits and more are no int64
        raise InputError(f"checkpoint: got {which!r}, expected last, best or a step")
    return int(which)

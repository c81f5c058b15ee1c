"""What a run has learned, without its data: the agent of one checkpoint, ready to act."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from chibit.agents import AGENTS, Agent, AgentState, make_agent
from chibit.core.checkpoint import load_checkpoint, marked
from chibit.core.config import Checked, from_json
from chibit.core.errors import DamagedFileError, InputError
from chibit.core.fields import Targets
from chibit.core.run_dir import RunDir
from chibit.core.run_records import read_record
from chibit.core.runtime import Precision, resolve_runtime
from chibit.data.dataset import DatasetSpec
from chibit.evaluation.summary import EvaluationSummary, summarize_record
from chibit.policy.format import check_size


@dataclass(frozen=True, kw_only=True)
class _Acting(Checked):
    """What of a run's configuration its policy depends on."""

    agent_name: str
    agent: dict[str, Any]
    agent_class: str = ""
    precision: Precision = "fp32"
    target_returns: Targets | None = None


@dataclass(frozen=True)
class RunAgent:
    """A run's agent at one checkpoint."""

    agent: Agent
    spec: DatasetSpec
    """Of the data it was trained on."""
    step: int
    """Gradient steps of the checkpoint."""
    target_return: float | None
    """Raw return that the run was evaluated at first; None where its method takes none."""
    evaluations: tuple[EvaluationSummary, ...]
    """The run's own at this step."""


def load_run_agent(
    path: Path, which: str = "last", *, device: str = "auto", num_threads: int | None = None
) -> RunAgent:
    """Load a run's agent.

    Args:
        path: the run directory.
        which: "last", "best", or a step.
        device: where to put it.
        num_threads: of torch; None leaves the caller's number.

    Raises:
        InputError: where there is no such run or checkpoint, or its method is not known here.
        DamagedFileError: for files that are damaged or do not fit together.
        ResourceError: for a model that this machine has no memory for.
    """
    run = RunDir.open(path)
    where = str(path / "config.json")
    record = run.description()["config"]
    if "corpus" in record and "agent_name" not in record:
        raise InputError(f"{where}: is of chibit pretrain, expected a run of chibit train")
    acting = read_record(_Acting, record, where)
    entry = AGENTS.find(acting.agent_name, f"{where}.agent_name", acting.agent_class)
    config = from_json(entry.config, acting.agent, f"{where}.agent")
    provenance = run.provenance()
    spec = from_json(DatasetSpec, provenance["dataset"], f"{path / 'provenance.json'}: dataset")
    # What was learned in tf32 acts everywhere.
    precision = "fp32" if acting.precision == "tf32" else acting.precision
    runtime = resolve_runtime(device, precision, num_threads or torch.get_num_threads())
    checkpoint = load_checkpoint(run.checkpoints, _step(run, which))
    if checkpoint is None:
        raise InputError(f"{path}: has no checkpoint yet; let it train on, or choose another run")
    check_size(config, spec, checkpoint.tensors, path / "config.json", runtime)
    agent = make_agent(config, spec, runtime)
    agent.asked = provenance.get("asked")
    try:
        with torch.no_grad():
            agent.load_state_dict(AgentState(tensors=checkpoint.tensors))
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise DamagedFileError(
            f"{path}: weights of step {checkpoint.step} do not fit config.json ({reason})"
        ) from error
    target = (acting.target_returns or spec.default_target_returns)[0]
    return RunAgent(
        agent,
        spec,
        checkpoint.step,
        target if config.takes_target_returns else None,
        tuple(
            summarize_record(line)
            for line in run.read_log("evaluations.jsonl")
            if line["step"] == checkpoint.step
        ),
    )


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

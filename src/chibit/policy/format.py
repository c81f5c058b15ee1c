"""The folder of a saved policy: written beside what is there, checked when it is read, never run.

It has `config.json` (agent, its configuration, and what depends on the data: sizes, normalization, action
bounds, environment), `model.safetensors`, and `README.md`, a model card. Around a model of `transformers` it
has that model's own configuration too, in `backbone/`. The weights are checked against the SHA-256 in
`config.json`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from chibit.agents import AGENTS, make_agent
from chibit.agents.base import Agent, AgentConfig
from chibit.core.checkpoint import pack_tensors
from chibit.core.config import Checked, from_json, read_json, to_json
from chibit.core.errors import DamagedFileError, InputError, first_line
from chibit.core.fields import Since
from chibit.core.files import links_within, write_atomic
from chibit.core.memory import check_fits, read_whole
from chibit.core.runtime import Runtime, resolve_runtime
from chibit.core.version import __version__
from chibit.data.dataset import DatasetSpec
from chibit.models.counting import check_plausible, require_fit
from chibit.policy.card import PolicyScore
from chibit.policy.shapes import read_target

SCHEMA = 1
_CONFIG, _WEIGHTS = "config.json", "model.safetensors"
_REMEDY = "fetch the folder again"


@dataclass(frozen=True, kw_only=True)
class SavedPolicy(Checked):
    """Content of a policy's `config.json`."""

    schema: int
    """Version of this layout."""
    chibit: str
    """Version of the package that wrote it."""
    agent: str
    """Key of the method in `chibit.agents.AGENTS`."""
    config: dict[str, Any]
    """The method's configuration."""
    spec: DatasetSpec
    """What depends on the data."""
    target_return: float | None
    """Raw return to ask for; None where the method takes none."""
    sha256: str
    """Of `model.safetensors`."""
    scores: tuple[PolicyScore, ...] = ()
    """Evaluations of this policy."""
    agent_class: str = ""
    """MODULE:CLASS of the method where it is not the package's own; nothing is imported for it."""
    asked: Annotated[dict[str, Any] | None, Since(None)] = None
    """`Agent.asked`: what a run that starts from these weights does not fill in anew."""


def write_policy(
    agent: Agent, spec: DatasetSpec, folder: Path, target_return: float | None, scores: Sequence[PolicyScore]
) -> SavedPolicy:
    """Write weights and `config.json` into a new folder; arguments are those of `policy.export`."""
    weights = pack_tensors(agent.acting_modules().state_dict())
    config = agent.acting_config
    saved = SavedPolicy(
        schema=SCHEMA,
        chibit=__version__,
        agent=config.agent,
        agent_class=AGENTS[config.agent].address,
        config=to_json(config),
        asked=to_json(agent.asked),
        spec=spec,
        target_return=checked_target(agent, spec, target_return),
        sha256=hashlib.sha256(weights).hexdigest(),
        scores=tuple(scores),
    )
    write_atomic(folder / _WEIGHTS, weights)
    agent.save_beside(folder)
    write_atomic(folder / _CONFIG, json.dumps(to_json(saved), indent=1, allow_nan=False))
    return saved


def checked_target(agent: Agent, spec: DatasetSpec, target_return: float | None) -> float | None:
    """Raw return to ask for: the given one, or the data's first default; None where the method takes none.

    Raises:
        InputError: for one that is no finite number, or given to a method that takes none.
    """
    if not agent.is_return_conditioned:
        if target_return is not None:
            raise InputError(f"target_return is {target_return}, but this method takes none")
        return None
    return read_target(spec.default_target_returns[0] if target_return is None else target_return)


def read_policy(folder: Path) -> SavedPolicy:
    """Read a policy's `config.json`.

    Raises:
        InputError: if there is none, or it is another program's, or a newer version's.
        DamagedFileError: if it is not JSON.
    """
    path = folder / _CONFIG
    record = read_json(path, inside=links_within(folder))
    version = record.get("schema") if isinstance(record, dict) else None
    if isinstance(version, int) and version > SCHEMA:
        raise InputError(f"{path}: schema {version}, this version reads up to {SCHEMA}; upgrade chibit")
    if version != SCHEMA:
        raise InputError(f"{path}: is not a policy's; give a folder that chibit export wrote")
    return from_json(SavedPolicy, record, str(path))


def load_agent(saved: SavedPolicy, folder: Path, device: str) -> Agent:
    """Rebuild the agent that a folder holds, ready to act.

    Args:
        saved: what `read_policy` gave for this folder.
        folder: where the weights are.
        device: "cpu", "cuda", "cuda:N" or "auto".

    Raises:
        InputError: for a method or a configuration that is unknown.
        DamagedFileError: for weights that are damaged or do not fit.
        ResourceError: for a model that this machine has no memory for.
    """
    path, root = folder / _CONFIG, links_within(folder)
    where = f"{path}: config"
    entry = AGENTS.find(saved.agent, f"{path}: agent", saved.agent_class)
    config = from_json(entry.config, saved.config, where).in_folder(folder, where)
    tensors = _read_tensors(folder / _WEIGHTS, saved.sha256, root)
    # The number of threads is the caller's business: acting must not change it.
    runtime = resolve_runtime(device, num_threads=torch.get_num_threads())
    check_size(config, saved.spec, tensors, path, runtime)
    try:
        agent = make_agent(config, saved.spec, runtime)
    except (RuntimeError, MemoryError) as error:  # sizes beyond all memory
        raise DamagedFileError(f"{path}: cannot be built ({first_line(error)}); {_REMEDY}") from error
    agent.asked = saved.asked
    modules = agent.acting_modules()
    require_fit(tensors, modules.state_dict(), folder / _WEIGHTS)
    modules.load_state_dict(tensors)
    return agent


def check_size(
    config: AgentConfig, spec: DatasetSpec, tensors: Mapping[str, torch.Tensor], path: Path, runtime: Runtime
) -> None:
    """Refuse an agent that is larger than this machine or than its weights, before it is built.

    Args:
        config: of the agent.
        spec: of the data it was trained on.
        tensors: its weights.
        path: where the config is, for the message.
        runtime: where the agent will be.

    Raises:
        ResourceError: for one that this machine has no memory for.
        DamagedFileError: for one that has other weights.
    """
    check_plausible(config, tensors, path)
    needed = replace(config, batch_size=1).num_bytes(spec)  # type: ignore[type-var]
    check_fits(needed, f"{path}: its model", "use a larger machine", runtime.memory)


def _read_tensors(path: Path, sha256: str, root: Path) -> dict[str, torch.Tensor]:
    try:
        return safetensors.torch.load(read_whole(path, _REMEDY, inside=root, sha256=sha256))
    except (SafetensorError, ValueError, KeyError) as error:
        raise DamagedFileError(f"{path}: is not a safetensors file ({error}); {_REMEDY}") from error

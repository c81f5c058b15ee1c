"""Starting from what another run, or a saved policy, has learned: its weights, where sizes are the same."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from chibit.agents import Agent, AgentConfig
from chibit.core.errors import InputError
from chibit.core.formatting import count
from chibit.core.run_dir import is_run
from chibit.models.hub import model_folder
from chibit.models.projections import ActionRange
from chibit.policy.format import load_agent, read_policy
from chibit.policy.run import load_run_agent

_FLAG = "the folder of a run, or one that chibit export wrote"


def load_source(source: str) -> tuple[Agent, bool]:
    """The agent of a run (its last checkpoint) or of a saved policy, and whether it is of a run.

    Raises:
        UserError: as `Policy.from_pretrained`.
    """
    folder = model_folder(source, flag=_FLAG)
    if is_run(folder):
        return load_run_agent(folder, device="cpu").agent, True
    return load_agent(read_policy(folder), folder, "cpu"), False


def source_config(source: str) -> AgentConfig:
    """The method of a run or a saved policy, with what data and length decide left to what starts from it."""
    agent, _ = load_source(source)
    return agent.config.for_other_data(agent.asked)


def start_from(agent: Agent, source: str) -> tuple[dict[str, Any], list[str], str]:
    """Give an agent the weights of another one of the same method, in place.

    Those of the same name and shape are taken. Of a table with another number of rows the first ones are,
    as far as both have them: timesteps. All else, such as the embeddings and the head of data of other sizes,
    stays as it was drawn; so do bounds of actions, which are the data's. Random numbers stay as they were.

    Args:
        agent: of a run that has not made a step.
        source: a run or a policy.

    Returns:
        A record for provenance, the names of the tensors that were taken, and a sentence on them.

    Raises:
        InputError: for another method, data with their columns in another order, or where nothing fits.
    """
    with torch.random.fork_rng(devices=[]):
        theirs, is_of_run = load_source(source)
    if theirs.config.agent != agent.config.agent:
        raise InputError(
            f"init_from: {source} is of agent {theirs.config.agent}, this run of {agent.config.agent}; "
            "give one of the same method"
        )
    agent.spec.require_order_of(theirs.spec, "init_from")  # weights know a column by its place
    tensors = theirs.modules().state_dict()
    acting = set(tensors)
    if not is_of_run:  # a policy holds what acts; what was drawn beside it is not its own
        acting = {name for name in theirs.acting_modules().state_dict() if name in tensors}
    taken, anew = _copy(agent.modules(), {name: tensors[name] for name in acting})
    if not taken:
        raise InputError(
            f"init_from: no weight of {source} has the size of this run's; give another, or none"
        )
    digest = hashlib.sha256()
    for name in sorted(acting):
        flat = tensors[name].detach().cpu().flatten()  # also a scalar, which has no bytes to view
        digest.update(name.encode() + flat.view(torch.uint8).numpy().tobytes())
    record = {"source": source, "hash": digest.hexdigest(), "taken": len(taken), "anew": anew}
    said = f"starts from {count(len(taken), 'tensor')} of {source}"
    return (
        record,
        taken,
        said + (f"; drawn anew, since sizes differ or it has none: {', '.join(anew)}" if anew else ""),
    )


@torch.no_grad()
def _copy(modules: nn.Module, tensors: Mapping[str, Tensor]) -> tuple[list[str], list[str]]:
    """Names that were copied, and those that were not."""
    tables = {f"{name}.weight" for name, part in modules.named_modules() if isinstance(part, nn.Embedding)}
    bounds = tuple(f"{name}." for name, part in modules.named_modules() if isinstance(part, ActionRange))
    taken, anew = [], []
    for name, own in modules.state_dict().items():  # shares memory with the parameters
        if name.startswith(bounds):
            continue
        given = tensors.get(name)
        if given is not None and given.shape == own.shape:
            own.copy_(given)
        elif given is not None and name in tables and given.shape[1:] == own.shape[1:]:
            rows = min(len(given), len(own))
            own[:rows].copy_(given[:rows])
        else:
            anew.append(name)
            continue
        taken.append(name)
    return taken, anew

"""Agents by key: the package's own, those of installed plugins, and those of a user's module."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chibit.core.errors import InputError
from chibit.core.plugins import AddressedRegistry, address_of
from chibit.models.counting import misfit

if TYPE_CHECKING:
    from chibit.agents.base import Agent, AgentConfig
    from chibit.core.runtime import Runtime
    from chibit.data.dataset import DatasetSpec


@dataclass(frozen=True)
class AgentEntry:
    """A method: what it is configured by, and what is built from that."""

    config: type[AgentConfig]
    """Config dataclass; its `agent` is the key."""
    agent: type[Agent]
    """Class that is built as `agent(config, spec, runtime)`."""

    @property
    def summary(self) -> str:
        """The first line of the class's docstring; empty where it has none."""
        return next(iter((self.agent.__doc__ or "").strip().splitlines()), "")

    @property
    def address(self) -> str:
        """MODULE:CLASS where it comes from a user's module or a plugin; empty for the package's own."""
        return address_of(self.agent)


AGENTS: AddressedRegistry[AgentEntry] = AddressedRegistry(
    "agent", "agents", "--agent", "a class MyAgent(OffPolicyAgent, config=MyConfig)"
)
"""Key of a method to its config and agent classes."""


def register_agent(config: type[AgentConfig], agent: type[Agent]) -> None:
    """Make a method known under the key that its config has."""
    AGENTS.add(config.agent, AgentEntry(config, agent), agent, f"{agent.__module__}:{agent.__qualname__}")


def make_agent(config: AgentConfig, spec: DatasetSpec, runtime: Runtime) -> Agent:
    """Build the agent that a config names.

    Args:
        config: an instance of a config class in `AGENTS`.
        spec: what depends on the data: sizes, normalization, action bounds.
        runtime: device and precision.

    Raises:
        InputError: if the config's class is not the one registered under its key, the agent is unfinished,
            takes other data, or the config tells of larger networks than it has.
    """
    entry = AGENTS.get(config.agent)
    if entry is None or not isinstance(config, entry.config):
        raise InputError(
            f"agent {config.agent!r} takes no {type(config).__name__}; known agents: {', '.join(AGENTS)}"
        )
    missing = sorted(_not_defined(entry.agent))
    if missing:
        raise InputError(
            f"agent {config.agent!r}: {entry.agent.__qualname__} does not define {', '.join(missing)}"
        )
    _refuse_misfit(entry, spec)
    agent = entry.agent(config, spec, runtime)
    if found := misfit(config, agent.acting_modules().state_dict()):
        raise InputError(
            f"agent {config.agent!r}: {found}: what it learned could not be loaded; declare the sizes of its "
            "networks alone"
        )
    return agent


def _refuse_misfit(entry: AgentEntry, spec: DatasetSpec) -> None:
    """Refuse observations or actions that a method does not take, naming methods that take both."""

    def takes_actions(agent: type[Agent]) -> bool:
        return agent.takes_discrete in (None, spec.num_actions is not None)

    def takes(agent: type[Agent]) -> bool:
        return takes_actions(agent) and (agent.takes_pictures or not spec.image_shape)

    if takes(entry.agent):
        return
    found = f"the observations of {spec.name} are pictures"
    if not takes_actions(entry.agent):
        found = f"the actions of {spec.name} are {'continuous' if spec.num_actions is None else 'discrete'}"
    others = ", ".join(key for key, other in AGENTS.items() if takes(other.agent))
    raise InputError(f"agent {entry.config.agent}: {found}; use {others}")


def _not_defined(agent: type[Agent]) -> set[str]:
    """Members that a class must have and lacks, or has as None."""
    found: dict[str, Any] = {}
    for base in reversed(agent.__mro__):
        found |= vars(base)
    required = {name for base in agent.__mro__ for name in vars(base).get("__abstractmethods__", ())}
    return set(agent.__abstractmethods__) | {name for name in required if found[name] is None}

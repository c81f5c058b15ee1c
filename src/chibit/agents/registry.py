"""Agents by key: the package's own, those of installed plugins, and those of a user's module."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chibit.core.errors import InputError
from chibit.core.files import nearest
from chibit.core.plugins import Registry, import_own

if TYPE_CHECKING:
    from chibit.agents.base import Agent, AgentConfig
    from chibit.core.runtime import Runtime
    from chibit.data.dataset import DatasetSpec

PLUGINS = "chibit.agents"
"""Group of entry points whose values are MODULE:CLASS of agents in other packages."""
_OWN = "chibit."
_ADDRESS = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


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
        kind = self.agent
        return "" if kind.__module__.startswith(_OWN) else f"{kind.__module__}:{kind.__qualname__}"


class AgentRegistry(Registry[AgentEntry]):
    """Key to entry, in the order of registration."""

    def add(self, entry: AgentEntry) -> None:
        """Take in an agent; a class that is defined anew, as in a notebook, replaces itself.

        Raises:
            InputError: if another class has its key.
        """
        key, kind = entry.config.agent, entry.agent
        there = self._entries.get(key)
        if there is not None:
            other = there.agent
            if (other.__module__, other.__qualname__) != (kind.__module__, kind.__qualname__):
                raise InputError(
                    f"{kind.__module__}:{kind.__qualname__}: agent {key!r} is {other.__module__}:"
                    f"{other.__qualname__} already; give its config another `agent`"
                )
        self.put(key, entry)

    def find(self, key: Any, where: str, address: Any = "") -> AgentEntry:
        """Give an agent that a flag or a file names. Nothing is imported for it.

        Args:
            key: of the agent.
            where: what names it, for the message.
            address: MODULE:CLASS that the file says it comes from.

        Raises:
            InputError: if it is not known, with what to do.
        """
        if isinstance(key, str) and key in self:
            return self[key]
        if isinstance(address, str) and _ADDRESS.fullmatch(address):
            module = address.partition(":")[0]
            raise InputError(
                f"{where}: {key!r} is not chibit's own; give --agent {address} (in Python: import {module})"
            )
        raise InputError(f"{where}: got {key!r}{nearest(str(key), self)}; known: {', '.join(self)}")


AGENTS = AgentRegistry(PLUGINS)
"""Key of a method to its config and agent classes."""


def import_agent(address: str) -> AgentEntry:
    """Import the user's module that defines an agent; the current folder is searched last.

    Args:
        address: MODULE:CLASS, as my_module:MyAgent.

    Raises:
        InputError: if there is no such module or class, or the class is no registered agent.
    """
    module, _, name = address.partition(":")
    if not _ADDRESS.fullmatch(address):
        raise InputError(f"--agent: got {address!r}, expected a key or MODULE:CLASS")
    kind = vars(import_own(module, "--agent")).get(name)
    for entry in AGENTS.values():
        if entry.agent is kind:
            return entry
    raise InputError(
        f"--agent: {address} is no agent; expected a class MyAgent(OffPolicyAgent, config=MyConfig)"
    )


def make_agent(config: AgentConfig, spec: DatasetSpec, runtime: Runtime) -> Agent:
    """Build the agent that a config names.

    Args:
        config: an instance of a config class in `AGENTS`.
        spec: what depends on the data: sizes, normalization, action bounds.
        runtime: device and precision.

    Raises:
        InputError: if the config's class is not the one registered under its key, or the agent is unfinished.
    """
    entry = AGENTS.get(config.agent)
    if entry is None or not isinstance(config, entry.config):
        raise InputError(
            f"agent {config.agent!r} takes no {type(config).__name__}; known agents: {', '.join(AGENTS)}"
        )
    if inspect.isabstract(entry.agent):
        missing = ", ".join(sorted(entry.agent.__abstractmethods__))
        raise InputError(f"agent {config.agent!r}: {entry.agent.__qualname__} does not define {missing}")
    return entry.agent(config, spec, runtime)

"""Agents by name. A new method is one file here and one line in `AGENTS`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chibit.agents.awr import AWR, AWRConfig
from chibit.agents.base import Agent, AgentConfig, AgentEntry, AgentState, Policy, Sampler, require_finite
from chibit.agents.bc import BC, BCConfig
from chibit.agents.brac_v import BRACV, BRACVConfig
from chibit.agents.cql import CQL, CQLConfig
from chibit.agents.decision_transformer import DecisionTransformer
from chibit.agents.decision_transformer_config import DecisionTransformerConfig
from chibit.agents.discrete_bc import DiscreteBC, DiscreteBCConfig
from chibit.agents.discrete_cql import DiscreteCQL, DiscreteCQLConfig
from chibit.agents.iql import IQL, IQLConfig
from chibit.agents.qr_dqn import QRDQN, QRDQNConfig
from chibit.agents.rebrac import ReBRAC, ReBRACConfig
from chibit.agents.rem import REM, REMConfig
from chibit.agents.td3_bc import TD3BC, TD3BCConfig
from chibit.core.errors import InputError

if TYPE_CHECKING:
    from chibit.core.runtime import Runtime
    from chibit.data.trajectory import DatasetSpec

AGENTS: dict[str, AgentEntry] = {
    "dt": AgentEntry(DecisionTransformerConfig, DecisionTransformer),
    "bc": AgentEntry(BCConfig, BC),
    "td3_bc": AgentEntry(TD3BCConfig, TD3BC),
    "cql": AgentEntry(CQLConfig, CQL),
    "brac_v": AgentEntry(BRACVConfig, BRACV),
    "awr": AgentEntry(AWRConfig, AWR),
    "iql": AgentEntry(IQLConfig, IQL),
    "rebrac": AgentEntry(ReBRACConfig, ReBRAC),
    "discrete_bc": AgentEntry(DiscreteBCConfig, DiscreteBC),
    "discrete_cql": AgentEntry(DiscreteCQLConfig, DiscreteCQL),
    "qr_dqn": AgentEntry(QRDQNConfig, QRDQN),
    "rem": AgentEntry(REMConfig, REM),
}
"""Key of a method to its config and agent classes."""


def with_schedules(config: AgentConfig, num_steps: int) -> AgentConfig:
    """Fill in what a config leaves to the length of the run: schedules that are a share of its steps."""
    return config.for_steps(num_steps) if isinstance(config, DecisionTransformerConfig) else config


def make_agent(config: AgentConfig, spec: DatasetSpec, runtime: Runtime) -> Agent:
    """Build the agent that a config names.

    Args:
        config: an instance of a config class in `AGENTS`.
        spec: what depends on the data: sizes, normalisation, action bounds.
        runtime: device and precision.

    Raises:
        InputError: if the config's class is not the one registered under its key.
    """
    entry = AGENTS.get(config.agent)
    if entry is None or not isinstance(config, entry.config):
        raise InputError(
            f"agent {config.agent!r} takes no {type(config).__name__}; known agents: {', '.join(AGENTS)}"
        )
    agent: Agent = entry.agent(config, spec, runtime)
    return agent


__all__ = [
    "AGENTS",
    "Agent",
    "AgentConfig",
    "AgentEntry",
    "AgentState",
    "Policy",
    "Sampler",
    "make_agent",
    "require_finite",
    "with_schedules",
]

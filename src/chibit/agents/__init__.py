"""Agents by name. A new method is one file here and its class in the list below."""

from __future__ import annotations

from chibit.agents.base import Agent, AgentConfig, AgentState, Policy, PolicyStep, Sampler, require_finite
from chibit.agents.continuous import ContinuousAgent
from chibit.agents.discrete import DiscreteAgent
from chibit.agents.off_policy import BaselineConfig, Loss, OffPolicyAgent, Optimizers, adam
from chibit.agents.registry import AGENTS, AgentEntry, make_agent

# isort: off
# Importing a method registers it; this is the order in which methods are listed.
from chibit.agents.dt.agent import DecisionTransformer
from chibit.agents.bc import BC
from chibit.agents.td3_bc import TD3BC
from chibit.agents.cql import CQL
from chibit.agents.brac_v import BRACV
from chibit.agents.awr import AWR
from chibit.agents.iql import IQL
from chibit.agents.rebrac import ReBRAC
from chibit.agents.discrete_bc import DiscreteBC
from chibit.agents.qr_dqn import QRDQN
from chibit.agents.discrete_cql import DiscreteCQL
from chibit.agents.rem import REM
# isort: on

DEFAULT_AGENT = "dt"
"""What is trained where no method is named."""

__all__ = [
    "AGENTS",
    "AWR",
    "BC",
    "BRACV",
    "CQL",
    "DEFAULT_AGENT",
    "IQL",
    "QRDQN",
    "REM",
    "TD3BC",
    "Agent",
    "AgentConfig",
    "AgentEntry",
    "AgentState",
    "BaselineConfig",
    "ContinuousAgent",
    "DecisionTransformer",
    "DiscreteAgent",
    "DiscreteBC",
    "DiscreteCQL",
    "Loss",
    "OffPolicyAgent",
    "Optimizers",
    "Policy",
    "PolicyStep",
    "ReBRAC",
    "Sampler",
    "adam",
    "make_agent",
    "require_finite",
]

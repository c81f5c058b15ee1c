"""Agents by name. A new method is one file here and its name in the list below."""

from __future__ import annotations

from chibit.agents.base import Agent, AgentConfig, AgentState, Policy, PolicyStep, Sampler
from chibit.agents.continuous import ContinuousAgent
from chibit.agents.discrete import DiscreteAgent
from chibit.agents.guard import StepGuard, require_finite
from chibit.agents.off_policy import BaselineConfig, Loss, OffPolicyAgent, Optimizers, adam
from chibit.agents.registry import AGENTS, AgentEntry, make_agent
from chibit.agents.rewards import RewardConfig

# isort: off
# Importing a method registers it; this is the order in which methods are listed.
from chibit.agents.dt import agent  # noqa: F401
from chibit.agents import reinformer  # noqa: F401
from chibit.agents import bc, td3_bc, cql, brac_v, awr, iql, rebrac  # noqa: F401
from chibit.agents import discrete_bc, qr_dqn, discrete_cql, rem  # noqa: F401
from chibit.agents.text import agent as text_agent  # noqa: F401
# isort: on

DEFAULT_AGENT = "dt"
"""What is trained where no method is named."""

__all__ = [
    "AGENTS",
    "DEFAULT_AGENT",
    "Agent",
    "AgentConfig",
    "AgentEntry",
    "AgentState",
    "BaselineConfig",
    "ContinuousAgent",
    "DiscreteAgent",
    "Loss",
    "OffPolicyAgent",
    "Optimizers",
    "Policy",
    "PolicyStep",
    "RewardConfig",
    "Sampler",
    "StepGuard",
    "adam",
    "make_agent",
    "require_finite",
]

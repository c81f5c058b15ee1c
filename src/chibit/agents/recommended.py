"""Settings of baselines that their authors, or CORL, chose for one data set: data, applied by `recommended`.

They were chosen on the D4RL data sets by evaluation in the environment; on other data of that name they are
only a starting point.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from chibit.agents.base import AgentConfig
from chibit.environments.data_names import read_name

ConfigT = TypeVar("ConfigT", bound=AgentConfig)
Settings = Mapping[tuple[str, str], Mapping[str, Any]]

MEDIUM, REPLAY, EXPERT = "medium", "medium-replay", "medium-expert"


def _penalties(actor: float, critic: float) -> dict[str, float]:
    return {"actor_penalty": actor, "critic_penalty": critic}


RECOMMENDED: Mapping[str, Settings] = {
    # Tarasov et al. (2023), as configured in CORL.
    "rebrac": {
        ("halfcheetah", MEDIUM): _penalties(0.001, 0.01),
        ("halfcheetah", REPLAY): _penalties(0.01, 0.001),
        ("halfcheetah", EXPERT): _penalties(0.01, 0.1),
        ("hopper", MEDIUM): _penalties(0.01, 0.01),
        ("hopper", REPLAY): _penalties(0.05, 0.5),
        ("hopper", EXPERT): _penalties(0.1, 0.01),
        ("walker2d", MEDIUM): _penalties(0.05, 0.1),
        ("walker2d", REPLAY): _penalties(0.05, 0.01),
        ("walker2d", EXPERT): _penalties(0.01, 0.01),
    },
    # CORL; its deterministic actor for hopper-medium and hopper-medium-replay is left out, and so is that it
    # takes rewards as they are on hopper-medium-expert.
    "iql": {
        ("hopper", MEDIUM): {"tau": 0.001},
        ("hopper", REPLAY): {"tau": 0.001},
        ("hopper", EXPERT): {"inverse_temperature": 6.0, "expectile": 0.5},
    },
    # CORL.
    "cql": {("hopper", MEDIUM): {"scale_rewards": True}},
}
"""Agent to (environment, level) to fields of its config."""


def recommended(config: ConfigT, dataset_name: str) -> ConfigT:
    """Give the settings for a data set.

    Args:
        config: an agent's config; fields without a recommendation keep their values.
        dataset_name: exactly as its source spells it: hopper-medium-v2, mujoco/hopper/medium-v0,
            chibit/hopper/medium-v0, or hopper-medium. Paths and parts of names mean nothing.

    Returns:
        The same config where nothing is recommended for the agent or the data set.
    """
    settings, name = RECOMMENDED.get(config.agent, {}), read_name(dataset_name)
    plain: Any = config  # a dataclass, though its base class is none
    changed: ConfigT = replace(plain, **settings.get((name.environment, name.level), {}) if name else {})
    return changed

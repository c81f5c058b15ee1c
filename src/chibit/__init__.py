"""chibit: offline reinforcement learning as sequence modeling, with pre-trained weights.

The names below are the public API; each is imported when it is first used, so ``import chibit`` is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from chibit.core.version import __version__ as __version__

if TYPE_CHECKING:
    from chibit.agents import AGENTS, make_agent
    from chibit.core.errors import UserError
    from chibit.data.collect.mujoco import collect
    from chibit.data.load import from_arrays, load_dataset
    from chibit.environments.make import make_env
    from chibit.environments.registry import register_env
    from chibit.evaluation.rollout import evaluate
    from chibit.fitting import FitResult, fit
    from chibit.judging.judge import Judge, judge
    from chibit.models.gpt import GPT, GPTConfig
    from chibit.models.initializers import load_initializer
    from chibit.models.language_model import LanguageModel
    from chibit.models.own_backbone import register_backbone
    from chibit.policy.onnx_policy import OnnxPolicy
    from chibit.policy.policy import Policy
    from chibit.recipes import RECIPES
    from chibit.reporting import build_report
    from chibit.training.offline import Evaluated, train
    from chibit.training.run_config import RunConfig

_HOME = {
    "AGENTS": "chibit.agents",
    "Evaluated": "chibit.training.offline",
    "FitResult": "chibit.fitting",
    "GPT": "chibit.models.gpt",
    "GPTConfig": "chibit.models.gpt",
    "Judge": "chibit.judging.judge",
    "LanguageModel": "chibit.models.language_model",
    "OnnxPolicy": "chibit.policy.onnx_policy",
    "Policy": "chibit.policy.policy",
    "RECIPES": "chibit.recipes",
    "RunConfig": "chibit.training.run_config",
    "UserError": "chibit.core.errors",
    "build_report": "chibit.reporting",
    "collect": "chibit.data.collect.mujoco",
    "evaluate": "chibit.evaluation.rollout",
    "fit": "chibit.fitting",
    "from_arrays": "chibit.data.load",
    "judge": "chibit.judging.judge",
    "load_dataset": "chibit.data.load",
    "load_initializer": "chibit.models.initializers",
    "make_agent": "chibit.agents",
    "make_env": "chibit.environments.make",
    "register_backbone": "chibit.models.own_backbone",
    "register_env": "chibit.environments.registry",
    "train": "chibit.training.offline",
}

__all__ = [
    "AGENTS",
    "GPT",
    "RECIPES",
    "Evaluated",
    "FitResult",
    "GPTConfig",
    "Judge",
    "LanguageModel",
    "OnnxPolicy",
    "Policy",
    "RunConfig",
    "UserError",
    "build_report",
    "collect",
    "evaluate",
    "fit",
    "from_arrays",
    "judge",
    "load_dataset",
    "load_initializer",
    "make_agent",
    "make_env",
    "register_backbone",
    "register_env",
    "train",
]


if not TYPE_CHECKING:  # which would find any name in here

    def __getattr__(name: str) -> Any:
        if name not in _HOME:
            raise AttributeError(f"module 'chibit' has no attribute {name!r}")
        return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

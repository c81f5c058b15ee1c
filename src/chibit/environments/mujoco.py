"""MuJoCo's contact margins, as they are and as D4RL's data were made with."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import gymnasium as gym
import mujoco


def take_larger_margins(env: gym.Env) -> None:
    """Give contacts the margin that MuJoCo before 3.5 gave them: max(m1, m2), where later ones use m1 + m2.

    Where all geoms share one margin, as in Hopper, halving it restores the old trajectories to rounding
    error. It changes nothing under an older MuJoCo, and in models without a margin (HalfCheetah, Walker2d).
    In Ant a smaller difference (1e-3) remains.
    """
    if _adds_margins():
        env.unwrapped.model.geom_margin[:] *= 0.5  # type: ignore[attr-defined]
    env.unwrapped.has_larger_margins = True  # type: ignore[attr-defined]


def physics(d4rl_physics: bool) -> dict[str, Any]:
    """Version, and how the margins of two touching geoms combine: `max` (before 3.5, and D4RL) or `sum`."""
    margin = "sum" if _adds_margins() and not d4rl_physics else "max"
    return {"mujoco": mujoco.__version__, "d4rl_physics": d4rl_physics, "contact_margin": margin}


def let_compare(module: Any) -> None:
    """Let a library that asks ``joint_type in (mjtJoint....)`` find it under MuJoCo 4.

    There an enumeration's member does not equal a number of numpy's that stands on the right, so that
    Gymnasium-Robotics 1.4 builds neither Fetch nor the kitchen.
    """
    numbers = {name: int(member) for name, member in mujoco.mjtJoint.__members__.items()}
    module.mujoco = ModuleType("mujoco")
    vars(module.mujoco).update(vars(mujoco), mjtJoint=SimpleNamespace(**numbers))


@contextmanager
def quiet() -> Iterator[None]:
    """Drop the model compiler's notice that HalfCheetah's file uses `settotalmass`; pass on other warnings.

    Without this every environment built prints it, and leaves a MUJOCO_LOG.TXT in the working folder.
    """
    messages: list[str] = []
    previous = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(messages.append)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(previous)
    for message in messages:
        if "settotalmass" not in message:
            warnings.warn(message, RuntimeWarning, stacklevel=4)


def _adds_margins() -> bool:
    """Whether this MuJoCo adds the margins of two geoms (3.5 and later) instead of taking the larger."""
    major, minor = mujoco.__version__.split(".")[:2]
    return (int(major), int(minor)) >= (3, 5)

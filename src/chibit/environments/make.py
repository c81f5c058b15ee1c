"""Environments by name: an allow-list, so that no file can smuggle in another, and the contact margin."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium as gym

from chibit.core.errors import InputError
from chibit.core.files import nearest
from chibit.environments.atari import (
    ATARI_ENV_IDS,
    FRAME_SKIP,
    STICKY_ACTIONS,
    AtariEnv,
    ale_version,
    has_sticky_actions,
)

_MUJOCO_BOTH_VERSIONS = (
    "Ant",
    "HalfCheetah",
    "Hopper",
    "Humanoid",
    "HumanoidStandup",
    "InvertedDoublePendulum",
    "InvertedPendulum",
    "Reacher",
    "Swimmer",
    "Walker2d",
)

MUJOCO_ENV_IDS: frozenset[str] = frozenset(
    [f"{name}-{version}" for name in _MUJOCO_BOTH_VERSIONS for version in ("v4", "v5")]
    # Pusher-v4 cannot be built with MuJoCo 3.
    + ["Pusher-v5"]
)

CLASSIC_CONTROL_ENV_IDS: frozenset[str] = frozenset(
    ["Acrobot-v1", "CartPole-v0", "CartPole-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Pendulum-v1"]
)

ALLOWED: frozenset[str] = MUJOCO_ENV_IDS | CLASSIC_CONTROL_ENV_IDS | ATARI_ENV_IDS
"""Every environment that may be built. Data sets name environments; only names found here are used."""


def check_env_id(env_id: str) -> str:
    """Return `env_id` if it is on the allow-list.

    Raises:
        InputError: It is not; the message names the nearest ids.
    """
    if env_id in ALLOWED:
        return env_id
    hint = nearest(env_id, sorted(ALLOWED)) or f"; known are {', '.join(sorted(ALLOWED))}"
    raise InputError(f"environment {env_id!r} is not one that can be built here{hint}")


def make_env(
    env_id: str,
    *,
    d4rl_physics: bool = False,
    render_mode: str | None = None,
    max_episode_steps: int | None = None,
) -> gym.Env:
    """Build one environment.

    Args:
        env_id: An id from `ALLOWED`.
        d4rl_physics: Give contacts the margin that MuJoCo before 3.5 gave them, max(m1, m2) where later
            versions use m1 + m2. Where all geoms share one margin, as in Hopper, halving it restores the old
            trajectories to rounding error. It changes nothing under an older MuJoCo, in models without a
            margin (HalfCheetah, Walker2d), and outside MuJoCo. In Ant a smaller difference (1e-3) remains.
        render_mode: Passed to Gymnasium.
        max_episode_steps: Time limit in environment steps; `None` is the environment's own.

    Raises:
        InputError: The id is not on the allow-list.
    """
    check_env_id(env_id)
    if env_id in ATARI_ENV_IDS:
        return AtariEnv(env_id, max_episode_steps=max_episode_steps, render_mode=render_mode)
    with warnings.catch_warnings(), _quiet_model_compiler():
        # v4 is chosen on purpose: it is the version that D4RL data belong to.
        warnings.filterwarnings("ignore", message=r".*is out of date", category=DeprecationWarning)
        env = gym.make(
            env_id, render_mode=render_mode, max_episode_steps=max_episode_steps, disable_env_checker=True
        )
    if d4rl_physics and env_id in MUJOCO_ENV_IDS and _adds_margins():
        env.unwrapped.model.geom_margin[:] *= 0.5  # type: ignore[attr-defined]
    return env


def physics_record(env_id: str, d4rl_physics: bool) -> dict[str, Any]:
    """Say which physics an environment runs with, for data sets and run provenance.

    Returns:
        `env_id`, `gymnasium` (version) and, for MuJoCo environments, `mujoco` (version), `d4rl_physics` and
        `contact_margin`: how the margins of two touching geoms combine, `"max"` (MuJoCo before 3.5, and D4RL)
        or `"sum"`; for Atari `ale` (version), `frame_skip` and `sticky_actions` (probability).
    """
    check_env_id(env_id)
    record: dict[str, Any] = {"env_id": env_id, "gymnasium": gym.__version__}
    if env_id in ATARI_ENV_IDS:
        sticky = STICKY_ACTIONS if has_sticky_actions(env_id) else 0.0
        record |= {"ale": ale_version(), "frame_skip": FRAME_SKIP, "sticky_actions": sticky}
    if env_id in MUJOCO_ENV_IDS:
        sums = _adds_margins() and not d4rl_physics
        record |= {
            "mujoco": _mujoco_version(),
            "d4rl_physics": d4rl_physics,
            "contact_margin": "sum" if sums else "max",
        }
    return record


@contextmanager
def _quiet_model_compiler() -> Iterator[None]:
    """Drop MuJoCo 4's notice that HalfCheetah's model file uses `settotalmass`; pass on any other warning.

    Without this every environment built prints it, and leaves a MUJOCO_LOG.TXT in the working folder.
    """
    import mujoco

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


def _mujoco_version() -> str:
    import mujoco  # 0.3 s; not needed for classic control

    return str(mujoco.__version__)


def _adds_margins() -> bool:
    """Whether this MuJoCo adds the margins of two geoms (3.5 and later) instead of taking the larger."""
    major, minor = _mujoco_version().split(".")[:2]
    return (int(major), int(minor)) >= (3, 5)

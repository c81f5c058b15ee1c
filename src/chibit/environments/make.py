"""Environments by id: only those of the registry are built."""

from __future__ import annotations

from typing import Any

import gymnasium as gym

from chibit.core.config import as_field
from chibit.core.fields import Count
from chibit.environments.registry import find_environment


def make_env(
    env_id: str,
    *,
    d4rl_physics: bool = False,
    render_mode: str | None = None,
    max_episode_steps: int | None = None,
) -> gym.Env:
    """Build one environment.

    Args:
        env_id: one of `chibit.environments.registry.ENVIRONMENTS`.
        d4rl_physics: give contacts the margin that MuJoCo before 3.5 gave them; see
            `chibit.environments.mujoco.take_larger_margins`.
        render_mode: passed to Gymnasium.
        max_episode_steps: time limit in environment steps; None is the environment's own.

    Raises:
        InputError: if it is not in the registry, or for a limit out of range.
    """
    limit = as_field(Count | None, max_episode_steps, "max_episode_steps")
    return find_environment(env_id).build(
        env_id, d4rl_physics=d4rl_physics, render_mode=render_mode, max_episode_steps=limit
    )


def physics_record(env_id: str, d4rl_physics: bool) -> dict[str, Any]:
    """Say which physics an environment runs with, for data sets and run provenance.

    Returns:
        `env_id`, `gymnasium` (version) and, for MuJoCo environments, `mujoco` (version), `d4rl_physics` and
        `contact_margin`, `"max"` or `"sum"`; for Atari `ale` (version), `frame_skip` and `sticky_actions`
        (probability).
    """
    found = find_environment(env_id).physics(env_id, d4rl_physics)
    return {"env_id": env_id, "gymnasium": gym.__version__, **found}

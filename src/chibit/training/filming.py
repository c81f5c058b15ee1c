"""Videos of what a run has learned, in its own directory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from chibit.core.errors import InputError
from chibit.evaluation.video import record_video
from chibit.training.loading import LoadedRun


def film(loaded: LoadedRun, targets: Sequence[float] | None, seed: int) -> list[Path]:
    """Film one episode for each target into the run's videos folder.

    Args:
        loaded: the run.
        targets: raw returns to ask for; None where the agent takes none.
        seed: seed of the episode.

    Raises:
        UserError: where nothing can render, with what to install.
    """
    spec = loaded.spec
    if spec.env_id is None:
        raise InputError(f"{loaded.run.path}: its data name no environment that chibit knows")
    paths = []
    for target in targets or (None,):
        name = "policy" if target is None else f"target-{target:g}"
        path = loaded.run.own_folder("videos") / f"{name}.mp4"
        policy = loaded.agent.policy(None if target is None else (target,))
        record_video(policy, spec.env_id, path, seed=seed, d4rl_physics=spec.d4rl_physics)
        paths.append(path)
    return paths

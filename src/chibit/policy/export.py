"""A policy as a folder to deploy or share: weights, configuration and card, and a film and an ONNX graph."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from chibit.agents.base import Agent
from chibit.core.errors import InputError, UserError
from chibit.core.files import user_path, write_atomic
from chibit.core.shared_folder import shared_folder
from chibit.core.temporary import remove
from chibit.data.dataset import DatasetSpec
from chibit.environments.kinds import missing_extra
from chibit.environments.registry import ENVIRONMENTS
from chibit.policy.card import PolicyScore, model_card
from chibit.policy.format import checked_target, write_policy
from chibit.policy.onnx_policy import GRAPH

_KIND = "policy"
"""What `shared_folder` knows it as."""
_VIDEO, _CARD = "replay.mp4", "README.md"


def export_policy(
    agent: Agent,
    spec: DatasetSpec,
    folder: str | Path,
    *,
    target_return: float | None = None,
    scores: Sequence[PolicyScore] = (),
) -> Path:
    """Write an agent's policy into a folder, beside what is there.

    Files that were written by it before are replaced, those of others are left alone.

    Args:
        agent: its current weights are written.
        spec: of the data it was trained on.
        folder: where to.
        target_return: raw return it shall ask for; None is the data's first default.
        scores: evaluations for the model card.

    Returns:
        The folder.

    Raises:
        InputError: for a target return that is not finite, or given to a method that takes none; where the
            folder holds a run, a data set or the like, or a file of somebody else's under one of our names.
        ResourceError: if it cannot be written.
    """
    path = user_path(folder)
    export_with_extras(agent, spec, path, target_return=target_return, scores=scores)
    return path


def export_with_extras(
    agent: Agent,
    spec: DatasetSpec,
    folder: Path,
    *,
    target_return: float | None = None,
    scores: Sequence[PolicyScore] = (),
    notes: Sequence[str] = (),
    onnx: bool = False,
    film_seed: int | None = None,
) -> str:
    """Do the same, and write more files.

    Args:
        agent: on the CPU.
        spec: as in `export_policy`, like the other arguments that are not named here.
        folder: where to.
        target_return: raw return.
        scores: evaluations.
        notes: lines for the card, below its scores.
        onnx: write `policy.onnx` too; raises as `export_onnx`.
        film_seed: film the beginning of the episode of this seed as `replay.mp4`, where something can draw.

    Returns:
        Why there is no film; empty if there is one or none was asked for.
    """
    no_film, files = "", []
    with shared_folder(folder, _KIND) as inside:
        saved = write_policy(agent, spec, inside, target_return, scores)
        if onnx:
            from chibit.policy.onnx import export_onnx

            export_onnx(agent, spec, inside / GRAPH, target_return=saved.target_return)
            files.append(
                f"- `{GRAPH}`: one step of the policy for ONNX runtimes, inputs raw; "
                "`chibit.OnnxPolicy.from_pretrained` acts with it, without torch."
            )
        if film_seed is not None:
            try:
                film(agent, spec, inside / _VIDEO, target_return=target_return, seed=film_seed)
                files.append(f"- `{_VIDEO}`: the beginning of an episode.")
            except UserError as error:
                remove(inside / _VIDEO)
                no_film = str(error)
        card = model_card(
            saved.agent,
            spec,
            saved.target_return,
            scores,
            draws_actions=agent.draws_actions,
            reads_missions=agent.config.reads_missions,
            notes=notes,
            files=files,
            imports=_imports(saved.agent_class, spec.env_id),
        )
        write_atomic(inside / _CARD, card)
    return no_film


def _imports(agent_class: str, env_id: str | None) -> list[str]:
    """Lines of Python by which a user's own agent and environment become known."""
    row = None if env_id is None else ENVIRONMENTS.get(env_id)
    modules = (agent_class.partition(":")[0], "" if row is None or env_id is None else row.module(env_id))
    lines = [f"import {module}  # yours" for module in dict.fromkeys(filter(None, modules))]
    missing = env_id is not None and row is None and not missing_extra(env_id)
    return [*lines, f"# import here what registers {env_id}"] if missing else lines


def film(agent: Agent, spec: DatasetSpec, path: Path, *, target_return: float | None, seed: int) -> None:
    """Film the beginning of an episode.

    Args:
        agent: plays with its current weights.
        spec: of the data it was trained on; names the environment.
        path: the mp4 file.
        target_return: raw return to ask for; None is the data's first default where the method takes one.
        seed: of the episode.
    """
    if spec.env_id is None:
        raise InputError("video: the data name no environment that chibit knows")
    from chibit.evaluation.video import record_video  # it needs Gymnasium, which acting does not

    target = checked_target(agent, spec, target_return)
    policy = agent.policy(None if target is None else (target,))
    record_video(policy, spec.env_id, path, seed=seed, d4rl_physics=spec.d4rl_physics)

"""A run's policy as a folder to share: weights, configuration, card, a film, and an ONNX graph."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from chibit.core.errors import UserError
from chibit.core.files import read_regular, write_atomic
from chibit.core.formatting import format_number, format_setting
from chibit.core.shared_folder import shared_folder
from chibit.core.temporary import remove
from chibit.environments.scores import normalized_score
from chibit.evaluation.summary import EvaluationSummary, summarize_record
from chibit.evaluation.video import record_video
from chibit.policy.card import PolicyScore
from chibit.policy.format import KIND, write_policy
from chibit.training.loading import LoadedRun

VIDEO, GRAPH, CARD = "replay.mp4", "policy.onnx", "README.md"
_RESAMPLES = 10_000
_LONGEST_CARD = 64 << 20


def write_hub_folder(
    loaded: LoadedRun,
    out: Path,
    *,
    target_return: float | None = None,
    onnx: bool = False,
    video: bool = True,
    seeds: str = "",
) -> tuple[Path, str]:
    """Write the folder, beside what is there; as `export_policy` does, with more files.

    Args:
        loaded: the run at a checkpoint, on the CPU.
        out: the folder.
        target_return: raw return the policy shall ask for; None where it takes none.
        onnx: write `policy.onnx` too.
        video: film an episode as `replay.mp4`, where something can draw here.
        seeds: what other seeds of the same arm say, a paragraph for the card.

    Returns:
        The folder, and why there is no film; empty if there is one or none was asked for.

    Raises:
        UserError: as `export_policy`, and as `export_onnx` if a graph is asked for.
    """
    agent, spec = loaded.agent, loaded.spec
    lines = [*_intervals(loaded), *([seeds] if seeds else [])]
    no_video = ""
    with shared_folder(out, KIND) as folder:
        write_policy(agent, spec, folder, target_return=target_return, scores=checkpoint_scores(loaded))
        files = []
        if onnx:
            from chibit.policy.onnx import export_onnx

            export_onnx(agent, spec, folder / GRAPH)
            files.append(f"- `{GRAPH}`: one step of the policy for ONNX runtimes, inputs raw.")
        if video:
            no_video = _film(loaded, target_return, folder / VIDEO)
            if not no_video:
                files.append(f"- `{VIDEO}`: the beginning of an episode.")
        _extend_card(folder / CARD, lines, files)
    return out, no_video


def checkpoint_scores(loaded: LoadedRun) -> list[PolicyScore]:
    """The run's evaluations at the step of the checkpoint, for a model card."""
    scores = []
    for summary in _summaries(loaded):
        if summary.mean_return is not None:
            scores.append(
                PolicyScore(
                    env_id=loaded.spec.env_id or "",
                    target_return=summary.target_return,
                    num_episodes=summary.num_episodes,
                    mean_return=summary.mean_return,
                    std_return=summary.std_return,
                    normalized_score=summary.normalized_score,
                )
            )
    return scores


def mean_interval(values: Sequence[float] | np.ndarray) -> tuple[float, float] | None:
    """The 95% percentile bootstrap interval of a mean; None for fewer than two values."""
    array = np.asarray(values, np.float64)
    if len(array) < 2:
        return None
    draws = np.random.default_rng(0).integers(0, len(array), (_RESAMPLES, len(array)))
    low, high = np.percentile(array[draws].mean(axis=1), (2.5, 97.5))
    return float(low), float(high)


def _summaries(loaded: LoadedRun) -> list[EvaluationSummary]:
    """The evaluations of the checkpoint's step."""
    records = loaded.run.read_log("evaluations.jsonl")
    return [summarize_record(record) for record in records if record["step"] == loaded.step]


def _intervals(loaded: LoadedRun) -> list[str]:
    """A sentence on each evaluation."""
    lines = []
    for summary in _summaries(loaded):
        target, mean = summary.target_return, summary.mean_return
        asked = "" if target is None else f" at target return {format_setting(target)}"
        interval = mean_interval(summary.returns)
        if mean is None or interval is None:
            lines.append(f"- Mean return{asked}: {summary.sample}, so no interval can be given.")
            continue
        shown = [format_number(value, like=interval) for value in (mean, *interval)]
        line = "- Mean return{}: {}, 95% interval {} to {}".format(asked, *shown)
        reference = loaded.spec.score_reference
        if reference is not None:
            scores = (float(normalized_score(value, reference)) for value in (mean, *interval))
            line += "; normalised {}, {} to {}".format(*(format_number(s, decimals=1) for s in scores))
        lines.append(f"{line} (bootstrap over {summary.sample} of this one run).")
    return lines


def _film(loaded: LoadedRun, target: float | None, path: Path) -> str:
    """Film an episode; why not, in one line, where nothing can draw."""
    spec = loaded.spec
    if spec.env_id is None:
        return "its data name no environment that chibit knows"
    try:
        policy = loaded.agent.policy(None if target is None else (target,))
        record_video(policy, spec.env_id, path, seed=loaded.config.seed, d4rl_physics=spec.d4rl_physics)
    except UserError as error:
        remove(path)
        return str(error)
    return ""


def _extend_card(path: Path, intervals: list[str], files: list[str]) -> None:
    """Put the intervals below the card's scores, and name the files at its end."""
    card = read_regular(path, most=_LONGEST_CARD).decode()
    if intervals:
        head, use, rest = card.partition("\n## Use\n")
        card = head + "\n" + "\n".join(intervals) + "\n" + use + rest
    if files:
        card += "\n## Further files\n\n" + "\n".join(files) + "\n"
    write_atomic(path, card)

"""What a run is played in at its end beside its own environment: the splits of a language task."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from chibit.agents import Agent
from chibit.data.dataset import DatasetSpec
from chibit.environments.registry import ENVIRONMENTS
from chibit.evaluation.rollout import evaluate

_TIMES = 2


def play_splits(
    agent: Agent,
    spec: DatasetSpec,
    targets: Sequence[float] | None,
    num_episodes: int,
    *,
    seed: int,
    say: Callable[[str], None],
    only: Collection[str] | None = None,
) -> tuple[list[dict[str, Any]], float]:
    """Play every split, from the same seeds.

    Args:
        agent: as it is at the end.
        spec: of its data.
        targets: raw returns to ask for, of which the first is; None where it takes none.
        num_episodes: of an evaluation; each split has twice as many. 0 plays none.
        seed: of the episodes.
        say: told of each split.
        only: names of the splits; None plays all.

    Returns:
        A record of each for result.json, none where the environment has no splits; and the seconds they took.
    """
    records, seconds = list[dict[str, Any]](), 0.0
    played = {} if spec.env_id is None else ENVIRONMENTS[spec.env_id].played_at_end(spec.env_id)
    wanted = {split: env_id for split, env_id in played.items() if only is None or split in only}
    for split, env_id in wanted.items() if num_episodes else ():
        asked = None if targets is None else targets[:1]
        (evaluation,) = evaluate(
            agent.policy(asked),
            env_id,
            target_returns=(None,) if asked is None else asked,
            num_episodes=_TIMES * num_episodes,
            seed=seed,
            max_episode_steps=spec.max_episode_steps,
            score_reference=spec.score_reference,
        )
        say(f"split {split}: {evaluation.summary}")
        seconds += evaluation.seconds
        records.append({"split": split, "successes": list(evaluation.successes)})
    return records, seconds

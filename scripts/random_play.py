"""Play games with actions drawn uniformly and keep each evaluation as a line of raw results.

Files: ``<out>/table1_small/random_play/<game>.csv``. Without sticky actions.

Command: python scripts/random_play.py Breakout Pong --num-episodes 10
"""

from __future__ import annotations

import argparse
import csv
import io
from pathlib import Path

import numpy as np

from chibit.core.files import write_atomic
from chibit.environments.make import make_env
from chibit.environments.registry import find_game
from chibit.evaluation.rollout import evaluate


class RandomPolicy:
    """Actions drawn uniformly, each episode from a stream of its own."""

    def __init__(self, num_actions: int) -> None:
        self._num_actions = num_actions
        self._streams: list[np.random.Generator] = []

    def reset(self, num_envs: int) -> None:
        """Begin the streams anew."""
        self._streams = [np.random.default_rng(i) for i in range(num_envs)]

    def act(self, observations: np.ndarray) -> np.ndarray:
        """(E,) actions, whatever is seen."""
        return np.array([stream.integers(self._num_actions) for stream in self._streams])

    def observe(self, rewards: np.ndarray, dones: np.ndarray) -> None:
        """Nothing is learned."""


def play(game: str, num_episodes: int) -> str:
    """One evaluation as CSV, in the columns of the other files of the study."""
    env_id = f"{game}NoFrameskip-v4"
    env = make_env(env_id)
    policy = RandomPolicy(int(env.action_space.n))  # type: ignore[attr-defined]
    env.close()
    (evaluation,) = evaluate(
        policy,
        env_id,
        target_returns=[None],
        num_episodes=num_episodes,
        seed=0,
        score_reference=find_game(game).score_reference,
    )
    summary = evaluation.summary
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(("seed", "step", "seconds", "target_return", "score", "mean_return", "episodes"))
    values = (f"{summary.normalized_score:.4f}", f"{summary.mean_return:.7g}", summary.num_episodes)
    writer.writerow((0, 0, "0.0", "", *values))
    return buffer.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("games", nargs="+")
    parser.add_argument("--num-episodes", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path("results"))
    arguments = parser.parse_args()
    for game in arguments.games:
        path = arguments.out / "table1_small" / "random_play" / f"{game.lower()}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, play(game, arguments.num_episodes))
        print(path, path.read_text().splitlines()[1])


if __name__ == "__main__":
    main()

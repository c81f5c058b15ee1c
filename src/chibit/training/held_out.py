"""The action error on episodes that are not trained on, beside that on those that are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from chibit.agents import Agent
from chibit.data.dataset import TrajectoryDataset
from chibit.data.statistics import spread_of
from chibit.training.run_data import generator_of

HELD_OUT_ROWS = 256
"""Windows or transitions at least, drawn once for a run; runs that share a seed and a kind of batch share
them."""
BEST = 0.1
"""Share of the held-out steps that count as the best: whole episodes, from the best return down."""
APART, FAR_APART = 1.25, 2.0
"""Data are learned by heart where the ratio of the held-out error to that on what is trained on grows by the
first, or is above the second. Episodes differ, and batches are few: it need not begin at 1."""


class HeldOutError:
    """Mean action error over fixed batches of a part of the data, without dropout."""

    def __init__(self, agent: Agent, dataset: TrajectoryDataset, seed: int, use: int = 2) -> None:
        """Draw the batches.

        Args:
            agent: the agent in training.
            dataset: the part.
            seed: of the run.
            use: what the draws are for; each has random numbers of its own.
        """
        sampler = agent.error_sampler(dataset, generator_of(seed, use))
        self._agent = agent
        self.batches = [sampler.sample() for _ in range(-(-HELD_OUT_ROWS // agent.config.batch_size))]

    def __call__(self) -> float:
        """The error now, as `Agent.action_error` defines it."""
        return sum(self._agent.action_error(batch) for batch in self.batches) / len(self.batches)

    def by_dimension(self) -> np.ndarray | None:
        """(A,) mean squared error of each dimension of the action; None where actions are discrete."""
        errors = [self._agent.action_errors(batch) for batch in self.batches]
        found = [error for error in errors if error is not None]
        return np.mean(found, axis=0) if found else None


class HeldOut:
    """All that is measured on held-out episodes while an agent trains."""

    def __init__(
        self, agent: Agent, trained: TrajectoryDataset, held_out: TrajectoryDataset, seed: int
    ) -> None:
        """Draw batches of what is held out, of its best episodes, and of what is trained on."""
        self._name = agent.action_error_name
        self.error = HeldOutError(agent, held_out, seed)
        """On all that is held out."""
        self._best = HeldOutError(agent, held_out.top_fraction(BEST), seed, use=3)
        self._trained = HeldOutError(agent, trained, seed, use=4)
        self.ahead: tuple[Sequence[float], np.ndarray | None] | None = None
        """What `measured` would give now, where a stack of runs has measured it already."""
        self._spread = np.ones(0)
        if not trained.is_discrete:
            self._spread = spread_of(trained.actions)
        self._first_ratio: float | None = None
        self._has_warned = False

    def __call__(self) -> dict[str, float]:
        """Errors by their names in metrics.jsonl."""
        (errors, squares), self.ahead = self.ahead or self.measured(), None
        names = f"held_out/{self._name}", f"held_out/best_tenth_{self._name}", f"train/{self._name}"
        metrics = dict(zip(names, errors, strict=True))
        if squares is not None:
            apart = np.sqrt(squares) / self._spread
            metrics |= {f"held_out/dimension_{i}": error for i, error in enumerate(apart.tolist())}
        return metrics

    @property
    def parts(self) -> tuple[HeldOutError, ...]:
        """Of all that is held out, of its best episodes, and of what is trained on."""
        return self.error, self._best, self._trained

    def measured(self) -> tuple[Sequence[float], np.ndarray | None]:
        """The error of each part, and (A,) those of the first by dimension, squared."""
        return [part() for part in self.parts], self.error.by_dimension()

    def state_dict(self) -> dict[str, Any]:
        """What `warning` goes by beside the errors, for a checkpoint."""
        return {"first_ratio": self._first_ratio, "has_warned": self._has_warned}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self._first_ratio, self._has_warned = state["first_ratio"], state["has_warned"]

    def warning(self, metrics: dict[str, float]) -> str | None:
        """What to say, once, when the error on held-out episodes leaves that on the others."""
        error, trained = metrics[f"held_out/{self._name}"], metrics[f"train/{self._name}"]
        ratio = error / trained if trained > 0 else 1.0
        if self._first_ratio is None:
            self._first_ratio = max(1.0, ratio)
        if self._has_warned or not ratio > min(FAR_APART, APART * self._first_ratio):
            return None
        self._has_warned = True
        return (
            f"the action error on held-out episodes is {error:.3g}, on those trained on {trained:.3g}: the "
            "agent learns its data by heart (which need not make it act worse, see docs/judging.md)"
        )

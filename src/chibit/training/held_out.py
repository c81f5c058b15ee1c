"""The action error on episodes that are not trained on, measured beside training."""

from __future__ import annotations

import numpy as np

from chibit.agents import Agent
from chibit.data.dataset import TrajectoryDataset

NUM_ROWS = 256
"""Held-out windows or transitions at least, drawn once for a run; runs that share a seed and a kind of batch
share them."""


class HeldOutError:
    """Mean action error over fixed batches of held-out episodes, without dropout."""

    def __init__(self, agent: Agent, dataset: TrajectoryDataset, seed: int) -> None:
        """Draw the batches.

        Args:
            agent: the agent in training.
            dataset: the held-out episodes.
            seed: of the run.
        """
        generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, 2])))
        sampler = agent.sampler(dataset, generator)
        self._agent = agent
        self._batches = [sampler.sample() for _ in range(-(-NUM_ROWS // agent.config.batch_size))]

    def __call__(self) -> dict[str, float]:
        """The error now, as `Agent.action_error` defines it."""
        errors = [self._agent.action_error(batch) for batch in self._batches]
        return {f"held_out/{self._agent.action_error_name}": sum(errors) / len(errors)}

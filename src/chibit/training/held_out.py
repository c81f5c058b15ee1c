"""The action error on episodes that are not trained on, measured beside training."""

from __future__ import annotations

import numpy as np

from chibit.agents import Agent
from chibit.agents.decision_transformer import DecisionTransformer
from chibit.core.errors import InputError
from chibit.data.trajectory import TrajectoryDataset

NUM_WINDOWS = 256
"""Held-out windows, drawn once for a run; runs that share a seed and a context share them."""


class HeldOutError:
    """Mean action loss over fixed windows of held-out episodes, without dropout."""

    def __init__(self, agent: Agent, dataset: TrajectoryDataset, seed: int) -> None:
        """Draw the windows.

        Args:
            agent: the agent in training.
            dataset: the held-out episodes.
            seed: of the run.

        Raises:
            InputError: for an agent other than the sequence model.
        """
        if not isinstance(agent, DecisionTransformer):
            raise InputError("validation_share: only agent dt measures a held-out action error; set it to 0")
        generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, 2])))
        sampler = agent.sampler(dataset, generator)
        self._agent = agent
        self._batches = [sampler.sample() for _ in range(-(-NUM_WINDOWS // agent.config.batch_size))]

    def __call__(self) -> dict[str, float]:
        """The error now: mean squared error of actions, or cross-entropy where they are discrete."""
        errors = [self._agent.action_error(batch) for batch in self._batches]
        return {"held_out/action_error": sum(errors) / len(errors)}

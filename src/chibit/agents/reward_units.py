"""In which units values are learned: networks and step sizes suit rewards whose size is around 1.

In the paper's environments rewards are as the authors of each method had them. Elsewhere they follow the
data, so that neither their unit nor, where it makes no difference, their mean changes what is learned.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chibit.core.formatting import format_number, format_setting
from chibit.data.choices import Choice
from chibit.data.dataset import TrajectoryDataset
from chibit.data.readers.origin import usual_return_scale
from chibit.data.statistics import LEAST_REWARD, is_constant


@dataclass(frozen=True)
class RewardUnits:
    """What is made of rewards before anything is learned from them."""

    scale: float = 1.0
    """They are multiplied by this,"""
    offset: float = 0.0
    """less this,"""
    limit: float | None = None
    """and cut to ± this; None keeps them."""
    why: str = ""
    """Where it comes from."""

    def __call__(self, rewards: np.ndarray) -> np.ndarray:
        """Raw rewards in these units."""
        if self.offset:
            rewards = rewards - self.offset
        if self.scale != 1.0:
            rewards = rewards * self.scale
        return rewards if self.limit is None else np.clip(rewards, -self.limit, self.limit)

    @property
    def choice(self) -> Choice:
        """A line for the table of what was chosen."""
        parts = [f"less {format_number(self.offset)}"] if self.offset else []
        parts += [f"times {format_number(self.scale)}"] if self.scale != 1.0 else []
        parts += [] if self.limit is None else [f"cut to ±{format_setting(self.limit)}"]
        return Choice("rewards", ", ".join(parts) or "as they are", self.why)


def is_the_papers(env_id: str | None) -> bool:
    """Whether the paper, and the authors of the baselines, have units of their own for an environment."""
    return usual_return_scale(env_id) is not None


def usual_units(dataset: TrajectoryDataset) -> RewardUnits:
    """Units where nobody gives others: the paper's, or those of the data."""
    env_id = dataset.spec.env_id
    return RewardUnits(why=f"usual in {env_id}") if is_the_papers(env_id) else units_of_data(dataset)


def units_of_data(dataset: TrajectoryDataset) -> RewardUnits:
    """Units in which the rewards of a data set have the size 1 around what makes no difference.

    What every step earns in any case makes none where nothing that is done decides how many steps there are:
    no episode terminates, or all that do after as many steps as the longest has. Elsewhere it is a wage, or a
    price, of going on, which stays.
    """
    rewards = np.asarray(dataset.rewards, np.float64)
    mean, std = rewards.mean(), rewards.std()
    terminated = dataset.episode_lengths[dataset.episode_ends[:, 0]]
    if (terminated == dataset.episode_lengths.max()).all():
        if is_constant(mean, std, least=LEAST_REWARD):
            return RewardUnits(offset=float(mean), why="all are equal")
        why = "their mean, which every step earns in any case, and spread"
        return RewardUnits(1.0 / float(std), float(mean), why=why)
    size = float(np.sqrt(np.mean(np.square(rewards))))
    why = "over their root mean square"
    if abs(mean) > std:
        kind = "wage" if mean > 0 else "price"
        why += (
            f"; their mean of {format_number(mean)} is a {kind} of each step, since episodes terminate after "
            "unequal numbers of them: take it off the data if it is not meant so"
        )
    return RewardUnits(1.0 / size if size else 1.0, why=why)

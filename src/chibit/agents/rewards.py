"""In which units agents that learn values see rewards: their step sizes suit values of a size.

In the paper's environments rewards are as the authors of each method had them. Elsewhere they follow the
data, so that neither their unit nor, where it makes no difference, their mean changes what is learned.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np

from chibit.agents.off_policy import BaselineConfig
from chibit.core.fields import Needs, Positive, Since
from chibit.core.formatting import format_number, format_setting
from chibit.data.choices import Choice
from chibit.data.dataset import TrajectoryDataset
from chibit.data.readers.origin import usual_return_scale
from chibit.data.statistics import is_constant

_AUTHORS_LENGTH = 1000.0
"""Time limit of the locomotion tasks."""


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
        if is_constant(mean, std):
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


@dataclass(frozen=True, kw_only=True)
class RewardConfig(BaselineConfig):
    """Of agents that learn values."""

    reward_scale: Annotated[Positive | None, Since(1.0)] = None
    """Rewards are multiplied by this; None is 1 in the paper's environments. Elsewhere their mean is taken
    off and their spread becomes 1; where episodes terminate after unequal numbers of steps, so that the mean
    counts, it stays, and their root mean square becomes 1."""

    def reward_units(self, dataset: TrajectoryDataset) -> RewardUnits:
        """What is made of the rewards of a data set."""
        if self.reward_scale is not None:
            return RewardUnits(self.reward_scale, why="as given")
        env_id = dataset.spec.env_id
        return RewardUnits(why=f"usual in {env_id}") if is_the_papers(env_id) else units_of_data(dataset)

    def chosen(self, dataset: TrajectoryDataset) -> Iterator[Choice]:
        """The units of rewards."""
        yield self.reward_units(dataset).choice

    def as_recorded(self, return_scale: float | None, *, has_unit_bounds: bool) -> RewardConfig:
        """In the paper's environments rewards are as they are."""
        return self if return_scale is None else replace(self, reward_scale=self.reward_scale or 1.0)


@dataclass(frozen=True, kw_only=True)
class RangeRewardConfig(RewardConfig):
    """Of those whose authors scale rewards by the range of returns."""

    reward_scale: Annotated[
        Positive | None, Since(1.0), Needs("scale_rewards off", lambda config: not config.scale_rewards)
    ] = None
    """Rewards are multiplied by this where `scale_rewards` does not hold; None as for the other agents."""
    scale_rewards: bool | None = None
    """Multiply rewards by 1000 / (best return - worst return) (Kostrikov et al., 2021, for episodes of 1,000
    steps); None does so in the paper's environments, unless `reward_scale` is given."""

    def reward_units(self, dataset: TrajectoryDataset) -> RewardUnits:
        """By the range of the data's returns, if asked for."""
        if not self._scales(is_the_papers(dataset.spec.env_id)):
            return super().reward_units(dataset)
        returns = dataset.episode_returns
        if is_constant(returns.mean(dtype=np.float64), returns.std(dtype=np.float64)):
            return RewardUnits(why="all returns are equal")
        return RewardUnits(_AUTHORS_LENGTH / float(returns.max() - returns.min()), why="returns span 1,000")

    def _scales(self, in_papers: bool) -> bool:
        """Whether `scale_rewards` holds."""
        return in_papers and self.reward_scale is None if self.scale_rewards is None else self.scale_rewards

    def as_recorded(self, return_scale: float | None, *, has_unit_bounds: bool) -> RewardConfig:
        """In the paper's environments as their authors have them."""
        if return_scale is None:
            return self
        scales = self._scales(in_papers=True)
        return replace(self, scale_rewards=scales, reward_scale=self.reward_scale or 1.0)

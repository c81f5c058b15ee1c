"""Settings of the units in which agents that learn values see rewards."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np

from chibit.agents.off_policy import BaselineConfig
from chibit.agents.reward_units import RewardUnits, is_the_papers
from chibit.core.fields import Needs, Positive, Since
from chibit.data.dataset import TrajectoryDataset
from chibit.data.statistics import LEAST_REWARD, is_constant

_AUTHORS_LENGTH = 1000.0
"""Time limit of the locomotion tasks."""


@dataclass(frozen=True, kw_only=True)
class RewardConfig(BaselineConfig):
    """Of agents that learn values, and let users choose the units of rewards."""

    reward_scale: Annotated[Positive | None, Since(1.0)] = None
    """Rewards are multiplied by this; None is 1 in the paper's environments. Elsewhere their mean is taken
    off and their spread becomes 1; where episodes terminate after unequal numbers of steps, so that the mean
    counts, it stays, and their root mean square becomes 1."""

    def reward_units(self, dataset: TrajectoryDataset) -> RewardUnits:
        """What is made of the rewards of a data set."""
        if self.reward_scale is not None:
            return RewardUnits(self.reward_scale, why="as given")
        return super().reward_units(dataset)

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
        mean, std = returns.mean(dtype=np.float64), returns.std(dtype=np.float64)
        if is_constant(mean, std, least=LEAST_REWARD):
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

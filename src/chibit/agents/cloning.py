"""What methods that clone share: the best part of the data (%BC), and no look at what follows a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from chibit.agents.off_policy import BaselineConfig, OffPolicyAgent
from chibit.core.fields import Share
from chibit.data.dataset import TrajectoryDataset


@dataclass(frozen=True, kw_only=True)
class CloningConfig(BaselineConfig):
    """Base of their configs."""

    reads_rewards: ClassVar[bool] = False

    top_fraction: Share = 1.0
    """Share of the data to clone, whole episodes from the best return down; 0.1 is 10%BC."""


class CloningAgent(OffPolicyAgent):
    """An `OffPolicyAgent` that learns the logged actions."""

    needs_next = False
    config: CloningConfig

    def prepare(self, dataset: TrajectoryDataset) -> TrajectoryDataset:
        """Take the chosen share of the data."""
        fraction = self.config.top_fraction
        return dataset.top_fraction(fraction) if fraction < 1.0 else dataset

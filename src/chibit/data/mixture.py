"""Which data set each episode of a mixed one is from, and how often steps of each are drawn.

Dimensions: E episodes · M data sets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class Mixture:
    """Data sets behind one another."""

    sources: np.ndarray
    """(E,) int64 number of the data set that an episode is from, ascending."""
    parts: tuple[Mapping[str, Any], ...]
    """Name, hash, episodes and steps of each of the M data sets, as they were mixed."""
    weights: tuple[float, ...] = ()
    """How often a drawn step is of each data set, relative to the others; empty draws all steps as often."""

    def take(self, episodes: np.ndarray) -> Mixture:
        """The mixture of some of the episodes, in their old order."""
        return replace(self, sources=self.sources[episodes])

    def row_ranges(self, episode_starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows of each data set that has any here, (m + 1,) bounds of them, and (m,) weights."""
        firsts = np.flatnonzero(np.diff(self.sources, prepend=-1))
        bounds = np.append(episode_starts[firsts], episode_starts[-1])
        return bounds, np.array(self.weights)[self.sources[firsts]]

"""The scale on which a random policy has 0 and an expert, or a human player, 100."""

from __future__ import annotations

import numpy as np

from chibit.environments.kinds import ScoreReference
from chibit.environments.registry import ENVIRONMENTS


def normalized_score(score: float | np.ndarray, reference: ScoreReference) -> float | np.ndarray:
    """Put a raw return, or an array of them, on the scale where `reference` is (0, 100)."""
    low, high = reference
    return 100.0 * (score - low) / (high - low)


def score_reference(env_id: str | None) -> ScoreReference | None:
    """Look up the score reference of an environment, by its whole id: `Hopper-v5`, `ALE/Breakout-v5`.

    A data set has the reference of the environment that it is evaluated in, whatever it is called. Minari's
    own `mujoco/...` sets so have D4RL's, as the environment is the same. None where none is published.
    """
    row = ENVIRONMENTS.get(env_id or "")
    return row.score_reference if row else None

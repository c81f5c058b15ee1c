"""Score references: which raw return counts as 0 and which as 100, by environment, game or data set."""

from __future__ import annotations

import re

import numpy as np

ScoreReference = tuple[float, float]
"""Raw returns of a random and of an expert (or human) player."""

D4RL: dict[str, ScoreReference] = {
    "hopper": (-20.272305, 3234.3),
    "halfcheetah": (-280.178953, 12135.0),
    "walker2d": (1.629008, 4592.3),
    "ant": (-325.6, 3879.7),
}
"""D4RL's constants (Fu et al., 2020); it keeps the same for all its versions and levels of an environment."""

GAMER: dict[str, ScoreReference] = {
    "breakout": (1.7, 30.5),
    "pong": (-20.7, 14.6),
    "qbert": (163.9, 13455.0),
    "seaquest": (68.4, 42054.7),
}
"""Random play and a professional gamer on Atari games, as in Chen et al. (2021), appendix B, and Dopamine."""

_KNOWN = D4RL | GAMER


def normalized_score(score: float | np.ndarray, reference: ScoreReference) -> float | np.ndarray:
    """Put a raw return, or an array of them, on the scale where `reference` is (0, 100)."""
    low, high = reference
    return 100.0 * (score - low) / (high - low)


def score_reference(name: str) -> ScoreReference | None:
    """Look up the score reference of an environment id or a data set id.

    Args:
        name: `Hopper-v5`, `ALE/Breakout-v5`, `hopper-medium-v2`, `chibit/hopper/medium-v0`, `Breakout`.

    Returns:
        The reference, or `None` where none is published. Minari's own `mujoco/...` sets are given D4RL's, as
        the environment is the same.
    """
    parts = [re.split(r"[-_]|NoFrameskip", part)[0].lower() for part in name.split("/")]
    known = [part for part in reversed(parts) if part in _KNOWN]
    return _KNOWN[known[0]] if known else None

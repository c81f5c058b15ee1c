"""Score references: which raw return counts as 0 and which as 100, by environment."""

from __future__ import annotations

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

_BY_ENV_ID: dict[str, ScoreReference] = {
    **{
        f"{name}-v{version}": D4RL[name.lower()]
        for name in ("Hopper", "HalfCheetah", "Walker2d", "Ant")
        for version in (2, 3, 4, 5)
    },
    **{f"{game.title()}NoFrameskip-v4": reference for game, reference in GAMER.items()},
    **{f"ALE/{game.title()}-v5": reference for game, reference in GAMER.items()},
}


def normalized_score(score: float | np.ndarray, reference: ScoreReference) -> float | np.ndarray:
    """Put a raw return, or an array of them, on the scale where `reference` is (0, 100)."""
    low, high = reference
    return 100.0 * (score - low) / (high - low)


def score_reference(env_id: str | None) -> ScoreReference | None:
    """Look up the score reference of an environment, by its whole id: `Hopper-v5`, `ALE/Breakout-v5`.

    A data set has the reference of the environment that it is evaluated in, whatever it is called. Minari's
    own `mujoco/...` sets so have D4RL's, as the environment is the same. None where none is published.
    """
    return None if env_id is None else _BY_ENV_ID.get(env_id)

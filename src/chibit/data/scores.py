"""Score references: what a normalised score of 0 and of 100 means, by environment or data set."""

from __future__ import annotations

D4RL: dict[str, tuple[float, float]] = {
    "hopper": (-20.272305, 3234.3),
    "halfcheetah": (-280.178953, 12135.0),
    "walker2d": (1.629008, 4592.3),
    "ant": (-325.6, 3879.7),
}


def normalized_score(score: float, reference: tuple[float, float]) -> float:
    """Return 100 * (score - low) / (high - low)."""
    low, high = reference
    return 100.0 * (score - low) / (high - low)

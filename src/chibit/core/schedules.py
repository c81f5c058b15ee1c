"""Schedules: pure functions of the step. Steps count from 0; every factor is in [0, 1]."""

from __future__ import annotations

import math


def warmup(step: int, warmup_steps: int) -> float:
    """Linear warm-up to 1, then constant: ``min((step + 1) / warmup_steps, 1)`` (Chen et al. 2021)."""
    return min((step + 1) / warmup_steps, 1.0) if warmup_steps > 0 else 1.0


def linear_to_zero(step: int, decay_steps: int) -> float:
    """From 1 at step 0 linearly to 0 at `decay_steps`, 0 afterwards (Reid et al. 2022, section 4.1)."""
    return max(0.0, 1.0 - step / decay_steps) if decay_steps > 0 else 0.0


def sigmoid_decay(step: int, decay_steps: int) -> float:
    """The released code's decay, ``sigmoid(10 (1 - step / decay_steps) - 5)``; it never reaches 0.

    With its 5,000 steps that is its ``sigmoid((5000 - step) / 500 - 5)``.
    """
    exponent = (decay_steps - step) / (decay_steps / 10) - 5.0
    return 1.0 / (1.0 + math.exp(-exponent)) if exponent > -700 else 0.0


def linear_decay(step: int, num_steps: int, warmup_steps: int) -> float:
    """Warm-up, then linearly to 0 at `num_steps` (Wang et al. 2024's pre-training)."""
    if step < warmup_steps:
        return warmup(step, warmup_steps)
    return max(0.0, (num_steps - step) / max(1, num_steps - warmup_steps))


def cosine_decay(step: int, num_steps: int, warmup_steps: int, floor: float = 0.0) -> float:
    """Warm-up, then half a cosine from 1 to `floor` at `num_steps`."""
    if step < warmup_steps:
        return warmup(step, warmup_steps)
    progress = min(1.0, (step - warmup_steps) / max(1, num_steps - warmup_steps))
    return floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * progress))

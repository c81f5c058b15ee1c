"""What a study is: arms, data sets and seeds to cross, and what is fixed beforehand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from chibit.core.runtime import Precision


@dataclass(frozen=True, kw_only=True)
class Study:
    """Arms, data sets and seeds to cross."""

    summary: str
    """One line for ``chibit study``."""
    arms: tuple[str, ...]
    """Names of recipes."""
    data: tuple[str, ...]
    """Data sets."""
    num_steps: int = 100_000
    """Gradient steps of every arm."""
    evaluate_every: int | None = None
    """Same cadence for every arm; None is 5,000, or a quarter of fewer steps."""
    precision: Precision = "fp32"
    """Of every arm."""
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Fields of the methods' configs, by their key: a schedule for a small budget."""
    data_settings: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    """More of them, by data set and key."""
    language_settings: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the sequence model's config, for the arms that train on language too."""
    run_settings: Mapping[str, Any] = field(default_factory=dict)
    """Fields of RunConfig, for every run."""
    target_returns: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Raw returns to ask for, by data set; elsewhere the data set's own."""
    fractions: tuple[float, ...] = (1.0,)
    """Shares of the episodes to train on."""
    has_chosen_rates: bool = False
    """Every arm takes the backbone learning rate that the study `rates` chose for it."""
    attention: bool = False
    """Draw each finished run's attention maps."""
    comparisons: tuple[tuple[str, str], ...] = ()
    """Pairs (arm, reference) that were decided on before the first run, and that Holm's correction counts;
    empty compares every arm with the baseline."""
    score_levels: Mapping[str, float] = field(default_factory=dict)
    """Scores whose first reach the report times, by data set; elsewhere the mean of the training data."""
    error_levels: Mapping[str, float] = field(default_factory=dict)
    """Held-out action errors whose first reach the report times, by data set; elsewhere none is."""
    negligible: float | None = None
    """Size below which a difference does not matter, in the unit of the scores."""

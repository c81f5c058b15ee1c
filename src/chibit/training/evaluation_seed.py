"""Seeds of evaluations: fresh starts at each, the same ones for all runs with one seed and one cadence."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from chibit.core.run_dir import RunDir
from chibit.training.longer import earlier_ends
from chibit.training.run_config import RunConfig


def evaluation_seed(seed: int, index: int, again: int = 0) -> int:
    """Seed of one evaluation of a run.

    Every evaluation starts from fresh states, so that their mean averages over starts and the best of them is
    not chosen on one set; runs that share a seed meet the same states, so that they can be paired.

    Args:
        seed: of the run.
        index: place of the evaluation in the schedule, from 1.
        again: ends of the run before it was carried on that have the same place.
    """
    return int(np.random.SeedSequence((seed, index, again)).generate_state(1)[0])


def seed_at(step: int, config: RunConfig[Any], run: RunDir) -> int:
    """Seed of a run's evaluation at a step, by its place in the schedule."""
    place, ends = _place(step, config.evaluate_every), earlier_ends(run)
    again = sum(end < step and _place(end, config.evaluate_every) == place for end in ends)
    return evaluation_seed(config.seed, place, again)


def _place(step: int, every: int) -> int:
    return math.ceil(step / every) if every else 1

"""Attention maps of what a run has learned, in its own directory (Figure 2 of Reid et al. 2022)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from chibit.core.errors import InputError
from chibit.core.memory import check_fits
from chibit.data.dataset import TrajectoryDataset
from chibit.evaluation.attention import PAPER_TEMPERATURE, attention_maps, save_attention
from chibit.training.loading import LoadedRun
from chibit.training.run_data import open_again, open_given


def draw_attention(
    loaded: LoadedRun, data: str = "", *, num_windows: int = 64, temperature: float = PAPER_TEMPERATURE
) -> list[Path]:
    """Write the maps of early, middle and last layer, as arrays and a figure.

    Args:
        loaded: the run, on the CPU.
        data: data set to take windows from; empty takes the run's own.
        num_windows: windows to average over; the same ones for every run on a data set.
        temperature: sharpens the picture as Appendix B of the paper does; 1 leaves the weights as they are.

    Returns:
        The files, in the run's folder `attention`.

    Raises:
        DamagedFileError: when the run's own data have changed since.
        InputError: for an agent without attention, or data whose episodes are shorter than the context.
    """
    if num_windows < 1:
        raise InputError(f"num_windows: got {num_windows}, expected at least 1")
    config = loaded.config
    if data:
        dataset, *_ = open_given(loaded.run, config, data)
    else:
        dataset, _ = open_again(loaded.run, config, without_missing=True)
    dataset = dataset.seen_as(loaded.spec)  # as the model does
    model, sampler = loaded.agent.attending(dataset)
    rows = _whole_windows(dataset, sampler.context_length)
    if not len(rows):
        raise InputError(f"{dataset.spec.name}: no episode is as long as the context; nothing to draw")
    chosen = np.random.default_rng(0).choice(rows, size=min(num_windows, len(rows)), replace=False)
    tokens = model.tokens_per_step * sampler.context_length
    check_fits(8 * len(chosen) * tokens**2, f"num_windows: {len(chosen):,} windows", "lower num_windows")
    maps = attention_maps(model, sampler.windows(np.sort(chosen)), temperature=temperature)
    return list(save_attention(maps, loaded.run.own_folder("attention")))


def _whole_windows(dataset: TrajectoryDataset, context_length: int) -> np.ndarray:
    """First rows of all windows that need no padding."""
    remaining = np.repeat(dataset.episode_starts[1:], dataset.episode_lengths) - np.arange(dataset.num_steps)
    return np.flatnonzero(remaining >= context_length)

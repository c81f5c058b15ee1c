"""Where a sequence model looks: attention of its early, middle and last layer, as arrays and a figure.

The maps follow Figure 2 and Appendix B of Reid et al. (2022): mean over heads, queries down, keys across, and
a temperature of 0.1 to make the picture readable. They are averaged over a batch of real windows, because a
single window shows its own content more than the model's habits.

Dimensions: B windows · K context in timesteps · T = 3K - 1 tokens (nothing is read after the last state, so
its action is no input) · H heads · L layers shown.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from chibit.core.errors import InputError
from chibit.core.files import make_folder, write_atomic
from chibit.core.runtime import evaluating

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from chibit.data.samplers.windows import SequenceBatch
    from chibit.models.decision_transformer import DecisionTransformerModel

PAPER_TEMPERATURE = 0.1
"""Appendix B of Reid et al. (2022)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class AttentionMaps:
    """Attention of some layers, mean over heads and windows."""

    layers: tuple[int, ...]
    """Layers shown, counted from 1."""
    num_layers: int
    """Layers the model has."""
    weights: np.ndarray
    """(L, T, T) float32: row = query, column = key; each row sums to 1."""
    sharpened: np.ndarray
    """(L, T, T) float32: the same with every head's scores divided by `temperature` before its softmax."""
    temperature: float
    """Temperature of `sharpened`."""
    rows: np.ndarray
    """(B,) int64 first row of each window in the data set."""

    @property
    def labels(self) -> list[str]:
        """Names of the T tokens: R1, s1, a1, R2, ..."""
        return [f"{'Rsa'[i % 3]}{i // 3 + 1}" for i in range(self.weights.shape[-1])]


def attention_maps(
    model: DecisionTransformerModel, batch: SequenceBatch, *, temperature: float = PAPER_TEMPERATURE
) -> AttentionMaps:
    """Record where a model looks in a batch of windows.

    Args:
        model: asked for its `attentions`.
        batch: windows of one data set; those with padding are left out.
        temperature: of the sharpened maps, positive; 1 changes nothing, near 0 only the largest remain.

    Raises:
        InputError: if the temperature is not positive, the tokens of a step are not return, state and action,
            or no window is free of padding.
    """
    if not temperature > 0:
        raise InputError(f"temperature is {temperature}, expected a positive number")
    if model.tokens_per_step != 3:
        raise InputError("attention: a model without return tokens is not drawn; use one with return_tokens")
    if model.return_token != 0:
        raise InputError("attention: a model whose returns come after states is not drawn; give a dt run")
    whole = batch.attention_mask.all(dim=1)
    if not whole.any():
        length = batch.attention_mask.shape[1]
        raise InputError(
            f"no window has {length} real steps, the context of the model; use data with longer episodes"
        )
    device = next(model.parameters()).device
    with evaluating(model):
        attentions = model.attentions(*(column[whole].to(device) for column in batch.shown))
    shown = early_middle_last(len(attentions))
    maps = [attentions[layer].float() for layer in shown]  # L x (B, H, T, T)
    return AttentionMaps(
        layers=tuple(layer + 1 for layer in shown),
        num_layers=len(attentions),
        weights=np.stack([x.mean(dim=(0, 1)).cpu().numpy() for x in maps]),
        sharpened=np.stack([_sharpen(x, temperature).mean(dim=(0, 1)).cpu().numpy() for x in maps]),
        temperature=temperature,
        rows=batch.rows[whole].cpu().numpy(),
    )


def early_middle_last(num_layers: int) -> list[int]:
    """Indices of the first, the middle and the last layer, each once."""
    return sorted({0, num_layers // 2, num_layers - 1})


def save_attention(maps: AttentionMaps, folder: Path) -> list[Path]:
    """Write the arrays and the figure into a folder, which is created if absent; gives both paths."""
    make_folder(folder)
    arrays, figure = folder / "attention.npz", folder / "attention.png"
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        weights=maps.weights,
        sharpened=maps.sharpened,
        temperature=np.float64(maps.temperature),
        layers=np.asarray(maps.layers),
        num_layers=np.int64(maps.num_layers),
        labels=np.asarray(maps.labels),
        rows=maps.rows,
    )
    write_atomic(arrays, buffer.getvalue())
    write_atomic(figure, _draw(maps))
    return [arrays, figure]


def _sharpen(weights: Tensor, temperature: float) -> Tensor:
    # softmax(scores / t) is proportional to softmax(scores) ** (1 / t); in logarithms nothing underflows.
    return (weights.log() / temperature).softmax(dim=-1)


def _draw(maps: AttentionMaps) -> bytes:
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    count = len(maps.layers)
    figure = Figure(figsize=(6.2 * count + 1.0, 6.6), layout="constrained", dpi=130)
    panels = figure.subplots(1, count, squeeze=False)[0]
    future = np.triu(np.ones(maps.weights.shape[-2:], dtype=bool), k=1)
    image = None
    for axes, layer, weights in zip(panels, maps.layers, maps.sharpened, strict=True):
        shown = np.ma.masked_array(weights, future)
        # The power lets the small weights of long rows be seen beside those of the first rows, near 1.
        image = axes.imshow(shown, cmap="magma", norm=PowerNorm(0.4, 0.0, 0.5), interpolation="nearest")
        axes.set_facecolor("0.92")
        axes.set_title(f"layer {layer} of {maps.num_layers}", pad=10)
        _label_tokens(axes, maps.weights.shape[-1])
    assert image is not None
    bar = figure.colorbar(image, ax=list(panels), fraction=0.03, pad=0.01, extend="max")
    bar.set_ticks([0.0, 0.01, 0.05, 0.1, 0.2, 0.5])
    bar.set_label(f"attention weight at temperature {maps.temperature:g}, mean over heads")
    what = f"{len(maps.rows)} windows; in each step: R return-to-go, s state, a action"
    figure.suptitle(what, y=1.02, va="bottom")
    buffer = io.BytesIO()
    # The layout does not count the outer rows of labels; "tight" does.
    figure.savefig(buffer, format="png", bbox_inches="tight", pad_inches=0.15)
    return buffer.getvalue()


def _label_tokens(axes: Axes, tokens: int) -> None:
    """Letters R, s, a at every token; outside of them the number of the step and what the axis is."""
    letters = ["Rsa"[i % 3] for i in range(tokens)]
    states = np.arange(1, tokens, 3)
    steps_across, steps_down = axes.secondary_xaxis("bottom").xaxis, axes.secondary_yaxis("left").yaxis
    for axis, steps in ((axes.xaxis, steps_across), (axes.yaxis, steps_down)):
        axis.set_ticks(np.arange(tokens), letters)
        axis.set_tick_params(length=0, pad=1, labelsize=min(9.0, 330 / tokens))
        steps.set_ticks(states, [str(i + 1) for i in range(len(states))])
        steps.set_tick_params(length=0, pad=11, labelsize=min(9.0, 500 / tokens))
    steps_across.set_label_text("key: the token looked at")
    steps_down.set_label_text("query: the token that looks")

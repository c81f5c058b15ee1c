"""What a run leaves beside its numbers: attention maps as figures, and short videos as embedded data.

Both are files from a run directory: they are checked before they are opened, and bounded before they are
embedded.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from chibit.core.arrays import open_npz
from chibit.core.errors import DamagedFileError, UserError
from chibit.core.files import list_folder, read_regular
from chibit.reporting.figures.panel import Panel
from chibit.reporting.figures.svg import style, to_svg
from chibit.reporting.read.arms import arm_label
from chibit.reporting.read.run import Run
from chibit.reporting.read.strict_json import shown_name
from chibit.reporting.read.study import Study

MAX_VIDEO_BYTES = 6 * 2**20
"""Bytes of video that a page embeds in all; more would make it slow to send and to open."""
_MAX_ARRAY_BYTES = 64 * 2**20
_MAX_TOKENS = 512
_MAX_LAYERS = 6
_MAX_SHARE = 1.001  # but for rounding
_ARRAYS = {
    "sharpened": ("f", _MAX_LAYERS * _MAX_TOKENS**2),
    "layers": ("iu", _MAX_LAYERS),
    "num_layers": ("iu", 1),
    "temperature": ("fiu", 1),
}
"""What a file of attention maps has to hold: kinds of numbers, and how many there may be."""
_SIDE = 3.4


@dataclass(frozen=True, kw_only=True)
class Video:
    """A short video inside the page."""

    title: str
    """Arm, data set and file."""
    data_url: str
    """The file itself."""
    arm: int
    """Place of the arm."""


def embed_videos(study: Study) -> tuple[list[Video], list[str]]:
    """Videos of each arm's first run, until the page is full.

    Returns:
        The videos, and a sentence for each file that was left out.
    """
    videos: list[Video] = []
    left_out: list[str] = []
    used = 0
    for place, run in _first_runs(study, "videos"):
        for path in _list(run, "videos", ".mp4", left_out):
            title = f"{arm_label(run.arm)} on {run.dataset}: {shown_name(path)[:-4]}"
            try:
                content = read_regular(path, inside=run.folder, most=MAX_VIDEO_BYTES - used)
            except DamagedFileError:
                left_out.append(
                    f"{title}: left out, for the page may embed {MAX_VIDEO_BYTES >> 20} MiB of video."
                )
                continue
            except UserError as error:
                left_out.append(f"{title}: left out ({_reason(error, path)}).")
                continue
            if content[4:8] != b"ftyp":
                left_out.append(f"{title}: left out, for it is not an MP4 file.")
                continue
            used += len(content)
            url = "data:video/mp4;base64," + base64.b64encode(content).decode("ascii")
            videos.append(Video(title=title, data_url=url, arm=place))
    return videos, left_out


def attention_panels(study: Study) -> tuple[list[Panel], list[str]]:
    """Attention maps of each arm's first run, one panel for each layer.

    Returns:
        The panels, and a sentence for each file that could not be used.
    """
    panels: list[Panel] = []
    refused: list[str] = []
    for place, run in _first_runs(study, "attention"):
        for path in _list(run, "attention", ".npz", refused)[:1]:
            try:
                panels += list(_draw_layers(path, run, place))
            except (UserError, ValueError) as error:
                name = shown_name(path)
                refused.append(f"{run.name}/attention/{name}: not attention maps ({_reason(error, path)}).")
    return panels, refused


def _list(run: Run, name: str, suffix: str, left_out: list[str]) -> list[Path]:
    """Files of a folder of the run; where it leads elsewhere none, and a sentence more that says so."""
    try:
        return [path for path in list_folder(run.folder / name, inside=run.folder) if path.suffix == suffix]
    except UserError as error:
        left_out.append(f"{run.name}/{name}: left out ({_reason(error, run.folder / name)}).")
        return []


def _reason(error: Exception, path: Path) -> str:
    return str(error).removeprefix(f"{path}: ")


def _first_runs(study: Study, folder: str) -> Iterator[tuple[int, Run]]:
    """The first run of each arm that has such a folder."""
    for place, arm in enumerate(study.arms):
        for run in study.runs:
            if run.arm == arm and (run.folder / folder).is_dir():
                yield place, run
                break


def _draw_layers(path: Path, run: Run, place: int) -> Iterator[Panel]:
    with open_npz(path, inside=run.folder, most=_MAX_ARRAY_BYTES) as archive:
        for name, (kinds, most) in _ARRAYS.items():
            shape, dtype = archive.declared(name)
            if dtype.kind not in kinds or dtype.itemsize > 8 or math.prod(shape) > most:
                raise ValueError(f"{name} is {dtype} {shape}")
        read = {name: archive.read(name) for name in _ARRAYS}
    weights, layers = read["sharpened"].astype(float), read["layers"].astype(int)
    num_layers, temperature = int(read["num_layers"].item()), float(read["temperature"].item())
    square = weights.ndim == 3 and weights.shape[1] == weights.shape[2] <= _MAX_TOKENS
    if not square or layers.shape != weights.shape[:1] or len(layers) > _MAX_LAYERS:
        raise ValueError(f"shape {weights.shape}, expected (layers, tokens, tokens)")
    if not (((weights >= 0) & (weights <= _MAX_SHARE)).all() and math.isfinite(temperature)):
        raise ValueError("it holds what is no share of attention")
    for layer, weight in zip(layers.tolist(), weights, strict=True):
        yield Panel(
            title=f"{arm_label(run.arm)}, layer {layer} of {num_layers}",
            svg=_draw_map(weight, f"attention-{place}-{layer}", f"{arm_label(run.arm)}, layer {layer}"),
            note=f"{run.dataset}, seed {run.seed}; temperature {temperature:g}",
            arm=place,
        )


def _draw_map(weights: np.ndarray, key: str, name: str) -> Markup:
    tokens = len(weights)
    future = np.triu(np.ones_like(weights, dtype=bool), k=1)
    with style():
        figure = Figure(figsize=(_SIDE, _SIDE))
        axes = figure.add_axes((0.13, 0.13, 0.85, 0.85))
        axes.grid(visible=False)
        # The square root lets small weights be seen beside those of the first rows, which are near 1.
        norm = PowerNorm(0.5, 0.0, 1.0)
        axes.imshow(np.ma.masked_array(weights, future), cmap="cividis", norm=norm, interpolation="none")
        steps = [step for step in (1, 5, 10, 15, 20, 40, 60, 80, 100) if 3 * step - 2 < tokens]
        states = [3 * step - 2 for step in steps]
        axes.set_xticks(states, [str(step) for step in steps])
        axes.set_yticks(states, [str(step) for step in steps])
        axes.set_xlabel("step looked at")
        axes.set_ylabel("step that looks")
        recent = float(np.mean([weights[i, max(0, i - 2) : i + 1].sum() for i in range(tokens)]))
        description = (
            f"Attention of {name}: {recent:.0%} of the weight lies on a token itself and the two before."
        )
        return to_svg(figure, key, description)

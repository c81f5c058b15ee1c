"""How many parameters a model has, with its tables of tokens and positions and without."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from chibit.core.errors import DamagedFileError

_WIDTHS = ("n_embd", "n_head", "n_positions", "vocab_size", "hidden_sizes")


def check_plausible(config: Any, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Refuse a configuration of a model far larger than its weights, before that model is built.

    Args:
        config: a dataclass from a file.
        tensors: the weights beside it.
        path: where the configuration is, for the message.

    Raises:
        DamagedFileError: for more layers than tensors, or a width beyond the number of all weights.
    """
    if found := misfit(config, tensors):
        raise DamagedFileError(f"{path}: {found}; it is of another model")


def misfit(config: Any, tensors: Mapping[str, Tensor]) -> str:
    """What in a configuration is too large for its weights; empty where nothing is."""
    numbers = sum(tensor.numel() for tensor in tensors.values())
    for part in (config, *(value for value in vars(config).values() if dataclasses.is_dataclass(value))):
        layers = getattr(part, "n_layer", 0), len(getattr(part, "hidden_sizes", ()))
        widths = [getattr(part, name, 0) for name in _WIDTHS]
        largest = max(max(width, default=0) if isinstance(width, tuple) else width for width in widths)
        if max(layers) > len(tensors) or largest > numbers:
            return (
                f"{max(layers)} layers of widths up to {largest}, the weights beside it are "
                f"{len(tensors)} tensors of {numbers} numbers"
            )
    return ""


def require_fit(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path) -> None:
    """Refuse weights of which one is missing, left over, of another shape or kind, or not finite.

    Args:
        tensors: from a file.
        expected: a model's.
        path: the file, for the message; the model follows from the config.json beside it.
    """
    for name in [*expected, *tensors]:
        found = tuple(tensors[name].shape) if name in tensors else "nothing"
        wanted = tuple(expected[name].shape) if name in expected else "nothing"
        if found != wanted:
            raise DamagedFileError(
                f"{path}: {name} has {found}, expected {wanted}; it does not fit config.json"
            )
        is_float = tensors[name].is_floating_point() == expected[name].is_floating_point()
        if not is_float or not bool(tensors[name].isfinite().all()):
            raise DamagedFileError(
                f"{path}: {name} holds what is not a finite number; train or fetch it again"
            )


def count_parameters(module: nn.Module) -> dict[str, int]:
    """Count each parameter once.

    Returns:
        ``total``, ``trainable``, ``without_embeddings`` (all but `nn.Embedding` tables), and ``blocks`` (the
        transformer's blocks alone, the figure the paper calls its parameter count; 0 where there are none).
    """
    embeddings = {
        id(parameter)
        for part in module.modules()
        if isinstance(part, nn.Embedding)
        for parameter in part.parameters(recurse=False)
    }
    parameters = {id(parameter): parameter for parameter in module.parameters()}
    blocks = {
        id(parameter): parameter
        for part in module.modules()
        if isinstance(getattr(part, "blocks", None), nn.ModuleList)
        for parameter in part.blocks.parameters()  # type: ignore[union-attr]
    }
    return {
        "total": sum(parameter.numel() for parameter in parameters.values()),
        "trainable": sum(parameter.numel() for parameter in parameters.values() if parameter.requires_grad),
        "without_embeddings": sum(p.numel() for key, p in parameters.items() if key not in embeddings),
        "blocks": sum(parameter.numel() for parameter in blocks.values()),
    }

"""How many parameters a model has, with its tables of tokens and positions and without."""

from __future__ import annotations

from torch import nn


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

"""Backbones of a user's own: any causal module from (B, T, D) embeddings to hidden states of that shape."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from chibit.core.errors import InputError, first_line
from chibit.models.backbone import Backbone

PREFIX = "own:"
"""Of their names among initializers."""
_BACKBONES: dict[str, Callable[[], nn.Module]] = {}
_PROBE_TOKENS, _TOLERANCE = 7, 1e-4


def looks_ahead(before: Tensor, after: Tensor) -> bool:
    """Whether outputs (B, T, D) differ before the last token, which alone was changed.

    What leaks moves outputs by their own size; kernels round differently from call to call.
    """
    size = before.float().square().mean().sqrt().item()
    return not torch.allclose(before[:, :-1], after[:, :-1], atol=_TOLERANCE * size)


class OwnBackbone(Backbone):
    """A user's module with the forward that the trajectory model calls."""

    def __init__(self, body: nn.Module) -> None:
        """Wrap a module.

        Raises:
            InputError: if it has no width, gives another shape than it is given, or what is not finite, or
                looks at later tokens.
        """
        super().__init__()
        name, width = type(body).__name__, getattr(body, "width", None)
        if type(width) is not int or width < 1:
            raise InputError(f"backbone: {name}.width is {width!r}, expected the values of an embedding")
        self.body, self.width = body, width
        _check(body, name, width)

    def forward(
        self,
        embeddings: Tensor,
        attention_mask: Tensor | None = None,
        *,
        positions: slice | None = None,
        return_attentions: bool = False,
    ) -> Tensor:
        """See `Backbone`; padding goes to the right, where no token sees it."""
        if return_attentions:
            raise InputError(f"{type(self.body).__name__}: gives no attention weights to draw")
        if attention_mask is None:
            hidden: Tensor = self.body(embeddings)
        else:
            order = (~attention_mask).int().argsort(dim=1, stable=True)  # (B, T): real tokens first
            rows = torch.arange(len(order), device=order.device)[:, None]
            hidden = self.body(embeddings[rows, order])[rows, order.argsort(dim=1)]
        return hidden if positions is None else hidden[:, positions]


def register_backbone(backbone: nn.Module | Callable[[], nn.Module]) -> str:
    """Let a module of your own be the sequence model's backbone, in training and in policies that hold it.

    Args:
        backbone: a module whose weights to start from, or a class or function that makes one, drawn anew with
            each seed. It has ``width``, D, and maps (B, T, D) to (B, T, D); no output may depend on a later
            token.

    Returns:
        Its name as an initializer: ``own:`` and that of its class or function. A later one takes its place.

    Raises:
        InputError: if it is none.
    """
    if isinstance(backbone, nn.Module):
        kept = OwnBackbone(copy.deepcopy(backbone))
        name, make = type(backbone).__name__, lambda: copy.deepcopy(kept.body)
    elif callable(backbone):
        name, make = getattr(backbone, "__name__", ""), backbone
        if not name.isidentifier():  # a lambda or a partial, which is called what it makes
            name = type(_made(make, "backbone")).__name__
    else:
        raise InputError(
            f"backbone: got {type(backbone).__name__}, expected a torch.nn.Module or what makes one"
        )
    _BACKBONES[name] = make
    return PREFIX + name


def make_backbone(name: str) -> OwnBackbone:
    """Make a backbone that was registered under a name, without `PREFIX`.

    Raises:
        InputError: if none was.
    """
    if name not in _BACKBONES:
        raise InputError(
            f"initializer {PREFIX + name!r} is a backbone of somebody's own; call "
            "chibit.register_backbone with its module first"
        )
    return OwnBackbone(_made(_BACKBONES[name], name))


def _made(make: Callable[[], nn.Module], name: str) -> nn.Module:
    try:
        made: Any = make()
    except Exception as error:
        raise InputError(
            f"backbone: {name} cannot be made without arguments ({first_line(error)}); give an "
            "instance, or a function that makes one"
        ) from error
    if not isinstance(made, nn.Module):
        raise InputError(f"backbone: {name} makes a {type(made).__name__}, expected a torch.nn.Module")
    return made


def _check(body: nn.Module, name: str, width: int) -> None:
    """Look at what it does with a few tokens; random numbers and its state stay as they are."""
    probe = copy.deepcopy(body).eval()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        tokens = torch.randn(2, _PROBE_TOKENS, width)
        changed = torch.cat([tokens[:, :-1], torch.randn(2, 1, width)], dim=1)
        try:
            first, second = probe(tokens), probe(changed)
        except Exception as error:  # of somebody else's code
            raise InputError(
                f"backbone: {name} does not take {tuple(tokens.shape)} ({first_line(error)})"
            ) from error
    if not isinstance(first, Tensor) or first.shape != tokens.shape:
        found = tuple(first.shape) if isinstance(first, Tensor) else type(first).__name__
        raise InputError(f"backbone: {name} maps {tuple(tokens.shape)} to {found}, expected the same shape")
    if not bool(first.isfinite().all()):
        raise InputError(f"backbone: {name} gives values that are not finite; mend its weights")
    if looks_ahead(first, second):
        raise InputError(
            f"backbone: {name} looks at later tokens, where the actions to predict are; mask them"
        )

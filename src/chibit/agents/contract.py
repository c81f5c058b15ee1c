"""What an agent's parts give, looked at once, so that a mistake is a line and not a traceback."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from chibit.core.errors import InputError


def check_optimizers(agent: str, found: Any) -> None:
    """Refuse what `build` gave where it is no dictionary of optimizers of what can be trained.

    Raises:
        InputError: with what it is.
    """
    kinds = found.values() if isinstance(found, dict) else [found]
    if not isinstance(found, dict) or not all(isinstance(one, torch.optim.Optimizer) for one in kinds):
        given = ", ".join(type(one).__name__ for one in kinds)
        raise _refusal(agent, "build", f"gave {given}", "a dictionary of optimizers, by the names of losses")
    for name, optimizer in found.items():
        if not any(p.requires_grad for group in optimizer.param_groups for p in group["params"]):
            raise _refusal(agent, "build", f"gave {name!r} with frozen parameters alone", "one to train")


def check_losses(agent: str, found: Any, optimizers: Mapping[str, Any]) -> None:
    """Refuse what `losses` gave where an optimizer cannot descend it.

    Raises:
        InputError: naming the loss.
    """
    if not isinstance(found, dict):
        raise _refusal(agent, "losses", f"gave {type(found).__name__}", "a dictionary of losses by name")
    for name, given in found.items():
        if name not in optimizers:
            names = f"names of the optimizers of build: {', '.join(optimizers)}"
            raise _refusal(agent, "losses", f"gave {name!r}", names)
        if not isinstance(given, tuple) or len(given) != 2 or not isinstance(given[1], dict):
            pair = "a pair: the loss, and a dictionary of numbers to log"
            raise _refusal(agent, "losses", f"gave {type(given).__name__} for {name!r}", pair)
        loss, metrics = given
        if not isinstance(loss, Tensor) or loss.dim() or not loss.requires_grad:
            scalar = "a tensor without dimensions, with a gradient"
            without = " without a gradient" if isinstance(loss, Tensor) and not loss.requires_grad else ""
            raise _refusal(agent, "losses", f"gave {_form(loss)}{without} as {name!r}", scalar)
        for key, value in metrics.items():
            if not isinstance(value, Tensor) or value.dim():
                scalar = "a tensor without dimensions"
                raise _refusal(agent, "losses", f"logs {_form(value)} as {key!r}", scalar)


def check_used(agent: str, gradients: Mapping[str, Sequence[Tensor]]) -> None:
    """Refuse a loss of which nothing that its optimizer holds has a gradient; some of it may have none.

    Raises:
        InputError: naming the loss.
    """
    for name, found in gradients.items():
        if not found:
            without = f"gave {name!r} without a parameter of its optimizer in it"
            raise _refusal(agent, "losses", without, "at least one")


def check_acted(agent: str, found: Any, states: Tensor, actions: Tensor) -> None:
    """Refuse what `act` gave for states where it has not the form of their logged actions.

    Raises:
        InputError: with both shapes.
    """
    is_like = isinstance(found, Tensor) and found.shape == actions.shape
    if not is_like or found.is_floating_point() != actions.is_floating_point():
        kind = "numbers in [-1, 1]" if actions.is_floating_point() else "whole numbers"
        expected = f"{kind} of shape {tuple(actions.shape)}"
        raise _refusal(agent, "act", f"gave {_form(found)} for states {tuple(states.shape)}", expected)


def _form(value: Any) -> str:
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    return f"{str(value.dtype).partition('.')[2]} of shape {tuple(value.shape)}"


def _refusal(agent: str, part: str, found: str, expected: str) -> InputError:
    return InputError(f"agent {agent!r}: {part} {found}, expected {expected}")

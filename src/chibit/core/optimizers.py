"""Take over the state of an optimizer, checked: what torch would only miss at the next step."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def restore_optimizer(optimizer: torch.optim.Optimizer, saved: Mapping[str, Any]) -> None:
    """Take over moments and counts; step sizes and the like stay those of the config.

    Args:
        optimizer: new, over the same parameters.
        saved: the state_dict of one of its kind.

    Raises:
        ValueError: if `saved` is of other parameters, or lacks what the next step needs.
    """
    groups = optimizer.state_dict()["param_groups"]
    if [group["params"] for group in saved["param_groups"]] != [group["params"] for group in groups]:
        raise ValueError("its optimizer is of other parameters")
    parameters = dict(enumerate(p for group in optimizer.param_groups for p in group["params"]))
    expected = _entries(optimizer)
    for index, entries in saved["state"].items():
        fits = set(entries) == expected and all(
            isinstance(value, Tensor)
            and value.is_floating_point()
            and value.shape in (parameters[index].shape, torch.Size())
            for value in entries.values()
        )
        if not fits:
            raise ValueError(f"its optimizer's state of parameter {index} is not whole")
    optimizer.load_state_dict({"state": saved["state"], "param_groups": groups})


def _entries(optimizer: torch.optim.Optimizer) -> set[str]:
    """What the optimizer keeps of a parameter after a step."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    parameter.grad = torch.zeros(1)
    twin = copy.copy(optimizer)
    twin.state = defaultdict(dict)
    twin.param_groups = [{**optimizer.param_groups[0], "params": [parameter]}]
    twin.step()
    return set(twin.state[parameter])

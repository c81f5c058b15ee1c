"""Small networks in a stack, each with inputs of its own, and the one way in which they are fitted.

Dimensions: M members · B batch · I inputs · O outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from chibit.core.errors import DivergenceError

BATCH_SIZE = 256
_PASSES, _LEAST_STEPS = 100, 500
"""Over the log, and gradient steps: fewer do not follow small logs, and more only learn them by heart."""
_WEIGHT_DECAY, _LAST_LEARNING_RATE = 1e-4, 1e-5


class Members(nn.Module):
    """M perceptrons with SiLU as one batched product a layer."""

    def __init__(
        self, num_members: int, in_features: int, hidden_sizes: Sequence[int], out_features: int
    ) -> None:
        """Weights and biases start uniform in ±1/√(inputs), torch's own rule."""
        super().__init__()
        sizes = [in_features, *hidden_sizes, out_features]
        pairs = list(zip(sizes[:-1], sizes[1:], strict=True))
        self.weights = nn.ParameterList(
            torch.empty(num_members, i, o).uniform_(-1, 1) / math.sqrt(i) for i, o in pairs
        )
        self.biases = nn.ParameterList(
            torch.empty(num_members, 1, o).uniform_(-1, 1) / math.sqrt(i) for i, o in pairs
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (M, B, I) to (M, B, O), unbounded."""
        *hidden, last = zip(self.weights, self.biases, strict=True)
        for weight, bias in hidden:
            x = F.silu(torch.baddbmm(bias, x, weight))
        weight, bias = last
        return torch.baddbmm(bias, x, weight)

    def on_all(self, x: Tensor) -> Tensor:
        """What every member makes of the same (B, I): (M, B, O)."""
        output: Tensor = self(x.expand(len(self.weights[0]), *x.shape))
        return output


def suited_steps(most: int, num_rows: int) -> int:
    """Gradient steps for a log of some steps: a hundred passes over it, and 500, but not more than `most`."""
    return min(most, max(_LEAST_STEPS, _PASSES * num_rows // BATCH_SIZE))


def count_nothing() -> None:
    """For who shows no progress."""


def minimize(
    parameters: Iterable[nn.Parameter],
    loss: Callable[[], Tensor],
    *,
    num_steps: int,
    learning_rate: float,
    advance: Callable[[], None] = count_nothing,
) -> None:
    """Descend a loss of fresh batches with AdamW, whose rate falls along a cosine; `advance` counts steps.

    Raises:
        DivergenceError: if the loss ends up not finite.
    """
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=_WEIGHT_DECAY, foreach=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps, _LAST_LEARNING_RATE)
    value = torch.zeros(())
    for _ in range(num_steps):
        value = loss()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
        advance()
    if not torch.isfinite(value):
        raise DivergenceError(
            f"the model of the log ends with a loss of {value.item()}, expected a finite one; look at the "
            "data with chibit data inspect"
        )

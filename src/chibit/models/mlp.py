"""Multi-layer perceptrons: one network, or several of one shape evaluated in one call.

Weights and biases start uniform in ±1/√(inputs), torch's own rule for linear layers.

Dimensions: B batch · E members of a stack · I inputs · O outputs · H hidden width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FUSED_MIN_ROWS = 512
"""From this many rows on, the hand-written gradient of a stack is the faster one on CPU."""
BLOCK_ROWS = 1024
"""Rows that it treats at a time."""


class MLP(nn.Module):
    """Linear layers with ReLU, and dropout if asked for, between them."""

    def __init__(
        self, in_features: int, hidden_sizes: Sequence[int], out_features: int, *, dropout: float = 0.0
    ) -> None:
        """Map vectors of `in_features` to `out_features` through hidden layers of the given widths."""
        super().__init__()
        sizes = [in_features, *hidden_sizes, out_features]
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in zip(sizes[:-1], sizes[1:], strict=True))
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., I) to (..., O), unbounded."""
        for layer in self.layers[:-1]:
            x = torch.relu_(layer(x))
            if self.dropout:
                x = F.dropout(x, self.dropout, self.training)
        output: Tensor = self.layers[-1](x)
        return output


class Encoder(nn.Module):
    """What maps observations to features."""

    width: int
    """Size of the features."""


class VectorEncoder(Encoder):
    """Hidden layers for observations that are vectors."""

    def __init__(self, state_dim: int, hidden_sizes: Sequence[int]) -> None:
        """Stack ReLU layers of the given widths; at least one."""
        super().__init__()
        self.mlp = MLP(state_dim, hidden_sizes[:-1], hidden_sizes[-1])
        self.width = hidden_sizes[-1]

    def forward(self, states: Tensor) -> Tensor:
        """Map states (B, I) to features (B, width), at least 0."""
        return torch.relu_(self.mlp(states))


class StackedMLP(nn.Module):
    """E independent networks of one shape: each layer is one batched matrix product for all of them."""

    def __init__(
        self,
        num_members: int,
        in_features: int,
        hidden_sizes: Sequence[int],
        out_features: int,
        *,
        layer_norm: bool = False,
    ) -> None:
        """Build the members.

        Args:
            num_members: E.
            in_features: I.
            hidden_sizes: widths of the hidden layers; at least one.
            out_features: O.
            layer_norm: normalize after each hidden ReLU, with gain and bias.
        """
        super().__init__()
        sizes = [in_features, *hidden_sizes, out_features]
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for i, o in zip(sizes[:-1], sizes[1:], strict=True):
            bound = 1.0 / math.sqrt(i)
            self.weights.append(nn.Parameter(torch.empty(num_members, i, o).uniform_(-bound, bound)))
            self.biases.append(nn.Parameter(torch.empty(num_members, 1, o).uniform_(-bound, bound)))
        norm_sizes = hidden_sizes if layer_norm else ()
        self.gains = nn.ParameterList(nn.Parameter(torch.ones(num_members, 1, h)) for h in norm_sizes)
        self.shifts = nn.ParameterList(nn.Parameter(torch.zeros(num_members, 1, h)) for h in norm_sizes)
        self.is_scalar = out_features == 1

    def forward(self, x: Tensor, num_members: int | None = None) -> Tensor:
        """Evaluate the members on the same inputs.

        Args:
            x: (B, I).
            num_members: evaluate only the first ones; None is all.

        Returns:
            (E, B, O), unbounded.
        """
        parts = (self.weights, self.biases, self.gains, self.shifts)
        weights, biases, gains, shifts = (
            list(part) if num_members is None else [p[:num_members] for p in part] for part in parts
        )
        if self._fused_is_faster(x):
            fused: Tensor = _FusedStack.apply(x, *weights, *biases)
            return fused
        x = x.expand(len(weights[0]), *x.shape)
        for i, (weight, bias) in enumerate(zip(weights[:-1], biases[:-1], strict=True)):
            x = torch.relu_(torch.baddbmm(bias, x, weight))
            if gains:
                x = torch.addcmul(shifts[i], F.layer_norm(x, x.shape[-1:]), gains[i])
        if self.is_scalar:
            # One column: faster elementwise, and in fp32: bfloat16 would round values of hundreds to twos.
            values: Tensor = (x * weights[-1].mT).sum(dim=-1, keepdim=True) + biases[-1]
            return values
        return torch.baddbmm(biases[-1], x, weights[-1])

    def _fused_is_faster(self, x: Tensor) -> bool:
        # Not where the input has a gradient: it is then the only one asked for, and autograd leaves the
        # weights' products out, which a Function cannot.
        return (
            len(x) >= FUSED_MIN_ROWS
            and self.is_scalar
            and x.device.type == "cpu"
            and not self.gains
            and not x.requires_grad
            and torch.is_grad_enabled()
        )


class _FusedStack(torch.autograd.Function):
    """Value and gradient of a stack with one output, in place and in blocks of rows that stay in the cache.

    Under autocast the hidden layers are in bfloat16; the last one, and each gradient that leaves, is in fp32.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, *parameters: Tensor) -> Tensor:
        num_layers = len(parameters) // 2
        weights, biases = parameters[:num_layers], parameters[num_layers:]
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        x, *inner = (tensor.to(dtype) for tensor in (x, *weights[:-1], *biases[:-1]))
        values = torch.empty(len(weights[0]), len(x), 1)
        hidden = []
        with torch.autocast("cpu", enabled=False):
            for member, of_member in enumerate(values):
                layers = [
                    (inner[i][member], inner[num_layers - 1 + i][member]) for i in range(num_layers - 1)
                ]
                for h, of_block in zip(
                    torch.split(x, BLOCK_ROWS), torch.split(of_member, BLOCK_ROWS), strict=True
                ):
                    for weight, bias in layers:
                        h = torch.addmm(bias, h, weight).relu_()
                        hidden.append(h)
                    torch.mv(h.float(), weights[-1][member, :, 0], out=of_block[:, 0])
        ctx.save_for_backward(x, *inner[: num_layers - 1], weights[-1], *hidden)
        ctx.num_layers = num_layers
        return values.add_(biases[-1])

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        depth = ctx.num_layers - 1
        x, *saved = ctx.saved_tensors
        weights, hidden = saved[: depth + 1], saved[depth + 1 :]
        grad_weights = [torch.zeros_like(weight, dtype=torch.float32) for weight in weights]
        grad_biases = [torch.zeros_like(grad[:, :1]) for grad in grad_weights]
        blocks = iter(hidden)
        for member, grad_values in enumerate(grad_outputs[0]):  # (B, 1)
            last, *others = (weight[member].t() for weight in reversed(weights))
            grad_biases[-1][member] = grad_values.sum(0)
            for h, block_grad in zip(
                torch.split(x, BLOCK_ROWS), torch.split(grad_values, BLOCK_ROWS), strict=True
            ):
                inputs = [h, *(next(blocks) for _ in range(depth))]
                grad_weights[-1][member, :, 0] += torch.mv(inputs[-1].float().t(), block_grad[:, 0])
                grad = (block_grad * last).to(x.dtype)
                for i in reversed(range(depth)):
                    torch.ops.aten.threshold_backward(grad, inputs[i + 1], 0, grad_input=grad)  # ReLU
                    _add_product(grad_weights[i][member], inputs[i].t(), grad)
                    grad_biases[i][member] += grad.sum(0)
                    if i:
                        grad = grad @ others[depth - 1 - i]
        return (None, *grad_weights, *grad_biases)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add left @ right in place; the product itself may be in bfloat16."""
    if left.dtype == total.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right

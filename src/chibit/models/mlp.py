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
            layer_norm: normalise after each hidden ReLU, with gain and bias.
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

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs (B, I), the same for every member, to (E, B, O), unbounded."""
        if self._fused_is_faster(x):
            fused: Tensor = _FusedStack.apply(x, *self.weights, *self.biases)
            return fused
        x = x.expand(len(self.weights[0]), *x.shape)
        last = len(self.weights) - 1
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(bias, x, weight)
            if i < last:
                x = torch.relu_(x)
                if self.gains:
                    x = torch.addcmul(self.shifts[i], F.layer_norm(x, x.shape[-1:]), self.gains[i])
        return x

    def _fused_is_faster(self, x: Tensor) -> bool:
        # Not where the input has a gradient: it is then the only one asked for, and autograd leaves the
        # weights' products out, which a Function cannot.
        return (
            len(x) >= FUSED_MIN_ROWS
            and x.device.type == "cpu"
            and not self.gains
            and not x.requires_grad
            and torch.is_grad_enabled()
            and not torch.is_autocast_enabled("cpu")
        )


class _FusedStack(torch.autograd.Function):
    """A stack's value and gradient, member by member and in place: equal to autograd's, a tenth faster."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *parameters: Tensor) -> Tensor:
        num_layers = len(parameters) // 2
        weights, biases = parameters[:num_layers], parameters[num_layers:]
        hidden, outputs = [], []
        for member in range(len(weights[0])):
            h = x
            for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
                h = torch.addmm(bias[member], h, weight[member]).relu_()
                hidden.append(h)
            outputs.append(torch.addmm(biases[-1][member], h, weights[-1][member]))
        ctx.save_for_backward(x, *weights, *hidden)
        ctx.num_layers = num_layers
        return torch.stack(outputs)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        num_layers = ctx.num_layers
        x, *saved = ctx.saved_tensors
        weights, hidden = saved[:num_layers], saved[num_layers:]
        grad_weights = [torch.empty_like(weight) for weight in weights]
        grad_biases = [torch.empty_like(weight[:, :1]) for weight in weights]
        for member, grad in enumerate(grad_outputs[0]):
            inputs = [x, *hidden[member * (num_layers - 1) : (member + 1) * (num_layers - 1)]]
            for i in reversed(range(num_layers)):
                torch.mm(inputs[i].t(), grad, out=grad_weights[i][member])
                torch.sum(grad, 0, keepdim=True, out=grad_biases[i][member])
                if i:
                    grad = grad @ weights[i][member].t()
                    torch.ops.aten.threshold_backward(grad, inputs[i], 0, grad_input=grad)  # ReLU, in place
        return (None, *grad_weights, *grad_biases)

"""Low-rank adaptation: a frozen backbone learns through small matrices beside its attention maps.

The map from inputs to queries, keys and values, W (O, I), becomes W + (alpha / rank) B A with A (rank, I) and
B (O, rank); B starts at zero, so training starts from the function as it was. Ours is the fused map of `GPT`;
backbones of `transformers` get peft's.

Sources: Hu et al. (2022); rank 16, alpha 32 and trained biases on the fused map from LaMo (Shi et al., 2024).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from chibit.core.errors import InputError, first_line, needing
from chibit.models.dropout import dropout
from chibit.models.gpt import GPT, CausalSelfAttention
from chibit.models.huggingface import HuggingFaceBackbone

_QKV_NAMES = ("q_proj", "k_proj", "v_proj", "c_attn", "query_key_value", "qkv_proj", "Wqkv")


class LoRALinear(nn.Module):
    """A linear map with a frozen matrix, a low-rank correction to it, and a bias.

    Attributes:
        frozen: W (O, I), not trained.
        bias: (O,).
        down: A (rank, I).
        up: B (O, rank).
    """

    def __init__(self, linear: nn.Linear, *, rank: int, alpha: float, dropout: float) -> None:
        """Take over the matrix and the bias of a linear map.

        Args:
            linear: the map to adapt.
            rank: columns of A and rows of B.
            alpha: the correction is scaled by alpha / rank.
            dropout: probability of dropping an entry of A in a forward pass. One draw serves all tokens of
                the pass, so the corrected matrix is formed once, whatever the number of tokens.
        """
        super().__init__()
        self.frozen = linear.weight.requires_grad_(False)
        self.bias = linear.bias.requires_grad_(True)
        self.scale, self.dropout = alpha / rank, dropout
        self.down = nn.Parameter(torch.empty(rank, linear.in_features, device=linear.weight.device))
        self.up = nn.Parameter(torch.zeros(linear.out_features, rank, device=linear.weight.device))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    @property
    def weight(self) -> Tensor:
        """(O, I) corrected matrix; under training, with a fresh draw of the dropout."""
        down = dropout(self.down, self.dropout, training=self.training, as_torch=True)
        return self.frozen + self.scale * (self.up @ down)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., I) to (..., O)."""
        return F.linear(x, self.weight, self.bias)


def add_lora(backbone: nn.Module, *, rank: int = 16, alpha: float = 32.0, dropout: float = 0.1) -> nn.Module:
    """Freeze a backbone and let it learn through low-rank corrections of its attention maps, in place.

    Args:
        backbone: a `GPT` or a `HuggingFaceBackbone`.
        rank: of the corrections.
        alpha: corrections are scaled by alpha / rank.
        dropout: probability of dropout in the corrections. In a `HuggingFaceBackbone` it is peft's: inputs of
            the correction are dropped token by token.

    Returns:
        The same backbone.

    Raises:
        InputError: for a value out of range, a backbone of another kind, one that has its corrections
            already, or a missing extra.
    """
    if rank < 1:
        raise InputError(f"LoRA rank is {rank}, expected at least 1")
    if not 0 < alpha < math.inf:
        raise InputError(f"LoRA alpha is {alpha}, expected a positive number")
    if not 0.0 <= dropout < 1.0:
        raise InputError(f"LoRA dropout is {dropout}, expected a probability below 1")
    if isinstance(backbone, HuggingFaceBackbone):
        _add_peft(backbone, rank, alpha, dropout)
        return backbone
    if not isinstance(backbone, GPT):
        raise InputError(f"LoRA needs a GPT or a HuggingFaceBackbone, got {type(backbone).__name__}")
    backbone.requires_grad_(False)
    for attention in [part for part in backbone.modules() if isinstance(part, CausalSelfAttention)]:
        if isinstance(attention.qkv, LoRALinear):
            raise InputError("this backbone has low-rank corrections already")
        lora = LoRALinear(attention.qkv, rank=rank, alpha=alpha, dropout=dropout)
        attention.qkv = lora  # type: ignore[assignment]
    return backbone


def _add_peft(backbone: HuggingFaceBackbone, rank: int, alpha: float, dropout: float) -> None:
    """Adapt the maps to queries, keys and values; every linear map where none is known by name."""
    with needing("hf", "LoRA on an hf: model"):
        import peft
    if any(isinstance(module, peft.tuners.lora.LoraLayer) for module in backbone.modules()):
        raise InputError("this backbone has low-rank corrections already")
    leaves = {name.rpartition(".")[2]: module for name, module in backbone.body.named_modules()}
    targets = sorted(leaves.keys() & set(_QKV_NAMES))
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]
        lora_dropout=dropout,
        bias="lora_only",
        target_modules=targets or "all-linear",
        # GPT-2's class stores its matrices transposed.
        fan_in_fan_out=any(type(leaves[name]).__name__ == "Conv1D" for name in targets),
    )
    backbone.requires_grad_(False)
    try:
        peft.inject_adapter_in_model(config, backbone.body)
    except ValueError as error:
        reason = f"{type(backbone.body).__name__} takes no low-rank corrections ({first_line(error)})"
        raise InputError(f"{reason}; use --tuning full or frozen") from error

"""Orthogonal matrices, as an example of an initializer of one's own.

In the folder of this file:

    chibit train --initializer my_initializer:orthogonal --data hopper-medium
    chibit evaluate RUN --initializer my_initializer:orthogonal
"""

from __future__ import annotations

from torch import nn

from chibit.models.gpt import GPT, GPTConfig
from chibit.models.initializers import Weights, initializer


@initializer
def orthogonal(gain: str) -> Weights:
    """ChibiT's architecture with orthogonal matrices.

    Args:
        gain: what stands behind the name, as in my_initializer:orthogonal:0.5; empty is 1.
    """
    backbone = GPT(GPTConfig())
    for parameter in backbone.parameters():
        if parameter.ndim == 2:
            nn.init.orthogonal_(parameter, gain=float(gain or 1))
    return Weights(backbone)

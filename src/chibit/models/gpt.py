"""A pre-norm causal transformer without embedding tables: the backbone under every initializer.

It maps input embeddings to hidden states and nothing else, so the same blocks serve word tokens
(`language_model`) and trajectory tokens (`decision_transformer`). Norm, activation and sizes are selectable,
which is what GPT-2, the CLIP text tower and ImageGPT need. Everything is a pure function of its inputs (no
data-dependent control flow, nothing in place), so `torch.func` can stack several models of one shape.

Dimensions: B batch · T tokens · T' tokens whose output is asked for · D width · H heads · E = D / H.
Sources: Radford et al. (2019) for the block; transformers' GPT2Model for the initialization that parity tests
hold it to.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from annotated_types import Interval
from torch import Tensor, nn

from chibit.core.config import Checked
from chibit.core.errors import InputError
from chibit.core.fields import BelowOne, Count, Layers
from chibit.models.backbone import Backbone
from chibit.models.dropout import dropout, is_counted, is_stacked

_HAS_ONEDNN = torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled
_QUERY_BLOCK = 256
"""Queries of a long sequence are handled so many at a time, without the keys that none of them sees."""
_BYTES_A_BLOCK = 100_000
"""What Python takes for the objects of a block, whatever its width."""
Activation = Literal["relu", "gelu", "gelu_new", "quick_gelu"]
Norm = Literal["layernorm", "rms"]


@dataclass(frozen=True, kw_only=True)
class GPTShape(Checked):
    """Shape of a backbone. Defaults: Table 7 of Reid et al. (2022), the size of ChibiT."""

    n_layer: Layers = 3
    """Blocks."""
    n_head: Count = 1
    """Attention heads; must divide `n_embd`."""
    n_embd: Count = 128
    """Width D of the residual stream."""
    n_inner: Count | None = None
    """Width of the MLP's hidden layer; None is four times `n_embd`."""
    activation: Activation = "relu"
    """Non-linearity of the MLP; `gelu_new` is GPT-2's tanh form, `quick_gelu` CLIP's and ImageGPT's."""
    norm: Norm = "layernorm"
    """`layernorm`, or `rms` (no mean, no bias) as ImageGPT has it."""
    norm_eps: Annotated[float, Interval(gt=0, le=1)] = 1e-5
    """Added to the variance inside every norm."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_embd % self.n_head:
            raise InputError(f"n_head: got {self.n_head}, expected a divisor of n_embd = {self.n_embd}")

    @property
    def inner_width(self) -> int:
        """Width of the MLP's hidden layer."""
        return 4 * self.n_embd if self.n_inner is None else self.n_inner

    @property
    def relative_size(self) -> float:
        """Parameters in the blocks, in ChibiTs: 594,816."""
        return self.n_layer * self.n_embd**2 / (3 * 128**2)

    def num_bytes(self, *, table_rows: int, batches: Sequence[tuple[int, int]], trained: bool = True) -> int:
        """What training takes, from below: weights, and activations kept for backward.

        Args:
            table_rows: rows of tables of this width.
            batches: sequences and their tokens in each batch of a step; attention takes the square of the
                latter.
            trained: whether the blocks have gradients and two moments each, or are frozen.
        """
        width, inner = self.n_embd, self.inner_width
        blocks = self.n_layer * (4 * width**2 + 2 * width * inner)
        weights = 4 * (blocks * (4 if trained else 1) + 4 * table_rows * width)
        activations = 0
        for rows, tokens in batches:
            pairs = tokens**2 if tokens <= _QUERY_BLOCK else tokens * (tokens + _QUERY_BLOCK) // 2
            each = tokens * (7 * width + 2 * inner) + 2 * self.n_head * pairs
            activations += 4 * self.n_layer * rows * each
        return weights + activations + self.n_layer * _BYTES_A_BLOCK

    @property
    def shape(self) -> GPTShape:
        """The shape alone."""
        return GPTShape(**{field.name: getattr(self, field.name) for field in fields(GPTShape)})


@dataclass(frozen=True, kw_only=True)
class GPTConfig(GPTShape):
    """A shape, and what is dropped in training."""

    attn_dropout: BelowOne = 0.1
    """Probability of dropping an attention weight."""
    resid_dropout: BelowOne = 0.1
    """Probability of dropping an output of a sub-layer before it is added to the residual stream."""
    embd_dropout: BelowOne = 0.1
    """Probability of dropping an input embedding's coordinate."""


DROPOUTS = ("attn_dropout", "resid_dropout", "embd_dropout")
"""The fields of `GPTConfig` that are no shape."""
SIZES = {
    "3M": GPTShape(n_embd=256, n_head=4, n_layer=4),
    "18M": GPTShape(n_embd=512, n_head=8, n_layer=6),
    "84M": GPTShape(n_embd=768, n_head=12, n_layer=12),
}
"""Table 9 of Reid et al. (2022), by the count of the blocks' parameters."""


def _activate(x: Tensor, activation: Activation) -> Tensor:
    if activation == "relu":
        return F.relu(x)
    if activation == "quick_gelu":
        return x * torch.sigmoid(1.702 * x)
    return F.gelu(x, approximate="tanh" if activation == "gelu_new" else "none")


def _make_norm(config: GPTConfig) -> nn.Module:
    kind = nn.LayerNorm if config.norm == "layernorm" else nn.RMSNorm
    return kind(config.n_embd, eps=config.norm_eps)


def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`F.linear` of (B, T, I), by whichever of two equal computations is faster.

    Training in float32 on a CPU, a 1x1 convolution of narrow layers runs 1.05 to 1.15 times as fast, forward
    and backward: it is oneDNN's, the matrix product is not. From width 768 on it is slower, and six times as
    slow where torch has no oneDNN. Several models at once are products of batches of matrices.
    """
    batch, tokens, width = x.shape
    eager_fp32 = x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    alone = eager_fp32 and not is_stacked()
    if not (alone and _HAS_ONEDNN and torch.is_grad_enabled() and width * len(weight) <= 256 * 1024):
        return F.linear(x, weight, bias)
    pixels = x.reshape(batch, tokens, 1, width).permute(0, 3, 1, 2)  # (B, I, T, 1), channels last
    return F.conv2d(pixels, weight[:, :, None, None], bias).permute(0, 2, 3, 1).reshape(batch, tokens, -1)


class Attending(NamedTuple):
    """Which tokens attend to which, and what is wanted of it."""

    allowed: Tensor
    """(T', T) or (B, 1, T', T) bool, True where the row's token may see the column's."""
    plain: bool
    """Whether `allowed` is the whole causal triangle, for which kernels have a faster path."""
    positions: slice | None
    """Tokens whose output is asked for; None is all."""
    want_weights: bool
    """Whether the attention weights are wanted besides the output."""


class CausalSelfAttention(nn.Module):
    """Masked multi-head attention with one fused projection to queries, keys and values."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.qkv = nn.Linear(config.n_embd, 3 * config.n_embd)
        self.projection = nn.Linear(config.n_embd, config.n_embd)

    def forward(self, x: Tensor, attending: Attending) -> tuple[Tensor, Tensor | None]:
        """Map (B, T, D) to (B, T', D); if wanted also the weights (B, H, T', T) before dropout."""
        n_head, width = self.config.n_head, self.config.n_embd
        if attending.positions is None:
            query, key, value = _linear(x, self.qkv.weight, self.qkv.bias).split(
                width, dim=-1
            )  # 3 x (B, T, D)
        else:
            weight, bias = self.qkv.weight, self.qkv.bias
            query = F.linear(x[:, attending.positions], weight[:width], bias[:width])
            key, value = _linear(x, weight[width:], bias[width:]).chunk(2, dim=-1)
        query, key, value = (y.unflatten(-1, (n_head, -1)).transpose(1, 2) for y in (query, key, value))
        p = self.config.attn_dropout if self.training else 0.0
        weights = None
        if attending.want_weights:
            mixed, weights = _explicit_attention(query, key, value, attending.allowed, p)
        elif not _use_fused(query):
            mixed = _blockwise_attention(query, key, value, attending, p)
        else:
            mixed = F.scaled_dot_product_attention(
                query,
                key,
                value,
                attn_mask=None if attending.plain else _as_bias(attending.allowed, query.dtype),
                is_causal=attending.plain,
                dropout_p=p,
            )
        return self.projection(mixed.transpose(1, 2).flatten(-2)), weights


def _as_bias(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    # A finite lowest value, not -inf: a row of padding alone then stays finite and its gradient stays zero.
    return torch.zeros_like(allowed, dtype=dtype).masked_fill(~allowed, torch.finfo(dtype).min)


_QUERY_BLOCK = 256
"""Queries of a long sequence that are handled at a time."""


def _use_fused(query: Tensor) -> bool:
    """Whether the library's kernel is used: on GPUs, unless dropout's draws are counted, which it cannot do.

    Measured on CPU, forward and backward, it is slower than plain operations on blocks of queries at every
    length from 60 to 1,024 tokens, in bfloat16 up to 2.6 times, and with dropout even more.
    """
    return query.device.type != "cpu" and not is_counted()


def _explicit_attention(
    query: Tensor, key: Tensor, value: Tensor, allowed: Tensor, dropout_p: float
) -> tuple[Tensor, Tensor]:
    scores = query @ key.transpose(-2, -1)  # (B, H, T', T)
    scores = torch.add(_as_bias(allowed, scores.dtype), scores, alpha=1.0 / math.sqrt(query.shape[-1]))
    weights = scores.softmax(dim=-1, dtype=torch.float32)
    return dropout(weights.to(value.dtype), dropout_p, training=True) @ value, weights


def _blockwise_attention(
    query: Tensor, key: Tensor, value: Tensor, attending: Attending, dropout_p: float
) -> Tensor:
    """The same for long sequences, a block of queries at a time, without the keys that none of them sees."""
    tokens = key.shape[-2]
    if attending.positions is not None or tokens <= _QUERY_BLOCK:
        return _explicit_attention(query, key, value, attending.allowed, dropout_p)[0]
    parts = []
    for start in range(0, tokens, _QUERY_BLOCK):
        end = min(start + _QUERY_BLOCK, tokens)
        allowed = attending.allowed[..., start:end, :end]
        rows, seen = query[..., start:end, :], slice(0, end)
        parts.append(_explicit_attention(rows, key[..., seen, :], value[..., seen, :], allowed, dropout_p)[0])
    return torch.cat(parts, dim=-2)


class Block(nn.Module):
    """Attention, then an MLP, each behind a norm and added to the residual stream."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.attention_norm = _make_norm(config)
        self.attention = CausalSelfAttention(config)
        self.mlp_norm = _make_norm(config)
        self.expand = nn.Linear(config.n_embd, config.inner_width)
        self.contract = nn.Linear(config.inner_width, config.n_embd)

    def forward(self, x: Tensor, attending: Attending) -> tuple[Tensor, Tensor | None]:
        """Map (B, T, D) to (B, T', D); if wanted also the attention weights (B, H, T', T)."""
        p, positions = self.config.resid_dropout, attending.positions
        mixed, weights = self.attention(self.attention_norm(x), attending)
        x = (x if positions is None else x[:, positions]) + dropout(mixed, p, training=self.training)
        hidden = _linear(self.mlp_norm(x), self.expand.weight, self.expand.bias)
        mixed = _linear(_activate(hidden, self.config.activation), self.contract.weight, self.contract.bias)
        return x + dropout(mixed, p, training=self.training), weights


class GPT(Backbone):
    """A stack of blocks and a final norm. It holds no token and no position table.

    The default size has 594,816 parameters in its blocks and 256 in the final norm.
    """

    def __init__(self, config: GPTConfig) -> None:
        """Build a backbone with GPT-2's initialization, drawn from torch's global generator."""
        super().__init__()
        self.config, self.width = config, config.n_embd
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.norm = _make_norm(config)
        self.reset_parameters()

    def set_dropout(self, **probabilities: Any) -> None:
        """Change dropout probabilities, by `GPTConfig`'s names for them."""
        self.config = replace(self.config, **probabilities)
        for module in self.modules():
            if isinstance(module, Block | CausalSelfAttention):
                module.config = self.config

    @property
    def layers(self) -> nn.Module:
        """Its blocks, without the final norm."""
        return self.blocks

    def reset_parameters(self) -> None:
        """Draw weights from N(0, 0.02); that over sqrt(2 n_layer) where they write to the residual stream."""
        residual_std = 0.02 / math.sqrt(2 * self.config.n_layer)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif "norm" in name:
                nn.init.ones_(parameter)
            else:
                writes_residual = name.endswith(("projection.weight", "contract.weight"))
                nn.init.normal_(parameter, std=residual_std if writes_residual else 0.02)

    def forward(
        self,
        embeddings: Tensor,
        attention_mask: Tensor | None = None,
        *,
        positions: slice | None = None,
        return_attentions: bool = False,
    ) -> Tensor | tuple[Tensor, tuple[Tensor, ...]]:
        """See `Backbone`; queries, projection and MLP of the last layer are those at `positions` alone."""
        tokens = embeddings.shape[1]
        allowed = torch.ones(tokens, tokens, dtype=torch.bool, device=embeddings.device).tril()  # (T, T)
        if attention_mask is not None:
            allowed = allowed & attention_mask[:, None, None, :]  # (B, 1, T, T)
        attending = Attending(allowed, attention_mask is None, None, return_attentions)
        x = dropout(embeddings, self.config.embd_dropout, training=self.training)
        attentions = []
        for block in self.blocks[:-1]:
            x, weights = block(x, attending)
            attentions.append(weights)
        if positions is not None:
            attending = Attending(allowed[..., positions, :], False, positions, return_attentions)
        x, weights = self.blocks[-1](x, attending)
        hidden = self.norm(x)
        return (hidden, (*attentions, weights)) if return_attentions else hidden

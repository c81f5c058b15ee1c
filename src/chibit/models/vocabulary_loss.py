"""Next-token cross-entropy over a large vocabulary in little memory, exact or over sampled candidates.

A 65,536-token batch has 13 GB of logits over GPT-2's vocabulary. Here logits exist for one chunk of tokens at
a time: the chunk's gradients with respect to the hidden states and the word embeddings are computed at once,
in the forward pass, and the logits are dropped. One softmax kernel in the compute precision is the only pass
over the logits besides three matrix products, which on CPU is faster than a compiled head.

With `Candidates` the normalizer is estimated from a sample of the vocabulary, Σ_j e^{l_j} / π_j over the
sampled j, with π_j the probability that j is in the sample: sampled softmax in the manner of Jean et al.
(2015), with exact inclusion probabilities in place of their proposal. It makes pre-training affordable on a
CPU; the loss it returns is an estimate.

Dimensions: N tokens · D width · V vocabulary · C candidates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK_TOKENS = 512
"""Tokens whose logits exist at a time: 51 MB of bfloat16 or 103 MB of float32 over GPT-2's vocabulary."""
_POWER = 0.75
"""Of the counts that candidates are drawn by: 1 follows the unigram distribution, below favors rare words."""


@dataclass(frozen=True)
class Candidates:
    """A sample of the vocabulary that stands for all of it in one micro-batch."""

    ids: Tensor
    """(C,) int64 distinct token ids."""
    log_inclusion: Tensor
    """(C,) float32 log-probability that the id was drawn."""


class CandidateSampler:
    """Draws C distinct ids, each with a known probability in proportion to (count + 1)^0.75, at most 1."""

    def __init__(self, counts: np.ndarray, num_candidates: int) -> None:
        """Solve for the inclusion probabilities.

        Args:
            counts: (V,) occurrences of each token in the corpus.
            num_candidates: C, between 1 and V.
        """
        self.num_candidates = num_candidates
        weight = (np.asarray(counts, dtype=np.float64) + 1.0) ** _POWER
        inclusion = np.ones(len(weight))
        free = np.ones(len(weight), dtype=bool)
        while free.any():  # each round fixes the most frequent ids at probability 1; it ends after a few
            inclusion[free] = (num_candidates - (~free).sum()) * weight[free] / weight[free].sum()
            capped = free & (inclusion >= 1.0)
            inclusion[capped] = 1.0
            free &= ~capped
            if not capped.any():
                break
        self.inclusion = inclusion
        """(V,) probability that an id is in a sample; sums to C."""

    def draw(self, generator: np.random.Generator) -> Candidates:
        """One systematic sample: equally spaced points on the probabilities cumulated in a random order."""
        order = generator.permutation(len(self.inclusion))
        cumulated = np.cumsum(self.inclusion[order])
        points = (np.arange(self.num_candidates) + generator.random()) * (cumulated[-1] / self.num_candidates)
        ids = order[np.searchsorted(cumulated, points, side="right").clip(max=len(order) - 1)]
        log_inclusion = np.log(self.inclusion[ids]).astype(np.float32)
        return Candidates(torch.from_numpy(ids), torch.from_numpy(log_inclusion))


def vocabulary_loss(
    hidden: Tensor,
    embeddings: Tensor,
    targets: Tensor,
    *,
    candidates: Candidates | None = None,
    chunk: int = CHUNK_TOKENS,
) -> Tensor:
    """Mean negative log-likelihood of the targets under a softmax over the (tied) word embeddings.

    Args:
        hidden: (N, D) normalized hidden states.
        embeddings: (V, D) word embeddings.
        targets: (N,) int64.
        candidates: None for the exact softmax; else the normalizer is estimated from these, where there are
            gradients: without them the loss is exact.
        chunk: tokens whose logits exist at a time.

    Returns:
        Scalar float32. Under autocast the matrix products run in its precision.
    """
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
    ids = None if candidates is None else candidates.ids.to(hidden.device)
    bias = None if candidates is None else -candidates.log_inclusion.to(hidden.device)
    if not torch.is_grad_enabled():
        words = embeddings.to(dtype).T
        parts = zip(hidden.to(dtype).split(chunk), targets.split(chunk), strict=True)
        losses = [F.cross_entropy((part @ words).float(), label, reduction="sum") for part, label in parts]
        return torch.stack(losses).sum() / len(targets)
    return _VocabularyLoss.apply(hidden, embeddings, targets, ids, bias, dtype, chunk)


class _VocabularyLoss(torch.autograd.Function):
    """Loss and gradients chunk by chunk; backward only scales what forward has found."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        embeddings: Tensor,
        targets: Tensor,
        ids: Tensor | None,
        bias: Tensor | None,
        dtype: torch.dtype,
        chunk: int,
    ) -> Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            h, table = hidden.detach().to(dtype), embeddings.detach()
            head = _Head((table if ids is None else table[ids]).to(dtype), bias, min(chunk, len(h)))
            columns = None if ids is None else _columns(ids, len(table))
            losses, hidden_gradients, target_gradients = [], [], []
            for part, label in zip(h.split(chunk), targets.split(chunk), strict=True):
                hit = None if columns is None else columns[label]
                loss, toward, excess = head.chunk(part, table[label].to(dtype), hit)
                losses.append(loss)
                hidden_gradients.append(toward)
                target_gradients.append(excess[:, None] * part)
            gradient = head.gradient.T.contiguous()  # (V, D) or (C, D)
            if ids is not None:
                gradient = torch.zeros_like(table, dtype=torch.float32).index_add_(0, ids, gradient)
            gradient.index_add_(0, targets, torch.cat(target_gradients).float())
            scale = 1.0 / len(targets)
            ctx.save_for_backward(
                (torch.cat(hidden_gradients) * scale).to(hidden.dtype),
                gradient.mul_(scale).to(embeddings.dtype),
            )
            return torch.cat(losses).mean()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        hidden_gradient, gradient = ctx.saved_tensors
        return hidden_gradient * upstream, gradient * upstream, None, None, None, None, None


def _columns(ids: Tensor, vocab_size: int) -> Tensor:
    """(V,) column of each id among the candidates, -1 for the others."""
    columns = torch.full((vocab_size,), -1, dtype=torch.int64, device=ids.device)
    return columns.scatter_(0, ids, torch.arange(len(ids), device=ids.device))


class _Head:
    """The words that the softmax runs over, memory for one chunk's logits, and the words' gradient so far.

    The memory is used again for each chunk: fetching it anew from the system costs as much as the softmax.
    """

    def __init__(self, words: Tensor, bias: Tensor | None, rows: int) -> None:
        self.words = words  # (V, D) or (C, D)
        self.bias = None if bias is None else bias.to(words.dtype)
        self.logits, self.softmax = words.new_empty(rows, len(words)), words.new_empty(rows, len(words))
        # Transposed: the product that adds to it is faster that way round.
        self.gradient = torch.zeros(words.shape[1], len(words), device=words.device)

    def chunk(self, hidden: Tensor, targets: Tensor, hit: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Losses (n,), gradients of the hidden states (n, D), factors of h in the targets' gradients (n,).

        Args:
            hidden: (n, D).
            targets: (n, D) words that come next; with candidates, they are counted once, with weight 1.
            hit: (n,) column of the target among the candidates or -1; None without candidates.
        """
        own = (hidden * targets).sum(-1, dtype=torch.float32)
        logits, softmax = self.logits[: len(hidden)], self.softmax[: len(hidden)]
        if hit is None or self.bias is None:
            torch.mm(hidden, self.words.T, out=logits)
        else:
            torch.addmm(self.bias, hidden, self.words.T, out=logits)
            column = hit.clamp(min=0)[:, None]
            kept = logits.gather(1, column).masked_fill_((hit >= 0)[:, None], -torch.inf)
            logits.scatter_(1, column, kept)
        torch.softmax(logits, -1, out=softmax)
        # The normalizer from the largest entry, whose probability cannot underflow: no second exponentials.
        normalizer = logits.amax(-1).float() - softmax.amax(-1).float().log()
        if hit is None:
            share, excess, loss = torch.ones_like(own), -torch.ones_like(own), normalizer - own
        else:
            total = torch.logaddexp(normalizer, own)
            share, excess, loss = (normalizer - total).exp(), (own - total).exp() - 1.0, total - own
        self.gradient += (share[:, None] * hidden).to(hidden.dtype).T @ softmax
        toward = share[:, None] * (softmax @ self.words).float() + excess[:, None] * targets
        return loss, toward, excess

"""A model that is told in words what to do: text, then states and actions; one soft look over a grid.

The sequence is [text][s_1, a_1, s_2, a_2, ...], and the action a_t is read from the hidden state of s_t. What
the text says also chooses where to look in each grid of symbols: the weights of the cells are those of one
attention whose query is the text and whose keys are what is in the cells. No step sees another by it.

Dimensions: B batch · K steps · L tokens of the text · D backbone width · H W cells of a grid · R other
numbers in a state · F features of a text.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from chibit.models.backbone import Backbone

SYMBOLS = (11, 6, 4)
"""Kinds of objects, colors and states of a cell in MiniGrid; larger numbers are taken for the last."""
PADDING = -1
"""In place of a token where a text is shorter than others: on the left, so that all end where steps begin."""
_CELL_WIDTH, _KEY_WIDTH, _HIDDEN = 16, 64, 256


class Told(NamedTuple):
    """What was made of a text."""

    tokens: Tensor
    """(B, L, D), before the steps."""
    mask: Tensor
    """(B, L) bool, True = real."""
    summary: Tensor
    """(B, D), by which the look is chosen."""


class TokenReader(nn.Module):
    """Words and their positions; the backbone reads them by themselves first, for the summary."""

    words: Tensor

    def __init__(self, backbone: nn.Module, words: Tensor, positions: Tensor | None) -> None:
        """Keep word embeddings (V, D) as they are, and positions (P, D) to train; None adds none."""
        super().__init__()
        self._backbone = [backbone]  # not a part: it is the model's
        self.register_buffer("words", words)
        self.positions = None if positions is None else nn.Parameter(positions.clone())

    def forward(self, text: Tensor) -> Told:
        """Read (B, L) int64 tokens, padded on the left."""
        mask = text != PADDING
        tokens = self.words[text.clamp(min=0)]
        if self.positions is not None:
            place = (mask.cumsum(1) - 1).clamp(0, len(self.positions) - 1)
            tokens = tokens + self.positions[place]
        read = self._backbone[0](tokens, mask)  # (B, L, D)
        return Told(tokens, mask, _mean(read.float(), mask))


class BagReader(nn.Module):
    """The mean of the words, without their order, as one token."""

    words: Tensor

    def __init__(self, words: Tensor, width: int) -> None:
        """Keep word embeddings (V, E) as they are."""
        super().__init__()
        self.register_buffer("words", words)
        self.project = nn.Sequential(nn.LayerNorm(words.shape[1]), nn.Linear(words.shape[1], width))
        self.norm = nn.LayerNorm(width)

    def forward(self, text: Tensor) -> Told:
        """Read (B, L) int64 tokens, padded on the left."""
        mean = _mean(self.words[text.clamp(min=0)], text != PADDING)
        return _one_token(self.norm(self.project(mean)))


class FeatureReader(nn.Module):
    """Features of whole texts, which a frozen language model gave, as one token."""

    mean: Tensor
    scale: Tensor

    def __init__(self, num_features: int, width: int) -> None:
        """Expect features of spread 1 until `standardize` has seen some."""
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("scale", torch.ones(()))
        self.project = nn.Linear(num_features, width)
        self.norm = nn.LayerNorm(width)

    @torch.no_grad()
    def standardize(self, features: Tensor) -> None:
        """Take mean and spread of the features (M, F) of the texts that will be learned from."""
        self.mean.copy_(features.mean(0))
        if len(features) > 1:
            self.scale.copy_(features.std(0).mean().clamp(min=1e-6))

    def forward(self, text: Tensor) -> Told:
        """Take (B, F) features."""
        return _one_token(self.norm(self.project((text - self.mean) / self.scale)))


def _one_token(summary: Tensor) -> Told:
    mask = torch.ones(len(summary), 1, dtype=torch.bool, device=summary.device)
    return Told(summary[:, None], mask, summary)


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    """(B, D) mean of the real ones of (B, L, D); 0 where there are none."""
    return (values * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)


class SoftLook(nn.Module):
    """A state with a grid of symbols, looked at as a text says."""

    def __init__(self, num_cells: int, num_others: int, width: int) -> None:
        """Make tables of symbols, and what turns a grid of H W cells and R other numbers into a token."""
        super().__init__()
        self.symbols = nn.ModuleList(nn.Embedding(count, _CELL_WIDTH) for count in SYMBOLS)
        self.places = nn.Parameter(torch.randn(num_cells, _CELL_WIDTH) * 0.5)
        self.key = nn.Linear(_CELL_WIDTH, _KEY_WIDTH, bias=False)
        self.query = nn.Linear(width, _KEY_WIDTH)
        self.scale = nn.Parameter(torch.tensor(1.0))
        seen = num_cells * _CELL_WIDTH + _CELL_WIDTH + num_cells
        self.project = nn.Sequential(nn.Linear(seen, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, width))
        self.others = nn.Linear(num_others, width) if num_others else None

    def forward(self, grids: Tensor, others: Tensor, summary: Tensor) -> Tensor:
        """Map grids (B, K, H W, 3) int64, other numbers (B, K, R) and texts (B, D) to (B, K, D)."""
        cells = torch.stack(
            [
                table(grids[..., place].clamp(0, count - 1))
                for place, (table, count) in enumerate(zip(self.symbols, SYMBOLS, strict=True))
            ]
        ).sum(0)  # (B, K, HW, 16)
        query = self.query(summary)[:, None, :, None]  # (B, 1, 64, 1)
        scores = (self.key(cells) @ query).squeeze(-1) * self.scale / _KEY_WIDTH**0.5
        weights = scores.float().softmax(-1)  # (B, K, HW)
        looked_at = (weights[..., None] * (cells + self.places)).sum(-2)
        seen = torch.cat([cells.flatten(2), looked_at, weights * cells.shape[-2] ** 0.5], dim=-1)
        tokens: Tensor = self.project(seen)
        return tokens if self.others is None else tokens + self.others(others)


class InstructedModel(nn.Module):
    """Predicts the action of every step from a text and from the states and actions before it."""

    def __init__(
        self,
        backbone: Backbone,
        reader: nn.Module,
        *,
        grid_columns: slice,
        num_cells: int,
        state_dim: int,
        num_actions: int,
        max_timesteps: int,
    ) -> None:
        """Surround a backbone.

        Args:
            backbone: maps (B, T, D) to (B, T', D), as `GPT` does.
            reader: makes `Told` of a text.
            grid_columns: where in a state its grid of cells is, three symbols a cell.
            num_cells: H W.
            state_dim: S, numbers in a state.
            num_actions: number of discrete actions.
            max_timesteps: rows of the table of timesteps.
        """
        super().__init__()
        width = backbone.width
        self.backbone, self.reader = backbone, reader
        self._grid, self._num_cells = grid_columns, num_cells
        self.look = SoftLook(num_cells, state_dim - (grid_columns.stop - grid_columns.start), width)
        self.embed_action = nn.Embedding(num_actions, width)
        self.timesteps = nn.Embedding(max_timesteps, width)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_actions)

    def forward(
        self, text: Tensor, states: Tensor, actions: Tensor, timesteps: Tensor, *, last_only: bool = False
    ) -> Tensor:
        """Predict actions.

        Args:
            text: (B, L) int64 tokens, or (B, F) features, as the reader takes them.
            states: (B, K, S) as the environment gives them, not normalized.
            actions: (B, K) int64; the last one is not looked at.
            timesteps: (B, K) int64 from 0; past the end of the table they are its last row.
            last_only: predict for the last step only.

        Returns:
            (B, K, A) logits, or (B, 1, A).
        """
        told: Told = self.reader(text)
        grids = states[..., self._grid].round().long().unflatten(-1, (self._num_cells, len(SYMBOLS)))
        others = torch.cat([states[..., : self._grid.start], states[..., self._grid.stop :]], dim=-1)
        seen = self.look(grids, others, told.summary)
        time = self.timesteps(timesteps.clamp(max=self.timesteps.num_embeddings - 1))
        steps = torch.stack([seen, self.embed_action(actions)], dim=2) + time[:, :, None]
        tokens = self.norm(steps.flatten(1, 2))[:, :-1]
        inputs = torch.cat([told.tokens.to(tokens.dtype), tokens], dim=1)
        mask = torch.cat([told.mask, told.mask.new_ones(tokens.shape[:2])], dim=1)
        first = told.mask.shape[1]
        positions = slice(-1, None) if last_only else slice(first, None, 2)
        logits: Tensor = self.head(self.backbone(inputs, mask, positions=positions))
        return logits

"""What a backbone is, whoever wrote it: a causal map between vectors of one width.

Dimensions: B batch · T tokens · D width · H heads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

from torch import Tensor, nn


class Backbone(nn.Module, ABC):
    """Maps input embeddings to hidden states; no output depends on a later token."""

    width: int
    """D of the embeddings it takes and of the hidden states it returns."""

    @abstractmethod
    def forward(
        self,
        embeddings: Tensor,
        attention_mask: Tensor | None = None,
        *,
        positions: slice | None = None,
        return_attentions: bool = False,
    ) -> Tensor | tuple[Tensor, tuple[Tensor, ...]]:
        """Map input embeddings to normalized hidden states.

        Args:
            embeddings: (B, T, D).
            attention_mask: (B, T) bool, True for real tokens; None if all are real, or if padding is on the
                right and its outputs are not used (no real token can see it).
            positions: give the outputs of these tokens only, which are those of the full computation; None is
                all of them.
            return_attentions: also return the attention weights of each layer, before dropout.

        Returns:
            (B, T', D) hidden states; with `return_attentions` also a tuple of (B, H, T, T) weights, one per
            layer, of which the last has only the T' rows of `positions`.

        Raises:
            InputError: for more tokens than it takes, or weights that it does not have.
        """

    @property
    def layers(self) -> nn.Module:
        """Its blocks; all of it where they cannot be told from the rest."""
        return self

    def set_dropout(  # noqa: B027 - somebody's own has its own
        self, *, attn_dropout: float, resid_dropout: float, embd_dropout: float
    ) -> None:
        """Change the dropout probabilities in place, as far as there is a place for each.

        Args:
            attn_dropout: of attention weights.
            resid_dropout: of what is added to the residual stream.
            embd_dropout: of input embeddings.
        """

    def save_config(self, folder: Path) -> None:  # noqa: B027 - most are rebuilt from the agent's config
        """Write what its structure follows from into a folder, where that is a file of its own."""

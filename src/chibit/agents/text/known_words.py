"""Does a language model know the words? Nearest neighbors of colors, kinds of objects and verbs.

Each word is left out in turn, and the nearest of the others, by the cosine of its embedding or of its hidden
state, is right where it means the same. A model that does no better than vectors drawn at random for the same
tokens cannot be shown to use language by a synonym: that nothing is found with it is no evidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from chibit.agents.text.words import Words, hidden_states
from chibit.environments.instructions import SLOTS, SYNONYMS, Slot

_FRAMES: dict[Slot, str] = {
    "color": "He walked to the",
    "type": "He walked to the red",
    "verb": "He wanted to",
}
"""What stands before a word whose hidden state is taken."""
RARELY = 0.99
"""Share of random tables that known words do better than, by the mean of both tests."""
_DRAWS, _DRAWN_WIDTH = 256, 32


def known_words(words: Words, *, layer: int | None = None, in_context: bool = False) -> dict[str, Any]:
    """Test a vocabulary.

    Args:
        words: of an initializer.
        layer: of its language model, for `in_context`, see `hidden_states`.
        in_context: by hidden states within a sentence, not by token embeddings.

    Returns:
        For each of color, type and verb: `nearest`, the share of words whose nearest other one means the
        same, `random`, the mean of that over tables of random vectors for the same tokens (which words
        share: key, keycard), `seen`, the share of synonyms whose nearest word of training is the right one,
        its chance `seen_random`, the `number` of words, and whether they count as `known`.
    """
    return {slot: _test(words, slot, layer, in_context) for slot in SLOTS}


def _test(words: Words, slot: Slot, layer: int | None, in_context: bool) -> dict[str, Any]:
    pairs = [(word, seen) for seen, others in SYNONYMS[slot].items() for word in (seen, *others)]
    labels = np.array([seen for _, seen in pairs])
    is_seen = np.array([word == seen for word, seen in pairs])
    tokens = [torch.tensor(list(words.tokenize(f" {word}"))) for word, _ in pairs]
    if in_context:
        states = [hidden_states(words, f"{_FRAMES[slot]} {word}", layer)[-1] for word, _ in pairs]
        vectors = torch.stack(states) - torch.stack(states).mean(0)
    else:
        vectors = _means(words.table, tokens)
    nearest, seen = _shares(vectors, labels, is_seen)
    # The same with random vectors: words that share a token are near each other in any table.
    used, places = torch.unique(torch.cat(tokens), return_inverse=True)
    split = list(places.split([len(ids) for ids in tokens]))
    generator = torch.Generator().manual_seed(0)
    drawn = (torch.randn(len(used), _DRAWN_WIDTH, generator=generator) for _ in range(_DRAWS))
    by_chance = np.array([_shares(_means(table, split), labels, is_seen) for table in drawn])
    return {
        "nearest": nearest,
        "random": float(by_chance[:, 0].mean()),
        "seen": seen,
        "seen_random": float(by_chance[:, 1].mean()),
        "number": len(pairs),
        "known": bool((nearest + seen) / 2 > np.quantile(by_chance.mean(axis=1), RARELY)),
    }


def _means(table: Tensor, tokens: Sequence[Tensor]) -> Tensor:
    """(M, E) of words, each the mean of its tokens."""
    return torch.stack([table[ids].mean(0) for ids in tokens])


def _shares(vectors: Tensor, labels: np.ndarray, is_seen: np.ndarray) -> tuple[float, float]:
    """Shares of (M, E) words whose nearest other one, and nearest seen one, means the same."""
    cosines = torch.cosine_similarity(vectors[:, None], vectors[None], dim=-1).fill_diagonal_(-torch.inf)
    nearest = labels[cosines.argmax(1).numpy()]
    nearest_seen = labels[is_seen][cosines[:, torch.from_numpy(is_seen)].argmax(1).numpy()]
    return float((nearest == labels).mean()), float((nearest_seen == labels)[~is_seen].mean())

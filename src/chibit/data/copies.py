"""Episodes that a log holds several times: what is held out may not be what is learned from."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator

import numpy as np


def first_copies(records: np.ndarray, episode_starts: np.ndarray) -> np.ndarray:
    """Of each episode the first one that has the same steps.

    Args:
        records: (N, W) rows of a data set; pictures, which are not in them, are not looked at.
        episode_starts: (E + 1,) first row of each episode, then N.

    Returns:
        (E,) int64.
    """
    first: dict[bytes, int] = {}
    found = enumerate(digests(records, episode_starts))
    return np.array([first.setdefault(digest, episode) for episode, digest in found])


def digests(records: np.ndarray, episode_starts: np.ndarray) -> Iterator[bytes]:
    """What tells the steps of each episode from others."""
    parts = (np.ascontiguousarray(records[a:b]) for a, b in itertools.pairwise(episode_starts))
    return (hashlib.blake2b(part.data, digest_size=16).digest() for part in parts)


def choose_apart(copies: np.ndarray, order: np.ndarray, number: int) -> np.ndarray:
    """Choose episodes of which no copy is left behind.

    Args:
        copies: (E,) what `first_copies` gave.
        order: (E,) in which they are taken.
        number: how many at most; fewer where copies would make it more.

    Returns:
        (E,) bool.
    """
    sizes = np.bincount(copies, minlength=len(copies))
    taken, seen, left = np.zeros(len(copies), bool), np.zeros(len(copies), bool), number
    for first in copies[order]:
        if not seen[first] and sizes[first] <= left:
            taken[first] = True
            left -= sizes[first]
        seen[first] = True
    return taken[copies]

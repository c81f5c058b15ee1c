"""Episodes that a log holds several times: what is held out may not be what is learned from."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterable, Iterator

import numpy as np

from chibit.core.errors import InputError
from chibit.core.formatting import count


def first_copies(
    records: np.ndarray, episode_starts: np.ndarray, frames: np.ndarray | None = None
) -> np.ndarray:
    """Of each episode the first one that has the same steps.

    Args:
        records: (N, W) rows of a data set.
        episode_starts: (E + 1,) first row of each episode, then N.
        frames: (N, H, W) pictures of the steps, where they have any; read only where records are alike.

    Returns:
        (E,) int64.
    """
    found = list(digests(records, episode_starts))
    if frames is not None and len(set(found)) < len(found):
        found = list(digests(records, episode_starts, frames))
    first: dict[bytes, int] = {}
    return np.array([first.setdefault(digest, episode) for episode, digest in enumerate(found)])


def digests(
    records: np.ndarray, episode_starts: np.ndarray, frames: np.ndarray | None = None
) -> Iterator[bytes]:
    """What tells the steps of each episode from others, with their pictures where these are given."""
    for first, end in itertools.pairwise(episode_starts):
        digest = hashlib.blake2b(np.ascontiguousarray(records[first:end]).data, digest_size=16)
        if frames is not None:
            digest.update(np.ascontiguousarray(frames[first:end]).data)
        yield digest.digest()


def copies_of(
    records: np.ndarray,
    starts: np.ndarray,
    others: np.ndarray,
    other_starts: np.ndarray,
    seen: slice,
    rounding: np.ndarray | None,
    frames: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
    """Which episodes another data set of the same sizes has too.

    Args:
        records: (N, W) rows of a data set.
        starts: (E + 1,) first row of each episode, then N.
        others: rows of the other one.
        other_starts: the same of it.
        seen: columns of observations.
        rounding: (S,) by how much observations may differ and still be the same; None for not at all.
        frames: pictures of the steps of both, where they have any; read only where records are alike.

    Returns:
        (E,) bool.
    """
    if rounding is None:
        found = _are_in(digests(records, starts), digests(others, other_starts))
        if frames is None or not found.any():
            return found
        mine, theirs = frames
        return _are_in(digests(records, starts, mine), digests(others, other_starts, theirs))
    by_rest: dict[bytes, list[np.ndarray]] = {}
    rest = digests(np.delete(others, seen, axis=1), other_starts)
    for digest, (first, end) in zip(rest, itertools.pairwise(other_starts), strict=True):
        by_rest.setdefault(digest, []).append(others[first:end, seen])
    rest = digests(np.delete(records, seen, axis=1), starts)
    return np.array(
        [
            any((np.abs(records[a:b, seen] - other) <= rounding).all() for other in by_rest.get(digest, ()))
            for digest, (a, b) in zip(rest, itertools.pairwise(starts), strict=True)
        ]
    )


def _are_in(some: Iterable[bytes], others: Iterable[bytes]) -> np.ndarray:
    there = set(others)
    return np.array([each in there for each in some])


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


def share_to_propose(num_episodes: int, usual: float) -> float | None:
    """A share of episodes that leaves some in both parts: the usual one, or half of few; None of one."""
    return usual if math.floor(usual * num_episodes + 0.5) else 0.5 if num_episodes > 1 else None


def choose_share(copies: np.ndarray, order: np.ndarray, share: float) -> np.ndarray:
    """Choose a share of the episodes, and with each of them all its copies.

    Args:
        copies: (E,) what `first_copies` gave.
        order: (E,) in which they are taken.
        share: in (0, 1).

    Returns:
        (E,) bool.

    Raises:
        InputError: if the share is not in (0, 1), or leaves either side without an episode.
    """
    if not 0.0 < share < 1.0:
        raise InputError(f"share: got {share}, expected more than 0 and less than 1")
    wanted = math.floor(share * len(copies) + 0.5)
    chosen = choose_apart(copies, order, wanted)
    number = int(chosen.sum())
    if not 0 < number < len(copies):
        why = "" if number == wanted else " (copies of an episode stay together)"
        one = "a single episode cannot be divided: leave it out"
        remedy = one if len(copies) == 1 else "give another share, or other data to validate on"
        raise InputError(
            f"share: {share} of {count(len(copies), 'episode')} holds out {number}{why}, expected some in "
            f"both parts; {remedy}"
        )
    return chosen


def choose_fold(copies: np.ndarray, order: np.ndarray, number: int, of: int) -> np.ndarray:
    """Choose one of several folds into which episodes are dealt out in an order, copies together.

    Args:
        copies: (E,) what `first_copies` gave.
        order: (E,) in which they are dealt out.
        number: of the fold, modulo `of`.
        of: number of folds.

    Returns:
        (E,) bool.

    Raises:
        InputError: if there are fewer different episodes than folds.
    """
    different = dict.fromkeys(copies[order].tolist())
    if not 2 <= of <= len(different):
        raise InputError(f"folds: got {of}, expected 2 to {len(different)}, the number of different episodes")
    fold = {first: i % of for i, first in enumerate(different)}
    return np.array([fold[first] == number % of for first in copies.tolist()])

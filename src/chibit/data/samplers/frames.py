"""Stacks of pictures out of single ones: each picture is kept once, and stacks are made when they are read.

A stack never reaches into the episode before: what lies before an episode's first picture is black, as in the
environment.

Dimensions: B batch · K steps of a window · C pictures in a stack · H height · W width · N steps of the data.
"""

from __future__ import annotations

import numpy as np


class FrameStacks:
    """Reads stacks out of the frames of a data set."""

    def __init__(self, frames: np.ndarray, episode_starts: np.ndarray, depth: int) -> None:
        """Prepare the reading.

        Args:
            frames: (N, H, W) uint8, usually a memory map; only what is asked for is read.
            episode_starts: (E + 1,) int64.
            depth: C.
        """
        self._frames = np.asarray(frames)  # a plain view: indexing np.memmap itself is slow
        self._starts = np.asarray(episode_starts)
        self._depth = depth

    def windows(self, rows: np.ndarray, num_steps: int) -> np.ndarray:
        """Give the stacks of consecutive steps.

        A window's K + C - 1 pictures are read once each; its stacks are overlapping views of them.

        Args:
            rows: (B,) int64 first row of each window.
            num_steps: K.

        Returns:
            (B, K, C, H, W) uint8, overlapping. Steps past the end of an episode show its last picture.
        """
        episodes = np.searchsorted(self._starts, rows, side="right") - 1
        first, last = self._starts[episodes][:, None], self._starts[episodes + 1][:, None] - 1
        wanted = rows[:, None] + np.arange(1 - self._depth, num_steps)  # (B, K + C - 1)
        pictures = self._frames.take(np.clip(wanted, first, last), axis=0)
        pictures[wanted < first] = 0
        stacks = np.lib.stride_tricks.sliding_window_view(pictures, self._depth, axis=1, writeable=True)
        return stacks.transpose(0, 1, 4, 2, 3)

    def stacks(self, rows: np.ndarray) -> np.ndarray:
        """Give the stack of each of (B,) rows, (B, C, H, W) uint8."""
        return self.windows(rows, 1)[:, 0]

"""Trajectories as flat columns: one row for each step, episodes end to end, and a description for models.

Dimensions: N steps of the data set · E episodes · T steps of one episode · S state_dim · A act_dim · W
columns of a record.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from chibit.core.errors import InputError
from chibit.core.memory import check_fits
from chibit.data.copies import choose_fold, choose_share, copies_of, first_copies
from chibit.data.mixture import Mixture
from chibit.data.spec import DatasetSpec as DatasetSpec
from chibit.data.statistics import RunningMoments, best_and_high, spread, units_of_returns

_SUBSET, _HELD_OUT = 2, 3  # what a draw of episodes is for: each has random numbers of its own


@dataclass(frozen=True, eq=False)
class Trajectory:
    """One episode."""

    observations: np.ndarray
    """(T, S) float32."""
    actions: np.ndarray
    """(T, A) float32, or (T,) int64 where actions are discrete."""
    rewards: np.ndarray
    """(T,) float32."""
    terminations: np.ndarray
    """(T,) bool; True where the environment ended the episode."""
    truncations: np.ndarray
    """(T,) bool; True where a time limit or the logger cut the episode."""
    final_observation: np.ndarray | None
    """(S,) what was seen after the last action; None where the data do not hold it."""


@dataclass(frozen=True, eq=False)
class Reach:
    """What the steps of a data set reach."""

    lowest: np.ndarray
    """(A,) smallest actions; () where they are discrete."""
    highest: np.ndarray
    """Largest ones."""
    returns: tuple[float, ...]
    """As `best_and_high` gives them."""


def returns_to_go(rewards: np.ndarray, episode_starts: np.ndarray) -> np.ndarray:
    """Undiscounted sum of the rewards from each step to the end of its episode.

    Args:
        rewards: (N,) raw rewards.
        episode_starts: (E + 1,) first row of each episode, then N.

    Returns:
        (N,) float32, summed in float64. Each episode is summed by itself: no rounding leaks out of it.
    """
    sums = np.empty(len(rewards), np.float64)
    with np.errstate(over="ignore"):  # an overflow becomes an infinity, which the store refuses by name
        for start, end in zip(episode_starts[:-1], episode_starts[1:], strict=True):
            np.cumsum(rewards[start:end][::-1], dtype=np.float64, out=sums[start:end][::-1])
        return sums.astype(np.float32)


@dataclass(frozen=True, kw_only=True, eq=False)
class TrajectoryDataset:
    """Episodes behind one another in one array of records, usually a read-only memory map of a store.

    A record is a row of W float32 numbers: return-to-go, S observations (less `spec.state_offset`), A actions
    (one column where actions are discrete), reward. Columns are views of it. Images are not in the records
    but in `frames`.
    """

    spec: DatasetSpec
    folder: Path
    """The store it was opened from."""
    content_hash: str
    """SHA-256 over the data, the same wherever and whenever the data set is converted."""
    records: np.ndarray
    """(N, W) float32."""
    episode_starts: np.ndarray
    """(E + 1,) int64 first row of each episode, then N."""
    episode_ends: np.ndarray
    """(E, 2) bool: whether an episode ended in a termination, and whether in a truncation."""
    final_observations: np.ndarray | None
    """(E, S) raw observation after the last action of each episode, float32, or float64 with an offset; None
    where the data do not hold them."""
    frames: np.ndarray | None = None
    """(N, H, W) uint8, the newest picture of each observation, where observations are stacks of pictures; see
    `chibit.data.samplers.frames`."""
    missions: np.ndarray | None = None
    """(E,) texts that say what each episode is for; None where the data have none."""
    store_rows: np.ndarray | None = None
    """(N,) int64 row of the store that each step was taken from; None where all of the store is here."""
    whole_hash: str = ""
    """`content_hash` of the data set that this is a part of; empty where it is whole."""
    whole_reach: Reach | None = None
    """`reach` of that data set, from which bounds of actions and targets may come; None where it is whole."""
    mixture: Mixture | None = None
    """Of several data sets; see `chibit.data.mix.mix`."""
    notes: tuple[str, ...] = ()
    """What was decided or left out while the data were read, one sentence each."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """Where the data came from."""

    @property
    def num_steps(self) -> int:
        """N."""
        return len(self.records)

    @property
    def num_episodes(self) -> int:
        """E."""
        return len(self.episode_ends)

    @property
    def is_discrete(self) -> bool:
        """Whether actions are numbers 0 to num_actions - 1."""
        return self.spec.num_actions is not None

    @property
    def returns_to_go(self) -> np.ndarray:
        """(N,) float32 raw."""
        return self.records[:, 0]

    @cached_property
    def observations(self) -> np.ndarray:
        """(N, S) raw, float32, or float64 with an offset; of images the frames."""
        if self.frames is not None:
            return self.frames
        centered = self.centered_observations
        return centered + np.array(self.spec.state_offset) if self.spec.state_offset else centered

    @property
    def centered_observations(self) -> np.ndarray:
        """(N, S) float32 less `spec.state_offset`; no columns for images."""
        return self.records[:, 1 : 1 + self.spec.num_state_columns]

    @cached_property
    def actions(self) -> np.ndarray:
        """(N, A) float32, or (N,) int64 where actions are discrete."""
        columns = self.records[:, 1 + self.spec.num_state_columns : -1]
        return columns[:, 0].astype(np.int64) if self.is_discrete else columns

    @property
    def rewards(self) -> np.ndarray:
        """(N,) float32 raw."""
        return self.records[:, -1]

    @cached_property
    def terminations(self) -> np.ndarray:
        """(N,) bool; True on the last step of an episode that the environment ended."""
        return self._at_last_steps(self.episode_ends[:, 0])

    @cached_property
    def truncations(self) -> np.ndarray:
        """(N,) bool; True on the last step of an episode that was cut."""
        return self._at_last_steps(self.episode_ends[:, 1])

    @cached_property
    def timesteps(self) -> np.ndarray:
        """(N,) int64 steps since the start of the episode."""
        return np.arange(self.num_steps) - np.repeat(self.episode_starts[:-1], self.episode_lengths)

    @cached_property
    def episode_lengths(self) -> np.ndarray:
        """(E,) int64."""
        return np.diff(self.episode_starts)

    @cached_property
    def episode_returns(self) -> np.ndarray:
        """(E,) float32 undiscounted returns."""
        return np.asarray(self.returns_to_go[self.episode_starts[:-1]])

    def trajectory(self, index: int) -> Trajectory:
        """Give one episode.

        Args:
            index: 0 to num_episodes - 1, or negative from the end.

        Raises:
            IndexError: if there is no such episode.
        """
        index = range(self.num_episodes)[index]
        rows = slice(int(self.episode_starts[index]), int(self.episode_starts[index + 1]))
        final = None if self.final_observations is None else self.final_observations[index]
        return Trajectory(
            observations=self.observations[rows],
            actions=self.actions[rows],
            rewards=self.rewards[rows],
            terminations=self.terminations[rows],
            truncations=self.truncations[rows],
            final_observation=final,
        )

    @cached_property
    def reach(self) -> Reach:
        """What the whole data set reaches, also where this is a part of it."""
        if self.whole_reach is not None:
            return self.whole_reach
        actions = self.actions
        return Reach(actions.min(axis=0), actions.max(axis=0), best_and_high(self.episode_returns))

    def in_store(self, rows: np.ndarray) -> np.ndarray:
        """Give the rows of the store that some rows of this data set were taken from."""
        return rows if self.store_rows is None else self.store_rows[rows]

    def top_fraction(self, fraction: float) -> TrajectoryDataset:
        """Keep the best episodes, for cloning a percentage of the data (%BC of Chen et al., 2021).

        Args:
            fraction: share of all steps to keep, in (0, 1].

        Returns:
            Whole episodes from the best return down, as many as fit into the share but at least one, in their
            old order; in memory. Normalization and targets stay those of the whole data set.

        Raises:
            InputError: if the fraction is not in (0, 1].
        """
        _check_fraction(fraction)
        best_first = np.argsort(-self.episode_returns, kind="stable")
        total = np.cumsum(self.episode_lengths[best_first])
        share = fraction * self.num_steps * (1 + 1e-12)  # 0.29 of 100 is 29, whatever floats make of it
        num_kept = max(1, int(np.searchsorted(total, share, side="right")))
        note = f"kept the best {num_kept} of {self.num_episodes} episodes"
        return self._take(best_first[:num_kept], f"top {fraction!r}", note)

    def random_fraction(self, fraction: float, seed: int) -> TrajectoryDataset:
        """Draw a share of the episodes uniformly without replacement, to learn from little data.

        Args:
            fraction: share of the episodes to keep, in (0, 1].
            seed: of the draw, 0 or more. The same seed gives the same episodes to whoever asks, and a smaller
                fraction is part of a larger one.

        Returns:
            Whole episodes, rounded to the nearest number, in their old order; in memory. All of them are the
            data set itself. Normalization is that of the kept steps, since who has only these knows no other;
            target returns, score reference, environment, time limit and action bounds stay the whole's.

        Raises:
            InputError: if the fraction is not in (0, 1], or leaves no episode.
        """
        _check_fraction(fraction)
        num_kept = math.floor(fraction * self.num_episodes + 0.5)
        if num_kept == 0:
            raise InputError(
                f"fraction: {fraction} of {self.num_episodes} episodes is none; "
                f"{1 / self.num_episodes:.2g} is one"
            )
        if num_kept == self.num_episodes:
            return self
        note = f"kept {num_kept} of {self.num_episodes} episodes, drawn with seed {seed}"
        kept = self._shuffled_episodes(seed, _SUBSET)[:num_kept]
        return self._take(kept, f"random {num_kept} {seed}", note)._restandardized()

    def held_out_split(self, share: float, seed: int) -> tuple[TrajectoryDataset, TrajectoryDataset]:
        """Split the episodes by a seed into a part to train on and one to test on, a share in (0, 1) of them.

        Returns:
            The part to train on and the part held out: whole episodes, disjoint, together all of them; in
            memory. Copies of an episode are in one part, so that the second may be smaller than asked for.
            Normalization of both, and targets and a scale of returns that follow from the data, are those of
            the first; the rest of the description stays the whole's.

        Raises:
            InputError: if the share is not in (0, 1), or leaves either part without an episode.
        """
        copies = first_copies(self.records, self.episode_starts, self.frames)
        chosen = choose_share(copies, self._shuffled_episodes(seed, _HELD_OUT), share)
        return self._split(chosen, f"{chosen.sum()} held out with seed {seed}", f"drawn with seed {seed}")

    def held_out_fold(self, number: int, of: int) -> tuple[TrajectoryDataset, TrajectoryDataset]:
        """Hold out fold `number` modulo `of`, for logs so small that each episode must be tested on once.

        Folds are the same for whoever asks, and their sizes differ by an episode but for copies, which are in
        one. Returns as `held_out_split`; InputError for 1 fold, or more than there are different episodes.
        """
        copies = first_copies(self.records, self.episode_starts, self.frames)
        chosen = choose_fold(copies, self._shuffled_episodes(0, _HELD_OUT), number, of)
        return self._split(chosen, f"fold {number % of} of {of} held out", f"fold {number % of + 1} of {of}")

    def _split(
        self, chosen: np.ndarray, change: str, how: str
    ) -> tuple[TrajectoryDataset, TrajectoryDataset]:
        """Take (E,) chosen episodes out; what describes the data is that of the others, in both parts."""
        note = f"{int(chosen.sum())} of {self.num_episodes} episodes are held out, {how}"
        train = self._take(np.flatnonzero(~chosen), f"without {change}", note)._restandardized()
        spec = train.spec
        if spec.default_target_returns == best_and_high(self.episode_returns):
            spec = replace(spec, default_target_returns=best_and_high(train.episode_returns))
        if (spec.return_scale, spec.return_baseline) == units_of_returns(
            self.returns_to_go, self.episode_starts
        ):
            scale, line = units_of_returns(train.returns_to_go, train.episode_starts)
            spec = replace(spec, return_scale=scale, return_baseline=line)
        held_out = self._take(np.flatnonzero(chosen), f"the {change}", f"{note}: these are they")
        return replace(train, spec=spec), replace(held_out, spec=spec)

    def without_copies_of(self, other: TrajectoryDataset) -> TrajectoryDataset:
        """Leave out episodes that another data set of the same sizes has too; InputError if none is left."""
        seen, columns = self.seen_as(other.spec), slice(1, 1 + self.spec.num_state_columns)
        rounding = None
        if seen.spec.state_offset != self.spec.state_offset:  # rounded once with each of the two
            sizes = (np.abs(part.centered_observations).max(axis=0) for part in (self, seen))
            rounding = sum(sizes) * np.finfo(np.float32).eps
        frames = None if self.frames is None or other.frames is None else (self.frames, other.frames)
        is_copy = copies_of(
            *(seen.records, seen.episode_starts, other.records, other.episode_starts),
            *(columns, rounding, frames),
        )
        kept = np.flatnonzero(~is_copy)
        if not len(kept):
            raise InputError(f"{self.spec.name}: all its episodes are in {other.spec.name}; give others")
        note = f"{self.num_episodes - len(kept)} episodes are in {other.spec.name} too and left out"
        return self._take(kept, f"without {other.content_hash}", note)

    def seen_as(self, spec: DatasetSpec) -> TrajectoryDataset:
        """Describe the data as others of the same sizes are described, with the offset of those.

        What learned from the others is shown these: observations are then less `spec.state_offset`, taken off
        in double precision; in memory where it is another than theirs.
        """
        if spec.state_offset == self.spec.state_offset:
            return replace(self, spec=spec)
        check_fits(
            3 * self.records.nbytes,
            f"a copy of {self.num_steps:,} steps of {self.spec.name} with another offset",
            "take less",
        )
        records, final = np.array(self.records), self.final_observations
        records[:, 1 : 1 + self.spec.num_state_columns] = self.observations - np.array(
            spec.state_offset or 0.0
        )
        if final is not None:
            final = final.astype(spec.observation_dtype)
        return replace(self, spec=spec, records=records, final_observations=final)

    def delay_rewards(self) -> TrajectoryDataset:
        """Move all reward of an episode to its last step, the delayed setting of Chen et al. (2021).

        Returns:
            The same steps, in memory; the return-to-go is the episode's return at every step.
        """
        check_fits(
            self.records.nbytes, f"a copy of {self.num_steps:,} steps of {self.spec.name}", "take less"
        )
        records = np.array(self.records)
        records[:, 0] = np.repeat(self.episode_returns, self.episode_lengths)
        records[:, -1] = 0.0
        records[self.episode_starts[1:] - 1, -1] = self.episode_returns
        return replace(
            self,
            records=records,
            whole_hash=self.store_hash,
            content_hash=self._derived_hash("delayed"),
            notes=(*self.notes, "all reward of an episode is on its last step"),
        )

    def _shuffled_episodes(self, seed: int, purpose: int) -> np.ndarray:
        """Give the numbers of all episodes in an order that the seed decides."""
        if seed < 0:
            raise InputError(f"seed: got {seed}, expected 0 or more")
        return np.random.default_rng([seed, purpose]).permutation(self.num_episodes)

    def _take(self, episodes: np.ndarray, change: str, note: str) -> TrajectoryDataset:
        """Keep some episodes, in their old order; `change` tells the result from other parts."""
        kept = np.sort(episodes)
        num_steps = int(self.episode_lengths[kept].sum())
        frame_bytes = 0 if self.frames is None else self.frames[0].nbytes
        check_fits(
            num_steps * (self.records[0].nbytes + frame_bytes),
            f"a copy of {num_steps:,} steps of {self.spec.name}",
            "keep fewer",
        )
        rows = np.concatenate([np.arange(self.episode_starts[e], self.episode_starts[e + 1]) for e in kept])
        return replace(
            self,
            records=self.records[rows],
            episode_starts=np.concatenate([[0], np.cumsum(self.episode_lengths[kept])]),
            episode_ends=self.episode_ends[kept],
            final_observations=None if self.final_observations is None else self.final_observations[kept],
            frames=None if self.frames is None else self.frames[rows],
            missions=None if self.missions is None else self.missions[kept],
            mixture=None if self.mixture is None else self.mixture.take(kept),
            store_rows=self.in_store(rows),
            whole_hash=self.store_hash,
            whole_reach=self.reach,
            content_hash=self._derived_hash(change),
            notes=(*self.notes, note),
        )

    def _restandardized(self) -> TrajectoryDataset:
        """Describe observations by the mean and spread of the steps that are here."""
        if self.spec.image_shape:
            return self
        moments = RunningMoments.of(self.centered_observations)
        mean, std = moments.mean, spread(moments.mean, moments.std)
        spec = replace(self.spec, state_mean=tuple(mean.tolist()), state_std=tuple(std.tolist()))
        return replace(self, spec=spec)

    def _at_last_steps(self, ends: np.ndarray) -> np.ndarray:
        flags = np.zeros(self.num_steps, bool)
        flags[self.episode_starts[1:] - 1] = ends
        return flags

    @property
    def store_hash(self) -> str:
        """`content_hash` of the whole data set, also where this is a part of it."""
        return self.whole_hash or self.content_hash

    def _derived_hash(self, change: str) -> str:
        return hashlib.sha256(f"{self.content_hash} {change}".encode()).hexdigest()


def _check_fraction(fraction: float) -> None:
    if not 0.0 < fraction <= 1.0:
        raise InputError(f"fraction: got {fraction}, expected more than 0 and at most 1")

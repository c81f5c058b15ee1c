"""Mean and spread of columns that arrive in blocks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from chibit.core.formatting import count, format_number

_BLOCK_ROWS = 1 << 16
_HIGH = 0.9
LEAST = 1e-6
"""Size from which on observations are told from what is computed to be 0, but for rounding (1e-17)."""
LEAST_REWARD = 1e-31
"""The same of rewards and returns, which may have any unit that single precision has."""


class RunningMoments:
    """Mean and population standard deviation in one pass, as exact as in two.

    Blocks are merged by the pairwise update of Chan, Golub and LeVeque (1983), in float64.
    """

    def __init__(self, num_columns: int) -> None:
        """Begin with no rows."""
        self._count = 0
        self.mean = np.zeros(num_columns)
        """(columns,) float64."""
        self._squares = np.zeros(num_columns)  # sum of squared deviations from the mean

    @classmethod
    def of(cls, *parts: np.ndarray) -> RunningMoments:
        """Those of (n, columns) rows in parts, n at least 1, of which a block at a time is in memory."""
        moments = cls(parts[0].shape[1])
        for part in parts:
            for block in blocks_of(part):
                moments.add(block)
        return moments

    def add(self, rows: np.ndarray) -> None:
        """Take in (n, columns) more rows, n at least 1."""
        block = rows.astype(np.float64)
        count, mean = len(block), block.mean(axis=0)
        block -= mean
        squares = np.einsum("ij,ij->j", block, block)
        total = self._count + count
        difference = mean - self.mean
        self.mean += difference * (count / total)
        self._squares += squares + difference**2 * (self._count * count / total)
        self._count = total

    @property
    def std(self) -> np.ndarray:
        """(columns,) float64 population standard deviation."""
        result: np.ndarray = np.sqrt(self._squares / self._count)
        return result


def blocks_of(rows: np.ndarray) -> Iterator[np.ndarray]:
    """Rows in blocks that fit into the cache."""
    return (rows[start : start + _BLOCK_ROWS] for start in range(0, len(rows), _BLOCK_ROWS))


def spread(mean: np.ndarray, std: np.ndarray, *, least: float = LEAST) -> np.ndarray:
    """Return what observations are divided by: std + 1e-6 (Chen et al., 2021), but 1 for a constant.

    Divided by 1e-6, a constant would turn any deviation that is met later into millions. What varies by less
    than 1e-3 is not held down by that 1e-6: a thousandth of its own spread takes its place. `least` is as for
    `is_constant`.
    """
    return np.where(is_constant(mean, std, least=least), 1.0, std + np.minimum(1e-6, 1e-3 * std))


def spread_of(rows: np.ndarray) -> np.ndarray:
    """(columns,) what (n, columns) rows are divided by, n at least 1: see `spread`. Summed in float64."""
    moments = RunningMoments.of(rows)
    return spread(moments.mean, moments.std)


def is_constant(
    mean: np.ndarray | np.floating, std: np.ndarray | np.floating, *, least: float = LEAST
) -> np.ndarray:
    """Whether float32 numbers of a mean and a standard deviation count as all equal: within their rounding.

    The one definition, of what a store holds (`TrajectoryDataset.centered_observations`).

    Args:
        mean: of each column.
        std: of each column.
        least: a millionth of it counts as rounding in any case.
    """
    return np.asarray(std <= 1e-6 * np.maximum(np.abs(mean), least))


class Narrowing:
    """What float32 would lose of columns that arrive in blocks of wider numbers."""

    def __init__(self, num_columns: int) -> None:
        """Begin with no rows."""
        self._moments = RunningMoments(num_columns)
        self._is_exact = np.ones(num_columns, bool)
        self._is_wide = False

    def add(self, rows: np.ndarray, narrowed: np.ndarray) -> None:
        """Take in (n, columns) more rows, and what they are in float32."""
        if not np.can_cast(rows.dtype, np.float32):
            self._is_wide = True
            self._moments.add(rows)
            self._is_exact &= (rows == narrowed).all(axis=0)

    def offsets(self) -> np.ndarray | None:
        """(columns,) float64 to take off before narrowing, 0 where nothing is lost; None where that is all.

        A column needs one where it varies by less than 1e-4 of its size, and more than float64 rounds.
        """
        if not self._is_wide:
            return None
        mean, std = self._moments.mean, self._moments.std
        size = np.abs(mean)
        is_lost = ~self._is_exact & (std <= 1e-4 * size) & (std > 1e-12 * size)
        return np.where(is_lost, mean, 0.0) if is_lost.any() else None


class Contradictions:
    """Steps whose next observation is not the observation of the step after them, in blocks."""

    def __init__(self) -> None:
        """Begin with no steps."""
        self._count, self._total, self._most, self._dimension = 0, 0, 0.0, 0
        self._before: np.ndarray | None = None  # what follows the last row of the block before

    def add(self, seen: np.ndarray, following: np.ndarray, goes_on: np.ndarray) -> None:
        """Take in (n, S) more observations and next ones; (n,) whether an episode goes on there."""
        if self._before is None:
            self._before = seen[:1]
            goes_on = np.append(False, goes_on[1:])
        before = np.concatenate([self._before, following[:-1]])
        self._before = following[-1:]
        gaps = np.abs(np.subtract(before, seen, dtype=np.float64))[goes_on]
        if not gaps.size:
            return
        allowed = 1e-3 * seen.std(axis=0, dtype=np.float64) + 1e-6 * np.abs(seen).max(axis=0)
        differs = gaps > allowed
        self._total += len(gaps)
        self._count += int(differs.any(axis=1).sum())
        largest = np.where(differs, gaps, 0.0).max(axis=0)
        if largest.max() > self._most:
            self._most, self._dimension = float(largest.max()), int(largest.argmax())

    def notes(self) -> tuple[str, ...]:
        """What to say of them, if there are any."""
        if not self._count:
            return ()
        steps = f"{self._count:,} of {count(self._total, 'step')} within episodes"
        size = f"{format_number(self._most)} (dimension {self._dimension})"
        return (
            f"next_observations contradict the next row at {steps}, by up to {size}: rows are taken there, "
            "and next_observations for what follows the last step of an episode; where they are of another "
            "unit or order, mend them or leave them out",
        )


def best_and_high(episode_returns: np.ndarray) -> tuple[float, ...]:
    """Returns of (E,) that are worth asking for: the best, and the one at 90 % of them."""
    high = np.quantile(episode_returns, _HIGH, method="lower")
    return tuple(dict.fromkeys((float(episode_returns.max()), float(high))))


def units_of_returns(
    returns_to_go: np.ndarray, episode_starts: np.ndarray
) -> tuple[float, tuple[float, float]]:
    """Size of returns-to-go around the line that fits them best over the steps of an episode, and the line.

    Args:
        returns_to_go: (N,).
        episode_starts: (E + 1,) first row of each episode, then N.

    Returns:
        Root mean square around the line; its value at step 0 and what each step adds. Where nothing differs,
        the root mean square itself, or 1, and no line.
    """
    lengths = np.diff(episode_starts)
    steps = (np.arange(len(returns_to_go)) - np.repeat(episode_starts[:-1], lengths)).astype(np.float64)
    values = returns_to_go.astype(np.float64)
    size = float(np.sqrt(np.mean(np.square(values))))
    variance = float(steps.var())
    slope = float(np.mean((steps - steps.mean()) * values)) / variance if variance else 0.0
    first = float(values.mean() - slope * steps.mean())
    left = float(np.sqrt(np.mean(np.square(values - first - slope * steps))))
    if left <= 1e-6 * size:
        return size or 1.0, (0.0, 0.0)
    return left, (first, slope)

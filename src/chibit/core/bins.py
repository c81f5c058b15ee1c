"""Bins of histograms."""


def bin_range(low: float, high: float) -> tuple[float, float]:
    """Ends of bins of one width for values from `low` to `high`, also where they are alike, however large."""
    room = 1e-9 * max(abs(low), abs(high), 1e-20)  # less than that, and no bin would have a width
    return (low, high) if high - low > room else (low - max(room, 0.5), high + max(room, 0.5))

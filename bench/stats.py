"""From samples to figures. Pure: no clock, no I/O."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The given percentile of samples already in ascending order, interpolated between neighbours."""
    if not ordered:
        raise ValueError("percentile of no samples: measure at least one")
    if not 0 <= percent <= 100:
        raise ValueError(f"percentile {percent} is outside 0 to 100")
    position = (len(ordered) - 1) * percent / 100
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def median_ratio(subject: Sequence[float], floor: Sequence[float]) -> float:
    """The median of the round by round ratios: drift of the machine between rounds cancels out."""
    return statistics.median(ratios(subject, floor))


def ratios(subject: Sequence[float], floor: Sequence[float]) -> list[float]:
    """One ratio for each round; both were measured in the same rounds."""
    return [one / other for one, other in zip(subject, floor, strict=True)]


def median_of_differences(subject: Sequence[float], floor: Sequence[float]) -> float:
    """The median of the round by round differences."""
    return statistics.median(one - other for one, other in zip(subject, floor, strict=True))


def ordered(parts: Iterable[Iterable[int]]) -> list[int]:
    """All samples of all rounds, ascending."""
    return sorted(sample for part in parts for sample in part)

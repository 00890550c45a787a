"""What a case hands back: measured rows, and verdicts on what the project promises."""

from __future__ import annotations

import statistics
from typing import Literal

import msgspec

from .measure import Series
from .stats import ratios

Outcome = Literal["met", "acceptable", "missed"]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One contender's figures: `p50` is the median of the round medians, the tails are over all samples."""

    name: str
    unit: str
    samples: int
    p50: float
    p50_low: float
    p50_high: float
    p99: float | None = None
    p999: float | None = None
    per_second: float | None = None
    floor: str | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """A promise of the project against what was measured: at most, or at least, so much.

    It is judged as it is shown, rounded to two decimals.
    """

    what: str
    value: float
    at_most: float | None = None
    acceptable: float | None = None
    at_least: float | None = None
    unit: str = "×"

    @property
    def outcome(self) -> Outcome:
        """Whether the promise was kept."""
        value = round(self.value, 2)
        if self.at_least is not None:
            return "met" if value >= self.at_least else "missed"
        assert self.at_most is not None, "a verdict has a limit"
        if value <= self.at_most:
            return "met"
        return "acceptable" if self.acceptable is not None and value <= self.acceptable else "missed"


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One case: the question it answers, the figures, the verdicts, and what to know when reading them."""

    name: str
    question: str
    rows: list[Row]
    verdicts: list[Verdict]
    notes: list[str] = []


def latency_row(series: Series, *, floor: Series | None = None) -> Row:
    """A row whose ratio is latency to latency."""
    spread = ratios(series.p50s_us, floor.p50s_us) if floor else None
    return _row(series, floor, spread)


def throughput_row(series: Series, *, floor: Series) -> Row:
    """A row whose ratio is throughput to throughput."""
    return _row(series, floor, ratios(series.rates, floor.rates))


def cpu_row(series: Series, *, floor: Series | None = None) -> Row:
    """A row of processor time per operation; it has no tail, the clock is read once per round."""
    spread = ratios(series.cpus_us, floor.cpus_us) if floor else None
    return plain_row(
        f"{series.name}, CPU",
        series.cpus_us,
        samples=series.samples,
        per_second=statistics.median(series.rates),
        floor=f"{floor.name}, CPU" if floor else None,
        spread=spread,
    )


def plain_row(
    name: str,
    values: list[float],
    *,
    unit: str = "µs",
    samples: int | None = None,
    per_second: float | None = None,
    floor: str | None = None,
    spread: list[float] | None = None,
) -> Row:
    """A row of one value per round, without tails."""
    return Row(
        name=name,
        unit=unit,
        samples=len(values) if samples is None else samples,
        p50=statistics.median(values),
        p50_low=min(values),
        p50_high=max(values),
        per_second=per_second,
        floor=floor,
        ratio=statistics.median(spread) if spread else None,
        ratio_low=min(spread) if spread else None,
        ratio_high=max(spread) if spread else None,
    )


def _row(series: Series, floor: Series | None, spread: list[float] | None) -> Row:
    base = plain_row(
        series.name,
        series.p50s_us,
        samples=series.samples,
        per_second=statistics.median(series.rates),
        floor=floor.name if floor else None,
        spread=spread,
    )
    p99, p999 = series.tail_us(99, 99.9)
    return msgspec.structs.replace(base, p99=p99, p999=p999)

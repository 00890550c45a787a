"""Interleaved rounds: every contender runs once in each round, in shuffled order, in one process.

A stretch is one contender's share of one round. A round can be cut into slices, in each of which every
contender has a turn: the speed of a shared machine drifts within a second, and only near neighbours can be
compared. Samples are nanoseconds in a preallocated machine array; percentiles are computed afterwards. The
garbage collector is treated alike for all: the heap is collected and frozen before each stretch, then
collection stays on, as in a program in service.
"""

from __future__ import annotations

import asyncio
import gc
import random
import statistics
import time
from array import array
from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec

from .stats import ordered, percentile

GC_POLICY = "collected and frozen before each stretch, enabled during it, same for all"

now_ns = time.perf_counter_ns


class Stretch(msgspec.Struct, frozen=True, kw_only=True):
    """What one contender did in one round. A sample may stand for a batch of equal operations."""

    samples: array[int]
    elapsed_ns: int
    cpu_ns: int
    batch: int = 1

    @property
    def operations(self) -> int:
        """How many operations the stretch held."""
        return len(self.samples) * self.batch

    @property
    def p50_us(self) -> float:
        """The median of this stretch, per operation."""
        return statistics.median(self.samples) / self.batch / 1e3

    @property
    def per_second(self) -> float:
        """Operations per second of elapsed time."""
        return self.operations * 1e9 / self.elapsed_ns

    @property
    def cpu_us(self) -> float:
        """Processor time of the whole process, all its threads, per operation."""
        return self.cpu_ns / self.operations / 1e3


class Stopwatch:
    """Elapsed and processor time of a `with` block."""

    elapsed_ns = 0
    cpu_ns = 0

    def __enter__(self) -> Stopwatch:
        self._cpu = time.process_time_ns()
        self._start = now_ns()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.elapsed_ns = now_ns() - self._start
        self.cpu_ns = time.process_time_ns() - self._cpu

    def stretch(self, samples: array[int], *, batch: int = 1) -> Stretch:
        """The samples taken while this watch ran."""
        return Stretch(samples=samples, elapsed_ns=self.elapsed_ns, cpu_ns=self.cpu_ns, batch=batch)


class Series(msgspec.Struct, frozen=True):
    """One contender over all rounds."""

    name: str
    stretches: list[Stretch]

    @property
    def samples(self) -> int:
        """How many samples were taken."""
        return sum(len(stretch.samples) for stretch in self.stretches)

    @property
    def p50s_us(self) -> list[float]:
        """The median of each round."""
        return [stretch.p50_us for stretch in self.stretches]

    @property
    def p50_us(self) -> float:
        """The median of the round medians."""
        return statistics.median(self.p50s_us)

    @property
    def rates(self) -> list[float]:
        """Operations per second of each round."""
        return [stretch.per_second for stretch in self.stretches]

    @property
    def cpus_us(self) -> list[float]:
        """Processor time per operation of each round."""
        return [stretch.cpu_us for stretch in self.stretches]

    def tail_us(self, *percents: float) -> list[float]:
        """Percentiles over the samples of all rounds together."""
        everything = ordered(stretch.samples for stretch in self.stretches)
        batch = self.stretches[0].batch
        return [percentile(everything, percent) / batch / 1e3 for percent in percents]


Contender = Callable[[], Awaitable[Stretch]]


async def interleave(
    contenders: Mapping[str, Contender],
    *,
    rounds: int,
    rng: random.Random,
    slices: int = 1,
    settle_s: float = 0.0,
) -> dict[str, Series]:
    """Run every contender once in each slice of each round, in shuffled order.

    `settle_s` is a pause before each turn, in which background work of the turn before can end.
    """
    series = {name: Series(name, []) for name in contenders}
    names = list(contenders)
    try:
        for _ in range(rounds):
            parts: dict[str, list[Stretch]] = {name: [] for name in names}
            for _ in range(slices):
                rng.shuffle(names)
                for name in names:
                    await asyncio.sleep(settle_s)
                    gc.collect()
                    gc.freeze()
                    parts[name].append(await contenders[name]())
            for name in names:
                series[name].stretches.append(joined(parts[name]))
    finally:
        gc.unfreeze()
    return series


def joined(parts: Sequence[Stretch]) -> Stretch:
    """The slices of one round as one stretch."""
    samples = array("q")
    for part in parts:
        samples.extend(part.samples)
    return Stretch(
        samples=samples,
        elapsed_ns=sum(part.elapsed_ns for part in parts),
        cpu_ns=sum(part.cpu_ns for part in parts),
        batch=parts[0].batch,
    )

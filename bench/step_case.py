"""`step` and `steps-64`: a workflow's steps back to back, against a bare INSERT, and of 64 instances side by side.

A step does nothing, so that its price is that of its place in the journal: one durable commit. As in `append` all
files have grown as far as they will: their WALs are reused.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import z0

from .append_case import append_stretch, insert_stretch
from .floors import BareLedger
from .flows import Hand, Steps, steps_stretch
from .measure import Contender, Series, interleave
from .result import Result, Verdict, latency_row, throughput_row
from .settings import Settings
from .stats import median_ratio
from .wal import until_warm, wal_note, wal_sizes
from .workload import Account

ONE = "z0 step"
MANY = "z0 steps, 64 instances"
FACT = "z0 append"
FLOOR = "bare INSERT"
INSTANCES = 64
SLICES = 8
WARM_STEP = 100


async def step(settings: Settings) -> Result:
    """What a step costs beyond a bare durable row."""
    count = settings.size(20, 250)
    with settings.folder("step") as folder:
        async with _bodies(folder, 1) as (runtime, hand, ids):
            account = runtime.get(Account, "only")
            bare = BareLedger(folder / "bare.sqlite")

            async def warm() -> None:
                number = settings.size(5, WARM_STEP)
                await steps_stretch(hand, ids, number)
                await append_stretch(settings, account, number)
                await insert_stretch(settings, bare, number)

            series, note = await _race(
                settings,
                folder,
                warm,
                {
                    ONE: lambda: steps_stretch(hand, ids, count),
                    FACT: lambda: append_stretch(settings, account, count),
                    FLOOR: lambda: insert_stretch(settings, bare, count),
                },
            )
            bare.close()
    subject, fact, floor = series[ONE], series[FACT], series[FLOOR]
    (p99,) = subject.tail_us(99)
    return Result(
        name="step",
        question="one instance, step after step: a durable step beside a bare durable row",
        rows=[
            latency_row(subject, floor=floor),
            latency_row(fact, floor=floor),
            latency_row(floor),
        ],
        verdicts=[
            Verdict(what="p50 / bare INSERT p50", value=median_ratio(subject.p50s_us, floor.p50s_us), at_most=1.30),
            Verdict(what="p99 / p50", value=p99 / subject.p50_us, at_most=3.0),
        ],
        notes=[note],
    )


async def steps_64(settings: Settings) -> Result:
    """How far 64 instances with a file each overlap their syncs."""
    alone, each = settings.size(20, 200), settings.size(2, 16)
    with settings.folder("steps-64") as folder:
        async with _bodies(folder, INSTANCES) as (_, hand, ids):

            async def warm() -> None:
                await steps_stretch(hand, ids, settings.size(2, WARM_STEP))

            series, note = await _race(
                settings,
                folder,
                warm,
                {
                    ONE: lambda: steps_stretch(hand, ids[:1], alone),
                    MANY: lambda: steps_stretch(hand, ids, each),
                },
            )
    one, many = series[ONE], series[MANY]
    return Result(
        name="steps-64",
        question="64 instances side by side: steps/s beside one instance",
        rows=[throughput_row(many, floor=one), latency_row(one)],
        verdicts=[
            Verdict(what="steps/s / those of one instance", value=median_ratio(many.rates, one.rates), at_least=3.0)
        ],
        notes=[note, "the ratio is that of the throughputs"],
    )


async def _race(
    settings: Settings, folder: Path, warm: Callable[[], Awaitable[None]], contenders: dict[str, Contender]
) -> tuple[dict[str, Series], str]:
    """Interleaved rounds over files that are warm, and a note that they were."""
    await until_warm(settings, folder, warm)
    before = wal_sizes(folder)
    slices = settings.size(1, SLICES)
    series = await interleave(contenders, rounds=settings.rounds, rng=settings.rng, slices=slices)
    return series, wal_note(before, wal_sizes(folder))


@asynccontextmanager
async def _bodies(folder: Path, number: int) -> AsyncIterator[tuple[z0.Runtime, Hand, list[str]]]:
    """A runtime with so many instances that wait to be told; they end with it."""
    hand = Hand()
    async with z0.Runtime(folder / "z0", actors=[Steps], env=hand, durability="full") as runtime:
        instances = [await runtime.workflows.create(Steps, id=f"body-{each}") for each in range(number)]
        ids = [instance.id for instance in instances]
        yield runtime, hand, ids
        for instance in instances:
            hand.dismiss(instance.id)
            await instance.result()

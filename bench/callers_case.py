"""`append-64` and `entities-64`: 64 callers at once, on one entity or on 64, against one bare writer.

Each caller waits for its fact before it sends the next (closed loop), so the group commit forms by itself.
The bare writer writes as many facts as all callers together.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Sequence

import z0

from .append_case import append_stretch, insert_stretch
from .floors import BareLedger
from .measure import Series, Stopwatch, Stretch, interleave, now_ns
from .result import Result, Verdict, latency_row, throughput_row
from .settings import Settings
from .stats import median_ratio
from .wal import until_warm, wal_note, wal_sizes
from .workload import Account, Fields, fact_fields

CALLERS = 64
SUBJECT = "z0, 64 callers"
FLOOR = "bare INSERT, 1 caller"
SLICES = 2
WARM_STEP = 100  # facts for each file


async def append_64(settings: Settings) -> Result:
    """How far 64 callers of one entity share commits."""
    question = "64 callers on one entity: facts/s beside one bare writer"
    return await _case(settings, "append-64", question, entities=1, each=settings.size(2, 16), at_least=7.0)


async def entities_64(settings: Settings) -> Result:
    """How far 64 entities with a file each overlap their syncs."""
    question = "64 entities, one caller each, warm files: facts/s beside one bare writer of one file"
    return await _case(settings, "entities-64", question, entities=CALLERS, each=settings.size(1, 16), at_least=1.2)


async def _case(settings: Settings, name: str, question: str, *, entities: int, each: int, at_least: float) -> Result:
    subject, floor, note = await _race(settings, name, entities=entities, each=each)
    ratio = median_ratio(subject.rates, floor.rates)
    return Result(
        name=name,
        question=question,
        rows=[throughput_row(subject, floor=floor), latency_row(floor)],
        verdicts=[Verdict(what="facts/s / sequential bare INSERT", value=ratio, at_least=at_least)],
        notes=[note, "the ratio is that of the throughputs"],
    )


async def _race(settings: Settings, name: str, *, entities: int, each: int) -> tuple[Series, Series, str]:
    step_size = settings.size(1, WARM_STEP)
    with settings.folder(name) as folder:
        async with z0.Runtime(folder / "z0", durability="full") as runtime:
            accounts = [runtime.get(Account, f"account-{number}") for number in range(entities)]
            bare = BareLedger(folder / "bare.sqlite")

            async def step() -> None:
                await asyncio.gather(*(append_stretch(settings, account, step_size) for account in accounts))
                await insert_stretch(settings, bare, step_size)

            await until_warm(settings, folder, step)
            before = wal_sizes(folder)
            series = await interleave(
                {
                    SUBJECT: lambda: _callers_stretch(settings, accounts, each),
                    FLOOR: lambda: insert_stretch(settings, bare, CALLERS * each),
                },
                rounds=settings.rounds,
                rng=settings.rng,
                slices=settings.size(1, SLICES),
            )
            note = wal_note(before, wal_sizes(folder))
            bare.close()
    return series[SUBJECT], series[FLOOR], note


async def _callers_stretch(settings: Settings, accounts: Sequence[Account], each: int) -> Stretch:
    work = [fact_fields(settings.rng, each) for _ in range(CALLERS)]
    samples = array("q")

    async def caller(account: Account, facts: list[Fields]) -> None:
        for fields in facts:
            start = now_ns()
            await account.append("deposit", **fields)
            samples.append(now_ns() - start)

    with Stopwatch() as watch:
        await asyncio.gather(*(caller(accounts[number % len(accounts)], facts) for number, facts in enumerate(work)))
    return watch.stretch(samples)

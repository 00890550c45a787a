"""`call`: a message that writes nothing, against awaiting a bare coroutine method.

A single call is near the resolution of the clock, so a sample is a batch of calls; the loop is let go
between samples.
"""

from __future__ import annotations

import asyncio
from array import array

import z0

from .measure import Stopwatch, Stretch, interleave, now_ns
from .result import Result, Verdict, latency_row
from .settings import Settings
from .workload import Echo

SUBJECT = "z0 message"
FLOOR = "bare coroutine"
BATCH = 100


class Bare:
    """What a message would be without an actor around it."""

    async def ping(self) -> int:
        """Answer at once."""
        return 1


async def call(settings: Settings) -> Result:
    """What the stub, the mailbox and the gates cost a message."""
    count = settings.size(10, 400)
    with settings.folder("call") as folder:
        async with z0.Runtime(folder / "z0") as runtime:
            echo = runtime.get(Echo, "only")
            bare = Bare()
            await echo.ping()
            series = await interleave(
                {
                    SUBJECT: lambda: _ping_stretch(echo, count),
                    FLOOR: lambda: _ping_stretch(bare, count),
                },
                rounds=settings.rounds,
                rng=settings.rng,
            )
    subject, floor = series[SUBJECT], series[FLOOR]
    return Result(
        name="call",
        question="a message that writes nothing, per call",
        rows=[latency_row(subject, floor=floor), latency_row(floor)],
        verdicts=[Verdict(what="p50 of a call", value=subject.p50_us, at_most=1.5, unit="µs")],
        notes=[f"a sample is {BATCH} calls in a row, so the tails are those of batches"],
    )


async def _ping_stretch(target: Echo | Bare, count: int) -> Stretch:
    samples = array("q")
    with Stopwatch() as watch:
        for _ in range(count):
            start = now_ns()
            for _ in range(BATCH):
                await target.ping()
            samples.append(now_ns() - start)
            await asyncio.sleep(0)
    return watch.stretch(samples, batch=BATCH)

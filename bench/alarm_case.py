"""`alarm`, `alarm-late`, `alarm-restart` and `alarm-month`: what alarms cost, and how punctual they are.

An alarm is a row of the actor's own file, so it should cost a row and no sync; the catalogue's commits are counted to
show it. Lateness is by the wall clock, from the time that an alarm was set for to the first line of its handler.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import z0
from z0.testing import VirtualClock, temporary_runtime

from .measure import Stopwatch, Stretch, interleave, now_ns
from .result import Result, Verdict, latency_row, plain_row
from .settings import Settings
from .stats import percentile
from .wal import until_warm

WITH = "z0 fact and alarm"
WITHOUT = "z0 fact"
PER_MINUTE = 1_000
WARM_STEP = 200
SLICES = 8
DOWN = timedelta(hours=2)


class Bell(z0.Entity):
    """Takes facts and alarms; `env` learns of each alarm that ran, by how many milliseconds it was late."""

    namespace = "bench-bell"
    accepts = {"tick"}
    env: list[float]

    async def fact(self) -> None:
        """Write a fact."""
        self.ledger.append("tick", amount=1)

    async def fact_and_alarm(self) -> None:
        """Write a fact and set an alarm, in one transaction."""
        self.ledger.append("tick", amount=1)
        self.storage.set_alarm("1 hour")

    async def ring_at(self, when: datetime) -> None:
        """Set an alarm."""
        self.storage.set_alarm(when)

    async def ring_every(self, every: str) -> None:
        """Set an alarm that recurs."""
        self.storage.set_alarm(every=every)

    async def alarm(self, info: z0.AlarmInfo) -> None:
        """Write a fact."""
        self.env.append((self.clock.now() - info.scheduled_time).total_seconds() * 1e3)
        self.ledger.append("rang")


async def alarm(settings: Settings) -> Result:
    """What an alarm adds to a message that writes a fact."""
    count = settings.size(10, 100)
    with settings.folder("alarm") as folder:
        async with z0.Runtime(folder / "z0", env=[]) as runtime:
            both, alone = runtime.get(Bell, "both"), runtime.get(Bell, "alone")
            await alone.fact_and_alarm()

            async def step() -> None:
                await _calls(both.fact_and_alarm, settings.size(2, WARM_STEP))
                await _calls(alone.fact, settings.size(2, WARM_STEP))

            await until_warm(settings, folder, step)
            before = runtime.node.catalog.commits
            series = await interleave(
                {WITH: lambda: _calls(both.fact_and_alarm, count), WITHOUT: lambda: _calls(alone.fact, count)},
                rounds=settings.rounds,
                rng=settings.rng,
                slices=settings.size(1, SLICES),
            )
            syncs = (runtime.node.catalog.commits - before) / series[WITH].samples
    subject, floor = series[WITH], series[WITHOUT]
    return Result(
        name="alarm",
        question="an alarm that is set together with a fact, beside the fact alone",
        rows=[latency_row(subject, floor=floor), latency_row(floor)],
        verdicts=[
            Verdict(what="commits of the catalogue per alarm", value=syncs, at_most=0.0, unit=""),
        ],
        notes=["each alarm replaces the one before it, which is written down as its outcome"],
    )


async def _calls(call: Callable[[], Awaitable[object]], count: int) -> Stretch:
    samples = array("q")
    with Stopwatch() as watch:
        for _ in range(count):
            start = now_ns()
            await call()
            samples.append(now_ns() - start)
    return watch.stretch(samples)


async def alarm_late(settings: Settings) -> Result:
    """How late alarms run that come at a steady rate, each to an actor of its own."""
    count = settings.size(20, 500)
    late: list[float] = []
    with settings.folder("alarm-late") as folder:
        async with z0.Runtime(folder / "z0", env=late) as runtime:
            first = datetime.now(UTC) + timedelta(seconds=1 + count * 0.01)
            pause = timedelta(minutes=1) / settings.size(60_000, PER_MINUTE)
            for number in range(count):
                await runtime.get(Bell, f"bell-{number}").ring_at(first + number * pause)
            await asyncio.sleep((first + count * pause - datetime.now(UTC)).total_seconds() + 1)
    if len(late) != count:
        raise RuntimeError(f"{len(late)} of {count} alarms ran")
    return Result(
        name="alarm-late",
        question=f"lateness of {count} alarms at {PER_MINUTE} a minute, most of their actors evicted",
        rows=[plain_row("lateness", late, unit="ms")],
        verdicts=[Verdict(what="p99 of the lateness", value=percentile(sorted(late), 99), at_most=20.0, unit="ms")],
        notes=[f"never early: the least late one was {min(late):.2f} ms late"],
    )


class _Later(z0.SystemClock):
    """The machine's clock, some time from now."""

    def now(self) -> datetime:
        """The time."""
        return super().now() + DOWN

    def now_us(self) -> int:
        """The time."""
        return super().now_us() + DOWN // timedelta(microseconds=1)


async def alarm_restart(settings: Settings) -> Result:
    """How long it takes until everything has run that fell due while nothing ran, beside other traffic."""
    count = settings.size(20, 10_000)
    rang: list[float] = []
    answers_ms: list[float] = []
    with settings.folder("alarm-restart") as folder:
        await _fall_due(folder / "z0", count)
        start = now_ns()
        async with z0.Runtime(folder / "z0", actors=[Bell], env=rang, clock=_Later()) as runtime:
            other = runtime.get(Bell, "other")
            while len(rang) < count:
                asked = now_ns()
                await other.fact()
                answers_ms.append((now_ns() - asked) / 1e6)
                await asyncio.sleep(0.005)
            whole = (now_ns() - start) / 1e9
    return Result(
        name="alarm-restart",
        question=f"{count} alarms that are due when a runtime starts, beside an entity that takes facts",
        rows=[
            plain_row("all alarms have run", [whole], unit="s", samples=count, per_second=count / whole),
            plain_row("a fact meanwhile", answers_ms, unit="ms"),
        ],
        verdicts=[Verdict(what="until all have run", value=whole, at_most=20.0, unit="s")],
        notes=[f"p99 of a fact meanwhile: {percentile(sorted(answers_ms), 99):.1f} ms"],
    )


async def _fall_due(path: Path, count: int) -> None:
    """A data directory whose actors all have an alarm."""
    limits = z0.Limits(idle_seconds=1.0)
    async with z0.Runtime(path, env=[], durability="relaxed", limits=limits) as runtime:
        when = datetime.now(UTC) + DOWN / 2
        for number in range(count):
            await runtime.get(Bell, f"bell-{number}").ring_at(when)


async def alarm_month(settings: Settings) -> Result:
    """How long a month of hourly alarms takes in virtual time, the actor being evicted between them."""
    days = settings.size(1, 30)
    values = []
    for _ in range(settings.size(1, 3)):
        clock, rang = VirtualClock(), list[float]()
        async with temporary_runtime(memory=True, clock=clock, env=rang) as runtime:
            await runtime.get(Bell, "bell").ring_every("1 hour")
            start = now_ns()
            await clock.advance(timedelta(days=days))
            values.append((now_ns() - start) / 1e9)
        if len(rang) != 24 * days:
            raise RuntimeError(f"{len(rang)} alarms ran in {days} days")
    row = plain_row(f"{days} days", values, unit="s", samples=24 * days * len(values))
    return Result(
        name="alarm-month",
        question=f"{days} days of hourly alarms of one actor, under a virtual clock",
        rows=[row],
        verdicts=[Verdict(what="a month in virtual time", value=row.p50, at_most=1.0, unit="s")],
        notes=["on a RAM disk, as tests run; the actor is evicted and opened again for each alarm"],
    )

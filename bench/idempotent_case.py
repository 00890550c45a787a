"""`idempotent`: a message whose reply is kept under the caller's key, beside the same message without."""

from __future__ import annotations

import os
from array import array
from collections.abc import Awaitable, Callable

import z0

from .measure import Stopwatch, Stretch, interleave, now_ns
from .result import Result, Verdict, latency_row
from .settings import Settings
from .stats import median_ratio
from .wal import until_warm

ONCE = "z0 message, idempotent and new"
PLAIN = "z0 message"
WARM_STEP = 200
SLICES = 8


class Till(z0.Entity):
    """Takes payments, with and without a key."""

    namespace = "bench-till"

    async def pay(self, amount: int, *, key: str) -> int:
        """Write a fact."""
        return self.ledger.append("paid", amount=amount, source_id=key).seq

    @z0.idempotent("key")
    async def pay_once(self, amount: int, *, key: str) -> int:
        """Write a fact, once for each key."""
        return self.ledger.append("paid", amount=amount, source_id=key).seq


async def idempotent(settings: Settings) -> Result:
    """What keeping a reply costs."""
    count = settings.size(10, 100)
    with settings.folder("idempotent") as folder:
        async with z0.Runtime(folder / "z0") as runtime:
            once, plain = runtime.get(Till, "once"), runtime.get(Till, "plain")

            async def step() -> None:
                await _pay(once.pay_once, settings.size(2, WARM_STEP))
                await _pay(plain.pay, settings.size(2, WARM_STEP))

            await until_warm(settings, folder, step)
            series = await interleave(
                {ONCE: lambda: _pay(once.pay_once, count), PLAIN: lambda: _pay(plain.pay, count)},
                rounds=settings.rounds,
                rng=settings.rng,
                slices=settings.size(1, SLICES),
            )
    subject, floor = series[ONCE], series[PLAIN]
    return Result(
        name="idempotent",
        question="an idempotent message with a new key, beside the same message without",
        rows=[latency_row(subject, floor=floor), latency_row(floor)],
        verdicts=[Verdict(what="p50 / without", value=median_ratio(subject.p50s_us, floor.p50s_us), at_most=1.3)],
        notes=["each side writes one fact; keys are random"],
    )


async def _pay(pay: Callable[..., Awaitable[int]], count: int) -> Stretch:
    keys = [os.urandom(16).hex() for _ in range(count)]
    samples = array("q")
    with Stopwatch() as watch:
        for key in keys:
            start = now_ns()
            await pay(1, key=key)
            samples.append(now_ns() - start)
    return watch.stretch(samples)

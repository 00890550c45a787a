"""`fold`: rebuilding a projection from the first fact, and verifying the hash chain, per fact.

Timed inside the entity, where both run. The bare sides read every column of the same number of facts in
plain Python, and add up the amounts, or chain a hash.
"""

from __future__ import annotations

from array import array
from collections.abc import Awaitable, Callable

import z0

from .floors import BareLedger, fold_rows, hash_rows
from .measure import Contender, Stopwatch, Stretch, interleave, now_ns
from .result import Result, Verdict, latency_row
from .settings import Settings
from .workload import Account, fact_fields, fact_rows

REBUILD = "z0 rebuild of a projection"
VERIFY = "z0 verify"
FOLD = "bare SELECT and sum"
HASH = "bare SELECT and hash"
PAGE = 500


async def fold(settings: Settings) -> Result:
    """What recovery from nothing but the facts costs."""
    count = settings.size(200, 20_000)
    with settings.folder("fold") as folder:
        limits = z0.Limits(idle_seconds=3600)
        async with z0.Runtime(folder / "z0", durability="relaxed", limits=limits) as runtime:
            account = runtime.get(Account, "only")
            bare = BareLedger(folder / "bare.sqlite", synchronous="OFF")
            for _ in range(0, count, PAGE):
                page = fact_fields(settings.rng, min(PAGE, count))
                await account.append_many([{"type": "deposit", **fields} for fields in page])
            bare.insert_many(fact_rows(settings.rng, 1, count))
            contenders: dict[str, Contender] = {
                REBUILD: lambda: _inside_stretch(account.rebuild_ns, count),
                VERIFY: lambda: _inside_stretch(account.verify_ns, count),
                FOLD: lambda: _bare_stretch(lambda: fold_rows(bare.connection), count),
                HASH: lambda: _bare_stretch(lambda: hash_rows(bare.connection), count),
            }
            series = await interleave(contenders, rounds=settings.rounds, rng=settings.rng)
            bare.close()
    rebuild, verify = series[REBUILD], series[VERIFY]
    return Result(
        name="fold",
        question=f"recovery of a ledger of {count:,} facts, per fact",
        rows=[
            latency_row(rebuild, floor=series[FOLD]),
            latency_row(series[FOLD]),
            latency_row(verify, floor=series[HASH]),
            latency_row(series[HASH]),
        ],
        verdicts=[
            Verdict(what="fold, per fact", value=rebuild.p50_us, at_most=2.0, unit="µs"),
            Verdict(what="verify, per fact", value=verify.p50_us, at_most=2.0, unit="µs"),
        ],
        notes=["a sample is one pass over the whole ledger, shown per fact"],
    )


async def _inside_stretch(message: Callable[[], Awaitable[int]], count: int) -> Stretch:
    with Stopwatch() as watch:
        elapsed = await message()
    return watch.stretch(array("q", [elapsed]), batch=count)


async def _bare_stretch(work: Callable[[], object], count: int) -> Stretch:
    with Stopwatch() as watch:
        start = now_ns()
        work()
        elapsed = now_ns() - start
    return watch.stretch(array("q", [elapsed]), batch=count)

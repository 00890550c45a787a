"""`workflow-10`: whole workflows of one step and of ten, from `create` to the result, each with a new file.

The steps do nothing, so that the price is that of making the instance, and of its journal. As in `cold` each instance
leaves the memory after it was timed, so that few files are open at any time. Making a bare file with one row is
measured beside it: no engine that gives each instance a file of its own can be cheaper than that.
"""

from __future__ import annotations

import asyncio
from array import array
from itertools import count as counter

import z0

from .append_case import insert_stretch
from .cold_case import CREATE, create_stretch
from .floors import BareLedger
from .flows import Short
from .measure import Contender, Stopwatch, Stretch, interleave, now_ns
from .result import Result, Verdict, latency_row, throughput_row
from .settings import Settings
from .stats import median_of_differences, median_ratio
from .wal import until_warm

ONE = "z0 workflow, 1 step"
TEN = "z0 workflow, 10 steps"
MANY = "z0 workflows, 64 at once"
FLOOR = "bare INSERT"
INSTANCES = 64
SLICES = 4
WARM_STEP = 100
EVICT_PASSES = 100


async def workflow_10(settings: Settings) -> Result:
    """What a whole workflow costs beyond one bare durable row."""
    count, inserts, instances = settings.size(2, 8), settings.size(10, 60), settings.size(4, INSTANCES)
    fresh = counter()
    with settings.folder("workflow-10") as folder:
        async with z0.Runtime(folder / "z0", actors=[Short], durability="full") as runtime:
            bare = BareLedger(folder / "bare.sqlite")

            async def warm() -> None:
                await insert_stretch(settings, bare, settings.size(5, WARM_STEP))
                await _whole_stretch(runtime, fresh, 10, 2)

            await until_warm(settings, folder, warm)
            contenders: dict[str, Contender] = {
                ONE: lambda: _whole_stretch(runtime, fresh, 1, count),
                TEN: lambda: _whole_stretch(runtime, fresh, 10, count),
                MANY: lambda: _together_stretch(runtime, fresh, instances),
                CREATE: lambda: create_stretch(settings, folder, fresh, count),
                FLOOR: lambda: insert_stretch(settings, bare, inserts),
            }
            series = await interleave(
                contenders, rounds=settings.rounds, rng=settings.rng, slices=settings.size(1, SLICES)
            )
            bare.close()
    one, ten, floor = series[ONE], series[TEN], series[FLOOR]
    each = median_of_differences(ten.p50s_us, one.p50s_us) / 9
    beside_file = median_ratio(one.p50s_us, series[CREATE].p50s_us)
    return Result(
        name="workflow-10",
        question="a workflow from its creation to its result, a new file being made, beside a bare durable row",
        rows=[
            latency_row(one, floor=floor),
            latency_row(ten, floor=floor),
            throughput_row(series[MANY], floor=one),
            latency_row(series[CREATE], floor=floor),
            latency_row(floor),
        ],
        verdicts=[
            Verdict(what="1 step, p50 / bare INSERT p50", value=median_ratio(one.p50s_us, floor.p50s_us), at_most=12.0),
        ],
        notes=[
            f"one step takes {beside_file:.2f} times making and filling a bare file; each of nine more {each:,.0f} µs",
            "64 at once, of 1 step each: the ratio is that of the throughputs",
        ],
    )


async def _whole_stretch(runtime: z0.Runtime, fresh: counter[int], steps: int, count: int) -> Stretch:
    """One workflow after another; sample i is the time from asking for it to having its result."""
    samples = array("q")
    with Stopwatch() as watch:
        for _ in range(count):
            id = f"flow-{next(fresh)}"
            start = now_ns()
            await _whole(runtime, id, steps)
            samples.append(now_ns() - start)
            await _leave(runtime, id)
    return watch.stretch(samples)


async def _together_stretch(runtime: z0.Runtime, fresh: counter[int], count: int) -> Stretch:
    """Workflows of one step side by side."""
    ids = [f"flow-{next(fresh)}" for _ in range(count)]
    samples = array("q")

    async def one(id: str) -> None:
        start = now_ns()
        await _whole(runtime, id, 1)
        samples.append(now_ns() - start)

    with Stopwatch() as watch:
        await asyncio.gather(*(one(id) for id in ids))
    for id in ids:
        await _leave(runtime, id)
    return watch.stretch(samples)


async def _whole(runtime: z0.Runtime, id: str, steps: int) -> None:
    instance = await runtime.workflows.create(Short, steps, id=id)
    found = await instance.result()
    if found != steps:
        raise RuntimeError(f"{instance!r} says {found!r} of {steps} steps")


async def _leave(runtime: z0.Runtime, id: str) -> None:
    """Have an instance leave the memory, as soon as it is done with itself."""
    for _ in range(EVICT_PASSES):
        if await runtime.evict(Short, id):
            return
        await asyncio.sleep(0)
    raise RuntimeError(f"instance {id} stays busy, so it cannot be evicted")

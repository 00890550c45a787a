"""`append` and `append-cpu`: one caller, one entity, against a bare INSERT of the same row.

Both files are written past a checkpoint first, so that both reuse their WAL instead of growing it, and both
hold the same number of facts at all times. The bare side keeps SQLite's default checkpointing, inline every
1,000 pages; that is what its p999 shows.
"""

from __future__ import annotations

from array import array

import z0

from .floors import BareLedger, Blocks
from .measure import Contender, Series, Stopwatch, Stretch, interleave, now_ns
from .result import Result, Verdict, cpu_row, latency_row
from .settings import Settings
from .stats import median_ratio
from .wal import until_warm, wal_note, wal_sizes
from .workload import Account, fact_fields, fact_rows

SUBJECT = "z0 append"
FLOOR = "bare INSERT"
DISK = "fdatasync of 4 KiB"
SLICES = 8
WARM_STEP = 100
SETTLE_S = 0.02  # a checkpoint that one side left behind in a thread is not billed to the other
NEVER_S = 3600.0


async def append(settings: Settings) -> Result:
    """What a durable fact costs beyond a bare durable row."""
    count = settings.size(20, 250)
    with settings.folder("append") as folder:
        async with z0.Runtime(folder / "z0", durability="full") as runtime:
            account = runtime.get(Account, "only")
            bare = BareLedger(folder / "bare.sqlite")
            blocks = Blocks(folder / "blocks")
            contenders: dict[str, Contender] = {
                SUBJECT: lambda: append_stretch(settings, account, count),
                FLOOR: lambda: insert_stretch(settings, bare, count),
                DISK: lambda: _sync_stretch(blocks, count // 5),
            }
            await _warm(settings, account, bare)
            before = wal_sizes(folder)
            series = await interleave(
                contenders, rounds=settings.rounds, rng=settings.rng, slices=settings.size(1, SLICES)
            )
            note = wal_note(before, wal_sizes(folder))
            bare.close()
            blocks.close()
    return _append_result(series, note)


def _append_result(series: dict[str, Series], note: str) -> Result:
    subject, floor, disk = series[SUBJECT], series[FLOOR], series[DISK]
    p99, p999 = subject.tail_us(99, 99.9)
    floor_p99, floor_p999 = floor.tail_us(99, 99.9)
    beside_disk = median_ratio(subject.p50s_us, disk.p50s_us)
    return Result(
        name="append",
        question="one caller, one entity: a durable fact beside a bare durable row",
        rows=[latency_row(subject, floor=floor), latency_row(floor, floor=disk), latency_row(disk)],
        verdicts=[
            Verdict(
                what="p50 / bare INSERT p50",
                value=median_ratio(subject.p50s_us, floor.p50s_us),
                at_most=1.20,
                acceptable=1.25,
            ),
            Verdict(what="p99 / p50", value=p99 / subject.p50_us, at_most=3.0),
            Verdict(what="p999 / that of bare INSERT", value=p999 / floor_p999, at_most=1.5),
        ],
        notes=[
            note,
            f"bare INSERT has p99 / p50 of {floor_p99 / floor.p50_us:.2f}",
            f"z0 append takes {beside_disk:.2f} times the fdatasync of one allocated block",
        ],
    )


async def append_cpu(settings: Settings) -> Result:
    """What a fact costs in processor time, with no sync on either side."""
    count = settings.size(20, 250)
    limits = z0.Limits(relaxed_sync_seconds=NEVER_S, idle_seconds=NEVER_S)
    with settings.folder("append-cpu") as folder:
        async with z0.Runtime(folder / "z0", durability="relaxed", limits=limits) as runtime:
            account = runtime.get(Account, "only")
            bare = BareLedger(folder / "bare.sqlite", synchronous="NORMAL")
            await _warm(settings, account, bare)
            series = await interleave(
                {
                    SUBJECT: lambda: append_stretch(settings, account, count),
                    FLOOR: lambda: insert_stretch(settings, bare, count),
                },
                rounds=settings.rounds,
                rng=settings.rng,
                slices=settings.size(1, SLICES),
                settle_s=SETTLE_S,
            )
            bare.close()
    subject, floor = series[SUBJECT], series[FLOOR]
    ratio = median_ratio(subject.cpus_us, floor.cpus_us)
    return Result(
        name="append-cpu",
        question="processor time of an append beside a bare INSERT, both without sync",
        rows=[
            cpu_row(subject, floor=floor),
            cpu_row(floor),
            latency_row(subject, floor=floor),
            latency_row(floor),
        ],
        verdicts=[Verdict(what="CPU per append / bare INSERT", value=ratio, at_most=1.8)],
        notes=[
            'z0 runs durability="relaxed", its delayed sync put off; so synchronous=NORMAL on both sides',
            "CPU is processor time of the whole process per fact, checkpoints and threads included",
        ],
    )


async def _warm(settings: Settings, account: Account, bare: BareLedger) -> None:
    count = settings.size(5, WARM_STEP)

    async def step() -> None:
        await append_stretch(settings, account, count)
        await insert_stretch(settings, bare, count)

    await until_warm(settings, bare.path.parent, step)


async def append_stretch(settings: Settings, account: Account, count: int) -> Stretch:
    """One caller appends back to back."""
    facts = fact_fields(settings.rng, count)
    samples = array("q")
    with Stopwatch() as watch:
        for fields in facts:
            start = now_ns()
            await account.append("deposit", **fields)
            samples.append(now_ns() - start)
    return watch.stretch(samples)


async def insert_stretch(settings: Settings, bare: BareLedger, count: int) -> Stretch:
    """The same facts as rows, back to back."""
    rows = fact_rows(settings.rng, bare.head + 1, count)
    bare.head += count
    samples = array("q")
    with Stopwatch() as watch:
        for row in rows:
            start = now_ns()
            bare.insert(row)
            samples.append(now_ns() - start)
    return watch.stretch(samples)


async def _sync_stretch(blocks: Blocks, count: int) -> Stretch:
    samples = array("q")
    with Stopwatch() as watch:
        for _ in range(count):
            start = now_ns()
            blocks.overwrite()
            samples.append(now_ns() - start)
    return watch.stretch(samples)

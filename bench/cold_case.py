"""`cold`: the first message to an evicted entity, and the first message ever, with the page cache warm.

The bare side opens a copy of the same file and reads the same fact. Few files are open at any time on
either side: opening slows down with the number of connections already open, for everybody. So does creating
a file (a -wal and a -shm at each opening) on ext4 where many were deleted lately; both sides work in one
folder and feel it alike.
"""

from __future__ import annotations

import shutil
from array import array
from collections.abc import Awaitable, Callable
from itertools import count as counter
from pathlib import Path

import z0

from .floors import create_and_insert, open_and_read
from .measure import Series, Stopwatch, Stretch, interleave, now_ns
from .result import Result, Verdict, latency_row
from .settings import Settings
from .stats import median_of_differences
from .workload import Account, evicted, fact_fields, fact_rows

FACTS = 100
READ = "z0 first read, one fact"
BALANCE = "z0 first read, a projection"
OPEN = "bare open and read"
FIRST = "z0 first ever append"
CREATE = "bare create and INSERT"


async def cold(settings: Settings) -> Result:
    """What waking an entity costs beyond opening its file."""
    names = [f"account-{number:03d}" for number in range(settings.size(2, 40))]
    with settings.folder("cold") as folder:
        await _populate(settings, folder / "z0", names)
        copies = _copy_files(folder / "z0", folder / "bare")
        async with z0.Runtime(folder / "z0") as runtime:
            fresh = counter()
            series = await interleave(
                {
                    READ: lambda: _read_stretch(runtime, names, lambda account: account.get_fact(FACTS)),
                    BALANCE: lambda: _read_stretch(runtime, names, lambda account: account.projection("balance")),
                    OPEN: lambda: _open_stretch(copies),
                    FIRST: lambda: _first_stretch(settings, runtime, fresh, settings.size(2, 10)),
                    CREATE: lambda: create_stretch(settings, folder, fresh, settings.size(2, 10)),
                },
                rounds=settings.rounds,
                rng=settings.rng,
            )
    return _result(series)


def _result(series: dict[str, Series]) -> Result:
    floor = series[OPEN]
    verdicts = [
        Verdict(
            what=f"{name.removeprefix('z0 ')}: beyond bare open and read",
            value=median_of_differences(series[name].p50s_us, floor.p50s_us),
            at_most=250.0,
            unit="µs",
        )
        for name in (READ, BALANCE)
    ]
    first_ms = series[FIRST].p50_us / 1e3
    return Result(
        name="cold",
        question=f"the first message to an evicted entity of {FACTS} facts, and the first message ever",
        rows=[
            latency_row(series[READ], floor=floor),
            latency_row(series[BALANCE], floor=floor),
            latency_row(floor),
            latency_row(series[FIRST], floor=series[CREATE]),
            latency_row(series[CREATE]),
        ],
        verdicts=[*verdicts, Verdict(what="first ever append", value=first_ms, at_most=3.0, unit="ms")],
    )


async def _populate(settings: Settings, path: Path, names: list[str]) -> None:
    async with z0.Runtime(path, durability="relaxed") as runtime:
        for name in names:
            facts = [{"type": "deposit", **fields} for fields in fact_fields(settings.rng, FACTS)]
            account = runtime.get(Account, name)
            await account.append_many(facts)
            await evicted(runtime, name)


def _copy_files(source: Path, target: Path) -> list[Path]:
    target.mkdir()
    files = sorted(source.glob(f"*/{Account.namespace}/*.sqlite"))
    return [Path(shutil.copy(file, target / file.name)) for file in files]


async def _read_stretch(runtime: z0.Runtime, names: list[str], read: Callable[[Account], Awaitable[object]]) -> Stretch:
    samples = array("q")
    with Stopwatch() as watch:
        for name in names:
            account = runtime.get(Account, name)
            start = now_ns()
            await read(account)
            samples.append(now_ns() - start)
            await evicted(runtime, name)
    return watch.stretch(samples)


async def _open_stretch(files: list[Path]) -> Stretch:
    samples = array("q")
    with Stopwatch() as watch:
        for file in files:
            start = now_ns()
            connection = open_and_read(file, FACTS)
            samples.append(now_ns() - start)
            connection.close()
    return watch.stretch(samples)


async def _first_stretch(settings: Settings, runtime: z0.Runtime, fresh: counter[int], count: int) -> Stretch:
    samples = array("q")
    facts = fact_fields(settings.rng, count)
    with Stopwatch() as watch:
        for fields in facts:
            name = f"new-{next(fresh)}"
            start = now_ns()
            await runtime.get(Account, name).append("deposit", **fields)
            samples.append(now_ns() - start)
            await evicted(runtime, name)
    return watch.stretch(samples)


async def create_stretch(settings: Settings, folder: Path, fresh: counter[int], count: int) -> Stretch:
    """Make files with their table and one durable fact each; closing them is not timed."""
    samples = array("q")
    with Stopwatch() as watch:
        for _ in range(count):
            (row,) = fact_rows(settings.rng, 1, 1)
            path = folder / f"new-{next(fresh)}.sqlite"
            start = now_ns()
            ledger = create_and_insert(path, row)
            samples.append(now_ns() - start)
            ledger.close()
    return watch.stretch(samples)

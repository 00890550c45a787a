"""A long mixed load leaves nothing behind: memory, descriptors, threads, tasks and logs stay as they are.

    pytest -m soak --minutes 10

Actors are appended to, queried, evicted, woken by alarms, flooded, cancelled and failed, all at once. After the
warm-up (a third of the time: caches fill, files reach their size) each figure is compared between the halves of
what is left.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import apsw
import pytest

import z0
from tests.proofs import Proof
from z0.testing import temporary_runtime

MIB = 1024 * 1024
ACTORS = 200
WORKERS = 12
PAGE = 4_096
LIMITS = z0.Limits(
    open_files=60, idle_seconds=0.5, checkpoint_pages=200, checkpoint_pages_max=800, mailbox_messages=200
)
WAL_BYTES = 4 * 1_000 * PAGE  # the catalogue's is the longest: 1,000 pages, and what comes until it is copied whole


class Oops(Exception):
    pass


class Worker(z0.Entity):
    accepts = {"*"}
    indexes = ("source_id",)
    balance: z0.Balance

    async def start(self) -> None:
        self.storage.sql("CREATE TABLE IF NOT EXISTS notes(n INTEGER PRIMARY KEY, text)")

    async def note(self, number: int) -> int:
        self.storage.put(f"k{number % 50}", "x" * 200)
        self.storage.sql("INSERT OR REPLACE INTO notes VALUES(?, ?)", number % 50, "y" * 200)
        return len(self.storage.list(prefix="k1")) + len(self.storage.sql("SELECT * FROM notes LIMIT 5").all())

    async def pay(self, to: str, number: int) -> None:
        self.ledger.append("out", amount=-1, currency="EUR")
        await self.get(Worker, to).append("in", amount=1, currency="EUR", source_id=self.name)
        await asyncio.sleep(0)

    async def arm(self, number: int) -> None:
        self.storage.set_alarm(number % 3, f"a{number % 5}")

    async def alarm(self, info: z0.AlarmInfo) -> None:
        if info.retry_count == 0 and info.name == "a0":
            raise Oops
        self.storage.put("rang", info.name)

    async def fail(self, slowly: bool) -> None:
        self.ledger.append("never", amount=1)
        if slowly:
            await asyncio.sleep(0)
        raise Oops

    async def linger(self) -> None:
        self.storage.put("lingers", 1)
        self.wait_until(self.clock.sleep(0.05))
        await self.clock.sleep(0.05)

    async def break_down(self) -> None:
        self.abort("as an operator would")

    @z0.idempotent("key", retention="5 seconds")
    async def once(self, *, key: str) -> str:
        self.storage.put("once", key)
        return key


class Sample(NamedTuple):
    """What the process holds at one moment."""

    rss: int
    objects: int
    """That Python's garbage collector knows."""
    sqlite: int
    """Bytes that SQLite has in use, page caches included."""
    descriptors: int
    threads: int
    tasks: int
    wal: int


def sample(folder: Path) -> Sample:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    logs = 0
    for log in folder.rglob("*-wal"):
        with suppress(FileNotFoundError):
            logs = max(logs, log.stat().st_size)
    held = len(os.listdir("/proc/self/fd")), threading.active_count(), len(asyncio.all_tasks())
    return Sample(pages * PAGE, len(gc.get_objects()), apsw.memory_used(), *held, logs)


class Load:
    """Workers that do something at random, one thing after the other."""

    def __init__(self, runtime: z0.Runtime) -> None:
        self.runtime = runtime
        self.done: Counter[str] = Counter()
        self.chance = random.Random(0)
        self.number = 0

    def _worker(self) -> Worker:
        return self.runtime.get(Worker, f"w{self.chance.randrange(ACTORS)}")

    async def run(self) -> None:
        ways = [self.append, self.append, self.note, self.pay, self.arm, self.query, self.fail, self.cancel, self.evict]
        rare = [self.burst, self.break_down, self.late]
        while True:
            self.number += 1
            way: Callable[[Worker, int], Awaitable[None]]
            way = self.chance.choice(rare if self.chance.random() < 0.01 else ways)
            try:
                await way(self._worker(), self.number)
            except (z0.Overloaded, z0.ActorReset, z0.DeadlineExceeded, z0.CommitUnknown, Oops) as error:
                self.done[type(error).__name__] += 1
            self.done[way.__name__] += 1

    async def append(self, worker: Worker, number: int) -> None:
        await worker.append("in", amount=1, currency="EUR", source_id="outside", idempotency_key=f"k{number}")

    async def note(self, worker: Worker, number: int) -> None:
        await worker.note(number)

    async def pay(self, worker: Worker, number: int) -> None:
        await worker.pay(f"w{number % ACTORS}", number)

    async def arm(self, worker: Worker, number: int) -> None:
        await worker.arm(number)

    async def query(self, worker: Worker, number: int) -> None:
        await asyncio.gather(
            worker.query_facts(source_id="outside", limit=5, reverse=True), worker.once(key=f"k{number % 999}")
        )

    async def fail(self, worker: Worker, number: int) -> None:
        await worker.fail(bool(number % 2))

    async def cancel(self, worker: Worker, number: int) -> None:
        call = asyncio.ensure_future(worker.linger())
        await asyncio.sleep(self.chance.random() / 100)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)

    async def evict(self, worker: Worker, number: int) -> None:
        await self.runtime.evict(Worker, f"w{number % ACTORS}")

    async def burst(self, worker: Worker, number: int) -> None:
        found = await asyncio.gather(*(worker.note(n) for n in range(1_000)), return_exceptions=True)
        self.done["refused"] += sum(isinstance(each, z0.Overloaded) for each in found)

    async def break_down(self, worker: Worker, number: int) -> None:
        await worker.break_down()

    async def late(self, worker: Worker, number: int) -> None:
        with self.runtime.deadline(0.001):
            await worker.linger()


@pytest.fixture
def no_log() -> Iterator[None]:
    """Nothing is logged: pytest would keep all of it."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.soak
@pytest.mark.usefixtures("no_log")
@pytest.mark.timeout(24 * 3600)
async def test_a_long_mixed_load_leaves_nothing_behind(proof: Proof, pytestconfig: pytest.Config) -> None:
    seconds = 60 * (pytestconfig.getoption("minutes") or 10.0)
    samples: list[Sample] = []
    async with temporary_runtime(actors=[Worker], limits=LIMITS) as runtime:
        load, began = Load(runtime), time.monotonic()
        working = [asyncio.create_task(load.run()) for _ in range(WORKERS)]
        while time.monotonic() < began + seconds:
            await asyncio.sleep(max(1.0, seconds / 600))
            samples.append(sample(runtime.path))
            assert not any(each.done() for each in working), [each for each in working if each.done()]
        for each in working:
            each.cancel()
        await asyncio.gather(*working, return_exceptions=True)
    for what, number in load.done.items():
        proof.count(what, number)
    warm = samples[len(samples) // 3 :]
    report(proof, warm)
    judge(warm)
    del runtime, load, working
    assert sample(Path("/nowhere")).tasks == 1
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("z0-")]


def report(proof: Proof, warm: list[Sample]) -> None:
    for name in Sample._fields:
        values = [getattr(each, name) for each in warm]
        for word, value in ("first", values[0]), ("least", min(values)), ("most", max(values)), ("last", values[-1]):
            proof.count(f"{name} {word}", value)


def judge(warm: list[Sample]) -> None:
    """Compare the second half with the first."""
    early, late = warm[: len(warm) // 2], warm[len(warm) // 2 :]
    # What is held is flat: a leak of one object in ten messages would show. What malloc holds besides grows slower and
    # slower, with the largest burst that each of its arenas has seen.
    assert median(late, "objects") <= 1.05 * median(early, "objects") + 2_000
    assert median(late, "sqlite") <= 1.2 * median(early, "sqlite") + MIB
    assert median(late, "rss") <= 1.1 * median(early, "rss") + 4 * MIB
    assert median(late, "descriptors") <= median(early, "descriptors") + 3
    assert max(each.descriptors for each in warm) <= 3 * LIMITS.open_files_max() + 40
    assert max(each.threads for each in late) <= max(each.threads for each in early) + 1
    assert median(late, "tasks") <= 1.2 * median(early, "tasks") + 10
    assert max(each.wal for each in late) <= min(WAL_BYTES, 1.5 * max(each.wal for each in early))


def median(samples: list[Sample], name: str) -> int:
    return sorted(int(getattr(each, name)) for each in samples)[len(samples) // 2]


@pytest.mark.parametrize("leak", Sample._fields)
def test_each_leak_is_caught(leak: str) -> None:
    flat = Sample(rss=100 * MIB, objects=40_000, sqlite=8 * MIB, descriptors=150, threads=20, tasks=40, wal=800 * PAGE)
    judge([flat] * 100)
    with pytest.raises(AssertionError):
        judge([flat._replace(**{leak: getattr(flat, leak) * (100 + 2 * number) // 100}) for number in range(100)])

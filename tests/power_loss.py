"""The workloads of the power-loss proof: what is ordered of actors while a simulated disk keeps its trace.

Each is drawn from a seed. Before a message is sent the trace is marked with the order ("try"), after its reply with the
acknowledgement ("ack") or a reset that denies it ("reset"), and whenever the clock is moved with the time.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import sqlite3
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, Future
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import z0
from tests.power_actors import NewSafe, Order, Safe, send
from z0.crashes import crash_images
from z0.testing import SimulatedDisk, VirtualClock, crash

ALL = ("single", "single", "single", "many", "charge", "charge", "slow", "transfer", "never")
ALARMS = ("rings", "rings", "fails", "slowly", "recurs", "moves", "moves", "drops", "single", "clear")
PARTS = ("slow", "transfer")  # become durable in parts
EXPECTED = (z0.ActorReset, z0.CommitUnknown)


class Now(Executor):
    """Does at once what a thread would do, so that a trace depends on its seed alone, the catalogue's thread apart."""

    def submit(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(work(*args, **kwargs))
        return done


async def nothing(path: Path) -> None:
    """Leave no file."""


async def old_files(path: Path) -> None:
    """Leave files that an older z0 has made."""
    async with z0.Runtime(path, clock=VirtualClock()) as runtime:
        for number in range(2):
            safe = runtime.get(Safe, str(number))
            await safe.append("single", amount=1, idempotency_key=f"before-{number}")
            await safe.set(f"set-{number}", f"rings-before-{number}", 600.0, None)
    for file in (path / f"default/Safe/{number}.sqlite" for number in range(2)):
        with closing(sqlite3.connect(file)) as database:
            database.executescript(
                "CREATE TABLE old AS SELECT * FROM z0_alarms; DROP TABLE z0_alarms;"
                "CREATE TABLE z0_alarms(name TEXT PRIMARY KEY, due INTEGER NOT NULL, scheduled INTEGER NOT NULL,"
                " retries INTEGER NOT NULL DEFAULT 0, error TEXT) WITHOUT ROWID;"
                "INSERT INTO z0_alarms SELECT name, due, scheduled, retries, error FROM old; DROP TABLE old;"
                "UPDATE z0_meta SET value = 1 WHERE key = 'schema';"
            )
    with closing(sqlite3.connect(path / "catalog.sqlite")) as database:
        database.executescript(
            "DROP INDEX actors_active; ALTER TABLE actors DROP COLUMN active; ALTER TABLE actors DROP COLUMN version;"
            "DROP INDEX actors_status; ALTER TABLE actors DROP COLUMN status; DROP TABLE removals;"
            "UPDATE z0_meta SET value = 1 WHERE key = 'schema';"
        )


@dataclass(frozen=True)
class Plan:
    """What a workload is made of."""

    sorts: tuple[str, ...] = ALL
    operations: int = 40
    callers: int = 1
    actors: int = 2
    tenants: tuple[str, ...] = ("default",)
    evicts: float = 0.05
    passes: float = 0.0
    """How likely the clock is moved between two messages, and by how much at most."""
    seconds: float = 60.0
    fails: float = 0.0
    """How likely a sync fails during a message."""
    threads: bool = False
    pages: int = 1_000
    runs: tuple[str, ...] = ("close",)
    """How each of the runtimes ends, one after another; the last one is crashed."""
    classes: tuple[type[Safe], ...] = (Safe,)
    durability: str = "full"
    prepare: Callable[[Path], Awaitable[None]] = nothing

    @property
    def has_alarms(self) -> bool:
        return "rings" in self.sorts


PLANS = {
    "single facts": Plan(sorts=("single", "single", "many"), actors=1, evicts=0.0),
    "messages": Plan(),
    "group commit": Plan(callers=6, operations=60),
    "threads": Plan(callers=6, operations=60, actors=3, threads=True, pages=12),
    "outbox": Plan(sorts=("transfer", "transfer", "slow", "single"), actors=3, callers=2),
    "alarms": Plan(sorts=ALARMS, passes=0.4, evicts=0.1, operations=30),
    "alarms of many callers": Plan(sorts=ALARMS, callers=3, passes=0.2, evicts=0.2, actors=4, threads=True),
    "alarms and crashes": Plan(sorts=ALARMS, passes=0.3, evicts=0.1, runs=("crash", "close", "crash")),
    "checkpoints": Plan(sorts=("many", "charge", "slow"), pages=6, operations=50),
    "eviction": Plan(evicts=0.5, operations=25, runs=("close", "close")),
    "creation": Plan(sorts=("single", "transfer", "rings"), actors=30, tenants=("default", "t1", "t2"), operations=15),
    "migrations": Plan(sorts=("charge", "single", "never"), classes=(Safe, NewSafe), runs=("close", "close")),
    "migrations after a crash": Plan(sorts=("charge", "rings"), classes=(Safe, NewSafe), runs=("crash", "crash")),
    "files of an older z0": Plan(sorts=("charge", "rings", "single"), prepare=old_files, operations=15),
    "delete_all": Plan(sorts=("charge", "charge", "rings", "clear")),
    "retention": Plan(sorts=("charge", "charge", "single"), passes=0.2, seconds=86_400.0, pages=6, evicts=0.2),
    "unconfirmed": Plan(sorts=("note", "note", "note", "single"), actors=2, evicts=0.05),
    "failed commits": Plan(sorts=(*ALL, "rings"), fails=0.2, actors=3),
    "failed commits in threads": Plan(sorts=(*ALL, "rings"), fails=0.2, actors=3, callers=3, threads=True, pages=8),
    "kills": Plan(sorts=(*ALL, *ALARMS), runs=("kill", "kill", "kill"), actors=3, passes=0.1, evicts=0.1),
    "kills and failed commits": Plan(sorts=(*ALL, "rings"), runs=("kill", "kill"), fails=0.1, actors=6, evicts=0.1),
}


class Workload:
    """One run of a plan on a disk."""

    def __init__(self, plan: Plan, seed: int, disk: SimulatedDisk, path: Path) -> None:
        self.plan, self.disk, self.path = plan, disk, path
        self.chance = random.Random(seed)
        self.clock = VirtualClock(seed=seed)
        self.alarms: dict[tuple[str, str], list[str]] = {}
        self.left: list[Order] = []  # tried and not acknowledged
        self.unknown: set[Order] = set()  # ... once before
        self.number = 0

    async def run(self) -> None:
        """Order all there is to be ordered."""
        plan = self.plan
        limits = z0.Limits(
            inline_sync_seconds=0 if plan.threads else 10,
            checkpoint_pages=plan.pages,
            snapshot_facts=5,
            open_files=max(2, plan.actors // 2) if plan.actors > 4 else None,
        )
        self.disk.mark(self.clock.now_us())
        for number, end in enumerate(plan.runs):
            cls = plan.classes[min(number, len(plan.classes) - 1)]
            runtime = self.disk.runtime(
                self.path, actors=[cls], clock=self.clock, limits=limits, durability=plan.durability,
                executor=None if plan.threads else Now(),
            )  # fmt: skip
            async with runtime:
                share = plan.operations // plan.callers // len(plan.runs)
                await asyncio.gather(*(self.call(runtime, cls, max(1, share)) for _ in range(plan.callers)))
                if end != "close":
                    await crash(runtime)
            if end == "kill":
                self.kill()

    async def call(self, runtime: z0.Runtime, cls: type[Safe], operations: int) -> None:
        """One caller."""
        plan, chance = self.plan, self.chance
        for _ in range(operations):
            order = self.left.pop() if self.left and chance.random() < 0.7 else self.order()
            self.disk.mark(("try", order))
            if chance.random() < plan.fails:
                suffix = chance.choice(("", "", "catalog.sqlite"))
                self.disk.fail("sync", chance.randrange(1, 4), forever=chance.random() < 0.3, suffix=suffix)
            try:
                await send(runtime, cls, order)
            except EXPECTED as error:
                if not plan.fails:
                    raise
                if isinstance(error, z0.ActorReset) and order not in self.unknown and order.sort not in PARTS:
                    self.disk.mark(("reset", order))
                self.unknown.add(order)
                self.left.append(order)
            else:
                self.disk.mark(("ack", order))
            self.disk.heal()
            if chance.random() < plan.evicts:
                await runtime.tenant(order.tenant).evict(cls, order.name)
            if chance.random() < plan.passes:
                await self.clock.advance(chance.uniform(0, plan.seconds))
                self.disk.mark(self.clock.now_us())

    def order(self) -> Order:
        """A new order."""
        plan, chance = self.plan, self.chance
        self.number += 1
        tenant, sort = chance.choice(plan.tenants), chance.choice(plan.sorts)
        name = str(chance.randrange(plan.actors))
        other = str((int(name) + 1) % max(2, plan.actors))
        alarms = self.alarms.setdefault((tenant, name), [])
        if sort in ("moves", "drops") and not alarms:
            sort = "rings"
        order = Order(
            sort, self.number, tenant, name, other, chance.choice(alarms) if alarms else "", chance.uniform(0, 90)
        )
        if sort in ("rings", "fails", "slowly", "recurs"):
            alarms.append(order.key)
        return order

    def kill(self) -> None:
        """Have been killed at one of the last moments."""
        moments = len(self.disk.trace)
        kill(self.disk, self.path, self.chance.randrange(max(1, moments - self.chance.choice((60, 600))), moments + 1))


def kill(disk: SimulatedDisk, path: Path, moment: int) -> None:
    """Let the process have been killed then: what it had asked of the disk is there, durable or not."""
    del disk.trace[moment:]
    images = {image.mode: image for image in crash_images(disk.trace, points=[moment])}
    shutil.rmtree(path, ignore_errors=True)  # it was not made yet
    images.get("everything", images["nothing"]).write(path, of=path)

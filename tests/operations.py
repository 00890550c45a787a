"""What actors do, small enough to be done once for each call to the disk that it makes; and what callers were told.

An operation is what comes before, on a disk that works, and what is done while the disk fails.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import z0
from z0.disk import SimulatedDisk
from z0.testing import VirtualClock, crash

REFUSED = (z0.ActorReset, z0.ActorFileError)
FACT = re.compile("[almtof][0-9]*")


class Oops(Exception):
    pass


def note_migration(storage: Any) -> None:
    storage.put("migrated", True)


class Till(z0.Entity):
    """Does a little of everything; each of its writes has a name."""

    namespace = "Till"
    accepts = {"*"}
    balance: z0.Balance

    @z0.idempotent("key")
    async def once(self, *, key: str) -> int:
        return self.ledger.append("once", amount=1, idempotency_key=key).seq

    async def transfer(self, to: str, key: str) -> None:
        self.ledger.append("out", amount=-1, idempotency_key=key)
        await self.get(Till, to).append("in", amount=1, idempotency_key=key)

    async def put(self, *keys: str) -> None:
        for key in keys:
            self.storage.put(key, b"x" * 500)

    async def note(self, *keys: str) -> None:
        self.storage.sql("CREATE TABLE IF NOT EXISTS notes(key TEXT PRIMARY KEY)")
        for key in keys:
            self.storage.sql("INSERT OR IGNORE INTO notes VALUES(?)", key)

    async def clear(self) -> None:
        self.storage.delete_all()

    async def arm(self, key: str) -> None:
        self.storage.set_alarm(60, key)

    async def alarm(self, info: z0.AlarmInfo) -> None:
        assert self.clock.now() >= info.scheduled_time
        if info.name == "retry" and not info.is_retry:
            raise Oops
        self.ledger.append("fired", idempotency_key=info.name)

    async def stored(self) -> set[str]:
        """What is there of all that was written, after looking whether it fits together."""
        facts = self.ledger.query()
        fold = z0.Balance({})
        for fact in facts:
            fold.apply(fact)
        assert self.balance == fold
        assert [fact.seq for fact in facts] == list(range(1, len(facts) + 1))
        assert self.ledger.verify().facts == len(facts)
        notes: list[Any] = []
        if self.storage.sql("SELECT 1 FROM sqlite_schema WHERE name = 'notes'").all():
            notes = self.storage.sql("SELECT key FROM notes").all()
        return {str(fact.idempotency_key) for fact in facts} | {*self.storage.list()} | {key for (key,) in notes}


class Migrated(Till):
    migrations = [note_migration]


class World:
    """A runtime on a disk that may fail, and what its callers were told."""

    def __init__(self, disk: SimulatedDisk, path: Path, threads: bool) -> None:
        self.disk = disk
        self.path = path
        self.clock = VirtualClock()
        self.kind: type[Till] = Till
        self.limits = z0.Limits(
            inline_sync_seconds=0 if threads else 10,
            snapshot_facts=4,
            checkpoint_pages=6,
            idle_seconds=86_400,  # nobody leaves unless told to
        )
        self.acknowledged: dict[str, set[str]] = {}
        self.started: dict[str, set[str]] = {}
        self.refused: dict[str, set[str]] = {}
        self.groups: list[tuple[str, set[str]]] = []
        self.refusals: tuple[type[z0.Z0Error], ...] = REFUSED

    async def open(self) -> None:
        actors = [self.kind]
        self.runtime = self.disk.runtime(self.path, actors=actors, clock=self.clock, limits=self.limits)
        await self.runtime.open()

    def till(self, name: str = "a") -> Till:
        return self.runtime.get(self.kind, name)

    async def ask(
        self, call: Awaitable[object], *adds: str, removes: Iterable[str] = (), name: str = "a", told: str | None = None
    ) -> None:
        """Wait for a message that adds or removes these, and note what its caller was told.

        `told`: where something else than the actor that was asked may have failed.
        """
        removed = set(removes)
        acknowledged, started = self.acknowledged.setdefault(name, set()), self.started.setdefault(name, set())
        refused = self.refused.setdefault(name, set())
        self.groups += [(name, set(adds)), (name, removed)]
        new = set(adds) - started
        started.update(adds)
        try:
            await call
        except self.refusals:
            if told is None:
                refused |= new
        except z0.CommitUnknown:
            acknowledged -= removed
            refused -= set(adds)
        else:
            acknowledged.update(adds)
            acknowledged -= removed
            refused |= removed
            refused -= set(adds)

    async def evict(self) -> None:
        """Have the actor leave the memory, after what a thread does with its file."""
        await self.clock.settle()
        assert await self.runtime.evict(self.kind, "a")

    async def check_facts(self) -> None:
        """Make sure that no fact was lost unnoticed; damage that is noticed is as good as can be."""
        for name in self.started:
            try:
                keys = {fact.idempotency_key for fact in await self.till(name).query_facts()}
                await self.till(name).verify()
            except self.refusals:
                continue
            assert {key for key in self.acknowledged[name] if FACT.fullmatch(key)} <= keys

    async def check(self) -> None:
        for name in self.started:
            stored = await self.till(name).stored()
            assert self.acknowledged[name] <= stored
            assert not self.refused[name] & stored
            assert stored <= self.started[name] | {"migrated"}
            assert (self.kind is Migrated) == ("migrated" in stored)
            assert all(group <= stored or not group & stored for other, group in self.groups if other == name)


# Operations: what comes before, and what is done while the disk fails


async def begin(world: World) -> None:
    await world.ask(world.till().append("x", amount=1, currency="EUR", idempotency_key="a0"), "a0")


async def begin_evicted(world: World) -> None:
    await begin(world)
    await world.ask(world.till().put("k0", "k1"), "k0", "k1")
    await world.evict()


async def begin_large(world: World) -> None:
    several = [{"type": "x", "amount": n, "idempotency_key": f"l{n}", "data": {"text": "x" * 900}} for n in range(15)]
    await world.ask(world.till().append_many(several), *(f"l{n}" for n in range(15)))
    await world.evict()


async def begin_armed(world: World) -> None:
    await begin(world)
    await world.till().arm("alarm")
    world.started["a"].add("alarm")
    world.acknowledged["a"].add("alarm")  # it is to run, sooner or later


async def begin_armed_and_evicted(world: World) -> None:
    await begin_armed(world)
    await world.evict()


async def begin_failing(world: World) -> None:
    await begin(world)
    await world.till().arm("retry")
    world.started["a"].add("retry")
    world.acknowledged["a"].add("retry")


async def begin_closed(world: World) -> None:
    await begin_armed(world)
    await world.runtime.close()


async def begin_crashed(world: World) -> None:
    await begin_armed(world)
    await world.ask(world.till().put("k0"), "k0")
    await crash(world.runtime)


async def begin_older(world: World) -> None:
    await begin_evicted(world)
    await world.runtime.close()
    world.kind = Migrated
    await world.open()


async def append(world: World) -> None:
    for n in range(1, 4):
        await world.ask(world.till().append("x", amount=n, currency="EUR", idempotency_key=f"a{n}"), f"a{n}")


async def append_many(world: World) -> None:
    several = [{"type": "x", "amount": n, "idempotency_key": f"m{n}", "data": {"text": "x" * 900}} for n in range(9)]
    await world.ask(world.till().append_many(several), *(f"m{n}" for n in range(9)))


async def append_together(world: World) -> None:
    keys = [f"t{n}" for n in range(5)]
    calls = [world.till().append("x", amount=1, idempotency_key=key) for key in keys]
    await asyncio.gather(*(world.ask(call, key) for key, call in zip(keys, calls, strict=True)))


async def once(world: World) -> None:
    for _ in range(2):
        await world.ask(world.till().once(key="o"), "o")


async def transfer(world: World) -> None:
    for name in "ab":
        world.started.setdefault(name, set()).add("t")
    await world.ask(world.till().transfer("b", "t"), "t", told="by either")
    if "t" in world.acknowledged["a"]:
        world.acknowledged.setdefault("b", set()).add("t")
    world.acknowledged.setdefault("b", set())
    world.refused.setdefault("b", set())


async def put(world: World) -> None:
    await world.ask(world.till().put("p0", "p1", "p2"), "p0", "p1", "p2")


async def note(world: World) -> None:
    await world.ask(world.till().note("n0", "n1", "n2"), "n0", "n1", "n2")


async def clear(world: World) -> None:
    await world.ask(world.till().clear(), removes={"k0", "k1"})


async def arm(world: World) -> None:
    world.started["a"].add("armed")
    with suppress(*REFUSED, z0.CommitUnknown):
        await world.till().arm("armed")
        world.acknowledged["a"].add("armed")


async def query(world: World) -> None:
    with suppress(*REFUSED):
        facts = await world.till().query_facts()
        assert world.acknowledged["a"] == {str(fact.idempotency_key) for fact in facts} | {"k0", "k1"}


async def read(world: World) -> None:
    with suppress(*world.refusals):
        assert await world.till().count_facts() == 15
    with suppress(*world.refusals):
        assert (await world.till().verify()).facts == 15


async def fill(world: World) -> None:
    for n in range(4):
        await world.ask(world.till().append("x", data={"text": "x" * 9_000}, idempotency_key=f"f{n}"), f"f{n}")
        await world.clock.settle()


async def pass_time(world: World) -> None:
    await world.clock.advance("2 minutes")


async def evict(world: World) -> None:
    await world.runtime.evict(Till, "a")
    with suppress(z0.StorageFailed):
        await world.runtime.list(Till)


async def open_again(world: World) -> None:
    await world.open()
    await pass_time(world)
    await append(world)


async def close(world: World) -> None:
    await world.runtime.close()


class Operation(NamedTuple):
    prepare: Callable[[World], Coroutine[Any, Any, None]]
    act: Callable[[World], Coroutine[Any, Any, None]]


async def nothing(world: World) -> None:
    pass


OPERATIONS = {
    "creation": Operation(nothing, append),
    "append": Operation(begin, append),
    "append_many": Operation(begin, append_many),
    "appends at once": Operation(begin, append_together),
    "idempotent message": Operation(begin, once),
    "transfer": Operation(begin, transfer),
    "put": Operation(begin, put),
    "sql": Operation(begin, note),
    "delete_all": Operation(begin_evicted, clear),
    "setting an alarm": Operation(begin, arm),
    "running an alarm": Operation(begin_armed, pass_time),
    "waking for an alarm": Operation(begin_armed_and_evicted, pass_time),
    "retrying an alarm": Operation(begin_failing, pass_time),
    "query": Operation(begin_evicted, query),
    "reading and verifying": Operation(begin_large, read),
    "eviction": Operation(begin_armed, evict),
    "reopening": Operation(begin_evicted, append),
    "checkpoint": Operation(begin, fill),
    "migration": Operation(begin_older, append),
    "start": Operation(begin_closed, open_again),
    "start after a crash": Operation(begin_crashed, open_again),
    "closing": Operation(begin_armed, close),
}

"""What once went wrong, and must not again: each test is one fault as a program would have met it."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import warnings
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import apsw
import pytest

import z0
from z0.actors.errors import DatabaseFailure
from z0.actors.names import file_path
from z0.testing import SimulatedDisk, VirtualClock, crash, fault, simulated_disk, temporary_runtime


class Boom(BaseException):
    """Not an Exception: what only a handler of everything would catch."""


class Picky(z0.Projection):
    """Counts facts; what it cannot take ends an iteration."""

    n: int = 0

    def apply(self, fact: z0.Fact) -> None:
        if fact.type == "stop":
            next(iter(()))
        if fact.type == "boom":
            raise Boom
        self.n += 1


class Count(z0.Projection):
    """Counts facts."""

    n: int = 0

    def apply(self, fact: z0.Fact) -> None:
        self.n += 1


class Shop(z0.Entity):
    """Takes any fact and any SQL."""

    accepts = {"*"}
    env: World
    count: Count
    picky: Picky

    async def sql(self, query: str, *bindings: Any) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in self.storage.sql(query, *bindings).all()]

    async def put(self, key: str, value: Any = 1) -> str:
        self.storage.put(key, value)
        return "put"

    async def take(self, key: str) -> Any:
        return self.storage.get(key)

    async def drop(self, key: str) -> None:
        self.storage.delete(key)

    async def toggle(self) -> None:
        self.storage.put("a", 1)
        self.storage.delete("a")
        self.storage.put("a", 2)

    async def charge_and_sync(self) -> None:
        self.ledger.append("charge")
        await self.storage.sync()

    async def charge_and_wait(self) -> None:
        self.ledger.append("charge")
        await asyncio.sleep(0)

    async def charge_sync_and_wait(self) -> None:
        await self.charge_and_sync()
        self.env.begun.set()
        await self.env.go_on.wait()

    async def break_block(self) -> None:
        async with self.block():
            raise KeyError("mine")

    async def hold(self) -> None:
        async with self.block():
            self.env.begun.set()
            await self.env.go_on.wait()

    async def leave_a_sync(self) -> None:
        async def write() -> None:
            self.storage.put("background", 1)
            await self.storage.sync()
            self.env.synced = True

        self.env.task = asyncio.ensure_future(write())

    async def leave_a_write(self) -> None:
        async def write() -> None:
            self.storage.put("background", 1)

        self.env.task = asyncio.ensure_future(write())
        self.storage.sql("INSERT INTO t VALUES(1)")

    async def fail(self) -> None:
        raise KeyError("mine")

    async def write_and_fail(self) -> None:
        self.storage.put("failed", 1)
        raise KeyError("mine")

    async def explode(self) -> None:
        raise Boom

    async def wait_and_explode(self) -> None:
        await asyncio.sleep(0)
        raise Boom

    async def cancel_itself(self) -> None:
        raise asyncio.CancelledError


class Stillborn(z0.Actor):
    """Cannot be made."""

    def __init__(self) -> None:
        next(iter(()))

    async def ping(self) -> None:
        raise AssertionError("never opened")


class StillbornWithStart(Stillborn):
    """Cannot be made, and would have something to start."""

    async def start(self) -> None:
        await asyncio.sleep(0)


class Tabled(z0.Actor):
    """Makes its table whenever it opens."""

    def __init__(self) -> None:
        self.storage.sql("CREATE TABLE IF NOT EXISTS t(x)")

    async def put(self, value: int) -> None:
        self.storage.put("a", value)

    async def take(self) -> Any:
        return self.storage.get("a")


class Big:
    """Memory of an actor."""


class Holder(z0.Actor):
    """Holds memory, and tells the world of it."""

    env: World

    def __init__(self) -> None:
        self.big = Big()

    async def show(self) -> None:
        self.env.seen = weakref.ref(self.big)


class World:
    """What tests and actors tell each other."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()
        self.synced = False
        self.task: asyncio.Future[None]
        self.seen: weakref.ref[Big]


@pytest.fixture
async def world() -> World:
    return World()


@pytest.fixture
def disk() -> Iterator[SimulatedDisk]:
    with simulated_disk() as disk:
        yield disk


@pytest.fixture
async def runtime(disk: SimulatedDisk, world: World) -> AsyncIterator[z0.Runtime]:
    async with temporary_runtime(memory=True, clock=VirtualClock(), vfs=disk.name, env=world) as runtime:
        yield runtime


async def outcome(call: Any) -> Any:
    """What a call returned or raised; it may not hang."""
    task = asyncio.ensure_future(call)
    done, _ = await asyncio.wait([task], timeout=5)
    assert done, "the caller hangs"
    assert not task.cancelled()
    return task.exception() or task.result()


async def test_sql_of_a_user_cannot_ride_a_cached_statement_of_ours(runtime: z0.Runtime) -> None:
    shop = runtime.get(Shop, "x")
    await shop.sql("SELECT 1")
    await shop.append("ok")
    await shop.put("a")
    put = "INSERT INTO z0_kv VALUES(?, ?) ON CONFLICT(key) DO UPDATE SET value = excluded.value"
    with pytest.raises(z0.QueryError, match="read-only"):
        await shop.sql(f"SELECT 1;{put}", "evil", b"\x01")
    assert await shop.sql("SELECT key FROM z0_kv") == [("a",)]
    await shop.verify()


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK", "END", "SAVEPOINT s"])
async def test_sql_of_a_user_cannot_end_the_transaction_of_its_neighbour(runtime: z0.Runtime, end: str) -> None:
    shop = runtime.get(Shop, "x")
    await shop.sql("CREATE TABLE t(x)")
    await shop.toggle()
    neighbour, refused = await asyncio.gather(
        shop.toggle(), shop.sql(f"INSERT INTO t VALUES(1);{end}"), return_exceptions=True
    )
    assert neighbour is None
    assert isinstance(refused, z0.QueryError)
    assert await shop.sql("SELECT * FROM t") == []


@pytest.mark.parametrize("method", ["charge_and_sync", "charge_and_wait"])
async def test_a_commit_that_failed_is_not_said_to_have_left_nothing(
    runtime: z0.Runtime, disk: SimulatedDisk, method: str
) -> None:
    shop = runtime.get(Shop, "x")
    await shop.append("x")
    disk.fail("sync")
    told = await outcome(getattr(shop, method)())
    disk.heal()
    charges = await shop.count_facts(type="charge")
    assert isinstance(told, z0.CommitUnknown if charges else z0.ActorReset)


async def test_a_reset_after_sync_does_not_deny_what_was_synced(runtime: z0.Runtime, world: World) -> None:
    shop = runtime.get(Shop, "x")
    charge = asyncio.ensure_future(shop.charge_sync_and_wait())
    await world.begun.wait()
    with pytest.raises(KeyError):
        await shop.break_block()
    with pytest.raises(z0.CommitUnknown, match="block"):
        await charge
    assert await shop.count_facts(type="charge") == 1


async def test_what_a_task_synced_outlives_the_failure_of_a_message(runtime: z0.Runtime, world: World) -> None:
    shop = runtime.get(Shop, "x")
    await shop.put("open")
    await shop.leave_a_sync()
    told = await asyncio.gather(shop.fail(), shop.write_and_fail(), return_exceptions=True)
    assert [type(each) for each in told] == [KeyError, KeyError]
    await outcome(world.task)
    assert world.synced
    assert (await shop.take("background"), await shop.take("failed")) == (1, None)


@pytest.mark.parametrize("method", ["put", "write_and_fail"])
async def test_a_message_after_a_write_of_a_task_is_answered_for_itself(
    runtime: z0.Runtime, world: World, method: str
) -> None:
    shop = runtime.get(Shop, "x")
    await shop.sql("CREATE TABLE t(x)")
    await shop.leave_a_write()
    if method == "put":
        assert await shop.put("z") == "put"
    else:
        with pytest.raises(KeyError, match="mine"):
            await shop.write_and_fail()
    await world.task
    assert (await shop.take("background"), await shop.take("failed")) == (1, None)
    assert await shop.sql("SELECT * FROM t") == [(1,)]


async def test_a_handler_that_raises_a_base_exception_answers_and_the_actor_goes_on(runtime: z0.Runtime) -> None:
    shop = runtime.get(Shop, "x")
    await shop.put("a")
    for method in (shop.explode, shop.wait_and_explode, shop.cancel_itself):
        assert isinstance(await outcome(method()), Boom | RuntimeError)
        assert await outcome(shop.put("a")) == "put"


async def test_a_projection_that_ends_an_iteration_fails_one_caller_only(runtime: z0.Runtime, world: World) -> None:
    shop = runtime.get(Shop, "x")
    await shop.append("good")
    hold = asyncio.ensure_future(shop.hold())
    await world.begun.wait()
    waiting = [asyncio.ensure_future(shop.append(type)) for type in ("good", "stop", "good")]
    await asyncio.sleep(0)
    world.go_on.set()
    await hold
    first, second, third = [await outcome(each) for each in waiting]
    assert (first.seq, third.seq) == (2, 3)
    assert isinstance(second, RuntimeError)
    assert (await outcome(shop.append("good"))).seq == 4


async def test_a_projection_that_explodes_leaves_no_trace_in_those_before_it(runtime: z0.Runtime) -> None:
    shop = runtime.get(Shop, "x")
    await shop.append("good")
    with suppress(Boom, RuntimeError):
        await shop.append("boom")
    count: Any = await shop.projection("count")
    assert (await shop.count_facts(), count.n) == (1, 1)


async def test_a_constraint_that_fails_at_commit_fails_its_own_message_only(runtime: z0.Runtime) -> None:
    shop = runtime.get(Shop, "x")
    await shop.put("k")
    await shop.sql("CREATE TABLE c(k TEXT REFERENCES z0_kv(key) DEFERRABLE INITIALLY DEFERRED)")
    await shop.sql("INSERT INTO c VALUES('k')")
    fine, refused = await asyncio.gather(shop.put("other"), shop.drop("k"), return_exceptions=True)
    assert fine == "put"
    assert isinstance(refused, z0.QueryError)
    assert "FOREIGN KEY" in str(refused)
    assert (await shop.take("k"), await shop.take("other")) == (1, 1)


@pytest.mark.parametrize(
    "evil",
    [
        "DELETE FROM facts",
        "DELETE FROM z0_replies",
        "UPDATE z0_meta SET value = 'other' WHERE key = 'name'",
        "INSERT INTO facts(seq, type) VALUES(2, 'forged')",
    ],
)
async def test_a_trigger_behind_a_statement_of_ours_cannot_write_our_tables(runtime: z0.Runtime, evil: str) -> None:
    shop = runtime.get(Shop, "x")
    await shop.append("one")
    await shop.put("k")
    with suppress(z0.QueryError):
        await shop.sql("CREATE TABLE c(k TEXT REFERENCES z0_kv(key) ON DELETE CASCADE)")
        await shop.sql(f"CREATE TRIGGER t AFTER DELETE ON c BEGIN {evil}; END")
        await shop.sql("INSERT INTO c VALUES('k')")
        await shop.drop("k")
    meta = await shop.sql("SELECT * FROM z0_meta")
    await runtime.evict(Shop, "x")
    assert await shop.sql("SELECT * FROM z0_meta") == meta
    assert await shop.sql("SELECT seq, type FROM facts") == [(1, "one")]


async def test_an_actor_whose_first_write_found_the_disk_full_opens_when_there_is_space(world: World) -> None:
    async with temporary_runtime(clock=VirtualClock(), env=world) as runtime:
        await runtime.get(Shop, "x").put("a")
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (16384, hard))  # as on a full disk, writes come out short
        try:
            told = await outcome(runtime.get(Shop, "y").put("a"))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert isinstance(told, z0.ActorReset)
        assert await runtime.get(Shop, "y").put("a") == "put"
        assert await runtime.get(Shop, "y").take("a") == 1


async def test_a_message_too_large_for_the_mailbox_turns_away_no_other() -> None:
    limits = z0.Limits(mailbox_bytes=10_000)
    async with temporary_runtime(memory=True, clock=VirtualClock(), limits=limits) as runtime:
        shop = runtime.get(Shop, "x")
        await shop.put("a")
        values = (1, "x" * 20_000, 2, 3)
        told = await asyncio.gather(*(shop.put("a", value) for value in values), return_exceptions=True)
    assert [each if each == "put" else type(each) for each in told] == ["put", z0.Overloaded, "put", "put"]


async def test_a_directory_is_free_when_closed_though_a_forked_child_lives(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    async with z0.Runtime(tmp_path / "data") as runtime:
        await runtime.get(Shop, "x").put("a")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads is what is tested
            child = os.fork()
        if child == 0:
            try:
                os.close(writing)
                os.read(reading, 1)
            finally:
                os._exit(0)
    try:
        async with z0.Runtime(tmp_path / "data") as runtime:
            assert await runtime.get(Shop, "x").take("a") == 1
    finally:
        os.close(writing)
        os.close(reading)
        await asyncio.to_thread(os.waitpid, child, 0)


@pytest.mark.parametrize("kind", [Stillborn, StillbornWithStart])
async def test_an_actor_that_cannot_be_made_answers_every_caller(runtime: z0.Runtime, kind: type[Stillborn]) -> None:
    for _ in range(2):
        assert isinstance(await outcome(runtime.get(kind, "x").ping()), RuntimeError)


async def test_after_a_failed_commit_the_actor_opens_anew_and_answers(runtime: z0.Runtime, disk: SimulatedDisk) -> None:
    tabled = runtime.get(Tabled, "x")
    await tabled.put(1)
    disk.fail("sync")
    with pytest.raises(z0.CommitUnknown):
        await tabled.put(2)
    disk.heal()
    assert {await tabled.take() for _ in range(5)} <= {1, 2}


async def test_sync_reaches_the_disk_though_a_reader_holds_the_file(disk: SimulatedDisk, world: World) -> None:
    options: dict[str, Any] = {"clock": VirtualClock(), "vfs": disk.name, "durability": "relaxed", "env": world}
    async with temporary_runtime(memory=True, **options) as runtime:
        shop = runtime.get(Shop, "x")
        await shop.put("a")
        reader = apsw.Connection(str(runtime.path / file_path("default", "Shop", "x")), apsw.SQLITE_OPEN_READONLY)
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM z0_kv").fetchall()
        await shop.put("a", 2)
        await shop.charge_and_sync()
        assert not {file for file in disk.volatile if file.endswith("x.sqlite-wal")}
        reader.close()


async def test_a_stub_does_not_keep_the_memory_of_an_evicted_actor(runtime: z0.Runtime, world: World) -> None:
    holder = runtime.get(Holder, "x")
    await holder.show()
    assert await runtime.evict(Holder, "x")
    await asyncio.sleep(0)
    gc.collect()
    assert world.seen() is None
    await holder.show()


async def test_actors_are_listed_although_the_catalogue_cannot_be_written_now(monkeypatch: pytest.MonkeyPatch) -> None:
    async with temporary_runtime(memory=True, env=World(), clock=VirtualClock()) as runtime:
        await runtime.get(Shop, "a").put("k")

        def broken(self: object) -> None:
            raise DatabaseFailure("disk I/O error")

        monkeypatch.setattr(runtime.node.catalog._database.__class__, "begin", broken)
        await runtime.evict(Shop, "a")
        assert [info.name for info in await runtime.list(Shop)] == ["a"]
        assert await runtime.versions(Shop) == {0: 1}
        monkeypatch.undo()


class Climber(z0.Actor):
    """Has a message with a commit behind it that waits for another one."""

    env: tuple[asyncio.Event, asyncio.Event]

    async def climb(self) -> None:
        self.storage.put("first", 1)
        await self.storage.sync()
        self.env[0].set()
        await self.env[1].wait()

    async def pull(self) -> None:
        self.storage.put("second", 1)
        self.env[1].set()


class Busy(z0.Actor):
    async def write(self) -> None:
        self.storage.put("k", 1)


async def test_a_crash_closes_the_file_of_an_actor_that_was_about_to_leave_for_its_successor() -> None:
    async with temporary_runtime(memory=True, env=asyncio.Event(), clock=VirtualClock()) as runtime:
        busy = runtime.get(Busy, "a")
        await busy.write()
        (leaving,) = runtime.node.hosts.values()
        runtime.node.evict(leaving, "asked")
        runtime.node.host(leaving.kind, leaving.address)  # in the very same moment
        await crash(runtime)
        assert leaving.closed.done()
        assert runtime.node.room.taken == 0


class Partner(z0.Actor):
    async def pay_in_two(self) -> None:
        self.storage.put("paid", 1)
        await self.get(Climber, "a").pull()

    async def pass_on(self) -> None:
        await self.get(Climber, "a").pull()


async def test_the_reset_of_another_actor_does_not_deny_what_a_message_has_committed() -> None:
    async with temporary_runtime(memory=True, env=(asyncio.Event(), asyncio.Event()), clock=VirtualClock()) as runtime:
        climber, partner = runtime.get(Climber, "a"), runtime.get(Partner, "b")
        await climber.pull()
        with fault(runtime, "storage", actor=climber), pytest.raises(z0.CommitUnknown, match="Climber/a was reset"):
            await partner.pay_in_two()
        with fault(runtime, "storage", actor=climber), pytest.raises(z0.ActorReset):
            await partner.pass_on()


async def test_a_message_that_was_committed_in_part_is_never_told_that_nothing_was() -> None:
    stands, go = asyncio.Event(), asyncio.Event()
    async with temporary_runtime(memory=True, env=(stands, go), clock=VirtualClock()) as runtime:
        climber = runtime.get(Climber, "a")
        climbing = asyncio.create_task(climber.climb())
        await stands.wait()
        with fault(runtime, "storage"), pytest.raises(z0.ActorReset):
            await asyncio.create_task(climber.pull())
        with pytest.raises(z0.CommitUnknown):
            await climbing

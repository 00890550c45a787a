"""The corners of a commit's way: each statement that may fail, each moment at which an actor may end."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from typing import Any

import apsw
import pytest

import z0
from tests.scripted import Room, World, quiet
from z0.actors.alone import STREAK_MAX
from z0.actors.gates import pass_once
from z0.actors.host import Host
from z0.actors.names import file_path
from z0.actors.threads import Threads
from z0.actors.wal import check_version
from z0.testing import SimulatedDisk, VirtualClock, simulated_disk, temporary_runtime

Script = Callable[[Room], Any]


class Oops(Exception):
    pass


class Picky(z0.Projection):
    """Refuses one type of fact."""

    def apply(self, fact: z0.Fact) -> None:
        if fact.type == "refused":
            raise Oops


class Book(z0.Entity):
    accepts = {"*"}
    picky: Picky

    async def append_what_is_taken(self, *types: str) -> None:
        for type in types:
            try:
                self.ledger.append(type)
            except Oops:
                continue


class Clock(Room):
    """With alarms."""

    async def alarm(self, info: z0.AlarmInfo) -> None:
        self.env.log.append(info.name)


@pytest.fixture
async def world() -> World:
    return World()


@pytest.fixture
async def runtime(clock: VirtualClock, world: World) -> AsyncIterator[z0.Runtime]:
    limits = z0.Limits(inline_sync_seconds=10)  # on the loop, however slow the machine
    async with temporary_runtime(memory=True, clock=clock, env=world, limits=limits) as runtime:
        yield runtime


@pytest.fixture
def disk() -> Iterator[SimulatedDisk]:
    with simulated_disk() as disk:
        yield disk


@pytest.fixture
async def relaxed(disk: SimulatedDisk, clock: VirtualClock, world: World) -> AsyncIterator[z0.Runtime]:
    options = {"clock": clock, "vfs": disk.name, "durability": "relaxed", "env": world}
    async with temporary_runtime(memory=True, **options) as runtime:
        yield runtime


def host_of(runtime: z0.Runtime, name: str = "a") -> Host:
    (host,) = (host for host in runtime.node.hosts.values() if host.address.name == name)
    return host


def fail_next(host: Host, beginning: str) -> None:
    """Have SQLite fail, once, at the next statement that begins so."""
    database = host.database
    run = database.execute

    def execute(sql: str, *bindings: Any) -> apsw.Cursor:
        if sql.startswith(beginning):
            database.execute = run
            raise apsw.IOError("disk I/O error")
        return run(sql, *bindings)

    database.execute = execute  # type: ignore[assignment]


def put(room: Room) -> None:
    room.storage.put("k", 1)


def put_unconfirmed(room: Room) -> None:
    room.storage.put("k", 1, allow_unconfirmed=True)


def put_two(room: Room) -> None:
    room.storage.put({"k": 1, "l": 1})


def insert(room: Room) -> None:
    room.storage.sql("INSERT INTO t VALUES(1)")


def put_and_raise(room: Room) -> None:
    put(room)
    raise Oops


def put_two_and_raise(room: Room) -> None:
    with room.storage.transaction():
        put_and_raise(room)


# A statement that fails


async def outcomes(runtime: z0.Runtime, world: World, beginning: str, *scripts: Script) -> list[Any]:
    """What becomes of messages of one turn in which a statement fails; nothing of it may be kept."""
    room = runtime.get(Room, "a")
    world.scripts["create"] = lambda room: room.storage.sql("CREATE TABLE t(x)").all()
    world.scripts["count"] = lambda room: room.storage.sql("SELECT count(*) FROM t").one()
    await room.at_once("create")
    await room.put("before")
    fail_next(host_of(runtime), beginning)
    names = [world.script(script) for script in scripts]
    told = await asyncio.gather(*map(room.at_once, names), return_exceptions=True)
    assert await room.read() == {"before": 1}
    assert await room.at_once("count") == (0,)
    await room.put("after")
    assert await room.read() == {"after": 1, "before": 1}
    return told


@pytest.mark.parametrize(
    ("beginning", "script"),
    [
        ("BEGIN", put),
        ("INSERT INTO z0_kv", put),
        ("INSERT INTO z0_kv", put_unconfirmed),
        ("SAVEPOINT z0_transaction", put_two),
        ("RELEASE z0_transaction", put_two),
        ("ROLLBACK TO z0_transaction", put_two_and_raise),
        ("ROLLBACK", put_and_raise),
    ],
)
async def test_a_statement_that_fails_resets_the_actor_and_keeps_nothing(
    runtime: z0.Runtime, world: World, beginning: str, script: Script
) -> None:
    assert [type(outcome) for outcome in await outcomes(runtime, world, beginning, script)] == [z0.ActorReset]


@pytest.mark.parametrize(
    ("beginning", "script"),
    [
        ("SAVEPOINT z0_segment", put),
        ("RELEASE z0_segment", put),
        ("ROLLBACK TO z0_segment", put_and_raise),
    ],
)
async def test_a_savepoint_that_fails_takes_the_whole_turn_with_it(
    runtime: z0.Runtime, world: World, beginning: str, script: Script
) -> None:
    told = await outcomes(runtime, world, beginning, insert, script)
    assert [type(outcome) for outcome in told] == [z0.ActorReset] * 2


async def test_others_of_a_turn_whose_failed_message_cannot_be_taken_back_are_told(
    runtime: z0.Runtime, world: World
) -> None:
    told = await outcomes(runtime, world, "ROLLBACK", put, put_and_raise)
    assert [type(outcome) for outcome in told] == [z0.ActorReset] * 2


async def test_a_refused_fact_that_cannot_be_taken_back_resets_the_ledger(runtime: z0.Runtime) -> None:
    book = runtime.get(Book, "a")
    await book.append("x")
    await book.append_what_is_taken("x", "refused", "x")
    assert await book.count_facts() == 3
    fail_next(host_of(runtime), "ROLLBACK")
    with pytest.raises(z0.ActorReset):
        await book.append_what_is_taken("x", "refused")
    assert (await book.verify()).facts == 3
    assert (await book.append("x")).seq == 4


async def test_a_fact_that_is_committed_by_itself_is_unknown_when_its_statement_fails(runtime: z0.Runtime) -> None:
    book = runtime.get(Book, "a")
    for _ in range(3):  # a caller that is alone commits at once from the second turn on
        await book.append("x")
    fail_next(host_of(runtime), "INSERT INTO facts")
    with pytest.raises(z0.CommitUnknown):
        await book.append("x")
    assert (await book.verify()).facts == 3
    assert (await book.append("x")).seq == 4


async def test_a_fact_that_would_be_committed_by_itself_is_not_when_a_projection_refuses_it(
    runtime: z0.Runtime,
) -> None:
    book = runtime.get(Book, "a")
    for _ in range(3):
        await book.append("x")
    alone = runtime.node.metrics.alone.count
    assert alone  # so the next one would be as well
    with pytest.raises(Oops):
        await book.append("refused")
    assert runtime.node.metrics.alone.count == alone
    assert (await book.verify()).facts == 3
    assert (await book.append("x")).seq == 4


async def test_a_key_that_comes_again_in_a_commit_by_itself_gets_the_first_fact(runtime: z0.Runtime) -> None:
    book = runtime.get(Book, "a")
    first = await book.append("x", idempotency_key="k")
    for _ in range(3 * STREAK_MAX):  # one in so many is committed among others, and may come at any place
        await book.append("x")
        assert await book.append("x", idempotency_key="k") == first
    assert runtime.node.metrics.alone.count
    assert (await book.verify()).facts == 1 + 3 * STREAK_MAX


async def test_pages_are_counted_after_commits_of_facts_by_themselves_too(runtime: z0.Runtime) -> None:
    book = runtime.get(Book, "a")
    for _ in range(100):
        await book.append("x")
        assert host_of(runtime).database.unmeasured < 16  # else they would have been counted
    assert runtime.node.metrics.alone.count > 50


async def test_a_key_that_utf8_cannot_hold_is_named_before_the_head_is_looked_at(runtime: z0.Runtime) -> None:
    book = runtime.get(Book, "a")
    with pytest.raises(z0.InvalidFact, match="idempotency_key"):
        await book.append("x", idempotency_key="\ud800", expected_seq=7)
    assert await book.count_facts() == 0


# Moments at which an actor ends


async def test_what_is_behind_a_message_that_ends_the_program_is_answered(runtime: z0.Runtime, world: World) -> None:
    def leave(room: Room) -> None:
        put(room)
        raise SystemExit

    room = runtime.get(Room, "a")
    await room.put("before")
    host = host_of(runtime)
    host.gate.parked, host.ready = True, False  # as while a thread has the file
    leaving = asyncio.create_task(room.at_once(world.script(leave)))
    reading = asyncio.create_task(room.read())
    await quiet()
    host.gate.parked = False
    with pytest.raises(SystemExit):
        host.delivery.pump()
    assert await reading == {"before": 1}
    with pytest.raises(RuntimeError, match="SystemExit"):
        await leaving


async def test_a_reset_spares_whoever_has_gone_before_the_message_began(runtime: z0.Runtime, world: World) -> None:
    room = runtime.get(Room, "a")
    await room.put("before")
    world.scripts["never"] = lambda room: pytest.fail("its caller has gone")
    calling = asyncio.create_task(room.slowly("never"))
    await pass_once()  # the message has a task, which has not begun
    calling.cancel()
    host_of(runtime).reset("for this test")
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert await room.read() == {"before": 1}


async def test_a_handler_is_closed_with_the_task_that_runs_it(runtime: z0.Runtime, world: World) -> None:
    async def wait(room: Room) -> None:
        try:
            await world.go.wait()
        finally:
            world.log.append("closed")

    room = runtime.get(Room, "a")
    calling = asyncio.create_task(room.slowly(world.script(wait)))
    while not world.go._waiters:
        await pass_once()
    (task,) = host_of(runtime).delivery.tasks.values()
    task.get_coro().close()
    assert world.log == ["closed"]
    with pytest.raises(RuntimeError, match="GeneratorExit"):
        await calling
    task.cancel()
    with pytest.raises(RuntimeError, match="cannot reuse"):
        await task
    await room.put("after")


async def test_what_an_actor_left_behind_may_still_send_messages(runtime: z0.Runtime, world: World) -> None:
    tasks: list[asyncio.Task[None]] = []

    async def later(room: Room) -> None:
        await world.go.wait()
        await room.room("b").put("from a")

    def leave(room: Room) -> None:
        tasks.append(asyncio.create_task(later(room)))

    await runtime.get(Room, "a").at_once(world.script(leave))
    assert await runtime.evict(Room, "a")
    world.go.set()
    await tasks[0]
    assert await runtime.get(Room, "b").read() == {"from a": 1}


async def test_an_alarm_that_was_set_as_the_actor_was_reset_never_rings(
    runtime: z0.Runtime, world: World, clock: VirtualClock
) -> None:
    world.scripts["set"] = lambda room: room.storage.set_alarm("1 second")
    actor = runtime.get(Clock, "a")
    await actor.put("before")
    calling = asyncio.create_task(actor.at_once("set"))
    await pass_once()
    host_of(runtime).reset("for this test")  # while the catalogue notes that there may be an alarm
    with pytest.raises(z0.ActorReset):
        await calling
    assert await actor.read() == {"before": 1}
    await clock.advance("1 minute")
    assert world.log == []


async def test_an_actor_that_cannot_learn_when_it_is_due_is_reset_and_rings_all_the_same(
    runtime: z0.Runtime, world: World, clock: VirtualClock
) -> None:
    world.scripts["set"] = lambda room: room.storage.set_alarm("1 second", "one")
    actor = runtime.get(Clock, "a")
    await actor.put("before")
    fail_next(host_of(runtime), "SELECT min(due)")
    await actor.at_once("set")  # the turn is durable: its caller is told so
    await clock.advance("1 minute")
    assert world.log == ["one"]


# Syncs of relaxed durability


def wait_for_sync(world: World, tasks: list[asyncio.Task[None]]) -> Script:
    """Leave a task of the actor's own, which no reset cancels, waiting until everything is on the device."""

    def leave(room: Room) -> None:
        tasks.append(asyncio.create_task(room.storage.sync()))

    return leave


async def test_a_task_that_waits_for_a_sync_that_fails_is_told(
    relaxed: z0.Runtime, world: World, disk: SimulatedDisk, clock: VirtualClock
) -> None:
    tasks: list[asyncio.Task[None]] = []
    room = relaxed.get(Room, "a")
    await room.put("k")
    disk.fail("sync")
    await room.at_once(world.script(wait_for_sync(world, tasks)))
    await clock.settle()
    with pytest.raises(z0.ActorReset):
        await tasks[0]
    assert await room.read() == {"k": 1}


async def test_a_task_that_waits_for_a_sync_behind_a_checkpoint_that_fails_is_told(
    relaxed: z0.Runtime, world: World, disk: SimulatedDisk, clock: VirtualClock
) -> None:
    room = relaxed.get(Room, "a")
    await room.put("k")
    host = host_of(relaxed)
    disk.fail("sync")
    host.parking.checkpoint()
    syncing = asyncio.create_task(host.sync())
    await clock.settle()
    with pytest.raises(z0.ActorReset):
        await syncing
    assert await room.read() == {"k": 1}


async def test_a_sync_that_falls_due_is_dropped_when_what_is_open_cannot_be_committed(
    relaxed: z0.Runtime, disk: SimulatedDisk
) -> None:
    room = relaxed.get(Room, "a")
    await room.put("k")
    host = host_of(relaxed)
    host.actor.storage.put("lost", 1)  # by a task of the actor's own
    disk.fail("write")
    host.parking._sync_due()
    assert host.dead
    assert host.parking.thread is None
    assert await room.read() == {"k": 1}


# Replies that are kept


async def test_a_kept_reply_whose_time_was_damaged_is_refused_by_name(runtime: z0.Runtime) -> None:
    class Shop(z0.Actor):
        @z0.idempotent("key")
        async def buy(self, *, key: str) -> int:
            return 1

    shop = runtime.get(Shop, "a")
    assert await shop.buy(key="one") == 1
    assert await runtime.evict(Shop, "a")
    with closing(sqlite3.connect(runtime.path / file_path("default", "Shop", "a"))) as file, file:
        file.execute("UPDATE z0_replies SET created = 'yesterday'")
    with pytest.raises(z0.InvalidValue, match="the reply of buy is damaged"):
        await shop.buy(key="one")
    assert await shop.buy(key="two") == 1


async def test_a_kept_reply_of_a_type_that_cannot_be_found_comes_back_as_plain_data(runtime: z0.Runtime) -> None:
    class Shop(z0.Actor):
        @z0.idempotent("key")
        async def buy(self, *, key: str) -> Nowhere:  # type: ignore[name-defined]  # noqa: F821
            return (1, 2)

    shop = runtime.get(Shop, "a")
    first = await shop.buy(key="one")
    assert list(first) == list(await shop.buy(key="one")) == [1, 2]


# Threads, and the WAL


def test_a_thread_whose_loop_was_closed_meanwhile_ends_quietly() -> None:
    loop, go, told = asyncio.new_event_loop(), threading.Event(), list[Any]()
    threads = Threads(loop, 1)
    threads.run(go.wait, lambda result, error: told.append(result))
    loop.close()
    go.set()
    threads.close()  # joins it; an error of its own would be a warning, which is an error here
    assert told == []
    assert not any(thread.is_alive() for thread in threads._threads)


async def test_one_outcome_that_cannot_be_handed_back_does_not_keep_the_next_ones(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(_result: Any, _error: BaseException | None) -> None:
        raise Oops

    threads = Threads(asyncio.get_running_loop(), 1)
    threads.run(int, refuse)
    assert await threads.call(lambda: 5) == 5
    threads.close()
    assert threads.in_flight == 0
    assert "could not be handed back" in caplog.text


async def test_a_checkpoint_that_a_reader_is_in_the_way_of_is_made_up_for(clock: VirtualClock, world: World) -> None:
    limits = z0.Limits(checkpoint_pages=8, checkpoint_pages_max=8)
    async with temporary_runtime(memory=True, clock=clock, env=world, limits=limits) as runtime:
        room = runtime.get(Room, "a")
        path = runtime.path / file_path("default", "Room", "a")
        wal = path.with_name(f"{path.name}-wal")

        async def write(rows: int) -> int:
            for number in range(rows):
                await room.put(f"k{number % 50}", "x" * 4_000)
                await clock.settle()
            return wal.stat().st_size

        await write(1)
        with closing(apsw.Connection(str(path), apsw.SQLITE_OPEN_READONLY)) as reader:
            reader.execute("BEGIN")
            assert reader.execute("SELECT count(*) FROM z0_kv").get == 1
            assert await write(100) > 500_000
            assert reader.execute("SELECT count(*) FROM z0_kv").get == 1
        assert await write(500) < 500_000  # tried again, and truncated
        assert len(await room.read()) == 50


@pytest.mark.parametrize(("version", "sound"), [("3.51.2", False), ("3.7.17", False), ("3.51.3", True), ("3.54", True)])
def test_a_sqlite_that_can_lose_commits_is_refused(version: str, sound: bool) -> None:
    if sound:
        check_version(version)
    else:
        with pytest.raises(RuntimeError, match=f"SQLite {version}"):
            check_version(version)

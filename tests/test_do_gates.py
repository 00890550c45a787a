"""As Durable Objects: gates, durability and faults. What other tests prove is named in docs/durable_objects.md."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

import z0
from tests.scripted import Room, World
from z0.testing import Point, VirtualClock, fault, temporary_runtime


class Clocked(Room):
    async def alarm(self, info: z0.AlarmInfo) -> None:
        raise AssertionError("not in these tests")


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
async def runtime(world: World, clock: VirtualClock) -> AsyncIterator[z0.Runtime]:
    async with temporary_runtime(memory=True, env=world, clock=clock) as runtime:
        yield runtime


@pytest.fixture
async def room(runtime: z0.Runtime) -> Clocked:
    room = runtime.get(Clocked, "a")
    await room.put("open", 0)
    return room


Start = Callable[[Callable[[Any], Any]], asyncio.Task[Any]]


@pytest.fixture
def start(world: World, room: Clocked) -> Start:
    """Send a script, under its own name, to the room; the task that waits for it."""

    def start(script: Callable[[Any], Any]) -> asyncio.Task[Any]:
        name = f"{script.__name__}{len(world.scripts)}"
        world.scripts[name] = script
        send = room.slowly if asyncio.iscoroutinefunction(script) else room.at_once
        return asyncio.create_task(send(name))

    return start


# Input gate


async def test_a_nested_block_may_outlive_the_one_around_it(
    world: World, room: Clocked, start: Start, clock: VirtualClock
) -> None:
    async def child(room: Room) -> None:
        async with room.block():
            world.log.append("child in")
            await world.go.wait()
            world.log.append("child out")

    async def parent(room: Room) -> str:
        async with room.block():
            task = asyncio.create_task(child(room))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        world.log.append("parent out")
        await task
        return "done"

    held = start(parent)
    await clock.settle()
    other = asyncio.create_task(room.put("other"))
    await clock.settle()
    assert world.log == ["child in", "parent out"]
    assert not other.done(), "the child still has the gate"
    world.go.set()
    assert await held == "done"
    await other
    assert await room.read() == {"open": 0, "other": 1}


async def test_an_exception_through_64_nested_blocks_resets_the_actor_once(
    runtime: z0.Runtime, room: Clocked, start: Start, clock: VirtualClock
) -> None:
    async def handler(room: Room) -> None:
        async with AsyncExitStack() as stack:
            for _ in range(64):
                await stack.enter_async_context(room.block())
            room.storage.put("inside", 1)
            await asyncio.sleep(0)
            raise ValueError("from the bottom")

    with pytest.raises(ValueError, match="from the bottom"):
        await start(handler)
    assert await room.read() == {"open": 0, "inside": 1}, "an earlier segment stands, and the actor is back"
    assert b'z0_resets_total{namespace="Clocked"} 1.0' in runtime.metrics_text()


# Output gate


async def test_a_reply_waits_for_earlier_writes_and_not_for_later_ones(
    runtime: z0.Runtime, room: Clocked, clock: VirtualClock
) -> None:
    with fault(runtime, "commit-held", times=None) as held:
        first = asyncio.create_task(room.put("first"))
        await clock.settle()
        second = asyncio.create_task(room.put("second"))
        await clock.settle()
        assert (first.done(), second.done()) == (False, False)
        held.release()
        await clock.settle()
        assert (first.done(), second.done()) == (True, False)
    await second


async def test_a_segment_sees_its_own_writes_before_they_are_durable(
    runtime: z0.Runtime, world: World, start: Start, clock: VirtualClock
) -> None:
    def write_and_read(room: Room) -> None:
        room.storage.put("new", 1)
        world.log.append(room.storage.get("new"))

    with fault(runtime, "commit-held"):
        sent = start(write_and_read)
        await clock.settle()
        assert world.log == [1]
        assert not sent.done()
    await sent


async def test_a_commit_may_take_longer_than_30_seconds_and_a_caller_need_not_wait_for_it(
    runtime: z0.Runtime, room: Clocked, clock: VirtualClock
) -> None:
    async def put_in_time() -> None:
        with runtime.deadline("31 seconds"):
            await room.put_slowly("in time")

    with fault(runtime, "commit-held"):
        patient = asyncio.create_task(room.put("k"))
        hurried = asyncio.create_task(put_in_time())
        await clock.settle()
        await clock.advance("60 seconds")
        assert not patient.done(), "nothing leaves, and nothing was reset"
        with pytest.raises(z0.DeadlineExceeded):
            await hurried
    await patient
    assert (await room.read())["k"] == 1


@pytest.mark.parametrize("what", ["set", "replace", "delete"])
@pytest.mark.parametrize("evicted", [False, True])
async def test_an_unconfirmed_change_of_an_alarm_holds_no_reply_back(
    runtime: z0.Runtime, start: Start, clock: VirtualClock, what: str, evicted: bool
) -> None:
    def arm(room: Room) -> None:
        room.storage.set_alarm("2 hours")

    def change(room: Room) -> None:
        if what == "delete":
            room.storage.delete_alarm(allow_unconfirmed=True)
        else:
            room.storage.set_alarm("1 hour", allow_unconfirmed=True)

    def when(room: Room) -> Any:
        return room.storage.get_alarm()

    if what != "set":
        await start(arm)
    if evicted:
        assert await runtime.evict(Clocked, "a")
    with fault(runtime, "commit-held") as held:
        sent = start(change)
        await clock.settle()
        assert held.hits == 1, "its commit is under way"
        assert sent.done()
    assert (await start(when) is None) == (what == "delete")


async def test_an_unconfirmed_alarm_that_could_not_be_committed_resets_the_actor(
    runtime: z0.Runtime, world: World, start: Start, clock: VirtualClock
) -> None:
    def arm(room: Room) -> int:
        room.storage.set_alarm("1 hour", allow_unconfirmed=True)
        return id(room)

    with fault(runtime, "storage") as struck:
        await start(arm)
        await clock.settle()
    assert struck.hits == 1
    assert await start(lambda room: room.storage.get_alarm()) is None
    await clock.advance("2 hours")  # the alarm would fail the test by running


# sync()


async def test_a_sync_waits_for_earlier_writes_only(
    runtime: z0.Runtime, world: World, room: Clocked, start: Start, clock: VirtualClock
) -> None:
    async def handler(room: Room) -> None:
        room.storage.put("mine", 1)
        await room.storage.sync()
        world.log.append("synced")

    with fault(runtime, "commit-held", times=None) as held:
        syncing = start(handler)
        await clock.settle()
        later = asyncio.create_task(room.put("later"))
        await clock.settle()
        assert world.log == []
        held.release()
        await clock.settle()
        assert world.log == ["synced"]
        assert not later.done()
    await asyncio.gather(syncing, later)


@pytest.mark.parametrize(
    ("point", "error"),
    [("storage", z0.ActorReset), ("commit-lost", z0.CommitUnknown), ("commit-kept", z0.CommitUnknown)],
)
async def test_all_who_sync_one_commit_hear_of_its_failure(
    runtime: z0.Runtime, room: Clocked, start: Start, point: Point, error: type[z0.Z0Error]
) -> None:
    syncing: list[asyncio.Task[None]] = []

    def write_and_let_others_sync(room: Room) -> None:
        room.storage.put("k", 1)
        syncing.extend(asyncio.create_task(room.storage.sync()) for _ in range(3))

    with fault(runtime, point) as struck:
        with pytest.raises(error):
            await start(write_and_let_others_sync)
        heard = await asyncio.gather(*syncing, return_exceptions=True)
    assert struck.hits == 1
    assert [type(one) for one in heard] == [error] * 3


# Brokenness


async def synced(storage: z0.Storage) -> None:
    await storage.sync()


USES: dict[str, Callable[[z0.Storage], Any]] = {
    "get": lambda storage: storage.get("k"),
    "put": lambda storage: storage.put("k", 1),
    "put_many": lambda storage: storage.put({"k": 1}, allow_unconfirmed=True),
    "delete": lambda storage: storage.delete("k"),
    "delete_many": lambda storage: storage.delete(["k"]),
    "list": lambda storage: storage.list(),
    "sql": lambda storage: storage.sql("SELECT 1"),
    "transaction": lambda storage: storage.transaction().__enter__(),
    "set_alarm": lambda storage: storage.set_alarm("1 hour"),
    "get_alarm": lambda storage: storage.get_alarm(),
    "delete_alarm": lambda storage: storage.delete_alarm(),
    "delete_all": lambda storage: storage.delete_all(),
    "size": lambda storage: storage.size,
    "sync": synced,
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
async def test_everything_that_storage_does_raises_after_a_reset(
    runtime: z0.Runtime, room: Clocked, start: Start, use: Callable[[z0.Storage], Any]
) -> None:
    kept: list[z0.Storage] = []

    def keep(room: Room) -> None:
        kept.append(room.storage)
        room.storage.put("lost", 1)

    with fault(runtime, "storage"), pytest.raises(z0.ActorReset):
        await start(keep)
    with pytest.raises(z0.ActorReset):
        await _awaited(use, kept[0])
    assert await room.read() == {"open": 0}


async def _awaited(use: Callable[[z0.Storage], Any], storage: z0.Storage) -> None:
    result = use(storage)
    if inspect.isawaitable(result):
        await result


# Faults


def fill(room: Room) -> None:
    room.storage.put("plain", 1)
    with room.storage.transaction():
        room.storage.put("together", 1)
        with room.storage.transaction():
            room.storage.put("inside", 1)
    room.storage.set_alarm("1 day")


@pytest.mark.parametrize(
    ("point", "error", "kept"),
    [
        ("storage", z0.ActorReset, False),
        ("commit-lost", z0.CommitUnknown, False),
        ("commit-kept", z0.CommitUnknown, True),
    ],
)
async def test_transactions_of_a_turn_are_kept_or_lost_together(
    runtime: z0.Runtime, room: Clocked, start: Start, point: Point, error: type[z0.Z0Error], kept: bool
) -> None:
    with fault(runtime, point), pytest.raises(error) as caught:
        await start(fill)
    assert caught.value.retryable
    alarm = await start(lambda room: room.storage.get_alarm())
    assert (alarm is not None) == kept
    assert set(await room.read()) == {"open"} | ({"plain", "together", "inside"} if kept else set())


async def test_a_sync_that_failed_succeeds_in_the_next_incarnation(
    runtime: z0.Runtime, room: Clocked, start: Start
) -> None:
    async def handler(room: Room) -> str:
        room.storage.put("k", 1)
        await room.storage.sync()
        return "synced"

    with fault(runtime, "storage"):
        with pytest.raises(z0.CommitUnknown):  # a message that had waited is not told which of its parts were lost
            await start(handler)
        assert await room.read() == {"open": 0}
        assert await start(handler) == "synced"
    assert await room.read() == {"open": 0, "k": 1}


async def test_during_an_outage_nothing_is_acknowledged_and_other_actors_go_on(
    runtime: z0.Runtime, room: Clocked, clock: VirtualClock
) -> None:
    other = runtime.get(Clocked, "b")
    with fault(runtime, "storage", actor=room, times=None) as outage:
        for n in range(10):
            with pytest.raises(z0.ActorReset):
                await room.put(f"k{n}")
            await other.put(f"k{n}")
        assert await room.read() == {"open": 0}, "what was acknowledged can be read meanwhile"
    assert outage.hits == 10
    await room.put("after")
    assert await room.read() == {"open": 0, "after": 1}
    assert len(await other.read()) == 10


@pytest.mark.parametrize("lost", [False, True])
async def test_a_message_to_another_actor_waits_for_the_commit_and_dies_with_it(
    runtime: z0.Runtime, start: Start, clock: VirtualClock, lost: bool
) -> None:
    async def write_and_tell(room: Room) -> None:
        room.storage.put("k", 1)
        await room.room("b").put("told")

    listener, sender = runtime.get(Room, "b"), runtime.get(Clocked, "a")
    await listener.put("open", 0)
    with fault(runtime, "commit-held", actor=sender) as held:
        sent = start(write_and_tell)
        await clock.settle()
        assert await listener.read() == {"open": 0}
        if lost:
            with fault(runtime, "storage", actor=sender):
                held.release()
                with pytest.raises((z0.ActorReset, z0.CommitUnknown)):
                    await sent
        else:
            held.release()
            await sent
    assert ("told" in await listener.read()) == (not lost)


async def test_an_abort_during_a_commit_that_has_not_happened_keeps_nothing_of_it(
    runtime: z0.Runtime, room: Clocked, start: Start, world: World, clock: VirtualClock
) -> None:
    async def lurk(room: Room) -> None:
        async def abort() -> None:
            await world.go.wait()
            room.abort("meanwhile")

        room.wait_until(abort())

    async def put_and_sync(room: Room) -> None:
        room.storage.put("synced", 1)
        await room.storage.sync()

    await start(lurk)
    with fault(runtime, "commit-held"):
        plain, syncing = asyncio.create_task(room.put("plain")), start(put_and_sync)
        await clock.settle()
        world.go.set()
        await clock.settle()
        with pytest.raises(z0.ActorReset, match="meanwhile"):
            await plain
        with pytest.raises((z0.ActorReset, z0.CommitUnknown), match="meanwhile"):
            await syncing
    assert await room.read() == {"open": 0}

"""Work beside the messages, an actor that aborts itself, and what closing a runtime waits for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import pytest

import z0
from tests.scripted import House, Room, World, quiet
from z0.actors.errors import Aborted
from z0.testing import VirtualClock, crash, temporary_runtime


@pytest.fixture
async def world() -> World:
    return World()


@pytest.fixture
async def runtime(world: World, clock: VirtualClock) -> AsyncIterator[z0.Runtime]:
    async with temporary_runtime(memory=True, clock=clock, env=world) as runtime:
        yield runtime


# wait_until


async def test_background_work_keeps_the_actor_in_memory_until_it_ends(
    runtime: z0.Runtime, world: World, clock: VirtualClock
) -> None:
    async def work(room: Room) -> None:
        await clock.sleep("1 hour")
        room.storage.put("worked", room.time_left)

    def begin(room: Room) -> None:
        world.log.append(room.wait_until(work(room)))

    room = runtime.get(Room, "a")
    await room.at_once(world.script(begin))
    await clock.advance("59 minutes")
    assert not await runtime.evict(Room, "a")
    await clock.advance("1 minute")
    assert await room.read() == {"worked": None}
    assert world.log[0].done()
    assert await runtime.evict(Room, "a")


async def test_background_work_has_no_deadline_and_nobody_who_waits_for_it(
    runtime: z0.Runtime, world: World, clock: VirtualClock
) -> None:
    async def begin(room: Room) -> None:
        async with room.block():
            task = room.wait_until(call_self(room))
            await quiet()
            world.log.append(task.done())

    async def call_self(room: Room) -> None:
        world.log.append(room.time_left)
        await room.room("a").put("from", "background")

    with runtime.deadline("1 second"):
        await runtime.get(Room, "a").slowly(world.script(begin))
    await clock.settle()
    assert world.log == [None, False]  # it was delivered after the block, not refused
    assert await runtime.get(Room, "a").read() == {"from": "background"}


async def test_an_error_in_the_background_is_logged_with_the_name_of_the_actor(
    runtime: z0.Runtime, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        raise ValueError("in the background")

    def begin(room: Room) -> None:
        room.wait_until(work())

    await runtime.get(Room, "a").at_once(world.script(begin))
    await quiet()
    record = next(record for record in caplog.records if record.levelno == logging.ERROR)
    assert "background work of actor Room/a failed" in record.getMessage()
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "in the background"
    assert await runtime.evict(Room, "a")


@pytest.mark.parametrize("wrong", [None, 3, len, lambda: None])
async def test_only_what_can_be_awaited_runs_in_the_background(runtime: z0.Runtime, world: World, wrong: Any) -> None:
    def begin(room: Room) -> None:
        room.storage.put("not", "kept")
        room.wait_until(wrong)

    with pytest.raises(TypeError, match="takes a coroutine"):
        await runtime.get(Room, "a").at_once(world.script(begin))
    assert await runtime.get(Room, "a").read() == {}


async def test_a_dead_incarnation_begins_nothing_in_the_background(runtime: z0.Runtime, world: World) -> None:
    actors: list[Room] = []
    await runtime.get(Room, "a").at_once(world.script(actors.append))
    assert await runtime.evict(Room, "a")
    with pytest.raises(z0.ActorReset):  # and the coroutine is closed: one left over would be a warning
        actors[0].wait_until(asyncio.sleep(0))


@pytest.mark.parametrize("how", ["crash", "close", "abort"])
async def test_background_work_ends_with_its_incarnation(world: World, clock: VirtualClock, how: str) -> None:
    async def work() -> None:
        try:
            await clock.sleep("1 hour")
        finally:
            world.log.append("ended")

    def begin(room: Room) -> None:
        room.wait_until(work())
        room.wait_until(asyncio.gather(clock.sleep(1), clock.sleep(2)))

    def begin_and_abort(room: Room) -> None:
        begin(room)
        room.wait_until(work())  # never begins, and is closed
        room.abort()

    world.script(begin)
    async with temporary_runtime(memory=True, clock=clock, env=world) as runtime:
        await runtime.get(Room, "a").at_once("begin")
        await quiet()
        if how == "crash":
            await crash(runtime)
        elif how == "abort":
            with pytest.raises(z0.ActorReset):
                await runtime.get(Room, "a").at_once(world.script(begin_and_abort))
    await quiet()
    assert world.log == ["ended"]


async def test_what_stop_leaves_in_the_background_is_waited_for(
    runtime: z0.Runtime, world: World, clock: VirtualClock
) -> None:
    async def flush(house: Room, span: str) -> None:
        await clock.sleep(span)
        house.storage.put("flushed", span)

    async def stop(house: Room) -> None:
        house.wait_until(flush(house, "4 seconds"))
        house.wait_until(flush(house, "6 seconds"))

    world.script(stop)
    await runtime.get(House, "h").put("k")
    evicting = asyncio.create_task(runtime.evict(House, "h"))
    await clock.advance("5 seconds")  # stop_seconds
    assert await evicting
    world.scripts.clear()
    assert await runtime.get(House, "h").read() == {"k": 1, "flushed": "4 seconds"}


# abort()


def aborting(world: World) -> None:
    def at_once(room: Room) -> None:
        room.storage.put("lost", 1)
        try:
            room.abort("at once")
        except Exception:
            world.log.append("caught")
        world.log.append("went on")

    async def slowly(room: Room) -> None:
        await quiet()
        at_once(room)

    async def in_a_block(room: Room) -> None:
        async with room.block():
            at_once(room)

    def in_a_transaction(room: Room) -> None:
        try:
            with room.storage.transaction():
                at_once(room)
        except Exception:
            world.log.append("caught")

    async def in_a_group(room: Room) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(slowly(room))

    async def in_the_background(room: Room) -> None:
        await room.wait_until(slowly(room))

    def stubbornly(room: Room) -> str:
        try:
            at_once(room)
        except BaseException:
            world.log.append("stopped it")
        return "a reply"

    async def stubbornly_and_slowly(room: Room) -> str:
        while True:
            try:
                at_once(room)
            except BaseException:
                world.log.append("stopped it")
                return "a reply"

    for script in (
        at_once, slowly, in_a_block, in_a_transaction, in_a_group, in_the_background, stubbornly, stubbornly_and_slowly
    ):  # fmt: skip
        world.script(script)


@pytest.mark.parametrize(
    ("message", "script"),
    [
        ("at_once", "at_once"),
        ("at_once", "in_a_transaction"),
        ("at_once", "stubbornly"),
        ("slowly", "slowly"),
        ("slowly", "in_a_block"),
        ("slowly", "in_a_group"),
        ("slowly", "in_the_background"),
        ("slowly", "stubbornly_and_slowly"),
    ],
)
@pytest.mark.parametrize("through", ["caller", "actor"])
async def test_abort_resets_the_actor_wherever_it_is_called(
    runtime: z0.Runtime, world: World, message: str, script: str, through: str
) -> None:
    async def relay(room: Room) -> None:
        with pytest.raises(z0.ActorReset, match="Room/a was reset: at once"):
            await getattr(room.room("a"), message)(script)

    async def wait(room: Room) -> None:
        await world.go.wait()

    problems: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: problems.append(context))
    aborting(world)
    room = runtime.get(Room, "a")
    await room.put("kept")
    waiting = asyncio.create_task(room.slowly(world.script(wait)))
    await quiet()
    if through == "actor":
        await runtime.get(Room, "b").slowly(world.script(relay))
    else:
        with pytest.raises(z0.ActorReset, match="Room/a was reset: at once"):
            await getattr(room, message)(script)
    with pytest.raises(z0.ActorReset, match="at once"):
        await waiting
    assert {"caught", "went on"} & set(world.log) == set()
    assert await room.read() == {"kept": 1}  # by a new incarnation
    if script != "in_a_group":  # asyncio reports of its own what a group's task raises after the group is gone
        assert problems == []


async def test_abort_takes_the_uncommitted_writes_of_the_whole_turn_with_it(runtime: z0.Runtime, world: World) -> None:
    aborting(world)
    room = runtime.get(Room, "a")
    await room.read()
    outcomes = await asyncio.gather(room.put("x"), room.at_once("at_once"), room.put("y"), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes[:2]] == [z0.ActorReset, z0.ActorReset]
    assert await room.read() == ({} if outcomes[2] is not None else {"y": 1})


async def test_a_message_that_has_written_before_it_aborts_is_unknown(
    runtime: z0.Runtime, world: World, clock: VirtualClock
) -> None:
    async def partly(room: Room) -> None:
        room.storage.put("part", 1)
        await clock.sleep(1)
        room.abort("half-way")

    calling = asyncio.create_task(runtime.get(Room, "a").slowly(world.script(partly)))
    await clock.advance(1)
    with pytest.raises(z0.CommitUnknown, match="half-way"):
        await calling
    assert await runtime.get(Room, "a").read() == {"part": 1}


@pytest.mark.parametrize("hook", ["construct", "start"])
@pytest.mark.parametrize("again", [False, True])
async def test_abort_while_opening_fails_who_waits_and_the_next_message_tries_anew(
    runtime: z0.Runtime, world: World, hook: str, again: bool
) -> None:
    def construct(house: Room) -> None:
        house.storage.put("lost", 1)
        house.abort("not yet")

    async def start(house: Room) -> None:
        construct(house)

    problems: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: problems.append(context))
    house = runtime.get(House, "h")
    if again:  # its file is there
        await house.put("kept")
        assert await runtime.evict(House, "h")
    world.scripts[hook] = {"construct": construct, "start": start}[hook]
    for outcome in await asyncio.gather(house.read(), house.put_slowly("k"), return_exceptions=True):
        assert isinstance(outcome, z0.ActorReset)
        assert outcome.reason == "not yet"
    world.scripts.clear()
    assert await house.read() == ({"kept": 1} if again else {})
    assert problems == []


async def test_abort_in_stop_closes_the_file_all_the_same(runtime: z0.Runtime, world: World) -> None:
    async def stop(house: Room) -> None:
        house.storage.put("lost", 1)
        house.abort("no more")

    problems: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: problems.append(context))
    world.script(stop)
    await runtime.get(House, "h").put("kept")
    assert await runtime.evict(House, "h")
    world.scripts.clear()
    assert await runtime.get(House, "h").read() == {"kept": 1}
    assert problems == []


def test_what_abort_raises_is_no_exception() -> None:
    assert not issubclass(Aborted, Exception)


# Closing


async def test_while_closing_actors_go_on_among_themselves_and_outsiders_are_refused(
    world: World, clock: VirtualClock
) -> None:
    async def work(room: Room) -> None:
        await world.go.wait()
        await room.room("b").put("from", "a")
        await room.room("new").put_slowly("from a too")

    async def background(room: Room) -> None:
        await world.go.wait()
        await room.room("c").put("from", "background")

    def begin(room: Room) -> None:
        room.wait_until(background(room))

    async with temporary_runtime(memory=True, clock=clock, env=world) as runtime:
        path = runtime.path
        working = asyncio.create_task(runtime.get(Room, "a").slowly(world.script(work)))
        await runtime.get(Room, "a").at_once(world.script(begin))
        closing = asyncio.create_task(runtime.close())
        for _ in range(3):  # it has begun, and is not at its end yet
            await asyncio.sleep(0)
        with runtime.deadline("1 day"):
            for refused in (runtime.get(Room, "a").read(), runtime.get(Room, "x").put("k")):
                with pytest.raises(z0.RuntimeClosed):
                    await refused
        world.go.set()
        await closing
        await working
        async with z0.Runtime(path, clock=clock, env=world) as again:
            held = {name: await again.get(Room, name).read() for name in ("b", "c", "new")}
            assert held == {"b": {"from": "a"}, "c": {"from": "background"}, "new": {"from a too": 1}}
            assert [info.name for info in await again.list(Room)] == ["a", "b", "c", "new"]


async def test_what_never_ends_is_reset_when_the_patience_is_over(world: World) -> None:
    async def forever(room: Room) -> None:
        room.storage.put("first", "part")
        await world.go.wait()

    def begin(room: Room) -> None:
        world.log.append(room.wait_until(forever(room)))

    async with temporary_runtime(memory=True, env=world, limits=z0.Limits(close_seconds=0.05)) as runtime:
        calling = asyncio.create_task(runtime.get(Room, "a").slowly(world.script(forever)))
        await runtime.get(Room, "b").at_once(world.script(begin))
        await asyncio.sleep(0.01)
        path = runtime.path
        await runtime.close()
        with pytest.raises(z0.CommitUnknown, match="close_seconds"):
            await calling
        await asyncio.wait(world.log)
        assert world.log[0].cancelled()
        async with z0.Runtime(path, env=world) as again:
            assert await again.get(Room, "a").read() == {"first": "part"}


# What a segment sent and then lost


@pytest.mark.parametrize("how", ["call", "gather", "task"])
async def test_what_a_segment_sent_does_not_leave_when_it_is_rolled_back_where_it_waits(
    runtime: z0.Runtime, world: World, how: str
) -> None:
    def send(room: Room) -> Awaitable[Any]:
        first = room.room("b").put("sent")
        if how == "gather":
            return asyncio.gather(first, room.room("c").put("sent"))
        return first if how == "call" else asyncio.create_task(first)

    async def handler(room: Room) -> None:
        sql = room.storage.sql
        sql("CREATE TABLE IF NOT EXISTS p(id INTEGER PRIMARY KEY)")
        sql("CREATE TABLE IF NOT EXISTS c(p REFERENCES p DEFERRABLE INITIALLY DEFERRED)")
        sql("INSERT INTO c VALUES(7)")
        with pytest.raises(z0.QueryError, match="FOREIGN KEY"):
            await send(room)
        room.storage.put("went", "on")

    await runtime.get(Room, "a").slowly(world.script(handler))
    await quiet()
    assert await runtime.get(Room, "a").read() == {"went": "on"}
    assert [await runtime.get(Room, name).read() for name in ("b", "c")] == [{}, {}]

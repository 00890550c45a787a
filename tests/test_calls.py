"""Calls that actors make for callers: chains that come back, and deadlines that travel along."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import z0
from tests.scripted import House, Room, World, quiet
from z0.actors.call import CURRENT, Activity
from z0.testing import VirtualClock, temporary_runtime


@pytest.fixture
async def world() -> World:
    return World()


@pytest.fixture
async def runtime(world: World, clock: VirtualClock) -> AsyncIterator[z0.Runtime]:
    async with temporary_runtime(memory=True, clock=clock, env=world) as runtime:
        yield runtime


def pass_on(world: World, then: str, *route: str) -> str:
    """A script that calls along the route, writing at each stop, and runs `then` at its end."""

    async def along(room: Room, *left: str) -> Any:
        room.storage.put("was", "here")
        if len(left) == 1:
            return await room.room(left[0]).slowly(then)
        return await room.room(left[0]).slowly("along", *left[1:])

    return world.script(along)


# A call back


async def test_a_call_back_into_an_actor_that_waits_is_an_ordinary_message(runtime: z0.Runtime, world: World) -> None:
    async def answer(room: Room) -> str:
        return f"{room.name} answers"

    along = pass_on(world, world.script(answer))
    assert await runtime.get(Room, "a").slowly(along, "b", "a") == "a answers"
    assert await runtime.get(Room, "a").slowly(along, "a", "a", "b", "c", "a") == "a answers"


@pytest.mark.parametrize("route", [("a",), ("b", "a"), ("b", "c", "a"), ("b", "c", "b", "a")])
async def test_a_call_back_into_a_block_is_refused_at_once(
    runtime: z0.Runtime, world: World, clock: VirtualClock, route: tuple[str, ...]
) -> None:
    async def never(room: Room) -> None:
        world.log.append("delivered")

    along = pass_on(world, world.script(never))

    async def blocked(room: Room) -> str:
        async with room.block():
            with pytest.raises(z0.CallCycle) as caught:
                await world.scripts[along](room, *route)
            assert caught.value.chain == ("Room/a", *(f"Room/{name}" for name in route))
            assert str(caught.value).startswith(" -> ".join(caught.value.chain))
            assert not caught.value.retryable
        return "done"

    start = clock.monotonic()
    assert await runtime.get(Room, "a").slowly(world.script(blocked)) == "done"
    assert (clock.monotonic(), world.log) == (start, [])
    assert await runtime.get(Room, "a").read() == {"was": "here"}  # the actor goes on


async def test_only_the_call_that_holds_the_gate_is_in_the_way(runtime: z0.Runtime, world: World) -> None:
    async def hold(room: Room) -> None:
        async with room.block():
            await world.go.wait()

    async def answer(room: Room) -> str:
        return "late"

    along = pass_on(world, world.script(answer))
    calling = asyncio.create_task(runtime.get(Room, "a").slowly(along, "b", "a"))
    holding = asyncio.create_task(runtime.get(Room, "a").slowly(world.script(hold)))
    await quiet()
    assert not calling.done()
    world.go.set()
    await holding
    assert await calling == "late"


async def test_a_call_back_that_waits_already_when_the_block_begins_is_refused(
    runtime: z0.Runtime, world: World
) -> None:
    async def back(room: Room) -> None:
        world.go.set()  # wakes who waits below before the call back has begun
        await room.room("a").put_slowly("never")

    async def blocked(room: Room) -> None:
        calling = asyncio.create_task(room.room("b").slowly("back"))
        await world.go.wait()
        async with room.block():
            with pytest.raises(z0.CallCycle, match="Room/a -> Room/b -> Room/a"):
                await calling

    world.script(back)
    await runtime.get(Room, "a").slowly(world.script(blocked))
    assert await runtime.get(Room, "a").read() == {}


@pytest.mark.parametrize("hook", ["start", "stop"])
async def test_a_call_back_into_a_hook_is_refused_at_once(
    runtime: z0.Runtime, world: World, clock: VirtualClock, hook: str
) -> None:
    async def ask_back(room: Room) -> None:
        await room.get(House, "a").read()

    world.script(ask_back)

    async def in_hook(room: Room) -> None:
        if not world.log:
            world.log.append(clock.monotonic())
            with pytest.raises(z0.CallCycle, match="House/a -> Room/b -> House/a"):
                await room.room("b").slowly("ask_back")
            world.log.append(clock.monotonic())

    world.scripts[hook] = in_hook
    await runtime.get(House, "a").put("x")
    await runtime.evict(House, "a")
    assert world.log[0] == world.log[1]


async def test_an_actor_whose_start_asks_who_waits_for_it_in_a_block_is_refused(
    runtime: z0.Runtime, world: World
) -> None:
    async def start(house: Room) -> None:
        await house.room("a").read()

    async def blocked(room: Room) -> None:
        async with room.block():
            with pytest.raises(z0.CallCycle, match="Room/a -> House/h -> Room/a"):
                await room.get(House, "h").read()

    world.script(start)
    await runtime.get(Room, "a").slowly(world.script(blocked))


async def test_a_chain_is_as_long_as_who_waits_and_no_longer(runtime: z0.Runtime, world: World) -> None:
    tasks: set[asyncio.Task[Any]] = set()
    begun = [asyncio.Event() for _ in range(31)]

    async def again(room: Room, left: int) -> None:
        begun[left].set()
        call, length = CURRENT.get(), 0
        while call is not None and call.activity is not None:
            length, call = length + 1, call.activity.sender
        world.log.append(length)
        if left:
            with room.deadline("1 day"):
                tasks.add(asyncio.create_task(room.room("a").slowly("again", left - 1)))
            await begun[left - 1].wait()  # and end: a chain of links, of which two or three are alive

    world.script(again)
    await runtime.get(Room, "a").slowly("again", 30)
    while any(not task.done() for task in tasks):
        await quiet()
    assert len(world.log) == 31
    assert max(world.log) == 3  # itself, who asked for it, and who had asked for that
    tasks.clear()
    gc.collect()
    assert [it for it in gc.get_objects() if isinstance(it, Activity)] == []


# Deadlines


async def test_a_deadline_that_passes_tells_whether_the_message_had_begun(
    runtime: z0.Runtime, world: World, clock: VirtualClock
) -> None:
    async def work(room: Room) -> None:
        world.log.append(room.time_left)
        await world.go.wait()
        room.storage.put("done", True)

    async def hold(room: Room) -> None:
        async with room.block():
            await world.go.wait()

    world.script(work)
    room, held = runtime.get(Room, "a"), runtime.get(Room, "held")
    holding = asyncio.create_task(held.slowly(world.script(hold)))
    await quiet()
    with runtime.deadline("5 seconds"):
        begun = asyncio.create_task(room.slowly("work"))
        queued = [asyncio.create_task(held.slowly("work")), asyncio.create_task(held.put("k"))]
    await clock.advance(4.999)
    assert not begun.done()
    await clock.advance(0.001)
    with pytest.raises(z0.DeadlineExceeded, match=r"Room/a: slowly .* it goes on") as caught:
        await begun
    assert (caught.value.started, caught.value.retryable) == (True, True)
    for task in queued:
        with pytest.raises(z0.DeadlineExceeded, match="nothing was done") as caught:
            await task
        assert not caught.value.started
    world.go.set()
    await holding
    await clock.settle()
    assert await room.read() == {"done": True}
    assert (await held.read(), world.log) == ({}, [5.0])


async def test_a_message_that_is_found_too_late_before_its_timer_fires_has_not_begun(
    runtime: z0.Runtime, world: World, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hold(room: Room) -> None:
        async with room.block():
            await world.go.wait()

    held = runtime.get(Room, "held")
    holding = asyncio.create_task(held.slowly(world.script(hold)))
    await quiet()
    with runtime.deadline("5 seconds"):
        queued = asyncio.create_task(held.put("k"))
    await quiet()
    now = clock.monotonic()
    monkeypatch.setattr(clock, "monotonic", lambda: now + 6)
    world.go.set()
    await holding
    with pytest.raises(z0.DeadlineExceeded) as caught:
        await queued
    assert not caught.value.started
    assert await held.read() == {}


async def test_a_call_after_its_deadline_is_not_sent(runtime: z0.Runtime, clock: VirtualClock) -> None:
    with runtime.deadline("1 second"):
        await runtime.get(Room, "a").put("in", 1)
        await clock.advance("1 second")
        for name in ("a", "new"):
            with pytest.raises(z0.DeadlineExceeded) as caught:
                await runtime.get(Room, name).put("late")
            assert not caught.value.started
    await runtime.get(Room, "a").put("after", 1)
    assert await runtime.get(Room, "a").read() == {"in": 1, "after": 1}
    assert [info.name for info in await runtime.list(Room)] == ["a"]


async def test_a_deadline_travels_and_the_earlier_one_wins(
    runtime: z0.Runtime, world: World, clock: VirtualClock
) -> None:
    async def tell(room: Room) -> None:
        world.log.append(room.time_left)

    async def relay(room: Room, span: str) -> None:
        await clock.sleep("1 second")
        with room.deadline(span):
            world.log.append(room.time_left)
            await room.room("b").slowly("tell")
        world.log.append(room.time_left)

    world.script(tell)
    world.script(relay)
    for span, inner in (("3 seconds", 3.0), ("1 hour", 9.0)):
        world.log.clear()
        with (
            runtime.deadline("1 day"),
            runtime.deadline("10 seconds"),
            runtime.tenant("default").deadline("20 seconds"),
        ):
            relaying = asyncio.create_task(runtime.get(Room, "a").slowly("relay", span))
        await clock.advance("1 second")
        await relaying
        assert world.log == [inner, inner, 9.0]
    await runtime.get(Room, "a").slowly("tell")
    assert world.log[-1] is None


async def test_a_nested_call_that_runs_out_of_time_fails_inside_the_handler_too(
    runtime: z0.Runtime, world: World, clock: VirtualClock
) -> None:
    async def never(room: Room) -> None:
        await world.go.wait()

    async def relay(room: Room) -> None:
        try:
            await room.room("b").slowly("never")
        except z0.DeadlineExceeded as error:
            room.storage.put("caught", error.actor)
            world.log.append(room.time_left)

    world.script(never)
    with runtime.deadline(2):
        relaying = asyncio.create_task(runtime.get(Room, "a").slowly(world.script(relay)))
    await clock.advance(2)
    with pytest.raises(z0.DeadlineExceeded, match="Room/a"):
        await relaying
    assert await runtime.get(Room, "a").read() == {"caught": "Room/b"}
    assert world.log == [0.0]
    world.go.set()


async def test_a_message_whose_actor_opens_too_late_is_dropped(
    runtime: z0.Runtime, world: World, clock: VirtualClock
) -> None:
    async def start(house: Room) -> None:
        world.log.append(house.time_left)
        await world.go.wait()

    world.script(start)
    with runtime.deadline(2):
        calls = [
            asyncio.create_task(call)
            for call in (runtime.get(House, "h").put("k"), runtime.get(House, "h").put_slowly("s"))
        ]
    await clock.advance(2)
    for call in calls:
        with pytest.raises(z0.DeadlineExceeded) as caught:
            await call
        assert not caught.value.started
    world.go.set()
    assert await runtime.get(House, "h").read() == {}
    assert world.log == [None]  # start() is not the first caller's alone


async def test_time_that_passed_unseen_counts_before_a_message_runs(
    runtime: z0.Runtime, world: World, clock: VirtualClock
) -> None:
    async def hold(room: Room) -> None:
        async with room.block():
            await world.go.wait()
            clock._passed_us += 3_000_000  # no timer has had its turn yet

    room = runtime.get(Room, "a")
    holding = asyncio.create_task(room.slowly(world.script(hold)))
    await quiet()
    with runtime.deadline(2):
        late = [asyncio.create_task(room.put("k")), asyncio.create_task(room.put_slowly("s"))]
    await quiet()
    world.go.set()
    await asyncio.wait([holding, *late])
    assert [isinstance(task.exception(), z0.DeadlineExceeded) for task in late] == [True, True]
    assert await room.read() == {}


@pytest.mark.parametrize("gone", ["cancelled", "expired"])
async def test_a_message_that_nobody_waits_for_any_more_never_begins(
    runtime: z0.Runtime, clock: VirtualClock, gone: str
) -> None:
    room = runtime.get(Room, "a")
    await room.read()
    (host,) = runtime.node.hosts.values()
    host.gate.parked, host.ready = True, False  # as while a thread commits
    with runtime.deadline(2):
        calls = [asyncio.create_task(call) for call in (room.put("k"), room.put_slowly("s"))]
    await quiet()
    for message in host.mailbox:
        if gone == "cancelled":
            message.reply.cancel()
        else:
            message.reply.set_exception(z0.DeadlineExceeded("Room/a", "put", started=False))
    host.gate.parked = False
    host.resume()  # before anybody has heard of it
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    await clock.settle()
    expected = asyncio.CancelledError if gone == "cancelled" else z0.DeadlineExceeded
    assert [type(outcome) for outcome in outcomes] == [expected] * 2
    assert await room.read() == {}


async def test_a_deadline_is_a_span_and_serves_one_block_at_a_time(runtime: z0.Runtime) -> None:
    for wrong in ("soon", -1, True, float("nan")):
        with pytest.raises(ValueError, match="not a span"):
            runtime.deadline(wrong)
    deadline = runtime.deadline(1)
    with deadline, pytest.raises(RuntimeError, match="one block at a time"):
        deadline.__enter__()
    with deadline:
        await runtime.get(Room, "a").read()
    assert CURRENT.get() is None


@given(spans=st.lists(st.integers(0, 50), min_size=1, max_size=5), busy=st.lists(st.integers(0, 50), max_size=4))
def test_an_answer_comes_in_time_or_never(spans: list[int], busy: list[int]) -> None:
    async def scenario() -> None:
        clock, world = VirtualClock(), World()
        async with temporary_runtime(memory=True, clock=clock, env=world) as runtime:

            async def work(room: Room, left: list[int]) -> int:
                for index, span in enumerate(left):
                    await clock.sleep(span)
                    room.storage.put(str(index), span)
                return len(left)

            world.script(work)
            room = runtime.get(Room, "a")
            begin = clock.monotonic()

            async def call(depth: int) -> int:
                if depth < len(spans):
                    with runtime.deadline(spans[depth]):
                        return await call(depth + 1)
                answer: int = await room.slowly("work", busy)
                return answer

            calling = asyncio.create_task(call(0))
            await clock.advance(1_000)
            took, most = sum(busy), min(spans)
            assert clock.monotonic() - begin == 1_000
            if took < most:
                assert await calling == len(busy)
            elif took > most or most == 0:
                with pytest.raises(z0.DeadlineExceeded) as caught:
                    await calling
                assert caught.value.started == (most > 0)
            else:
                await asyncio.wait([calling])
                calling.exception()
            written = {str(index): span for index, span in enumerate(busy)}
            assert await room.read() == ({} if most == 0 else written)

    asyncio.run(scenario())

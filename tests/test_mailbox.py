"""Overload: what does not fit is refused at once and untouched, and everything accepted is answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

import z0
from z0.actors.gates import pass_once
from z0.testing import VirtualClock, temporary_runtime

KIB = 1024


class World:
    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.log: list[Any] = []


class Worker(z0.Actor):
    """Takes messages; `hold` keeps it busy until the world goes on."""

    env: World

    async def hold(self) -> None:
        async with self.block():
            await self.env.go.wait()

    async def take(self, value: Any) -> Any:
        self.env.log.append(value)
        return value

    async def write(self, value: Any) -> Any:
        self.env.log.append(value)
        self.storage.put(f"k{value}", value)
        return value

    async def keep(self, value: bytes) -> int:
        self.storage.put("value", len(value))
        return len(value)

    async def slowly(self, value: Any) -> Any:
        self.env.log.append(value)
        await self.env.go.wait()
        return value

    async def forward(self, count: int) -> list[Any]:
        worker = self.get(Worker, "w")
        replies = await asyncio.gather(*(worker.take(number) for number in range(count)), return_exceptions=True)
        return [type(reply).__name__ if isinstance(reply, Exception) else reply for reply in replies]


@pytest.fixture
async def world() -> World:
    return World()


Opened = Callable[..., AbstractAsyncContextManager[z0.Runtime]]


@pytest.fixture
async def opened(world: World) -> Opened:
    """Opens a runtime with these limits and a worker `w` that has been used."""

    @asynccontextmanager
    async def open_with(**limits: Any) -> AsyncIterator[z0.Runtime]:
        options = z0.Limits(close_seconds=1, inline_sync_seconds=60, **limits)
        async with temporary_runtime(memory=True, clock=VirtualClock(), env=world, limits=options) as runtime:
            await runtime.get(Worker, "w").take("warm")
            world.log.clear()
            yield runtime
            world.go.set()

    return open_with


async def quiet() -> None:
    for _ in range(50):
        await pass_once()


def refused(calls: list[asyncio.Task[Any]]) -> list[int]:
    """Which calls have been refused by now."""
    return [
        number
        for number, call in enumerate(calls)
        if call.done() and not call.cancelled() and isinstance(call.exception(), z0.Overloaded)
    ]


async def outcomes(calls: list[asyncio.Task[Any]]) -> list[Any]:
    return await asyncio.gather(*calls, return_exceptions=True)


@pytest.mark.parametrize("message", ["take", "write", "slowly"])
async def test_at_twice_the_load_half_is_refused_at_once_and_half_is_answered(
    opened: Opened, world: World, message: str
) -> None:
    async with opened(mailbox_messages=50) as runtime:
        worker = runtime.get(Worker, "w")
        held = asyncio.create_task(worker.hold())
        await quiet()
        calls = [asyncio.create_task(getattr(worker, message)(number)) for number in range(100)]
        await quiet()
        assert refused(calls) == list(range(49, 100))  # the one that holds the gate is the fiftieth
        assert world.log == []
        world.go.set()
        await held
        assert [outcome for outcome in await outcomes(calls) if not isinstance(outcome, z0.Overloaded)] == [*range(49)]
        assert world.log == [*range(49)]
        assert await worker.take("afterwards") == "afterwards"


@pytest.mark.parametrize("message", ["take", "slowly"])
async def test_exactly_as_many_messages_are_accepted_as_the_limit_says(
    opened: Opened, world: World, message: str
) -> None:
    async with opened(mailbox_messages=3) as runtime:
        held = asyncio.create_task(runtime.get(Worker, "w").hold())
        await quiet()
        calls = [asyncio.create_task(getattr(runtime.get(Worker, "w"), message)(number)) for number in range(4)]
        await quiet()
        assert refused(calls) == [2, 3]
        world.go.set()
        assert (await outcomes([held, *calls]))[:3] == [None, 0, 1]


async def test_handlers_that_wait_count_until_they_are_answered(opened: Opened, world: World) -> None:
    async with opened(mailbox_messages=5) as runtime:
        calls = [asyncio.create_task(runtime.get(Worker, "w").slowly(number)) for number in range(10)]
        await quiet()
        assert refused(calls) == [5, 6, 7, 8, 9]
        assert world.log == [0, 1, 2, 3, 4]
        world.go.set()
        assert (await outcomes(calls))[:5] == [0, 1, 2, 3, 4]
        assert await runtime.get(Worker, "w").slowly(10) == 10


async def test_messages_that_wait_for_a_commit_count_too(opened: Opened, world: World) -> None:
    async with opened(mailbox_messages=10) as runtime:
        calls = [asyncio.create_task(runtime.get(Worker, "w").write(number)) for number in range(20)]
        assert [type(outcome) for outcome in await outcomes(calls)] == [int] * 10 + [z0.Overloaded] * 10
        assert world.log == [*range(10)]


async def test_messages_to_an_actor_that_opens_count_too(opened: Opened, world: World) -> None:
    async with opened(mailbox_messages=10) as runtime:
        calls = [asyncio.create_task(runtime.get(Worker, "new").take(number)) for number in range(20)]
        assert [type(outcome) for outcome in await outcomes(calls)] == [int] * 10 + [z0.Overloaded] * 10
        assert world.log == [*range(10)]


async def test_messages_of_other_actors_are_refused_as_well(opened: Opened, world: World) -> None:
    async with opened(mailbox_messages=10) as runtime:
        assert await runtime.get(Worker, "other").forward(0) == []
        held = asyncio.create_task(runtime.get(Worker, "w").hold())
        await quiet()
        forwarding = asyncio.create_task(runtime.get(Worker, "other").forward(20))
        await quiet()
        assert world.log == []
        world.go.set()
        replies = await forwarding
        assert replies[:9] == [*range(9)]
        assert replies[9:] == ["Overloaded"] * 11
        await held


async def test_a_caller_that_goes_away_makes_room(opened: Opened, world: World) -> None:
    async with opened(mailbox_messages=3) as runtime:
        worker = runtime.get(Worker, "w")
        held = asyncio.create_task(worker.hold())
        await quiet()
        first, second = (asyncio.create_task(worker.take(number)) for number in range(2))
        await quiet()
        with pytest.raises(z0.Overloaded):
            await worker.take("too much")
        first.cancel()
        await quiet()
        third = asyncio.create_task(worker.take("third"))
        await quiet()
        world.go.set()
        assert await outcomes([held, second, third]) == [None, 1, "third"]


async def test_a_refusal_names_actor_and_limit_and_may_be_tried_again(opened: Opened, world: World) -> None:
    async with opened(mailbox_messages=1) as runtime:
        held = asyncio.create_task(runtime.get(Worker, "w").hold())
        await quiet()
        with pytest.raises(z0.Overloaded, match=r"Worker/w is overloaded: .*\(mailbox_messages\)") as caught:
            await runtime.get(Worker, "w").take(1)
        assert caught.value.retryable
        assert (caught.value.actor, caught.value.limit) == ("Worker/w", "1 messages wait (mailbox_messages)")
        world.go.set()
        await held
        assert await runtime.get(Worker, "w").take(2) == 2


async def test_other_actors_are_not_refused(opened: Opened, world: World) -> None:
    async with opened(mailbox_messages=1) as runtime:
        held = asyncio.create_task(runtime.get(Worker, "w").hold())
        await quiet()
        assert await runtime.get(Worker, "other").take(1) == 1
        world.go.set()
        await held


# Bytes


async def test_waiting_messages_are_bounded_by_their_bytes(opened: Opened, world: World) -> None:
    async with opened(mailbox_bytes=10 * KIB) as runtime:
        worker = runtime.get(Worker, "w")
        held = asyncio.create_task(worker.hold())
        await quiet()
        calls = [asyncio.create_task(worker.keep(bytes(3 * KIB))) for _ in range(5)]
        small = asyncio.create_task(worker.take("small"))
        await quiet()
        assert refused(calls) == [3, 4]
        assert "(mailbox_bytes)" in str(calls[3].exception())
        world.go.set()
        await asyncio.gather(held, small, *calls[:3])
        assert await worker.keep(bytes(9 * KIB)) == 9 * KIB


async def test_a_message_larger_than_the_whole_limit_is_refused_by_an_idle_actor_too(opened: Opened) -> None:
    async with opened(mailbox_bytes=10 * KIB) as runtime:
        for name in "w", "new":
            with pytest.raises(z0.Overloaded, match="mailbox_bytes"):
                await runtime.get(Worker, name).slowly(bytes(11 * KIB))


async def test_messages_that_wait_for_a_commit_are_bounded_by_their_bytes_too(opened: Opened) -> None:
    async with opened(mailbox_bytes=10 * KIB) as runtime:
        calls = [asyncio.create_task(runtime.get(Worker, "w").keep(bytes(3 * KIB))) for _ in range(8)]
        kinds = [type(outcome) for outcome in await outcomes(calls)]
        assert kinds == [int] * 3 + [z0.Overloaded] * 5


async def test_bytes_inside_lists_and_arguments_by_name_count(opened: Opened, world: World) -> None:
    async with opened(mailbox_bytes=10 * KIB) as runtime:
        with pytest.raises(z0.Overloaded, match="mailbox_bytes"):
            await runtime.get(Worker, "w").slowly(value=[{"deep": [bytes(11 * KIB)]}])
        assert world.log == []


async def test_answered_messages_give_their_bytes_back(opened: Opened, world: World) -> None:
    async with opened(mailbox_bytes=10 * KIB, runtime_mailbox_bytes=20 * KIB) as runtime:
        world.go.set()
        for _ in range(20):
            await runtime.get(Worker, "w").slowly(bytes(9 * KIB))
            with pytest.raises(TypeError):
                await runtime.get(Worker, "w").slowly(bytes(9 * KIB), "one too many")  # type: ignore[call-arg]


async def test_the_actors_of_a_runtime_share_a_bound_of_bytes(opened: Opened, world: World) -> None:
    async with opened(runtime_mailbox_bytes=10 * KIB) as runtime:
        workers = [runtime.get(Worker, f"w{number}") for number in range(5)]
        calls = [asyncio.create_task(worker.slowly(bytes(3 * KIB))) for worker in workers]
        while len(world.log) < 3:
            await pass_once()
        await quiet()
        assert refused(calls) == [3, 4]
        assert "(runtime_mailbox_bytes)" in str(calls[3].exception())
        world.go.set()
        await asyncio.gather(*calls[:3])
        await asyncio.gather(*(worker.slowly(bytes(3 * KIB)) for worker in workers[:3]))


async def test_two_runtimes_do_not_share_their_bounds(opened: Opened, world: World) -> None:
    async with opened(runtime_mailbox_bytes=10 * KIB) as first, opened(runtime_mailbox_bytes=10 * KIB) as second:
        calls = [asyncio.create_task(runtime.get(Worker, "w").slowly(bytes(9 * KIB))) for runtime in (first, second)]
        await quiet()
        assert refused(calls) == []
        world.go.set()
        await asyncio.gather(*calls)

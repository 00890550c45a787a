"""Gates: an actor runs one piece of code at a time, and nothing that it says leaves before it is durable."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor, Future
from contextlib import AsyncExitStack
from typing import Any, TypeVar

import pytest

import z0
from z0.actors.catalog import CATALOG_FILE
from z0.actors.database import Database, Rows
from z0.actors.errors import DatabaseFailure
from z0.actors.gates import pass_once
from z0.testing import VirtualClock, temporary_runtime

T = TypeVar("T")


class Threads(Executor):
    """The engine's threads in the hands of a test: work is done at once or, while it is held, on release."""

    def __init__(self) -> None:
        self.jobs = 0
        self._hold = False
        self._held: list[Callable[[], Any]] = []

    def submit(self, run: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        job: Future[Any] = Future()
        if run.__self__._count == 1:  # type: ignore[attr-defined]  # the catalogue has one thread, and a life of its own
            job.set_result(run(*args, **kwargs))
            return job
        self.jobs += 1

        def do() -> None:
            job.set_result(run(*args, **kwargs))

        if self._hold:
            self._held.append(do)
        else:
            do()
        return job

    def hold(self) -> None:
        self._hold = True

    async def release(self) -> None:
        self._hold = False
        held, self._held = self._held, []
        for do in held:
            do()
        await quiet()


async def quiet() -> None:
    """Let everything run that can."""
    for _ in range(50):
        await pass_once()


class World:
    def __init__(self) -> None:
        self.log: list[Any] = []
        self.go = asyncio.Event()
        self.scripts: list[Callable[[Any], Any]] = []


class Room(z0.Actor):
    """Does what tests hand it: a function as one segment, a coroutine function as many."""

    env: World

    def __init__(self) -> None:
        self.memory: list[Any] = []

    async def run(self, script: int) -> Any:
        return self.env.scripts[script](self)

    async def run_slowly(self, script: int) -> Any:
        return await self.env.scripts[script](self)

    async def note(self, value: Any) -> None:
        self.env.log.append(value)

    async def put(self, key: str, value: Any = 1) -> Any:
        self.storage.put(key, value)
        return value

    async def pair(self, value: Any) -> None:
        self.storage.put("left", value)
        self.storage.put("right", value)

    async def pair_slowly(self, value: Any) -> None:
        self.storage.put("left", value)
        await self.env.go.wait()
        self.storage.put("right", value)

    async def read(self) -> dict[str, Any]:
        return self.storage.list()


class House:
    """A runtime, its threads, and actors that do what they are told."""

    def __init__(self, runtime: z0.Runtime, world: World, threads: Threads) -> None:
        self.runtime = runtime
        self.world = world
        self.threads = threads

    def room(self, name: str = "a") -> Room:
        return self.runtime.get(Room, name)

    async def run(self, script: Callable[[Room], T], name: str = "a") -> T:
        """As one message that cannot wait."""
        self.world.scripts.append(script)
        reply: T = await self.room(name).run(len(self.world.scripts) - 1)
        return reply

    def start(self, script: Callable[[Room], Any], name: str = "a") -> asyncio.Task[Any]:
        """As a message that may wait."""
        self.world.scripts.append(script)
        return asyncio.create_task(self.room(name).run_slowly(len(self.world.scripts) - 1))


@pytest.fixture
async def world() -> World:
    return World()


@pytest.fixture
async def house(world: World, clock: VirtualClock) -> AsyncIterator[House]:
    """Every commit of it goes through `threads`."""
    threads = Threads()
    limits = z0.Limits(inline_sync_seconds=0, close_seconds=1)
    async with temporary_runtime(memory=True, clock=clock, env=world, limits=limits, executor=threads) as runtime:
        house = House(runtime, world, threads)
        await house.room("a").read()
        await house.room("b").read()
        threads.jobs = 0
        yield house
        await threads.release()


# Segments


async def test_a_segment_is_never_interleaved(house: House, world: World) -> None:
    async def handler(room: Room) -> None:
        for _ in range(3):
            world.log.append("begin")
            room.storage.put("n", room.storage.get("n", 0) + 1)
            world.log.append("end")
            await asyncio.sleep(0)

    await asyncio.gather(*(house.start(handler) for _ in range(10)))
    assert world.log == ["begin", "end"] * 30
    assert await house.room().read() == {"n": 30}


async def test_other_messages_run_while_a_handler_waits(house: House, world: World) -> None:
    async def handler(room: Room) -> None:
        world.log.append("before")
        await world.go.wait()
        world.log.append("after")

    waiting = house.start(handler)
    await quiet()
    await house.room().note("between")
    world.go.set()
    await waiting
    assert world.log == ["before", "between", "after"]


async def test_awaiting_what_is_complete_is_no_boundary(house: House, world: World) -> None:
    async def nothing() -> None: ...

    async def handler(room: Room) -> None:
        done = asyncio.get_running_loop().create_future()
        done.set_result(None)
        world.log.append("before")
        await done
        await nothing()
        world.log.append("after")

    first = house.start(handler)
    await asyncio.gather(first, house.room().note("other"))
    assert world.log == ["before", "after", "other"]


async def test_increments_read_and_written_in_one_segment_are_never_lost(house: House) -> None:
    def increment(room: Room) -> None:
        room.storage.put("n", room.storage.get("n", 0) + 1)

    await asyncio.gather(*(house.run(increment) for _ in range(50)))
    assert await house.room().read() == {"n": 50}


async def test_a_raising_segment_loses_its_writes_and_earlier_segments_stand(house: House) -> None:
    async def handler(room: Room) -> None:
        room.storage.put("first", 1)
        await asyncio.sleep(0)
        room.storage.put("second", 2)
        raise ValueError("third")

    with pytest.raises(ValueError, match="third"):
        await house.start(handler)
    assert await house.room().read() == {"first": 1}


# Input gate: block()


def blocking(world: World, *, then: str = "") -> Callable[[Room], Any]:
    async def handler(room: Room) -> str:
        async with room.block():
            world.log.append(f"in{then}")
            await world.go.wait()
            world.log.append(f"out{then}")
        return "done"

    return handler


async def test_nothing_else_is_delivered_inside_a_block(house: House, world: World) -> None:
    held = house.start(blocking(world))
    await quiet()
    others = [asyncio.create_task(house.room().note(number)) for number in range(3)]
    others.append(house.start(lambda room: room.note("slow")))
    await quiet()
    assert world.log == ["in"]
    world.go.set()
    assert await held == "done"
    await asyncio.gather(*others)
    assert world.log == ["in", "out", 0, 1, 2, "slow"]


async def test_a_handler_that_resumes_waits_for_the_block(house: House, world: World) -> None:
    resume = asyncio.Event()

    async def handler(room: Room) -> None:
        await resume.wait()
        world.log.append("resumed")

    resuming = house.start(handler)
    await quiet()
    held = house.start(blocking(world))
    await quiet()
    resume.set()
    await quiet()
    assert world.log == ["in"]
    world.go.set()
    await asyncio.gather(held, resuming)
    assert world.log == ["in", "out", "resumed"]


async def test_other_actors_go_on_during_a_block(house: House, world: World) -> None:
    held = house.start(blocking(world))
    await quiet()
    await house.room("b").note("other")
    world.go.set()
    await held
    assert world.log == ["in", "other", "out"]


async def test_the_holder_may_call_other_actors(house: House) -> None:
    async def handler(room: Room) -> Any:
        async with room.block():
            room.storage.put("n", 1)
            return await room.get(Room, "b").put("n", 2)

    assert await house.start(handler) == 2


async def test_two_blocks_run_one_after_the_other(house: House, world: World) -> None:
    calls = [house.start(blocking(world, then=str(number))) for number in range(3)]
    await quiet()
    assert world.log == ["in0"]
    world.go.set()
    await asyncio.gather(*calls)
    assert world.log == ["in0", "out0", "in1", "out1", "in2", "out2"]


async def test_a_block_that_two_running_handlers_ask_for_is_given_to_one_at_a_time(house: House, world: World) -> None:
    start = asyncio.Event()

    async def handler(room: Room) -> None:
        await start.wait()
        async with room.block():
            world.log.append("in")
            await asyncio.sleep(0)
            world.log.append("out")

    calls = [house.start(handler) for _ in range(3)]
    await quiet()
    start.set()
    await asyncio.gather(*calls)
    assert world.log == ["in", "out"] * 3


async def test_blocks_nest_and_the_outermost_lets_others_in(house: House, world: World) -> None:
    async def handler(room: Room) -> None:
        async with room.block():
            async with room.block():
                await quiet()
            await quiet()
            world.log.append("outer")

    held = house.start(handler)
    await asyncio.gather(held, house.room().note("other"))
    assert world.log == ["outer", "other"]


async def test_64_nested_blocks_are_allowed_and_the_65th_raises_in_the_handler(house: House) -> None:
    async def handler(room: Room) -> str:
        async with AsyncExitStack() as stack:
            for _ in range(64):
                await stack.enter_async_context(room.block())
            room.memory.append("kept")
            try:
                async with room.block():
                    return "too deep"
            except z0.LimitExceeded as error:
                return str(error)

    assert await house.start(handler) == "block() is nested 64 deep (block_depth)"
    assert await house.run(lambda room: room.memory) == ["kept"]


async def test_a_block_is_for_the_actors_own_handlers(house: House) -> None:
    rooms: list[Room] = []

    def script(room: Room) -> None:
        rooms.append(room)

    await house.run(script)
    with pytest.raises(RuntimeError, match="own handlers"):
        async with rooms[0].block():
            pass


async def test_a_block_held_too_long_resets_the_actor(house: House, world: World, clock: VirtualClock) -> None:
    await house.room().put("kept")
    held = house.start(blocking(world))
    waiting = asyncio.create_task(house.room().read())
    await clock.advance("29 seconds")
    assert not held.done()
    await clock.advance("2 seconds")
    for call in held, waiting:
        with pytest.raises(z0.ActorReset, match=r"more than 30 seconds \(block_seconds\)") as caught:
            await call
        assert caught.value.retryable
    assert await house.room().read() == {"kept": 1}


async def test_a_block_that_ended_in_time_resets_nothing(house: House, world: World, clock: VirtualClock) -> None:
    async def handler(room: Room) -> None:
        room.memory.append("kept")
        for _ in range(5):
            async with room.block():
                await room.clock.sleep("20 seconds")

    held = house.start(handler)
    await clock.advance("100 seconds")
    await held
    assert await house.run(lambda room: room.memory) == ["kept"]


async def test_the_limit_of_an_outer_block_counts_through_inner_ones(house: House, clock: VirtualClock) -> None:
    async def handler(room: Room) -> None:
        async with room.block():
            for _ in range(5):
                async with room.block():
                    await room.clock.sleep("20 seconds")

    held = house.start(handler)
    await clock.advance("31 seconds")
    with pytest.raises(z0.ActorReset):
        await held


async def test_a_failure_inside_a_block_resets_the_actor(house: House, world: World) -> None:
    await house.room().put("kept")
    await house.run(lambda room: room.memory.append("lost"))
    resumed = house.start(lambda room: world.go.wait())
    await quiet()

    async def handler(room: Room) -> None:
        async with room.block():
            room.storage.put("inside", 1)
            await quiet()
            raise ValueError("inside")

    failing = house.start(handler)
    await asyncio.sleep(0)
    waiting = asyncio.create_task(house.room().read())
    with pytest.raises(ValueError, match="inside"):
        await failing
    for call in resumed, waiting:
        with pytest.raises(z0.ActorReset, match=r"block\(\) was left by ValueError: inside"):
            await call
    assert await house.run(lambda room: room.memory) == []
    assert (await house.room().read())["kept"] == 1


async def test_a_failure_that_is_handled_inside_a_block_resets_nothing(house: House) -> None:
    async def handler(room: Room) -> str:
        room.memory.append("kept")
        async with room.block():
            try:
                async with asyncio.timeout(0):
                    await asyncio.Event().wait()
            except TimeoutError:
                return "handled"
        return "missed"

    assert await house.start(handler) == "handled"
    assert await house.run(lambda room: room.memory) == ["kept"]


async def test_a_caller_that_goes_away_does_not_open_the_block(house: House, world: World) -> None:
    held = house.start(blocking(world))
    await quiet()
    held.cancel()
    other = asyncio.create_task(house.room().note("other"))
    await quiet()
    assert world.log == ["in"]
    world.go.set()
    await other
    assert world.log == ["in", "out", "other"]


# Input gate: while a thread commits


async def test_a_handler_that_resumes_waits_while_a_thread_commits(house: House, world: World) -> None:
    async def handler(room: Room) -> dict[str, Any]:
        await world.go.wait()
        world.log.append("resumed")
        room.storage.put("mine", 2)
        return room.storage.list()

    resuming = house.start(handler)
    await quiet()
    house.threads.hold()
    writing = asyncio.create_task(house.room().put("theirs"))
    await quiet()
    world.go.set()
    await quiet()
    assert world.log == []
    await house.threads.release()
    assert world.log == ["resumed"]
    assert await writing == 1
    assert await resuming == {"theirs": 1, "mine": 2}


async def test_new_messages_wait_while_a_thread_commits(house: House, world: World) -> None:
    house.threads.hold()
    writing = asyncio.create_task(house.room().put("n"))
    await quiet()
    waiting = [asyncio.create_task(house.room().note(number)) for number in range(3)]
    await quiet()
    assert world.log == []
    await house.threads.release()
    await asyncio.gather(writing, *waiting)
    assert world.log == [0, 1, 2]


async def test_a_block_asked_for_while_a_thread_commits_is_held_afterwards(house: House, world: World) -> None:
    async def handler(room: Room) -> None:
        room.storage.put("n", 1)
        async with room.block():
            await asyncio.sleep(0)
            world.log.append("held")
            await quiet()
            world.log.append("left")

    house.threads.hold()
    held = house.start(handler)
    await quiet()
    other = asyncio.create_task(house.room().note("other"))
    await quiet()
    assert world.log == []
    await house.threads.release()
    await asyncio.gather(held, other)
    assert world.log == ["held", "left", "other"]


async def test_a_time_limit_that_ends_while_a_thread_commits_waits_with_its_handler(house: House, world: World) -> None:
    async def handler(room: Room) -> str:
        try:
            async with asyncio.timeout(0):
                room.storage.put("n", 1)
                await world.go.wait()
        except TimeoutError:
            world.log.append("limit")
        return "went on"

    house.threads.hold()
    limited = house.start(handler)
    await quiet()
    assert world.log == []
    await house.threads.release()
    assert await limited == "went on"
    assert world.log == ["limit"]


async def test_a_task_that_is_not_gated_writes_after_the_thread_that_commits(world: World) -> None:
    committing = threading.Event()
    tasks: list[asyncio.Task[None]] = []

    def commit(database: Database, rows: Rows | None = None) -> None:
        assert committing.wait(10)
        original(database, rows)

    async def background(room: Room) -> None:
        await world.go.wait()
        committing.set()
        room.storage.put("background", room.storage.get("n"))

    limits = z0.Limits(inline_sync_seconds=0, close_seconds=1)
    async with temporary_runtime(memory=True, env=world, limits=limits) as runtime:
        house = House(runtime, world, Threads())
        await house.run(lambda room: tasks.append(asyncio.create_task(background(room))))
        original = Database.commit
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Database, "commit", commit)
            writing = asyncio.create_task(house.room().put("n", 7))
            await quiet()
            world.go.set()
            await asyncio.gather(writing, *tasks)
            assert await house.room().read() == {"background": 7, "n": 7}


# Output gate


async def test_a_reply_waits_for_the_commit(house: House) -> None:
    house.threads.hold()
    calls = [asyncio.create_task(house.room().put("n")), house.start(lambda room: room.put("m"))]
    await quiet()
    assert not any(call.done() for call in calls)
    await house.threads.release()
    assert await asyncio.gather(*calls) == [1, 1]


async def test_a_reply_of_a_handler_that_may_wait_waits_for_the_commit(house: House) -> None:
    house.threads.hold()
    call = house.start(lambda room: room.put("n"))
    await quiet()
    assert not call.done()
    await house.threads.release()
    assert await call == 1


async def test_an_error_of_a_handler_that_may_wait_waits_for_the_commit(house: House, world: World) -> None:
    async def write(room: Room) -> None:
        await world.go.wait()
        room.storage.put("n", 1)

    async def fail(room: Room) -> None:
        await world.go.wait()
        raise ValueError(str(room.storage.list()))

    calls = [house.start(write), house.start(fail)]
    await quiet()
    house.threads.hold()
    world.go.set()
    await quiet()
    assert not any(call.done() for call in calls)
    await house.threads.release()
    await calls[0]
    with pytest.raises(ValueError, match="'n': 1"):
        await calls[1]


async def test_replies_of_messages_that_waited_in_the_mailbox_wait_for_the_commit(house: House, world: World) -> None:
    held = house.start(blocking(world))
    await quiet()
    writing = asyncio.create_task(house.room().put("n"))
    reading = asyncio.create_task(house.room().read())
    await quiet()
    house.threads.hold()
    world.go.set()
    await quiet()
    assert not writing.done()
    assert not reading.done()
    await house.threads.release()
    assert (await held, await writing, await reading) == ("done", 1, {"n": 1})


async def test_an_error_waits_for_what_was_written_before(house: House) -> None:
    def fail(room: Room) -> None:
        raise ValueError("late")

    house.threads.hold()
    writing = asyncio.create_task(house.room().put("n"))
    failing = asyncio.create_task(house.run(fail))
    await quiet()
    assert not writing.done()
    assert not failing.done()
    await house.threads.release()
    await writing
    with pytest.raises(ValueError, match="late"):
        await failing


async def test_an_error_of_a_later_segment_waits_for_the_earlier_ones(house: House) -> None:
    async def handler(room: Room) -> None:
        room.storage.put("n", 1)
        raise_soon = asyncio.get_running_loop().create_future()
        raise_soon.set_exception(ValueError("late"))
        await asyncio.sleep(0)
        await raise_soon

    house.threads.hold()
    failing = house.start(handler)
    await quiet()
    assert not failing.done()
    await house.threads.release()
    with pytest.raises(ValueError, match="late"):
        await failing
    assert await house.room().read() == {"n": 1}


async def test_a_read_waits_for_the_writes_that_it_saw(house: House) -> None:
    house.threads.hold()
    writing = asyncio.create_task(house.room().put("n"))
    reading = asyncio.create_task(house.room().read())
    await quiet()
    assert not reading.done()
    await house.threads.release()
    assert await reading == {"n": 1}
    await writing


async def test_a_read_of_another_actor_waits_for_nobody(house: House) -> None:
    house.threads.hold()
    writing = asyncio.create_task(house.room("a").put("n"))
    await quiet()
    assert await house.room("b").read() == {}
    await house.threads.release()
    await writing


async def test_a_message_to_another_actor_leaves_after_the_senders_writes(house: House, world: World) -> None:
    async def handler(room: Room) -> None:
        room.storage.put("n", 1)
        await room.get(Room, "b").note("received")

    house.threads.hold()
    sending = house.start(handler)
    await quiet()
    assert world.log == []
    await house.threads.release()
    await sending
    assert world.log == ["received"]


async def test_a_message_sent_by_a_task_of_a_handler_leaves_after_the_writes_too(house: House, world: World) -> None:
    tasks: list[asyncio.Task[None]] = []

    def handler(room: Room) -> None:
        room.storage.put("n", 1)
        tasks.append(asyncio.create_task(room.get(Room, "b").note("received")))

    house.threads.hold()
    sending = asyncio.create_task(house.run(handler))
    await quiet()
    assert world.log == []
    await house.threads.release()
    await asyncio.gather(sending, *tasks)
    assert world.log == ["received"]


async def test_a_message_through_a_stub_of_the_outside_leaves_after_the_writes_too(house: House, world: World) -> None:
    async def handler(room: Room) -> None:
        room.storage.put("n", 1)
        await house.room("b").note("received")

    house.threads.hold()
    sending = house.start(handler)
    await quiet()
    assert world.log == []
    await house.threads.release()
    await sending
    assert world.log == ["received"]


class Borrower(Room):
    async def use(self, stub: Room) -> None:
        self.storage.put("n", 1)
        await stub.note("received")


async def test_a_message_through_a_borrowed_stub_waits_for_the_borrowers_writes(house: House, world: World) -> None:
    borrower = house.runtime.get(Borrower, "c")
    await borrower.read()

    async def lend(room: Room) -> None:
        await room.get(Borrower, "c").use(room.get(Room, "b"))

    house.threads.hold()
    lending = house.start(lend)
    await quiet()
    assert world.log == []
    await house.threads.release()
    await lending
    assert world.log == ["received"]


async def test_a_sync_returns_when_the_writes_are_durable(house: House, world: World) -> None:
    async def handler(room: Room) -> None:
        room.storage.put("n", 1)
        await room.storage.sync()
        world.log.append("synced")

    house.threads.hold()
    syncing = house.start(handler)
    await quiet()
    assert world.log == []
    await house.threads.release()
    await syncing
    assert world.log == ["synced"]


async def test_a_sync_with_nothing_to_write_returns_at_once(house: House) -> None:
    house.threads.hold()
    await house.start(lambda room: room.storage.sync())
    assert house.threads.jobs == 0


async def test_a_message_that_waits_to_leave_does_not_when_its_caller_goes_away(house: House, world: World) -> None:
    tasks: list[asyncio.Task[None]] = []

    def handler(room: Room) -> None:
        room.storage.put("n", 1)
        tasks.extend(asyncio.create_task(room.get(Room, "b").note(number)) for number in range(3))

    house.threads.hold()
    handling = asyncio.create_task(house.run(handler))
    await quiet()
    tasks[1].cancel()
    await quiet()
    await house.threads.release()
    await asyncio.gather(handling, tasks[0], tasks[2])
    assert tasks[1].cancelled()
    assert world.log == [0, 2]


@pytest.mark.parametrize("passes", range(5))
async def test_a_message_leaves_although_nothing_was_written_before_it_and_a_neighbour_fails(
    house: House, world: World, passes: int
) -> None:
    def taken_back(room: Room) -> None:
        with room.storage.transaction():
            room.storage.put("n", 1)
            raise ValueError("taken back")

    async def handler(room: Room) -> None:
        with pytest.raises(ValueError, match="taken back"):
            taken_back(room)
        await room.get(Room, "b").note("received")

    def fail(room: Room) -> None:
        room.storage.put("n", 2)
        raise ValueError("neighbour")

    sending = house.start(handler)
    for _ in range(passes):
        await pass_once()
    with pytest.raises(ValueError, match="neighbour"):
        await house.run(fail)
    async with asyncio.timeout(2):
        await sending
    assert world.log == ["received"]
    assert await house.room().read() == {}


async def test_nothing_leaves_an_incarnation_that_was_reset(house: House, world: World) -> None:
    tasks: list[asyncio.Task[None]] = []

    async def send(room: Room) -> None:
        await world.go.wait()
        await room.get(Room, "b").note("received")

    async def fail(room: Room) -> None:
        async with room.block():
            raise ValueError("reset")

    await house.run(lambda room: tasks.append(asyncio.create_task(send(room))))
    with pytest.raises(ValueError, match="reset"):
        await house.start(fail)
    world.go.set()
    with pytest.raises(z0.ActorReset):
        await tasks[0]
    assert world.log == []


# Commits that fail


@pytest.fixture
def fail_next_commit(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def arrange() -> None:
        as_ever = Database.commit

        def commit(database: Database, rows: Rows | None = None) -> None:
            if database.path.name == CATALOG_FILE:
                return as_ever(database, rows)
            monkeypatch.undo()
            raise DatabaseFailure("the disk is gone")

        monkeypatch.setattr(Database, "commit", commit)

    return arrange


async def test_a_failed_commit_gives_the_whole_turn_an_unknown_outcome(
    house: House, fail_next_commit: Callable[[], None]
) -> None:
    await house.room().put("kept")
    await house.run(lambda room: room.memory.append("lost"))
    fail_next_commit()
    calls = [asyncio.create_task(house.room().put("n", number)) for number in range(3)]
    calls.append(asyncio.create_task(house.room().read()))
    for call in calls:
        with pytest.raises(z0.CommitUnknown, match="the disk is gone; call again with the same") as caught:
            await call
        assert caught.value.retryable
    assert await house.run(lambda room: room.memory) == []
    assert await house.room().read() == {"kept": 1}


async def test_a_failed_commit_lets_no_message_out(
    house: House, world: World, fail_next_commit: Callable[[], None]
) -> None:
    async def handler(room: Room) -> None:
        room.storage.put("n", 1)
        await room.get(Room, "b").note("received")

    fail_next_commit()
    with pytest.raises((z0.CommitUnknown, z0.ActorReset)):
        await house.start(handler)
    await quiet()
    assert world.log == []


async def test_a_failed_commit_of_one_actor_leaves_others_alone(
    house: House, fail_next_commit: Callable[[], None]
) -> None:
    house.threads.hold()
    failing = asyncio.create_task(house.room("a").put("n"))
    working = asyncio.create_task(house.room("b").put("n"))
    await quiet()
    fail_next_commit()
    await house.threads.release()
    with pytest.raises(z0.CommitUnknown):
        await failing
    assert await working == 1


async def test_after_a_failed_commit_a_full_checkpoint_comes_before_the_next_message(
    house: House, monkeypatch: pytest.MonkeyPatch, fail_next_commit: Callable[[], None]
) -> None:
    fail_next_commit()
    with pytest.raises(z0.CommitUnknown):
        await house.room().put("n")
    checkpoints: list[bool] = []
    monkeypatch.setattr(Database, "checkpoint", lambda database, *, wait=False: checkpoints.append(wait))
    await house.room().read()
    assert checkpoints == [True]


# Group commit


async def test_messages_of_one_moment_share_one_commit(house: House) -> None:
    await asyncio.gather(*(house.room().put(f"k{number}") for number in range(20)))
    assert house.threads.jobs == 1


async def test_handlers_that_resume_together_share_one_commit(house: House, world: World) -> None:
    async def handler(room: Room) -> None:
        await world.go.wait()
        room.storage.put("n", room.storage.get("n", 0) + 1)

    calls = [house.start(handler) for _ in range(20)]
    await quiet()
    world.go.set()
    await asyncio.gather(*calls)
    assert house.threads.jobs == 1


async def test_messages_that_come_while_a_thread_commits_share_the_next_commit(house: House) -> None:
    house.threads.hold()
    calls = [asyncio.create_task(house.room().put("k"))]
    await quiet()
    calls += [asyncio.create_task(house.room().put(f"k{number}")) for number in range(20)]
    await quiet()
    await house.threads.release()
    await asyncio.gather(*calls)
    assert house.threads.jobs == 2


async def test_reading_commits_nothing(house: House) -> None:
    await asyncio.gather(house.room().read(), house.start(lambda room: quiet()))
    assert house.threads.jobs == 0


async def test_a_message_that_raised_commits_nothing(house: House) -> None:
    def fail(room: Room) -> None:
        room.storage.put("n", 1)
        raise ValueError("late")

    with pytest.raises(ValueError, match="late"):
        await house.run(fail)
    assert house.threads.jobs == 0


async def test_actors_that_write_together_commit_in_threads_beside_each_other(world: World) -> None:
    threads = Threads()
    limits = z0.Limits(inline_sync_seconds=60)
    async with temporary_runtime(memory=True, env=world, limits=limits, executor=threads) as runtime:
        rooms = [runtime.get(Room, f"r{number}") for number in range(10)]
        for room in rooms:
            await room.read()
        threads.jobs = 0
        threads.hold()
        calls = [asyncio.create_task(room.put("n", number)) for number, room in enumerate(rooms)]
        await quiet()
        assert threads.jobs >= 9
        await threads.release()
        assert await asyncio.gather(*calls) == list(range(10))


async def test_an_actor_that_writes_alone_commits_without_a_thread(world: World) -> None:
    threads = Threads()
    limits = z0.Limits(inline_sync_seconds=60)
    async with temporary_runtime(memory=True, env=world, limits=limits, executor=threads) as runtime:
        room = runtime.get(Room, "a")
        await room.read()
        threads.jobs = 0
        assert await asyncio.gather(*(room.put("n", number) for number in range(5))) == list(range(5))
        assert threads.jobs == 0


async def test_a_caller_that_writes_one_message_after_another_lets_others_run(world: World) -> None:
    passes = 0

    async def other() -> None:
        nonlocal passes
        while True:
            await pass_once()
            passes += 1

    limits = z0.Limits(inline_sync_seconds=60)
    async with temporary_runtime(memory=True, env=world, limits=limits) as runtime:
        room = runtime.get(Room, "a")
        await room.read()
        task = asyncio.create_task(other())
        for number in range(100):
            await room.put("n", number)
        task.cancel()
    assert passes >= 10


# Cancelled callers


async def cancelled(call: asyncio.Task[Any]) -> None:
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_others_are_answered_when_the_first_caller_of_a_turn_goes_away(house: House) -> None:
    first, *others = [asyncio.create_task(house.room().put(f"k{number}", number)) for number in range(4)]
    await asyncio.sleep(0)
    await cancelled(first)
    assert await asyncio.gather(*others) == [1, 2, 3]
    assert await house.room().read() == {f"k{number}": number for number in range(4)}


async def test_others_are_answered_when_a_later_caller_of_a_turn_goes_away(house: House) -> None:
    calls = [asyncio.create_task(house.room().put(f"k{number}", number)) for number in range(4)]
    await asyncio.sleep(0)
    await cancelled(calls.pop(2))
    assert await asyncio.gather(*calls) == [0, 1, 3]
    assert await house.room().read() == {f"k{number}": number for number in range(4)}


async def test_a_turn_is_committed_when_all_its_callers_have_gone(house: House) -> None:
    calls = [asyncio.create_task(house.room().put(f"k{number}")) for number in range(3)]
    await asyncio.sleep(0)
    for call in calls:
        call.cancel()
    await quiet()
    assert all(call.cancelled() for call in calls)
    assert house.threads.jobs == 1
    assert len(await house.room().read()) == 3


async def test_a_caller_cancelled_during_the_commit_hears_of_it_when_the_turn_ends(house: House) -> None:
    house.threads.hold()
    calls = [asyncio.create_task(house.room().put(f"k{number}", number)) for number in range(3)]
    await quiet()
    calls[0].cancel()
    await quiet()
    assert not calls[0].done()
    await house.threads.release()
    assert calls[0].cancelled()
    assert await asyncio.gather(*calls[1:]) == [1, 2]
    assert len(await house.room().read()) == 3


async def test_nothing_of_a_message_happens_when_its_caller_goes_away_before_its_turn(
    house: House, world: World
) -> None:
    held = house.start(blocking(world))
    await quiet()
    waiting = [asyncio.create_task(house.room().put(f"k{number}")) for number in range(3)]
    slow = house.start(lambda room: room.put("slow"))
    await quiet()
    await cancelled(waiting[1])
    await cancelled(slow)
    world.go.set()
    await held
    await asyncio.gather(waiting[0], waiting[2])
    assert set(await house.room().read()) == {"k0", "k2"}


async def test_a_handler_goes_on_when_its_caller_goes_away(house: House, world: World) -> None:
    call = asyncio.create_task(house.room().pair_slowly(1))
    await quiet()
    await cancelled(call)
    world.go.set()
    await quiet()
    assert await house.room().read() == {"left": 1, "right": 1}


async def test_a_caller_may_go_away_while_the_actor_opens(house: House) -> None:
    call = asyncio.create_task(house.room("new").pair(1))
    await asyncio.sleep(0)
    await cancelled(call)
    assert await house.room("new").read() in ({}, {"left": 1, "right": 1})


@pytest.mark.parametrize("name", ["a", "new"])
@pytest.mark.parametrize("message", ["pair", "pair_slowly"])
@pytest.mark.parametrize("passes", range(12))
async def test_a_cancelled_message_happens_wholly_or_not_at_all(
    house: House, world: World, message: str, name: str, passes: int
) -> None:
    world.go.set()
    room = house.room(name)
    call = asyncio.create_task(getattr(room, message)(1))
    neighbour = asyncio.create_task(house.room("a").put("neighbour"))
    for _ in range(passes):
        await asyncio.sleep(0)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert await neighbour == 1
    await room.put("after")
    after = await room.read()
    assert (after.get("left"), after.get("right")) in {(1, 1), (None, None)}
    assert await house.runtime.evict(Room, name)


async def test_a_time_limit_around_a_call_leaves_the_actor_healthy(house: House, world: World) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await house.room().pair_slowly(1)
    world.go.set()
    assert await house.room().put("after") == 1

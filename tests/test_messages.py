"""Messages: what a stub offers, in which order calls arrive, what travels with them, and what happens only once."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any

import msgspec
import pytest

import z0
from z0.actors.gates import pass_once
from z0.testing import VirtualClock, crash, temporary_runtime

TRACE: ContextVar[str] = ContextVar("trace", default="")


class World:
    """What actors of a test have as their environment: a log, and events to wait for."""

    def __init__(self) -> None:
        self.log: list[Any] = []
        self.go = asyncio.Event()


@pytest.fixture
async def world() -> World:
    return World()


@pytest.fixture
async def runtime(world: World, clock: VirtualClock) -> AsyncIterator[z0.Runtime]:
    limits = z0.Limits(close_seconds=1, inline_sync_seconds=60)
    async with temporary_runtime(memory=True, clock=clock, env=world, limits=limits) as runtime:
        yield runtime


class Oops(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(f"oops {code}")
        self.code = code


class Note(msgspec.Struct):
    items: list[int]


class Desk(z0.Actor):
    """Takes notes."""

    env: World
    limit = 3

    def __init__(self) -> None:
        self.kept: Any = None

    def helper(self) -> int:
        return 1

    @staticmethod
    async def static() -> None: ...

    @classmethod
    async def of_class(cls) -> None: ...

    async def _private(self) -> None: ...

    async def note(self, value: Any) -> Any:
        """Keep the value and give it back."""
        self.env.log.append(value)
        self.kept = value
        return value

    async def slowly(self, value: Any) -> Any:
        self.env.log.append(value)
        await self.env.go.wait()
        return value

    async def read(self) -> Any:
        return self.kept

    async def add(self, by: int = 1) -> int:
        total: int = self.storage.get("total", 0) + by
        self.storage.put("total", total)
        return total

    async def fail(self, code: int) -> None:
        raise Oops(code)

    async def fail_slowly(self, code: int) -> None:
        await self.env.go.wait()
        raise Oops(code)

    async def trace(self) -> str:
        return TRACE.get()

    async def trace_slowly(self) -> str:
        await asyncio.sleep(0)
        return TRACE.get()


class Idle(z0.Actor):
    pass


async def until(world: World, count: int) -> None:
    """Return when the log has that many entries."""
    while len(world.log) < count:
        await pass_once()


# Stubs


async def test_making_a_stub_creates_nothing(runtime: z0.Runtime) -> None:
    runtime.get(Desk, "a")
    assert await runtime.list(Desk) == []
    assert not (runtime.path / "default").exists()


async def test_the_first_message_creates_the_actor(runtime: z0.Runtime) -> None:
    assert await runtime.get(Desk, "a").add() == 1
    assert [info.name for info in await runtime.list(Desk)] == ["a"]


async def test_nothing_is_sent_before_the_call_is_awaited(runtime: z0.Runtime, world: World) -> None:
    desk = runtime.get(Desk, "a")
    await desk.note("warm")
    call = desk.note("sent")
    await asyncio.sleep(0)
    assert world.log == ["warm"]
    assert await call == "sent"
    assert world.log == ["warm", "sent"]


async def test_a_call_that_is_never_awaited_is_never_sent(runtime: z0.Runtime) -> None:
    call = runtime.get(Desk, "a").note("x")
    assert inspect.iscoroutine(call)
    call.close()
    assert await runtime.list(Desk) == []


@pytest.mark.parametrize(
    "name",
    [
        "_private",
        "helper",
        "static",
        "of_class",
        "limit",
        "missing",
        "start",
        "stop",
        "alarm",
        "name",
        "storage",
        "get",
    ],
)
async def test_anything_but_a_message_is_an_attribute_error_that_names_the_messages(
    runtime: z0.Runtime, name: str
) -> None:
    with pytest.raises(AttributeError) as caught:
        getattr(runtime.get(Desk, "a"), name)
    assert f"a stub of Desk has no {name!r}" in str(caught.value)
    assert "add, fail, fail_slowly, note, read, slowly, trace, trace_slowly" in str(caught.value)


async def test_a_stub_of_a_class_without_messages_says_so(runtime: z0.Runtime) -> None:
    with pytest.raises(AttributeError, match="its messages are: none"):
        getattr(runtime.get(Idle, "a"), "anything")  # noqa: B009


async def test_a_stub_has_no_room_for_attributes(runtime: z0.Runtime) -> None:
    with pytest.raises(AttributeError):
        runtime.get(Desk, "a").kept = 1


async def test_a_message_on_a_stub_keeps_its_name_and_documentation(runtime: z0.Runtime) -> None:
    message = runtime.get(Desk, "a").note
    assert (message.__name__, message.__doc__) == ("note", "Keep the value and give it back.")


async def test_a_stub_tells_which_actor_it_is_of(runtime: z0.Runtime) -> None:
    assert repr(runtime.get(Desk, "a")) == "<stub of Desk 'a'>"


async def test_stubs_of_the_same_actor_are_equal(runtime: z0.Runtime) -> None:
    assert len({runtime.get(Desk, "a"), runtime.get(Desk, "a"), runtime.get(Desk, "b")}) == 2
    assert runtime.get(Desk, "a") != runtime.tenant("t").get(Desk, "a")


async def test_the_same_class_and_name_is_always_the_same_actor(runtime: z0.Runtime) -> None:
    await runtime.get(Desk, "a").add(2)
    assert await runtime.get(Desk, "a").add(3) == 5
    assert await runtime.get(Desk, "b").add(3) == 3


class Table(Desk):
    async def add(self, by: int = 1) -> int:
        return -await super().add(by)


async def test_the_same_name_in_another_class_is_another_actor(runtime: z0.Runtime) -> None:
    await runtime.get(Desk, "a").add(2)
    assert await runtime.get(Table, "a").add(3) == -3


async def test_the_same_name_of_another_tenant_is_another_actor(runtime: z0.Runtime) -> None:
    await runtime.get(Desk, "a").add(2)
    assert await runtime.tenant("t1").get(Desk, "a").add(3) == 3
    assert await runtime.tenant("default").get(Desk, "a").add(3) == 5


async def test_messages_are_inherited(runtime: z0.Runtime) -> None:
    assert await runtime.get(Table, "a").note("x") == "x"


async def test_only_subclasses_of_actor_have_stubs(runtime: z0.Runtime) -> None:
    with pytest.raises(TypeError, match=r"not a subclass of z0\.Actor"):
        runtime.get(World, "a")  # type: ignore[type-var]


# Namespaces


def desk_class(namespace: str | None = None, name: str = "Desk") -> type[Desk]:
    return type(name, (Desk,), {} if namespace is None else {"namespace": namespace})


@pytest.mark.parametrize("twin", [desk_class(), desk_class("Desk", "Other"), desk_class("DESK", "Other")])
async def test_a_second_class_for_one_namespace_is_refused(runtime: z0.Runtime, twin: type[Desk]) -> None:
    runtime.get(Desk, "a")
    with pytest.raises(z0.NamespaceConflict, match="test_messages"):
        runtime.get(twin, "a")
    assert await runtime.get(Desk, "a").add() == 1


def test_classes_given_to_the_runtime_are_known_from_the_start() -> None:
    with pytest.raises(z0.NamespaceConflict, match="'Desk'"):
        z0.Runtime("unused", actors=[Desk, Idle, desk_class()])


async def test_a_renamed_class_keeps_its_actors_by_its_namespace(world: World, clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, clock=clock, env=world) as first:
        await first.get(Desk, "a").add(5)
        await crash(first)
        async with z0.Runtime(first.path, clock=clock, env=world) as second:
            assert await second.get(desk_class("Desk", "Renamed"), "a").add(1) == 6


# Order


@pytest.mark.parametrize("warm", [True, False])
async def test_messages_of_one_sender_arrive_in_order_also_when_some_may_wait(
    runtime: z0.Runtime, world: World, warm: bool
) -> None:
    desk = runtime.get(Desk, "a")
    if warm:
        await desk.read()
    calls = [desk.slowly(number) if number % 3 == 0 else desk.note(number) for number in range(20)]
    async with asyncio.TaskGroup() as group:
        for call in calls:
            group.create_task(call)
        await until(world, 20)
        world.go.set()
    assert world.log == list(range(20))


async def test_a_message_does_not_overtake_one_that_waits_for_the_gate(runtime: z0.Runtime, world: World) -> None:
    class Gated(Desk):
        async def hold(self) -> None:
            async with self.block():
                await self.env.go.wait()
                self.env.log.append("held")

    gated = runtime.get(Gated, "a")
    await gated.read()
    async with asyncio.TaskGroup() as group:
        group.create_task(gated.hold())
        for number in range(6):
            group.create_task(gated.trace_slowly() if number == 2 else gated.note(number))
        await asyncio.sleep(0)
        world.go.set()
    assert world.log == ["held", 0, 1, 3, 4, 5]


class Sender(Desk):
    async def send_many(self, to: str) -> None:
        desk = self.get(Desk, to)
        async with asyncio.TaskGroup() as group:
            for number in range(10):
                self.storage.put("sent", number)
                group.create_task(desk.slowly(number) if number % 2 else desk.note(number))
            await until(self.env, 10)
            self.env.go.set()

    async def send_around_a_sync(self, to: str) -> None:
        desk = self.get(Desk, to)
        self.storage.put("sent", 1)
        first = asyncio.create_task(desk.note("first"))
        await self.storage.sync()
        await desk.note("second")
        await first

    async def send_around_a_wait(self, to: str) -> None:
        desk = self.get(Desk, to)
        self.storage.put("sent", 1)
        first = asyncio.create_task(desk.note("first"))
        await asyncio.sleep(0)
        second = asyncio.create_task(desk.note("second"))
        await asyncio.sleep(0)
        await desk.note("third")
        await asyncio.gather(first, second)


async def test_messages_of_an_actor_arrive_in_the_order_in_which_they_were_sent(
    runtime: z0.Runtime, world: World
) -> None:
    await runtime.get(Sender, "s").send_many("a")
    assert world.log == list(range(10))


@pytest.mark.parametrize(
    ("message", "order"),
    [("send_around_a_sync", ["first", "second"]), ("send_around_a_wait", ["first", "second", "third"])],
)
@pytest.mark.parametrize("inline", [0, 60])
async def test_a_message_does_not_overtake_one_that_waits_for_its_senders_writes(
    world: World, inline: float, message: str, order: list[str]
) -> None:
    limits = z0.Limits(inline_sync_seconds=inline)
    async with temporary_runtime(memory=True, clock=VirtualClock(), env=world, limits=limits) as runtime:
        await runtime.get(Desk, "a").read()
        await getattr(runtime.get(Sender, "s"), message)("a")
    assert world.log == order


# Errors


@pytest.mark.parametrize("cold", [True, False])
async def test_an_error_reaches_the_caller_with_its_type_and_message(runtime: z0.Runtime, cold: bool) -> None:
    desk = runtime.get(Desk, "a")
    if not cold:
        await desk.read()
    with pytest.raises(Oops, match="oops 7") as caught:
        await desk.fail(7)
    assert caught.value.code == 7
    assert await desk.add() == 1


async def test_an_error_of_a_handler_that_waited_reaches_the_caller_too(runtime: z0.Runtime, world: World) -> None:
    world.go.set()
    with pytest.raises(Oops, match="oops 8"):
        await runtime.get(Desk, "a").fail_slowly(8)


async def test_an_error_passes_through_the_actors_between(runtime: z0.Runtime) -> None:
    class Between(Desk):
        async def ask(self) -> None:
            await self.get(Desk, "a").fail(9)

    with pytest.raises(Oops, match="oops 9"):
        await runtime.get(Between, "b").ask()


@pytest.mark.parametrize(
    "call",
    [
        lambda desk: desk.note(),
        lambda desk: desk.note(1, 2),
        lambda desk: desk.note(valeu=1),
        lambda desk: desk.slowly(),
    ],
)
async def test_wrong_arguments_are_a_type_error_and_the_actor_goes_on(runtime: z0.Runtime, call: Any) -> None:
    desk = runtime.get(Desk, "a")
    for _ in "cold", "warm":
        with pytest.raises(TypeError, match=r"note\(\)|slowly\(\)"):
            await call(desk)
    assert await desk.add() == 1


class Quitter(Desk):
    async def quit(self) -> None:
        self.storage.put("total", 99)
        raise asyncio.CancelledError

    async def quit_slowly(self) -> None:
        self.storage.put("total", 99)
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)


@pytest.mark.parametrize("state", ["cold", "warm"])
@pytest.mark.parametrize("message", ["quit", "quit_slowly"])
async def test_a_handler_that_cancels_itself_still_answers_its_caller(
    runtime: z0.Runtime, message: str, state: str
) -> None:
    quitter = runtime.get(Quitter, "a")
    if state == "warm":
        await quitter.read()
    with pytest.raises((RuntimeError, asyncio.CancelledError)):
        await asyncio.wait_for(getattr(quitter, message)(), 2)
    assert await asyncio.wait_for(quitter.add(), 2) in {1, 100}


async def test_an_error_leaves_nothing_that_keeps_the_actor_from_resting(runtime: z0.Runtime) -> None:
    desk = runtime.get(Desk, "a")
    with pytest.raises(Oops):
        await desk.fail(1)
    assert await runtime.evict(Desk, "a")


# What travels


@pytest.mark.parametrize("state", ["cold", "warm"])
async def test_the_actor_and_its_caller_share_no_list(runtime: z0.Runtime, world: World, state: str) -> None:
    desk = runtime.get(Desk, "a")
    if state == "warm":
        await desk.read()
    sent = [1, [2]]
    reply = await desk.note(sent)
    sent.append("caller")
    reply.append("reply")
    assert world.log == [[1, [2]]]
    (await desk.read()).append("again")
    assert await desk.read() == [1, [2]]


async def test_arguments_by_name_are_copied_too(runtime: z0.Runtime, world: World) -> None:
    desk = runtime.get(Desk, "a")
    for _ in "cold", "warm":
        sent = Note([1])
        await desk.note(value=sent)
        sent.items.append(2)
    assert world.log == [Note([1]), Note([1])]


@pytest.mark.parametrize("message", ["note", "slowly"])
async def test_a_tuple_stays_a_tuple(runtime: z0.Runtime, world: World, message: str) -> None:
    world.go.set()
    reply = await getattr(runtime.get(Desk, "a"), message)((1, (2, [3])))
    assert reply == (1, (2, [3]))
    assert world.log == [(1, (2, [3]))]


async def test_immutable_values_pass_without_a_copy(runtime: z0.Runtime) -> None:
    value = (1, "x" * 1_000, (b"y" * 1_000,))
    assert await runtime.get(Desk, "a").note(value) is value


@pytest.mark.parametrize("message", ["note", "slowly"])
async def test_an_argument_that_cannot_travel_is_refused_before_anything_happens(
    runtime: z0.Runtime, world: World, message: str
) -> None:
    for _ in "cold", "warm":
        with pytest.raises(z0.InvalidMessage, match=r"test_messages\.World cannot travel"):
            await getattr(runtime.get(Desk, "a"), message)([World()])
    assert world.log == []


class Leaky(Desk):
    async def leak(self) -> Any:
        self.storage.put("total", 99)
        return self.env

    async def leak_slowly(self) -> Any:
        self.storage.put("total", 98)
        await asyncio.sleep(0)
        self.storage.put("total", 99)
        return self.env


@pytest.mark.parametrize(("message", "total"), [("leak", 0), ("leak_slowly", 98)])
async def test_a_reply_that_cannot_travel_fails_the_message_and_its_writes(
    runtime: z0.Runtime, message: str, total: int
) -> None:
    leaky = runtime.get(Leaky, "a")
    with pytest.raises(z0.InvalidMessage, match="World cannot travel"):
        await getattr(leaky, message)()
    assert await leaky.add(0) == total


@pytest.mark.parametrize("message", ["trace", "trace_slowly"])
async def test_context_variables_travel_with_the_message(runtime: z0.Runtime, message: str) -> None:
    token = TRACE.set("t-1")
    desk = runtime.get(Desk, "a")
    assert [await getattr(desk, message)() for _ in ("cold", "warm")] == ["t-1", "t-1"]
    TRACE.reset(token)
    assert await getattr(desk, message)() == ""


class Courier(Desk):
    async def give(self, name: str) -> Desk:
        return self.get(Desk, name)

    async def use(self, desk: Desk, value: Any) -> Any:
        return await desk.note(value)

    async def pass_on(self, to: str, name: str, value: Any) -> Any:
        return await self.get(Courier, to).use(self.get(Desk, name), value)

    async def name_and_env(self) -> tuple[str, bool]:
        return self.name, self.env is not None


async def test_stubs_travel_in_messages(runtime: z0.Runtime, world: World) -> None:
    assert await runtime.get(Courier, "c").use(runtime.get(Desk, "a"), 1) == 1
    assert await runtime.get(Courier, "c").pass_on("d", "a", 2) == 2
    assert await (await runtime.get(Courier, "c").give("a")).note(3) == 3
    assert world.log == [1, 2, 3]


async def test_a_stub_outlives_the_actor_that_gave_it(runtime: z0.Runtime) -> None:
    desk = await runtime.get(Courier, "c").give("a")
    assert await runtime.evict(Courier, "c")
    assert await desk.note(1) == 1


async def test_a_stub_outlives_the_incarnation_that_it_met(runtime: z0.Runtime) -> None:
    desk = runtime.get(Desk, "a")
    assert await desk.add() == 1
    assert await runtime.evict(Desk, "a")
    assert await desk.add() == 2


# Calls between actors


async def test_an_actor_knows_its_name_and_environment(runtime: z0.Runtime) -> None:
    assert await runtime.get(Courier, "c").name_and_env() == ("c", True)


async def test_an_actor_calls_actors_of_its_own_tenant(runtime: z0.Runtime) -> None:
    await runtime.tenant("t1").get(Courier, "c").pass_on("d", "a", 5)
    assert [info.name for info in await runtime.tenant("t1").list(Desk)] == ["a"]
    assert await runtime.list(Desk) == []


class Player(z0.Actor):
    env: World

    async def serve(self, other: str, rounds: int) -> int:
        if rounds == 0:
            return 0
        self.storage.put("served", rounds)
        returned = await self.get(Player, other).serve(self.name, rounds - 1)
        self.env.log.append((self.name, rounds))
        return returned + 1

    async def touch(self) -> str:
        return f"touched {self.name}"

    async def touch_myself(self) -> str:
        return await self.get(Player, self.name).touch()

    async def touch_back(self, other: str) -> str:
        return await self.get(Player, other).touch_the_caller(self.name)

    async def touch_the_caller(self, caller: str) -> str:
        return await self.get(Player, caller).touch()

    async def ask_all(self, names: list[str]) -> list[str]:
        return await asyncio.gather(*(self.get(Player, name).touch() for name in names))


async def test_a_call_back_into_an_actor_that_waits_is_an_ordinary_message(runtime: z0.Runtime) -> None:
    assert await runtime.get(Player, "a").touch_back("b") == "touched a"


async def test_two_actors_may_call_each_other_many_deep(runtime: z0.Runtime, world: World) -> None:
    assert await runtime.get(Player, "a").serve("b", 30) == 30
    assert world.log == [("ab"[number % 2], number) for number in range(1, 31)]


async def test_an_actor_may_call_itself_through_a_stub(runtime: z0.Runtime) -> None:
    assert await runtime.get(Player, "a").touch_myself() == "touched a"


async def test_an_actor_may_ask_many_others_at_once(runtime: z0.Runtime) -> None:
    names = [f"p{number}" for number in range(20)]
    assert await runtime.get(Player, "a").ask_all(names) == [f"touched {name}" for name in names]


class Host(Desk):
    async def with_time_limit(self) -> str:
        try:
            async with asyncio.timeout(0):
                await self.env.go.wait()
        except TimeoutError:
            return "timed out"
        return "went on"

    async def with_group(self) -> list[int]:
        async def double(number: int) -> int:
            await asyncio.sleep(0)
            return number * 2

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(double(number)) for number in range(3)]
        return [task.result() for task in tasks]


async def test_time_limits_and_task_groups_of_asyncio_work_in_handlers(runtime: z0.Runtime) -> None:
    host = runtime.get(Host, "a")
    assert await host.with_time_limit() == "timed out"
    assert await host.with_group() == [0, 2, 4]
    assert await host.read() is None


# Messages that happen once


class Shop(z0.Actor):
    env: World

    @z0.idempotent("key")
    async def buy(self, item: str, count: int = 1, *, key: str) -> tuple[str, int]:
        self.env.log.append(item)
        sold: int = self.storage.get("sold", 0) + count
        self.storage.put("sold", sold)
        if item == "nothing":
            raise Oops(404)
        return item, sold

    @z0.idempotent("key")
    async def order(self, item: str, key: str) -> Any:
        self.env.log.append(item)
        await self.env.go.wait()
        if len(self.env.log) == 1 and item == "rare":
            raise Oops(1)
        self.storage.put("sold", self.storage.get("sold", 0) + 1)
        return {"item": item, "number": len(self.env.log)}

    @z0.idempotent("key")
    async def odd(self, key: str) -> Any:
        self.storage.put("sold", 99)
        return self.env

    async def sold(self) -> int:
        return int(self.storage.get("sold", 0))


async def test_the_same_key_again_returns_the_first_reply_without_running(runtime: z0.Runtime, world: World) -> None:
    shop = runtime.get(Shop, "s")
    assert await shop.buy("pen", key="k1") == ("pen", 1)
    assert await shop.buy("ink", key="k2") == ("ink", 2)
    assert await shop.buy("pen", key="k1") == ("pen", 1)
    assert world.log == ["pen", "ink"]


async def test_a_repeated_reply_has_the_annotated_type(runtime: z0.Runtime) -> None:
    shop = runtime.get(Shop, "s")
    first = await shop.buy("pen", key="k")
    again = await shop.buy("pen", key="k")
    assert type(first) is type(again) is tuple


async def test_a_default_given_by_name_is_the_same_call(runtime: z0.Runtime) -> None:
    shop = runtime.get(Shop, "s")
    assert await shop.buy("pen", key="k") == await shop.buy(item="pen", count=1, key="k")


@pytest.mark.parametrize("state", ["same turn", "later", "evicted"])
async def test_the_same_key_with_other_arguments_is_a_conflict(runtime: z0.Runtime, state: str) -> None:
    shop = runtime.get(Shop, "s")
    await shop.sold()
    first = asyncio.create_task(shop.buy("pen", key="k"))
    await asyncio.sleep(0)
    if state != "same turn":
        await first
    if state == "evicted":
        assert await runtime.evict(Shop, "s")
    with pytest.raises(z0.IdempotencyConflict, match="'k'") as caught:
        await shop.buy("ink", key="k")
    assert caught.value.key == "k"
    assert not caught.value.retryable
    assert (await first, await shop.sold()) == (("pen", 1), 1)


async def test_a_message_that_raised_is_not_remembered(runtime: z0.Runtime, world: World) -> None:
    shop = runtime.get(Shop, "s")
    for _ in range(2):
        with pytest.raises(Oops):
            await shop.buy("nothing", key="k")
    assert world.log == ["nothing", "nothing"]
    assert await shop.sold() == 0


async def test_replies_survive_a_crash(world: World, clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, clock=clock, env=world) as first:
        await first.get(Shop, "s").buy("pen", key="k")
        await crash(first)
        async with z0.Runtime(first.path, clock=clock, env=world) as second:
            assert await second.get(Shop, "s").buy("pen", key="k") == ("pen", 1)
    assert world.log == ["pen"]


async def test_a_repeat_waits_for_the_first_while_that_is_suspended(runtime: z0.Runtime, world: World) -> None:
    shop = runtime.get(Shop, "s")
    async with asyncio.TaskGroup() as group:
        calls = [group.create_task(shop.order("pen", key="k")) for _ in range(5)]
        await until(world, 1)
        world.go.set()
    assert [call.result() for call in calls] == [{"item": "pen", "number": 1}] * 5
    assert await shop.sold() == 1


async def test_a_repeat_runs_when_the_first_fails(runtime: z0.Runtime, world: World) -> None:
    shop = runtime.get(Shop, "s")
    first = asyncio.create_task(shop.order("rare", key="k"))
    second = asyncio.create_task(shop.order("rare", key="k"))
    await until(world, 1)
    world.go.set()
    with pytest.raises(Oops):
        await first
    assert await second == {"item": "rare", "number": 2}


async def test_a_repeat_with_other_arguments_conflicts_also_while_the_first_is_suspended(
    runtime: z0.Runtime, world: World
) -> None:
    shop = runtime.get(Shop, "s")
    first = asyncio.create_task(shop.order("pen", key="k"))
    other = asyncio.create_task(shop.order("ink", key="k"))
    await until(world, 1)
    world.go.set()
    with pytest.raises(z0.IdempotencyConflict):
        await other
    assert (await first)["item"] == "pen"


async def test_a_repeat_gets_the_reply_when_the_first_caller_has_gone(runtime: z0.Runtime, world: World) -> None:
    shop = runtime.get(Shop, "s")
    first = asyncio.create_task(shop.order("pen", key="k"))
    second = asyncio.create_task(shop.order("pen", key="k"))
    await until(world, 1)
    first.cancel()
    await asyncio.sleep(0)
    world.go.set()
    assert await second == {"item": "pen", "number": 1}
    assert world.log == ["pen"]


async def test_keys_of_different_messages_are_different(runtime: z0.Runtime, world: World) -> None:
    shop = runtime.get(Shop, "s")
    world.go.set()
    await shop.buy("pen", key="k")
    await shop.order("pen", key="k")
    assert await shop.sold() == 2


@pytest.mark.parametrize("key", ["", None, 7, b"k"])
async def test_a_key_is_a_string_that_is_not_empty(runtime: z0.Runtime, key: Any) -> None:
    with pytest.raises(TypeError, match="key must be a non-empty string"):
        await runtime.get(Shop, "s").buy("pen", key=key)


async def test_a_reply_that_cannot_be_kept_fails_the_message(runtime: z0.Runtime) -> None:
    with pytest.raises(TypeError):
        await runtime.get(Shop, "s").odd("k")
    assert await runtime.get(Shop, "s").sold() == 0


def test_the_key_must_be_a_parameter() -> None:
    with pytest.raises(TypeError, match="has no parameter 'token'"):

        @z0.idempotent("token")
        async def message(self: z0.Actor, key: str) -> None: ...

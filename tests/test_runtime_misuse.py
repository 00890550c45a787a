"""A runtime that cannot be, is not open, or is used on another event loop, says so before anything is done."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import z0
from z0.testing import VirtualClock


class Counter(z0.Actor):
    async def add(self) -> int:
        count = int(self.storage.get("count", 0)) + 1
        self.storage.put("count", count)
        return count

    async def add_late(self) -> int:
        await asyncio.sleep(0)
        return await self.add()

    async def add_in_a_thread(self) -> int:
        return await asyncio.to_thread(lambda: asyncio.run(self.add()))


class Waits(z0.Workflow):
    async def run(self, event: z0.Event[Any], step: z0.Step) -> Any:
        return (await step.wait_for_event("go", type="go")).payload


Ask = Callable[[z0.Runtime], Awaitable[Any]]


async def follow(runtime: z0.Runtime) -> None:
    async for _ in runtime.workflows.get(Waits, "w").events():
        return


async def names(runtime: z0.Runtime) -> list[str]:
    return [info.id for info in await runtime.workflows.list(Waits)]


ASKED: dict[str, Ask] = {
    "a message": lambda runtime: runtime.get(Counter, "new").add(),
    "a message that waits": lambda runtime: runtime.get(Counter, "a").add_late(),
    "a list of actors": lambda runtime: runtime.list(Counter),
    "versions": lambda runtime: runtime.versions(Counter),
    "an eviction": lambda runtime: runtime.evict(Counter, "a"),
    "a workflow": lambda runtime: runtime.workflows.create(Waits, id="other"),
    "a batch of workflows": lambda runtime: runtime.workflows.create_batch(Waits, [{"id": "other"}]),
    "an event": lambda runtime: runtime.workflows.get(Waits, "w").send_event("go"),
    "a result": lambda runtime: runtime.workflows.get(Waits, "w").result(),
    "a status": lambda runtime: runtime.workflows.get(Waits, "w").status(),
    "a deletion": lambda runtime: runtime.workflows.get(Waits, "w").delete(),
    "what happens to a workflow": follow,
    "a list of workflows": names,
    "many at once": lambda runtime: runtime.workflows.bulk(Waits, "pause", ["w"]),
    "schedules": lambda runtime: runtime.workflows.schedules(Waits).list(),
}


@pytest.mark.parametrize("what", [*ASKED])
async def test_a_runtime_that_was_not_opened_says_how_to_open_it(data: Path, what: str) -> None:
    runtime = z0.Runtime(data, actors=[Counter, Waits])
    with pytest.raises(
        z0.RuntimeClosed, match=r"not open yet; use it inside `async with z0\.Runtime\(\.\.\.\) as runtime:`"
    ):
        await ASKED[what](runtime)


async def test_a_runtime_that_could_not_be_opened_is_not_open(data: Path) -> None:
    async with z0.Runtime(data):
        second = z0.Runtime(data)
        with pytest.raises(z0.DataDirLocked):
            await second.open()
        with pytest.raises(z0.RuntimeClosed, match="not open yet"):
            await second.get(Counter, "a").add()
    (data / "catalog.sqlite").write_bytes(b"no database" * 1_000)
    third = z0.Runtime(data)
    with pytest.raises(z0.ActorFileError):
        await third.open()
    with pytest.raises(z0.RuntimeClosed, match="not open yet"):
        await third.get(Counter, "a").add()


async def elsewhere(ask: Callable[[], Awaitable[Any]]) -> Any:
    """What comes of it on the event loop of another thread."""

    async def asked() -> Any:
        async with asyncio.timeout(5):
            return await ask()

    return await asyncio.to_thread(lambda: asyncio.run(asked()))


@pytest.mark.parametrize("what", [*ASKED])
async def test_whatever_is_asked_on_another_event_loop_is_refused_before_anything_is_done(
    data: Path, clock: VirtualClock, what: str
) -> None:
    async with z0.Runtime(data, actors=[Counter, Waits], clock=clock) as runtime:
        await runtime.get(Counter, "a").add()
        instance = await runtime.workflows.create(Waits, id="w")
        with pytest.raises(z0.OtherLoop, match=r"asyncio\.run_coroutine_threadsafe\(\.\.\., loop\)"):
            await elsewhere(lambda: ASKED[what](runtime))
        assert [info.name for info in await runtime.list(Counter)] == ["a"]
        assert await names(runtime) == ["w"]
        assert await runtime.get(Counter, "a").add() == 2
        assert await instance.send_event("go", 5)
        assert await instance.result() == 5


async def test_a_write_of_an_actor_in_memory_is_refused_on_another_event_loop(z0_runtime: z0.Runtime) -> None:
    counter = z0_runtime.get(Counter, "a")
    await counter.add()
    with pytest.raises(z0.OtherLoop):
        await elsewhere(counter.add)
    mine = asyncio.create_task(counter.add())
    await asyncio.sleep(0)  # its turn is open
    with pytest.raises(z0.OtherLoop):
        await elsewhere(counter.add)
    assert await mine == 2
    with pytest.raises(z0.OtherLoop):
        await counter.add_in_a_thread()
    assert await counter.add() == 3


async def test_another_thread_asks_through_the_loop_that_opened_the_runtime(z0_runtime: z0.Runtime) -> None:
    loop = asyncio.get_running_loop()
    counter = z0_runtime.get(Counter, "a")
    ask = asyncio.to_thread(lambda: asyncio.run_coroutine_threadsafe(counter.add(), loop).result(5))
    assert await ask == 1


async def test_a_runtime_is_closed_on_the_loop_that_opened_it(z0_runtime: z0.Runtime) -> None:
    await z0_runtime.get(Counter, "a").add()
    with pytest.raises(z0.OtherLoop):
        await elsewhere(z0_runtime.close)
    assert await z0_runtime.get(Counter, "a").add() == 2


async def test_a_closed_runtime_is_closed_on_every_loop(z0_runtime: z0.Runtime) -> None:
    await z0_runtime.close()
    with pytest.raises(z0.RuntimeClosed, match="the runtime is closed"):
        await elsewhere(lambda: z0_runtime.get(Counter, "a").add())


@pytest.mark.parametrize("clock", [5, VirtualClock, "now"])
def test_a_clock_that_is_none_is_refused_where_the_runtime_is_made(data: Path, clock: Any) -> None:
    with pytest.raises(TypeError, match=r"clock: .* is none; give one such as z0\.testing\.VirtualClock\(\)"):
        z0.Runtime(data, clock=clock)


@pytest.mark.parametrize("limits", [5, {"close_seconds": 1}, z0.Limits])
def test_limits_that_are_none_are_refused_where_the_runtime_is_made(data: Path, limits: Any) -> None:
    with pytest.raises(TypeError, match=r"limits: .* are none; give z0\.Limits\(\.\.\.\)"):
        z0.Runtime(data, limits=limits)

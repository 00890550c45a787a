"""Many sleeping instances: a process that starts over them opens no file that is not due."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import z0
from z0.actors.database import Database
from z0.actors.fileops import FileOps
from z0.actors.names import Address
from z0.testing import VirtualClock, crash, temporary_runtime

MANY = 200
DUE = {"one-hour-0", "one-hour-1", "one-hour-2"}


class Opens(FileOps):
    """Notes whose files are opened."""

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self._names = names

    def open(self, address: Address, path: Path, *, vfs: str | None, sync: bool) -> Database:
        self._names.append(address.name)
        return super().open(address, path, vfs=vfs, sync=sync)


class Sleeper(z0.Workflow):
    async def run(self, event: z0.Event[str], step: z0.Step) -> str:
        await step.sleep("night", event.payload)
        return "rested"


class Careful(z0.Workflow):
    """Its callbacks are made anew for each step, and hold the instance, as most people's do."""

    async def run(self, event: z0.Event[None], step: z0.Step) -> list[str]:
        async def first() -> list[str]:
            return [self.id]

        def second() -> dict[str, list[str]]:
            return {"names": [self.id]}

        names = await step.do("first", first, rollback=lambda context: first())
        await step.sleep("night", "1 day")
        return names + (await step.do("second", second))["names"]


async def asleep(runtime: z0.Runtime, clock: VirtualClock, ids: dict[str, str]) -> None:
    """Create instances that sleep for so long, and have them leave the memory."""
    report = await runtime.workflows.create_batch(Sleeper, [{"id": id, "payload": span} for id, span in ids.items()])
    assert not report.errors
    await clock.advance("2 minutes")
    assert runtime.node.hosts == {}


@asynccontextmanager
async def again(runtime: z0.Runtime, clock: VirtualClock) -> AsyncIterator[tuple[z0.Runtime, list[str]]]:
    """Another runtime on the directory of one that has ended, and the names of what it opens."""
    opened: list[str] = []
    successor = z0.Runtime(runtime.path, actors=[Sleeper], clock=clock)
    successor.node.file_ops = Opens(opened)
    async with successor:
        await clock.settle()
        yield successor, opened


async def test_a_start_over_sleeping_instances_opens_those_that_are_due_and_no_other(clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, actors=[Sleeper], durability="relaxed", clock=clock) as runtime:
        ids = {f"month-{number}": "30 days" for number in range(MANY)} | dict.fromkeys(DUE, "1 hour")
        await asleep(runtime, clock, ids)
        await runtime.close()
        async with again(runtime, clock) as (successor, opened):
            assert opened == []
            assert await successor.workflows.counts(Sleeper) == {"waiting": MANY + len(DUE)}
            assert len(await successor.workflows.list(Sleeper, status="waiting", limit=None)) == MANY + len(DUE)
            assert opened == [], "listing and counting need the catalogue alone"
        await clock.advance("2 hours")
        async with again(runtime, clock) as (successor, opened):
            assert sorted(opened) == sorted(DUE)
            assert await successor.workflows.counts(Sleeper) == {"waiting": MANY, "complete": len(DUE)}
            await clock.advance("1 day")
            assert sorted(opened) == sorted(DUE)
            await clock.advance("30 days")
            assert sorted(opened) == sorted([*ids])
            assert await successor.workflows.counts(Sleeper) == {"complete": MANY + len(DUE)}


async def test_a_start_after_a_kill_opens_what_was_in_memory_and_no_instance_that_slept_out_of_it(
    clock: VirtualClock,
) -> None:
    async with temporary_runtime(memory=True, actors=[Sleeper], clock=clock) as runtime:
        await asleep(runtime, clock, {f"month-{number}": "30 days" for number in range(20)})
        await runtime.workflows.create(Sleeper, "30 days", id="in-memory")
        await clock.settle()
        await crash(runtime)
        async with again(runtime, clock) as (successor, opened):
            assert opened == ["in-memory"]
            assert await successor.workflows.counts(Sleeper) == {"waiting": 21}


async def test_nothing_of_an_instance_stays_in_memory_when_it_sleeps_or_has_ended(clock: VirtualClock) -> None:
    def in_memory() -> int:
        gc.collect()
        return sum(isinstance(it, Careful) for it in gc.get_objects())

    async with temporary_runtime(memory=True, actors=[Careful], clock=clock) as runtime:
        await runtime.workflows.create_batch(Careful, [{"id": f"{number}"} for number in range(5)])
        await clock.settle()
        assert in_memory() == 5
        await clock.advance("2 minutes")
        assert in_memory() == 0
        await clock.advance("1 day")
        assert await runtime.workflows.counts(Careful) == {"complete": 5}
        assert in_memory() == 0

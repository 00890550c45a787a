"""No fault loses an alarm for as long as the runtime lives: each test is one way in which one could have been lost."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest

import z0
from z0.actors.database import Database
from z0.actors.errors import ActorFileError, DatabaseFailure
from z0.actors.host import Host
from z0.testing import VirtualClock, fault, temporary_runtime


class World:
    """What the alarms of a test do, and which ran."""

    def __init__(self) -> None:
        self.runs: list[str] = []
        self.give_up = self.clear = self.hang = False


class Sleeper(z0.Actor):
    """Sets alarms; its file is all that knows of them."""

    env: World

    async def start(self) -> None:
        if self.env.hang and self.name.startswith("slow"):
            await self.clock.sleep("1 day")

    async def arm(self, when: Any, name: str | None = None, **how: Any) -> None:
        self.storage.set_alarm(when, name, **how)

    async def when(self, name: str | None = None) -> Any:
        return self.storage.get_alarm(name)

    async def put(self) -> None:
        self.storage.put("k", 1)

    async def hang(self, seconds: float) -> None:
        await self.clock.sleep(seconds)

    async def alarm(self, info: z0.AlarmInfo) -> None:
        if self.env.give_up:
            self.env.give_up = False
            self.abort("given up", retry_alarm=False)
        self.env.runs.append(self.name)
        if self.env.clear:
            self.storage.delete_all()
            await self.clock.sleep(1)
            raise ValueError("after everything was deleted")


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
async def runtime(world: World, clock: VirtualClock) -> AsyncIterator[z0.Runtime]:
    limits = z0.Limits(open_files=4, alarm_openings=2)
    async with temporary_runtime(memory=True, actors=[Sleeper], env=world, clock=clock, limits=limits) as runtime:
        yield runtime


async def test_of_an_actor_that_is_reset_when_its_run_has_just_been_committed(
    runtime: z0.Runtime, world: World, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = runtime.get(Sleeper, "x")
    await x.arm(None, every="1 minute")
    await clock.advance(59)

    def broken(self: Database, pages_max: int) -> bool:
        monkeypatch.undo()
        raise DatabaseFailure("disk I/O error")

    def always_due(self: Database) -> int:
        return 0

    monkeypatch.setattr(Database, "checkpoint_due", broken)
    monkeypatch.setattr(Database, "measure_at", property(always_due, lambda self, value: None))
    await clock.advance(1)
    assert world.runs == ["x"]
    assert runtime.node.metrics.resets["Sleeper"] == 1
    await clock.advance("2 minutes")
    assert world.runs == ["x", "x", "x"]


async def test_of_an_actor_that_was_reset_and_that_nobody_calls_runs_on_time(
    runtime: z0.Runtime, world: World, clock: VirtualClock
) -> None:
    """It waited for the next try of opening the actor: up to two and a half seconds."""
    sleeper = runtime.get(Sleeper, "a")
    await sleeper.arm(0.4)
    with fault(runtime, "storage"), pytest.raises(z0.ActorReset):
        await sleeper.put()
    await clock.advance(0.4)
    assert world.runs == ["a"]


async def test_of_an_actor_whose_file_could_not_be_closed(
    runtime: z0.Runtime, world: World, clock: VirtualClock
) -> None:
    x = runtime.get(Sleeper, "x")
    await x.arm(60)
    with fault(runtime, "close") as close:
        await runtime.evict(Sleeper, "x")
    assert close.hits == 1
    await clock.advance(61)
    assert world.runs == ["x"]


async def test_of_an_actor_that_was_being_opened_in_vain_when_it_was_due(world: World, clock: VirtualClock) -> None:
    limits = z0.Limits(open_files=1, room_seconds=30)
    async with temporary_runtime(memory=True, actors=[Sleeper], env=world, clock=clock, limits=limits) as runtime:
        await runtime.get(Sleeper, "x").arm(60)
        await runtime.evict(Sleeper, "x")
        busy = asyncio.create_task(runtime.get(Sleeper, "y").hang(90))
        await clock.advance(50)
        refused = asyncio.create_task(runtime.get(Sleeper, "x").put())
        await clock.advance(35)
        with pytest.raises(z0.Overloaded):
            await refused
        await clock.advance(60)
        await busy
        assert world.runs == ["x"]


async def test_of_an_actor_that_once_failed_and_then_gave_a_run_up(
    runtime: z0.Runtime, world: World, clock: VirtualClock
) -> None:
    x = runtime.get(Sleeper, "x")
    await x.arm(1)
    with fault(runtime, "storage"), pytest.raises(z0.ActorReset):
        await x.put()
    world.give_up = True
    await clock.advance(10)
    assert (world.give_up, world.runs, await x.when()) == (False, [], None)
    await x.arm(60)
    await runtime.evict(Sleeper, "x")
    await clock.advance(60)
    assert world.runs == ["x"]


@pytest.mark.parametrize("query", ["due", "at", "next", "active"])
async def test_when_the_catalogue_cannot_be_read_for_a_while(
    runtime: z0.Runtime, world: World, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    for name in "xyz":
        await runtime.get(Sleeper, name).arm(60)
        await runtime.evict(Sleeper, name)
    index, failures = runtime.node.alarm_index, 0
    as_ever = getattr(index, query)

    def broken(*args: Any) -> Any:
        nonlocal failures
        failures += 1
        if failures <= 3:
            raise ActorFileError("catalog.sqlite", "disk I/O error")
        return as_ever(*args)

    monkeypatch.setattr(index, query, broken)
    if query == "active":
        runtime.node.wakeups.look(unclean=True)
    await clock.advance(90)
    assert failures > 3
    assert sorted(world.runs) == ["x", "y", "z"]


async def test_that_becomes_due_while_the_catalogue_is_being_asked(
    runtime: z0.Runtime, world: World, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, due in ("x", 60), ("y", 60.5):
        await runtime.get(Sleeper, name).arm(due)
        await runtime.evict(Sleeper, name)
    index = runtime.node.alarm_index
    as_ever = index.due

    def slowly(*args: Any) -> Any:
        found = as_ever(*args)
        if not found:
            clock.jump(1)
        return found

    monkeypatch.setattr(index, "due", slowly)
    await clock.advance(60)
    monkeypatch.undo()
    await clock.advance(60)
    assert world.runs == ["x", "y"]


async def test_whose_next_time_cannot_be_told_for_a_while(
    runtime: z0.Runtime, world: World, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = runtime.get(Sleeper, "x")
    await x.arm(None, cron="0 * * * *", timezone="Europe/Berlin")

    def unknown(*_: object) -> int:
        raise ValueError("not a time zone: 'Europe/Berlin'")

    monkeypatch.setattr("z0.actors.alarms.next_due", unknown)
    await clock.advance("1 day")
    assert 50 < len(world.runs) < 150, "with growing delays, and not for ever at once"
    monkeypatch.undo()
    await clock.advance("1 hour")
    world.runs.clear()
    await clock.advance("1 day")
    assert len(world.runs) == 24


async def test_that_is_set_anew_before_a_run_of_its_name_has_been_given_up(
    runtime: z0.Runtime, world: World, clock: VirtualClock
) -> None:
    x = runtime.get(Sleeper, "x")
    await x.arm(1)
    world.give_up = True
    host = runtime.node.hosts[next(iter(runtime.node.hosts))]
    resetting = asyncio.create_task(_arm_when_reset(runtime, host))
    await clock.advance(1)
    await resetting
    assert await x.when() is not None
    await clock.advance("1 hour")
    assert world.runs == ["x"]


async def _arm_when_reset(runtime: z0.Runtime, host: Any) -> None:
    while not host.dead:  # noqa: ASYNC110  # there is nothing to wait for
        await asyncio.sleep(0)
    await runtime.get(Sleeper, "x").arm(60)


async def test_a_run_that_deleted_everything_and_failed_is_not_said_to_be_retried(
    runtime: z0.Runtime, world: World, clock: VirtualClock
) -> None:
    await runtime.get(Sleeper, "x").arm(1)
    world.clear = True
    await clock.advance("1 hour")
    assert world.runs == ["x"]
    assert runtime.node.metrics.alarms["retried"] == 0


async def test_setting_one_again_and_again_keeps_nothing_of_the_former_ones(
    runtime: z0.Runtime, world: World, clock: VirtualClock
) -> None:
    x = runtime.get(Sleeper, "x")
    for _ in range(3000):
        await x.arm("1 day")
        clock.jump(0.001)
    assert len(runtime.node.wakeups._expected) <= 1100
    await clock.advance("1 day")
    assert world.runs == ["x"]


async def test_an_actor_that_was_evicted_is_not_in_memory_until_its_alarm(
    runtime: z0.Runtime, world: World, clock: VirtualClock
) -> None:
    for name in "abc":
        await runtime.get(Sleeper, name).arm("30 days")
    await clock.advance("1 hour")
    assert runtime.node.hosts == {}
    gc.collect()
    assert not [it for it in gc.get_objects() if isinstance(it, Host) and it.node is runtime.node]
    await clock.advance("30 days")
    assert sorted(world.runs) == ["a", "b", "c"]


async def test_a_run_counts_no_time_in_the_mailbox_that_it_did_not_spend_there(
    runtime: z0.Runtime, world: World, clock: VirtualClock
) -> None:
    await runtime.get(Sleeper, "x").arm(1)
    await clock.advance(1)
    assert world.runs == ["x"]
    assert runtime.node.metrics.queued.total < 60e9


async def test_nothing_that_was_to_be_tried_again_outlives_the_runtime(world: World, clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, actors=[Sleeper], env=world, clock=clock) as runtime:
        x = runtime.get(Sleeper, "x")
        await x.arm("1 hour")
        with fault(runtime, "storage"), pytest.raises(z0.ActorReset):
            await x.put()
    assert [timer for timer in clock._timers if not timer.cancelled] == []


async def test_actors_that_never_start_do_not_keep_the_others_from_running(
    runtime: z0.Runtime, world: World, clock: VirtualClock
) -> None:
    for name in ("slow1", "slow2", "x"):
        await runtime.get(Sleeper, name).arm(60)
        await runtime.evict(Sleeper, name)
    world.hang = True
    await clock.advance("2 minutes")
    assert world.runs == ["x"]

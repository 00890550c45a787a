"""Alarms: never early, at least once, part of the transaction; retries, outcomes and recurrence are in the file."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import z0
from z0.testing import VirtualClock, crash, temporary_runtime

START = datetime(2026, 1, 1, tzinfo=UTC)


class World:
    """What the actors of a test do in their alarms, and what they did."""

    def __init__(self) -> None:
        self.runs: list[z0.AlarmInfo] = []
        self.times: list[datetime] = []
        self.opened: list[str] = []
        self.at_once = self.most_at_once = 0
        self.go = asyncio.Event()

    def names(self) -> list[str | None]:
        return [info.name for info in self.runs]


class Oops(Exception):
    pass


class Alarmed(z0.Entity):
    """Does in its alarm what its key "plan" says."""

    env: World
    accepts = {"*"}

    async def start(self) -> None:
        self.env.opened.append(self.name)

    async def arm(self, when: Any = None, name: str | None = None, **how: Any) -> None:
        self.storage.set_alarm(when, name, **how)

    async def arm_and_fail(self, when: Any) -> None:
        self.storage.set_alarm(when)
        raise Oops

    async def disarm(self, name: str | None = None) -> None:
        self.storage.delete_alarm(name)

    async def disarm_and_fail(self) -> None:
        self.storage.delete_alarm()
        raise Oops

    async def when(self, name: str | None = None) -> datetime | None:
        return self.storage.get_alarm(name)

    async def plan(self, *plan: str) -> None:
        self.storage.put("plan", list(plan))

    async def value(self, key: str) -> Any:
        return self.storage.get(key)

    async def alarm(self, info: z0.AlarmInfo) -> None:
        world = self.env
        world.runs.append(info)
        world.times.append(self.clock.now())
        for step in self.storage.get("plan", []):
            await self.do(step, info)
        self.ledger.append("fired", source_id=info.name)

    async def do(self, step: str, info: z0.AlarmInfo) -> None:
        world = self.env
        word, _, rest = step.partition(" ")
        match word:
            case "fail" if rest == "hard":
                raise Oops("\ud800" + "x" * 1_000_000)
            case "fail":
                if info.retry_count < int(rest or 100):
                    raise Oops(f"run {info.retry_count}")
            case "set":
                self.storage.set_alarm(rest, info.name)
            case "delete":
                self.storage.delete_alarm(info.name)
            case "look":
                self.storage.put("seen", self.storage.get_alarm(info.name))
            case "write":
                self.storage.put("written", info.retry_count)
            case "sleep":
                await self.clock.sleep(rest)
            case "wait":
                world.at_once += 1
                world.most_at_once = max(world.most_at_once, world.at_once)
                await world.go.wait()
                world.at_once -= 1
            case "yield":
                await asyncio.sleep(0)
            case "swallow":
                try:
                    await self.clock.sleep("1 hour")
                except asyncio.CancelledError:
                    world.runs.append(info)
                    raise
            case _:
                raise AssertionError(step)


class Silent(z0.Actor):
    async def arm(self) -> None:
        self.storage.put("before", 1)
        self.storage.set_alarm("1 second")


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
async def runtime(world: World, clock: VirtualClock) -> AsyncIterator[z0.Runtime]:
    async with temporary_runtime(memory=True, env=world, clock=clock, actors=[Alarmed]) as runtime:
        yield runtime


@pytest.fixture
def x(runtime: z0.Runtime) -> Alarmed:
    return runtime.get(Alarmed, "x")


def again(runtime: z0.Runtime, world: World, clock: VirtualClock, **options: Any) -> z0.Runtime:
    """A runtime on the directory of one that has ended."""
    return z0.Runtime(runtime.path, **{"env": world, "clock": clock, "actors": [Alarmed], **options})


def outcomes(runtime: z0.Runtime, name: str = "x") -> dict[tuple[str, str], int]:
    """How often each alarm of an actor ended how."""
    with sqlite3.connect(f"file:{runtime.path}/default/Alarmed/{name}.sqlite?mode=ro", uri=True) as file:
        rows = file.execute("SELECT name, outcome, times FROM z0_alarm_outcomes").fetchall()
    file.close()
    return {(alarm, outcome): times for alarm, outcome, times in rows}


# Setting


async def test_no_alarm_is_set_at_first(x: Alarmed) -> None:
    assert await x.when() is None


async def test_an_alarm_runs_at_its_time_and_not_before(x: Alarmed, world: World, clock: VirtualClock) -> None:
    await x.arm("10 minutes")
    assert await x.when() == START + timedelta(minutes=10)
    await clock.advance("599.999 seconds")
    assert world.runs == []
    await clock.advance("1 ms")
    assert world.runs == [z0.AlarmInfo(scheduled_time=START + timedelta(minutes=10), retry_count=0, name=None)]
    assert not world.runs[0].is_retry
    await clock.advance("1 day")
    assert len(world.runs) == 1
    assert await x.when() is None


@pytest.mark.parametrize(
    ("when", "due"),
    [
        (datetime(2026, 1, 2, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)),
        (timedelta(hours=2), START + timedelta(hours=2)),
        (90, START + timedelta(seconds=90)),
        ("2 weeks", START + timedelta(weeks=2)),
        (datetime(2025, 1, 1, tzinfo=UTC), START),
    ],
)
async def test_a_time_is_a_date_or_a_span(x: Alarmed, clock: VirtualClock, when: Any, due: datetime) -> None:
    clock.jump("0 seconds")
    await x.plan("wait")
    await x.arm(when, "n")
    assert await x.when("n") in (due, None if due == START else due)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"when": datetime(2026, 1, 2)}, ValueError, "time zone"),
        ({"when": "soon"}, ValueError, "not a span"),
        ({"when": -1}, ValueError, "not a span"),
        ({"when": True}, ValueError, "not a span"),
        ({"when": "9000 years"}, ValueError, "9999"),
        ({}, TypeError, "when is the alarm to run"),
        ({"every": "1 hour", "cron": "* * * * *"}, ValueError, "not both"),
        ({"every": 0}, ValueError, "every millisecond"),
        ({"every": "9000 years"}, ValueError, "1,000 years"),
        ({"every": 1e305}, ValueError, "1,000 years"),
        ({"when": 1e305}, ValueError, "9999"),
        ({"cron": "* * *"}, ValueError, "not a cron expression"),
        ({"cron": "0 0 30 2 *"}, ValueError, "cron"),
        ({"cron": "* * * * *", "timezone": "Mars/Olympus"}, ValueError, "time zone"),
        ({"when": "1 hour", "name": ""}, z0.InvalidName, "empty"),
        ({"when": "1 hour", "name": "x" * 513}, z0.InvalidName, "513"),
    ],
)
async def test_what_cannot_be_an_alarm_is_refused_and_changes_nothing(
    x: Alarmed, arguments: dict[str, Any], error: type[Exception], words: str
) -> None:
    await x.arm("1 hour")
    with pytest.raises(error, match=words):
        await x.arm(**arguments)
    assert await x.when() == START + timedelta(hours=1)


async def test_setting_again_replaces_and_setting_the_same_is_no_change(
    runtime: z0.Runtime, x: Alarmed, world: World, clock: VirtualClock
) -> None:
    await x.arm("1 hour")
    await x.arm("2 hours")
    await x.arm("2 hours")
    await clock.advance("90 minutes")
    assert world.runs == []
    await clock.advance("90 minutes")
    assert len(world.runs) == 1
    assert outcomes(runtime) == {("", "replaced"): 1, ("", "ok"): 1}


async def test_a_deleted_alarm_does_not_run(x: Alarmed, world: World, clock: VirtualClock) -> None:
    await x.arm("1 hour")
    await x.arm("1 hour", "other")
    await x.disarm()
    await x.disarm("unknown")
    assert await x.when() is None
    await clock.advance("2 hours")
    assert world.names() == ["other"]


async def test_names_have_alarms_of_their_own(x: Alarmed, world: World, clock: VirtualClock) -> None:
    await x.arm("3 minutes")
    await x.arm("1 minute", "a")
    await x.arm("2 minutes", "b")
    await clock.advance("1 hour")
    assert world.names() == ["a", "b", None]
    assert [fact.source_id for fact in await x.query_facts()] == ["a", "b", None]


async def test_a_class_without_a_handler_cannot_set_an_alarm(runtime: z0.Runtime) -> None:
    with pytest.raises(TypeError, match="Silent has no `async def alarm"):
        await runtime.get(Silent, "s").arm()


async def test_an_actor_may_have_a_bounded_number_of_alarms(world: World, clock: VirtualClock) -> None:
    limits = z0.Limits(alarms_per_actor=2)
    async with temporary_runtime(memory=True, env=world, clock=clock, limits=limits) as runtime:
        x = runtime.get(Alarmed, "x")
        await x.arm("1 hour", "a")
        await x.arm("1 hour", "b")
        await x.arm("2 hours", "b")
        with pytest.raises(z0.LimitExceeded, match="alarms_per_actor"):
            await x.arm("1 hour", "c")


# Transactions


async def test_an_alarm_is_taken_back_with_its_segment(x: Alarmed, world: World, clock: VirtualClock) -> None:
    with pytest.raises(Oops):
        await x.arm_and_fail("1 second")
    assert await x.when() is None
    await x.arm("1 hour")
    with pytest.raises(Oops):
        await x.arm_and_fail("1 second")
    with pytest.raises(Oops):
        await x.disarm_and_fail()
    assert await x.when() == START + timedelta(hours=1)
    await clock.advance("1 minute")
    assert world.runs == []
    await clock.advance("1 hour")
    assert len(world.runs) == 1


async def test_the_end_of_a_run_is_part_of_the_handlers_last_transaction(
    runtime: z0.Runtime, x: Alarmed, clock: VirtualClock
) -> None:
    await x.plan("write")
    await x.arm("1 second")
    before = runtime.node.catalog
    await clock.advance("1 second")
    assert before is runtime.node.catalog
    with sqlite3.connect(f"file:{runtime.path}/default/Alarmed/x.sqlite?mode=ro", uri=True) as file:
        assert file.execute("SELECT count(*) FROM z0_alarms").fetchone() == (0,)
        assert file.execute("SELECT count(*) FROM facts").fetchone() == (1,)
    file.close()


async def test_inside_its_handler_an_alarm_is_not_set_until_it_is_set_again(
    x: Alarmed, world: World, clock: VirtualClock
) -> None:
    await x.plan("look")
    await x.arm("1 minute")
    await clock.advance("1 minute")
    assert await x.value("seen") is None
    assert len(world.runs) == 1
    await x.plan("set 1 hour", "look")
    await x.arm("1 minute")
    await clock.advance("2 minutes")
    assert await x.value("seen") is not None
    assert await x.when() == START + timedelta(minutes=62)


async def test_deleting_inside_the_handler_removes_only_what_was_set_there(
    x: Alarmed, world: World, clock: VirtualClock
) -> None:
    await x.plan("set 1 hour", "delete", "fail 1")
    await x.arm("1 minute")
    await clock.advance("2 minutes")
    assert [info.retry_count for info in world.runs] == [0, 1]
    assert await x.when() is None
    await clock.advance("1 day")
    assert len(world.runs) == 2


async def test_setting_the_next_alarm_does_not_cost_a_failed_run_its_retries(
    runtime: z0.Runtime, x: Alarmed, world: World, clock: VirtualClock
) -> None:
    await x.plan("set 1 hour", "yield", "fail 2")  # the next alarm is committed before the run fails
    await x.arm("1 minute")
    await clock.advance("2 minutes")
    assert [info.retry_count for info in world.runs] == [0, 1, 2]
    assert len({info.scheduled_time for info in world.runs}) == 1
    await x.plan()
    await clock.advance("2 hours")
    assert [info.retry_count for info in world.runs] == [0, 1, 2, 0]
    assert outcomes(runtime)["", "ok"] == 2
    assert outcomes(runtime)["", "retried"] == 2


# Retries


async def test_a_failing_run_is_retried_with_growing_delays_then_given_up(
    runtime: z0.Runtime, x: Alarmed, world: World, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    await x.plan("write", "fail")
    await x.arm("1 second")
    with caplog.at_level(logging.ERROR, "z0.actors"):
        await clock.advance("1 hour")
    assert [info.retry_count for info in world.runs] == [0, 1, 2, 3, 4, 5, 6]
    assert [info.is_retry for info in world.runs] == [False] + [True] * 6
    delays = [(b - a).total_seconds() for a, b in zip(world.times, world.times[1:], strict=False)]
    for delay, least in zip(delays, [2, 4, 8, 16, 32, 64], strict=True):
        assert least <= delay <= least * 1.25
    assert await x.value("written") is None, "the writes of a failed run are taken back"
    assert await x.when() is None
    assert outcomes(runtime) == {("", "retried"): 6, ("", "abandoned"): 1}
    assert "given up" in caplog.text


async def test_a_run_that_waits_for_its_retry_can_be_replaced(
    runtime: z0.Runtime, x: Alarmed, world: World, clock: VirtualClock
) -> None:
    await x.plan("fail 1")
    await x.arm("1 second")
    await clock.advance("1 second")
    assert await x.when() == START + timedelta(seconds=1)
    await x.arm("1 hour")
    await clock.advance("1 hour")
    assert [info.retry_count for info in world.runs] == [0, 0]
    assert outcomes(runtime)["", "replaced"] == 1


async def test_a_restart_forgets_no_retry(runtime: z0.Runtime, x: Alarmed, world: World, clock: VirtualClock) -> None:
    await x.plan("fail")
    await x.arm("1 second")
    await clock.advance("8 seconds")
    runs = len(world.runs)
    assert 2 <= runs <= 3
    await runtime.close()
    async with again(runtime, world, clock):
        await clock.advance("1 hour")
    assert [info.retry_count for info in world.runs] == [0, 1, 2, 3, 4, 5, 6]


async def test_a_run_that_takes_too_long_is_cancelled_and_retried(
    x: Alarmed, world: World, clock: VirtualClock, runtime: z0.Runtime
) -> None:
    await x.plan("swallow")
    await x.arm("1 second")
    await clock.advance("16 minutes")
    assert [info.retry_count for info in world.runs][:3] == [0, 0, 1]
    with sqlite3.connect(f"file:{runtime.path}/default/Alarmed/x.sqlite?mode=ro", uri=True) as file:
        error = file.execute("SELECT error FROM z0_alarm_outcomes WHERE outcome = 'retried'").fetchone()[0]
    file.close()
    assert "alarm_seconds" in error
    await x.plan()
    await clock.advance("1 hour")


async def test_runs_of_one_actor_never_overlap_but_messages_may_come_between(
    x: Alarmed, world: World, clock: VirtualClock
) -> None:
    await x.plan("wait")
    await x.arm("1 second", "a")
    await x.arm("1 second", "b")
    await clock.advance("1 second")
    assert world.names() == ["a"]
    assert await x.value("nothing") is None
    world.go.set()
    await clock.settle()
    assert world.names() == ["a", "b"]
    assert world.most_at_once == 1


# Life


async def test_an_evicted_actor_comes_back_for_its_alarm(
    runtime: z0.Runtime, x: Alarmed, world: World, clock: VirtualClock
) -> None:
    await x.arm("1 hour")
    await clock.advance("1 minute")
    assert runtime.node.hosts == {}
    (info,) = await runtime.list(Alarmed)
    assert info.next_alarm == START + timedelta(hours=1)
    await clock.advance("1 hour")
    assert len(world.runs) == 1
    assert world.times == [START + timedelta(hours=1)]
    (info,) = await runtime.list(Alarmed)
    await clock.advance("1 minute")
    (info,) = await runtime.list(Alarmed)
    assert info.next_alarm is None


async def test_after_a_clean_stop_only_what_is_due_is_opened(
    runtime: z0.Runtime, world: World, clock: VirtualClock
) -> None:
    for n in range(10):
        await runtime.get(Alarmed, f"a{n}").arm(timedelta(hours=n + 1))
    await runtime.close()
    world.opened.clear()
    async with again(runtime, world, clock):
        await clock.settle()
        assert world.opened == []
        await clock.advance("150 minutes")
        assert world.opened == ["a0", "a1"]
    await clock.advance("1 hour")
    world.opened.clear()
    async with again(runtime, world, clock):
        await clock.settle()
        assert world.opened == ["a2"]


async def test_after_a_crash_the_active_set_is_opened_and_no_other(
    runtime: z0.Runtime, world: World, clock: VirtualClock
) -> None:
    await runtime.get(Alarmed, "later").arm("1 hour")
    await runtime.get(Alarmed, "never").value("x")
    await clock.advance("1 minute")
    assert runtime.node.hosts == {}
    await runtime.get(Alarmed, "active").arm("30 minutes")
    await crash(runtime)
    world.opened.clear()
    async with again(runtime, world, clock):
        await clock.settle()
        assert world.opened == ["active"]
        await clock.advance("2 hours")
        assert [info.scheduled_time for info in world.runs] == [
            START + timedelta(minutes=31),
            START + timedelta(hours=1),
        ]


async def test_an_alarm_that_was_due_while_nothing_ran_runs_at_the_start(
    runtime: z0.Runtime, x: Alarmed, world: World, clock: VirtualClock
) -> None:
    await x.arm("1 minute")
    await crash(runtime)
    await clock.advance("1 day")
    async with again(runtime, world, clock):
        await clock.settle()
        assert world.times == [START + timedelta(days=1)]
        assert world.runs[0].scheduled_time == START + timedelta(minutes=1)


async def test_a_crash_in_the_handler_leaves_the_run_owed(
    runtime: z0.Runtime, x: Alarmed, world: World, clock: VirtualClock
) -> None:
    await x.plan("write", "yield", "wait")
    await x.arm("1 minute")
    await clock.advance("1 minute")
    assert len(world.runs) == 1
    await crash(runtime)
    world.go.set()
    async with again(runtime, world, clock) as runtime:
        await clock.settle()
        assert [info.retry_count for info in world.runs] == [0, 0], "a crash is no failure of the handler's"
        assert len(await runtime.get(Alarmed, "x").query_facts()) == 1


async def test_alarms_of_an_actor_that_was_reset_still_run(
    runtime: z0.Runtime, x: Alarmed, world: World, clock: VirtualClock
) -> None:
    await x.arm("1 minute")
    runtime.node.hosts[next(iter(runtime.node.hosts))].reset("for the test")
    await clock.advance("2 minutes")
    assert world.times == [START + timedelta(minutes=1)]


async def test_an_alarm_of_a_class_that_is_not_known_is_kept_and_reported(
    runtime: z0.Runtime, x: Alarmed, world: World, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    await x.arm("1 minute")
    await runtime.close()
    await clock.advance("1 hour")
    async with again(runtime, world, clock, actors=[]) as runtime:
        await clock.settle()
        assert "namespace Alarmed" in caplog.text
        assert world.runs == []
        runtime.get(Alarmed, "unused")
        await clock.settle()
        assert len(world.runs) == 1


async def test_an_alarm_is_kept_while_its_class_has_lost_its_handler(
    runtime: z0.Runtime, x: Alarmed, world: World, clock: VirtualClock
) -> None:
    await x.arm("1 minute")
    await runtime.close()

    class Without(z0.Entity):
        namespace = "Alarmed"

        async def touch(self) -> None:
            self.storage.put("touched", True)

    await clock.advance("1 hour")
    async with again(runtime, world, clock, actors=[Without]) as runtime:
        await runtime.get(Without, "x").touch()
        await clock.advance("1 hour")
    assert world.runs == []
    async with again(runtime, world, clock):
        await clock.settle()
    assert len(world.runs) == 1


async def test_when_opening_fails_the_alarm_waits_and_is_not_given_up(world: World, clock: VirtualClock) -> None:
    class Broken(Alarmed):
        namespace = "Broken"

        async def start(self) -> None:
            await super().start()
            if self.clock.now() < START + timedelta(hours=3):
                raise Oops("not yet")

    class Whole(Alarmed):
        namespace = "Broken"

    async with temporary_runtime(memory=True, env=world, clock=clock) as runtime:
        await runtime.get(Whole, "x").arm("1 hour")
        await runtime.close()
        async with again(runtime, world, clock, actors=[Broken]):
            await clock.advance("4 hours")
    assert [info.retry_count for info in world.runs] == [0]
    assert 10 <= len(world.opened) <= 30, "it was tried again and again, ever more slowly"


async def test_closing_waits_for_the_run_and_starts_no_other(
    runtime: z0.Runtime, x: Alarmed, world: World, clock: VirtualClock
) -> None:
    await x.plan("wait")
    await x.arm("1 minute", "a")
    await x.arm("1 minute", "b")
    await clock.advance("1 minute")
    asyncio.get_running_loop().call_soon(world.go.set)
    await runtime.close()
    assert world.names() == ["a"]
    async with again(runtime, world, clock):
        await clock.settle()
    assert world.names() == ["a", "b"]


async def test_many_that_are_due_at_once_are_opened_a_few_at_a_time(
    runtime: z0.Runtime, world: World, clock: VirtualClock
) -> None:
    for n in range(200):
        await runtime.get(Alarmed, f"a{n}").arm("1 hour")
    await runtime.close()
    await clock.advance("2 hours")
    async with again(runtime, world, clock, limits=z0.Limits(open_files=20)) as runtime:
        await clock.settle()
        assert len(world.runs) == 200
        assert runtime.node.room.taken <= 20


async def test_a_lost_catalogue_is_rebuilt_with_its_alarms(
    runtime: z0.Runtime, x: Alarmed, world: World, clock: VirtualClock
) -> None:
    await x.arm("1 hour")
    await runtime.close()
    for file in runtime.path.glob("catalog.sqlite*"):
        file.unlink()
    async with again(runtime, world, clock):
        await clock.advance("1 hour")
    assert world.times == [START + timedelta(hours=1)]


async def test_an_actor_is_marked_active_before_its_alarm_is_acknowledged(
    runtime: z0.Runtime, x: Alarmed, world: World, clock: VirtualClock
) -> None:
    await x.value("x")
    await clock.advance("1 minute")

    def active() -> list[tuple[Any, ...]]:
        with sqlite3.connect(f"file:{runtime.path}/catalog.sqlite?mode=ro", uri=True) as file:
            rows = file.execute("SELECT name FROM actors WHERE active").fetchall()
        file.close()
        return rows

    assert active() == []
    await x.arm("1 hour")
    assert active() == [("x",)]
    await clock.advance("1 minute")
    assert active() == []


# Recurrence


async def test_an_interval_runs_on_a_fixed_grid(x: Alarmed, world: World, clock: VirtualClock) -> None:
    await x.plan("sleep 7 minutes")
    await x.arm(None, "tick", every="1 hour")
    assert await x.when("tick") == START + timedelta(hours=1)
    await clock.advance("210 minutes")
    assert world.times == [START + timedelta(hours=n) for n in (1, 2, 3)]
    assert await x.when("tick") == START + timedelta(hours=4)


async def test_an_interval_may_begin_at_a_time(x: Alarmed, world: World, clock: VirtualClock) -> None:
    await x.arm("10 minutes", every="1 hour")
    await clock.advance("2 hours")
    assert world.times == [START + timedelta(minutes=10), START + timedelta(minutes=70)]


async def test_a_cron_expression_follows_the_wall_clock_of_its_zone(
    x: Alarmed, world: World, clock: VirtualClock
) -> None:
    await x.arm(cron="30 9 * * MON-FRI", timezone="Europe/Berlin")
    await clock.advance("1 week")
    assert world.times == [datetime(2026, 1, day, 8, 30, tzinfo=UTC) for day in (1, 2, 5, 6, 7)]
    await clock.advance("26 weeks")
    assert {time.hour for time in world.times[-5:]} == {7}, "summer time"


async def test_missed_runs_are_made_up_for_by_one(
    runtime: z0.Runtime, x: Alarmed, world: World, clock: VirtualClock
) -> None:
    await x.arm(every="1 hour")
    await runtime.close()
    await clock.advance("630 minutes")
    async with again(runtime, world, clock):
        await clock.advance("1 hour")
    assert world.times == [START + timedelta(minutes=630), START + timedelta(hours=11)]
    assert world.runs[0].scheduled_time == START + timedelta(hours=1)


async def test_a_recurring_alarm_goes_on_after_a_run_that_was_given_up(
    runtime: z0.Runtime, x: Alarmed, world: World, clock: VirtualClock
) -> None:
    await x.plan("fail")
    await x.arm(every="1 day")
    await clock.advance("25 hours")
    assert len(world.runs) == 7
    await x.plan()
    await clock.advance("1 day")
    assert len(world.runs) == 8
    assert outcomes(runtime) == {("", "retried"): 6, ("", "abandoned"): 1, ("", "ok"): 1}


async def test_deleting_inside_its_handler_stops_a_recurring_alarm(
    x: Alarmed, world: World, clock: VirtualClock
) -> None:
    await x.plan("look", "delete")
    await x.arm(every="1 hour")
    await clock.advance("5 hours")
    assert len(world.runs) == 1
    assert await x.when() is None
    assert await x.value("seen") == START + timedelta(hours=2)


async def test_setting_inside_its_handler_ends_the_recurrence(x: Alarmed, world: World, clock: VirtualClock) -> None:
    await x.plan("set 10 minutes", "fail 1")
    await x.arm(every="1 hour")
    await clock.advance("61 minutes")
    await x.plan()
    await clock.advance("1 day")
    assert len(world.runs) == 3  # the failed one, its retry, and the one that was set


# The wall clock


@pytest.mark.parametrize("jump", ["1 hour", "1 day"])
async def test_a_clock_that_is_set_forward_makes_one_run_not_many(
    x: Alarmed, world: World, clock: VirtualClock, jump: str
) -> None:
    await x.arm(every="1 minute")
    await clock.advance("150 seconds")
    assert len(world.runs) == 2
    clock.jump(jump)
    await clock.settle()
    await clock.advance("10 ms")
    assert len(world.runs) == 3
    await clock.advance("3 minutes")
    assert len(world.runs) == 6


async def test_a_clock_that_is_set_back_repeats_nothing_and_loses_nothing(
    x: Alarmed, world: World, clock: VirtualClock
) -> None:
    await x.arm(every="1 minute")
    for _ in range(5):
        await clock.advance("2 minutes")
        clock.jump("1 hour", backwards=True)
    times = [info.scheduled_time for info in world.runs]
    assert len(times) == len(set(times)) == 2
    await x.arm("1 minute", "once")
    await clock.advance("1 minute")
    assert world.names()[-1] == "once"
    await clock.advance("6 hours")
    times = [info.scheduled_time for info in world.runs if info.name is None]
    assert times == sorted(set(times))
    assert times[-1] == clock.now().replace(second=0)


async def test_no_run_is_early_by_the_wall_clock(x: Alarmed, world: World, clock: VirtualClock) -> None:
    await x.arm("1 hour")
    await clock.advance("59 minutes")
    clock.jump("30 minutes", backwards=True)
    await clock.advance("30 minutes")
    assert world.runs == []
    await clock.advance("1 minute")
    assert world.times == [START + timedelta(hours=1)]


async def test_thirty_days_of_hourly_alarms_pass_in_virtual_time(x: Alarmed, world: World, clock: VirtualClock) -> None:
    await x.arm(every="1 hour")
    await clock.advance("30 days")
    assert world.times == [START + timedelta(hours=n + 1) for n in range(720)]
    assert len(await x.query_facts()) == 720


async def test_a_file_of_the_first_schema_is_upgraded(
    runtime: z0.Runtime, x: Alarmed, world: World, clock: VirtualClock
) -> None:
    await x.append("kept")
    await runtime.close()
    due = int((START + timedelta(hours=1)).timestamp() * 1e6)
    with sqlite3.connect(runtime.path / "default/Alarmed/x.sqlite") as file:
        file.executescript(
            "DROP TABLE z0_alarms;"
            "CREATE TABLE z0_alarms(name TEXT PRIMARY KEY, due INTEGER NOT NULL, scheduled INTEGER NOT NULL,"
            " retries INTEGER NOT NULL DEFAULT 0, error TEXT) WITHOUT ROWID;"
            f"INSERT INTO z0_alarms VALUES('', {due}, {due}, 1, 'x');"
            "UPDATE z0_meta SET value = 1 WHERE key = 'schema';"
        )
    file.close()
    async with again(runtime, world, clock) as runtime:
        x = runtime.get(Alarmed, "x")
        assert len(await x.query_facts()) == 1
        assert await x.when() == START + timedelta(hours=1)
        await clock.advance("1 hour")
        assert [info.retry_count for info in world.runs] == [1]


async def test_a_catalogue_of_the_first_schema_is_upgraded(
    runtime: z0.Runtime, x: Alarmed, world: World, clock: VirtualClock
) -> None:
    await x.append("kept")
    await runtime.close()
    with sqlite3.connect(runtime.path / "catalog.sqlite") as file:
        file.executescript(
            "DROP INDEX actors_active; ALTER TABLE actors DROP COLUMN active; ALTER TABLE actors DROP COLUMN version;"
            "DROP INDEX actors_status; ALTER TABLE actors DROP COLUMN status; DROP TABLE removals;"
            "UPDATE z0_meta SET value = 1 WHERE key = 'schema';"
        )
    file.close()
    async with again(runtime, world, clock) as runtime:
        assert [info.name for info in await runtime.list(Alarmed)] == ["x"]
        await runtime.get(Alarmed, "x").arm("1 minute")
        await clock.advance("2 minutes")
        assert len(world.runs) == 1


async def test_any_error_of_a_handler_can_be_kept(
    runtime: z0.Runtime, x: Alarmed, world: World, clock: VirtualClock
) -> None:
    await x.plan("fail hard")
    await x.arm("1 second")
    await clock.advance("1 hour")
    assert len(world.runs) == 7
    assert outcomes(runtime)["", "abandoned"] == 1


async def test_outcomes_are_kept_in_a_file_that_was_made_before_its_class_had_alarms(
    world: World, clock: VirtualClock
) -> None:
    class Before(z0.Entity):
        namespace = "Alarmed"
        accepts = {"*"}

    async with temporary_runtime(memory=True, env=world, clock=clock) as runtime:
        await runtime.get(Before, "x").append("old")
        await runtime.close()
        async with again(runtime, world, clock) as runtime:
            x = runtime.get(Alarmed, "x")
            await x.arm("1 minute")
            await clock.advance("1 minute")
            assert outcomes(runtime) == {("", "ok"): 1}
            assert [fact.type for fact in await x.query_facts()] == ["old", "fired"]

"""Instances by the calendar: each time once, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import z0
from z0.actors.clock import us_of
from z0.actors.names import file_path
from z0.testing import VirtualClock, crash, fault, temporary_runtime
from z0.workflows import calendar
from z0.workflows.schedules import due_times, instance_id, times

START = datetime(2026, 1, 1, tzinfo=UTC)


class Report(z0.Workflow):
    schedules: ClassVar = [z0.Schedule(cron="0 9 * * *", name="daily", payload={"kind": "day"})]

    async def run(self, event: z0.Event[Any], step: z0.Step) -> str:
        return f"{event.payload['kind']} {event.scheduled_time}"


class Hourly(z0.Workflow):
    schedules: ClassVar = [
        z0.Schedule(cron="0 * * * *", name="one"),
        z0.Schedule(cron="0 * * * *", name="all", missed="all"),
        z0.Schedule(cron="0 * * * *", name="skip", missed="skip"),
    ]

    async def run(self, event: z0.Event[Any], step: z0.Step) -> None:
        pass


class Every(Report):
    schedules: ClassVar = [z0.Schedule(cron="0 9 * * *", name="daily", payload={"kind": "day"}, missed="all")]


class Plain(z0.Workflow):
    async def run(self, event: z0.Event[Any], step: z0.Step) -> Any:
        return event.payload


CLASSES = [Report, Plain]


async def ids(runtime: z0.Runtime, cls: type[z0.Workflow], prefix: str = "") -> list[str]:
    return [info.id for info in await runtime.workflows.list(cls, prefix=prefix, limit=None)]


def at(name: str, **span: float) -> str:
    return instance_id(name, us_of(START + timedelta(**span)))


async def test_a_class_with_a_schedule_gets_an_instance_each_time_under_an_id_that_tells_it(
    clock: VirtualClock,
) -> None:
    async with temporary_runtime(memory=True, clock=clock, actors=CLASSES) as runtime:
        await clock.advance("3 days")
        assert await ids(runtime, Report) == [at("daily", hours=9 + 24 * n) for n in range(3)]
        instance = runtime.workflows.get(Report, at("daily", hours=9))
        assert await instance.result("1 second") == "day 2026-01-01 09:00:00+00:00"
        (info,) = await runtime.workflows.schedules(Report).list()
        assert (info.declared, info.last, info.next) == (True, START + timedelta(hours=57), START + timedelta(hours=81))


async def test_a_schedule_keeps_to_the_wall_clock_of_its_zone(clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, clock=VirtualClock(datetime(2026, 3, 28, tzinfo=UTC))) as runtime:
        berlin: Any = runtime.node.clock
        await runtime.workflows.schedule(Plain, z0.Schedule(cron="0 9 * * *", timezone="Europe/Berlin", name="b"))
        await berlin.advance("2 days")
        hours = [runtime.workflows.get(Plain, id) for id in await ids(runtime, Plain)]
        created = [(await each.status()).created.hour for each in hours]
        assert created == [8, 7]  # summer time begins on the 29th


async def test_runs_that_were_missed_are_made_up_for_as_the_schedule_says(clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, clock=clock, actors=[Hourly]) as runtime:
        await clock.advance("90 minutes")
        await runtime.close()
        await clock.advance("5 hours")
        async with z0.Runtime(runtime.path, clock=clock, actors=[Hourly]) as again:
            await clock.advance("1 second")
            assert await ids(again, Hourly, "one-") == [at("one", hours=n) for n in (1, 6)]
            assert await ids(again, Hourly, "all-") == [at("all", hours=n) for n in range(1, 7)]
            assert await ids(again, Hourly, "skip-") == [at("skip", hours=1)]
            await clock.advance("1 hour")
            assert [len(await ids(again, Hourly, each)) for each in ("one-", "all-", "skip-")] == [3, 7, 2]


async def test_a_paused_schedule_creates_nothing_and_goes_on_from_the_present(clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, clock=clock, actors=CLASSES) as runtime:
        schedules = runtime.workflows.schedules(Report)
        await schedules.pause("daily")
        await clock.advance("2 days")
        assert await ids(runtime, Report) == []
        await runtime.close()
        async with z0.Runtime(runtime.path, clock=clock, actors=CLASSES) as again:  # declared once more, still paused
            await clock.advance("1 day")
            assert await ids(again, Report) == []
            await again.workflows.schedules(Report).resume("daily")
            await clock.advance("1 day")
            assert await ids(again, Report) == [at("daily", hours=24 * 3 + 9)]


async def test_backfilling_creates_what_is_missing_and_nothing_twice(clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, clock=clock, actors=CLASSES) as runtime:
        await clock.advance("2 days")
        schedules = runtime.workflows.schedules(Report)
        made = await schedules.backfill("daily", START - timedelta(days=3), START + timedelta(days=2))
        assert list(made) == [at("daily", hours=24 * n + 9) for n in (-3, -2, -1)]
        assert list(await schedules.backfill("daily", START - timedelta(days=3), START)) == []
        assert len(await ids(runtime, Report)) == 5
        with pytest.raises(ValueError, match="time zone"):
            await schedules.backfill("daily", datetime(2026, 1, 1), START)
        with pytest.raises(ValueError, match="10,000"):
            await schedules.backfill("daily", START - timedelta(days=20_000), START)


async def test_a_schedule_is_triggered_by_hand(clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, clock=clock, actors=CLASSES) as runtime:
        instance = await runtime.workflows.schedules(Report).trigger("daily")
        assert (await instance.result("1 second")).startswith("day ")
        with pytest.raises(z0.ScheduleNotFound, match="daily"):
            await runtime.workflows.schedules(Report).trigger("weekly")


async def test_each_trigger_makes_an_instance_and_none_under_an_id_that_is_taken(clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, clock=clock, actors=CLASSES) as runtime:
        schedules = runtime.workflows.schedules(Report)
        made = [*await asyncio.gather(*(schedules.trigger("daily") for _ in range(5)))]
        await runtime.close()
        async with z0.Runtime(runtime.path, clock=clock, actors=CLASSES) as again:
            schedules = again.workflows.schedules(Report)
            made.append(await schedules.trigger("daily"))
            first = us_of(START) // 1_000
            assert [each.id for each in made] == [f"daily-now-{first + n}" for n in range(6)]
            await clock.settle()
            assert await again.workflows.counts(Report) == {"complete": 6}
            assert (await schedules.trigger("daily", id="mine")).id == "mine"
            with pytest.raises(z0.InstanceExists, match="Report 'mine' exists already"):
                await schedules.trigger("daily", id="mine")
            with pytest.raises(z0.InvalidName):
                await schedules.trigger("daily", id="no id!")


async def test_a_schedule_of_a_tenant_creates_instances_of_the_tenant(clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, clock=clock, actors=CLASSES) as runtime:
        workflows = runtime.tenant("t1").workflows
        await workflows.schedule(Plain, z0.Schedule(cron="0 0 * * *", payload=7))
        await clock.advance("2 days")
        assert await workflows.count(Plain, status="complete") == 2
        assert await runtime.workflows.count(Plain) == 0
        await workflows.schedules(Plain).remove("cron-0-0-x-x-x")
        await clock.advance("2 days")
        assert await workflows.count(Plain) == 2


async def test_a_schedule_that_the_class_declares_no_more_is_gone_and_others_stay(clock: VirtualClock) -> None:
    class Less(Plain):
        namespace = "Report"

    async with temporary_runtime(memory=True, clock=clock, actors=CLASSES) as runtime:
        await runtime.workflows.schedule(Report, z0.Schedule(cron="0 10 * * *", name="own", payload={"kind": "x"}))
        await runtime.close()
        async with z0.Runtime(runtime.path, clock=clock, actors=[Less]) as again:
            assert [info.name for info in await again.workflows.schedules(Less).list()] == ["own"]


async def test_instances_of_a_class_that_is_not_known_wait_for_it(clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, clock=clock, actors=CLASSES) as runtime:
        await runtime.close()
        async with z0.Runtime(runtime.path, clock=clock):
            await clock.advance("1 day")
        async with z0.Runtime(runtime.path, clock=clock, actors=CLASSES) as again:
            await clock.advance("2 minutes")
            assert await ids(again, Report) == [at("daily", hours=9)]


class ByCustomer(Plain):
    concurrency = z0.Concurrency(limit=1, key="customer")


async def test_a_schedule_whose_payload_will_not_do_says_so_and_stops_no_other(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with temporary_runtime(memory=True, clock=clock, actors=[ByCustomer]) as runtime:
        schedules = runtime.workflows.schedules(ByCustomer)
        await schedules.set(z0.Schedule(cron="0 8 * * *", name="bad"))
        await schedules.set(z0.Schedule(cron="0 9 * * *", name="good", payload={"customer": "c"}))
        await clock.advance("3 days")
        assert await ids(runtime, ByCustomer) == [at("good", hours=9 + 24 * n) for n in range(3)]
        bad, good = await schedules.list()
        assert "customer" in (bad.error or "")
        assert (bad.last, bad.next, good.error) == (None, START + timedelta(days=3, hours=8), None)
        assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 3
        await schedules.set(z0.Schedule(cron="0 8 * * *", name="bad", payload={"customer": "d"}))
        assert [info.error for info in await schedules.list()] == [None, None]
        await clock.advance("1 day")
        assert await ids(runtime, ByCustomer, "bad") == [at("bad", days=3, hours=8)]


@pytest.mark.parametrize(("missed", "made"), [("one", 1), ("skip", 1), ("all", 4)])
async def test_a_run_that_fails_for_hours_is_tried_until_it_is_made(
    clock: VirtualClock, missed: Any, made: int
) -> None:
    async with temporary_runtime(memory=True, clock=clock, actors=[Plain]) as runtime:
        workflows = runtime.tenant("t1").workflows  # whose calendar nobody opens when the runtime is
        schedules = workflows.schedules(Plain)
        await schedules.set(z0.Schedule(cron="0 * * * *", name="s", missed=missed))
        with fault(runtime, "register", times=None) as struck:
            await clock.advance("250 minutes")
            (info,) = await schedules.list()
            assert "fault 'register'" in (info.error or "")
        assert 10 < struck.hits < 60
        await clock.advance("22 minutes")
        names = [each.id for each in await workflows.list(Plain)]
        assert names == [at("s", hours=n) for n in range(5 - made, 5)]
        await clock.advance("1 hour")
        (info,) = await schedules.list()
        assert (info.error, info.last) == (None, START + timedelta(hours=5))


async def test_a_schedule_goes_on_when_its_alarm_itself_fails_for_good(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(self: calendar.Calendar, row: calendar.Row) -> None:
        await clock.sleep("1 second")
        raise RuntimeError("a fault of ours")

    async with temporary_runtime(memory=True, clock=clock, actors=CLASSES) as runtime:
        await runtime.tenant("t1").workflows.schedule(Plain, z0.Schedule(cron="0 0 * * *", name="s"))
        with monkeypatch.context() as patched:
            patched.setattr(calendar.Calendar, "_catch_up", fails)
            await clock.advance("25 hours")
        await clock.advance("1 hour")
        assert await runtime.tenant("t1").workflows.count(Plain) == 1


async def test_a_schedule_whose_alarm_was_given_up_goes_on_when_its_calendar_is_opened(clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, clock=clock, actors=CLASSES) as runtime:
        workflows = runtime.tenant("t1").workflows
        await workflows.schedule(Plain, z0.Schedule(cron="0 0 * * *", name="s"))
        await clock.settle()
        (host,) = [host for host in runtime.node.hosts.values() if host.address.namespace == calendar.NAMESPACE
                   and host.address.tenant == "t1"]  # fmt: skip
        await runtime.close()
        with sqlite3.connect(runtime.path / file_path(*host.address)) as file:
            file.execute("DELETE FROM z0_alarms")
        file.close()
        async with z0.Runtime(runtime.path, clock=clock, actors=CLASSES) as again:
            await again.tenant("t1").workflows.schedules(Plain).list()
            await clock.advance("1 day")
            assert await again.tenant("t1").workflows.count(Plain) == 1


async def test_a_zone_that_is_not_known_any_more_is_waited_for(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*args: Any) -> Any:
        raise ValueError("not a time zone")

    async with temporary_runtime(memory=True, clock=clock, actors=CLASSES) as runtime:
        schedules = runtime.workflows.schedules(Report)
        with monkeypatch.context() as patched:
            patched.setattr(calendar, "due_times", unknown)
            await clock.advance("10 hours")
            assert [info.error for info in await schedules.list()] == ["ValueError: not a time zone"]
        await clock.advance("1 hour")
        assert await ids(runtime, Report) == [at("daily", hours=9)]


async def crash_on_the_way(point: Any, nth: int) -> bool:
    """Crash at that commit, go on, and see that each day has one instance; whether it came to that commit."""
    clock = VirtualClock()
    async with temporary_runtime(memory=True, clock=clock, actors=[Every]) as runtime:
        with fault(runtime, point, nth=nth) as struck:
            await clock.advance("2 days")
        await crash(runtime)
        async with z0.Runtime(runtime.path, clock=clock, actors=[Every]) as again:
            await clock.advance("1 day")
            assert await ids(again, Every) == [at("daily", hours=9 + 24 * n) for n in range(3)]
            assert await again.workflows.counts(Every) == {"complete": 3}
    return bool(struck.hits)


@pytest.mark.parametrize("point", ["crash-before-commit", "crash-after-commit"])
async def test_wherever_a_crash_comes_each_time_has_one_instance(point: Any) -> None:
    for nth in range(1, 40):
        if not await crash_on_the_way(point, nth):
            break
    assert 4 < nth < 39


async def test_a_time_that_has_two_instances_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    made = itertools.count()
    monkeypatch.setattr(calendar, "instance_id", lambda name, at: f"{instance_id(name, at)}-{next(made)}")
    with pytest.raises(AssertionError):
        await crash_on_the_way("crash-before-commit", 2)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"cron": "every day"}, "cron"),
        ({"cron": "0 0 * * *", "timezone": "Mars"}, "time zone"),
        ({"cron": "0 0 * * *", "missed": "some"}, "missed"),
        ({"cron": "0 0 * * *", "name": "x" * 81}, "80"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        z0.Schedule(**wrong)


CRONS = st.sampled_from(["*/20 * * * *", "0 9 * * *", "30 2 * * 0", "0 0 31 * *", "5,35 */3 * * 1-5"])
ZONES = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])
SECONDS = st.integers(0, 5 * 86_400)


@settings(deadline=None, max_examples=50)
@given(CRONS, ZONES, st.integers(0, 400), SECONDS, SECONDS)
def test_what_is_due_is_what_the_calendar_has(cron: str, zone: str, day: int, first: int, later: int) -> None:
    recurs = z0.Schedule(cron=cron, timezone=zone).recurs()
    begin = us_of(START + timedelta(days=day, seconds=first))
    due = next(times(recurs, begin, begin + 400 * 86_400_000_000))
    now = due + later * 1_000_000
    everything = [each for each in times(recurs, due, now + 1)]
    runs, following = due_times(recurs, "all", due, now)
    assert runs == everything
    assert due_times(recurs, "one", due, now) == ([everything[-1]], following)
    skipped, after = due_times(recurs, "skip", due, now)
    assert after == following > now
    assert skipped == ([everything[-1]] if now - everything[-1] <= 60_000_000 else [])

"""As Durable Objects: alarms. What other tests prove is named in docs/durable_objects.md."""

from __future__ import annotations

import asyncio
import inspect
import sqlite3
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import z0
from tests.scripted import Room, World
from z0.testing import Point, VirtualClock, crash, fault, temporary_runtime

START = datetime(2026, 1, 1, tzinfo=UTC)


class Ringing(Room):
    """Does in its alarm what the script "alarm" says."""

    async def alarm(self, info: z0.AlarmInfo) -> None:
        self.env.log.append((self.name, info.name, info.retry_count, self.clock.now() - START))
        script = self.env.scripts.get("alarm")
        result = script(self, info) if script is not None else None
        if inspect.isawaitable(result):
            await result

    async def arm(self, *spans: Any, name: str | None = None) -> None:
        for span in spans:
            self.storage.set_alarm(span, name)

    async def disarm(self) -> None:
        self.storage.delete_alarm()

    async def when(self, name: str | None = None) -> datetime | None:
        return self.storage.get_alarm(name)


class Oops(Exception):
    pass


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
async def runtime(world: World, clock: VirtualClock) -> AsyncIterator[z0.Runtime]:
    async with temporary_runtime(memory=True, env=world, clock=clock, actors=[Ringing]) as runtime:
        yield runtime


@pytest.fixture
def bell(runtime: z0.Runtime) -> Ringing:
    return runtime.get(Ringing, "a")


def again(runtime: z0.Runtime, world: World, clock: VirtualClock) -> z0.Runtime:
    """A runtime on the directory of one that has ended."""
    return z0.Runtime(runtime.path, env=world, clock=clock, actors=[Ringing])


def outcomes(runtime: z0.Runtime) -> dict[tuple[str, str], int]:
    with sqlite3.connect(f"file:{runtime.path}/default/Ringing/a.sqlite?mode=ro", uri=True) as file:
        rows = file.execute("SELECT name, outcome, times FROM z0_alarm_outcomes").fetchall()
    file.close()
    return {(alarm, outcome): times for alarm, outcome, times in rows}


def times(world: World) -> list[timedelta]:
    return [at for *_, at in world.log]


def hours(number: float) -> timedelta:
    return timedelta(hours=number)


# Transactions


@pytest.mark.parametrize("name", ["a", "Åse/…", "x" * 512])
async def test_the_name_is_known_in_an_alarm_after_a_restart_too(
    runtime: z0.Runtime, world: World, clock: VirtualClock, name: str
) -> None:
    await runtime.get(Ringing, name).arm("1 hour")
    await crash(runtime)
    async with again(runtime, world, clock):
        await clock.advance("1 hour")
    assert world.log == [(name, None, 0, hours(1))]


@pytest.mark.parametrize(
    "change", [lambda room: room.storage.set_alarm("2 hours"), lambda room: room.storage.delete_alarm()]
)
@pytest.mark.parametrize("depth", [1, 2])
async def test_a_transaction_that_is_taken_back_leaves_the_alarm_as_it_was(
    bell: Ringing, world: World, clock: VirtualClock, change: Callable[[Room], None], depth: int
) -> None:
    def script(room: Room) -> None:
        try:
            with room.storage.transaction():
                if depth == 2:
                    with room.storage.transaction():
                        change(room)
                else:
                    change(room)
                raise Oops
        except Oops:
            return

    await bell.arm("1 hour")
    await bell.at_once(world.script(script))
    assert await bell.when() == START + hours(1)
    await clock.advance("1 day")
    assert times(world) == [hours(1)]


@pytest.mark.parametrize("outer", [False, True])
@pytest.mark.parametrize("inner", [False, True])
async def test_an_alarm_set_in_its_handler_inside_transactions_is_kept_if_all_of_them_are(
    bell: Ringing, world: World, clock: VirtualClock, outer: bool, inner: bool
) -> None:
    def alarm(room: Room, info: z0.AlarmInfo) -> None:
        try:
            with room.storage.transaction():
                try:
                    with room.storage.transaction():
                        if len(world.log) == 1:
                            room.storage.set_alarm("1 hour")
                        if not inner:
                            raise Oops
                except Oops:
                    pass
                if not outer:
                    raise Oops
        except Oops:
            pass

    world.script(alarm)
    await bell.arm("1 hour")
    await clock.advance("1 day")
    assert times(world) == ([hours(1), hours(2)] if outer and inner else [hours(1)])
    assert await bell.when() is None


# delete_all


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("sets", [False, True])
async def test_delete_all_in_a_handler_ends_the_run_unless_it_is_taken_back(
    runtime: z0.Runtime, bell: Ringing, world: World, clock: VirtualClock, fails: bool, sets: bool
) -> None:
    def alarm(room: Room, info: z0.AlarmInfo) -> None:
        if len(world.log) > 1:
            return
        room.storage.delete_all()
        if sets:
            room.storage.set_alarm("1 hour")
        if fails:
            raise Oops

    world.script(alarm)
    await bell.put("k")
    await bell.arm("1 hour")
    await clock.advance("1 hour")
    await clock.advance("3 seconds")
    if fails:
        assert [retries for _, _, retries, _ in world.log] == [0, 1], "the run is owed still"
        assert await bell.read() == {"k": 1}
    else:
        assert len(world.log) == 1
        assert await bell.read() == {}
        assert await bell.when() == (START + hours(2) if sets else None)
    await clock.advance("1 day")
    assert len(world.log) == (2 if fails or sets else 1)


async def test_delete_all_in_its_handler_ends_a_recurring_alarm_and_all_others(
    bell: Ringing, world: World, clock: VirtualClock
) -> None:
    world.scripts["alarm"] = lambda room, info: room.storage.delete_all()
    await bell.at_once(world.script(lambda room: room.storage.set_alarm(every="1 hour")))
    await bell.arm("90 minutes", name="named")
    await clock.advance("1 day")
    assert times(world) == [hours(1)]


async def test_delete_all_takes_every_alarm_also_across_a_restart(
    runtime: z0.Runtime, bell: Ringing, world: World, clock: VirtualClock
) -> None:
    await bell.arm("1 hour")
    await bell.arm("2 hours", name="named")
    await bell.at_once(world.script(lambda room: room.storage.delete_all()))
    assert (await bell.when(), await bell.when("named")) == (None, None)
    await runtime.close()
    async with again(runtime, world, clock):
        await clock.advance("1 day")
    assert world.log == []


# The index


@pytest.mark.parametrize(
    ("indexed", "in_file", "ran"),
    [
        (hours(1), hours(1), [hours(1)]),
        (hours(1), None, []),
        (hours(1), hours(3), [hours(3)]),
        (hours(2), hours(1), [hours(2)]),
    ],
    ids=["equal", "not set", "later", "overdue"],
)
async def test_what_the_index_says_is_checked_against_the_actors_own_file(
    runtime: z0.Runtime, bell: Ringing, world: World, clock: VirtualClock,
    indexed: timedelta, in_file: timedelta | None, ran: list[timedelta],
) -> None:  # fmt: skip
    await bell.arm("1 minute")
    await (bell.disarm() if in_file is None else bell.arm(in_file))
    await runtime.close()
    with sqlite3.connect(runtime.path / "catalog.sqlite") as catalog:
        catalog.execute("UPDATE actors SET next_alarm = ?", ((START + indexed).timestamp() * 1e6,))
    catalog.close()
    async with again(runtime, world, clock):
        await clock.advance("1 day")
    assert times(world) == ran


@pytest.mark.parametrize("then", [["3 hours"], ["1 hour"], [None], [None, "1 hour"], ["3 hours", "1 hour"]])
@pytest.mark.parametrize("end", ["close", "crash", "evict"])
async def test_the_last_word_counts_whenever_the_runtime_ends(
    runtime: z0.Runtime, bell: Ringing, world: World, clock: VirtualClock, then: list[str | None], end: str
) -> None:
    await bell.arm("2 hours")
    assert await runtime.evict(Ringing, "a")
    for span in then:
        await (bell.disarm() if span is None else bell.arm(span))
    if end == "evict":
        assert await runtime.evict(Ringing, "a")
        await clock.advance("1 day")
    else:
        await (runtime.close() if end == "close" else crash(runtime))
        async with again(runtime, world, clock):
            await clock.advance("1 day")
    last = then[-1]
    assert times(world) == ([] if last is None else [hours(int(last[0]))])


@pytest.mark.parametrize("point", ["commit-lost", "storage", "crash-before-commit"])
async def test_an_alarm_moved_later_by_a_commit_that_is_lost_runs_when_it_did(
    runtime: z0.Runtime, bell: Ringing, world: World, clock: VirtualClock, point: Point
) -> None:
    await bell.arm("1 hour")
    with fault(runtime, point), pytest.raises((z0.ActorReset, z0.CommitUnknown)):
        await bell.arm("5 hours")
    await crash(runtime)
    async with again(runtime, world, clock):
        await clock.advance("1 day")
    assert times(world) == [hours(1)]


async def test_many_that_move_an_alarm_earlier_and_later_in_one_turn_leave_the_last_one(
    bell: Ringing, world: World, clock: VirtualClock
) -> None:
    await asyncio.gather(*(bell.arm(f"{span} minutes") for span in (50, 40, 5, 30, 20)))
    await bell.arm("3 hours", "2 hours", "1 hour", "90 minutes")
    await clock.advance("1 day")
    assert times(world) == [hours(1.5)]


async def test_messages_that_change_no_alarm_do_not_touch_the_catalogue(
    runtime: z0.Runtime, bell: Ringing, clock: VirtualClock
) -> None:
    await bell.arm("1 hour")
    await bell.arm("1 hour", name="named")
    await clock.settle()
    catalog = sqlite3.connect(f"file:{runtime.path}/catalog.sqlite?mode=ro", uri=True)

    def version() -> Any:
        return catalog.execute("PRAGMA data_version").fetchone()

    before = version()
    for n in range(20):
        await bell.put(f"k{n}")
        await bell.arm("1 hour", "30 minutes", "2 hours")  # the actor is in the active set: not even this costs it
        await bell.disarm()
    await clock.settle()
    assert version() == before
    await runtime.get(Ringing, "new").put("k")
    assert version() != before
    catalog.close()


# Runs


@pytest.mark.parametrize("point", ["storage", "commit-lost"])
async def test_a_run_whose_commit_is_lost_is_owed_and_not_counted(
    runtime: z0.Runtime, bell: Ringing, world: World, clock: VirtualClock, point: Point
) -> None:
    def alarm(room: Room, info: z0.AlarmInfo) -> None:
        room.storage.put("runs", room.storage.get("runs", 0) + 1)

    world.script(alarm)
    await bell.arm("1 hour")
    with fault(runtime, point, times=10) as struck:
        await clock.advance("1 day")
    assert struck.hits == 10
    assert [retries for _, _, retries, _ in world.log] == [0] * 11
    assert await bell.read() == {"runs": 1}
    assert outcomes(runtime) == {("", "ok"): 1}


async def test_a_run_whose_commit_is_kept_although_it_failed_is_not_made_again(
    runtime: z0.Runtime, bell: Ringing, world: World, clock: VirtualClock
) -> None:
    await bell.arm("1 hour")
    with fault(runtime, "commit-kept") as struck:
        await clock.advance("1 day")
    assert struck.hits == 1
    assert len(world.log) == 1
    assert await bell.when() is None


async def test_failures_of_the_storage_do_not_use_up_the_retries_of_a_handler_that_raises(
    runtime: z0.Runtime, bell: Ringing, world: World, clock: VirtualClock
) -> None:
    def alarm(room: Room, info: z0.AlarmInfo) -> None:
        raise Oops

    world.script(alarm)
    await bell.arm("1 hour")
    with fault(runtime, "storage", nth=3, times=5) as struck:  # the notes of the first two failures are kept
        await clock.advance("2 days")
    assert struck.hits == 5
    counts = [retries for _, _, retries, _ in world.log]
    assert counts == [0, 1, *[2] * 6, 3, 4, 5, 6]
    assert outcomes(runtime)["", "abandoned"] == 1
    assert await bell.when() is None


@pytest.mark.parametrize("sees", ["alarm", "message"])
async def test_the_end_of_a_run_waits_for_its_writes(
    runtime: z0.Runtime, bell: Ringing, world: World, clock: VirtualClock, sees: str
) -> None:
    world.script(_noting)
    await bell.arm("1 hour")
    if sees == "alarm":
        await bell.arm("1 hour", name="next")
    with fault(runtime, "commit-held", times=None) as held:
        await clock.advance("1 hour")
        assert len(world.log) == 1
        reading = asyncio.create_task(bell.when())
        await clock.settle()
        assert not reading.done(), "nobody sees that the alarm is gone"
        assert len(world.log) == 1, "nor does the next one run"
        held.release()
        await clock.settle()
        assert len(world.log) == (2 if sees == "alarm" else 1)
    await reading


def _noting(room: Room, info: z0.AlarmInfo) -> None:
    room.storage.put(info.name or "unnamed", 1)


# abort


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("retry", [False, True])
async def test_a_run_that_aborts_is_made_again_unless_it_says_otherwise(
    runtime: z0.Runtime, bell: Ringing, world: World, clock: VirtualClock, retry: bool, waits: bool
) -> None:
    def abort(room: Room) -> None:
        room.storage.put("lost", 1)
        if len(world.log) == 1:
            room.abort("enough", retry_alarm=retry)

    async def slowly(room: Room, info: z0.AlarmInfo) -> None:
        await room.clock.sleep("1 second")
        abort(room)

    world.scripts["alarm"] = slowly if waits else lambda room, info: abort(room)
    await bell.arm("1 hour")
    await clock.advance("1 day")
    assert [retries for _, _, retries, _ in world.log] == ([0, 0] if retry else [0])
    assert await bell.read() == ({"lost": 1} if retry else {})
    assert await bell.when() is None
    assert outcomes(runtime) == ({("", "ok"): 1} if retry else {("", "abandoned"): 1})
    await runtime.close()
    async with again(runtime, world, clock):
        await clock.advance("1 day")
    assert len(world.log) == (2 if retry else 1)


async def test_an_alarm_that_was_set_before_its_run_was_given_up_still_runs(
    runtime: z0.Runtime, bell: Ringing, world: World, clock: VirtualClock
) -> None:
    async def alarm(room: Room, info: z0.AlarmInfo) -> None:
        if len(world.log) == 1:
            room.storage.set_alarm("2 hours")
            await room.storage.sync()
            room.storage.set_alarm("3 hours")  # lost with the rest of what was not committed
            room.abort(retry_alarm=False)

    world.script(alarm)
    await bell.arm("1 hour")
    await clock.advance("1 day")
    assert times(world) == [hours(1), hours(3)]
    assert [retries for _, _, retries, _ in world.log] == [0, 0]


async def test_giving_up_one_run_of_a_recurring_alarm_does_not_end_the_recurrence(
    runtime: z0.Runtime, bell: Ringing, world: World, clock: VirtualClock
) -> None:
    def alarm(room: Room, info: z0.AlarmInfo) -> None:
        if len(world.log) == 2:
            room.abort(retry_alarm=False)

    world.script(alarm)
    await bell.at_once(world.script(lambda room: room.storage.set_alarm(every="1 hour")))
    await clock.advance("4 hours")
    assert times(world) == [hours(1), hours(2), hours(3), hours(4)]


async def test_a_message_that_aborts_gives_up_the_run_that_is_under_way(
    runtime: z0.Runtime, bell: Ringing, world: World, clock: VirtualClock
) -> None:
    async def alarm(room: Room, info: z0.AlarmInfo) -> None:
        await room.clock.sleep("10 minutes")

    def give_up(room: Room) -> None:
        room.abort(retry_alarm=False)

    world.script(alarm)
    await bell.arm("1 hour")
    await clock.advance("1 hour")
    with pytest.raises(z0.ActorReset):
        await bell.at_once(world.script(give_up))
    await clock.advance("1 day")
    assert times(world) == [hours(1)]
    assert await bell.when() is None


async def test_a_run_that_was_given_up_stays_so_when_a_message_opens_the_actor_first(
    runtime: z0.Runtime, bell: Ringing, world: World, clock: VirtualClock
) -> None:
    def alarm(room: Room, info: z0.AlarmInfo) -> None:
        world.go.set()
        room.abort(retry_alarm=False)

    world.script(alarm)
    await bell.arm("1 hour")
    ringing = asyncio.create_task(clock.advance("2 hours"))
    await world.go.wait()
    await bell.put("k")
    await ringing
    await crash(runtime)
    async with again(runtime, world, clock):
        await clock.advance("1 day")
    assert len(world.log) == 1


@pytest.mark.parametrize("killed", [False, True])
async def test_a_failure_before_the_file_says_that_a_run_was_given_up_makes_it_once_more(
    runtime: z0.Runtime, bell: Ringing, world: World, clock: VirtualClock, killed: bool
) -> None:
    def alarm(room: Room, info: z0.AlarmInfo) -> None:
        if len(world.log) == 1:
            room.abort(retry_alarm=False)

    world.script(alarm)
    await bell.arm("1 hour")
    with fault(runtime, "open", nth=2) as struck:  # the first time it is opened for the run
        await clock.advance("1 hour")
    assert (len(world.log), struck.hits) == (1, 1)
    if killed:
        await crash(runtime)
        async with again(runtime, world, clock):
            await clock.advance("1 day")
    else:
        await clock.advance("1 day")
    assert [retries for _, _, retries, _ in world.log] == [0, 0]


async def test_background_work_may_set_an_alarm(
    runtime: z0.Runtime, bell: Ringing, world: World, clock: VirtualClock
) -> None:
    async def work(room: Room) -> None:
        await room.clock.sleep("1 minute")
        room.storage.set_alarm("1 hour")

    await bell.at_once(world.script(lambda room: room.wait_until(work(room)) and None))
    await clock.advance("2 hours")
    assert times(world) == [hours(1) + timedelta(minutes=1)]

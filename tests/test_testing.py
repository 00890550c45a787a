"""z0.testing: the clock settles at once, faults strike where and when they are told, and a crash may come any time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import subprocess
import sys
import time
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import z0
from z0.actors.gates import pass_once
from z0.actors.names import Address, file_path
from z0.actors.reader import Reader
from z0.testing import Point, VirtualClock, crash, fault, temporary_runtime

DOCS = Path(__file__).parent.parent / "docs" / "testing.md"


class Counter(z0.Actor):
    """Counts on disk, and may wait."""

    env: asyncio.Event

    async def add(self) -> int:
        n: int = self.storage.get("n", 0) + 1
        self.storage.put("n", n)
        return n

    async def look(self) -> int:
        return int(self.storage.get("n", 0))

    async def add_twice(self) -> int:
        await self.add()
        await self.env.wait()
        return await self.add()

    async def hourly(self, hours: int) -> None:
        for _ in range(hours):
            await self.clock.sleep("1 hour")
            await self.add()


class Slow(Counter):
    async def start(self) -> None:
        await self.env.wait()

    async def stop(self, reason: str) -> None:
        await self.env.wait()


class Account(z0.Entity):
    accepts = {"deposit"}


@pytest.fixture
async def go() -> asyncio.Event:
    return asyncio.Event()


@pytest.fixture
async def runtime(clock: VirtualClock, go: asyncio.Event) -> AsyncIterator[z0.Runtime]:
    async with temporary_runtime(memory=True, clock=clock, env=go) as runtime:
        yield runtime


def on_disk(runtime: z0.Runtime, name: str = "a") -> int:
    """How many committed writes the actor's file holds."""
    with Reader(runtime.path / file_path(*Address("default", "Counter", name))) as reader:
        return len(reader.rows("SELECT 1 FROM z0_kv"))


async def outcome(call: Awaitable[Any]) -> Any:
    """What a call gives: its value, or the type of its error."""
    try:
        return await call
    except z0.Z0Error as error:
        return type(error)


async def until(true: Callable[[], bool]) -> None:
    """Let the loop run until it is so."""
    while not true():
        await pass_once()


# The clock


@pytest.mark.parametrize("resident", [True, False])
async def test_a_month_of_hourly_work_passes_in_a_moment(
    runtime: z0.Runtime, clock: VirtualClock, resident: bool
) -> None:
    counter = runtime.get(Counter, "a")

    async def visits() -> None:
        for _ in range(720):
            await clock.sleep("1 hour")
            await counter.add()

    work = asyncio.create_task(counter.hourly(720) if resident else visits())
    started = time.perf_counter()
    await clock.advance("30 days")
    took = time.perf_counter() - started
    assert work.done()
    assert await counter.look() == 720
    assert took < (2 if resident else 8)  # a slow machine's; 0.05 and 0.9 are usual


async def test_time_does_not_go_back_when_several_move_it_at_once(clock: VirtualClock) -> None:
    began = clock.now()
    sleeping = asyncio.create_task(clock.sleep("1 second"))
    await asyncio.gather(clock.advance("10 seconds"), clock.advance("1 minute"))
    await sleeping
    assert clock.now() >= began + timedelta(minutes=1)


async def test_settling_waits_for_threads_however_long_they_take(runtime: z0.Runtime, clock: VirtualClock) -> None:
    done = []
    runtime.node.threads.run(lambda: time.sleep(0.05), lambda _result, _error: done.append(1))
    await clock.settle()
    assert done == [1]


async def test_settling_follows_a_watcher_that_never_says_when_it_is_done(clock: VirtualClock) -> None:
    until = time.perf_counter() + 0.02
    clock.watch(lambda: time.perf_counter() < until, int)
    await clock.settle()
    assert time.perf_counter() >= until


async def test_an_actor_that_rests_after_long_work_is_evicted(runtime: z0.Runtime, clock: VirtualClock) -> None:
    work = asyncio.create_task(runtime.get(Counter, "a").hourly(2))
    await clock.advance("2 hours")
    assert work.done()
    assert len(runtime.node.hosts) == 1
    await clock.advance("12 seconds")
    assert not runtime.node.hosts


# Faults

COMMIT_FAULTS: list[tuple[Point, type[z0.Z0Error], int]] = [
    ("storage", z0.ActorReset, 0),
    ("commit-lost", z0.CommitUnknown, 0),
    ("commit-kept", z0.CommitUnknown, 1),
]


@pytest.mark.parametrize("durability", ["full", "relaxed"])
@pytest.mark.parametrize(("point", "error", "kept"), COMMIT_FAULTS)
async def test_a_failing_commit_is_told_as_it_was(
    point: Point, error: type[z0.Z0Error], kept: int, durability: Any
) -> None:
    async with temporary_runtime(memory=True, durability=durability) as runtime:
        counter = runtime.get(Counter, "a")
        await counter.look()
        with fault(runtime, point) as failing:
            outcomes = await asyncio.gather(*(outcome(counter.add()) for _ in range(3)))
            assert outcomes == [error] * 3
            assert failing.hits == 1
            n = 3 * kept
            assert await counter.add() == n + 1  # only once
        assert await counter.add() == n + 2


@pytest.mark.parametrize(("point", "error", "kept"), COMMIT_FAULTS)
async def test_a_fact_that_would_commit_by_itself_fails_too(
    runtime: z0.Runtime, point: Point, error: type[z0.Z0Error], kept: int
) -> None:
    account = runtime.get(Account, "a")
    for _ in range(3):
        await account.append("deposit", amount=1)
    with fault(runtime, point):
        assert await outcome(account.append("deposit", amount=1)) is error
    assert await account.count_facts() == 3 + kept


@pytest.mark.parametrize(("point", "error", "kept"), COMMIT_FAULTS)
async def test_commits_of_several_actors_fail_one_by_one(
    runtime: z0.Runtime, point: Point, error: type[z0.Z0Error], kept: int
) -> None:
    counters = [runtime.get(Counter, name) for name in "abc"]
    await asyncio.gather(*(counter.look() for counter in counters))
    with fault(runtime, point, actor=counters[1], times=None):
        assert await asyncio.gather(*(outcome(counter.add()) for counter in counters)) == [1, error, 1]
    assert await asyncio.gather(*(counter.look() for counter in counters)) == [1, kept, 1]


async def test_a_fault_strikes_from_the_nth_time_on_as_often_as_it_is_told(runtime: z0.Runtime) -> None:
    counter = runtime.get(Counter, "a")
    with fault(runtime, "commit-lost", nth=3, times=2) as failing:
        outcomes = [await outcome(counter.add()) for _ in range(6)]
    assert outcomes == [1, 2, z0.CommitUnknown, z0.CommitUnknown, 3, 4]
    assert failing.hits == 2


async def test_faults_are_independent_and_leave_nothing_behind(runtime: z0.Runtime) -> None:
    node = runtime.node
    before = (node.durability, node.file_ops, node.catalog.register)
    one = fault(runtime, "commit-lost")
    two = fault(runtime, "storage", nth=2)
    with one:
        two.__enter__()
    counter = runtime.get(Counter, "a")
    assert [await outcome(counter.add()) for _ in range(3)] == [1, z0.ActorReset, 2]
    two.__exit__(None, None, None)
    assert (node.durability, node.file_ops, node.catalog.register) == before


async def test_what_waits_at_a_held_commit_leaves_when_it_is_released(runtime: z0.Runtime, clock: VirtualClock) -> None:
    counter, other = runtime.get(Counter, "a"), runtime.get(Counter, "b")
    await counter.look()
    with fault(runtime, "commit-held", actor=counter) as held:
        first = asyncio.create_task(counter.add())
        await clock.settle()
        second = asyncio.create_task(counter.add())
        await clock.advance("1 hour")  # time passes for the others
        assert await other.add() == 1
        assert (first.done(), second.done(), held.hits, on_disk(runtime)) == (False, False, 1, 0)
        held.release()
        assert (await first, await second) == (1, 2)
        held.release()
    assert await counter.look() == 2


async def test_a_commit_that_was_held_can_fail(runtime: z0.Runtime, clock: VirtualClock) -> None:
    counter = runtime.get(Counter, "a")
    await counter.look()
    with fault(runtime, "commit-held") as held, fault(runtime, "commit-lost"):
        add = asyncio.create_task(outcome(counter.add()))
        await clock.settle()
        held.release()
        assert await add is z0.CommitUnknown


async def test_the_end_of_the_block_releases_what_is_held(runtime: z0.Runtime, clock: VirtualClock) -> None:
    counter = runtime.get(Counter, "a")
    await counter.look()
    with fault(runtime, "commit-held"):
        add = asyncio.create_task(counter.add())
        await clock.settle()
    assert await add == 1


@pytest.mark.parametrize("end", [z0.Runtime.close, crash])
async def test_a_commit_that_is_held_when_the_runtime_ends_never_was(
    runtime: z0.Runtime, clock: VirtualClock, end: Callable[[z0.Runtime], Awaitable[None]]
) -> None:
    counter = runtime.get(Counter, "a")
    await counter.look()
    with fault(runtime, "commit-held"):
        add = asyncio.create_task(outcome(counter.add()))
        await clock.settle()
        await end(runtime)
        assert await add is z0.ActorReset
    async with z0.Runtime(runtime.path, clock=clock) as again:
        assert await again.get(Counter, "a").look() == 0


async def test_a_file_that_cannot_be_opened_fails_its_messages(runtime: z0.Runtime) -> None:
    counter = runtime.get(Counter, "a")
    await counter.add()
    await runtime.evict(Counter, "a")
    with fault(runtime, "open", times=2) as failing:
        assert [await outcome(counter.add()) for _ in range(3)] == [z0.ActorReset, z0.ActorReset, 2]
    assert failing.hits == 2


async def test_an_actor_that_cannot_be_registered_is_not_made(runtime: z0.Runtime) -> None:
    counter = runtime.get(Counter, "a")
    with fault(runtime, "register"):
        assert await outcome(counter.add()) is z0.ActorReset
        assert await runtime.list(Counter) == []
        assert await counter.add() == 1
    assert [info.name for info in await runtime.list(Counter)] == ["a"]


async def test_a_failing_checkpoint_resets_the_actor_and_again_until_it_succeeds(
    runtime: z0.Runtime, clock: VirtualClock
) -> None:
    counter = runtime.get(Counter, "a")
    await counter.add()
    with fault(runtime, "checkpoint", times=2) as failing:
        await clock.advance("5 seconds")
        assert failing.hits == 1
        assert await outcome(counter.add()) is z0.ActorReset
        assert failing.hits == 2
    assert await counter.add() == 2


async def test_a_file_that_cannot_be_closed_loses_nothing(runtime: z0.Runtime, clock: VirtualClock) -> None:
    counter = runtime.get(Counter, "a")
    await counter.add()
    with fault(runtime, "close", actor=counter) as failing:
        await runtime.evict(Counter, "a")
        assert failing.hits == 1
        assert await counter.add() == 2


@pytest.mark.parametrize(
    ("point", "error", "kept"), [("crash-before-commit", z0.ActorReset, 0), ("crash-after-commit", z0.CommitUnknown, 1)]
)
async def test_a_crash_at_a_commit_takes_all_others_with_it(
    runtime: z0.Runtime, clock: VirtualClock, point: Point, error: type[z0.Z0Error], kept: int
) -> None:
    counters = [runtime.get(Counter, name) for name in "abc"]
    await asyncio.gather(*(counter.look() for counter in counters))
    with fault(runtime, point, actor=counters[0]) as crashed:
        outcomes = await asyncio.gather(*(outcome(counter.add()) for counter in counters))
        assert outcomes == [error, z0.ActorReset, z0.ActorReset]
        assert crashed.hits == 1
    await crash(runtime)
    async with z0.Runtime(runtime.path, clock=clock) as again:
        assert [await again.get(Counter, name).look() for name in "abc"] == [kept, 0, 0]


async def test_a_fault_that_makes_no_sense_is_refused(runtime: z0.Runtime, tmp_path: Path) -> None:
    point: Any = "comit"
    with pytest.raises(ValueError, match=r"'comit'; there are: storage, commit-lost, .*close"), fault(runtime, point):
        pass
    with pytest.raises(TypeError, match="not a stub"), fault(runtime, "open", actor=(Counter, "a")):
        pass
    for wrong in ({"nth": 0}, {"times": 0}):
        with pytest.raises(ValueError, match="count from 1"), fault(runtime, "open", **wrong):
            pass
    closed = z0.Runtime(tmp_path / "closed")
    with pytest.raises(RuntimeError, match="not open"), fault(closed, "open"):
        pass
    with pytest.raises(ValueError, match="another runtime"), fault(runtime, "open", actor=closed.get(Counter, "a")):
        pass


# Crashes


async def reopened(runtime: z0.Runtime, clock: VirtualClock) -> int:
    """What a new runtime on the directory finds, at once."""
    async with z0.Runtime(runtime.path, clock=clock) as again:
        return await again.get(Counter, "a").look()


async def test_a_crash_while_an_actor_opens_fails_its_callers(runtime: z0.Runtime, clock: VirtualClock) -> None:
    callers = [asyncio.create_task(outcome(runtime.get(cls, "a").add())) for cls in (Slow, Counter)]
    await asyncio.sleep(0)
    await crash(runtime)
    assert await asyncio.gather(*callers) == [z0.ActorReset] * 2
    assert await reopened(runtime, clock) == 0


async def test_a_crash_during_threaded_commits_keeps_what_was_answered(
    runtime: z0.Runtime, clock: VirtualClock
) -> None:
    names = "abcdef"
    counters = [runtime.get(Counter, name) for name in names]
    await asyncio.gather(*(counter.look() for counter in counters))
    callers = [asyncio.create_task(outcome(counter.add())) for counter in counters]
    await until(lambda: runtime.node.threads.in_flight > 0)
    await crash(runtime)
    outcomes = await asyncio.gather(*callers)
    assert set(outcomes) <= {1, z0.ActorReset}
    assert 1 in outcomes  # a thread had begun with it
    async with z0.Runtime(runtime.path, clock=clock) as again:
        found = [await again.get(Counter, name).look() for name in names]
    assert found == [int(outcome == 1) for outcome in outcomes]


@pytest.mark.parametrize("cls", [Counter, Slow])
async def test_a_crash_during_an_eviction_loses_nothing(
    runtime: z0.Runtime, clock: VirtualClock, go: asyncio.Event, cls: type[Counter]
) -> None:
    go.set()
    await runtime.get(cls, "a").add()
    go.clear()
    evicting = asyncio.create_task(runtime.evict(cls, "a"))
    await asyncio.sleep(0)
    assert runtime.node.closing
    await crash(runtime)
    await evicting
    go.set()
    async with z0.Runtime(runtime.path, clock=clock, env=go) as again:
        assert await again.get(cls, "a").look() == 1


async def test_crashing_twice_at_once_waits_for_the_same_end(runtime: z0.Runtime, clock: VirtualClock) -> None:
    await runtime.get(Counter, "a").add()
    await asyncio.gather(crash(runtime), crash(runtime), runtime.close())
    await crash(runtime)
    assert await reopened(runtime, clock) == 1


async def test_a_crash_after_closing_does_nothing(runtime: z0.Runtime, clock: VirtualClock) -> None:
    await runtime.get(Counter, "a").add()
    await runtime.close()
    async with z0.Runtime(runtime.path, clock=clock) as again:
        await crash(runtime)  # the directory is another's now
        assert await again.get(Counter, "a").add() == 2


async def test_a_crash_while_the_runtime_closes_ends_the_drain(
    runtime: z0.Runtime, clock: VirtualClock, go: asyncio.Event
) -> None:
    go.set()
    await runtime.get(Slow, "a").add()
    go.clear()
    closing = asyncio.create_task(runtime.close())
    await asyncio.sleep(0)
    await crash(runtime)
    assert await reopened(runtime, clock) == 0
    await closing


async def test_a_crash_of_a_runtime_that_was_never_opened_is_its_end(tmp_path: Path) -> None:
    runtime = z0.Runtime(tmp_path / "never")
    await crash(runtime)
    await runtime.close()
    with pytest.raises(z0.RuntimeClosed):
        await runtime.open()


async def test_a_forked_child_ends_nothing_of_its_parents(runtime: z0.Runtime) -> None:
    counter = runtime.get(Counter, "a")
    await counter.add()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads is what is tested
        child = os.fork()
    if child == 0:
        try:
            for end in (runtime.close(), crash(runtime)):
                with contextlib.suppress(StopIteration):
                    end.send(None)
                    os._exit(1)  # it waits for something
            os._exit(0)
        finally:
            os._exit(2)
    _pid, status = await asyncio.to_thread(os.waitpid, child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert await counter.add() == 2


async def test_a_message_that_was_committed_in_part_is_unknown_after_a_crash(
    runtime: z0.Runtime, clock: VirtualClock
) -> None:
    call = asyncio.create_task(outcome(runtime.get(Counter, "a").add_twice()))
    await clock.settle()
    await crash(runtime)
    assert await call is z0.CommitUnknown
    assert await reopened(runtime, clock) == 1


async def test_who_lists_actors_during_a_crash_is_told(runtime: z0.Runtime) -> None:
    add = asyncio.create_task(outcome(runtime.get(Counter, "a").add()))
    await until(lambda: runtime.node.catalog.writing)
    await asyncio.sleep(0)  # a thread has the first batch
    listing = asyncio.create_task(outcome(runtime.list(Counter)))
    await asyncio.sleep(0)  # ... and this waits for the next
    await crash(runtime)
    async with asyncio.timeout(5):
        assert await add is z0.ActorReset
        assert isinstance(await listing, list) or await listing is z0.RuntimeClosed


# The documentation


def test_the_documented_test_modules_pass(tmp_path: Path) -> None:
    examples = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    for number, example in enumerate(examples):
        (tmp_path / f"test_example_{number}.py").write_text(example)
    options = ["-q", "-W", "error", "-p", "no:cacheprovider", "-o", "asyncio_mode=auto"]
    options += ["-o", "asyncio_default_fixture_loop_scope=function"]  # unset, pytest-asyncio warns
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{sum(example.count('async def test_') for example in examples)} passed" in done.stdout


class Counts(z0.Workflow):
    async def run(self, event: z0.Event[int], step: z0.Step) -> int:
        return sum([await step.do("step", lambda: 1) for _ in range(event.payload)])


async def test_settling_waits_for_a_body_that_waits_for_nobody(z0_clock: VirtualClock) -> None:
    limits = z0.Limits(inline_sync_seconds=10)
    async with temporary_runtime(memory=True, clock=z0_clock, limits=limits) as runtime:
        counts = await runtime.workflows.create(Counts, 900)
        await z0_clock.settle()
        assert (await counts.status()).output == 900

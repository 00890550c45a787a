"""Work in threads, or wherever the executor that was given runs it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

import pytest

import z0
from z0.actors.errors import DatabaseFailure
from z0.actors.threads import Threads, Work
from z0.testing import VirtualClock, crash, temporary_runtime


class Later(Executor):
    """Runs nothing before it is told to."""

    def __init__(self) -> None:
        self.work: list[Callable[[], object]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.work.append(lambda: fn(*args, **kwargs))
        return Future()

    def run(self) -> None:
        work, self.work = self.work, []
        for each in work:
            each()


class Counter(z0.Actor):
    async def add(self) -> int:
        total: int = self.storage.get("n", 0) + 1
        self.storage.put("n", total)
        return total


def nothing(_result: Any, _error: BaseException | None) -> None:
    return


def test_work_is_done_once_by_whoever_comes_first() -> None:
    done: list[int] = []
    work = Work(lambda: done.append(1), nothing)
    work.finish()
    work.finish()
    assert done == [1]


def test_who_comes_second_waits_until_the_work_is_done() -> None:
    begun, go, done = threading.Event(), threading.Event(), []

    def slow() -> None:
        begun.set()
        go.wait()
        done.append(1)

    work = Work(slow, nothing)
    thread = threading.Thread(target=work.finish)
    thread.start()
    begun.wait()
    threading.Timer(0.01, go.set).start()
    work.drop()  # which has begun
    assert done == [1]
    thread.join()


def test_work_that_was_dropped_is_never_done_and_says_so() -> None:
    told: list[BaseException | None] = []
    work = Work(lambda: pytest.fail("it was dropped"), lambda _result, error: told.append(error))
    work.drop()
    work.finish()
    work.deliver()
    assert [str(error) for error in told] == ["dropped before it began"]


async def test_closing_does_what_an_executor_has_not_begun() -> None:
    later, done = Later(), []
    threads = Threads(asyncio.get_running_loop(), 1, later)
    threads.run(lambda: done.append(1), nothing)
    threads.close()
    assert done == [1]
    later.run()
    assert done == [1]


async def test_with_an_executor_a_runtime_starts_no_thread_of_its_own() -> None:
    executor, before = Later(), threading.active_count()
    limits = z0.Limits(inline_sync_seconds=0, blocked_seconds=0)
    async with temporary_runtime(memory=True, executor=executor, limits=limits) as runtime:
        adding = asyncio.gather(*(runtime.get(Counter, str(n)).add() for n in range(5)))
        while not adding.done():
            executor.run()
            await asyncio.sleep(0)
        assert threading.active_count() == before
        evicting = asyncio.ensure_future(runtime.evict(Counter, "1"))
        while not evicting.done():
            executor.run()
            await asyncio.sleep(0)
        closing = asyncio.create_task(runtime.close())
        while not closing.done():
            executor.run()
            await asyncio.sleep(0)
    assert threading.active_count() == before


async def test_the_catalogue_writes_one_batch_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async with temporary_runtime(memory=True, clock=VirtualClock()) as runtime:
        await runtime.get(Counter, "a").add()
        catalog = runtime.node.catalog
        batches: list[Callable[[Any, BaseException | None], None]] = []

        def run(threads: Threads, work: Callable[[], Any], done: Callable[[Any, BaseException | None], None]) -> Work:
            batches.append(done)
            return Work(work, done)

        monkeypatch.setattr(Threads, "run", run)
        catalog.note("SELECT 1", ())
        await asyncio.sleep(0)
        batches[0](None, DatabaseFailure("disk I/O error"))
        catalog.note("SELECT 2", ())  # has the next one begun; and so would the retry, if both were due at once
        catalog._start()
        catalog._start()
        await asyncio.sleep(0)
        assert len(batches) == 2
        monkeypatch.undo()
        batches[1](None, None)


async def test_who_looks_into_a_catalogue_that_is_closed_meanwhile_is_told() -> None:
    executor = Later()
    async with temporary_runtime(memory=True, executor=executor) as runtime:
        runtime.node.catalog.note("SELECT 1", ())
        listing = asyncio.create_task(runtime.list(Counter))
        await asyncio.sleep(0)
        for _ in range(2):  # what was noted, and what the list waits for
            executor.run()
            await asyncio.sleep(0)
        assert not listing.done()
        runtime.node.catalog.abandon()
        with pytest.raises(z0.RuntimeClosed):
            await listing
        await crash(runtime)

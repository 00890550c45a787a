"""The watchdog: who blocks the event loop is named, once, and nobody pays for it."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable

import pytest

import z0
from tests.scripted import Room, World
from z0.testing import crash, temporary_runtime

LIMIT = 0.05


def watchdogs() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "z0-watchdog"]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "blocked" in record.getMessage()]


def block_the_loop(until: Callable[[], object]) -> Callable[[Room], None]:
    def compute_for_long(room: Room) -> None:
        until()

    return compute_for_long


def for_a_while(seconds: float) -> Callable[[], object]:
    never = threading.Event()
    return lambda: never.wait(seconds)


async def test_a_segment_that_blocks_the_loop_is_named_with_its_stack_once(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    script = world.script(block_the_loop(for_a_while(8 * LIMIT)))
    async with temporary_runtime(memory=True, env=world, limits=z0.Limits(blocked_seconds=LIMIT)) as runtime:
        await runtime.get(Room, "a").at_once(script)
        (warning,) = [text for text in warnings(caplog) if "by actor" in text]  # a busy machine may add others
        assert "more than 0.05 seconds (blocked_seconds) by actor Room/a;" in warning
        assert "compute_for_long" in warning

        for_a_while(8 * LIMIT)()  # nobody's segment
        await asyncio.sleep(0)
        assert "code outside of actors" in warnings(caplog)[-1]
        assert runtime.node.metrics.blocked == len(warnings(caplog)) >= 2
        assert {record.levelno for record in caplog.records} == {logging.WARNING}


async def test_a_query_that_runs_for_long_is_named_too(caplog: pytest.LogCaptureFixture) -> None:
    """SQL has no time limit: it holds up the loop, as any segment does, until it ends."""
    world, rows = World(), 200_000

    def count_for_long(room: Room) -> None:
        query = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT ?) SELECT count(*) FROM n"
        while not room.env.log:
            room.storage.sql(query, rows)
            room.env.log += warnings(caplog)

    script = world.script(count_for_long)
    async with temporary_runtime(memory=True, env=world, limits=z0.Limits(blocked_seconds=LIMIT)) as runtime:
        await runtime.get(Room, "a").at_once(script)
        named = [text for text in warnings(caplog) if "by actor Room/a" in text]
        assert "count_for_long" in named[0]


async def test_a_loop_that_waits_is_not_blocked(caplog: pytest.LogCaptureFixture) -> None:
    async with temporary_runtime(memory=True, env=World(), limits=z0.Limits(blocked_seconds=0.5)) as runtime:
        await asyncio.get_running_loop().run_in_executor(None, for_a_while(0.9))
        assert runtime.node.metrics.blocked == 0
    assert warnings(caplog) == []


@pytest.mark.parametrize("end", ["close", "crash"])
async def test_the_watchdog_ends_with_its_runtime(end: str) -> None:
    before = len(watchdogs())
    async with temporary_runtime(memory=True) as runtime:
        assert len(watchdogs()) == before + 1
        if end == "crash":
            await crash(runtime)
    assert len(watchdogs()) == before


async def test_a_limit_of_nothing_switches_it_off() -> None:
    before = len(watchdogs())
    async with temporary_runtime(memory=True, limits=z0.Limits(blocked_seconds=0)):
        assert len(watchdogs()) == before


def test_the_watchdog_does_not_outlive_a_closed_loop(caplog: pytest.LogCaptureFixture) -> None:
    before = set(watchdogs())
    loop = asyncio.new_event_loop()
    manager = temporary_runtime(memory=True, limits=z0.Limits(blocked_seconds=LIMIT))
    runtime = loop.run_until_complete(manager.__aenter__())
    (thread,) = set(watchdogs()) - before
    for_a_while(4 * LIMIT)()  # a loop that nobody runs is not blocked
    loop.run_until_complete(asyncio.sleep(0))
    assert warnings(caplog) == []
    runtime.node.threads.close()
    runtime.node.lock.release()
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
    thread.join(20 * LIMIT)
    assert not thread.is_alive()

"""Replies of idempotent messages count for a time, and are deleted where nobody waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import apsw
import pytest

import z0
from z0.actors import retention
from z0.actors.names import file_path
from z0.testing import VirtualClock, temporary_runtime


class Till(z0.Actor):
    """Counts what it really did."""

    @z0.idempotent("key", retention="2 days")
    async def short(self, what: Any = None, *, key: str) -> int:
        return self.did()

    @z0.idempotent("key")
    async def usual(self, what: Any = None, *, key: str) -> int:
        return self.did()

    @z0.idempotent("key", retention="1 day")
    async def waits(self, *, key: str) -> int:
        await asyncio.sleep(0)
        return self.did()

    @z0.idempotent("key")
    async def fails(self, *, key: str) -> None:
        self.did()
        raise ValueError(key)

    async def fill(self, count: int) -> None:
        for number in range(count):
            self._z0_host.writes.write(
                "INSERT INTO z0_replies(message, key, created, arguments, reply) VALUES('short', ?, ?, x'', x'')",
                (f"{number:06}", self.clock.now_us()),
            )

    async def count(self) -> int:
        return int(self.storage.get("n", 0))

    def did(self) -> int:
        n = int(self.storage.get("n", 0)) + 1
        self.storage.put("n", n)
        return n


class Plain(z0.Actor):
    """Without idempotent messages."""

    async def put(self) -> None:
        self.storage.put("k", 1)


@pytest.fixture
async def runtime(clock: VirtualClock) -> AsyncIterator[z0.Runtime]:
    async with temporary_runtime(memory=True, clock=clock) as runtime:
        yield runtime


def rows(runtime: z0.Runtime, sql: str, name: str = "a", namespace: str = "Till") -> list[Any]:
    """Of a file that is closed."""
    path: Path = runtime.path / file_path("default", namespace, name)
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


async def kept(runtime: z0.Runtime, name: str = "a") -> list[tuple[str, str]]:
    """The replies in the file after an eviction."""
    assert await runtime.evict(Till, name)
    return rows(runtime, "SELECT message, key FROM z0_replies ORDER BY 1, 2", name)


async def test_a_reply_counts_for_its_retention_and_no_longer(runtime: z0.Runtime, clock: VirtualClock) -> None:
    till = runtime.get(Till, "a")
    assert (await till.short(key="k"), await till.usual(key="k")) == (1, 2)
    await clock.advance("2 days")
    clock.jump("1 ms", backwards=True)
    assert (await till.short(key="k"), await till.usual(key="k")) == (1, 2)
    with pytest.raises(z0.IdempotencyConflict):
        await till.short("other", key="k")
    clock.jump("1 ms")
    assert (await till.short("other", key="k"), await till.usual(key="k")) == (3, 2)  # anew, and not a conflict
    assert await till.short("other", key="k") == 3  # its reply replaced the old one
    await clock.advance("28 days")
    assert await till.usual(key="k") == 4


async def test_the_default_is_a_limit(clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, clock=clock, limits=z0.Limits(idempotency_seconds=5)) as runtime:
        till = runtime.get(Till, "a")
        assert (await till.usual(key="k"), await till.short(key="k")) == (1, 2)
        await clock.advance(5)
        assert (await till.usual(key="k"), await till.short(key="k")) == (3, 2)


@pytest.mark.parametrize("wrong", ["soon", 0, -1, "0 days", True])
def test_a_retention_is_a_span_of_some_length(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"span|retention"):

        @z0.idempotent("key", retention=wrong)
        async def message(*, key: str) -> None: ...


async def test_an_evicted_actor_leaves_old_replies_behind_at_most_once_a_day(
    runtime: z0.Runtime, clock: VirtualClock
) -> None:
    till = runtime.get(Till, "a")
    await asyncio.gather(till.short(key="1"), till.usual(key="2"), till.waits(key="3"))
    assert await kept(runtime) == [("short", "1"), ("usual", "2"), ("waits", "3")]
    await clock.advance("1 day")
    assert await till.count() == 3
    assert await kept(runtime) == [("short", "1"), ("usual", "2")]
    await till.short(key="4")
    await clock.advance("23 hours")
    assert await till.count() == 4
    await clock.advance("1 minute")
    assert await kept(runtime) == [("short", "1"), ("short", "4"), ("usual", "2")]
    await clock.advance("59 minutes")
    assert await till.count() == 4
    assert await kept(runtime) == [("short", "4"), ("usual", "2")]
    await clock.advance("30 days")
    assert await till.count() == 4
    assert await kept(runtime) == []


async def test_a_busy_actor_deletes_old_replies_when_it_checkpoints(clock: VirtualClock) -> None:
    limits = z0.Limits(checkpoint_pages=8)
    async with temporary_runtime(memory=True, clock=clock, limits=limits) as runtime:
        till = runtime.get(Till, "a")
        await till.short(key="old")
        await clock.advance("3 days")
        for number in range(20):
            await till.usual(key=str(number))
            await clock.settle()
        host = next(iter(runtime.node.hosts.values()))
        assert host.database.rows("SELECT count(*) FROM z0_replies WHERE key = 'old'") == [(0,)]
        assert host.database.rows("SELECT count(*) FROM z0_replies") == [(20,)]


async def test_many_old_replies_are_deleted_over_several_visits(
    runtime: z0.Runtime, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "_BATCHES", 2)
    till = runtime.get(Till, "a")
    await till.fill(4_500)
    await till.usual(key="new")
    await clock.advance("2 days")
    counts = []
    for _ in range(4):
        await till.count()
        counts.append(len(await kept(runtime)))
    assert counts == [2_501, 501, 1, 1]
    assert dict(rows(runtime, "SELECT key, value FROM z0_meta WHERE key LIKE 'purg%'")) == {"purged": clock.now_us()}


async def test_a_round_that_was_interrupted_goes_on_in_the_same_place(
    runtime: z0.Runtime, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "_BATCHES", 1)
    till = runtime.get(Till, "a")
    await till.fill(1_500)
    await clock.advance("1 day")
    for _ in range(2):  # nothing is old yet, but a round takes two visits
        await till.count()
        assert len(await kept(runtime)) == 1_500
    await clock.advance("1 day")
    await till.count()
    assert len(await kept(runtime)) == 500


async def test_a_clock_that_was_set_back_does_not_stop_the_deleting(runtime: z0.Runtime, clock: VirtualClock) -> None:
    clock.jump("1 year")
    till = runtime.get(Till, "a")
    await till.count()
    assert await kept(runtime) == []
    clock.jump("1 year", backwards=True)
    await till.short(key="k")
    await clock.advance("2 days")
    await till.count()
    assert await kept(runtime) == []


async def test_classes_without_idempotent_messages_have_nothing_to_delete(
    runtime: z0.Runtime, clock: VirtualClock
) -> None:
    await runtime.get(Plain, "p").put()
    await clock.advance("2 days")
    assert rows(runtime, "SELECT key FROM z0_meta WHERE key LIKE 'purg%'", "p", "Plain") == []


async def test_a_message_that_fails_stores_nothing(runtime: z0.Runtime) -> None:
    till = runtime.get(Till, "a")
    for _ in range(2):
        with pytest.raises(ValueError, match="k"):
            await till.fails(key="k")
    assert await till.count() == 0
    assert await kept(runtime) == []


# What is the same content


@pytest.mark.parametrize(("one", "other"), [(1, True), (1, 1.0), (0, False), ([1], [1.0]), ({"n": 1}, {"n": True})])
async def test_arguments_that_are_equal_but_of_another_type_are_other_content(
    runtime: z0.Runtime, one: Any, other: Any
) -> None:
    till = runtime.get(Till, "a")
    assert await till.usual(one, key="k") == 1
    assert await till.usual(one, key="k") == 1
    with pytest.raises(z0.IdempotencyConflict):
        await till.usual(other, key="k")


class Book(z0.Entity):
    accepts = ("*",)


@pytest.mark.parametrize(("one", "other"), [(1, True), (1, 1.0), (0, False), ([1], [1.0]), ({"n": 1}, {"n": True})])
async def test_data_that_is_equal_but_of_another_type_is_other_content(
    runtime: z0.Runtime, one: Any, other: Any
) -> None:
    book = runtime.get(Book, "b")
    first = await book.append("x", data={"a": one, "b": 2}, idempotency_key="k")
    assert await book.append("x", data={"b": 2, "a": one}, idempotency_key="k") == first
    with pytest.raises(z0.IdempotencyConflict, match="data"):
        await book.append("x", data={"a": other, "b": 2}, idempotency_key="k")

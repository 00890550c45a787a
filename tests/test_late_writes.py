"""Rows that are written with the commit: they are there for who looks, and go when the segment goes that wrote them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

import z0
from tests.test_commit_path import fail_next, host_of
from z0.testing import fault, temporary_runtime

PUT = "INSERT OR REPLACE INTO z0_kv VALUES(?, ?)"


class Oops(Exception):
    pass


class Book(z0.Entity):
    """Writes as the journal of a workflow is written."""

    def write_late(self, key: str, value: bytes = b"\x01") -> None:
        self._z0_host.writes.write_late(PUT, (key, value))

    async def late(self, *keys: str) -> None:
        for key in keys:
            self.write_late(key)

    async def late_and_seen(self, key: str) -> list[str]:
        self.write_late(key)
        return list(self.storage.list())

    async def late_then_more(self, key: str, more: str) -> None:
        self.write_late(key)
        self.storage.put(more, 2)
        self.write_late(f"{key}-again")

    async def more_then_late(self, more: str, key: str) -> None:
        self.storage.put(more, 2)
        self.write_late(key)

    async def unconfirmed_then_late(self, more: str, key: str) -> None:
        self.storage.put(more, 2, allow_unconfirmed=True)
        self.write_late(key)

    async def late_in_a_block(self, key: str) -> None:
        try:
            with self.storage.transaction():
                self.write_late(key)
                raise Oops
        except Oops:
            self.write_late(f"{key}-after")

    async def late_and_failing(self, key: str) -> None:
        self.write_late(key)
        raise Oops

    async def late_beside_sql(self, key: str) -> int:
        self.write_late(key)
        return int(self.storage.sql("SELECT count(*) FROM z0_kv").one()[0])

    async def keys(self) -> list[str]:
        return list(self.storage.list())


@pytest.fixture(params=["in threads", "on the loop", "relaxed"])
async def runtime(request: pytest.FixtureRequest) -> AsyncIterator[z0.Runtime]:
    limits = z0.Limits(inline_sync_seconds=0 if request.param == "in threads" else 10)
    durability: Any = "relaxed" if request.param == "relaxed" else "full"
    async with temporary_runtime(memory=True, limits=limits, durability=durability) as runtime:
        yield runtime


async def kept(runtime: z0.Runtime, name: str = "a") -> list[str]:
    """The keys that are in the file, read by the next incarnation."""
    assert await runtime.evict(Book, name)
    return await runtime.get(Book, name).keys()


async def test_what_is_written_late_is_committed_with_the_turn(runtime: z0.Runtime) -> None:
    book = runtime.get(Book, "a")
    await book.late("one")
    await book.late("three", "two")
    await asyncio.gather(book.late("four"), book.late("five"), book.late_then_more("six", "seven"))
    assert await kept(runtime) == ["five", "four", "one", "seven", "six", "six-again", "three", "two"]


async def test_it_is_there_for_whoever_looks_in_the_same_turn(runtime: z0.Runtime) -> None:
    book = runtime.get(Book, "a")
    assert await book.late_and_seen("one") == ["one"]
    assert await book.late_beside_sql("two") == 2
    await book.late("three")
    assert await kept(runtime) == ["one", "three", "two"]


async def test_it_joins_a_transaction_that_has_begun(runtime: z0.Runtime) -> None:
    book = runtime.get(Book, "a")
    await book.more_then_late("one", "two")
    await book.unconfirmed_then_late("three", "four")
    assert await kept(runtime) == ["four", "one", "three", "two"]


async def test_it_goes_with_the_segment_that_wrote_it_and_with_no_other(runtime: z0.Runtime) -> None:
    book = runtime.get(Book, "a")
    ends = await asyncio.gather(
        book.late("one"), book.late_and_failing("gone"), book.late("two"), return_exceptions=True
    )
    assert [type(end) for end in ends] == [type(None), Oops, type(None)]
    with pytest.raises(Oops):
        await book.late_and_failing("gone too")
    await book.late_in_a_block("three")
    assert await kept(runtime) == ["one", "three-after", "two"]


async def test_who_is_not_gated_writes_at_once_while_a_thread_has_the_file(runtime: z0.Runtime) -> None:
    book = runtime.get(Book, "a")
    await book.late("one")
    sent = asyncio.create_task(book.late("two"))
    await asyncio.sleep(0)
    host_of(runtime).writes.write_late(PUT, ("three", b"\x01"))
    await sent
    await book.late("four")
    assert await kept(runtime) == ["four", "one", "three", "two"]


@pytest.mark.parametrize("point", ["commit-lost", "commit-kept", "storage"])
async def test_a_commit_that_fails_resets_the_actor_which_believes_its_file(runtime: z0.Runtime, point: Any) -> None:
    book = runtime.get(Book, "a")
    await book.late("one")
    with fault(runtime, point, actor=book), pytest.raises((z0.CommitUnknown, z0.ActorReset)):
        await asyncio.gather(book.late("two"), book.late("three"))
    await book.late("four")
    there = ["four", "one", "three", "two"] if point == "commit-kept" else ["four", "one"]
    assert await kept(runtime) == there


async def test_storage_that_fails_when_somebody_looks_resets_the_actor(runtime: z0.Runtime) -> None:
    book = runtime.get(Book, "a")
    await book.late("one")
    fail_next(host_of(runtime), "INSERT OR REPLACE INTO z0_kv")
    with pytest.raises(z0.ActorReset):
        await book.late_and_seen("two")
    assert await kept(runtime) == ["one"]


async def test_storage_that_fails_under_several_rows_takes_them_all(runtime: z0.Runtime) -> None:
    book = runtime.get(Book, "a")
    await book.late("one")
    fail_next(host_of(runtime), "COMMIT")
    with pytest.raises(z0.CommitUnknown):
        await book.late("two", "three")
    assert await kept(runtime) == ["one"]

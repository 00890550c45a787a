"""allow_unconfirmed: what an actor says leaves before these writes are durable; their failure still resets it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

import z0
from tests.test_gates import Threads, quiet
from z0.testing import VirtualClock, simulated_disk, temporary_runtime


class Oops(Exception):
    pass


class Pad(z0.Entity):
    """Does what tests hand it."""

    env: list[Callable[[Any], Any]]

    def __init__(self) -> None:
        self.kept: Any = None

    async def run(self, number: int) -> Any:
        return self.env[number](self)

    async def run_slowly(self, number: int) -> Any:
        return await self.env[number](self)

    async def read(self) -> dict[str, Any]:
        return self.storage.list()


class Bench:
    """A pad whose commits all wait for `threads`."""

    def __init__(self, runtime: z0.Runtime, threads: Threads) -> None:
        self.runtime = runtime
        self.threads = threads

    def start(self, script: Callable[[Pad], Any], name: str = "a") -> asyncio.Task[Any]:
        scripts: list[Any] = self.runtime.node.env  # type: ignore[assignment]
        scripts.append(script)
        pad = self.runtime.get(Pad, name)
        send = pad.run_slowly if asyncio.iscoroutinefunction(script) else pad.run
        return asyncio.create_task(send(len(scripts) - 1))

    async def leaves_at_once(self, script: Callable[[Pad], Any]) -> bool:
        """Whether the reply leaves while the commit of its turn is still under way."""
        self.threads.hold()
        before = self.threads.jobs
        sent = self.start(script)
        await quiet()
        at_once = sent.done()
        assert self.threads.jobs == before + 1  # the commit is scheduled either way
        await self.threads.release()
        await asyncio.gather(sent, return_exceptions=True)
        return at_once


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    threads = Threads()
    limits = z0.Limits(inline_sync_seconds=0, close_seconds=1)
    options: dict[str, Any] = {"clock": VirtualClock(), "env": [], "limits": limits, "executor": threads}
    async with temporary_runtime(memory=True, **options) as runtime:
        bench = Bench(runtime, threads)
        await bench.start(lambda pad: pad.storage.put({"old": 1, "older": 1}))
        yield bench
        await threads.release()


def put(pad: Pad) -> None:
    pad.storage.put("k", 1, allow_unconfirmed=True)


def put_many(pad: Pad) -> None:
    pad.storage.put({"k": 1, "l": 2}, allow_unconfirmed=True)


def delete(pad: Pad) -> None:
    pad.storage.delete("old", allow_unconfirmed=True)


def delete_many(pad: Pad) -> None:
    pad.storage.delete(["old", "older"], allow_unconfirmed=True)


async def put_slowly(pad: Pad) -> None:
    await asyncio.sleep(0)
    put(pad)


def put_and_raise(pad: Pad) -> None:
    put(pad)
    raise Oops


def transaction_taken_back(pad: Pad) -> None:
    put(pad)
    try:
        with pad.storage.transaction():
            pad.storage.put("confirmed", 1)
            with pad.storage.transaction():
                pad.storage.sql("CREATE TABLE t(x)")
            raise Oops
    except Oops:
        return


def transaction(pad: Pad) -> None:
    with pad.storage.transaction():
        put(pad)


@pytest.mark.parametrize(
    "script", [put, put_many, delete, delete_many, put_slowly, transaction_taken_back, transaction]
)
async def test_a_reply_leaves_before_unconfirmed_writes_are_durable(bench: Bench, script: Any) -> None:
    assert await bench.leaves_at_once(script)


def then(script: Callable[[Pad], Any], confirmed: Callable[[Pad], Any], first: bool) -> Callable[[Pad], None]:
    def both(pad: Pad) -> None:
        for one in (confirmed, script) if first else (script, confirmed):
            one(pad)

    return both


CONFIRMED: list[Callable[[Pad], Any]] = [
    lambda pad: pad.storage.put("c", 1),
    lambda pad: pad.storage.delete("older"),
    lambda pad: pad.storage.sql("CREATE TABLE t(x)"),
    lambda pad: pad.ledger.append("fact"),
    lambda pad: pad.ledger.append_many([{"type": "fact"}]),
    lambda pad: pad.storage.delete_all(),
]


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("confirmed", CONFIRMED, ids=["put", "delete", "sql", "append", "append_many", "delete_all"])
async def test_one_confirmed_write_makes_the_whole_turn_confirmed(bench: Bench, confirmed: Any, first: bool) -> None:
    assert not await bench.leaves_at_once(then(put, confirmed, first))


async def test_a_confirmed_message_that_raised_does_not_leave_the_turn_confirmed(bench: Bench) -> None:
    def fail(pad: Pad) -> None:
        pad.storage.put("c", 1)
        raise Oops

    bench.threads.hold()
    sent = [bench.start(put), bench.start(fail), bench.start(put)]
    await quiet()
    assert [one.done() for one in sent] == [True, True, True]
    await bench.threads.release()
    with pytest.raises(Oops):
        await sent[1]
    assert set(await bench.runtime.get(Pad, "a").read()) == {"k", "old", "older"}


async def test_a_message_that_joins_with_a_confirmed_write_waits_and_earlier_replies_do_not(bench: Bench) -> None:
    bench.threads.hold()
    sent = [bench.start(put), bench.start(CONFIRMED[0]), bench.start(put)]
    await quiet()
    assert [one.done() for one in sent] == [True, False, False]
    await bench.threads.release()
    await asyncio.gather(*sent)


async def test_a_message_to_another_actor_does_not_wait_for_unconfirmed_writes(bench: Bench) -> None:
    async def send(pad: Pad) -> Any:
        put(pad)
        return await pad.get(Pad, "b").read()

    await bench.runtime.get(Pad, "b").read()
    assert await bench.leaves_at_once(send)


async def test_sync_waits_for_unconfirmed_writes_and_for_nothing_else(bench: Bench) -> None:
    async def sync(pad: Pad) -> None:
        await pad.storage.sync()

    async def put_and_sync(pad: Pad) -> None:
        put(pad)
        await pad.storage.sync()

    bench.threads.hold()
    nothing = bench.start(sync)
    await quiet()
    assert nothing.done()
    assert not await bench.leaves_at_once(put_and_sync)


async def test_a_caller_that_never_waits_does_not_put_off_the_commit(bench: Bench) -> None:
    scripts: list[Any] = bench.runtime.node.env  # type: ignore[assignment]
    scripts.append(put)
    pad = bench.runtime.get(Pad, "a")
    before = bench.threads.jobs
    for _ in range(1_000):
        await pad.run(len(scripts) - 1)
    assert bench.threads.jobs > before


async def test_an_actor_is_evicted_after_unconfirmed_writes_and_keeps_them(bench: Bench) -> None:
    await bench.start(put)
    assert await bench.runtime.evict(Pad, "a")
    assert "k" in await bench.runtime.get(Pad, "a").read()


@pytest.mark.parametrize("synced", [False, True])
async def test_a_failing_commit_of_unconfirmed_writes_resets_the_actor(synced: bool) -> None:
    async def remember(pad: Pad) -> Any:
        put(pad)
        pad.kept = "memory"
        if synced:
            await pad.storage.sync()

    with simulated_disk() as disk:
        async with temporary_runtime(memory=True, clock=VirtualClock(), env=[], vfs=disk.name) as runtime:
            bench = Bench(runtime, Threads())
            await bench.start(lambda pad: pad.storage.put("old", 1))
            disk.fail("sync")
            sent = bench.start(remember)
            if synced:
                with pytest.raises((z0.CommitUnknown, z0.ActorReset)):
                    await sent
            else:
                assert await sent is None
            await quiet()
            assert disk.failures
            disk.heal()
            assert await bench.start(lambda pad: pad.kept) is None
            assert "old" in await runtime.get(Pad, "a").read()

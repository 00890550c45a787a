"""Storage that fails: no acknowledgement leaves, callers get a typed error, others go on, and the actor recovers.

These are the cases that say what each failure means; test_fault_sweep.py has every call fail.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

import pytest

import z0
from z0.actors.names import file_path
from z0.disk import Error, Kind
from z0.testing import SimulatedDisk, VirtualClock, simulated_disk, temporary_runtime

NAMES = ("a", "b")
POSTS = 6  # enough for each way to commit: of a first message, among others, and by itself
EVICT_AFTER = 3
MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None
Mode = Literal["inline", "threads"]
LIMITS = {
    "inline": z0.Limits(inline_sync_seconds=10, snapshot_facts=4),
    "threads": z0.Limits(inline_sync_seconds=0, snapshot_facts=4, checkpoint_pages=7),
}


class Till(z0.Entity):
    """Takes any fact."""

    accepts = {"*"}
    indexes = ("source_id",)
    balance: z0.Balance

    async def pass_on(self, to: str, key: str) -> None:
        self.ledger.append("out", amount=-1, idempotency_key=f"{key}-out")
        await self.get(Till, to).append("in", amount=1, idempotency_key=f"{key}-in")

    async def post_pair(self, key: str) -> None:
        self.ledger.append("pair", amount=1, source_id=key)
        self.storage.put(key, 1)
        self.ledger.append("pair", amount=1, source_id=key)

    async def has(self, key: str) -> bool:
        return bool(self.storage.get(key))

    async def post_slowly(self) -> None:
        self.ledger.append("first", amount=1)
        await self.storage.sync()
        self.env.begun.set()
        await self.env.go_on.wait()
        self.ledger.append("second", amount=1)

    async def leave_a_task(self) -> None:
        self.env.task = asyncio.ensure_future(self._write_when_told())

    async def _write_when_told(self) -> None:
        await self.env.go_on.wait()
        self.storage.put("late", 1)


class Env:
    """What tests and actors tell each other."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()
        self.task: asyncio.Future[None]


@pytest.fixture
async def env() -> Env:
    return Env()


@pytest.fixture
def disk() -> Iterator[SimulatedDisk]:
    with simulated_disk() as disk:
        yield disk


@pytest.fixture
async def runtime(disk: SimulatedDisk, env: Env) -> AsyncIterator[z0.Runtime]:
    async with temporary_runtime(memory=True, clock=VirtualClock(), vfs=disk.name, env=env) as runtime:
        yield runtime


def wal(runtime: z0.Runtime, name: str) -> str:
    return f"{runtime.path / file_path('default', 'Till', name)}-wal"


async def check(runtime: z0.Runtime, outcomes: dict[str, str]) -> None:
    """Make sure that each ledger holds what its callers were told, and is sound."""
    for name in NAMES:
        till = runtime.get(Till, name)
        facts = await till.query_facts()
        keys = [str(fact.idempotency_key) for fact in facts]
        assert len(set(keys)) == len(keys)
        told = {key: outcome for key, outcome in outcomes.items() if key[0] == name}
        assert {key for key in told if told[key] == "acknowledged"} <= set(keys)
        assert not {key for key in told if told[key] == "reset"} & set(keys)
        assert [fact.seq for fact in facts] == list(range(1, len(facts) + 1))
        assert (await till.verify()).facts == len(facts)
        fold = z0.Balance({})
        for fact in facts:
            fold.apply(fact)
        assert await till.projection("balance") == fold


async def post(runtime: z0.Runtime, disk: SimulatedDisk, name: str, keys: list[str], outcomes: dict[str, str]) -> None:
    """Append facts one after another, and note what became of each."""
    till = runtime.get(Till, name)
    for number, key in enumerate(keys):
        try:
            fact = await till.append("x", amount=1, currency="EUR", idempotency_key=key)
        except z0.ActorReset:  # nothing of this call; of an earlier one there may be something
            outcomes.setdefault(key, "reset")
        except z0.CommitUnknown:
            outcomes[key] = "unknown"
        else:
            assert fact.idempotency_key == key
            assert wal(runtime, name) not in disk.volatile
            outcomes[key] = "acknowledged"
        if number == EVICT_AFTER:
            await runtime.evict(Till, name)


async def post_all(runtime: z0.Runtime, disk: SimulatedDisk, mode: Mode, outcomes: dict[str, str]) -> None:
    """Post what was not acknowledged yet, to all actors: one after another, or at once."""
    posts = []
    for name in NAMES:
        keys = [f"{name}-{number}" for number in range(POSTS)]
        posts.append(post(runtime, disk, name, [key for key in keys if outcomes.get(key) != "acknowledged"], outcomes))
    if mode == "inline":
        for each in posts:
            await each
    else:
        await asyncio.gather(*posts)


# What a failing commit means, case by case


@pytest.mark.parametrize("mode", LIMITS)
@pytest.mark.parametrize("kind", ["write", "sync"])
async def test_a_failed_commit_answers_its_whole_turn_with_unknown(disk: SimulatedDisk, kind: Kind, mode: Mode) -> None:
    async with temporary_runtime(memory=True, clock=VirtualClock(), vfs=disk.name, limits=LIMITS[mode]) as runtime:
        till = runtime.get(Till, "a")
        await till.append("x", amount=1)
        disk.fail(kind)
        calls = [till.append("x", amount=1, idempotency_key=str(n)) for n in range(5)]
        outcomes = await asyncio.gather(*calls, till.count_facts(), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [z0.CommitUnknown] * 6
        assert len(set(map(id, outcomes))) == 6
        assert all(outcome.retryable for outcome in outcomes if isinstance(outcome, z0.CommitUnknown))
        assert [(await till.append("x", amount=1, idempotency_key=str(n))).amount for n in range(5)] == [1] * 5
        assert await till.count_facts() == 6
        assert (await till.verify()).facts == 6


@pytest.mark.parametrize("kind", ["write", "sync"])
async def test_several_facts_stand_or_fall_together(disk: SimulatedDisk, runtime: z0.Runtime, kind: Kind) -> None:
    till = runtime.get(Till, "a")
    assert await till.count_facts() == 0
    several = [{"type": "x", "amount": n, "data": {"text": "x" * 2_000}, "idempotency_key": str(n)} for n in range(20)]
    for n in itertools.count(1):
        disk.log.clear()
        disk.fail(kind, n)
        outcome: object = (await asyncio.gather(till.append_many(several), return_exceptions=True))[0]
        disk.heal()
        if not disk.failures:
            break
        assert isinstance(outcome, z0.CommitUnknown)
        assert await till.count_facts() in (0, len(several))
    assert n > 1
    assert (await till.verify()).facts == len(several)


@pytest.mark.parametrize("kind", ["write", "sync"])
async def test_a_lone_message_of_several_writes_stands_or_falls_as_a_whole(
    disk: SimulatedDisk, runtime: z0.Runtime, kind: Kind
) -> None:
    till = runtime.get(Till, "a")
    for n in itertools.count(1):
        for _ in range(3):
            await till.append("x", amount=1)
        disk.log.clear()
        disk.fail(kind, n)
        with suppress(z0.CommitUnknown):
            await till.post_pair(str(n))
        disk.heal()
        assert await till.count_facts(source_id=str(n)) == (2 if await till.has(str(n)) else 0)
        if not disk.failures:
            break
    assert n > 1


async def test_a_failure_before_the_commit_means_that_nothing_happened(
    disk: SimulatedDisk, runtime: z0.Runtime
) -> None:
    till = runtime.get(Till, "a")
    await till.append("x", amount=1)
    assert await runtime.evict(Till, "a")
    for number in range(1, disk.calls("read") + 1):
        disk.fail("read", number)
        outcomes: dict[str, str] = {}
        await post(runtime, disk, "a", [str(number)], outcomes)
        disk.heal()
        assert await till.count_facts(idempotency_key=str(number)) == (outcomes[str(number)] == "acknowledged")
        assert await runtime.evict(Till, "a")
    assert disk.failures


async def test_a_commit_of_unknown_outcome_is_made_durable_before_anybody_is_told_of_it(
    disk: SimulatedDisk, runtime: z0.Runtime
) -> None:
    till = runtime.get(Till, "a")
    await till.append("x", amount=1)
    disk.fail("sync")
    with pytest.raises(z0.CommitUnknown):
        await till.append("x", amount=1, idempotency_key="k")
    assert wal(runtime, "a") in disk.volatile
    disk.log.clear()
    assert await till.count_facts() in (1, 2)  # a read tells as much as an acknowledgement
    assert wal(runtime, "a") not in disk.volatile
    assert disk.calls("sync", "/a.sqlite") == 1  # a full checkpoint: the pages that the failed sync may have lost
    assert (await till.append("x", amount=1, idempotency_key="k")).seq == 2
    assert await till.count_facts() == 2


async def test_while_the_outcome_cannot_be_made_durable_nobody_is_told(
    disk: SimulatedDisk, runtime: z0.Runtime
) -> None:
    till = runtime.get(Till, "a")
    await till.append("x", amount=1)
    disk.fail("sync", forever=True)
    with pytest.raises(z0.CommitUnknown):
        await till.append("x", amount=1, idempotency_key="k")
    for _ in range(3):
        with pytest.raises(z0.ActorReset):
            await till.query_facts()
        with pytest.raises((z0.ActorReset, z0.CommitUnknown)):
            await till.append("x", amount=1, idempotency_key="k")
    disk.heal()
    assert (await till.append("x", amount=1, idempotency_key="k")).seq == 2
    assert await till.count_facts() == 2


async def test_nothing_is_sent_on_what_could_not_be_committed(disk: SimulatedDisk, runtime: z0.Runtime) -> None:
    one, other = runtime.get(Till, "a"), runtime.get(Till, "b")
    assert (await one.count_facts(), await other.count_facts()) == (0, 0)
    disk.fail("sync", suffix="/a.sqlite")
    with pytest.raises((z0.CommitUnknown, z0.ActorReset)):
        await one.pass_on("b", "k")
    assert await other.count_facts() == 0
    await one.pass_on("b", "k")
    assert (await one.count_facts(), await other.count_facts()) == (1, 1)


async def test_a_waiting_message_ends_with_the_actor_it_ran_in(
    disk: SimulatedDisk, runtime: z0.Runtime, env: Env
) -> None:
    till = runtime.get(Till, "a")
    slow = asyncio.ensure_future(till.post_slowly())
    await env.begun.wait()
    disk.fail("sync")
    with pytest.raises(z0.CommitUnknown):
        await till.append("x", amount=1)
    with pytest.raises(z0.CommitUnknown):  # its first segment stands, so "nothing was committed" would be a lie
        await slow
    env.go_on.set()
    assert await till.count_facts(type="first") == 1
    assert await till.count_facts(type="second") == 0


async def test_what_is_left_of_a_dead_actor_cannot_write(disk: SimulatedDisk, runtime: z0.Runtime, env: Env) -> None:
    till = runtime.get(Till, "a")
    await till.leave_a_task()
    disk.fail("sync")
    with pytest.raises(z0.CommitUnknown):
        await till.append("x", amount=1)
    assert await till.count_facts() in (0, 1)
    env.go_on.set()
    with pytest.raises(z0.ActorReset):
        await env.task


# Storage that stays broken


@pytest.mark.parametrize("mode", LIMITS)
@pytest.mark.parametrize("kind", ["write", "sync"])
@pytest.mark.parametrize("error", ["io", "full"])
async def test_a_disk_that_stays_broken_acknowledges_nothing_and_heals(
    tmp_path: Path, disk: SimulatedDisk, kind: Kind, error: Error, mode: Mode
) -> None:
    outcomes: dict[str, str] = {}
    async with z0.Runtime(tmp_path, clock=VirtualClock(), vfs=disk.name, limits=LIMITS[mode]) as runtime:
        for name in NAMES:
            await post(runtime, disk, name, [f"{name}-before"], outcomes)
        disk.fail(kind, forever=True, error=error)
        for _ in range(2):
            await post_all(runtime, disk, mode, outcomes)
            assert {outcomes[f"{name}-{n}"] for name in NAMES for n in range(POSTS)} <= {"reset", "unknown"}
        disk.heal()
        await check(runtime, outcomes)
        await post_all(runtime, disk, mode, outcomes)
        assert set(outcomes.values()) == {"acknowledged"}
        await check(runtime, outcomes)
    async with z0.Runtime(tmp_path, clock=VirtualClock()) as runtime:
        await check(runtime, outcomes)


@pytest.mark.parametrize("kind", ["write", "sync", "read"])
async def test_one_broken_file_stops_no_other_actor(tmp_path: Path, disk: SimulatedDisk, kind: Kind) -> None:
    outcomes: dict[str, str] = {}
    async with z0.Runtime(tmp_path, clock=VirtualClock(), vfs=disk.name) as runtime:
        disk.fail(kind, forever=True, suffix="/b.sqlite")
        await post_all(runtime, disk, "threads", outcomes)
        told = {name: {outcome for key, outcome in outcomes.items() if key[0] == name} for name in NAMES}
        assert told["a"] == {"acknowledged"}
        assert told["b"] <= {"reset", "unknown"}
        disk.heal()
        await post_all(runtime, disk, "threads", outcomes)
        assert set(outcomes.values()) == {"acknowledged"}
        await check(runtime, outcomes)


@pytest.mark.parametrize("kind", ["write", "sync", "truncate", "delete"])
async def test_a_runtime_closes_although_its_disk_is_broken(tmp_path: Path, disk: SimulatedDisk, kind: Kind) -> None:
    outcomes: dict[str, str] = {}
    async with z0.Runtime(tmp_path, clock=VirtualClock(), vfs=disk.name) as runtime:
        await post_all(runtime, disk, "threads", outcomes)
        disk.fail(kind, forever=True)
    assert set(outcomes.values()) == {"acknowledged"}
    disk.heal()
    async with z0.Runtime(tmp_path, clock=VirtualClock(), vfs=disk.name) as runtime:
        await check(runtime, outcomes)


# The harness itself


async def test_the_log_tells_when_a_write_is_not_durable(disk: SimulatedDisk) -> None:
    options = {"clock": VirtualClock(), "vfs": disk.name, "durability": "relaxed"}
    async with temporary_runtime(memory=True, **options) as runtime:
        await runtime.get(Till, "a").append("x", amount=1)
        assert wal(runtime, "a") in disk.volatile
        assert disk.calls("write") > 0


@pytest.mark.parametrize("kind", ["make folder", "sync folder"])
@pytest.mark.parametrize("error", ["io", "full"])
async def test_a_folder_that_cannot_be_made_costs_an_error_and_the_next_message_makes_it(
    tmp_path: Path, kind: Kind, error: Error
) -> None:
    with simulated_disk() as disk:
        async with disk.runtime(tmp_path / "data", clock=VirtualClock()) as runtime:
            await runtime.get(Till, "a").append("x")
            till = runtime.tenant("another").get(Till, "a")
            for n in itertools.count(1):
                disk.fail(kind, n, error=error)
                try:
                    await till.append("x", idempotency_key="k")
                except z0.ActorReset:
                    assert disk.failures
                else:
                    break
                await runtime.get(Till, "a").append("x")
            assert n > 1
            disk.heal()
            assert (await till.append("x", idempotency_key="k")).seq == 1
            assert await runtime.get(Till, "a").count_facts() == n

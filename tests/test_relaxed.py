"""`durability="relaxed"`: what was acknowledged survives a kill at once, and a power cut a moment later."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

import z0
from z0.actors.names import file_path
from z0.testing import SimulatedDisk, VirtualClock, simulated_disk, temporary_runtime

LATER = "0.1 seconds"  # Limits.relaxed_sync_seconds


class Till(z0.Entity):
    """Takes any fact."""

    accepts = {"*"}

    async def post_and_sync(self) -> None:
        self.ledger.append("x")
        await self.storage.sync()


@pytest.fixture
def disk() -> Iterator[SimulatedDisk]:
    with simulated_disk() as disk:
        yield disk


@pytest.fixture
async def runtime(disk: SimulatedDisk, clock: VirtualClock) -> AsyncIterator[z0.Runtime]:
    options = {"clock": clock, "vfs": disk.name, "durability": "relaxed"}
    async with temporary_runtime(memory=True, **options) as runtime:
        yield runtime


@pytest.fixture
def till(runtime: z0.Runtime) -> Till:
    return runtime.get(Till, "a")


def is_durable(disk: SimulatedDisk, runtime: z0.Runtime) -> bool:
    return f"{runtime.path / file_path('default', 'Till', 'a')}-wal" not in disk.volatile


async def test_what_was_acknowledged_is_synced_soon(
    disk: SimulatedDisk, runtime: z0.Runtime, till: Till, clock: VirtualClock
) -> None:
    await till.append("x")
    assert not is_durable(disk, runtime)
    await clock.advance(LATER)
    assert is_durable(disk, runtime)


async def test_what_was_committed_by_itself_is_synced_soon(
    disk: SimulatedDisk, runtime: z0.Runtime, till: Till, clock: VirtualClock
) -> None:
    for _ in range(3):  # a caller that is alone commits at once from the second turn on
        await till.append("x")
    await clock.advance(LATER)
    syncs = disk.calls("sync")
    await till.append("x")
    assert disk.calls("sync") == syncs
    assert not is_durable(disk, runtime)
    await clock.advance(LATER)
    assert is_durable(disk, runtime)


async def test_one_sync_covers_all_that_was_written_meanwhile(
    disk: SimulatedDisk, till: Till, clock: VirtualClock
) -> None:
    await till.append("x")
    await clock.advance(LATER)
    syncs = disk.calls("sync")
    for _ in range(20):
        await till.append("x")
    await clock.advance(LATER)
    assert disk.calls("sync") == syncs + 1


async def test_storage_sync_returns_when_everything_is_on_the_device(
    disk: SimulatedDisk, runtime: z0.Runtime, till: Till
) -> None:
    await till.post_and_sync()
    assert is_durable(disk, runtime)


async def test_a_sync_that_falls_due_while_the_file_is_in_other_hands_is_made_up_for(
    disk: SimulatedDisk, runtime: z0.Runtime, till: Till, clock: VirtualClock
) -> None:
    await till.append("x")
    host = next(iter(runtime.node.hosts.values()))
    host.parking.checkpoint()
    host.parking._sync_due()  # as the timer does that falls due in this very moment
    await clock.settle()
    await till.append("x")
    await clock.advance("1 second")
    assert is_durable(disk, runtime)


async def test_what_is_left_open_when_the_sync_falls_due_is_committed_with_it(
    disk: SimulatedDisk, runtime: z0.Runtime, till: Till, clock: VirtualClock
) -> None:
    await till.append("x")
    host = next(iter(runtime.node.hosts.values()))
    host.actor.storage.put("k", 1)  # by a task of the actor's own
    host.parking._sync_due()
    await clock.settle()
    assert host.turn is None
    assert is_durable(disk, runtime)


async def test_nothing_is_synced_of_an_actor_that_has_left(
    disk: SimulatedDisk, runtime: z0.Runtime, till: Till, clock: VirtualClock
) -> None:
    await till.append("x")
    assert await runtime.evict(Till, "a")
    syncs = disk.calls("sync")
    await clock.advance(LATER)
    assert disk.calls("sync") == syncs
    assert disk.volatile <= {name for name in disk.volatile if name.endswith("catalog.sqlite-wal")}


async def test_a_commit_that_fails_is_unknown(disk: SimulatedDisk, till: Till) -> None:
    await till.append("x")
    disk.fail("write", forever=True)
    with pytest.raises(z0.CommitUnknown):
        await till.post_and_sync()
    disk.heal()
    assert (await till.append("x")).seq in (2, 3)


async def test_a_sync_that_fails_resets_the_actor_and_loses_nothing(
    disk: SimulatedDisk, runtime: z0.Runtime, till: Till, clock: VirtualClock
) -> None:
    await till.append("x")
    disk.fail("sync")
    await clock.advance(LATER)
    assert disk.failures
    assert [fact.seq for fact in await till.query_facts()] == [1]
    assert (await till.verify()).facts == 1
    assert is_durable(disk, runtime)


async def test_whoever_waits_for_a_sync_that_fails_is_told(
    disk: SimulatedDisk, runtime: z0.Runtime, till: Till
) -> None:
    await till.append("x")
    disk.fail("sync")
    with pytest.raises((z0.ActorReset, z0.CommitUnknown)):
        await till.post_and_sync()
    assert [fact.seq for fact in await till.query_facts()] in ([1], [1, 2])

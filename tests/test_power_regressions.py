"""Power cuts that once took what they must not: each test is one way in which it was lost."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

import z0
from tests.power_check import START, folder
from tests.power_loss import kill
from z0.crashes import CrashImage
from z0.testing import SimulatedDisk, VirtualClock, crash, simulated_disk


class Log(z0.Entity):
    """Facts of several pages each; an alarm leaves one as well."""

    accepts = {"*"}

    async def post(self, key: str) -> None:
        for part in range(4):
            self.ledger.append("post", idempotency_key=f"{key}/{part}", data={"text": "x" * 3_000})

    async def ring(self) -> None:
        self.storage.set_alarm("1 minute")

    async def alarm(self, info: z0.AlarmInfo) -> None:
        self.ledger.append("rang")


@pytest.fixture
def disk() -> Iterator[SimulatedDisk]:
    with simulated_disk(trace=True) as disk:
        yield disk


@pytest.fixture
async def path() -> AsyncIterator[Path]:
    with folder() as path:
        yield path / "data"


def runtime(disk: SimulatedDisk, path: Path) -> z0.Runtime:
    return disk.runtime(path, actors=[Log], clock=VirtualClock(), limits=z0.Limits(inline_sync_seconds=10))


def clock_of(opened: z0.Runtime) -> VirtualClock:
    clock = opened.node.clock
    assert isinstance(clock, VirtualClock)
    return clock


async def is_kept(image: CrashImage, path: Path, name: str, alarm: bool) -> bool:
    """Whether an actor is listed after this power cut, and its alarm runs by itself."""
    left = path.with_name("left")
    image.write(left, of=path)
    clock = VirtualClock(START)
    try:
        async with z0.Runtime(left, actors=[Log], clock=clock) as opened:
            listed = [info.name for info in await opened.list(Log)]
            await clock.advance("1 hour")
            return name in listed and await opened.get(Log, name).count_facts(type="rang" if alarm else "x") > 0
    finally:
        shutil.rmtree(left)


async def test_a_checkpoint_after_a_failed_sync_copies_nothing_that_may_not_be_there(
    disk: SimulatedDisk, path: Path
) -> None:
    async with runtime(disk, path) as opened:
        log = opened.get(Log, "a")
        await log.post("first")
        assert await opened.evict(Log, "a")  # so that its WAL holds no older pages, which would cover torn ones
        await log.count_facts()
        disk.fail("sync", 2)  # the first is of the WAL's header
        with pytest.raises(z0.CommitUnknown):
            await log.post("second")
        begun = len(disk.trace)
        await log.count_facts()  # opens the actor anew, with a full checkpoint
    for image in disk.images(points=range(begun, len(disk.trace) + 1), each=8):
        left = path.with_name("left")
        image.write(left, of=path)
        async with z0.Runtime(left, clock=VirtualClock()) as opened:
            log = opened.get(Log, "a")
            assert (await log.verify()).facts in (4, 8)
        shutil.rmtree(left)


@pytest.mark.parametrize("alarm", [False, True])
async def test_what_the_catalogue_learnt_before_a_kill_is_durable_before_it_is_believed(
    disk: SimulatedDisk, path: Path, alarm: bool
) -> None:
    async with runtime(disk, path) as opened:
        await opened.get(Log, "other").append("x")
        begun = len(disk.trace)
        await opened.get(Log, "a").ring()
        await crash(opened)
    whole = list(disk.trace)
    for moment in range(begun, len(whole) + 1):
        disk.trace[:] = whole
        kill(disk, path, moment)
        async with runtime(disk, path) as opened:
            await clock_of(opened).settle()  # opens what is in the active set
            log = opened.get(Log, "a")
            await (log.ring() if alarm else log.append("x"))
            acknowledged = len(disk.trace)
            await crash(opened)
        for image in disk.images(points=[acknowledged], each=1):
            assert await is_kept(image, path, "a", alarm), f"{image.mode} after a kill at {moment}"


async def test_a_folder_made_before_a_kill_is_durable_before_an_actor_in_it_is_acknowledged(
    disk: SimulatedDisk, path: Path
) -> None:
    async with runtime(disk, path) as opened:
        await opened.get(Log, "a").append("x")
        await crash(opened)
    whole = list(disk.trace)
    for moment in range(1, len(whole) + 1):
        disk.trace[:] = whole
        kill(disk, path, moment)
        async with runtime(disk, path) as opened:
            await opened.get(Log, "a").append("x")
            acknowledged = len(disk.trace)
            await crash(opened)
        for image in disk.images(points=[acknowledged], each=1):
            assert await is_kept(image, path, "a", False), f"{image.mode} after a kill at {moment}"


async def test_a_commit_of_the_catalogue_that_failed_breaks_none_after_it(disk: SimulatedDisk, path: Path) -> None:
    async with runtime(disk, path) as opened:
        await opened.get(Log, "a").post("1")
        assert await opened.evict(Log, "a")  # noted without a sync
        await opened.list(Log)
        disk.fail("sync", suffix="catalog.sqlite")
        with pytest.raises(z0.ActorReset):
            await opened.get(Log, "b").ring()
        await opened.get(Log, "b").ring()
        acknowledged = len(disk.trace)
        await crash(opened)
    for image in disk.images(points=[acknowledged], each=20):
        assert await is_kept(image, path, "b", True), image.mode

"""Whatever an actor does, and whichever of its calls to the disk fails: nothing acknowledged is lost, all go on.

Each operation is run once on a disk that works, to see which calls it makes; then once more for each of them, with
that call failing: once, or from there on for as long as the operation takes. Seeds number these failures.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import pytest

import z0
from tests.operations import OPERATIONS, REFUSED, Operation, World, append, close, open_again
from tests.proofs import Proof
from z0.actors import catalog
from z0.actors.database import Database
from z0.actors.errors import NotADatabase
from z0.actors.host import Host
from z0.actors.quarantine import Quarantine
from z0.disk import Error, Kind, simulated_disk

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
KINDS: tuple[tuple[Kind, Error], ...] = (
    ("open", "io"),
    ("read", "io"),
    ("size", "io"),
    ("write", "io"),
    ("write", "full"),
    ("sync", "io"),
    ("truncate", "io"),
    ("delete", "io"),
    ("create", "full"),
    ("rename", "io"),
    ("sync folder", "io"),
)
FILES = ("/a.sqlite", "/b.sqlite", "/catalog.sqlite")
SECONDS = 30


class Failure(NamedTuple):
    """What fails while an operation is under way."""

    file: str
    kind: Kind
    error: Error
    at: int
    forever: bool
    threads: bool


async def strike(operation: Operation, failure: Failure | None, threads: bool = False) -> Counter[tuple[str, Kind]]:
    """Run an operation, with a failure or without; how many calls of each kind it made to each file."""
    with simulated_disk() as disk, tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        world = World(disk, Path(folder) / "data", failure.threads if failure else threads)
        async with asyncio.timeout(SECONDS):
            return await struck(world, operation, failure)


async def struck(world: World, operation: Operation, failure: Failure | None) -> Counter[tuple[str, Kind]]:
    disk = world.disk
    await world.open()
    await operation.prepare(world)
    if not world.runtime.node.draining:
        await world.till("other").append("x")
    disk.log.clear()
    if failure is not None and failure.kind == "short read":
        world.refusals = (*REFUSED, z0.LedgerCorrupt)
    if failure is not None:
        disk.fail(failure.kind, failure.at, suffix=failure.file, error=failure.error, forever=failure.forever)
    with suppress(*((z0.Z0Error,) if operation.act in (open_again,) else ())):
        await operation.act(world)
    if operation.act not in (open_again, close):
        await world.till("other").append("x")  # whoever is in memory goes on, disk or catalogue
    disk.heal()
    made = Counter((file, call.kind) for call in list(disk.log) for file in FILES if file in call.file)
    if operation.act is close or (operation.act is open_again and not world.runtime.node.is_open):
        await world.open()
    if failure is not None and failure.kind == "short read":
        await world.check_facts()
        await world.runtime.close()
        return made
    await world.runtime.list(world.kind)  # the catalogue is written again, as it would be in a second
    await world.clock.advance("1 hour")
    await world.check()
    if operation.act is open_again:
        await append(world)
    else:
        await operation.act(world)
        if operation.act is close:
            await world.open()
    await world.clock.advance("1 hour")
    await world.check()
    assert all(world.acknowledged[name] == world.started[name] - world.refused[name] for name in world.started)
    await world.runtime.close()
    await left_whole(world)
    return made


async def left_whole(world: World) -> None:
    """Make sure of what is on the disk, by a runtime that knows nothing of what has happened."""
    for file in world.path.rglob("*.sqlite"):
        with apsw.Connection(str(file)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        connection.close()
        assert not file.with_name(f"{file.name}-wal").exists()
    async with z0.Runtime(world.path, actors=[world.kind], clock=world.clock) as world.runtime:
        await world.check()
        assert {info.name for info in await world.runtime.list(world.kind)} >= world.started.keys()


async def failures_of(operation: Operation, kinds: Iterable[tuple[Kind, Error]] = KINDS) -> list[Failure]:
    """Every failure that an operation can meet, in an order that means nothing."""
    found = []
    for threads in (False, True):
        for (file, kind), calls in (await strike(operation, None, threads)).items():
            for each, error in kinds:
                if each == kind:
                    found += [
                        Failure(file, kind, error, at, forever, threads)
                        for at in range(1, calls + 1)
                        for forever in (False, True)
                    ]
    random.Random(0).shuffle(found)
    return found


async def strike_numbered(name: str, failures: list[Failure], seed: int) -> None:
    failure = failures[seed % len(failures)]
    try:
        await strike(OPERATIONS[name], failure)
    except BaseException as error:
        error.add_note(f'{name}: {failure}; again: pytest tests/test_fault_sweep.py -k "{name}" --seed {seed}')
        raise


@pytest.fixture(autouse=True)
def _impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the catalogue try again soon what it could not write."""
    monkeypatch.setattr(catalog, "_RETRY_SECONDS", 0.01)


@pytest.mark.proof
@pytest.mark.parametrize("name", OPERATIONS)
async def test_whatever_fails_nothing_acknowledged_is_lost_and_all_goes_on(name: str, proof: Proof) -> None:
    failures = await failures_of(OPERATIONS[name])
    for seed in proof.seeds(len(failures)):
        await strike_numbered(name, failures, seed)
        proof.count("faults injected")


@pytest.mark.proof
@pytest.mark.parametrize("name", ["append_many", "reading and verifying", "reopening", "eviction", "checkpoint"])
async def test_a_disk_that_reads_too_little_loses_no_fact_unnoticed(name: str, proof: Proof) -> None:
    """SQLite takes what was not read for zeros, and may write them back; the chain of hashes is what notices it."""
    failures = await failures_of(OPERATIONS[name], [("short read", "io")])
    for seed in proof.seeds(len(failures)):
        await strike_numbered(name, failures, seed)
        proof.count("short reads")


# The harness itself


async def is_caught(name: str, kinds: Iterable[tuple[Kind, Error]]) -> bool:
    """Whether any of these failures shows that something is wrong."""
    for failure in await failures_of(OPERATIONS[name], kinds):
        try:
            await strike(OPERATIONS[name], failure)
        except (AssertionError, TimeoutError, z0.Z0Error):
            return True
    return False


async def test_the_sweep_notices_a_commit_whose_failure_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    as_ever = Host.committed

    def committed(host: Host, turn: Any, failure: BaseException | None) -> None:
        if failure is not None:
            host.database.rollback()
        as_ever(host, turn, None)

    monkeypatch.setattr(Host, "committed", committed)
    assert await is_caught("append_many", [("write", "full")])


async def test_the_sweep_notices_an_actor_that_goes_on_after_its_storage_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def committed_all_the_same(host: Host, failure: BaseException) -> z0.CommitUnknown:
        host.database.rollback()
        return z0.CommitUnknown(str(host.address), str(failure))

    monkeypatch.setattr(Host, "commit_failed", committed_all_the_same)
    assert await is_caught("append_many", [("write", "io")])


async def test_the_sweep_notices_an_actor_that_never_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Quarantine, "failed", lambda quarantine, address, path, _: quarantine.put(address, path, "x"))
    monkeypatch.setattr("tests.test_fault_sweep.SECONDS", 2)
    monkeypatch.setattr(Database, "examine", lambda _: (_ for _ in ()).throw(NotADatabase("never right")))
    assert await is_caught("append", [("write", "io")])

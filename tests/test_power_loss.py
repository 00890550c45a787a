"""Power cuts at any moment: whatever the disk has kept, nothing acknowledged is lost, nothing is there by halves.

One run of a workload leaves a trace of its disk; every image that a power cut could have left of it is opened by a z0
that goes on from there (tests/power_loss.py: the workloads, tests/power_check.py: what is checked). Some of these
recoveries are cut off as well. What a broken z0 would do is caught: the negative controls are below.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from typing import Any

import pytest

from tests.power_check import IMAGES, Explored, explore
from tests.power_loss import PLANS, Plan
from tests.proofs import Proof
from z0 import disk
from z0.actors import catalog
from z0.actors.alarm_index import AlarmIndex
from z0.actors.alarms import Alarms
from z0.actors.catalog import Catalog
from z0.actors.database import Database
from z0.actors.durability import FileSync
from z0.actors.files import Files
from z0.actors.gates import Turn
from z0.actors.host import Host
from z0.actors.names import Address, file_path
from z0.medium import Event, Sync, SyncFolder
from z0.testing import SimulatedDisk

SEEDS = 9 * len(PLANS)  # of about 240 images each
PROCESSES = 2


def explored(seeds: Iterable[int], images: int) -> Iterator[Explored]:
    """Explore so many images of each in processes of their own, a few at a time, so that a time limit is heeded."""
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        waiting: deque[Future[Explored]] = deque()
        for seed in seeds:
            waiting.append(pool.submit(explore, seed, images=images))
            if len(waiting) > PROCESSES:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@pytest.mark.proof
def test_a_power_cut_at_any_moment_takes_nothing_that_was_acknowledged(proof: Proof) -> None:
    violations = []
    images = IMAGES // 12 if proof.amount == "quick" else IMAGES  # few of every plan, rather than none of some
    for each in explored(proof.seeds(SEEDS), images):
        for what, number in each.images.items():
            proof.count(what, number)
        violations += each.violations
        assert not violations, "\n".join(map(str, violations))


# Negative controls: what is broken on purpose is found


def found(plan: Plan, *, spoil: Callable[[SimulatedDisk], object] = lambda disk: None, seeds: int = 3) -> str:
    """What is violated when a plan is run with a few seeds."""
    for seed in range(seeds):
        each = explore(seed, plan, images=200, fire_one_in=2, spoil=spoil)
        if each.violations:
            return "\n".join(violation.what for violation in each.violations)
    return ""


SINGLE = PLANS["messages"]
INDEXED = Plan(sorts=("rings", "single"), evicts=0.6, operations=20)


def test_relaxed_durability_is_found_to_lose_what_it_acknowledged() -> None:
    violations = found(replace(SINGLE, durability="relaxed"))
    assert "is acknowledged, and not synced" in violations
    assert "lost although acknowledged" in violations


@pytest.mark.parametrize("mode", ["NORMAL", "OFF"])
def test_commits_that_do_not_sync_are_found(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    profile = Database._profile

    def unsynced(self: Database, connection: Any, sync: bool) -> None:
        profile(self, connection, sync)
        connection.execute(f"PRAGMA synchronous={mode}")

    monkeypatch.setattr(Database, "_profile", unsynced)
    violations = found(SINGLE)
    assert "lost although acknowledged" in violations or "the actor's file is gone" in violations


def test_a_disk_that_lies_about_syncs_is_found() -> None:
    def lie(disk: SimulatedDisk) -> None:
        record = disk.record

        def record_no_sync(event: Event) -> None:
            if not isinstance(event, Sync | SyncFolder):
                record(event)

        disk.record = record_no_sync  # type: ignore[method-assign]

    assert "may vanish" in found(SINGLE, spoil=lie)


def test_an_output_gate_that_opens_early_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    commit, timed_commit = FileSync.commit, FileSync._timed_commit

    def early(self: FileSync, host: Host, turn: Turn, dirty: int) -> None:
        turn.settle(None)
        commit(self, host, turn, dirty)

    def late(self: FileSync, database: Database, turn: Turn, alone: bool) -> None:
        time.sleep(0.005)  # as a device takes
        timed_commit(self, database, turn, alone)

    monkeypatch.setattr(FileSync, "commit", early)
    monkeypatch.setattr(FileSync, "_timed_commit", late)
    assert "lost although acknowledged" in found(replace(SINGLE, threads=True))


def test_an_alarm_index_written_after_the_commit_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    committed = Alarms.committed

    def changed(self: Alarms, due: int | None) -> None:
        self.touched = True

    def late(self: Alarms) -> None:
        committed(self)
        if self.due is not None and (self.indexed is None or self.due < self.indexed):
            asyncio.get_running_loop().call_later(0.005, self.mark)

    monkeypatch.setattr(Alarms, "_changed", changed)
    monkeypatch.setattr(Alarms, "committed", late)
    assert "never ran" in found(INDEXED)


def test_an_active_set_that_is_not_written_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(self: AlarmIndex, address: Address) -> asyncio.Future[None]:
        return self._catalog.written("SELECT ?, ?, ?", address)

    monkeypatch.setattr(AlarmIndex, "mark", nothing)
    assert "never ran" in found(INDEXED)


def test_a_registration_that_nobody_waits_for_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    async def noted(self: Catalog, address: Address, now_us: int, active: bool) -> None:
        self.note(catalog._REGISTER, (*address, str(file_path(*address)), now_us, int(active), None))

    monkeypatch.setattr(Catalog, "register", noted)
    assert "an acknowledged actor is not in the catalogue" in found(replace(PLANS["creation"], sorts=("single",)))


@pytest.mark.parametrize(("step", "what"), [("sync_folder", "lost although acknowledged"), ("sync", "no such table")])
def test_what_is_made_and_not_synced_is_found(monkeypatch: pytest.MonkeyPatch, step: str, what: str) -> None:
    monkeypatch.setattr(disk._Files, step, lambda *_: None)
    assert what in found(PLANS["creation"])


def test_a_wal_that_stays_in_doubt_after_a_failed_sync_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Files, "renew_wal", lambda *_: None)
    assert found(Plan(sorts=("charge", "many"), actors=1, evicts=0.6, fails=0.6), seeds=12)

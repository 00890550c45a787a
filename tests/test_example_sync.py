"""The example that syncs a CRM: more pages than one run holds, each customer synced once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

import z0
from crm_sync import PAGES_PER_RUN, Account, CrmSync, Progress, customers
from services import Crm, Customer
from tests.example_world import FAULTS, World, check_steps_ended_once, crash_at_every_commit, facts, took, world_of
from tests.proofs import Proof
from unreliable import Fault
from wire import Refused
from z0.testing import VirtualClock, crash

ALL = sorted(customers(), key=lambda each: each.id)[:32]
PAGE = 5
PAGES = -(-len(ALL) // PAGE)
RUNS = -(-PAGES // PAGES_PER_RUN)
CURSORS = ["", *(ALL[at - 1].id for at in range(PAGE, len(ALL), PAGE))]
ACTORS = [Account, CrmSync]
GET = "GET /customers"


@pytest.fixture
async def world(clock: VirtualClock) -> AsyncIterator[World[Crm]]:
    async with world_of(Crm(list(ALL), PAGE), clock, ACTORS) as made:
        yield made


async def synced(runtime: z0.Runtime, world: World[Crm], id: str = "first") -> z0.Instance[CrmSync]:
    """A sync, as far as it goes without time passing."""
    instance = await runtime.workflows.create(CrmSync, Progress(), id=id, on_conflict="existing")
    await world.clock.settle()
    return instance


async def revisions(runtime: z0.Runtime) -> dict[str, list[int]]:
    """The revisions that each account was told of."""
    found = {}
    for info in await runtime.list(Account, limit=1_000):
        told = await runtime.get(Account, info.name).query_facts()
        found[info.name] = [fact.data["revision"] for fact in told if fact.data]
    return found


def test_there_are_more_pages_than_two_runs_hold() -> None:
    assert RUNS > 2


async def test_the_cursor_is_carried_from_run_to_run_and_every_customer_is_synced_once(
    world: World[Crm], z0_path: Path
) -> None:
    async with world.runtime(z0_path) as runtime:
        instance = await synced(runtime, world)
        assert await instance.result() == Progress("", PAGES, len(ALL))
        assert (await instance.status()).run == RUNS
        assert world.service.cursors == CURSORS
        assert await revisions(runtime) == {each.id: [1] for each in ALL}
        profile = await runtime.get(Account, ALL[0].id).projection("profile")
        assert profile.name == ALL[0].name


async def test_the_facts_of_all_runs_stay_in_the_instances_ledger(world: World[Crm], z0_path: Path) -> None:
    async with world.runtime(z0_path) as runtime:
        instance = await synced(runtime, world)
        ledger: z0.Entity = runtime.get(CrmSync, instance.id)
        sizes = [fact.data and fact.data["customers"] for fact in await ledger.query_facts(type="page_synced")]
        assert sizes == [min(PAGE, len(ALL) - at) for at in range(0, len(ALL), PAGE)]


@pytest.mark.parametrize(("number", "pages", "runs"), [(0, 1, 1), (1, 1, 1), (15, 3, 1), (16, 4, 2)])
async def test_the_last_page_ends_it_wherever_in_a_run_it_is(
    clock: VirtualClock, z0_path: Path, number: int, pages: int, runs: int
) -> None:
    async with world_of(Crm(ALL[:number], PAGE), clock, ACTORS) as world, world.runtime(z0_path) as runtime:
        instance = await synced(runtime, world)
        progress = await instance.result()
        assert (progress.pages, progress.customers, (await instance.status()).run) == (pages, number, runs)
        assert len(await revisions(runtime)) == number


@pytest.mark.parametrize("how", FAULTS)
async def test_a_page_of_a_later_run_arrives_however_the_crm_misbehaves(
    world: World[Crm], z0_path: Path, how: Fault
) -> None:
    world.service.misbehave(GET, "none", times=PAGES_PER_RUN)
    world.service.misbehave(GET, how)
    async with world.runtime(z0_path) as runtime:
        instance = await synced(runtime, world)
        await world.clock.advance("1 minute")
        assert (await instance.result()).customers == len(ALL)
        assert world.service.requests == [GET] * (PAGES + 1)
        assert await revisions(runtime) == {each.id: [1] for each in ALL}


async def test_the_crms_word_on_when_to_come_again_counts(world: World[Crm], z0_path: Path) -> None:
    world.service.misbehave(GET, "busy", "busy")
    async with world.runtime(z0_path) as runtime:
        instance = await synced(runtime, world)
        await world.clock.advance("59 seconds")
        assert (len(world.service.requests), world.service.cursors) == (2, [])
        await world.clock.advance("1 second")
        assert (await instance.result()).customers == len(ALL)


async def test_another_sync_writes_only_what_has_changed(world: World[Crm], z0_path: Path) -> None:
    async with world.runtime(z0_path) as runtime:
        await synced(runtime, world)
        world.service.customers[4] = Customer(ALL[4].id, 2, "New owner")
        second = await synced(runtime, world, "second")
        assert (await second.result()).customers == len(ALL)
        assert await revisions(runtime) == {each.id: [1, 2] if each == ALL[4] else [1] for each in ALL}


async def test_a_crm_that_refuses_us_ends_the_sync_and_the_ledger_says_why(world: World[Crm], z0_path: Path) -> None:
    world.service.locked_out = True
    async with world.runtime(z0_path) as runtime:
        instance = await synced(runtime, world)
        with pytest.raises(Refused, match="the token has expired"):
            await instance.result()
        assert world.service.requests == [GET]
        ledger: z0.Entity = runtime.get(CrmSync, instance.id)
        assert await facts(ledger, "lifecycle") == ["lifecycle"]
        world.service.locked_out = False
        await instance.restart()
        await world.clock.settle()
        assert (await instance.result()).customers == len(ALL)


async def test_after_a_crash_pages_of_this_run_and_of_former_ones_are_not_fetched_again(
    world: World[Crm], z0_path: Path
) -> None:
    world.service.misbehave(GET, "none", times=PAGES_PER_RUN + 1)
    world.service.misbehave(GET, "hang")
    async with world.runtime(z0_path) as runtime:
        await synced(runtime, world)
        assert world.service.hanging == 1
        await crash(runtime)
    async with world.runtime(z0_path) as runtime:
        instance = await synced(runtime, world)
        assert (await instance.result()).customers == len(ALL)
        repeated = CURSORS[PAGES_PER_RUN + 1]
        assert world.service.cursors == sorted([*CURSORS, repeated])
        assert await took(instance, f"do:fetch a page#{PAGES % PAGES_PER_RUN}") == 0
        assert await revisions(runtime) == {each.id: [1] for each in ALL}


@pytest.mark.proof
async def test_a_crash_at_any_commit_syncs_each_customer_once(proof: Proof) -> None:
    some = ALL[:8]

    def making(clock: VirtualClock) -> AbstractAsyncContextManager[World[Crm]]:
        return world_of(Crm(some, page_customers=2), clock, ACTORS)

    async def drive(runtime: z0.Runtime, world: World[Crm]) -> None:
        await synced(runtime, world)

    async def check(runtime: z0.Runtime, world: World[Crm]) -> None:
        instance = runtime.workflows.get(CrmSync, "first")
        await check_steps_ended_once(instance)
        assert await instance.result() == Progress("", 4, 8)
        assert (await instance.status()).run == 2
        assert await revisions(runtime) == {each.id: [1] for each in some}
        ledger: z0.Entity = runtime.get(CrmSync, instance.id)
        assert await ledger.count_facts(type="page_synced") == 4

    assert await crash_at_every_commit(proof, making, drive, check) > 3

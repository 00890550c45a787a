"""The example that reconciles an account with its bank: every line matched once, what does not match told to people."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

import z0
from payment_reconciliation import Account, Reconciliation, Summary, Unmatched, statement
from sample import histories, post
from services import Row, Statements
from tests.example_world import FAULTS, World, check_steps_ended_once, crash_at_every_commit, facts, took, world_of
from tests.proofs import Proof
from unreliable import Fault
from wire import Refused
from z0.testing import VirtualClock, crash

NAME = "652"
HISTORY = histories()[NAME]
ROWS = [Row(str(each.trans_id), each.date.isoformat(), each.signed) for each in HISTORY]
PAGES = -(-len(ROWS) // 20)
ACTORS = [Account, Reconciliation]
GET = "GET /statements"

CHANGED, LEFT_OUT = ROWS[8], ROWS[7]
DIFFERENT = [
    Unmatched(CHANGED.id, "another amount", CHANGED.amount, CHANGED.amount + 100),
    Unmatched("stranger", "not in the ledger", None, 4_200),
    Unmatched(LEFT_OUT.id, "not on the statement", LEFT_OUT.amount, None),
]


@pytest.fixture
async def world(clock: VirtualClock) -> AsyncIterator[World[Statements]]:
    async with world_of(Statements({NAME: ROWS}), clock, ACTORS) as made:
        yield made


async def reconciled(runtime: z0.Runtime, world: World[Statements], id: str = "day-1") -> z0.Instance[Reconciliation]:
    """A reconciliation, as far as it goes without time passing."""
    await post(runtime.get(Account, NAME), HISTORY)
    instance = await runtime.workflows.create(Reconciliation, NAME, id=id, on_conflict="existing")
    await world.clock.settle()
    return instance


async def matched(runtime: z0.Runtime) -> list[str | None]:
    """The bank's ids of the lines that were matched, in order."""
    return [fact.external_id for fact in await runtime.get(Account, NAME).query_facts(type="payment_matched")]


async def flagged(runtime: z0.Runtime) -> list[tuple[str | None, str | None]]:
    found = await runtime.get(Account, NAME).query_facts(type="payment_unmatched")
    return [(fact.external_id, fact.subtype) for fact in found]


def test_the_statement_has_several_pages() -> None:
    assert PAGES > 2


async def test_a_statement_that_is_the_ledger_matches_line_by_line(world: World[Statements], z0_path: Path) -> None:
    async with world.runtime(z0_path) as runtime:
        instance = await reconciled(runtime, world)
        assert await instance.result() == Summary(NAME, len(ROWS), [])
        assert await matched(runtime) == [row.id for row in ROWS]
        assert world.service.requests == [GET] * PAGES
        assert (await flagged(runtime), world.told()) == ([], [])


async def test_what_is_missing_different_or_strange_is_flagged_and_told(
    world: World[Statements], z0_path: Path
) -> None:
    world.service.statements[NAME] = statement(HISTORY)
    async with world.runtime(z0_path) as runtime:
        instance = await reconciled(runtime, world)
        assert await instance.result() == Summary(NAME, len(ROWS) - 2, DIFFERENT)
        assert await matched(runtime) == [row.id for row in ROWS if row not in (CHANGED, LEFT_OUT)]
        assert await flagged(runtime) == [(each.id, each.reason) for each in DIFFERENT]
        assert world.told() == ["reconciliation_manual_review"]
        assert [each["id"] for each in world.alerts[0].data["unmatched"]] == [each.id for each in DIFFERENT]


@pytest.mark.parametrize("how", FAULTS)
async def test_each_page_arrives_however_the_service_misbehaves(
    world: World[Statements], z0_path: Path, how: Fault
) -> None:
    world.service.misbehave(GET, "none", how)
    async with world.runtime(z0_path) as runtime:
        instance = await reconciled(runtime, world)
        await world.clock.advance("1 minute")
        assert await instance.result() == Summary(NAME, len(ROWS), [])
        assert world.service.requests == [GET] * (PAGES + 1)
        assert await took(instance, "do:fetch a page#1") == 0
        jitter = 0 if how == "busy" else 0.1
        assert FAULTS[how] <= await took(instance, "do:fetch a page#2") <= FAULTS[how] + jitter
        assert len(await matched(runtime)) == len(ROWS)


async def test_lines_that_two_pages_have_count_once(clock: VirtualClock, z0_path: Path) -> None:
    service = Statements({NAME: ROWS}, page_rows=20, repeated_rows=5)
    async with world_of(service, clock, ACTORS) as world, world.runtime(z0_path) as runtime:
        instance = await reconciled(runtime, world)
        assert await instance.result() == Summary(NAME, len(ROWS), [])
        assert await matched(runtime) == [row.id for row in ROWS]


async def test_another_days_statement_records_only_what_is_new(world: World[Statements], z0_path: Path) -> None:
    world.service.statements[NAME] = statement(HISTORY)
    async with world.runtime(z0_path) as runtime:
        await reconciled(runtime, world)
        before = await runtime.get(Account, NAME).count_facts()
        again = await reconciled(runtime, world, "day-2")
        assert await again.result() == Summary(NAME, len(ROWS) - 2, DIFFERENT)
        assert await runtime.get(Account, NAME).count_facts() == before
        world.service.statements[NAME] = ROWS  # the bank has put it right
        third = await reconciled(runtime, world, "day-3")
        assert await third.result() == Summary(NAME, len(ROWS), [])
        assert sorted(map(str, await matched(runtime))) == sorted(row.id for row in ROWS)
        assert await facts(runtime.get(Account, NAME), "payment_unmatched") == ["payment_unmatched"] * 3


async def test_a_line_that_changes_after_it_was_matched_is_flagged(world: World[Statements], z0_path: Path) -> None:
    async with world.runtime(z0_path) as runtime:
        await reconciled(runtime, world)
        changed = Row(CHANGED.id, CHANGED.date, CHANGED.amount + 100)
        world.service.statements[NAME] = [changed if row == CHANGED else row for row in ROWS]
        second = await reconciled(runtime, world, "day-2")
        assert await second.result() == Summary(NAME, len(ROWS) - 1, DIFFERENT[:1])


async def test_postings_younger_than_the_statement_are_not_missed(world: World[Statements], z0_path: Path) -> None:
    day = ROWS[-1].date
    world.service.statements[NAME] = early = [row for row in ROWS if row.date < day]
    async with world.runtime(z0_path) as runtime:
        instance = await reconciled(runtime, world)
        assert await instance.result() == Summary(NAME, len(early), [])
        assert len(early) < len(ROWS)


async def test_an_account_that_the_bank_does_not_know_fails_at_once(world: World[Statements], z0_path: Path) -> None:
    world.service.statements.clear()
    async with world.runtime(z0_path) as runtime:
        with pytest.raises(Refused, match="no such account"):
            await (await reconciled(runtime, world)).result()
        assert world.service.requests == [GET]


async def test_after_a_crash_pages_that_were_fetched_are_not_fetched_again(
    world: World[Statements], z0_path: Path
) -> None:
    world.service.misbehave(GET, "none", times=PAGES - 1)
    world.service.misbehave(GET, "hang")
    async with world.runtime(z0_path) as runtime:
        await reconciled(runtime, world)
        assert world.service.hanging == 1
        await crash(runtime)
    async with world.runtime(z0_path) as runtime:
        instance = await reconciled(runtime, world)
        assert await instance.result() == Summary(NAME, len(ROWS), [])
        assert world.service.requests == [GET] * (PAGES + 1)
        assert await matched(runtime) == [row.id for row in ROWS]


@pytest.mark.proof
async def test_a_crash_at_any_commit_matches_and_flags_each_line_once(proof: Proof) -> None:
    def making(clock: VirtualClock) -> AbstractAsyncContextManager[World[Statements]]:
        return world_of(Statements({NAME: statement(HISTORY)}), clock, ACTORS)

    async def drive(runtime: z0.Runtime, world: World[Statements]) -> None:
        await reconciled(runtime, world)

    async def check(runtime: z0.Runtime, world: World[Statements]) -> None:
        instance = runtime.workflows.get(Reconciliation, "day-1")
        await check_steps_ended_once(instance)
        assert await instance.result() == Summary(NAME, len(ROWS) - 2, DIFFERENT)
        assert await matched(runtime) == [row.id for row in ROWS if row not in (CHANGED, LEFT_OUT)]
        assert await flagged(runtime) == [(each.id, each.reason) for each in DIFFERENT]
        assert world.told() == ["reconciliation_manual_review"]

    assert await crash_at_every_commit(proof, making, drive, check) > 3

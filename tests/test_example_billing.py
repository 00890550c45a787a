"""The example that bills an account: money asked for once, booked once, and chased when it does not come."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

import z0
from invoice_billing import CHARGES, Account, Bill, Billed, Billing, Webhooks
from sample import histories, post
from services import Invoicing, Paid
from tests.example_world import FAULTS, World, check_steps_ended_once, crash_at_every_commit, facts, took, world_of
from tests.proofs import Proof
from unreliable import Fault
from wire import Refused, Unavailable
from z0.testing import VirtualClock, crash

NAME, UNTIL, NUMBER = "652", "1993-12-31", "652-1993"
HISTORY = histories()[NAME]
BILLED = [each for each in HISTORY if each.k_symbol in CHARGES and each.date.isoformat() <= UNTIL]
TOTAL = sum(each.amount for each in BILLED)
PAID = Paid("payment-1", NUMBER, NAME, TOTAL)
BILLING = ("invoice_created", "invoice_issued", "invoice_voided", "payment_overdue", "payment_received",
           "invoice_escalated")  # fmt: skip


@pytest.fixture
async def world(clock: VirtualClock) -> AsyncIterator[World[Invoicing]]:
    async with world_of(Invoicing(), clock, [Account, Billing]) as made:
        yield made


async def billed(runtime: z0.Runtime, world: World[Invoicing]) -> z0.Instance[Billing]:
    """The billing, as far as it goes without time passing."""
    await post(runtime.get(Account, NAME), HISTORY)
    instance = await runtime.workflows.create(Billing, Bill(NAME, UNTIL), id=NUMBER, on_conflict="existing")
    await world.clock.settle()
    return instance


async def pay(runtime: z0.Runtime, world: World[Invoicing], paid: Paid = PAID, times: int = 1) -> None:
    async with Webhooks(runtime) as webhooks:
        await world.service.pay(paid, webhooks.client, times)
    await world.clock.settle()


def sent(world: World[Invoicing]) -> list[str]:
    return [path for path, _ in world.service.sent]


def test_the_bank_data_has_charges_to_bill() -> None:
    assert len(BILLED) > 5
    assert {each.k_symbol for each in BILLED} <= CHARGES
    assert len(BILLED) < len(HISTORY)


async def test_what_was_charged_is_invoiced_sent_and_paid(world: World[Invoicing], z0_path: Path) -> None:
    async with world.runtime(z0_path) as runtime:
        instance = await billed(runtime, world)
        assert [(path, each.amount) for path, each in world.service.sent] == [("/invoices", TOTAL)]
        await world.clock.advance("29 days")
        await pay(runtime, world)
        assert await instance.result() == Billed("paid", TOTAL, 0)
        account = runtime.get(Account, NAME)
        assert await facts(account, *BILLING) == ["invoice_created", "invoice_issued", "payment_received"]
        assert world.alerts == []
        later = [each.seq for each in await account.unbilled("9999-12-31")]
        (invoice,) = await account.query_facts(type="invoice_created")
        assert invoice.data is not None
        assert len(invoice.data["charges"]) == len(BILLED)
        assert not set(later) & set(invoice.data["charges"])


async def test_a_charge_is_billed_once_by_whoever_comes_first(world: World[Invoicing], z0_path: Path) -> None:
    async with world.runtime(z0_path) as runtime:
        await billed(runtime, world)
        second = await runtime.workflows.create(Billing, Bill(NAME, UNTIL), id="again")
        assert await second.result() == Billed("nothing to bill")
        account = runtime.get(Account, NAME)
        (invoice,) = await account.query_facts(type="invoice_created")
        assert invoice.data is not None
        charges = [fact for seq in invoice.data["charges"] if (fact := await account.get_fact(seq))]
        with pytest.raises(z0.NonRetryableError, match="on another invoice"):
            await account.invoice("third", charges, key="third")


async def test_an_invoice_that_was_made_months_ago_is_found_by_its_key(world: World[Invoicing], z0_path: Path) -> None:
    async with world.runtime(z0_path) as runtime:
        account = runtime.get(Account, NAME)
        await post(account, HISTORY)
        charges = await account.unbilled(UNTIL)
        made = await account.invoice(NUMBER, charges, "key")
        await world.clock.advance("100 days")
        assert await account.invoice(NUMBER, charges, "key") == made
        assert await facts(account, *BILLING) == ["invoice_created"]


@pytest.mark.parametrize("how", FAULTS)
async def test_an_invoice_is_sent_once_however_the_service_misbehaves(
    world: World[Invoicing], z0_path: Path, how: Fault
) -> None:
    async with world.runtime(z0_path) as runtime:
        world.service.misbehave("POST /invoices", how)
        instance = await billed(runtime, world)
        await world.clock.advance("1 minute")
        assert world.service.requests == ["POST /invoices"] * 2
        assert sent(world) == ["/invoices"]
        assert await took(instance, "do:send invoice#1") == FAULTS[how]
        await pay(runtime, world)
        assert await instance.result() == Billed("paid", TOTAL, 0)


async def test_a_service_that_is_down_is_asked_less_and_less_often(world: World[Invoicing], z0_path: Path) -> None:
    async with world.runtime(z0_path) as runtime:
        world.service.misbehave("POST /invoices", "fail", times=5)
        instance = await billed(runtime, world)
        await world.clock.advance("1 minute")
        assert await took(instance, "do:send invoice#1") == 1 + 2 + 4 + 8 + 16
        assert sent(world) == ["/invoices"]


async def test_an_invoice_that_cannot_be_sent_is_voided_and_a_restart_bills_again(
    world: World[Invoicing], z0_path: Path
) -> None:
    async with world.runtime(z0_path) as runtime:
        world.service.misbehave("POST /invoices", "fail", times=6)
        instance = await billed(runtime, world)
        await world.clock.advance("5 minutes")
        with pytest.raises(Unavailable, match="503"):
            await instance.result()
        account = runtime.get(Account, NAME)
        assert await facts(account, *BILLING) == ["invoice_created", "invoice_voided"]
        assert len(await account.unbilled(UNTIL)) == len(BILLED)
        await instance.restart()
        await world.clock.settle()
        await pay(runtime, world)
        assert await instance.result() == Billed("paid", TOTAL, 0)
        assert sent(world) == ["/voids", "/invoices"]


async def test_a_customer_whose_invoice_may_have_arrived_is_told_that_it_is_void(
    world: World[Invoicing], z0_path: Path
) -> None:
    async with world.runtime(z0_path) as runtime:
        world.service.misbehave("POST /invoices", "drop", times=6)
        world.service.misbehave("POST /voids", "fail", "drop")
        await billed(runtime, world)
        await world.clock.advance("5 minutes")
        assert sent(world) == ["/invoices", "/voids"]
        assert await facts(runtime.get(Account, NAME), *BILLING) == ["invoice_created", "invoice_voided"]


async def test_a_refusal_is_not_tried_again(world: World[Invoicing], z0_path: Path) -> None:
    async with world.runtime(z0_path) as runtime:
        world.service.moved_away.add(NAME)
        instance = await billed(runtime, world)
        with pytest.raises(Refused, match="no such address"):
            await instance.result()
        assert world.service.requests == ["POST /invoices", "POST /voids"]
        assert await facts(runtime.get(Account, NAME), *BILLING) == ["invoice_created", "invoice_voided"]


async def test_a_payment_that_is_told_of_again_and_again_is_booked_once(world: World[Invoicing], z0_path: Path) -> None:
    async with world.runtime(z0_path) as runtime:
        instance = await billed(runtime, world)
        await pay(runtime, world, times=3)
        assert await instance.result() == Billed("paid", TOTAL, 0)
        await pay(runtime, world)  # and once more when it has ended
        account = runtime.get(Account, NAME)
        assert await facts(account, "payment_received") == ["payment_received"]
        assert await account.owed(NUMBER) == 0
        with pytest.raises(Refused, match="no such invoice"):
            await pay(runtime, world, Paid("payment-2", "unknown", "nobody", 1))
        assert await runtime.list(Account, prefix="nobody") == []


async def test_a_payment_that_comes_before_it_is_waited_for_is_kept_once(
    world: World[Invoicing], z0_path: Path
) -> None:
    async with world.runtime(z0_path) as runtime:
        world.service.misbehave("POST /invoices", "fail")
        instance = await billed(runtime, world)
        await pay(runtime, world, times=3)
        assert [entry.event for entry in await instance.journal()].count("event_received") == 1
        await world.clock.advance("1 minute")
        assert await instance.result() == Billed("paid", TOTAL, 0)
        assert sent(world) == ["/invoices"]


async def test_after_thirty_days_it_is_overdue_and_the_reminder_may_help(
    world: World[Invoicing], z0_path: Path
) -> None:
    async with world.runtime(z0_path) as runtime:
        instance = await billed(runtime, world)
        await world.clock.advance("29 days")
        assert sent(world) == ["/invoices"]
        world.service.misbehave("POST /reminders", "drop")
        await world.clock.advance("2 days")
        assert sent(world) == ["/invoices", "/reminders"]
        await pay(runtime, world)
        assert await instance.result() == Billed("paid late", TOTAL, 0)
        assert await facts(runtime.get(Account, NAME), *BILLING) == [
            "invoice_created", "invoice_issued", "payment_overdue", "payment_received",
        ]  # fmt: skip
        assert world.told() == []


async def test_after_two_more_weeks_people_are_told_and_late_money_is_booked_all_the_same(
    world: World[Invoicing], z0_path: Path
) -> None:
    async with world.runtime(z0_path) as runtime:
        instance = await billed(runtime, world)
        await world.clock.advance("43 days")
        assert world.told() == []
        await world.clock.advance("1 day")
        assert await instance.result() == Billed("escalated", TOTAL, TOTAL)
        assert world.told() == ["invoice_escalated"]
        account = runtime.get(Account, NAME)
        assert (await facts(account, *BILLING))[-2:] == ["payment_overdue", "invoice_escalated"]
        await pay(runtime, world)
        assert await account.owed(NUMBER) == 0


async def test_a_payment_of_another_amount_is_told_to_people(world: World[Invoicing], z0_path: Path) -> None:
    async with world.runtime(z0_path) as runtime:
        instance = await billed(runtime, world)
        await pay(runtime, world, Paid("payment-1", NUMBER, NAME, TOTAL - 100))
        assert await instance.result() == Billed("paid", TOTAL, 100)
        assert world.told() == ["payment_differs"]


async def test_a_crash_while_it_waits_repeats_nothing_and_keeps_the_deadline(
    world: World[Invoicing], z0_path: Path
) -> None:
    async with world.runtime(z0_path) as runtime:
        await billed(runtime, world)
        await world.clock.advance("20 days")
        await crash(runtime)
    await world.clock.advance("5 days")
    async with world.runtime(z0_path) as runtime:
        instance = runtime.workflows.get(Billing, NUMBER)
        await world.clock.advance("4 days")
        assert world.service.requests == ["POST /invoices"]
        await world.clock.advance("1 day")  # the thirtieth
        assert sent(world) == ["/invoices", "/reminders"]
        await world.clock.advance("14 days")
        assert await instance.result() == Billed("escalated", TOTAL, TOTAL)
        assert world.service.requests == ["POST /invoices", "POST /reminders"]


async def test_a_crash_while_the_service_hangs_sends_the_invoice_once(world: World[Invoicing], z0_path: Path) -> None:
    async with world.runtime(z0_path) as runtime:
        world.service.misbehave("POST /invoices", "hang")
        await billed(runtime, world)
        assert (world.client.in_flight, world.service.hanging) == (1, 1)
        await crash(runtime)
    async with world.runtime(z0_path) as runtime:
        instance = await billed(runtime, world)
        await pay(runtime, world)
        assert await instance.result() == Billed("paid", TOTAL, 0)
        assert world.service.requests == ["POST /invoices"] * 2
        assert sent(world) == ["/invoices"]


@pytest.mark.proof
@pytest.mark.parametrize("pays", [True, False])
async def test_a_crash_at_any_commit_leaves_each_fact_and_each_letter_once(proof: Proof, pays: bool) -> None:
    async def drive(runtime: z0.Runtime, world: World[Invoicing]) -> None:
        await billed(runtime, world)
        if pays:
            await pay(runtime, world, times=2)
        else:
            await world.clock.advance("45 days")

    async def check(runtime: z0.Runtime, world: World[Invoicing]) -> None:
        instance = runtime.workflows.get(Billing, NUMBER)
        await check_steps_ended_once(instance)
        found = await facts(runtime.get(Account, NAME), *BILLING)
        if pays:
            assert await instance.result() == Billed("paid", TOTAL, 0)
            assert sorted(found) == ["invoice_created", "invoice_issued", "payment_received"]
            assert (sent(world), world.told()) == (["/invoices"], [])
        else:
            assert await instance.result() == Billed("escalated", TOTAL, TOTAL)
            assert found == ["invoice_created", "invoice_issued", "payment_overdue", "invoice_escalated"]
            assert (sent(world), world.told()) == (["/invoices", "/reminders"], ["invoice_escalated"])

    def making(clock: VirtualClock) -> AbstractAsyncContextManager[World[Invoicing]]:
        return world_of(Invoicing(), clock, [Account, Billing])

    assert await crash_at_every_commit(proof, making, drive, check) > 3

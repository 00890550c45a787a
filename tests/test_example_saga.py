"""The example that transfers money: all of it or nothing, whoever refuses, fails or dies on the way."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

import z0
from sample import histories, post
from services import Clearing, Payment
from tests.example_world import FAULTS, World, check_steps_ended_once, crash_at_every_commit, facts, took, world_of
from tests.proofs import Proof
from transfer_saga import Account, AccountBlocked, InsufficientFunds, Order, Transfer
from unreliable import Fault
from wire import Unavailable
from z0.testing import VirtualClock, crash, mock_step

SOURCE, TARGET, ID, AMOUNT = "652", "1628", "rent", 500_00
HISTORIES = histories()
HAD = {name: sum(each.signed for each in HISTORIES[name]) for name in (SOURCE, TARGET)}
MOVED = {SOURCE: HAD[SOURCE] - AMOUNT, TARGET: HAD[TARGET] + AMOUNT}
ACTORS = [Account, Transfer]
PAY, CANCEL = "POST /payments", "POST /cancellations"
MOVES = ("transfer_out", "transfer_in", "transfer_out_reversed", "transfer_in_reversed")
BACK = ["transfer_out", "transfer_out_reversed"]


@pytest.fixture
async def world(clock: VirtualClock) -> AsyncIterator[World[Clearing]]:
    async with world_of(Clearing(), clock, ACTORS) as made:
        yield made


async def ready(runtime: z0.Runtime, *, blocked: bool = False) -> None:
    """Both accounts have their histories; the target may take no money."""
    for name in HAD:
        await post(runtime.get(Account, name), HISTORIES[name])
    if blocked:
        await runtime.get(Account, TARGET).append("blocked", idempotency_key="blocked")


async def transfer(runtime: z0.Runtime, world: World[Clearing], amount: int = AMOUNT) -> z0.Instance[Transfer]:
    """A transfer, as far as it goes without time passing."""
    order = Order(SOURCE, TARGET, amount)
    instance = await runtime.workflows.create(Transfer, order, id=ID, on_conflict="existing")
    await world.clock.settle()
    return instance


async def balances(runtime: z0.Runtime) -> dict[str, int]:
    return {name: (await runtime.get(Account, name).projection("balance")).amount for name in HAD}


async def moves(runtime: z0.Runtime) -> list[list[str]]:
    """What happened to the source, and to the target."""
    return [await facts(runtime.get(Account, name), *MOVES) for name in HAD]


async def outcomes(runtime: z0.Runtime) -> list[str | None]:
    """What the transfer's own ledger says of its end."""
    ledger: z0.Entity = runtime.get(Transfer, ID)
    return [fact.subtype for fact in await ledger.query_facts(type="lifecycle")]


async def undone(instance: z0.Instance[Transfer]) -> list[str]:
    rollback = (await instance.status()).rollback
    assert rollback is not None
    assert rollback.outcome == "complete", rollback
    return rollback.undone


async def test_money_moves_from_one_account_to_the_other_once(world: World[Clearing], z0_path: Path) -> None:
    async with world.runtime(z0_path) as runtime:
        await ready(runtime)
        assert await balances(runtime) == HAD
        instance = await transfer(runtime, world)
        assert await instance.result() == "transferred"
        assert await balances(runtime) == MOVED
        assert world.service.cleared == [Payment(ID, SOURCE, TARGET, AMOUNT)]
        assert world.service.cancelled == []
        assert await outcomes(runtime) == ["transfer_completed"]


@pytest.mark.parametrize("how", FAULTS)
async def test_money_is_cleared_once_however_the_service_misbehaves(
    world: World[Clearing], z0_path: Path, how: Fault
) -> None:
    world.service.misbehave(PAY, how)
    async with world.runtime(z0_path) as runtime:
        await ready(runtime)
        instance = await transfer(runtime, world)
        await world.clock.advance("1 minute")
        assert await instance.result() == "transferred"
        assert world.service.requests == [PAY, PAY]
        assert await took(instance, "do:clear#1") == FAULTS[how]
        assert len(world.service.cleared) == 1
        assert await balances(runtime) == MOVED


async def test_without_enough_money_nothing_is_cleared_or_moved(world: World[Clearing], z0_path: Path) -> None:
    async with world.runtime(z0_path) as runtime:
        await ready(runtime)
        instance = await transfer(runtime, world, HAD[SOURCE] + 1)
        with pytest.raises(InsufficientFunds, match=f"account {SOURCE} has"):
            await instance.result()
        assert world.service.requests == []
        assert await balances(runtime) == HAD


async def test_when_the_second_account_refuses_all_is_undone_the_last_first(
    world: World[Clearing], z0_path: Path
) -> None:
    async with world.runtime(z0_path) as runtime:
        await ready(runtime, blocked=True)
        instance = await transfer(runtime, world)
        with pytest.raises(AccountBlocked, match=f"account {TARGET} is blocked"):
            await instance.result()
        assert await undone(instance) == ["do:credit#1", "do:clear#1", "do:debit#1"]
        assert world.service.cancelled == [ID]
        assert await balances(runtime) == HAD
        assert await moves(runtime) == [BACK, []]
        debit, back = await runtime.get(Account, SOURCE).query_facts(type=BACK)
        assert (back.amount, back.data) == (AMOUNT, {"reverses": debit.id})
        assert await outcomes(runtime) == ["transfer_failed"]


async def test_undoing_is_tried_for_as_long_as_the_service_is_down(world: World[Clearing], z0_path: Path) -> None:
    world.service.misbehave(CANCEL, "fail", times=10)
    world.service.misbehave(CANCEL, "hang", "drop")
    async with world.runtime(z0_path) as runtime:
        await ready(runtime, blocked=True)
        instance = await transfer(runtime, world)
        await world.clock.advance("10 hours")
        status = await instance.status()
        assert (status.status, world.service.cancelled) == ("waiting", [])
        assert (await balances(runtime))[SOURCE] == MOVED[SOURCE]  # the money waits for what is undone before
        await world.clock.advance("3 days")
        assert await undone(instance) == ["do:credit#1", "do:clear#1", "do:debit#1"]
        assert world.service.requests == [PAY, *[CANCEL] * 13]
        assert world.service.cancelled == [ID]
        assert await balances(runtime) == HAD


async def test_a_payment_whose_answer_never_came_is_cancelled_too(world: World[Clearing], z0_path: Path) -> None:
    world.service.misbehave(PAY, "drop", times=6)
    async with world.runtime(z0_path) as runtime:
        await ready(runtime)
        instance = await transfer(runtime, world)
        await world.clock.advance("5 minutes")
        with pytest.raises(Unavailable):
            await instance.result()
        assert (len(world.service.cleared), world.service.cancelled) == (1, [ID])
        assert await balances(runtime) == HAD


async def test_what_fails_after_the_money_has_arrived_takes_it_back(world: World[Clearing], z0_path: Path) -> None:
    async with world.runtime(z0_path) as runtime:
        await ready(runtime)
        with mock_step(runtime, "record", raises=z0.NonRetryableError("no")):
            instance = await transfer(runtime, world)
        with pytest.raises(z0.NonRetryableError, match="no"):
            await instance.result()
        assert await moves(runtime) == [BACK, ["transfer_in", "transfer_in_reversed"]]
        assert world.service.cancelled == [ID]
        assert await balances(runtime) == HAD


async def test_a_transfer_that_was_undone_stays_undone_when_it_is_restarted(
    world: World[Clearing], z0_path: Path
) -> None:
    async with world.runtime(z0_path) as runtime:
        await ready(runtime, blocked=True)
        instance = await transfer(runtime, world)
        await runtime.get(Account, TARGET).append("unblocked")
        await instance.restart()
        await world.clock.settle()
        with pytest.raises(z0.NonRetryableError, match="was reversed; order another one"):
            await instance.result()
        assert (len(world.service.cleared), world.service.cancelled) == (1, [ID])
        assert await moves(runtime) == [BACK, []]
        assert await balances(runtime) == HAD
        assert await outcomes(runtime) == ["transfer_failed"] * 2


async def test_a_transfer_that_lacked_money_can_be_restarted_when_there_is_some(
    world: World[Clearing], z0_path: Path
) -> None:
    async with world.runtime(z0_path) as runtime:
        await ready(runtime)
        instance = await transfer(runtime, world, HAD[SOURCE] + 1)
        await runtime.get(Account, SOURCE).append("credit", amount=1)
        await instance.restart()
        await world.clock.settle()
        assert await instance.result() == "transferred"
        assert (await balances(runtime))[SOURCE] == 0


async def test_the_same_debit_again_takes_nothing_more_though_the_money_is_gone(
    world: World[Clearing], z0_path: Path
) -> None:
    async with world.runtime(z0_path) as runtime:
        await ready(runtime)
        account, order = runtime.get(Account, SOURCE), Order(SOURCE, TARGET, HAD[SOURCE])
        await account.debit(ID, order)
        await account.debit(ID, order)
        assert (await balances(runtime))[SOURCE] == 0
        with pytest.raises(InsufficientFunds):
            await account.debit("another", order)


async def test_a_crash_while_it_is_cleared_moves_the_money_once(world: World[Clearing], z0_path: Path) -> None:
    world.service.misbehave(PAY, "hang")
    async with world.runtime(z0_path) as runtime:
        await ready(runtime)
        await transfer(runtime, world)
        assert world.service.hanging == 1
        assert await moves(runtime) == [["transfer_out"], []]
        await crash(runtime)
    async with world.runtime(z0_path) as runtime:
        instance = await transfer(runtime, world)
        assert await instance.result() == "transferred"
        assert (world.service.requests, len(world.service.cleared)) == ([PAY, PAY], 1)
        assert await moves(runtime) == [["transfer_out"], ["transfer_in"]]


async def test_a_crash_while_it_is_undone_goes_on_undoing(world: World[Clearing], z0_path: Path) -> None:
    world.service.misbehave(CANCEL, "hang")
    async with world.runtime(z0_path) as runtime:
        await ready(runtime, blocked=True)
        await transfer(runtime, world)
        assert world.service.hanging == 1
        await crash(runtime)
    async with world.runtime(z0_path) as runtime:
        instance = await transfer(runtime, world)
        with pytest.raises(AccountBlocked):
            await instance.result()
        assert world.service.requests == [PAY, CANCEL, CANCEL]
        assert world.service.cancelled == [ID]
        assert await moves(runtime) == [BACK, []]
        assert await outcomes(runtime) == ["transfer_failed"]


@pytest.mark.proof
@pytest.mark.parametrize("blocked", [False, True])
async def test_a_crash_at_any_commit_moves_all_the_money_or_none(proof: Proof, blocked: bool) -> None:
    def making(clock: VirtualClock) -> AbstractAsyncContextManager[World[Clearing]]:
        return world_of(Clearing(), clock, ACTORS)

    async def drive(runtime: z0.Runtime, world: World[Clearing]) -> None:
        await ready(runtime, blocked=blocked)
        await transfer(runtime, world)

    async def check(runtime: z0.Runtime, world: World[Clearing]) -> None:
        instance = runtime.workflows.get(Transfer, ID)
        await check_steps_ended_once(instance)
        assert len(world.service.cleared) == 1
        if blocked:
            assert await undone(instance) == ["do:credit#1", "do:clear#1", "do:debit#1"]
            assert (await balances(runtime), world.service.cancelled) == (HAD, [ID])
            assert await moves(runtime) == [BACK, []]
            assert await outcomes(runtime) == ["transfer_failed"]
        else:
            assert await instance.result() == "transferred"
            assert (await balances(runtime), world.service.cancelled) == (MOVED, [])
            assert await moves(runtime) == [["transfer_out"], ["transfer_in"]]
            assert await outcomes(runtime) == ["transfer_completed"]

    assert await crash_at_every_commit(proof, making, drive, check) > 3

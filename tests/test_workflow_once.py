"""Exactly once: what a step sends carries a key that every attempt of it gives again."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

import z0
from tests.proofs import Proof
from tests.workflow_world import Account, amounts, crash_at_every_commit, outcome, said
from z0.testing import VirtualClock, temporary_runtime
from z0.workflows.keys import SentKeys


class Till(z0.Entity):
    accepts = {"*"}

    @z0.idempotent("key")
    async def first(self, key: str, amount: int) -> int:
        return self.ledger.append("first", amount=amount).seq

    @z0.idempotent("key")
    async def last(self, amount: int, key: str = "") -> str:
        self.ledger.append("last", amount=amount)
        return key

    async def plain(self, amount: int) -> int:
        return self.ledger.append("plain", amount=amount).seq

    async def pass_on(self, amount: int) -> None:
        """What it sends itself is no business of the step's."""
        await self.get(Account, "a").append("passed", amount=amount)


class Sending(z0.Workflow):
    """Fails twice after it has sent everything."""

    retries = z0.Retries(limit=3, delay=0)

    async def run(self, event: z0.Event[None], step: z0.Step) -> list[Any]:
        till, account = self.get(Till, "t"), self.get(Account, "a")

        async def send(context: z0.StepContext) -> list[Any]:
            said: list[Any] = []
            await account.append("deposit", amount=1)
            await account.append("deposit", amount=2, idempotency_key="mine")
            await account.append("deposit", amount=3, data={"idempotency_key": "in data"})
            await account.append_many([{"type": "many", "amount": 4}, {"type": "many", "amount": 5}])
            said.append(await till.last(6))
            said.append(await till.last(7, "given"))
            said.append(await till.last(8, key="named"))
            await asyncio.gather(account.append("side", amount=9), account.append("side", amount=10))
            with self.deadline("1 minute"):
                await account.append("soon", amount=11)
            await till.plain(12)
            await till.pass_on(13)
            if context.attempt < 3:
                raise ConnectionError
            return said

        return await step.do("send", send)


async def test_what_an_attempt_sends_is_there_once_however_many_attempts_there_are(clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, actors=[Sending, Till, Account], clock=clock) as runtime:
        step = f"Sending/one/{clock.now_us()}/1/do:send#1"
        instance = await runtime.workflows.create(Sending, id="one")
        assert await instance.result() == [f"{step}/4", "given", "named"]
        facts = await runtime.get(Account, "a").query_facts()
        assert sorted(fact.amount or 0 for fact in facts if fact.type != "passed") == [1, 2, 3, 4, 5, 9, 10, 11]
        keys = [fact.idempotency_key for fact in facts]
        assert keys[:5] == [
            f"{step}/1",
            "mine",
            "in data",
            f"{step}/2",
            f"{step}/3",
        ]
        # What takes no key happens in each attempt, and so does what others send in turn.
        assert [fact.amount for fact in facts if fact.type == "passed"] == [13, 13, 13]
        till = await runtime.get(Till, "t").query_facts()
        assert [fact.amount for fact in till] == [6, 7, 8, 12, 12, 12]


async def test_outside_of_workflows_nothing_gets_a_key(clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, actors=[Till, Account], clock=clock) as runtime:
        await runtime.get(Account, "a").append("x")
        (fact,) = await runtime.get(Account, "a").query_facts()
        assert fact.idempotency_key is None
        with pytest.raises(TypeError, match="key must be a non-empty string"):
            await runtime.get(Till, "t").last(1)


async def test_a_key_that_would_be_too_long_is_cut_and_still_its_own(clock: VirtualClock) -> None:
    class Long(z0.Workflow):
        async def run(self, event: z0.Event[None], step: z0.Step) -> None:
            account = self.get(Account, "a")
            for end in "xy":
                await step.do("#" * 255 + end, lambda: account.append("x"))

    async with temporary_runtime(memory=True, actors=[Long, Account], clock=clock) as runtime:
        instance = await runtime.workflows.create(Long)
        await instance.result()
        keys = {fact.idempotency_key for fact in await runtime.get(Account, "a").query_facts()}
        assert len(keys) == 2
        assert all(len(str(key)) <= 512 for key in keys)


class Own(z0.Workflow):
    """Appends to its own ledger, in steps that wait afterwards, fail, or stand in others."""

    retries = z0.Retries(limit=2, delay=0)

    async def run(self, event: z0.Event[None], step: z0.Step) -> list[int]:
        async def waits(context: z0.StepContext) -> int:
            seq = self.ledger.append("waits", amount=1).seq
            await self.clock.sleep("1 minute")
            if context.attempt == 1:
                self.ledger.append("taken back", amount=100)
                raise ValueError
            return seq

        async def nested(context: z0.StepContext) -> int:
            self.ledger.append("outer", amount=2)
            return await context.do("inner", lambda: self.ledger.append("inner", amount=3).seq)

        first = await step.do("at once", lambda: self.ledger.append("at once", amount=0).seq)
        second = await step.do("waits", waits)
        self.ledger.append("body", amount=4)
        many = await step.do("many", lambda: len(self.ledger.append_many([{"type": "m"}, {"type": "m"}])))
        return [first, second, await step.do("nested", nested), many]


async def test_a_fact_of_its_own_is_there_once_and_that_of_a_failed_attempt_is_taken_back(
    clock: VirtualClock,
) -> None:
    async with temporary_runtime(memory=True, actors=[Own], clock=clock) as runtime:
        run = f"Own/one/{clock.now_us()}/1"
        instance = await runtime.workflows.create(Own, id="one")
        await clock.advance("10 minutes")
        assert await instance.result() == [1, 2, 7, 2]
        facts = await instance._stub.query_facts()
        assert [fact.type for fact in facts] == ["at once", "waits", "body", "m", "m", "outer", "inner"]
        assert facts[0].idempotency_key == f"{run}/do:at once#1/1"
        assert facts[-1].idempotency_key == f"{run}/do:nested#1/do:inner#1/1"


async def drive(runtime: z0.Runtime, clock: VirtualClock) -> None:
    await said(runtime.workflows.create(Own, id="one"))
    await said(runtime.workflows.create(Sending, id="two"))


async def check(runtime: z0.Runtime, clock: VirtualClock) -> None:
    instance = runtime.workflows.get(Own, "one")
    await outcome(instance)
    types = [fact.type for fact in await instance._stub.query_facts()]
    assert types == ["at once", "waits", "body", "m", "m", "outer", "inner"]
    await outcome(runtime.workflows.get(Sending, "two"))
    amount = [each for each in await amounts(runtime, "a") if each != 13]
    assert sorted(map(int, map(str, amount))) == [1, 2, 3, 4, 5, 9, 10, 11]
    assert [each for each in await amounts(runtime, "a") if each == 13]
    till = [fact.amount for fact in await runtime.get(Till, "t").query_facts() if fact.type != "plain"]
    assert till == [6, 7, 8]


@pytest.mark.proof
async def test_facts_of_steps_that_are_cut_off_at_any_commit_are_there_once(proof: Proof) -> None:
    assert await crash_at_every_commit(proof, [Own, Sending, Till, Account], drive, check) > 5


async def test_keys_that_differ_from_attempt_to_attempt_would_be_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = itertools.count()
    monkeypatch.setattr(SentKeys, "__call__", lambda self: f"key {next(keys)}")
    with pytest.raises(AssertionError):
        await crash_at_every_commit(Proof(), [Own, Sending, Till, Account], drive, check)


class Receiving(z0.Workflow):
    async def run(self, event: z0.Event[None], step: z0.Step) -> list[Any]:
        taken: list[Any] = []
        try:
            while True:
                taken.append((await step.wait_for_event("w", type="ping", timeout="1 hour")).payload)
        except z0.EventTimeout:
            return taken


class Pinging(z0.Workflow):
    retries = z0.Retries(limit=3, delay=0)

    async def run(self, event: z0.Event[None], step: z0.Step) -> None:
        receiver = self.workflows.get(Receiving, "r")

        async def ping(ctx: z0.StepContext) -> None:
            for word in ("one", "two"):
                await receiver.send_event("ping", f"{word} {event.id}")
            await receiver.send_event("ping", "named", id="mine")
            if ctx.attempt < 3:
                raise ConnectionError

        await step.do("ping", ping)
        await receiver.send_event("ping", f"of the body {event.id}")
        await step.sleep("rest", "10 minutes")
        await step.do("after", lambda: 1)


async def test_an_event_that_a_step_sends_is_received_once_however_often_the_step_is_tried(
    clock: VirtualClock,
) -> None:
    async with temporary_runtime(memory=True, actors=[Receiving, Pinging], clock=clock) as runtime:
        receiver = await runtime.workflows.create(Receiving, id="r")
        await runtime.workflows.create(Pinging, id="a")
        await clock.advance("10 seconds")
        await runtime.workflows.create(Pinging, id="b")
        await clock.advance("30 minutes")
        await receiver.send_event("ping", "from outside")
        await receiver.send_event("ping", "from outside")
        await clock.advance("1 day")
        said = [*("one a", "two a", "named", "of the body a"), *("one b", "two b", "of the body b")]
        assert await receiver.result() == [*said, "from outside", "from outside"]


async def test_an_early_event_that_a_failing_segment_took_is_still_there_for_the_next_attempt(
    clock: VirtualClock,
) -> None:
    class Takes(z0.Workflow):
        fails = True

        async def run(self, event: z0.Event[None], step: z0.Step) -> str:
            await step.sleep("rest", "1 hour")
            got = await step.wait_for_event("early", type="early")
            if Takes.fails:
                raise ValueError(got.payload)
            await step.do("after", lambda: 1)
            await step.sleep("again", "1 hour")
            return str(got.payload)

    async with temporary_runtime(memory=True, actors=[Takes], clock=clock) as runtime:
        instance = await runtime.workflows.create(Takes)
        await instance.send_event("early", "x")
        await clock.advance("1 hour")
        with pytest.raises(ValueError, match="x"):
            await instance.result()
        Takes.fails = False
        await instance.retry()
        await clock.advance("30 minutes")
        assert not runtime.node.hosts
        await clock.advance("1 hour")
        assert await instance.result() == "x"
        seqs = [entry.seq for entry in await instance.journal()]
        assert seqs == list(range(1, len(seqs) + 1))

"""Idempotency keys: one step of one run of one instance has them, and no other, whoever had its id before."""

from __future__ import annotations

from typing import Any

import pytest

import z0
from tests.workflow_world import Account, amounts
from z0.testing import VirtualClock, crash, temporary_runtime
from z0.workflows import messages


class Child(z0.Workflow):
    async def run(self, event: z0.Event[int], step: z0.Step) -> int:
        return event.payload


class Booking(z0.Workflow):
    """Books on an account that all tenants share, and begins instances that they share."""

    retries = z0.Retries(limit=1, delay=0)

    async def run(self, event: z0.Event[int], step: z0.Step) -> list[Any]:
        runtime: z0.Runtime = self.env["runtime"]

        async def book(ctx: z0.StepContext) -> list[Any]:
            fact = await runtime.get(Account, "shared").append("fee", amount=event.payload)
            child = await runtime.workflows.create(Child, event.payload)
            if ctx.attempt == 1:
                raise ConnectionError
            return [ctx.idempotency_key, fact.amount, await child.result()]

        return [*await step.do("book", book), await step.workflow(Child, event.payload)]


async def test_instances_of_two_tenants_with_one_id_each_have_their_own_facts_and_children(clock: VirtualClock) -> None:
    env: dict[str, Any] = {}
    async with temporary_runtime(memory=True, actors=[Booking, Child, Account], clock=clock, env=env) as runtime:
        env["runtime"] = runtime
        found = []
        for number, tenant in enumerate(("default", "t1", "t2")):
            instance = await runtime.tenant(tenant).workflows.create(Booking, number, id="inv-1")
            found.append(await instance.result())
        assert [each[1:] for each in found] == [[0, 0, 0], [1, 1, 1], [2, 2, 2]]
        assert len({key for key, *_ in found}) == 3
        assert await amounts(runtime, "shared") == [0, 1, 2]


async def test_an_instance_whose_id_is_free_again_has_nothing_of_the_one_before(clock: VirtualClock) -> None:
    env: dict[str, Any] = {}
    async with temporary_runtime(memory=True, actors=[Booking, Child, Account], clock=clock, env=env) as runtime:
        env["runtime"] = runtime
        for amount in (5, 5, 7):
            instance = await runtime.workflows.create(Booking, amount, id="monthly")
            assert (await instance.result())[1:] == [amount] * 3
            await instance.delete()
        assert await amounts(runtime, "shared") == [5, 5, 7]
        assert await runtime.workflows.count(Child) == 6


class Named(z0.Workflow):
    async def run(self, event: z0.Event[int], step: z0.Step) -> int:
        return int(await step.workflow(Slow, event.payload, id="child", outlives=True))


class Slow(Child):
    busy = False

    async def z0_create(self, payload: bytes, detail: dict[str, Any]) -> None:
        if Slow.busy:  # so long that the one that is there ends meanwhile
            await self.clock.sleep("5 minutes")
        await messages.create(self, payload, detail)

    async def run(self, event: z0.Event[int], step: z0.Step) -> int:
        await step.sleep("1 hour")
        return event.payload


async def test_a_child_of_a_given_id_that_one_before_has_left_is_not_taken_for_its_own(clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, actors=[Named, Slow], clock=clock) as runtime:
        first = await runtime.workflows.create(Named, 1, id="parent")
        await clock.advance("1 minute")
        await first.delete()
        second = await runtime.workflows.create(Named, 2, id="parent")
        with pytest.raises(z0.InstanceExists, match="Slow 'child' exists already"):
            await second.result("1 second")


async def test_a_child_that_outlives_its_parent_has_nothing_to_tell_the_next_one_of_that_id(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with temporary_runtime(memory=True, actors=[Named, Slow], clock=clock) as runtime:
        first = await runtime.workflows.create(Named, 1, id="parent")
        await clock.advance("59 minutes")
        await first.delete()
        monkeypatch.setattr(Slow, "busy", True)
        second = await runtime.workflows.create(Named, 2, id="parent")
        await clock.advance("10 minutes")
        with pytest.raises(z0.InstanceExists):
            await second.result("1 second")


class Telling(z0.Workflow):
    async def run(self, event: z0.Event[None], step: z0.Step) -> None:
        await step.alert("look")


async def test_an_alert_of_an_instance_whose_id_is_free_again_is_another_alert(clock: VirtualClock) -> None:
    alerts: list[z0.Alert] = []
    async with temporary_runtime(memory=True, actors=[Telling], clock=clock, alerts=[alerts.append]) as runtime:
        for _ in range(2):
            instance = await runtime.workflows.create(Telling, id="one")
            await instance.result()
            await clock.settle()
            await instance.delete()
    assert len({alert.id for alert in alerts}) == 2


class Rounds(z0.Workflow):
    """Says its keys: before and after a rest, and in the next run."""

    async def run(self, event: z0.Event[list[str]], step: z0.Step) -> list[str]:
        keys = [*event.payload, await step.do("key", lambda ctx: ctx.idempotency_key)]
        await step.sleep("rest", "1 hour")

        async def nested(ctx: z0.StepContext) -> str:
            await ctx.sleep("rest", "1 hour")
            self.env["said"].append(ctx.idempotency_key)
            return ctx.idempotency_key

        keys.append(await step.do("nested", nested))
        if len(event.payload) < 2:
            step.continue_as_new(keys)
        return keys


async def test_a_key_is_the_same_after_a_crash_and_told_from_the_next_runs_by_their_number(
    clock: VirtualClock,
) -> None:
    env: dict[str, Any] = {"said": []}
    async with temporary_runtime(memory=True, actors=[Rounds], clock=clock, env=env) as runtime:
        await runtime.workflows.create(Rounds, ["", ""], id="another")
        born = clock.now_us() + 1  # the second at this time
        instance = await runtime.workflows.create(Rounds, [], id="one")
        await clock.advance("90 minutes")
        await instance.restart()
        await clock.advance("10 hours")
        assert await instance.result() == [
            f"Rounds/one/{born}/{run}/do:{name}#1" for run in (2, 3) for name in ("key", "nested")
        ]


async def test_a_key_does_not_change_when_a_crash_cuts_its_step_off(z0_path: Any, clock: VirtualClock) -> None:
    env: dict[str, Any] = {"said": []}

    class Cut(z0.Workflow):
        async def run(self, event: z0.Event[None], step: z0.Step) -> None:
            async def work(ctx: z0.StepContext) -> None:
                env["said"].append(ctx.idempotency_key)
                await self.clock.sleep("5 minutes")

            await step.do("work", work)

    async with z0.Runtime(z0_path, actors=[Cut], clock=clock) as runtime:
        await runtime.workflows.create(Cut, id="one")
        await clock.advance("1 minute")
        await crash(runtime)
    await clock.advance("1 hour")
    async with z0.Runtime(z0_path, actors=[Cut], clock=clock) as runtime:
        await clock.advance("1 hour")
        await runtime.workflows.get(Cut, "one").result()
    assert len(env["said"]) == 2
    assert len(set(env["said"])) == 1


async def test_a_key_that_a_step_is_told_fits_into_a_fact_however_long_the_names_are(clock: VirtualClock) -> None:
    class Long(z0.Workflow):
        async def run(self, event: z0.Event[None], step: z0.Step) -> list[str]:
            async def outer(ctx: z0.StepContext) -> list[str]:
                return [await ctx.do("b" * 250 + end, inner) for end in "xy"]

            async def inner(ctx: z0.StepContext) -> str:
                account = self.get(Account, "a")
                fact = await account.append("x", idempotency_key=ctx.idempotency_key)
                await account.append("x")
                return str(fact.idempotency_key)

            return await step.do("c" * 250, outer)

    async with temporary_runtime(memory=True, actors=[Long, Account], clock=clock) as runtime:
        keys = await (await runtime.workflows.create(Long)).result()
        assert len(set(keys)) == 2
        assert len(keys[0]) == 512
        assert await runtime.get(Account, "a").count_facts() == 4

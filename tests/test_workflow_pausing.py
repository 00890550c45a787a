"""Pausing and resuming: what is under way ends first, nothing new begins, and deadlines stand still."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

import z0
from tests.proofs import Proof
from tests.workflow_world import Account, amounts, crash_at_every_commit, end_of, events_of, outcome, said
from z0.testing import VirtualClock, crash, temporary_runtime


class Script:
    def __init__(self) -> None:
        self.done: list[str] = []
        self.failing = 0


class Work(z0.Workflow):
    """A long step, a short one, a sleep and a wait."""

    env: Script
    retries = z0.Retries(limit=3, delay="1 hour", backoff="constant", max_delay="1 hour")

    async def run(self, event: z0.Event[None], step: z0.Step) -> str:
        async def long() -> None:
            self.env.done.append("long begins")
            await self.clock.sleep("5 minutes")
            if self.env.failing:
                self.env.failing -= 1
                raise ConnectionError
            self.env.done.append("long ends")

        await step.do("long", long)
        await step.do("short", lambda: self.env.done.append("short"))
        await step.sleep("night", "8 hours")
        try:
            got = (await step.wait_for_event("answer", type="answer", timeout="1 day")).payload
        except z0.EventTimeout:
            got = "nothing"
        return f"got {got}"


async def test_pausing_waits_for_the_attempt_under_way_and_begins_nothing_after_it(clock: VirtualClock) -> None:
    script = Script()
    async with temporary_runtime(memory=True, actors=[Work], env=script, clock=clock) as runtime:
        instance = await runtime.workflows.create(Work)
        await clock.advance("1 minute")
        await instance.pause()
        await instance.pause()
        assert await end_of(instance) == "waiting_for_pause"
        await clock.advance("10 minutes")
        assert await end_of(instance) == "paused"
        assert script.done == ["long begins", "long ends"]
        await clock.advance("1 hour")
        assert not runtime.node.hosts
        assert await end_of(instance) == "paused"
        await instance.resume()
        await clock.settle()
        assert script.done == ["long begins", "long ends", "short"]
        with pytest.raises(z0.WrongStatus, match="paused"):
            await instance.resume()


async def test_resuming_takes_a_pause_back_that_has_not_begun(clock: VirtualClock) -> None:
    script = Script()
    async with temporary_runtime(memory=True, actors=[Work], env=script, clock=clock) as runtime:
        instance = await runtime.workflows.create(Work)
        await clock.advance("1 minute")
        await instance.pause()
        await instance.resume()
        await clock.advance("10 minutes")
        assert script.done == ["long begins", "long ends", "short"]
        assert "workflow_paused" not in await events_of(instance)


async def test_several_attempts_under_way_all_end_before_the_pause(clock: VirtualClock) -> None:
    done: list[str] = []

    class Several(z0.Workflow):
        async def run(self, event: z0.Event[None], step: z0.Step) -> None:
            async def work(name: str, span: str) -> None:
                await self.clock.sleep(span)
                done.append(name)

            await asyncio.gather(
                step.do("a", lambda: work("a", "1 minute")),
                step.do("b", lambda: work("b", "9 minutes")),
                step.sleep("c", "3 minutes"),
            )
            done.append("end")

    async with temporary_runtime(memory=True, actors=[Several], clock=clock) as runtime:
        instance = await runtime.workflows.create(Several)
        await clock.advance("10 seconds")
        await instance.pause()
        await clock.advance("5 minutes")
        assert (await end_of(instance), done) == ("waiting_for_pause", ["a"])
        await clock.advance("1 hour")
        assert (await end_of(instance), done) == ("paused", ["a", "b"])
        await instance.resume()
        await clock.advance("2 minutes")
        assert (await end_of(instance), done) == ("waiting", ["a", "b"])
        await clock.advance("1 minute")
        assert (await end_of(instance), done) == ("complete", ["a", "b", "end"])


async def test_a_sleep_is_as_much_longer_as_the_pause_took(clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, actors=[Work], env=Script(), clock=clock) as runtime:
        instance = await runtime.workflows.create(Work)
        await clock.advance("6 minutes")
        before = (await instance.status()).wake_at
        assert before is not None
        await instance.pause()
        assert (await instance.status()).wake_at is None
        await clock.advance("3 days")
        assert await end_of(instance) == "paused"
        await instance.resume()
        assert (await instance.status()).wake_at == before + timedelta(days=3)
        await clock.advance("8 hours")
        assert (await instance.status()).waiting_for[0].startswith("wait:answer#1")


async def test_an_event_that_comes_in_a_pause_is_taken_after_it_and_a_wait_does_not_time_out_in_it(
    clock: VirtualClock,
) -> None:
    async with temporary_runtime(memory=True, actors=[Work], env=Script(), clock=clock) as runtime:
        first = await runtime.workflows.create(Work)
        second = await runtime.workflows.create(Work)
        await clock.advance("9 hours")
        for instance in (first, second):
            await instance.pause()
        await clock.advance("10 days")
        await first.send_event("answer", 42)
        await clock.settle()
        assert await end_of(first) == "paused"
        for instance in (first, second):
            await instance.resume()
        await clock.settle()
        assert await first.result() == "got 42"
        assert await end_of(second) == "waiting"
        await clock.advance("1 day")
        assert await second.result() == "got nothing"


async def test_a_pause_interrupts_a_backoff_and_resuming_goes_on_with_the_rest_of_it(clock: VirtualClock) -> None:
    script = Script()
    script.failing = 1
    async with temporary_runtime(memory=True, actors=[Work], env=script, clock=clock) as runtime:
        instance = await runtime.workflows.create(Work)
        await clock.advance("35 minutes")
        await instance.pause()
        assert await end_of(instance) == "paused"
        await clock.advance("5 hours")
        await instance.resume()
        await clock.advance("29 minutes")
        assert script.done == ["long begins"]
        await clock.advance("1 minute")
        assert script.done == ["long begins", "long begins"]
        assert (await instance.status()).attempt == 2


async def test_a_crash_while_a_pause_waits_finds_the_instance_paused(clock: VirtualClock) -> None:
    script = Script()
    async with temporary_runtime(memory=True, actors=[Work], env=script, clock=clock) as runtime:
        instance = await runtime.workflows.create(Work, id="one")
        await clock.advance("1 minute")
        await instance.pause()
        await crash(runtime)
        async with z0.Runtime(runtime.node.path, actors=[Work], env=script, clock=clock) as second:
            await clock.advance("1 day")
            again = second.workflows.get(Work, "one")
            assert await end_of(again) == "paused"
            assert script.done == ["long begins"]
            await again.resume()
            await clock.advance("10 minutes")
            assert script.done == ["long begins", "long begins", "long ends", "short"]


async def test_a_paused_instance_may_be_terminated_and_finished_ones_take_no_commands(clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, actors=[Work], env=Script(), clock=clock) as runtime:
        instance = await runtime.workflows.create(Work)
        await clock.advance("10 minutes")
        await instance.pause()
        await instance.terminate()
        assert await end_of(instance) == "terminated"
        for command in (instance.pause, instance.resume, instance.terminate, instance.retry, instance.rollback):
            with pytest.raises(z0.WrongStatus):
                await command()
        for command in (instance.pause, instance.resume, instance.terminate, instance.restart, instance.rollback):
            missing = runtime.workflows.get(Work, "nobody")
            with pytest.raises(z0.InstanceNotFound):
                await getattr(missing, command.__name__)()


async def test_a_nested_sleep_is_no_work_that_a_pause_waits_for(clock: VirtualClock) -> None:
    class Nested(z0.Workflow):
        async def run(self, event: z0.Event[None], step: z0.Step) -> str:
            async def outer(context: z0.StepContext) -> str:
                await context.sleep("settle", "1 day")
                return "settled"

            return await step.do("outer", outer)

    async with temporary_runtime(memory=True, actors=[Nested], clock=clock) as runtime:
        instance = await runtime.workflows.create(Nested)
        await clock.advance("1 hour")
        await instance.pause()
        assert await end_of(instance) == "paused"
        await clock.advance("2 days")
        await instance.resume()
        await clock.advance("22 hours")
        assert await end_of(instance) == "waiting"
        await clock.advance("1 hour")
        assert await instance.result() == "settled"


class Paused(z0.Workflow):
    retries = z0.Retries(limit=0)

    async def run(self, event: z0.Event[None], step: z0.Step) -> str:
        account = self.get(Account, "a")
        await step.do("one", lambda: account.move(1))
        await step.sleep("rest", "2 days")
        await step.do("two", lambda: account.move(2))
        got = await step.wait_for_event("answer", type="answer", timeout="9 days")
        await step.do("three", lambda: account.move(3))
        return str(got.payload)


@pytest.mark.proof
async def test_pausing_and_resuming_that_is_cut_off_at_any_commit_comes_to_the_same_end(proof: Proof) -> None:
    async def drive(runtime: z0.Runtime, clock: VirtualClock) -> None:
        await said(runtime.workflows.create(Paused, id="one"))
        instance = runtime.workflows.get(Paused, "one")
        await clock.advance("1 day")
        await said(instance.pause())
        await clock.advance("3 days")
        await said(instance.resume())
        await clock.advance("3 days")
        await said(instance.pause())
        await said(instance.send_event("answer", "yes", id="answer"))
        await said(instance.resume())

    async def check(runtime: z0.Runtime, clock: VirtualClock) -> None:
        instance = runtime.workflows.get(Paused, "one")
        assert await outcome(instance) == "yes"
        assert await amounts(runtime, "a") == [1, 2, 3]

    assert await crash_at_every_commit(proof, [Paused, Account], drive, check) > 5

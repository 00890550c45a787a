"""Beginning anew: restart from the start or from a step, retry, and fork into another instance."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import z0
from tests.proofs import Proof
from tests.workflow_world import Account, amounts, crash_at_every_commit, end_of, outcome, said
from z0.testing import VirtualClock, crash, temporary_runtime


class Script:
    def __init__(self) -> None:
        self.done: list[str] = []
        self.failing: set[str] = set()
        self.suffix = ""


class Steps(z0.Workflow):
    """Three steps, of which one waits for an event inside a branch, and one has a step of its own."""

    env: Script
    retries = z0.Retries(limit=0)

    def act(self, name: str) -> str:
        self.env.done.append(name)
        if name in self.env.failing:
            raise ValueError(name)
        return name + self.env.suffix

    async def run(self, event: z0.Event[str], step: z0.Step) -> list[Any]:
        a = await step.do("a", lambda: self.act("a"))

        async def nested(context: z0.StepContext) -> str:
            inner = await context.do("inner", lambda: self.act("inner"))
            return inner + await context.do("other", lambda: self.act("other"))

        b = await step.do("b", nested)
        got = await step.wait_for_event("answer", type="answer", timeout=None)
        loop = [await step.do("loop", lambda: self.act("loop")) for _ in range(2)]
        at = step.random()
        return [event.payload, a, b, got.payload, loop, at]


async def finished(runtime: z0.Runtime, clock: VirtualClock) -> z0.Instance[Steps]:
    instance = await runtime.workflows.create(Steps, "p", id="one")
    await instance.send_event("answer", 1, id="first")
    await clock.settle()
    assert await end_of(instance) == "complete"
    return instance


async def test_restarting_runs_all_steps_again_with_the_events_that_had_come(clock: VirtualClock) -> None:
    script = Script()
    async with temporary_runtime(memory=True, actors=[Steps], env=script, clock=clock) as runtime:
        instance = await finished(runtime, clock)
        script.suffix = "!"
        await instance.restart()
        await clock.settle()
        assert (await instance.result())[:5] == ["p", "a!", "inner!other!", 1, ["loop!", "loop!"]]
        assert script.done == ["a", "inner", "other", "loop", "loop"] * 2
        assert (await instance.status()).run == 2


@pytest.mark.parametrize(
    ("step", "again", "result"),
    [
        ("a", ["a", "inner", "other", "loop", "loop"], ["a!", "inner!other!", ["loop!", "loop!"]]),
        ("b", ["inner", "other", "loop", "loop"], ["a", "inner!other!", ["loop!", "loop!"]]),
        ("do:b#1/do:other#1", ["other", "loop", "loop"], ["a", "innerother!", ["loop!", "loop!"]]),
        ("answer", ["loop", "loop"], ["a", "innerother", ["loop!", "loop!"]]),
        ("loop", ["loop", "loop"], ["a", "innerother", ["loop!", "loop!"]]),
        ("loop#2", ["loop"], ["a", "innerother", ["loop", "loop!"]]),
        ("do:loop#2", ["loop"], ["a", "innerother", ["loop", "loop!"]]),
    ],
)
@pytest.mark.parametrize("how", ["restart", "fork"])
async def test_restarting_or_forking_from_a_step_keeps_what_was_before_it(
    clock: VirtualClock, step: str, again: list[str], result: list[Any], how: str
) -> None:
    script = Script()
    async with temporary_runtime(memory=True, actors=[Steps], env=script, clock=clock) as runtime:
        instance = await finished(runtime, clock)
        script.done, script.suffix = [], "!"
        if how == "restart":
            await instance.restart(step)
        else:
            instance = await instance.fork(step, "two")
            if step in ("a", "b", "answer", "do:b#1/do:other#1"):
                await instance.send_event("answer", 1)
        await clock.settle()
        assert script.done == again
        outcome = await instance.result()
        assert [outcome[1], outcome[2], outcome[4]] == result
        assert outcome[3] == 1
        await runtime.evict(Steps, instance.id)
        assert await instance.result() == outcome


async def test_a_step_that_was_never_taken_cannot_be_restarted_from(clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, actors=[Steps], env=Script(), clock=clock) as runtime:
        instance = await finished(runtime, clock)
        for step in ("never", "loop#3", "do:loop", "loop#"):
            with pytest.raises(z0.StepNotFound, match="has no step"):
                await instance.restart(step)
            with pytest.raises(z0.StepNotFound):
                await instance.fork(step, "two")
        with pytest.raises(z0.InstanceExists):
            await instance.fork("a", "one")
        with pytest.raises(z0.InvalidName):
            await instance.fork("a", "no/id")
        assert await end_of(instance) == "complete"


async def test_a_failed_run_is_forked_from_its_failing_step_under_new_code(clock: VirtualClock) -> None:
    script = Script()
    script.failing = {"other"}
    async with temporary_runtime(memory=True, actors=[Steps], env=script, clock=clock) as runtime:
        instance = await runtime.workflows.create(Steps, "p")
        await clock.settle()
        failed = (await instance.status()).step
        assert failed == "do:b#1"
        script.failing.clear()
        fork = await instance.fork(failed, "fixed")
        await fork.send_event("answer", 2)
        await clock.settle()
        assert (await fork.result())[3] == 2
        assert script.done.count("a") == 1
        assert await end_of(instance) == "errored"


async def test_retrying_goes_on_at_the_failing_step_and_keeps_the_run(clock: VirtualClock) -> None:
    script = Script()
    script.failing = {"other"}
    async with temporary_runtime(memory=True, actors=[Steps], env=script, clock=clock) as runtime:
        instance = await runtime.workflows.create(Steps, "p", id="one")
        await clock.settle()
        assert await end_of(instance) == "errored"
        script.failing.clear()
        await instance.retry()
        await instance.send_event("answer", 2)
        await clock.settle()
        assert (await instance.result())[:3] == ["p", "a", "innerother"]
        assert script.done[:4] == ["a", "inner", "other", "other"]
        assert (await instance.status()).run == 1
        with pytest.raises(z0.WrongStatus):
            await instance.retry()


async def test_an_instance_under_way_is_restarted_after_what_it_does_has_been_cleaned_up(clock: VirtualClock) -> None:
    done: list[str] = []

    class Busy(z0.Workflow):
        async def run(self, event: z0.Event[None], step: z0.Step) -> str:
            number = len([each for each in done if each == "body"])
            done.append("body")

            async def work() -> str:
                try:
                    await self.clock.sleep("8 minutes")
                    return f"worked {number}"
                except asyncio.CancelledError:
                    await self.clock.sleep("1 minute")
                    done.append("cleaned up")
                    raise

            return await step.do("work", work)

    async with temporary_runtime(memory=True, actors=[Busy], clock=clock) as runtime:
        instance = await runtime.workflows.create(Busy)
        await clock.advance("5 minutes")
        await instance.restart()
        await clock.settle()
        assert done == ["body"]
        await clock.advance("1 minute")
        assert done == ["body", "cleaned up", "body"]
        await clock.advance("2 hours")
        assert await instance.result() == "worked 1"


async def test_a_terminated_body_may_clean_up_but_takes_no_more_steps(clock: VirtualClock) -> None:
    done: list[str] = []

    class Cleaning(z0.Workflow):
        async def run(self, event: z0.Event[None], step: z0.Step) -> None:
            try:
                await step.sleep("long", "1 day")
            finally:
                done.append("cleaned up")
                await step.do("more", lambda: done.append("more"))

    async with temporary_runtime(memory=True, actors=[Cleaning], clock=clock) as runtime:
        instance = await runtime.workflows.create(Cleaning)
        await clock.settle()
        await instance.terminate()
        await clock.settle()
        assert done == ["cleaned up"]
        assert await end_of(instance) == "terminated"


async def test_what_ends_after_its_instance_was_terminated_or_restarted_leaves_no_result(clock: VirtualClock) -> None:
    class Deaf(z0.Workflow):
        async def run(self, event: z0.Event[None], step: z0.Step) -> str:
            async def work() -> str:
                try:
                    await self.clock.sleep("1 hour")
                except asyncio.CancelledError:
                    await self.clock.sleep("1 minute")
                return "late"

            return await step.do("work", work)

    async with temporary_runtime(memory=True, actors=[Deaf], clock=clock) as runtime:
        instance = await runtime.workflows.create(Deaf)
        await clock.advance("1 second")
        await instance.terminate()
        await clock.advance("10 minutes")
        assert [entry.event for entry in await instance.journal()][-1] == "workflow_terminated"


class Restarted(z0.Workflow):
    retries = z0.Retries(limit=0)

    async def run(self, event: z0.Event[None], step: z0.Step) -> int:
        account = self.get(Account, "a")
        await step.do("one", lambda: account.move(1))
        await step.do("own", lambda: self.ledger.append("own", amount=1))
        await step.do("two", lambda: account.move(2))
        got = await step.wait_for_event("answer", type="answer", timeout=None)
        await step.do("three", lambda: account.move(3))
        return int(got.payload)


async def test_what_a_restarted_run_sends_counts_anew_and_what_a_retried_one_sends_does_not(
    clock: VirtualClock,
) -> None:
    async with temporary_runtime(memory=True, actors=[Restarted, Account], clock=clock) as runtime:
        instance = await runtime.workflows.create(Restarted)
        await instance.send_event("answer", 7)
        await clock.settle()
        await instance.restart("own")
        await clock.settle()
        assert await instance.result() == 7
        assert await amounts(runtime, "a") == [1, 2, 3, 2, 3]
        assert await instance._stub.count_facts() == 2


@pytest.mark.proof
async def test_a_restart_and_a_fork_that_are_cut_off_at_any_commit_come_to_the_same_end(proof: Proof) -> None:
    async def drive(runtime: z0.Runtime, clock: VirtualClock) -> None:
        await said(runtime.workflows.create(Restarted, id="one"))
        instance = runtime.workflows.get(Restarted, "one")
        await said(instance.send_event("answer", 7, id="answer"))
        await clock.advance("1 day")
        if (await instance.status()).run == 1:
            await instance.restart("two")
        await clock.settle()
        await said(instance.fork("two", "two"))
        await said(runtime.workflows.get(Restarted, "two").send_event("answer", 8, id="answer"))

    async def check(runtime: z0.Runtime, clock: VirtualClock) -> None:
        assert await outcome(runtime.workflows.get(Restarted, "one")) == 7
        assert await outcome(runtime.workflows.get(Restarted, "two")) == 8
        assert sorted(map(int, map(str, await amounts(runtime, "a")))) == [1, 2, 2, 2, 3, 3, 3]

    assert await crash_at_every_commit(proof, [Restarted, Account], drive, check) > 4


async def test_a_restart_survives_a_crash_that_follows_at_once(clock: VirtualClock) -> None:
    script = Script()
    async with temporary_runtime(memory=True, actors=[Steps], env=script, clock=clock) as runtime:
        instance = await finished(runtime, clock)
        script.suffix = "!"
        await instance.restart("loop#2")
        await crash(runtime)
        async with z0.Runtime(runtime.node.path, actors=[Steps], env=script, clock=clock) as second:
            await clock.advance("1 minute")
            assert (await second.workflows.get(Steps, "one").result())[4] == ["loop", "loop!"]


async def test_a_fork_has_the_results_of_steps_and_not_the_facts_of_the_ledger(clock: VirtualClock) -> None:
    class Books(z0.Workflow):
        async def run(self, event: z0.Event[None], step: z0.Step) -> list[int]:
            seq = await step.do("fact", lambda: self.ledger.append("charge", amount=7).seq)
            return [seq, await step.do("count", lambda: len(self.ledger.query()))]

    async with temporary_runtime(memory=True, actors=[Books], clock=clock) as runtime:
        instance = await runtime.workflows.create(Books, id="one")
        assert await instance.result() == [1, 1]
        assert await (await instance.fork("count", "two")).result() == [1, 0]

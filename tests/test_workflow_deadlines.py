"""After an outage what was due ends in the order in which it was due, and the body reacts to each before the next."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest

import z0
from tests.proofs import Proof
from tests.scripted_workflow import Body, running
from tests.workflow_world import crash_at_every_commit, outcome
from z0.testing import VirtualClock, crash


async def fails_once(context: z0.StepContext) -> None:
    if context.attempt == 1:
        raise ValueError("no")


async def outage(how: str, data: Path, clock: VirtualClock, body: Body, span: str = "5 hours") -> Any:
    """What an instance comes to after some hours in which no process, or no clock, went on."""
    async with running(data, clock, body) as (runtime, instance):
        if how == "the wall clock jumps":
            clock.jump(span)
            await clock.advance("2 seconds")
            return (await instance.status()).output
        if how == "a crash":
            await crash(runtime)
    await clock.advance(span)
    async with running(data, clock, body) as (_, instance):
        await clock.advance("2 seconds")
        return (await instance.status()).output


@pytest.mark.parametrize("how", ["a crash", "a clean stop", "the wall clock jumps"])
@pytest.mark.parametrize("kind", ["sleep", "wait", "backoff"])
@pytest.mark.parametrize("other", ["sleep", "wait", "backoff"])
async def test_the_first_to_be_due_wins_also_after_an_outage(
    other: str, kind: str, how: str, data: Path, clock: VirtualClock
) -> None:
    ran: list[str] = []

    async def body(step: z0.Step) -> str:
        async def branch(kind: str, span: str) -> str:
            if kind == "sleep":
                await step.sleep(kind, span)
            elif kind == "backoff":
                await step.do(kind, fails_once, retries=z0.Retries(delay=span))
            else:
                with pytest.raises(z0.EventTimeout):
                    await step.wait_for_event(kind, type="never", timeout=span)
            await step.do("behind", lambda: ran.append(span))
            return span

        won = await step.race([branch(kind, "3 hours"), branch(other, "1 hour"), branch(kind, "2 hours")])
        return str(won)

    assert await outage(how, data, clock, body) == "1 hour"
    assert ran == ["1 hour"]


async def test_what_was_due_ends_one_after_the_other_and_holds_up_nothing(data: Path, clock: VirtualClock) -> None:
    ended: list[int] = []

    async def body(step: z0.Step) -> None:
        async def sleeps(hours: int) -> None:
            await step.sleep(f"{hours} hours", f"{hours} hours")
            ended.append(hours)

        await asyncio.gather(*(sleeps(hours) for hours in (4, 1, 3, 2, 3)))

    await outage("a crash", data, clock, body)
    assert ended == [1, 2, 3, 3, 4]


async def test_a_sleep_that_is_over_waits_only_seconds_for_a_step_that_takes_long(
    data: Path, clock: VirtualClock
) -> None:
    async def body(step: z0.Step) -> list[float]:
        async def sleeps(span: str) -> float:
            await step.sleep(span, span)
            return clock.monotonic()

        async def works() -> float:
            await step.do("long", lambda: clock.sleep("9 minutes"))
            return clock.monotonic()

        return list(await asyncio.gather(works(), sleeps("1 hour"), sleeps("2 hours")))

    async with running(data, clock, body) as (runtime, _):
        await crash(runtime)
    await clock.advance("5 hours")
    began = clock.monotonic()
    async with running(data, clock, body) as (_, instance):
        await clock.advance("1 hour")
        works, one, two = await instance.result("1 second")
    assert works - began == 9 * 60
    assert one - began <= 10
    assert one <= two <= began + 20


async def test_an_event_that_comes_after_the_time_of_a_wait_is_not_for_it(data: Path, clock: VirtualClock) -> None:
    async def body(step: z0.Step) -> list[Any]:
        try:
            first = (await step.wait_for_event("first", type="paid", timeout="1 hour")).payload
        except z0.EventTimeout:
            first = "overdue"
        return [first, (await step.wait_for_event("second", type="paid", timeout="1 hour")).payload]

    async with running(data, clock, body):
        pass
    await clock.advance("6 hours")
    async with running(data, clock, body) as (_, instance):
        assert await instance.send_event("paid", "late")
        assert await instance.result("1 second") == ["overdue", "late"]


async def test_an_event_that_comes_in_a_pause_is_in_time_when_the_pause_began_in_time(
    data: Path, clock: VirtualClock
) -> None:
    async def body(step: z0.Step) -> Any:
        return (await step.wait_for_event("it", type="paid", timeout="1 hour")).payload

    async with running(data, clock, body) as (_, instance):
        await instance.pause()
        await clock.advance("6 hours")
        await instance.send_event("paid", "in the pause")
        await instance.resume()
        assert await instance.result("1 second") == "in the pause"


class Race(z0.Workflow):
    async def run(self, event: z0.Event[Any], step: z0.Step) -> list[str]:
        return [await self.fastest(step), await self.fastest(step)]

    async def fastest(self, step: z0.Step) -> str:
        async def branch(span: str) -> str:
            await step.sleep("first", span)
            return await step.do("behind", lambda: span)

        return str(await step.race([branch("3 hours"), branch("1 hour"), branch("2 hours")]))


@pytest.mark.proof
async def test_the_first_to_be_due_wins_wherever_a_crash_comes_after_an_outage(proof: Proof) -> None:
    async def drive(runtime: z0.Runtime, clock: VirtualClock) -> None:
        with contextlib.suppress(z0.InstanceExists):
            await runtime.workflows.create(Race, id="it")
        await clock.settle()
        clock.jump("5 hours")
        await clock.settle()

    async def check(runtime: z0.Runtime, _: VirtualClock) -> None:
        assert await outcome(runtime.workflows.get(Race, "it")) == ["1 hour", "1 hour"]

    assert await crash_at_every_commit(proof, [Race], drive, check) > 3


@pytest.mark.parametrize("kind", ["sleeps", "steps before and behind", "backoffs"])
async def test_what_was_due_close_together_ends_close_together(kind: str, data: Path, clock: VirtualClock) -> None:
    async def body(step: z0.Step) -> None:
        async def branch(number: int) -> None:
            span = 0.2 + number / 1_000

            async def call(context: z0.StepContext) -> None:
                if context.attempt == 1 and kind == "backoffs":
                    raise ConnectionError
                await clock.sleep(2)

            if kind == "steps before and behind":
                await step.do(f"before {number}", lambda: None)
            if kind != "backoffs":
                await step.sleep(f"pause {number}", span)
            if kind != "sleeps":
                await step.do(f"call {number}", call, retries=z0.Retries(delay=span))

        await step.all([branch(number) for number in range(20)])

    async with running(data, clock, body) as (_, instance):
        clock.jump("1 second")  # an alarm that is late finds all of them due
        await clock.advance(0.1 if kind == "sleeps" else 2.1)
        assert (await instance.status()).status == "complete"

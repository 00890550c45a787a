"""What goes wrong in other engines, or their users complain of, does not here (docs/workflows_conformance.md)."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import z0
from tests.scripted_workflow import Scripted, running
from tests.workflow_world import Account, end_of
from z0.testing import VirtualClock, crash, temporary_runtime


class Counting(VirtualClock):
    """Knows which of its timers are still to come."""

    def alive(self) -> int:
        return sum(not timer.cancelled for timer in self._timers)


async def test_finished_steps_leave_no_timers_behind(data: Path) -> None:
    clock = Counting()

    async def work() -> None:
        await clock.sleep("1 second")

    async def body(step: z0.Step) -> None:
        for _ in range(100):
            await step.do("x", work, timeout="10 minutes")
        await step.wait_for_event("w", type="t", timeout=None)

    async with running(data, clock, body) as (_, instance):
        before = clock.alive()
        await clock.advance("102 seconds")
        assert await end_of(instance) == "waiting"
        assert len(await instance.steps()) == 101
        assert clock.alive() <= before


async def test_a_caught_non_retryable_error_is_not_run_again_and_holds_up_no_pause(
    data: Path, clock: VirtualClock
) -> None:
    ran: list[int] = []

    def refuse() -> None:
        ran.append(1)
        raise z0.NonRetryableError("refused")

    async def body(step: z0.Step) -> str:
        try:
            await step.do("x", refuse)
        except z0.NonRetryableError as error:
            await step.sleep("night", "8 hours")
            return str(error)
        return "no error"

    async with running(data, clock, body) as (_, instance):
        await instance.pause()
        assert await end_of(instance) == "paused"
    async with running(data, clock, body) as (_, instance):
        await instance.resume()
        await clock.advance("9 hours")
        assert await instance.result("1 second") == "refused"
    assert ran == [1]


async def test_an_event_that_was_taken_is_not_given_again_after_a_crash(data: Path, clock: VirtualClock) -> None:
    async def body(step: z0.Step) -> list[int]:
        first = await step.wait_for_event("first", type="a")
        await step.sleep("night", "8 hours")
        second = await step.wait_for_event("second", type="a")
        return [first.payload, second.payload]

    async with running(data, clock, body) as (runtime, instance):
        await instance.send_event("a", 1)
        await clock.settle()
        await crash(runtime)
    async with running(data, clock, body) as (_, instance):
        await clock.advance("9 hours")
        assert (await instance.status()).waiting_for[0].startswith("wait:second#1")
        await instance.send_event("a", 2)
        assert await instance.result("1 second") == [1, 2]


async def test_events_that_nobody_took_are_there_after_a_restart_from_a_step(data: Path, clock: VirtualClock) -> None:
    async def body(step: z0.Step) -> list[Any]:
        await step.do("x", lambda: 1)
        taken = [await step.wait_for_event("w", type="a") for _ in range(2)]
        await step.sleep("night", "8 hours")
        return [event.payload for event in (*taken, await step.wait_for_event("late", type="a"))]

    async with running(data, clock, body) as (_, instance):
        for number in range(3):
            await instance.send_event("a", number)
        await clock.settle()
        await instance.restart("x")
        await clock.advance("9 hours")
        assert await instance.result("1 second") == [0, 1, 2]


async def test_an_output_comes_back_as_it_was(data: Path, clock: VirtualClock) -> None:
    output = {"when": datetime(2026, 1, 1, tzinfo=UTC), "raw": b"\x00\xff", 7: ({1, 2}, Decimal("1.10"))}

    async def body(step: z0.Step) -> Any:
        return output

    async with running(data, clock, body) as (_, instance):
        assert await instance.result("1 second") == output
    async with running(data, clock, body) as (_, instance):
        again = await instance.result("1 second")
        assert again == output
        assert type(again[7]) is tuple


async def test_an_instance_that_does_not_fit_its_code_can_still_be_ended(data: Path, clock: VirtualClock) -> None:
    class Paused(Scripted):
        namespace = "Scripted"
        on_divergence = "pause"

    async def first(step: z0.Step) -> None:
        await step.do("a", lambda: 1)
        await step.sleep("-", "1 day")

    async def second(step: z0.Step) -> None:
        await step.do("b", lambda: 1)

    async with running(data, clock, first, Paused):
        pass
    async with running(data, clock, second, Paused) as (_, instance):
        await clock.advance("2 days")
        status = await instance.status()
        assert status.status == "paused"
        assert "do:b#1" in (status.reason or "")
        await instance.terminate()
        assert await end_of(instance) == "terminated"


async def test_what_a_step_does_in_a_thread_is_still_of_that_step(clock: VirtualClock) -> None:
    class Threaded(z0.Workflow):
        async def run(self, event: z0.Event[None], step: z0.Step) -> str:
            account = self.get(Account, "a")

            async def work() -> str:
                loop = asyncio.get_running_loop()

                def inside() -> str:
                    sent = asyncio.run_coroutine_threadsafe(send(), loop)
                    return str(sent.result(10).idempotency_key)

                async def send() -> z0.Fact:
                    return await account.append("x", amount=1)

                await asyncio.to_thread(sum, range(1_000))
                before = (await account.append("before", amount=1)).idempotency_key
                return f"{before} {await asyncio.to_thread(inside)}"

            return str(await step.do("threads", work))

    async with temporary_runtime(memory=True, clock=clock, actors=[Threaded, Account]) as runtime:
        instance = await runtime.workflows.create(Threaded, id="one")
        keys = (await instance.result("10 seconds")).split()
    assert keys == [f"Threaded/one/{clock.now_us()}/1/do:threads#1/{n}" for n in (1, 2)]


async def test_a_child_that_failed_fails_the_same_on_every_replay(clock: VirtualClock) -> None:
    class Failing(z0.Workflow):
        async def run(self, event: z0.Event[None], step: z0.Step) -> None:
            raise KeyError("no such bill")

    seen: list[str] = []

    class Catching(z0.Workflow):
        async def run(self, event: z0.Event[None], step: z0.Step) -> str:
            try:
                await step.workflow(Failing)
            except KeyError as error:
                seen.append(repr(error))
                await step.sleep("night", "8 hours")
                return "caught"
            return "it succeeded"

    async with temporary_runtime(memory=True, clock=clock, actors=[Failing, Catching]) as runtime:
        instance = await runtime.workflows.create(Catching)
        await clock.advance("1 hour")
        assert not runtime.node.hosts
        await clock.advance("8 hours")
        assert await instance.result("1 second") == "caught"
        assert await runtime.workflows.count(Failing) == 1
    assert set(seen) == {"KeyError('no such bill')"}
    assert len(seen) > 1

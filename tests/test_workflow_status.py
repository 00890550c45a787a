"""What a status and a list of steps say: attempts, errors that are kept, and names by which each step is found."""

from __future__ import annotations

from typing import Any

import pytest

import z0
from z0.testing import VirtualClock, temporary_runtime


class Slow(z0.Workflow):
    """Its second attempt takes five minutes; each fails."""

    retries = z0.Retries(limit=2, delay="1 minute", backoff="constant")

    async def run(self, event: z0.Event[None], step: z0.Step) -> None:
        await step.do("x", self.fails)

    async def fails(self, context: z0.StepContext) -> None:
        if context.attempt == 2:
            await self.clock.sleep("5 minutes")
        raise ValueError("why it failed")


async def test_the_status_says_which_attempt_is_waited_for_runs_or_failed_last(clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, clock=clock, actors=[Slow]) as runtime:
        instance = await runtime.workflows.create(Slow)
        await clock.settle()
        waited_for = await instance.status()
        assert (waited_for.status, waited_for.attempt) == ("waiting", 2)
        await clock.advance("2 minutes")
        under_way = await instance.status()
        assert (under_way.status, under_way.attempt, under_way.waiting_for) == ("running", 2, [])
        await clock.advance("1 hour")
        failed = await instance.status()
        assert (failed.status, failed.step, failed.attempt) == ("errored", "do:x#1", 3)


async def test_the_status_says_nothing_of_attempts_of_what_nobody_tries_any_more(clock: VirtualClock) -> None:
    class Racing(Slow):
        async def run(self, event: z0.Event[None], step: z0.Step) -> None:
            undo = z0.Rollback(self.undo, timeout=None)
            await step.race([step.do("x", self.fails, rollback=undo), step.sleep("short", "2 minutes")])
            await step.sleep("long", "1 day")

        async def undo(self) -> None:
            await self.clock.sleep("1 hour")

    async with temporary_runtime(memory=True, clock=clock, actors=[Racing]) as runtime:
        instance = await runtime.workflows.create(Racing)
        await clock.advance("1 minute")
        assert (await instance.status()).attempt == 2
        await clock.advance("10 minutes")
        assert (await instance.status()).attempt is None
        other = await runtime.workflows.create(Racing)
        await clock.advance("1 minute")
        await other.terminate(rollback=True)
        await clock.settle()
        status = await other.status()
        assert (status.status, status.attempt) == ("running", None)
        await clock.advance("2 hours")
        status = await other.status()
        assert (status.status, status.attempt) == ("terminated", None)


async def test_an_abandoned_instance_keeps_the_error_that_it_failed_with(clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, clock=clock, actors=[Slow]) as runtime:
        instance = await runtime.workflows.create(Slow)
        await clock.advance("1 hour")
        failed = await instance.status()
        await instance.abandon("ticket 4711")
        status = await instance.status()
        assert (status.status, status.reason) == ("abandoned", "ticket 4711")
        assert failed.error is not None
        assert (status.error, status.step, status.attempt) == (failed.error, "do:x#1", 3)
        await instance.restart()
        await clock.settle()
        again = await instance.status()
        assert (again.status, again.error, again.step) == ("waiting", None, None)


@pytest.mark.parametrize("reason", [b"x", 5, None])
async def test_an_instance_is_abandoned_with_a_reason_in_words_only(clock: VirtualClock, reason: Any) -> None:
    async with temporary_runtime(memory=True, clock=clock, actors=[Slow]) as runtime:
        instance = await runtime.workflows.create(Slow)
        await clock.advance("1 hour")
        with pytest.raises(TypeError, match="say why in a string"):
            await instance.abandon(reason)
        assert (await instance.status()).status == "errored"


class Names(z0.Workflow):
    """Takes steps in each other and in branches, some of which have the same names."""

    retries = z0.Retries(limit=0)

    async def run(self, event: z0.Event[None], step: z0.Step) -> None:
        step.now()
        await step.do("a", lambda: 1)
        await step.do("outer", self.outer)
        await step.all([self.branch(step, "0"), self.branch(step, "1")])
        await step.sleep("a", "1 second")
        await step.do("a", lambda: 2)
        await step.do("now", lambda: 3)
        await step.do("outer/inner", lambda: 4)
        await step.race([step.do("quick", lambda: 1), step.sleep("slow", "1 day")])

    async def outer(self, context: z0.StepContext) -> None:
        await context.do("inner", lambda: self.env.append("inner"))
        self.env.append("outer")

    async def branch(self, step: z0.Step, number: str) -> None:
        await step.do("x", lambda: self.env.append(f"x{number}"))


async def test_each_step_is_listed_under_another_name_by_which_it_is_found(clock: VirtualClock) -> None:
    done: list[str] = []
    async with temporary_runtime(memory=True, clock=clock, actors=[Names], env=done) as runtime:
        instance = await runtime.workflows.create(Names)
        await clock.advance("1 minute")
        await instance.result("1 second")
        steps = await instance.steps()
        assert [each.name for each in steps] == [
            "value:now#1", "a", "outer", "outer/inner", "all/0/x", "all/1/x", "sleep:a#1", "a#2", "now",
            "do:outer%2Finner#1", "race", "race/0/quick", "race/1/slow",
        ]  # fmt: skip
        for each in steps:
            assert (await instance.step(each.name)).key == each.key
            assert (await instance.step(each.key)).name == each.name
        with pytest.raises(z0.StepNotFound) as caught:
            await instance.restart(from_step="nope")
        listed = [each.name for each in steps if each.kind != "value"]
        assert all(repr(name) in str(caught.value) for name in listed)
        for name in listed:
            await instance.fork(name, f"from-{listed.index(name)}")
            await instance.restart(from_step=name)
            await clock.advance("1 minute")
            await instance.result("1 second")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("outer/inner", ["inner", "outer", "x0", "x1"]),
        ("outer#1", ["inner", "outer", "x0", "x1"]),
        ("all/1/x", ["x1"]),
        ("all/0/x", ["x0", "x1"]),
        ("a#2", []),
        ("race", []),
    ],
)
async def test_a_restart_from_the_name_of_a_step_inside_others_does_again_what_is_behind_it(
    clock: VirtualClock, name: str, expected: list[str]
) -> None:
    done: list[str] = []
    async with temporary_runtime(memory=True, clock=clock, actors=[Names], env=done) as runtime:
        instance = await runtime.workflows.create(Names)
        await clock.advance("1 minute")
        done.clear()
        await instance.restart(from_step=name)
        await clock.advance("1 minute")
        await instance.result("1 second")
        assert sorted(done) == expected

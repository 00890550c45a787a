"""A retry goes back to the step that failed: what was begun because of the failure is forgotten, the rest is kept."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import z0
from tests.scripted_workflow import Body, Scripted, running
from tests.workflow_world import Account, amounts
from z0.testing import VirtualClock, crash
from z0.workflows.history import History
from z0.workflows.journal import Entry
from z0.workflows.retrying import begun_since


class Once(Scripted):
    namespace = "Scripted"
    retries = z0.Retries(limit=0)


class World:
    """Steps that say that they ran, and fail as long as they are told to."""

    def __init__(self, *fail: str) -> None:
        self.fail = set(fail)
        self.ran: list[str] = []

    def act(self, name: str) -> Callable[[], str]:
        def run() -> str:
            self.ran.append(name)
            if name in self.fail:
                raise ValueError(name)
            return name

        return run


async def retried(data: Path, clock: VirtualClock, body: Body, world: World, *, cut_off: bool = False) -> Any:
    """What the instance comes to when it has failed, and is retried when nothing fails any more."""
    async with running(data, clock, body, Once) as (runtime, instance):
        await clock.advance("1 hour")
        assert (await instance.status()).status == "errored"
        world.ran.clear()
        world.fail.clear()
        if cut_off:
            await crash(runtime)
    async with running(data, clock, body, Once) as (_, instance):
        await instance.retry()
        await clock.advance("1 hour")
        output = await instance.result("1 second")
    async with running(data, clock, body, Once) as (_, instance):
        assert await instance.result("1 second") == output
    return output


@pytest.mark.parametrize("cut_off", [False, True])
async def test_what_the_body_did_about_a_failure_is_forgotten_by_a_retry(
    cut_off: bool, data: Path, clock: VirtualClock
) -> None:
    world = World("charge")

    async def body(step: z0.Step) -> str:
        try:
            await step.do("charge", world.act("charge"))
        except ValueError as error:
            await step.do("notify", world.act("notify"))
            await step.alert("failed", {"why": str(error)})
            await step.sleep("a moment", "1 minute")
            step.now()
            with contextlib.suppress(ValueError):
                await step.race([step.do("one", world.act("one")), step.do("two", world.act("two"))])
            raise RuntimeError("wrapped") from error
        return await step.do("ship", world.act("ship"))

    assert await retried(data, clock, body, world, cut_off=cut_off) == "ship"
    assert world.ran == ["charge", "ship"]


async def test_what_was_forgotten_runs_again_when_the_body_comes_there_with_the_same_keys(
    data: Path, clock: VirtualClock
) -> None:
    fails = [True]

    async def body(step: z0.Step) -> str:
        try:
            await step.do("charge", lambda: 1 / 0 if fails else None)
        except ZeroDivisionError:
            await step.do("book", lambda: account.append("fee", amount=5))
            raise
        return "charged"

    async with z0.Runtime(data, clock=clock, actors=[Once, Account], env={"body": body}) as runtime:
        account = runtime.get(Account, "fees")
        instance = await runtime.workflows.create(Once, id="one")
        await clock.advance("1 minute")
        await instance.retry()
        await clock.advance("1 minute")
        assert (await instance.status()).status == "errored"
        fails.clear()
        await instance.retry()
        assert await instance.result("1 second") == "charged"
        assert await amounts(runtime, "fees") == [5]


async def test_what_ran_beside_the_step_that_failed_keeps_its_result(data: Path, clock: VirtualClock) -> None:
    world = World("charge")

    async def body(step: z0.Step) -> list[Any]:
        async def slow() -> str:
            await clock.sleep("1 second")
            return world.act("slow")()

        async def outer(context: z0.StepContext) -> str:
            await context.do("in", slow)
            return await context.do("after", world.act("after"))

        async def charges() -> str:
            await clock.sleep("500 ms")
            return world.act("charge")()

        found = await asyncio.gather(
            step.do("charge", charges), step.do("slow", slow), step.do("outer", outer), return_exceptions=True
        )
        for each in found:
            if isinstance(each, BaseException):
                await step.do("notify", world.act("notify"))
                raise each
        return list(found)

    assert await retried(data, clock, body, world) == ["charge", "slow", "after"]
    assert world.ran == ["charge"]


async def test_what_is_gathered_with_a_step_that_fails_at_once_keeps_its_result(
    data: Path, clock: VirtualClock
) -> None:
    world = World("b")

    async def body(step: z0.Step) -> list[Any]:
        return list(await asyncio.gather(*(step.do(name, world.act(name)) for name in "abc")))

    assert await retried(data, clock, body, world) == ["a", "b", "c"]
    assert world.ran == ["b"]


@pytest.mark.parametrize("tolerate", [0, 1])
async def test_branches_are_all_waited_for_again_when_one_that_failed_them_is_retried(
    tolerate: int, data: Path, clock: VirtualClock
) -> None:
    world = World("b", "c") if tolerate else World("b")

    async def body(step: z0.Step) -> list[Any]:
        async def sleeps() -> str:
            await step.sleep("s", "1 minute")
            return "slept"

        async def inner(context: z0.StepContext) -> str:
            await context.do("in", world.act("in"))
            await context.sleep("2 minutes")
            return "inner"

        found = await step.all(
            [
                step.do("a", world.act("a")),
                step.do("b", world.act("b")),
                step.do("c", world.act("c")),
                sleeps(),
                step.do("i", inner),
            ],
            tolerate=tolerate,
        )
        return [str(each) for each in found]

    found = await retried(data, clock, body, world)
    assert sorted(world.ran) == (["b", "c"] if tolerate else ["b"])
    assert found == ["a", "b", "c", "slept", "inner"]


async def test_branches_that_began_after_a_failure_that_is_tolerated_keep_their_results(
    data: Path, clock: VirtualClock
) -> None:
    world = World("a")

    async def body(step: z0.Step) -> Any:
        async def two(name: str) -> Any:
            await step.do(f"{name}1", world.act(f"{name}1"))
            return await step.do(f"{name}2", world.act(f"{name}2"))

        found = await step.all([step.do("a", world.act("a")), two("b"), two("c")], concurrency=1, tolerate=1)
        if isinstance(found[0], Exception):
            await step.do("notify", world.act("notify"))
            raise found[0]
        return found

    assert await retried(data, clock, body, world) == ["a", "b2", "c2"]
    assert world.ran == ["a"]


class Helper(z0.Workflow):
    async def run(self, event: z0.Event[Any], step: z0.Step) -> str:
        await step.sleep("1 minute")
        return self.id


async def test_a_child_that_was_begun_because_of_a_failure_is_another_one_after_a_retry(
    data: Path, clock: VirtualClock
) -> None:
    fails = [True]

    async def body(step: z0.Step) -> str:
        try:
            await step.do("charge", lambda: 1 / 0 if fails else None)
        except ZeroDivisionError:
            await step.workflow(Helper)
            raise
        return str(await step.workflow(Helper))

    async with z0.Runtime(data, clock=clock, actors=[Once, Helper], env={"body": body}) as runtime:
        instance = await runtime.workflows.create(Once, id="one")
        await clock.advance("1 hour")
        fails.clear()
        await instance.retry()
        await clock.advance("1 hour")
        last = await instance.result("1 second")
        assert len({each.id for each in await runtime.workflows.list(Helper)}) == 2
        assert last in {each.id for each in await runtime.workflows.list(Helper)}


async def test_an_event_that_was_taken_because_of_a_failure_may_be_taken_again(data: Path, clock: VirtualClock) -> None:
    world = World("charge")

    async def body(step: z0.Step) -> Any:
        try:
            await step.do("charge", world.act("charge"))
        except ValueError:
            await step.wait_for_event("decision", type="decision")
            raise
        return (await step.wait_for_event("decision", type="decision")).payload

    async with running(data, clock, body, Once) as (_, instance):
        await instance.send_event("decision", "go on")
    assert await retried(data, clock, body, world) == "go on"


async def test_a_wait_that_was_in_vain_waits_anew_when_it_is_retried(data: Path, clock: VirtualClock) -> None:
    async def body(step: z0.Step) -> Any:
        async def inside(context: z0.StepContext) -> Any:
            return (await context.wait_for_event("in", type="go", timeout="1 minute")).payload

        return [(await step.wait_for_event("it", type="go", timeout="1 minute")).payload, await step.do("x", inside)]

    async with running(data, clock, body, Once) as (_, instance):
        for number in range(2):
            await clock.advance("1 hour")
            assert (await instance.status()).status == "errored"
            await instance.retry()
            await clock.settle()
            await instance.send_event("go", number)
        assert await instance.result("1 second") == [0, 1]


def test_of_a_journal_that_does_not_say_what_had_begun_its_times_tell() -> None:
    entries = [
        Entry(1, 10, "workflow_queued"),
        Entry(2, 30, "step_errored", "do:f#1", 1, 1, 20, None, {"error": {"type": "x:E", "message": "no"}}),
        Entry(3, 40, "step_completed", "do:beside#1", 1, 2, 25),
        Entry(4, 50, "step_completed", "do:notify#1", 1, 3, 45),
    ]
    history = History()
    for entry in entries:
        history.apply(entry)
    assert begun_since(history, entries, "do:f#1") == ["do:notify#1"]
    assert begun_since(history, entries, "do:other#1") == []

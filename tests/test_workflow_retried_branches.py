"""`retry` with branches: what they came to by a step that failed is found out anew, and all of them go on."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

import z0
from tests.proofs import Proof
from tests.workflow_world import crash_at_every_commit, end_of, outcome, said
from z0.testing import VirtualClock, temporary_runtime


class World:
    """What is down, and what was done."""

    def __init__(self, *down: str) -> None:
        self.down = set(down)
        self.ran: Counter[str] = Counter()


class Base(z0.Workflow):
    env: World
    retries = z0.Retries(limit=0)

    def work(self, name: str) -> Callable[[], str]:
        def act() -> str:
            self.env.ran[name] += 1
            if name in self.env.down:
                raise ConnectionError(name)
            return name

        return act

    async def late(self, step: Any, name: str, days: int) -> Any:
        await step.sleep(f"until {name}", f"{days} days")
        return await step.do(name, self.work(name))


async def retried(
    cls: type[Base], world: World, clock: VirtualClock, *others: type[z0.Workflow], down: tuple[str, ...] = ()
) -> Any:
    """What comes of an instance that failed, when it is retried in a better world."""
    async with temporary_runtime(memory=True, actors=[cls, *others], env=world, clock=clock) as runtime:
        instance = await runtime.workflows.create(cls, id="one")
        await clock.advance("3 days")
        assert await end_of(instance) == "errored"
        world.down = set(down)
        await instance.retry()
        await clock.advance("30 days")
        return await instance.result("1 second")


@pytest.mark.parametrize("concurrency", [1, 2, None])
async def test_all_gives_all_results_when_the_branch_that_failed_it_is_retried(
    clock: VirtualClock, concurrency: int | None
) -> None:
    class All(Base):
        async def run(self, event: z0.Event[None], step: z0.Step) -> Any:
            return await step.all([step.do(name, self.work(name)) for name in "abc"], concurrency=concurrency)

    world = World("b")
    assert await retried(All, world, clock) == ["a", "b", "c"]
    assert world.ran == {"a": 1, "b": 2, "c": 1}


async def test_branches_that_were_given_up_go_on_where_they_were(clock: VirtualClock) -> None:
    class GivenUp(Base):
        async def run(self, event: z0.Event[None], step: z0.Step) -> Any:
            others = [self.late(step, "slow", 5), self.flaky(step), self.paid(step)]
            return await step.all([self.late(step, "bad", 1), *others])

        async def flaky(self, step: z0.Step) -> Any:
            return await step.do("flaky", self.work("flaky"), retries=z0.Retries(limit=3, delay="2 days"))

        async def paid(self, step: z0.Step) -> Any:
            async def nested(context: z0.StepContext) -> Any:
                await context.sleep("settle", "2 days")
                return (await context.wait_for_event("paid", type="paid", timeout="1 day")).payload

            return await step.do("nested", nested)

    world = World("bad", "flaky")
    async with temporary_runtime(memory=True, actors=[GivenUp], env=world, clock=clock) as runtime:
        instance = await runtime.workflows.create(GivenUp)
        await clock.advance("3 days")
        world.down = set()
        await instance.retry()
        await instance.send_event("paid", 7)
        await clock.advance("47 hours")
        assert not (await instance.status()).finished
        await clock.advance("2 hours")
        assert await instance.result("1 second") == ["bad", "slow", "flaky", 7]
        assert world.ran == {"bad": 2, "slow": 1, "flaky": 2}


async def test_a_race_is_open_again_when_its_winner_had_failed_the_instance(clock: VirtualClock) -> None:
    class Race(Base):
        async def run(self, event: z0.Event[None], step: z0.Step) -> Any:
            async def first() -> Any:
                await step.do("bad", self.work("bad"))
                return await self.late(step, "first", 9)

            return await step.race([first(), self.late(step, "second", 5)])

    world = World("bad")
    assert await retried(Race, world, clock) == "second"
    assert world.ran == {"bad": 2, "second": 1}


async def test_branches_around_the_branches_that_failed_are_open_again_too(clock: VirtualClock) -> None:
    class Nested(Base):
        async def run(self, event: z0.Event[None], step: z0.Step) -> Any:
            async def inner(context: z0.StepContext) -> Any:
                return await context.race([self.all(context), self.late(context, "slow", 9)])

            return await step.all([step.do("inner", inner), self.late(step, "beside", 5)])

        async def all(self, step: Any) -> Any:
            try:
                return await step.all([step.do("bad", self.work("bad")), self.late(step, "good", 2)])
            except ConnectionError as error:
                raise ValueError("wrapped") from error

    world = World("bad")
    assert await retried(Nested, world, clock) == [["bad", "good"], "beside"]
    assert world.ran == {"bad": 2, "good": 1, "beside": 1}


async def test_what_a_branch_raises_by_itself_is_found_out_anew_when_its_code_was_mended(clock: VirtualClock) -> None:
    class Mended(Base):
        async def run(self, event: z0.Event[None], step: z0.Step) -> Any:
            async def branch(name: str) -> Any:
                found = await step.do(name, self.work(name))
                if "bug" in self.env.down and name == "b":
                    raise KeyError(name)
                return found

            return await step.all([step.all([branch(name) for name in "ab"]), self.late(step, "c", 2)])

    assert await retried(Mended, World("bug"), clock) == [["a", "b"], "c"]


async def test_branches_whose_failure_was_dealt_with_keep_what_they_came_to(clock: VirtualClock) -> None:
    class Dealt(Base):
        async def run(self, event: z0.Event[None], step: z0.Step) -> Any:
            try:
                await step.all([step.do("bad", self.work("bad")), self.late(step, "slow", 5)])
            except ConnectionError:
                await step.do("instead", self.work("instead"))
            winner = await step.race([self.late(step, "fast", 1), self.late(step, "slow", 5)])
            return [winner, await step.do("last", self.work("last"))]

    world = World("bad", "last")
    assert await retried(Dealt, world, clock) == ["fast", "last"]
    assert world.ran == {"bad": 1, "instead": 1, "fast": 1, "last": 2}


async def test_code_whose_branches_do_not_fail_any_more_does_not_fit_a_journal_in_which_they_did(
    clock: VirtualClock,
) -> None:
    class Changed(Base):
        async def run(self, event: z0.Event[None], step: z0.Step) -> Any:
            async def bad() -> None:
                await step.do("a", self.work("a"))
                if "bug" in self.env.down:
                    raise KeyError("bug")

            try:
                await step.all([bad()])
            except KeyError:
                await step.do("instead", self.work("instead"))
            return await step.do("last", self.work("last"))

    with pytest.raises(z0.NonDeterminismError, match="all:all#1/0, which does not fail"):
        await retried(Changed, World("bug", "last"), clock)


@pytest.mark.parametrize("how", ["all", "gather", "tolerated"])
async def test_steps_that_failed_side_by_side_are_retried_together(clock: VirtualClock, how: str) -> None:
    class Together(Base):
        async def run(self, event: z0.Event[None], step: z0.Step) -> Any:
            steps = [step.do(name, self.work(name)) for name in "abcd"]
            if how == "gather":
                return await asyncio.gather(*steps)
            return await step.all(steps, tolerate=1 if how == "tolerated" else 0)

    world = World("b", "c")
    assert await retried(Together, world, clock) == ["a", "b", "c", "d"]
    assert world.ran == {"a": 1, "b": 2, "c": 2, "d": 1}


async def test_all_errors_of_a_task_group_are_worth_a_retry(clock: VirtualClock) -> None:
    class Group(Base):
        async def run(self, event: z0.Event[None], step: z0.Step) -> Any:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(step.do(name, self.work(name))) for name in "abc"]
            return [task.result() for task in tasks]

    world = World("a", "b")
    assert await retried(Group, world, clock) == ["a", "b", "c"]


class Child(z0.Workflow):
    env: World

    async def run(self, event: z0.Event[str], step: z0.Step) -> str:
        await step.sleep("4 days")
        return f"child {event.payload}"


@pytest.mark.parametrize("outlives", [False, True])
async def test_a_child_that_was_given_up_runs_for_its_branch_again(clock: VirtualClock, outlives: bool) -> None:
    class Parent(Base):
        async def run(self, event: z0.Event[None], step: z0.Step) -> Any:
            child = step.workflow(Child, "one", outlives=outlives)
            return await step.all([self.late(step, "bad", 1), child])

    assert await retried(Parent, World("bad"), clock, Child) == ["bad", "child one"]


async def test_a_child_that_has_come_to_its_end_by_itself_tells_the_parent_that_is_retried(clock: VirtualClock) -> None:
    class Fails(z0.Workflow):
        env: World
        retries = z0.Retries(limit=0)

        async def run(self, event: z0.Event[None], step: z0.Step) -> str:
            def act() -> str:
                if self.env.down:
                    raise ConnectionError
                return "done"

            return await step.do("act", act)

    class Waits(Base):
        async def run(self, event: z0.Event[None], step: z0.Step) -> Any:
            return await step.workflow(Fails, id="child")

    world = World("all")
    async with temporary_runtime(memory=True, actors=[Waits, Fails], env=world, clock=clock) as runtime:
        parent = await runtime.workflows.create(Waits)
        await clock.advance("1 day")
        assert await end_of(parent) == "errored"
        world.down = set()
        child = runtime.workflows.get(Fails, "child")
        await child.retry()
        assert await child.result() == "done"
        await parent.retry()
        await clock.advance("1 day")
        assert await parent.result("1 second") == "done"


async def test_a_restart_from_a_step_in_a_branch_lets_the_others_go_on(clock: VirtualClock) -> None:
    class Restarted(Base):
        async def run(self, event: z0.Event[None], step: z0.Step) -> Any:
            async def bad() -> Any:
                await step.do("before", self.work("before"))
                return await self.late(step, "bad", 1)

            return await step.all([self.late(step, "slow", 5), bad()])

    world = World("bad")
    async with temporary_runtime(memory=True, actors=[Restarted], env=world, clock=clock) as runtime:
        instance = await runtime.workflows.create(Restarted)
        await clock.advance("3 days")
        world.down = set()
        await instance.restart(from_step="all:all#1/1/do:bad#1")
        await clock.advance("3 days")
        assert await instance.result("1 second") == ["slow", "bad"]
        assert world.ran == {"before": 1, "bad": 2, "slow": 1}


class Cut(Base):
    """Fails while others are under way, in branches within branches."""

    async def run(self, event: z0.Event[None], step: z0.Step) -> Any:
        inner = step.all([self.late(step, "bad", 1), self.late(step, "slow", 20)], concurrency=2)
        return await step.all([step.race([inner, self.late(step, "never", 50)]), self.late(step, "beside", 20)])


@pytest.mark.proof
async def test_a_retry_that_is_cut_off_at_any_commit_comes_to_the_same_end(proof: Proof) -> None:
    class Cutting(Cut):
        def work(self, name: str) -> Callable[[], str]:
            def act() -> str:
                if (
                    name == "bad"
                    and not self._z0_engine.history.records["all:all#1/0/race:race#1/0/all:all#1/0/do:bad#1"].again
                ):
                    raise ConnectionError(name)
                return name

            return act

    async def drive(runtime: z0.Runtime, clock: VirtualClock) -> None:
        instance = await runtime.workflows.create(Cutting, id="one", on_conflict="existing")
        await clock.advance("3 days")
        await said(instance.retry())

    async def check(runtime: z0.Runtime, clock: VirtualClock) -> None:
        instance = runtime.workflows.get(Cutting, "one")
        assert await outcome(instance) == [["bad", "slow"], "beside"]

    assert await crash_at_every_commit(proof, [Cutting], drive, check) > 5


@pytest.mark.parametrize("inside", [True, False])
async def test_a_wait_that_was_in_vain_waits_anew_when_it_is_retried(clock: VirtualClock, inside: bool) -> None:
    class Waits(Base):
        async def run(self, event: z0.Event[None], step: z0.Step) -> Any:
            async def wait(steps: Any) -> Any:
                return (await steps.wait_for_event("paid", type="paid", timeout="1 day")).payload

            return await step.do("wait", wait) if inside else await wait(step)

    async with temporary_runtime(memory=True, actors=[Waits], env=World(), clock=clock) as runtime:
        instance = await runtime.workflows.create(Waits)
        await clock.advance("2 days")
        await instance.retry()
        await clock.advance("2 days")
        assert await end_of(instance) == "errored", "its time is up again"
        await instance.retry()
        await clock.advance("1 hour")
        await instance.send_event("paid", 7)
        await clock.settle()
        assert await instance.result("1 second") == 7


async def test_a_wait_in_vain_that_the_step_around_it_has_dealt_with_is_not_made_again(clock: VirtualClock) -> None:
    class Dealt(Base):
        async def run(self, event: z0.Event[None], step: z0.Step) -> Any:
            async def act(context: z0.StepContext) -> Any:
                try:
                    await context.wait_for_event("paid", type="paid", timeout="1 day")
                except z0.EventTimeout:
                    await context.do("remind", self.work("remind"))
                return await context.do("bad", self.work("bad"))

            return await step.do("act", act)

    world = World("bad")
    assert await retried(Dealt, world, clock) == "bad"
    assert world.ran == {"remind": 1, "bad": 2}


async def test_a_step_that_was_given_up_with_the_step_around_it_keeps_what_it_has_behind_it(
    clock: VirtualClock,
) -> None:
    class Around(Base):
        async def run(self, event: z0.Event[None], step: z0.Step) -> Any:
            async def inner(context: z0.StepContext) -> Any:
                await context.do("once", self.work("once"))
                return await self.late(context, "slow", 5)

            async def outer(context: z0.StepContext) -> Any:
                return list(await asyncio.gather(context.do("inner", inner), self.late(context, "bad", 1)))

            return await step.do("outer", outer)

    world = World("bad")
    assert await retried(Around, world, clock) == ["slow", "bad"]
    assert world.ran == {"once": 1, "slow": 1, "bad": 2}

"""Branches side by side: `all`, `race`, gather and task groups come to the same again, whoever was the faster."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import z0
from tests.proofs import Proof
from tests.workflow_world import Account, amounts, crash_at_every_commit, end_of, outcome, said
from z0.testing import VirtualClock, temporary_runtime


class Script:
    """What happened."""

    def __init__(self) -> None:
        self.done: list[Any] = []
        self.now = self.most = 0


class Base(z0.Workflow):
    env: Script
    retries = z0.Retries(limit=0)

    async def slow(self, name: str, span: str, error: Exception | None = None) -> str:
        self.env.now += 1
        self.env.most = max(self.env.most, self.env.now)
        self.env.done.append(f"{name} begins")
        try:
            await self.clock.sleep(span)
        except asyncio.CancelledError:
            self.env.done.append(f"{name} is cancelled")
            raise
        finally:
            self.env.now -= 1
        self.env.done.append(f"{name} ends")
        if error is not None:
            raise error
        return name


class Many(Base):
    """Takes one step for each span of its payload."""

    async def run(self, event: z0.Event[dict[str, Any]], step: z0.Step) -> list[str]:
        spans = event.payload["spans"]
        results = await step.all(
            [step.do("work", lambda i=i, span=span: self.slow(str(i), span)) for i, span in enumerate(spans)],
            concurrency=event.payload.get("concurrency"),
        )
        await step.sleep("pause", "1 hour")
        return results


async def test_all_gives_results_in_order_whichever_ends_first(clock: VirtualClock) -> None:
    script = Script()
    async with temporary_runtime(memory=True, actors=[Many], env=script, clock=clock) as runtime:
        instance = await runtime.workflows.create(Many, {"spans": ["3 minutes", "1 minute", "2 minutes"]})
        await clock.advance("2 hours")
        assert await instance.result() == ["0", "1", "2"]
        assert script.done[3:] == ["1 ends", "2 ends", "0 ends"]


@pytest.mark.parametrize("concurrency", [1, 2, None])
async def test_all_has_no_more_under_way_than_it_may(clock: VirtualClock, concurrency: int | None) -> None:
    script = Script()
    async with temporary_runtime(memory=True, actors=[Many], env=script, clock=clock) as runtime:
        payload = {"spans": ["1 minute"] * 5, "concurrency": concurrency}
        instance = await runtime.workflows.create(Many, payload)
        await clock.advance("1 day")
        assert await instance.result() == ["0", "1", "2", "3", "4"]
        assert script.most == (concurrency or 5)


async def test_all_of_nothing_is_nothing_and_impossible_settings_are_refused() -> None:
    class Odd(z0.Workflow):
        async def run(self, event: z0.Event[None], step: z0.Step) -> list[Any]:
            assert await step.all([]) == []
            refused: list[str] = []
            for how in ({"concurrency": 0}, {"tolerate": -1}, {"tolerate": 1.5}):
                try:
                    await step.all([], **how)
                except ValueError as error:
                    refused.append(str(error).partition(":")[0])
            try:
                await step.race([])
            except ValueError as error:
                refused.append(str(error).partition(" has")[0])
            try:
                await step.all([1])  # type: ignore[list-item]
            except TypeError as error:
                refused.append(str(error).partition(";")[0])
            return refused

    async with temporary_runtime(memory=True, actors=[Odd]) as runtime:
        assert await (await runtime.workflows.create(Odd)).result() == [
            "all(concurrency=0)",
            "tolerate=-1",
            "tolerate=1.5",
            "race([])",
            "1 is no coroutine",
        ]


@pytest.mark.parametrize(("tolerate", "fails"), [(0, 1), (1, 2), (0.5, 2), (0.5, 3), (4, 4)])
async def test_all_tolerates_so_many_failures_and_raises_the_one_that_is_too_many(
    clock: VirtualClock, tolerate: float, fails: int
) -> None:
    class Tolerant(Base):
        async def run(self, event: z0.Event[None], step: z0.Step) -> list[str]:
            def branch(i: int) -> Any:
                error = ValueError(str(i)) if i < fails else None
                return step.do(f"s{i}", lambda: self.slow(str(i), f"{i + 1} minutes", error))

            results = await step.all([branch(i) for i in range(4)], tolerate=tolerate)
            return [repr(each) for each in results]

    script = Script()
    async with temporary_runtime(memory=True, actors=[Tolerant], env=script, clock=clock) as runtime:
        instance = await runtime.workflows.create(Tolerant)
        await clock.advance("1 hour")
        allowed = int(tolerate * 4) if isinstance(tolerate, float) else tolerate
        if fails <= allowed:
            expected = [f"ValueError('{i}')" if i < fails else f"'{i}'" for i in range(4)]
            assert await instance.result() == expected
        else:
            with pytest.raises(ValueError, match=str(allowed)):
                await instance.result()
            assert f"{allowed + 1} is cancelled" in script.done


class Caught(Base):
    """Goes on after `all` has failed."""

    async def run(self, event: z0.Event[None], step: z0.Step) -> list[str]:
        async def two(name: str) -> str:
            await step.do("fetch", lambda: self.slow(name, "1 minute"))
            await step.sleep("rest", "1 day")
            return str(await step.do("fetch", lambda: self.slow(name, "1 minute")))

        try:
            await step.all(
                [
                    two("a"),
                    step.do("late", lambda: self.slow("late", "5 minutes", KeyError("late"))),
                    step.do("early", lambda: self.slow("early", "2 minutes", ValueError("early"))),
                    step.wait_for_event("never", type="never"),
                ]
            )
            said = ""
        except Exception as error:
            said = repr(error)
        await step.sleep("pause", "1 hour")
        return [said, await step.do("after", lambda: "after")]


async def test_which_failure_ended_all_is_the_same_on_every_replay_and_the_others_are_given_up(
    clock: VirtualClock,
) -> None:
    script = Script()
    async with temporary_runtime(memory=True, actors=[Caught], env=script, clock=clock) as runtime:
        instance = await runtime.workflows.create(Caught)
        await clock.advance("3 minutes")
        assert "late is cancelled" in script.done
        status = await instance.status()
        assert [each.partition(" ")[0] for each in status.waiting_for] == ["sleep:pause#1:"]
        await clock.advance("30 minutes")
        assert not runtime.node.hosts
        assert await instance.send_event("never") is True
        await clock.advance("2 hours")
        assert await instance.result() == ["ValueError('early')", "after"]
        assert script.done.count("a begins") == 1
        assert script.done.count("late begins") == 1


class Race(Base):
    """Whoever is first."""

    async def run(self, event: z0.Event[list[str]], step: z0.Step) -> str:
        def branch(name: str, span: str) -> Any:
            async def both() -> str:
                await step.do("first", lambda: self.slow(name, span))
                await step.sleep("rest", span)
                return name

            return both()

        winner = await step.race([branch(str(i), span) for i, span in enumerate(event.payload)])
        again = await step.race(
            [step.wait_for_event("event", type="go", timeout="2 days"), step.sleep("timeout", "1 day")]
        )
        return f"{winner} {again}"


async def test_race_has_the_winner_of_the_first_time_on_every_replay_and_cancels_the_others(
    clock: VirtualClock,
) -> None:
    script = Script()
    async with temporary_runtime(memory=True, actors=[Race], env=script, clock=clock) as runtime:
        instance = await runtime.workflows.create(Race, ["9 minutes", "3 minutes", "1 day"])
        await clock.advance("7 minutes")
        assert "0 is cancelled" in script.done
        assert "2 is cancelled" in script.done
        status = await instance.status()
        assert [each.partition(":")[0] for each in status.waiting_for] == ["race", "race"]
        await clock.advance("1 hour")
        assert not runtime.node.hosts
        await clock.advance("2 days")
        assert await instance.result() == "1 None"
        assert script.done.count("0 begins") == script.done.count("2 begins") == 1


async def test_a_race_raises_what_its_first_branch_raises(clock: VirtualClock) -> None:
    class First(Base):
        async def run(self, event: z0.Event[None], step: z0.Step) -> str:
            try:
                await step.race(
                    [
                        step.do("slow", lambda: self.slow("slow", "1 hour")),
                        step.do("bad", lambda: self.slow("bad", "1 minute", KeyError("bad"))),
                    ]
                )
            except KeyError as error:
                return repr(error)
            return "no error"

    script = Script()
    async with temporary_runtime(memory=True, actors=[First], env=script, clock=clock) as runtime:
        instance = await runtime.workflows.create(First)
        await clock.advance("2 minutes")
        assert await instance.result() == "KeyError('bad')"
        assert script.done[-1] == "slow is cancelled"


async def test_an_event_goes_to_who_waits_still_not_to_a_branch_that_has_lost(clock: VirtualClock) -> None:
    class Twice(z0.Workflow):
        async def run(self, event: z0.Event[None], step: z0.Step) -> list[str]:
            await step.race([step.wait_for_event("lost", type="go", timeout=None), step.sleep("s", "1 minute")])
            got = await step.wait_for_event("later", type="go")
            return [str(got.payload)]

    async with temporary_runtime(memory=True, actors=[Twice], clock=clock) as runtime:
        instance = await runtime.workflows.create(Twice)
        await clock.advance("2 minutes")
        await instance.send_event("go", 1)
        await clock.settle()
        assert await instance.result() == ["1"]


async def test_gather_and_task_groups_over_steps_replay_and_leave_no_exception_behind(clock: VirtualClock) -> None:
    class Group(Base):
        async def run(self, event: z0.Event[None], step: z0.Step) -> list[str]:
            said = []
            gathered = await asyncio.gather(
                step.do("a", lambda: self.slow("a", "2 minutes")),
                step.do("b", lambda: self.slow("b", "1 minute", ValueError("b"))),
                return_exceptions=True,
            )
            said += [repr(each) for each in gathered]
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(step.do("c", lambda: self.slow("c", "1 hour")))
                    group.create_task(step.do("d", lambda: self.slow("d", "1 minute", KeyError("d"))))
            except* KeyError as errors:
                said += [repr(each) for each in errors.exceptions]
            await step.sleep("pause", "1 hour")
            return said

    script = Script()
    async with temporary_runtime(memory=True, actors=[Group], env=script, clock=clock) as runtime:
        instance = await runtime.workflows.create(Group)
        await clock.advance("5 minutes")
        assert script.done[-1] == "c is cancelled"
        await clock.advance("20 minutes")
        assert not runtime.node.hosts
        await clock.advance("1 hour")
        assert await instance.result() == ["'a'", "ValueError('b')", "KeyError('d')"]
        assert [script.done.count(f"{name} begins") for name in "abcd"] == [1, 1, 1, 1]


async def test_what_a_failed_body_leaves_behind_is_cancelled_and_does_nothing_more(clock: VirtualClock) -> None:
    class Leaves(Base):
        async def run(self, event: z0.Event[None], step: z0.Step) -> None:
            async def more() -> None:
                await step.do("slow", lambda: self.slow("slow", "1 hour"))
                await step.do("next", lambda: self.slow("next", "1 minute"))

            await asyncio.gather(more(), step.do("bad", lambda: self.slow("bad", "1 minute", ValueError("bad"))))

    script = Script()
    async with temporary_runtime(memory=True, actors=[Leaves], env=script, clock=clock) as runtime:
        instance = await runtime.workflows.create(Leaves)
        await clock.advance("3 hours")
        assert await end_of(instance) == "errored"
        assert script.done == ["slow begins", "bad begins", "bad ends", "slow is cancelled"]


async def test_a_finished_branch_is_not_run_again_while_another_sleeps(clock: VirtualClock) -> None:
    class Half(Base):
        async def run(self, event: z0.Event[None], step: z0.Step) -> list[Any]:
            return await step.all(
                [step.do("a", lambda: self.slow("a", "1 minute")), step.sleep("b", "3 days")], name="half"
            )

    script = Script()
    async with temporary_runtime(memory=True, actors=[Half], env=script, clock=clock) as runtime:
        instance = await runtime.workflows.create(Half)
        await clock.advance("1 day")
        assert not runtime.node.hosts
        await clock.advance("3 days")
        assert await instance.result() == ["a", None]
        assert script.done == ["a begins", "a ends"]


class Crashing(z0.Workflow):
    """Branches whose steps have facts for effects."""

    retries = z0.Retries(limit=0)

    async def run(self, event: z0.Event[None], step: z0.Step) -> list[Any]:
        account = self.get(Account, "a")

        async def pays(amount: int, days: int) -> int:
            await step.do("pay", lambda: account.move(amount))
            await step.sleep("wait", f"{days} days")
            return int(await step.do("pay", lambda: account.move(amount)))

        def bad() -> None:
            raise ValueError("bad")

        winner = await step.race([pays(1, 5), pays(10, 2), pays(100, 9)])
        results = await step.all(
            [step.do("bad", bad), pays(1_000, 1), step.do("pay", lambda: account.move(10_000))], tolerate=1
        )
        return [winner, repr(results[0]), results[1:]]


@pytest.mark.proof
async def test_branches_that_are_cut_off_at_any_commit_come_to_the_same_end(proof: Proof) -> None:
    async def drive(runtime: z0.Runtime, clock: VirtualClock) -> None:
        await said(runtime.workflows.create(Crashing, id="one"))

    async def check(runtime: z0.Runtime, clock: VirtualClock) -> None:
        instance = runtime.workflows.get(Crashing, "one")
        assert await outcome(instance) == [10, "ValueError('bad')", [1_000, 10_000]]
        assert sorted(map(int, map(str, await amounts(runtime, "a")))) == [1, 10, 10, 100, 1_000, 1_000, 10_000]
        seqs = [entry.seq for entry in await instance.journal()]
        assert seqs == list(range(1, len(seqs) + 1))

    assert await crash_at_every_commit(proof, [Crashing, Account], drive, check) > 5

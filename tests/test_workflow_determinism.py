"""Code that no longer does what the journal has is found out before anything happens; code that does goes on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import z0
from tests.scripted_workflow import Body, Paused, Scripted, running
from z0.testing import VirtualClock, crash


def row(*names: str, ran: list[str] | None = None) -> Body:
    """A body that takes these steps, one after another: "-" is a sleep of a day."""

    async def body(step: z0.Step) -> list[Any]:
        done: list[Any] = []
        for name in names:
            if name == "-":
                await step.sleep("-", "1 day")
            else:
                done.append(await step.do(name, lambda name=name: note(name)))
        return done

    def note(name: str) -> str:
        if ran is not None:
            ran.append(name)
        return name

    return body


CHANGES = {
    "renamed": (row("a", "x", "-", "c"), 2, "do:b#1", "do:x#1"),
    "removed": (row("a", "-", "c"), 2, "do:b#1", "the journal has earlier|sleep:-#1|do:c#1"),
    "reordered": (row("b", "a", "-", "c"), 1, "do:a#1", "do:b#1, and to do:a#1, which the journal has earlier, behind"),
    "inserted": (row("a", "new", "b", "-", "c"), 2, "do:b#1", "do:new#1"),
    "ended early": (row("a"), 2, "do:b#1", "the end of run"),
    "the sleep is gone": (row("a", "b", "c"), 3, "sleep:-#1", "do:c#1"),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_changed_code_is_told_what_was_expected_and_what_came_and_nothing_runs(
    change: str, data: Path, clock: VirtualClock
) -> None:
    changed, position, expected, found = CHANGES[change]
    async with running(data, clock, row("a", "b", "-", "c")):
        pass
    ran: list[str] = []
    async with running(data, clock, changed) as (_, instance):
        await clock.advance("2 days")
        with pytest.raises(z0.NonDeterminismError) as caught:
            await instance.result("1 second")
    error = caught.value
    assert ran == []
    if change != "removed":
        assert (error.position, error.expected) == (position, expected)
        assert found in error.found
    assert "bring the code back" in str(error)


WAITS: dict[str, tuple[dict[str, Any], dict[str, Any], str, str]] = {
    "type": ({"type": "a"}, {"type": "b"}, "of type 'a'", "of type 'b'"),
    "match": ({"type": "a", "match": {"n": 1}}, {"type": "a", "match": {"n": 2}}, "with {'n': 1}", "with {'n': 2}"),
    "no match": ({"type": "a", "match": {"n": 1}}, {"type": "a"}, "with {'n': 1}", "of type 'a'"),
}


@pytest.mark.parametrize("change", WAITS)
async def test_code_that_waits_for_another_event_than_its_journal_is_found_out(
    change: str, data: Path, clock: VirtualClock
) -> None:
    first, second, expected, found = WAITS[change]
    ran: list[int] = []

    def waiting(options: dict[str, Any]) -> Body:
        async def body(step: z0.Step) -> None:
            await asyncio.gather(
                step.wait_for_event("it", timeout="10 days", **options), step.do("x", lambda: ran.append(1))
            )

        return body

    async with running(data, clock, waiting(first)):
        pass
    async with running(data, clock, waiting(second)) as (_, instance):
        await instance.send_event(second["type"], {"n": 2})
        with pytest.raises(z0.NonDeterminismError) as caught:
            await instance.result("1 second")
    assert caught.value.expected.startswith("wait:it#1 for an event of type 'a'")
    assert caught.value.expected.endswith(expected)
    assert caught.value.found.endswith(found)
    assert ran == [1]


class Kid(z0.Workflow):
    async def run(self, event: z0.Event[Any], step: z0.Step) -> str:
        await step.sleep("1 hour")
        return type(self).__name__


class Other(Kid):
    pass


@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize(
    ("second", "found"),
    [({"cls": Other, "id": "k1"}, "Other 'k1'"), ({"cls": Kid, "id": "k2"}, "Kid 'k2'"), ({"cls": Kid}, "")],
)
async def test_a_step_that_has_another_child_than_in_the_journal_is_found_out(
    second: dict[str, Any], found: str, ended: bool, data: Path, clock: VirtualClock
) -> None:
    def parent(**child: Any) -> Body:
        async def body(step: z0.Step) -> Any:
            output = await step.workflow(**child, name="kid")
            await step.sleep("1 day")
            return output

        return body

    async def run(body: Body, span: str) -> z0.InstanceStatus:
        async with z0.Runtime(data, clock=clock, actors=[Scripted, Kid, Other], env={"body": body}) as runtime:
            with contextlib.suppress(z0.InstanceExists):
                await runtime.workflows.create(Scripted, id="one")
            await clock.advance(span)
            assert len(await runtime.workflows.list(Kid)) == 1
            assert not await runtime.workflows.list(Other)
            return await runtime.workflows.get(Scripted, "one").status()

    await run(parent(cls=Kid, id="k1"), "2 hours" if ended else "1 minute")
    status = await run(parent(**second), "2 days")
    if found:
        assert status.error is not None
        assert f"workflow:kid#1 with Kid 'k1', but the code came to {found}" in status.error.message
    else:  # an id that is not given any more is no change of the child
        assert status.output == "Kid"


async def test_nothing_of_changed_code_is_executed_even_if_it_swallows_every_error(
    data: Path, clock: VirtualClock
) -> None:
    async with running(data, clock, row("a", "b", "-", "c")):
        pass
    ran: list[str] = []

    async def stubborn(step: z0.Step) -> str:
        for name in ("x", "y", "a", "b", "z"):
            with contextlib.suppress(Exception):
                await step.do(name, lambda name=name: ran.append(name))
        return "done all the same"

    async with running(data, clock, stubborn) as (_, instance):
        await clock.advance("2 days")
        with pytest.raises(z0.NonDeterminismError):
            await instance.result("1 second")
    assert ran == []


async def test_an_instance_that_failed_of_changed_code_goes_on_when_it_is_brought_back(
    data: Path, clock: VirtualClock
) -> None:
    async with running(data, clock, row("a", "-", "b")):
        pass
    async with running(data, clock, row("x", "-", "b")) as (_, instance):
        await clock.advance("2 days")
        assert (await instance.status()).status == "errored"
    async with running(data, clock, row("a", "-", "b")) as (_, instance):
        await instance.retry()
        assert await instance.result("1 second") == ["a", "b"]


async def test_a_class_may_have_its_instances_pause_until_the_code_is_brought_back(
    data: Path, clock: VirtualClock
) -> None:
    async with running(data, clock, row("a", "-", "b"), Paused):
        pass
    async with running(data, clock, row("x", "-", "b"), Paused) as (_, instance):
        await clock.advance("2 days")
        status = await instance.status()
        assert status.status == "paused"
        assert status.reason is not None
        assert "do:a#1" in status.reason
        assert status.error is not None
        assert status.error.type.endswith(":NonDeterminismError")
        rows = len(await instance.journal())
        await clock.advance("10 days")
        assert len(await instance.journal()) < rows + 20, "it looks ever more rarely"
    async with running(data, clock, row("a", "-", "b"), Paused) as (_, instance):
        await clock.advance("1 second")
        assert await instance.result("1 second") == ["a", "b"]
        events = [entry.event for entry in await instance.journal()]
    assert events.index("workflow_running") > events.index("workflow_paused")


async def test_a_paused_instance_is_looked_at_by_the_next_process_after_a_crash_too(
    data: Path, clock: VirtualClock
) -> None:
    async with running(data, clock, row("a", "-", "b"), Paused):
        pass
    async with running(data, clock, row("x", "-", "b"), Paused) as (runtime, instance):
        await clock.advance("2 days")
        assert (await instance.status()).status == "paused"
        await clock.advance("1 minute")
        await crash(runtime)
    async with running(data, clock, row("a", "-", "b"), Paused) as (runtime, instance):
        await clock.advance("2 days")
        assert await instance.result("1 second") == ["a", "b"]


async def test_a_change_behind_what_the_journal_has_is_no_divergence(data: Path, clock: VirtualClock) -> None:
    async with running(data, clock, row("a", "-", "b")):
        pass
    async with running(data, clock, row("a", "-", "new", "c")) as (_, instance):
        await clock.advance("2 days")
        assert await instance.result("1 second") == ["a", "new", "c"]


async def test_patched_code_runs_for_new_instances_and_the_former_for_those_that_had_passed(
    data: Path, clock: VirtualClock
) -> None:
    async with running(data, clock, row("a", "b", "-", "c")):
        pass

    async def patched(step: z0.Step) -> list[str]:
        done = [await step.do("a", lambda: "a")]
        if step.patched("bill twice"):
            done.append(await step.do("new", lambda: "new"))
        else:
            done.append(await step.do("b", lambda: "b"))
        await step.sleep("-", "1 day")
        done.append(str(step.patched("bill twice")))
        return done

    async with running(data, clock, patched) as (runtime, old):
        new = await runtime.workflows.create(Scripted, id="two")
        await clock.advance("2 days")
        assert await old.result("1 second") == ["a", "b", "False"]
        assert await new.result("1 second") == ["a", "new", "True"]


async def test_patches_are_the_same_again_in_parallel_branches(data: Path, clock: VirtualClock) -> None:
    seen: list[list[bool]] = []

    async def branch(step: z0.Step, name: str) -> bool:
        await step.do(name, lambda: name)
        return step.patched("change")

    async def body(step: z0.Step) -> None:
        seen.append(await asyncio.gather(*(branch(step, name) for name in "abc")))
        await step.sleep("-", "1 day")

    async with running(data, clock, body):
        pass
    async with running(data, clock, body) as (_, instance):
        await clock.advance("2 days")
        await instance.result("1 second")
    assert seen == [[True] * 3] * 2


async def test_a_patch_that_all_have_passed_may_be_removed(data: Path, clock: VirtualClock) -> None:
    async def patched(step: z0.Step) -> None:
        assert step.patched("change")
        await step.do("new", lambda: "new")
        await step.sleep("-", "1 day")

    async with running(data, clock, patched):
        pass
    async with running(data, clock, row("new", "-")) as (_, instance):
        await clock.advance("2 days")
        assert await instance.result("1 second") == ["new"]


async def test_the_version_of_the_class_is_recorded(data: Path, clock: VirtualClock) -> None:
    class Second(Scripted):
        namespace = "Scripted"
        version = 2

    async with running(data, clock, row("-"), Second):
        pass
    async with running(data, clock, row("-")) as (_, instance):
        assert (await instance.status()).code_version == 2


async def test_the_time_chance_and_ids_are_the_same_on_replay(data: Path, clock: VirtualClock) -> None:
    seen: list[Any] = []

    async def body(step: z0.Step) -> None:
        seen.append((step.now(), step.random(), step.uuid(), step.random()))
        await step.sleep("-", "1 day")

    async with running(data, clock, body):
        pass
    async with running(data, clock, body) as (_, instance):
        await clock.advance("2 days")
        await instance.result("1 second")
    assert seen[0] == seen[1]
    assert seen[0][1] != seen[0][3]
    assert seen[0][2].version == 4


async def test_steps_in_parallel_are_the_same_on_replay_in_whatever_order_they_end(
    data: Path, clock: VirtualClock
) -> None:
    ran: list[str] = []

    def take(name: str, seconds: int) -> Callable[[], Any]:
        async def work() -> str:
            await clock.sleep(seconds)
            ran.append(name)
            return name

        return work

    async def body(step: z0.Step) -> list[str]:
        both = await asyncio.gather(step.do("slow", take("slow", 60)), step.do("fast", take("fast", 1)))
        await step.sleep("-", "1 day")
        return [*both, await step.do("after", lambda: "after")]

    async with running(data, clock, body):
        await clock.advance("2 minutes")
    async with running(data, clock, body) as (_, instance):
        await clock.advance("2 days")
        assert await instance.result("1 second") == ["slow", "fast", "after"]
    assert ran == ["fast", "slow"]


async def test_a_finished_branch_is_not_run_again_when_another_is_suspended(data: Path, clock: VirtualClock) -> None:
    ran: list[str] = []

    async def sleeper(step: z0.Step) -> None:
        await step.sleep("-", "1 day")
        await step.do("late", lambda: ran.append("late"))

    async def body(step: z0.Step) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(sleeper(step))
            group.create_task(step.do("early", lambda: ran.append("early")))

    async with running(data, clock, body) as (runtime, instance):
        await clock.advance("1 hour")
        assert not runtime.node.hosts, "a body in a TaskGroup that sleeps leaves the memory as well"
        await clock.advance("2 days")
        await instance.result("1 second")
    assert ran == ["early", "late"]


async def test_a_step_that_a_branch_has_not_come_to_yet_is_waited_for_while_it_awaits_something_else(
    data: Path, clock: VirtualClock
) -> None:
    async def awaits(step: z0.Step) -> None:
        await step.do("a", lambda: 1)
        await clock.sleep("3 seconds")
        await step.do("b", lambda: 2)
        await step.sleep("-", "1 day")

    async def body(step: z0.Step) -> str:
        await asyncio.gather(awaits(step), step.do("slow", lambda: clock.sleep("1 hour"), timeout=None))
        return "both"

    async with running(data, clock, body) as (runtime, _):
        await clock.advance("1 minute")
        await crash(runtime)
    async with running(data, clock, body) as (_, instance):
        await clock.advance("3 days")
        assert await instance.result("1 second") == "both"


async def test_a_divergence_inside_a_task_group_is_found_out_too(data: Path, clock: VirtualClock) -> None:
    def group_of(*names: str) -> Body:
        async def body(step: z0.Step) -> None:
            async with asyncio.TaskGroup() as group:
                for name in names:
                    group.create_task(step.do(name, lambda: 1))
            await step.sleep("-", "1 day")

        return body

    async with running(data, clock, group_of("a", "b")):
        pass
    async with running(data, clock, group_of("a", "x")) as (_, instance):
        await clock.advance("2 days")
        with pytest.raises(z0.NonDeterminismError, match="do:b#1"):
            await instance.result("1 second")


async def test_tasks_that_the_body_leaves_behind_do_nothing_after_its_end_nor_disturb_replay(
    data: Path, clock: VirtualClock
) -> None:
    ran: list[str] = []

    async def slow() -> None:
        await clock.sleep("1 hour")
        ran.append("slow")

    async def body(step: z0.Step) -> str:
        tasks: list[Any] = [asyncio.create_task(step.do("quick", lambda: ran.append("quick")))]
        tasks.append(asyncio.create_task(step.do("slow", slow)))
        await step.do("own", lambda: ran.append("own"))
        await clock.sleep("1 second")
        return f"done with {len(tasks)}"

    async with running(data, clock, body) as (_, instance):
        await clock.advance("2 minutes")
        assert await instance.result("1 second") == "done with 2"
        rows = len(await instance.journal())
        await clock.advance("2 hours")
        assert len(await instance.journal()) == rows
        assert (await instance.journal())[-1].event == "workflow_completed"
    assert "quick" in ran


async def test_code_that_swallows_everything_can_still_be_evicted_and_goes_on(data: Path, clock: VirtualClock) -> None:
    ran: list[str] = []

    async def body(step: z0.Step) -> str:
        for _ in range(100):
            try:
                await step.sleep("night", "8 hours")
                break
            except BaseException:
                continue
        try:
            await step.sleep("next night", "8 hours")
        finally:
            await step.do("cleanup", lambda: ran.append("cleanup"))
        return "done"

    async with running(data, clock, body) as (runtime, instance):
        await clock.advance("1 hour")
        assert not runtime.node.hosts
        await clock.advance("8 hours")
        assert ran == []
        await clock.advance("8 hours")
        assert await instance.result("1 second") == "done"
    assert ran == ["cleanup"]


async def test_a_body_that_cancels_a_step_of_its_own_goes_on(data: Path, clock: VirtualClock) -> None:
    async def body(step: z0.Step) -> str:
        task = asyncio.ensure_future(step.do("slow", lambda: clock.sleep("1 hour"), timeout=None))
        await step.do("quick", lambda: 1)
        await clock.sleep("1 second")
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await step.sleep("-", "1 day")
        return await step.do("after", lambda: "after")

    async with running(data, clock, body) as (runtime, _):
        await clock.advance("1 minute")
        assert not runtime.node.hosts
    async with running(data, clock, body) as (_, instance):
        await clock.advance("2 days")
        assert await instance.result("1 second") == "after"


async def test_a_body_may_await_actors_between_its_steps(data: Path, clock: VirtualClock) -> None:
    class Account(z0.Entity):
        accepts = {"*"}

    class Reader(z0.Workflow):
        async def run(self, event: z0.Event[Any], step: z0.Step) -> int:
            account = self.get(Account, "a")
            await step.do("x", lambda: account.append("x"))
            await step.sleep("-", "1 day")
            count = await account.count_facts()
            await step.do("y", lambda: account.append("y"))
            return count

    async with running(data, clock, row(), Reader) as (_, instance):
        await clock.advance("2 days")
        assert await instance.result("1 second") == 1


async def test_the_log_of_a_step_says_nothing_again_on_replay(
    data: Path, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def body(step: z0.Step) -> None:
        await step.do("a", lambda: 1)
        step.log.info("after %s", "a")
        await step.sleep("-", "1 day")
        step.log.warning("awake")

    caplog.set_level(logging.INFO, "z0.workflows.Scripted")
    async with running(data, clock, body):
        pass
    async with running(data, clock, body) as (_, instance):
        await clock.advance("2 days")
        await instance.result("1 second")
    said = [record for record in caplog.records if record.name == "z0.workflows.Scripted"]
    assert [record.getMessage() for record in said] == ["one: after a", "one: awake"]
    assert {vars(record)["instance"] for record in said} == {"one"}


async def test_an_instance_that_runs_is_not_run_a_second_time_by_whoever_asks(data: Path, clock: VirtualClock) -> None:
    ran: list[int] = []

    async def body(step: z0.Step) -> None:
        ran.append(1)
        await step.do("slow", lambda: clock.sleep("1 hour"), timeout=None)

    async with running(data, clock, body) as (_, instance):
        for _ in range(3):
            await clock.advance("10 minutes")
            assert (await instance.status()).status == "running"
            await instance.send_event("noise")
        await clock.advance("1 hour")
        await instance.result("1 second")
    assert ran == [1]


async def test_closing_in_the_middle_of_a_body_goes_on_in_the_next_process(data: Path, clock: VirtualClock) -> None:
    ran: list[int] = []

    async def body(step: z0.Step) -> int:
        for number in range(50):
            await step.do("x", lambda number=number: ran.append(number))
        return len(ran)

    for _ in range(3):
        async with running(data, clock, body):
            pass
    async with running(data, clock, body) as (_, instance):
        assert await instance.result("1 second") == 50
    assert ran == list(range(50))


@pytest.mark.parametrize("how", ["it leaves the memory", "a crash", "a clean stop"])
@pytest.mark.parametrize("delay", ["1 minute", "2 hours"])
async def test_a_step_that_was_cancelled_in_its_backoff_makes_no_attempt_when_the_body_runs_again(
    delay: str, how: str, data: Path, clock: VirtualClock
) -> None:
    did: list[str] = []

    async def body(step: z0.Step) -> str:
        def charge(context: z0.StepContext) -> None:
            did.append(f"charge {context.attempt}")
            raise ConnectionError("try again")

        async def fails() -> None:
            await step.sleep("a second", "1 second")
            raise ValueError("out of stock")

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(step.do("charge", charge, retries=z0.Retries(limit=5, delay=delay)))
                group.create_task(fails())
        except* ValueError:
            pass
        await step.do("refund", lambda: did.append("refund"))
        await step.sleep("cool down", "1 day")
        return "cancelled"

    async with running(data, clock, body) as (runtime, instance):
        await clock.advance("30 seconds")
        if how == "a crash":
            await crash(runtime)
        elif how == "it leaves the memory":
            await clock.advance("3 days")
            assert await instance.result("1 second") == "cancelled"
    async with running(data, clock, body) as (_, instance):
        await clock.advance("3 days")
        assert await instance.result("1 second") == "cancelled"
    assert did == ["charge 1", "refund"]


async def test_attempts_that_were_cut_off_with_steps_of_their_own_behind_them_go_on_side_by_side(
    data: Path, clock: VirtualClock
) -> None:
    did: list[str] = []

    async def body(step: z0.Step) -> list[Any]:
        async def outer(context: z0.StepContext) -> str:
            await context.do("first", lambda: did.append(f"{context.name} first"))
            if context.attempt == 1:
                raise ConnectionError("try again")
            await context.do("second", lambda: did.append(f"{context.name} second"))
            await context.sleep("1 hour")
            await context.do("third", fails_once)
            return context.name

        async def beside() -> str:
            for number in range(3):
                await step.do("beside", lambda number=number: did.append(f"beside {number}"))
            return await step.do("backoff", fails_once, retries=z0.Retries(delay="2 hours"))

        retries = z0.Retries(delay="1 minute")
        return list(
            await asyncio.gather(step.do("a", outer, retries=retries), beside(), step.do("b", outer, retries=retries))
        )

    def fails_once(context: z0.StepContext) -> str:
        if context.attempt == 1:
            raise ConnectionError("try again")
        return "done"

    for span in ("30 seconds", "10 minutes", "1 hour", "2 hours"):
        async with running(data, clock, body) as (runtime, instance):
            await clock.advance(span)
            if span != "2 hours":
                await crash(runtime)
            else:
                assert await instance.result("1 second") == ["a", "done", "b"]
    assert sorted(did) == ["a first", "a second", "b first", "b second", "beside 0", "beside 1", "beside 2"]

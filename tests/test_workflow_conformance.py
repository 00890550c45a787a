"""Behaviours that other engines promise, and that no other module tests (docs/workflows_conformance.md)."""

from __future__ import annotations

import array
import asyncio
import contextlib
import gc
import logging
import threading
import weakref
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import z0
from tests.scripted_workflow import Body, Scripted, running
from tests.workflow_world import Account, amounts, end_of, events_of
from z0.testing import VirtualClock, crash, replay, temporary_runtime


def raising(error: Exception) -> Any:
    def fails() -> None:
        raise error

    return fails


# Steps and what comes back


@pytest.mark.parametrize("setting", [{"sensitive": "output"}, {"sensitive": 1}, {"at_most_once": None}])
async def test_a_setting_that_is_neither_true_nor_false_is_refused(
    setting: dict[str, Any], data: Path, clock: VirtualClock
) -> None:
    async with running(data, clock, lambda step: step.do("x", lambda: 1, **setting)) as (_, instance):
        with pytest.raises(TypeError, match="give True or False"):
            await instance.result("1 second")


async def test_a_step_that_was_kept_beyond_its_run_executes_nothing(data: Path, clock: VirtualClock) -> None:
    kept: list[z0.Step] = []
    ran: list[int] = []

    async def body(step: z0.Step) -> None:
        kept.append(step)

    async with running(data, clock, body) as (_, instance):
        await instance.result("1 second")
        with pytest.raises(asyncio.CancelledError):
            await kept[0].do("late", lambda: ran.append(1))
        assert (await instance.journal())[-1].event == "workflow_completed"
    assert ran == []


async def test_bytes_take_no_more_room_than_they_have_and_typed_arrays_are_refused(
    data: Path, clock: VirtualClock
) -> None:
    async def body(step: z0.Step) -> list[Any]:
        plain = await step.do("bytes", lambda: b"\xff" * 200_000)
        views = await step.do("views", lambda: {"in": [bytearray(b"\x01\x02"), memoryview(b"\x03")]})
        with pytest.raises(z0.InvalidValue, match="array cannot be stored"):
            await step.do("array", lambda: array.array("d", [1.0]))
        return [len(plain), views]

    async with running(data, clock, body) as (_, instance):
        assert await instance.result("1 second") == [200_000, {"in": [b"\x01\x02", b"\x03"]}]
        stored = {each.step: len(each.value or b"") for each in await instance.journal()}
    assert stored["do:bytes#1"] < 200_010


async def test_the_error_of_a_sensitive_step_is_shown(data: Path, clock: VirtualClock) -> None:
    async def body(step: z0.Step) -> None:
        await step.do("token", lambda: "hunter2", sensitive=True)
        await step.do("login", raising(ValueError("wrong user")), sensitive=True, retries=z0.Retries(limit=0))

    async with running(data, clock, body) as (_, instance):
        assert (await instance.step("token")).output == "[REDACTED]"
        failed = (await instance.step("login")).error
        assert failed is not None
        assert failed["message"] == "wrong user"
        events = [event async for event in instance.events()]
    shown = [event.output for event in events if event.type == "step_completed"]
    assert shown == ["[REDACTED]"]
    assert "hunter2" not in repr(events)


async def test_a_sleep_inside_a_step_needs_no_name(data: Path, clock: VirtualClock) -> None:
    async def settle(context: z0.StepContext) -> str:
        await context.sleep("24 hours")
        await context.sleep(timedelta(hours=1))
        return "settled"

    async with running(data, clock, lambda step: step.do("x", settle)) as (_, instance):
        assert (await instance.status()).wake_at == datetime(2026, 1, 2, tzinfo=UTC)
        await clock.advance("25 hours")
        assert await instance.result("1 second") == "settled"
        assert [each.name for each in await instance.steps()] == ["x", "x/sleep", "x/sleep#2"]


async def test_a_step_that_succeeds_at_once_costs_one_commit() -> None:
    class Row(z0.Workflow):
        async def run(self, event: z0.Event[int], step: z0.Step) -> None:
            for number in range(event.payload):
                await step.do("x", lambda number=number: number)

    async def commits(steps: int) -> int:
        async with temporary_runtime(memory=True, actors=[Row]) as runtime:
            await (await runtime.workflows.create(Row, steps)).result()
            metrics = runtime.node.metrics
            return metrics.committed.count + metrics.alone.count

    assert await commits(110) - await commits(10) == 100


async def test_results_that_are_big_only_together_fit_and_are_not_made_again(data: Path, clock: VirtualClock) -> None:
    made: list[int] = []

    def part(number: int) -> bytes:
        made.append(number)
        return bytes(400_000)

    async def body(step: z0.Step) -> int:
        parts = await step.all([step.do("part", lambda number=number: part(number)) for number in range(5)])
        await step.sleep("-", "1 day")
        return sum(map(len, parts))

    async with running(data, clock, body):
        pass
    async with running(data, clock, body) as (_, instance):
        await clock.advance("2 days")
        assert await instance.result("1 second") == 2_000_000
    assert made == [0, 1, 2, 3, 4]


# Attempts


async def check_that_only_the_first_error_is_tried_again(data: Path, clock: VirtualClock, retries: z0.Retries) -> None:
    attempts: list[int] = []

    def fails(context: z0.StepContext) -> None:
        attempts.append(context.attempt)
        raise ConnectionError("down") if context.attempt == 1 else ValueError("declined")

    async with running(data, clock, lambda step: step.do("x", fails, retries=retries)) as (_, instance):
        await clock.advance("1 minute")
        with pytest.raises(ValueError, match="declined"):
            await instance.result("1 second")
    assert attempts == [1, 2]


async def test_a_function_that_says_whether_to_try_again_may_be_awaited(clock: VirtualClock, data: Path) -> None:
    async def is_temporary(error: Exception) -> bool:
        await clock.sleep("1 second")
        return isinstance(error, ConnectionError)

    await check_that_only_the_first_error_is_tried_again(data, clock, z0.Retries(retry_on=is_temporary))


async def test_one_class_of_errors_to_try_again_needs_no_tuple(data: Path, clock: VirtualClock) -> None:
    await check_that_only_the_first_error_is_tried_again(data, clock, z0.Retries(retry_on=OSError))


async def test_jitter_makes_delays_longer_by_at_most_its_fraction(data: Path, clock: VirtualClock) -> None:
    at: list[float] = []

    def fails() -> None:
        at.append(clock.monotonic())
        raise ValueError("no")

    retries = z0.Retries(limit=20, delay="10 seconds", backoff="constant", jitter=0.5)
    async with running(data, clock, lambda step: step.do("x", fails, retries=retries)) as (_, instance):
        await clock.advance("1 hour")
        assert await end_of(instance) == "errored"
    waits = [later - earlier for earlier, later in pairwise(at)]
    assert all(10 <= each <= 15 for each in waits)
    assert len({round(each, 3) for each in waits}) > 10


async def test_a_step_that_kills_its_process_each_time_fails_in_the_end_and_can_be_retried(
    data: Path, clock: VirtualClock
) -> None:
    runtimes: list[z0.Runtime] = []
    killed: list[int] = []
    repaired: list[bool] = []

    async def kills(context: z0.StepContext) -> str:
        if repaired:
            return "alive"
        killed.append(context.attempt)
        asyncio.get_running_loop().call_soon(lambda: asyncio.ensure_future(crash(runtimes[-1])))
        await clock.sleep("1 hour")
        return "never"

    async def body(step: z0.Step) -> str:
        return await step.do("poison", kills, at_most_once=True)

    for _ in range(6):
        async with running(data, clock, body) as (runtime, instance):
            runtimes.append(runtime)
            with contextlib.suppress(z0.ActorReset, z0.RuntimeClosed):
                await clock.advance("1 minute")
                if (await instance.status()).status == "errored":
                    break
    assert killed == [1, 2, 3, 4], "three retries after the first attempt"
    async with running(data, clock, body) as (_, instance):
        status = await instance.status()
        assert status.error is not None
        assert status.error.type.endswith(":StepInterrupted")
        repaired.append(True)
        await instance.retry()
        assert await instance.result("1 second") == "alive"


async def test_an_instance_that_is_cut_off_again_and_again_is_put_aside_and_can_be_resumed(
    data: Path, clock: VirtualClock
) -> None:
    runtimes: list[z0.Runtime] = []
    killed: list[int] = []
    repaired: list[bool] = []

    class Poison(z0.Workflow):
        recoveries_max = 3

        async def run(self, event: z0.Event[None], step: z0.Step) -> str:
            await step.do("harmless", lambda: None)
            return await step.do("poison", self.kill)

        async def kill(self, context: z0.StepContext) -> str:
            if not repaired:
                killed.append(context.attempt)
                asyncio.get_running_loop().call_soon(lambda: asyncio.ensure_future(crash(runtimes[-1])))
                await clock.sleep("1 hour")
            return "alive"

    class Sleeper(z0.Workflow):
        recoveries_max = 1

        async def run(self, event: z0.Event[None], step: z0.Step) -> str:
            await step.sleep("night", "1 day")
            return "awake"

    for _ in range(6):
        async with z0.Runtime(data, actors=[Poison, Sleeper], clock=clock) as runtime:
            runtimes.append(runtime)
            with contextlib.suppress(z0.ActorReset, z0.RuntimeClosed):
                await runtime.workflows.create(Sleeper, id="innocent", on_conflict="existing")
                await runtime.workflows.create(Poison, id="poison", on_conflict="existing")
                await clock.advance("1 minute")
    assert killed == [1] * 4, "the first time, and three more"
    async with z0.Runtime(data, actors=[Poison, Sleeper], clock=clock) as runtime:
        poison = runtime.workflows.get(Poison, "poison")
        status = await poison.status()
        assert (status.status, status.error) == ("paused", None)
        assert status.reason is not None
        assert status.reason.startswith("do:poison#1 was cut off 3 times in a row (recoveries_max)")
        repaired.append(True)
        await poison.resume()
        assert await poison.result("1 second") == "alive"
        assert (await poison.status()).reason is None
        await clock.advance("1 day")
        assert await runtime.workflows.get(Sleeper, "innocent").result("1 second") == "awake"


async def test_an_instance_that_gets_on_between_is_never_put_aside(data: Path, clock: VirtualClock) -> None:
    runtimes: list[z0.Runtime] = []

    class Unlucky(z0.Workflow):
        recoveries_max = 1

        async def run(self, event: z0.Event[None], step: z0.Step) -> int:
            for number in range(4):
                await step.do(f"step {number}", self.cut_off_once)
            return len(runtimes)

        async def cut_off_once(self, context: z0.StepContext) -> None:
            if self.env.setdefault(context.name, len(runtimes)) == len(runtimes):
                asyncio.get_running_loop().call_soon(lambda: asyncio.ensure_future(crash(runtimes[-1])))
                await clock.sleep("1 hour")

    env: dict[str, int] = {}
    for _ in range(4):
        async with z0.Runtime(data, actors=[Unlucky], clock=clock, env=env) as runtime:
            runtimes.append(runtime)
            with contextlib.suppress(z0.ActorReset, z0.RuntimeClosed):
                await runtime.workflows.create(Unlucky, id="x", on_conflict="existing")
                await clock.advance("1 minute")
    async with z0.Runtime(data, actors=[Unlucky], clock=clock, env=env) as runtime:
        runtimes.append(runtime)
        assert await runtime.workflows.get(Unlucky, "x").result("1 second") == 5
    with pytest.raises(ValueError, match="recoveries_max=0: give 1 or more"):
        type("Wrong", (z0.Workflow,), {"recoveries_max": 0})


async def test_an_attempt_is_cancelled_at_once_when_its_instance_is_terminated_and_leaves_no_task(
    data: Path, clock: VirtualClock
) -> None:
    seen: list[str] = []

    async def long() -> None:
        try:
            await clock.sleep("1 hour")
        finally:
            seen.append(f"ended after {clock.monotonic():.0f} seconds")

    async with running(data, clock, lambda step: step.do("long", long, timeout=None)) as (_, instance):
        await clock.advance("5 seconds")
        before = len(asyncio.all_tasks())
        await instance.terminate()
        await clock.settle()
        assert seen == ["ended after 5 seconds"]
        assert len(asyncio.all_tasks()) < before


# Patterns in the place of settings


async def test_missing_heartbeats_time_out_and_regular_ones_keep_a_wait_alive(data: Path, clock: VirtualClock) -> None:
    async def body(step: z0.Step) -> str:
        beats = 0
        while True:
            try:
                event = await step.wait_for_event("job", type="job", timeout="5 minutes")
            except z0.EventTimeout:
                return f"lost after {beats} beats"
            if event.payload == "done":
                return f"done after {beats} beats"
            beats += 1

    for done in (True, False):
        async with running(data / str(done), clock, body) as (_, instance):
            for _ in range(3):
                await clock.advance("4 minutes")
                await instance.send_event("job", "beat")
            if done:
                await instance.send_event("job", "done")
            await clock.advance("5 minutes")
            assert await instance.result("1 second") == f"{'done' if done else 'lost'} after 3 beats"


class Part(z0.Workflow):
    async def run(self, event: z0.Event[int], step: z0.Step) -> int:
        await step.sleep("night", "8 hours")
        return event.payload


class Limited(z0.Workflow):
    """All that it does has an hour."""

    async def run(self, event: z0.Event[Any], step: z0.Step) -> str:
        async def work() -> str:
            await step.do("first", lambda: 1)
            return f"part {await step.workflow(Part, 1)}"

        async def limit() -> str:
            await step.sleep("limit", "1 hour")
            return "out of time"

        return await step.race([work(), limit()])  # type: ignore[no-any-return]


async def test_a_limit_for_a_whole_body_is_a_race_that_survives_a_crash_and_ends_its_children(
    z0_runtimes: Any, z0_clock: VirtualClock
) -> None:
    async with z0_runtimes(actors=[Limited, Part]) as runtime:
        await runtime.workflows.create(Limited, id="one")
        await z0_clock.advance("30 minutes")
        await crash(runtime)
    async with z0_runtimes(actors=[Limited, Part]) as runtime:
        await z0_clock.advance("31 minutes")
        assert await runtime.workflows.get(Limited, "one").result("1 second") == "out of time"
        (child,) = await runtime.workflows.list(Part)
        assert child.status == "terminated"


# Code that changes


async def test_a_patch_that_is_taken_out_too_early_is_found_out(data: Path, clock: VirtualClock) -> None:
    async def patched(step: z0.Step) -> None:
        await step.do("new" if step.patched("change") else "old", lambda: 1)
        await step.sleep("-", "1 day")

    async def before(step: z0.Step) -> None:
        await step.do("old", lambda: 1)
        await step.sleep("-", "1 day")

    async with running(data, clock, patched):
        pass
    async with running(data, clock, before) as (_, instance):
        await clock.advance("2 days")
        with pytest.raises(z0.NonDeterminismError, match=r"has do:new#1, but the code came to do:old#1"):
            await instance.result("1 second")


async def test_a_failed_run_and_one_under_way_replay_too(tmp_path: Path, clock: VirtualClock) -> None:
    def body_of(*, fails: bool) -> Body:
        async def body(step: z0.Step) -> str:
            await step.do("a", lambda: 1)
            if fails:
                raise ValueError("of the body")
            await step.sleep("-", "1 day")
            return "done"

        return body

    for fails in (True, False):
        async with running(tmp_path / str(fails), clock, body_of(fails=fails)):
            pass
        file = tmp_path / str(fails) / "default/Scripted/one.sqlite"
        same = await replay(file, Scripted, env={"body": body_of(fails=fails)})
        assert (same.problem, same.ends) == (None, fails)
    failed = tmp_path / "True/default/Scripted/one.sqlite"
    repaired = await replay(failed, Scripted, env={"body": body_of(fails=False)})
    assert (repaired.problem, repaired.reached) == (None, ["sleep:-#1"]), "retrying it would go on there"


async def test_a_body_that_blocks_the_loop_is_named(caplog: pytest.LogCaptureFixture) -> None:
    class Blocking(z0.Workflow):
        async def run(self, event: z0.Event[None], step: z0.Step) -> None:
            await step.do("blocks", lambda: threading.Event().wait(0.4))

    async with temporary_runtime(memory=True, limits=z0.Limits(blocked_seconds=0.05)) as runtime:
        await (await runtime.workflows.create(Blocking, id="one")).result()
    assert any("by actor Blocking/one" in record.getMessage() for record in caplog.records)


async def test_an_instance_that_leaves_the_memory_leaves_nothing_of_itself_there(
    data: Path, clock: VirtualClock
) -> None:
    bodies: list[weakref.ref[Any]] = []

    class Left(Scripted):
        async def run(self, event: z0.Event[Any], step: z0.Step) -> None:
            bodies.append(weakref.ref(self))
            await step.sleep("one", "1 day")
            await step.sleep("two", "1 day")

    async with running(data, clock, lambda step: None, Left) as (runtime, instance):
        await clock.advance("1 minute")
        tasks = len(asyncio.all_tasks())
        for _ in range(2):
            await clock.advance("1 day")
        await instance.result("1 second")
        await clock.advance("1 minute")
        gc.collect()
        assert not runtime.node.hosts
        assert len(asyncio.all_tasks()) == tasks
    assert len(bodies) == 3
    assert [body() for body in bodies] == [None] * 3


# Many, and looked at


async def test_many_are_paused_resumed_terminated_and_deleted_with_a_report_of_each(clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, clock=clock, actors=[Part]) as runtime:
        workflows = runtime.workflows
        ids = [f"i{n}" for n in range(120)]
        assert len((await workflows.create_batch(Part, [{"payload": 1, "id": id} for id in ids])).created) == 120
        for verb, status in (("pause", "paused"), ("resume", "waiting"), ("terminate", "terminated")):
            report = await workflows.bulk(Part, verb, ids)  # type: ignore[arg-type]
            assert [(each.id, each.done) for each in report] == [(id, True) for id in ids]
            await clock.settle()
            assert await workflows.counts(Part) == {status: 120}
        report = await workflows.bulk(Part, "delete", [*ids, "i0", "nobody"])
        assert [(each.id, each.done) for each in report] == [*((id, True) for id in ids), ("nobody", False)]
        assert "does not exist" in report[-1].message
        assert await workflows.list(Part) == []


class Above(z0.Workflow):
    async def spawn(self) -> str:
        return (await self.workflows.create(Part, 3)).id

    async def run(self, event: z0.Event[Any], step: z0.Step) -> list[int]:
        await step.do("own", lambda: self.ledger.append("own", amount=1))
        await step.do("account", lambda: self.get(Account, "a").append("x", amount=2))
        await step.do("detached", self.spawn)
        return await step.all([step.workflow(Part, 1), step.workflow(Part, 2)])


async def test_the_children_that_an_instance_waits_for_are_listed_by_its_id(clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, clock=clock, actors=[Above, Part, Account]) as runtime:
        for id in ("one", "two"):
            await runtime.workflows.create(Above, id=id)
        await clock.settle()
        children = await runtime.workflows.list(Part, prefix="one-")
        assert [each.status for each in children] == ["waiting"] * 2
        assert len(await runtime.workflows.list(Part)) == 6


async def test_facts_and_children_of_an_instance_belong_to_its_tenant(clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, clock=clock, actors=[Above, Part, Account]) as runtime:
        tenant = runtime.tenant("t1")
        instance: z0.Instance[Any] = await tenant.workflows.create("Above", id="one")
        await clock.advance("9 hours")
        assert await instance.result("1 second") == [1, 2]
        (own,) = await tenant.get(Above, "one").query_facts()
        (other,) = await tenant.get(Account, "a").query_facts()
        assert own.tenant_id == other.tenant_id == "t1"
        assert await tenant.workflows.counts(Part) == {"complete": 3}
        assert await runtime.workflows.counts(Part) == {}
        assert await amounts(runtime, "a") == []


async def test_steps_tell_when_they_began_and_ended_and_lists_when_each_wakes(data: Path, clock: VirtualClock) -> None:
    async def slow() -> None:
        await clock.sleep("90 seconds")

    async def body(step: z0.Step) -> None:
        await step.do("slow", slow)
        await step.sleep("night", "8 hours")

    async with running(data, clock, body) as (runtime, instance):
        await clock.advance("1 hour")
        slow_, night = await instance.steps()
        start = datetime(2026, 1, 1, tzinfo=UTC)
        assert (slow_.begun, slow_.ended) == (start, start + timedelta(seconds=90))
        assert (night.begun, night.ended) == (start + timedelta(seconds=90), None)
        (info,) = await runtime.workflows.list(Scripted)
        assert info.wake_at == start + timedelta(seconds=90, hours=8)
        assert info.last_use is not None
        assert start < info.last_use < start + timedelta(hours=1)


async def test_events_tell_of_undoing_as_they_do_of_steps(clock: VirtualClock) -> None:
    failing = [True, True]

    def undo(context: z0.RollbackContext) -> None:
        if context.attempt == 1 and failing:
            failing.pop()
            raise ConnectionError("down")

    class Undone(z0.Workflow):
        async def run(self, event: z0.Event[None], step: z0.Step) -> None:
            retries = z0.Retries(limit=1, delay="1 minute")
            await step.do("a", lambda: 1, rollback=z0.Rollback(undo, retries=retries))
            raise ValueError("end")

    async with temporary_runtime(memory=True, clock=clock, actors=[Undone]) as runtime:
        instance = await runtime.workflows.create(Undone)
        await clock.advance("1 hour")
        events = [event async for event in instance.events()]
    told = [event.type for event in events if event.type.startswith("rollback")]
    assert told == [
        "rollback_started", "rollback_step_started", "rollback_attempt_started", "rollback_attempt_errored",
        "rollback_attempt_started", "rollback_attempt_completed", "rollback_step_completed", "rollback_completed",
    ]  # fmt: skip
    (errored,) = [event for event in events if event.type == "rollback_attempt_errored"]
    assert (errored.attempt, errored.retry_delay_ms) == (1, 60_000)


async def test_events_of_a_step_that_is_retried_begin_anew(data: Path, clock: VirtualClock) -> None:
    down = [True]

    def work() -> str:
        if down:
            raise ConnectionError("down")
        return "up"

    async with running(data, clock, lambda step: step.do("x", work, retries=z0.Retries(limit=0))) as (_, instance):
        assert await end_of(instance) == "errored"
        down.clear()
        await instance.retry()
        await instance.result("1 second")
        told = [event.type async for event in instance.events(types={"step_started", "attempt_started"})]
        assert told == ["step_started", "attempt_started"] * 2


# Guests that fail


async def test_a_tracer_that_fails_breaks_no_step(clock: VirtualClock, caplog: pytest.LogCaptureFixture) -> None:
    class Span(contextlib.AbstractContextManager[object]):
        def __exit__(self, *error: object) -> None:
            raise LookupError("the span is lost")

    class Tracer:
        listens = True

        def here(self) -> str | None:
            raise RuntimeError("nowhere")

        def span(self, name: str, parent: str | None, attributes: dict[str, str | int]) -> Span:
            if name.endswith(".a"):
                raise RuntimeError("no spans today")
            return Span()

    class Traced(z0.Workflow):
        async def run(self, event: z0.Event[None], step: z0.Step) -> list[str]:
            done = [await step.do(name, lambda name=name: name) for name in "ab"]
            with pytest.raises(KeyError):
                await step.do("c", raising(KeyError("c")), retries=z0.Retries(limit=0))
            return done

    caplog.set_level(logging.WARNING, "z0.workflows")
    async with temporary_runtime(memory=True, clock=clock, actors=[Traced], tracer=Tracer()) as runtime:
        instance = await runtime.workflows.create(Traced)
        assert await instance.result("1 second") == ["a", "b"]
        assert "attempt_errored" not in await events_of(instance)
    said = [record.getMessage() for record in caplog.records]
    assert sum("no spans today" in each for each in said) == 1
    assert sum("the span is lost" in each for each in said) == 3  # the instance's own, and those of b and c
    assert sum("nowhere" in each for each in said) == 1
